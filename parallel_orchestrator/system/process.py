"""What the kernel promises about processes: who still lives, who dies with whom, who may look inside.

Linux. Elsewhere the death signal and the dumpable flag do not exist; the calls then do nothing and say so
by returning False.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def process_birth(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot; None when there is none, -1 where /proc is missing."""
    try:
        # The command name may hold spaces and parentheses, so count from the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() or not _signalable(pid) else -1
    return None if fields[0] in "ZX" else int(fields[19])


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal, and does nothing until another has it go on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


class Stopped:
    """For how long one process has been stopped by a signal, as far as it was looked at."""

    def __init__(self) -> None:
        self._since: float | None = None

    def seconds(self, pid: int) -> float:
        """Since it was first found stopped without going on in between; 0 while it is not."""
        if not is_stopped(pid):
            self._since = None
            return 0.0
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since


def die_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when its parent `parent` dies. Ends at once when that has happened already."""
    done = _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    return done


def hide_memory() -> bool:
    """Bar other processes of the same user from this one's memory and environment. Root is not barred."""
    return _prctl(_PR_SET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    status: int = ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
    return status == 0


def _signalable(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
