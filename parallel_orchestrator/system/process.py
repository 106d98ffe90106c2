"""What the kernel offers for processes: whether one lives, which dies with its parent, which hides its memory.

Other systems than Linux have neither the death signal nor the dumpable flag. The calls then do nothing and return
False.
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
    """Return a live process's start in clock ticks since boot; None if it does not live, -1 without /proc."""
    try:
        # The command's name may hold spaces and parentheses, so the fields are counted from the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() or not _signalable(pid) else -1
    return None if fields[0] in "ZX" else int(fields[19])


def is_stopped(pid: int) -> bool:
    """Whether a signal stopped the process, so that it does nothing until SIGCONT."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


class Stopped:
    """Measures how long a signal has kept one process stopped."""

    def __init__(self) -> None:
        self._since: float | None = None

    def seconds(self, pid: int) -> float:
        """Return the seconds since the first of the calls in a row that found it stopped; 0 while it is not."""
        if not is_stopped(pid):
            self._since = None
            return 0.0
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since


def die_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when its parent dies. Exits at once when the parent is dead already."""
    # First the request, then the check: a parent that dies before the request sends no signal, and the check sees it.
    done = _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    return done


def hide_memory() -> bool:
    """Hide this process's memory and environment from other processes of the user, except root's."""
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
