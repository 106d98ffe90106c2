"""Starting worker processes: quickly, with none of the caller's state, and dying with the caller.

A fork server imports the SDK once and forks ready workers: 200 in seconds, while spawn would import it 200 times.
Three things differ from multiprocessing's plain fork server:

- Workers do not import the caller's `__main__` again. An unguarded script, standard input, `-c` and a notebook cell
  all work. In exchange nothing that `__main__` defines can be passed to a worker.
- The server starts with a clean environment. So no process whose environment an agent's command could read ever held
  a credential.
- The kernel ends the workers with the server, and the server with the caller.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.context
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, TypeVar

from parallel_orchestrator.records.errors import CannotGoOn, UsageError
from parallel_orchestrator.system.environment import clean_environment
from parallel_orchestrator.system.invocation import INVOKED_AS, invoked_as
from parallel_orchestrator.system.process import die_with_parent, hide_memory

_LONGEST_TEMPORARY = 60
"""Bytes of the temporary directory's path. A socket's path has 107 at most, with multiprocessing's own names."""

_DYING_S = 2.0
"""For a fork server to exit after its pipes closed."""

log = logging.getLogger(__name__)

_one_at_a_time = threading.Lock()


class InheritedDescriptor:
    """A file descriptor; passed as an argument, the worker gets a duplicate."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getstate__(self) -> Any:
        return DupFd(self.number)

    def __setstate__(self, duplicate: Any) -> None:
        self.number = duplicate.detach()


def warm_up(preload: Sequence[str]) -> None:
    """Start the fork server. It imports the modules named by `preload` while the caller continues."""
    _context(preload)
    _started(multiprocessing.forkserver.ensure_running)


def start_process(target: Callable[..., None], args: tuple[Any, ...], name: str, preload: Sequence[str]) -> BaseProcess:
    """Start `target(*args)` in a worker process. At the first call the server imports the modules in `preload`.

    Callable in several threads at once. Raises CannotGoOn.
    """
    context = _context(preload)

    def start() -> BaseProcess:
        process = context.Process(target=target, args=args, name=name, daemon=True)
        process.start()
        return process

    return _started(start)


Result = TypeVar("Result")


def _started(start: Callable[[], Result]) -> Result:
    """Return `start()`, repeated with another fork server when the first one dies meanwhile. Raises CannotGoOn."""
    for last in (False, True):
        try:
            with _starting():
                return start()
        except (EOFError, OSError) as error:  # an escaping EOFError would look like Ctrl-C to the command line
            if last:
                raise _no_process(error) from error
            log.warning("the fork server died while it started a process (%r); starting another", error)
            _await_end()
    raise AssertionError("the second try returns or raises")


def _await_end() -> None:
    """Wait until the fork server has exited. Its pipes close a moment earlier, when it still counts as running."""
    deadline = time.monotonic() + _DYING_S
    while _is_running() and time.monotonic() < deadline:
        time.sleep(0.01)


def _no_process(error: EOFError | OSError) -> CannotGoOn:
    why = f"{type(error).__name__}: {error}" if str(error) else "it died while it started one"
    where = tempfile.gettempdir()
    gone = "" if Path(where).is_dir() else f"; the temporary folder {where} does not exist any more"
    return CannotGoOn(
        f"the fork server cannot start a process ({why}{gone}). Nothing is lost. Correct that, then resume"
    )


@contextmanager
def _starting() -> Iterator[None]:
    """Prepare this whole process for a start, one start at a time.

    The environment changes only while no server runs: other threads may start programs with it.
    """
    with _one_at_a_time:
        environment = nullcontext() if _is_running() else _clean_environment()
        with _bare_main(), environment, _short_temporary_directory(), _no_interrupt():
            yield


def _context(preload: Sequence[str]) -> multiprocessing.context.ForkServerContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        raise UsageError("this system cannot fork processes (Windows cannot); use Linux, macOS or WSL")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def become_worker() -> None:
    """Set up a worker: it dies with the server, hides its memory, and leaves Ctrl-C to the caller."""
    die_with_parent(os.getppid())
    hide_memory()  # it holds the secret that signs the tokens of tasks
    _let_server_die()
    # Ctrl-C reaches the whole terminal group. The caller alone decides how the run stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # inherited from `_no_interrupt`


def how_it_died(code: int) -> str:
    """Describe a worker's exit code, as the end of a sentence."""
    if code == -signal.SIGKILL:
        return "was killed (signal 9), likely out of memory or by hand"
    return f"died by signal {-code}" if code < 0 else f"ended with code {code}"


def _let_server_die() -> None:
    """Close the pipe by which the fork server sees that the caller lives.

    multiprocessing gives each worker a copy, so that a worker could start processes, too. With that copy open the
    order of deaths would break: the caller is killed, the server waits for the workers' copies, and the workers wait
    for the server.
    """
    alive = getattr(_server(), "_forkserver_alive_fd", None)
    if alive is not None:
        os.close(alive)


def _server() -> Any:
    """Return multiprocessing's fork server, which has no public accessor."""
    return multiprocessing.forkserver._forkserver


def _is_running() -> bool:
    """Whether a fork server lives."""
    pid = getattr(_server(), "_forkserver_pid", None)
    return pid is not None and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Block SIGINT in this thread, and so in the process that it starts: Ctrl-C reaches the whole terminal group.

    A fork server ignores SIGINT only after importing its preload. Before that it would print a traceback.
    """
    multiprocessing.resource_tracker.ensure_running()  # started later, it would unblock SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _bare_main() -> Iterator[None]:
    """Show multiprocessing an empty `__main__`, so that it imports nothing again in the child."""
    real = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = real


@contextmanager
def _short_temporary_directory() -> Iterator[None]:
    """Show multiprocessing /tmp where $TMPDIR is too long for the path of a socket."""
    real = tempfile.gettempdir()
    if len(os.fsencode(real)) > _LONGEST_TEMPORARY:
        tempfile.tempdir = "/tmp"  # noqa: S108 - multiprocessing makes its own directory there
    try:
        yield
    finally:
        tempfile.tempdir = real


@contextmanager
def _clean_environment() -> Iterator[None]:
    """Start the fork server with a clean environment and this process's import path.

    Before 3.12.4 a fork server ignores the import path that multiprocessing passes, and preloads nothing. Without
    PYTHONSAFEPATH it would search the working directory first, where any file may have the name of a module.
    """
    real = dict(os.environ)
    for name in real.keys() - clean_environment(real).keys():
        del os.environ[name]
    os.environ[INVOKED_AS] = invoked_as()
    os.environ["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(real)
