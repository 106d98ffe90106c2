"""The least that M processes can do for a pair: take the kernel's lock, append as many bytes as our pair has, let go.

Nobody reads what the others wrote, so nobody knows what is left to do: a limit, not a queue.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from benchmarks.contestants import Job
from benchmarks.contestants.taking import Opened, race


def fill(folder: Path, _job: Job) -> None:
    """A lock and an empty file."""
    (folder / "lock").touch()
    (folder / "file").touch()


def opened(folder: Path, job: Job, _number: int) -> Opened:
    """So many appends for each process."""
    lock, file = os.open(folder / "lock", os.O_RDWR), os.open(folder / "file", os.O_RDWR | os.O_APPEND)
    line, left, sync = b"x" * (job["bytes"] - 1) + b"\n", job["tasks"] // job["processes"], job["sync"]
    waits: list[float] = []

    def pair() -> bool:
        nonlocal left
        if not left:
            return False
        left -= 1
        begun = time.monotonic()
        fcntl.flock(lock, fcntl.LOCK_EX)
        waits.append(time.monotonic() - begun)
        os.write(file, line)
        fcntl.flock(lock, fcntl.LOCK_UN)
        if sync:
            os.fdatasync(file)
        return True

    return pair, waits


if __name__ == "__main__":
    race(fill, opened)
