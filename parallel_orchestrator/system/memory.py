"""Memory that ran out: whether the kernel killed for lack of it, and how to run a command alone.

The kernel counts the processes that it kills: in the memory control group of this process (those of its own group),
and in /proc/vmstat (those of the whole machine). A command that ended badly while a count rose proves nothing, and
is repeated alone. Executors share a folder with two locks for that:

    shared   held by each command that runs
    gate     taken for a moment before `shared`, and kept by a process that waits to be alone
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

from parallel_orchestrator.records.errors import OutOfMemory

LOCKS = ("commands.lock", "commands.gate")
"""The files in the shared folder."""

_KILLED = 128 + signal.SIGKILL
_MACHINE = "machine"
_GROUPS = Path("/sys/fs/cgroup")

Kills = Mapping[str, int]
"""Processes killed so far for lack of memory, by the counter that says so."""


def kills(proc: Path = Path("/proc"), groups: Path = _GROUPS) -> Kills:
    """Read the counters that can be read; none where the system has none."""
    counted: dict[str, int] = {}
    for name, path in (("group", _own_group(proc, groups)), (_MACHINE, proc / "vmstat")):
        with contextlib.suppress(OSError, ValueError):
            words = path.read_text().split() if path else []
            counted[name] = int(words[words.index("oom_kill") + 1])
    return counted


def killed_since(before: Kills, code: int) -> bool:
    """Return whether what ended with exit code `code` (128 + N: by signal N) may have failed for lack of memory.

    `before` are the counters at its start. The machine's count says nothing of who was killed, so with it alone only
    an end by SIGKILL counts.
    """
    if code == 0:
        return False
    risen = {name for name, count in kills().items() if count > before.get(name, count)}
    return bool(risen - {_MACHINE}) or (bool(risen) and code == _KILLED)


def memory_there(proc: Path = Path("/proc"), groups: Path = _GROUPS) -> int:
    """Returns the bytes that this process and its children may use: the machine's, or the control group's limit."""
    total = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        total = 1024 * int((proc / "meminfo").read_text().split()[1])
    group = _own_group(proc, groups)
    for name in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int((group.parent / name).read_text()) if group else 0
            total = min(total, limit) if limit else total
    return total


def _own_group(proc: Path, groups: Path) -> Path | None:
    """The file with this process's own count: of the unified hierarchy, or of the old one for memory."""
    with contextlib.suppress(OSError):
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            old = controllers == "memory"
            root, name = (groups / "memory", "memory.oom_control") if old else (groups, "memory.events")
            if (old or not controllers) and (found := root / path.lstrip("/") / name).exists():
                return found
    return None


class Room:
    """How this process shares the machine's memory with the other executors' processes."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._executors = 1
        self._alone: ContextVar[bool] = ContextVar("alone", default=False)
        self.on_wait: Callable[[], None] = lambda: None
        """Called before a wait for the others' commands, which may take minutes."""
        self.on_turn: Callable[[], None] = lambda: None
        """Called when such a wait is over."""

    def use(self, folder: Path, executors: int) -> None:
        """Share with at most `executors` executors, by locks in `folder`."""
        self._folder, self._executors = folder, executors

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Let the block's command run with those of others, but never with one that has to be alone."""
        if self._alone.get():
            yield
            return
        with self._lock(0) as lock:
            with self._lock(1) as gate:
                self._take(gate, fcntl.LOCK_SH)
                self._take(lock, fcntl.LOCK_SH)
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other executor runs a command, and keep them from it until the block ends."""
        with self._lock(1) as gate, self._lock(0) as lock:
            self._take(gate, fcntl.LOCK_EX)
            self._take(lock, fcntl.LOCK_EX)
            before = self._alone.set(True)
            try:
                yield
            finally:
                self._alone.reset(before)

    def exhausted(self, what: str, peak: int) -> OutOfMemory:
        """The error for what was killed again when it ran alone; `peak`: bytes that it was seen to use."""
        return lacking(what, peak, self._executors)

    def _take(self, descriptor: int, mode: int) -> None:
        if descriptor < 0:
            return
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            self.on_wait()
            fcntl.flock(descriptor, mode)
            self.on_turn()

    @contextlib.contextmanager
    def _lock(self, number: int) -> Iterator[int]:
        """A descriptor of its own for a lock; -1 where there is nothing to share with."""
        descriptor = -1
        if self._folder:
            with contextlib.suppress(OSError):
                descriptor = os.open(self._folder / LOCKS[number], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            if descriptor >= 0:
                os.close(descriptor)


ROOM = Room()
"""That of this process."""


def lacking(what: str, peak: int, executors: int) -> OutOfMemory:
    """The error for `what` the kernel killed for lack of memory.

    `peak`: bytes that it was seen to use, 0 if unknown; `executors`: how many may run such a thing at once.
    """
    seen = f"; it was seen to use {_gib(peak)}, and {executors} such at once want {_gib(executors * peak)}"
    need = seen if peak else ""
    return OutOfMemory(
        f"the kernel killed {what} for lack of memory, also when it ran alone{need}. "
        f"{_gib(memory_there())} are there. No task is to blame and nothing is lost: "
        "resume with fewer --max-executors, or with more memory"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
