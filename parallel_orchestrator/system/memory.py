"""Lack of memory: whether the kernel killed processes for it, and how to run a command alone.

The kernel counts the processes that it kills: in this process's memory control group (those of the group), and in
/proc/vmstat (those of the whole machine). A command that fails while a count rises proves nothing and is repeated
alone. For that, executors share a folder with two locks:

    commands.lock   shared: held by each command that runs. Exclusive: held by the one that runs alone
    commands.gate   each command takes it for a moment first; a process that waits to be alone keeps it, so that no
                    new command starts before it
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
"""Processes killed so far for lack of memory, by counter."""


def kills(proc: Path = Path("/proc"), groups: Path = _GROUPS) -> Kills:
    """Read the counters that the system has."""
    counted: dict[str, int] = {}
    for name, path in (("group", _own_group(proc, groups)), (_MACHINE, proc / "vmstat")):
        with contextlib.suppress(OSError, ValueError):
            words = path.read_text().split() if path else []
            counted[name] = int(words[words.index("oom_kill") + 1])
    return counted


def killed_since(before: Kills, code: int) -> bool:
    """Whether a process with exit code `code` (128 + N: by signal N) may have failed for lack of memory.

    `before`: the counters at its start. The machine's count does not say which process was killed. When only that one
    rose, only an end by SIGKILL counts.
    """
    if code == 0:
        return False
    risen = {name for name, count in kills().items() if count > before.get(name, count)}
    return bool(risen - {_MACHINE}) or (bool(risen) and code == _KILLED)


def memory_there(proc: Path = Path("/proc"), groups: Path = _GROUPS) -> int:
    """Return the bytes that this process and its children may use: the machine's, or the control group's limit."""
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
    """Return the file with this process's own count, in the unified hierarchy or that of version 1."""
    with contextlib.suppress(OSError):
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            old = controllers == "memory"
            root, name = (groups / "memory", "memory.oom_control") if old else (groups, "memory.events")
            if (old or not controllers) and (file := root / path.lstrip("/") / name).exists():
                return file
    return None


class Room:
    """Orders this process's commands with those of the other executors, which share the machine's memory."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._executors = 1
        self._alone: ContextVar[bool] = ContextVar("alone", default=False)
        self.on_wait: Callable[[], None] = lambda: None
        """Called before a wait for commands of other executors, which may take minutes."""
        self.on_turn: Callable[[], None] = lambda: None
        """Called after such a wait."""

    def use(self, folder: Path, executors: int) -> None:
        """Share the memory with at most `executors` executors, by locks in `folder`."""
        self._folder, self._executors = folder, executors

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Run the block's command beside those of other executors, but never beside one that runs alone."""
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
        """Run the block while no other executor runs a command."""
        with self._lock(1) as gate, self._lock(0) as lock:
            self._take(gate, fcntl.LOCK_EX)
            self._take(lock, fcntl.LOCK_EX)
            before = self._alone.set(True)
            try:
                yield
            finally:
                self._alone.reset(before)

    def exhausted(self, what: str, peak: int) -> OutOfMemory:
        """Return the error for a command that was killed again when it ran alone. `peak`: the most bytes seen."""
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
        """Open a lock. Yields -1 when no folder is shared."""
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
"""This process's."""


def lacking(what: str, peak: int, executors: int) -> OutOfMemory:
    """Return the error for `what` the kernel killed for lack of memory.

    `peak`: the most bytes seen, 0 if unknown. `executors`: how many may run at once.
    """
    seen = f"; it used {_gib(peak)}, and {executors} at once would need {_gib(executors * peak)}"
    need = seen if peak else ""
    return OutOfMemory(
        f"the kernel killed {what} for lack of memory, also when it ran alone{need}. "
        f"The machine has {_gib(memory_there())}. No task is to blame, and nothing is lost. "
        "Resume with fewer --max-executors, or with more memory"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
