"""The least that is a queue of this kind: under the lock, read the new lines, pick the next task, append one line.

No checksum, no order of choice, no dependencies, no attempts, no claim numbers: a JSON line says what was done and what
was taken, padded to the size of our records. In Python, as ours.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import deque
from pathlib import Path

from benchmarks.contestants import Job
from benchmarks.contestants.bare_lock import fill
from benchmarks.contestants.taking import Opened, race


def opened(folder: Path, job: Job, _number: int) -> Opened:
    """What has been taken is known from the lines; the rest is taken in order."""
    lock, file = os.open(folder / "lock", os.O_RDWR), os.open(folder / "file", os.O_RDWR | os.O_APPEND)
    waiting = deque(range(job["tasks"]))
    taken: set[int] = set()
    offset, held = 0, None
    waits: list[float] = []

    def pair() -> bool:
        nonlocal offset, held
        begun = time.monotonic()
        fcntl.flock(lock, fcntl.LOCK_EX)
        waits.append(time.monotonic() - begun)
        data = os.pread(file, 1 << 20, offset)
        offset += len(data)
        taken.update(json.loads(line)["took"] for line in data.splitlines())
        while waiting and waiting[0] in taken:
            waiting.popleft()
        done, held = held, waiting.popleft() if waiting else None
        line = json.dumps({"done": done, "took": held}).encode()
        line = line + b" " * (job["bytes"] - 1 - len(line)) + b"\n"
        os.write(file, line)
        offset += len(line)
        fcntl.flock(lock, fcntl.LOCK_UN)
        if job["sync"]:
            os.fdatasync(file)
        return held is not None

    return pair, waits


if __name__ == "__main__":
    race(fill, opened)
