"""A control group with little memory, in which the kernel kills who takes more."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_OLD, _NEW = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
MIB = 2**20


@contextlib.contextmanager
def small_group(limit: int = 128 * MIB) -> Iterator[Path]:
    """A group whose processes have `limit` bytes of memory; gone afterwards. Raises OSError where none can be made."""
    old = (_OLD / "memory.limit_in_bytes").exists()
    group = Path(tempfile.mkdtemp(prefix="starving-", dir=_OLD if old else _NEW))
    try:
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit))
        with contextlib.suppress(OSError):  # where there is no swap there is nothing to limit
            (group / ("memory.memsw.limit_in_bytes" if old else "memory.swap.max")).write_text(str(limit if old else 0))
        yield group
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


def can_starve() -> bool:
    """Whether such a group can be made here."""
    try:
        with small_group():
            return "oom_kill" in Path("/proc/vmstat").read_text()
    except OSError:
        return False
