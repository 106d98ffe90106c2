"""No scheduler: one process sleeps for each task of a chain, appends a line for it and syncs that.

The limit on this machine for whoever notes each completion on disk before the next task begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.contestants.sleeping import Run, Tasks, nap, schedule

_LINE = b"x" * 274 + b"\n"
"""As long as our two records of a task are together (benchmarks/queue.py)."""


@contextmanager
def opened(_executors: int) -> Iterator[Run]:
    """There is nothing to start."""
    yield _run


def _run(tasks: Tasks, folder: Path) -> None:
    descriptor = os.open(folder / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _, _, seconds, _ in tasks:
        nap(seconds)
        os.write(descriptor, _LINE)
        os.fdatasync(descriptor)
    os.close(descriptor)


if __name__ == "__main__":
    schedule(opened)
