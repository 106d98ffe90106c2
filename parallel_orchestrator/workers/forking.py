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

import multiprocessing
import multiprocessing.context
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.store.environment import clean_environment

_LONGEST_TEMPORARY = 60
"""Bytes of a temporary directory in which multiprocessing's sockets have room; a socket's path has 107 in all."""


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
    with _bare_main(), _clean_environment(), _short_temporary_directory(), _no_interrupt():
        multiprocessing.forkserver.ensure_running()


def start_process(target: Callable[..., None], args: tuple[Any, ...], name: str, preload: Sequence[str]) -> BaseProcess:
    """Start `target(*args)` in a worker process. `preload` names modules that the first call has the server import."""
    process = _context(preload).Process(target=target, args=args, name=name, daemon=True)
    with _bare_main(), _clean_environment(), _short_temporary_directory(), _no_interrupt():
        process.start()
    return process


def _context(preload: Sequence[str]) -> multiprocessing.context.ForkServerContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        raise UsageError("this system cannot fork processes (Windows cannot); use Linux, macOS or WSL")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    return context


def let_server_die() -> None:
    """In a worker: give up the pipe by which the fork server sees that the caller lives.

    multiprocessing hands each worker a copy, so that a worker could start processes of its own. With it open the
    server would outlive a killed caller for as long as any worker lives, and the workers would outlive it, too.
    """
    server = multiprocessing.forkserver._forkserver  # there is no public way to it
    alive = getattr(server, "_forkserver_alive_fd", None)
    if alive is not None:
        os.close(alive)


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
    os.environ["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(real)
