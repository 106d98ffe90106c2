"""Enforces limits on all of a command's processes together: their number, memory and files.

The kernel's limits (`mounts.limited_command`) hold for each process. Limits on sums need cgroups, which a user seldom
may create. So this module counts, processes and memory twenty times a second and files four times, and a command
beyond a limit is ended. Between two counts it can exceed a limit.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from parallel_orchestrator.system import memory

_FILES_S = 0.25
_SLOWEST_LOOK_S, _SLOWEST_WALK_S = 0.1, 2.0
_SHARE = 20
"""Looks take at most one part in so many of the time, but at least one happens in each slowest interval.

Processes that multiply make each look slower. A monitor that then looked less often would never catch up.
"""

_OF_THE_SANDBOX = 65536
"""Bytes that do not count: while it is set up, the sandbox holds its options in a nameless file."""

_STATUS = re.compile(rb"^(Threads|VmRSS|VmSwap):\s+(\d+)", re.MULTILINE)
_PROPORTIONAL = re.compile(rb"^(?:Pss|SwapPss):\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class ResourceLimits:
    """The most that one command may use, with everything that it starts."""

    processes: int = 256
    """Threads count as well."""
    memory: int = 2 * 2**30
    """Bytes, resident or swapped out. Pages that processes share count once."""
    files: int = 100_000
    """Files and folders in the folders that it can write to."""
    written: int = 2**30
    """Bytes in those folders, by size or by disk space, whichever is more. Open deleted files count."""


USUAL = ResourceLimits()


class ResourceMonitor:
    """Enforces one command's limits. Files that existed before it ran do not count, up to twice the limit."""

    def __init__(self, limits: ResourceLimits, folders: Sequence[Path]) -> None:
        self._limits = limits
        self._folders = folders
        self._room = _room(folders)
        self.violation = ""
        """Which limit the command exceeded; empty while it exceeds none."""
        before = self._taken(2 * limits.files, 2 * limits.written)
        self.initial_violation = self._beyond(before, 2)
        """Why the command must not start: its folders hold more than twice the limit."""
        self._most = max(before[0], limits.files), max(before[1], limits.written) + _OF_THE_SANDBOX
        self._next_look = self._next_walk = 0.0
        self.peak = 0
        """Most bytes of memory that were seen."""
        self._kills = memory.kills()

    def starved(self, code: int) -> bool:
        """Whether a command that ended with `code` may have failed for lack of memory."""
        return not self.violation and memory.killed_since(self._kills, code)

    def allows(self, proc: Path, processes: Callable[[], Sequence[int]]) -> bool:
        """Whether these processes, as `proc` shows them, keep within the limits. Cheap to call often."""
        began = time.monotonic()
        if not self.violation and began >= self._next_look:
            pids = processes()
            self.violation = self._of_processes(proc, pids)
            self._next_look = _after(began, 0.0, _SLOWEST_LOOK_S)
            if not self.violation and began >= self._next_walk:
                self.look_at_files([proc / str(pid) for pid in pids])
                self._next_walk = _after(began, _FILES_S, _SLOWEST_WALK_S)
        return not self.violation

    def look_at_files(self, processes: Sequence[Path] = ()) -> None:
        """Check the files alone; without processes, for a command that ended before the first look."""
        taken = self._taken(*self._most, processes)
        if taken[0] > self._most[0] or taken[1] > self._most[1]:
            self.violation = self.violation or self._beyond(taken, 1)

    def _of_processes(self, proc: Path, pids: Sequence[int]) -> str:
        threads = resident = 0
        crowd = f"it had started more than {self._limits.processes} processes"
        if len(pids) > self._limits.processes:
            return crowd
        for pid in pids:
            with contextlib.suppress(OSError):
                status = dict(_STATUS.findall((proc / str(pid) / "status").read_bytes()))
                threads += int(status.get(b"Threads", 0))
                resident += 1024 * (int(status.get(b"VmRSS", 0)) + int(status.get(b"VmSwap", 0)))
            if threads > self._limits.processes:
                return crowd
        self.peak = max(self.peak, min(resident, self._limits.memory))
        # The kernel walks page tables for the exact sum, so it is asked only when the rough sum is too high.
        if resident > self._limits.memory and _proportional(proc, pids) > self._limits.memory:
            return f"its processes used more than {_spelt(self._limits.memory)} of memory"
        return ""

    def _taken(self, most_files: int, most_bytes: int, processes: Sequence[Path] = ()) -> tuple[int, int]:
        """Count files and bytes. Stops at the first limit, so that a flood of files takes no longer."""
        seen: set[tuple[int, int]] = set()
        files = taken = 0
        hidden = False
        for nameless in _open_and_deleted(processes):
            if (nameless.st_dev, nameless.st_ino) not in seen:
                seen.add((nameless.st_dev, nameless.st_ino))
                taken += 512 * nameless.st_blocks
        for about in (entry for folder in self._folders for entry in _below(folder)):
            if files > most_files or taken > most_bytes:
                break
            files += 1
            if about is None:
                hidden = True
            elif about.st_nlink == 1 or (about.st_dev, about.st_ino) not in seen:
                seen.add((about.st_dev, about.st_ino))
                taken += max(about.st_size, 512 * about.st_blocks)
        # Unreadable folders count as the disk space lost since the start, which is the most that they can hold.
        return files, taken + hidden * max(0, self._room - _room(self._folders))

    def _beyond(self, taken: tuple[int, int], times: int) -> str:
        if taken[1] > times * self._limits.written:
            return f"the project's folder holds more than {_spelt(times * self._limits.written)}"
        if taken[0] > times * self._limits.files:
            return f"the project's folder holds more than {times * self._limits.files:,} files"
        return ""


def _below(folder: Path) -> Iterator[os.stat_result | None]:
    """Yield everything below `folder`, without following links; None for an unreadable folder."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        yield entry.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            yield None


def _open_and_deleted(processes: Sequence[Path]) -> Iterator[os.stat_result]:
    """Yield the files without a name that these processes hold open."""
    for process in processes:
        with contextlib.suppress(OSError), os.scandir(process / "fd") as descriptors:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    about = descriptor.stat()
                    if about.st_nlink == 0 and stat.S_ISREG(about.st_mode):
                        yield about


def _proportional(proc: Path, pids: Sequence[int]) -> int:
    """Return the bytes of memory of these processes; shared pages count once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += sum(map(int, _PROPORTIONAL.findall((proc / str(pid) / "smaps_rollup").read_bytes())))
    return 1024 * total


def _room(folders: Sequence[Path]) -> int:
    """Return the free bytes on the first folder's disk; 0 when the folder is missing."""
    try:
        about = os.statvfs(folders[0])
    except OSError:
        return 0
    return about.f_bfree * about.f_frsize


def _after(began: float, shortest: float, longest: float) -> float:
    """Return the time of the next look, after one that began at `began` and ends now."""
    now = time.monotonic()
    return now + min(longest, max(shortest, _SHARE * (now - began)))


def _spelt(size: int) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"
