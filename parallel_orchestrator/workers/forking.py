"""Starting worker processes: quickly, with nothing of the caller's, and dying with the caller.

A fork server imports the SDK once and forks ready workers: 200 of them in seconds,
where spawning would import it 200 times. Three things differ from multiprocessing's
plain use of one:

- The caller's `__main__` is not imported again. An unguarded script, standard input,
  `-c` and a notebook cell all work; in exchange nothing that `__main__` defines can be
  passed to a worker.
- The server starts with a clean environment, so that no process whose environment
  an agent's command could read ever held a credential.
- Workers die with the server, and the server with the caller, by the kernel's doing.
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
"""Bytes of a temporary directory in which multiprocessing's sockets have room; a socket's path has 107 in all."""

_DYING_S = 2.0
"""For a fork server whose pipes are closed already."""

log = logging.getLogger(__name__)

_one_at_a_time = threading.Lock()


class InheritedDescriptor:
    """A file descriptor that a worker gets a duplicate of when it is passed as an argument."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getstate__(self) -> Any:
        return DupFd(self.number)

    def __setstate__(self, duplicate: Any) -> None:
        self.number = duplicate.detach()


def warm_up(preload: Sequence[str]) -> None:
    """Start the fork server, which imports the modules named by `preload` while the caller does something else."""
    _context(preload)
    _started(multiprocessing.forkserver.ensure_running)


def start_process(target: Callable[..., None], args: tuple[Any, ...], name: str, preload: Sequence[str]) -> BaseProcess:
    """Start `target(*args)` in a worker process. `preload` names modules that the first call has the server import.

    May be called in several threads at once. Raises CannotGoOn.
    """
    context = _context(preload)

    def start() -> BaseProcess:
        process = context.Process(target=target, args=args, name=name, daemon=True)
        process.start()
        return process

    return _started(start)


Result = TypeVar("Result")


def _started(start: Callable[[], Result]) -> Result:
    """What `start` gives; from another fork server when the one that was asked dies meanwhile. Raises CannotGoOn."""
    for last in (False, True):
        try:
            with _starting():
                return start()
        except (EOFError, OSError) as error:  # EOFError is what a command line takes for Ctrl-C
            if last:
                raise _no_process(error) from error
            log.warning("the fork server died while a process was asked of it (%r); starting another", error)
            _await_end()
    raise AssertionError("the second try returns or raises")


def _await_end() -> None:
    """Return when the fork server has ended: its pipes are closed a moment earlier, and so it seems to live still."""
    deadline = time.monotonic() + _DYING_S
    while _is_running() and time.monotonic() < deadline:
        time.sleep(0.01)


def _no_process(error: EOFError | OSError) -> CannotGoOn:
    why = f"{type(error).__name__}: {error}" if str(error) else "it died while it was asked for one"
    where = tempfile.gettempdir()
    gone = "" if Path(where).is_dir() else f"; the temporary folder {where} is not there any more"
    return CannotGoOn(
        f"the fork server cannot start a process ({why}{gone}). Nothing is lost: correct that, then resume"
    )


@contextmanager
def _starting() -> Iterator[None]:
    """What a start needs of this process as a whole, one start at a time.

    The environment changes only while there is no server yet: other threads may start programs with it.
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
    """In a worker, first of all: die with the server, keep others out of this memory, leave Ctrl-C to the caller."""
    die_with_parent(os.getppid())
    hide_memory()  # what signs the tokens of tasks is in it
    _let_server_die()
    # Ctrl-C reaches the whole terminal group; how the run stops is the caller's decision alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # which the fork server was started with


def how_it_died(code: int) -> str:
    """What a worker's exit code says, as the end of a sentence."""
    if code == -signal.SIGKILL:
        return "was killed (signal 9), likely out of memory or by hand"
    return f"died by signal {-code}" if code < 0 else f"ended with code {code}"


def _let_server_die() -> None:
    """Give up the pipe by which the fork server sees that the caller lives.

    multiprocessing hands each worker a copy, so that a worker could start processes of its own. With it open the
    server would outlive a killed caller for as long as any worker lives, and the workers would outlive it, too.
    """
    alive = getattr(_server(), "_forkserver_alive_fd", None)
    if alive is not None:
        os.close(alive)


def _server() -> Any:
    """multiprocessing's one fork server; there is no public way to it."""
    return multiprocessing.forkserver._forkserver


def _is_running() -> bool:
    """Whether there is a fork server that has not died."""
    pid = getattr(_server(), "_forkserver_pid", None)
    return pid is not None and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Block SIGINT in this thread, and so in what it executes: Ctrl-C reaches the whole terminal group.

    A fork server ignores it only once it has imported its preload; before that it would print a traceback.
    """
    multiprocessing.resource_tracker.ensure_running()  # the server's start would do that, and unblock SIGINT after it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _bare_main() -> Iterator[None]:
    """Let multiprocessing find an empty `__main__`, so that it has nothing to import again in the child."""
    real = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = real


@contextmanager
def _short_temporary_directory() -> Iterator[None]:
    """Let multiprocessing find /tmp where $TMPDIR is too long for the path of a socket."""
    real = tempfile.gettempdir()
    if len(os.fsencode(real)) > _LONGEST_TEMPORARY:
        tempfile.tempdir = "/tmp"  # noqa: S108 - it makes a directory of its own there
    try:
        yield
    finally:
        tempfile.tempdir = real


@contextmanager
def _clean_environment() -> Iterator[None]:
    """The environment that the fork server is executed with: what it needs, and our own import path.

    Before 3.12.4 a fork server ignores the import path that multiprocessing hands it, and preloads nothing. Without
    PYTHONSAFEPATH it would look into the working directory first, where anything may lie under our modules' names.
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
