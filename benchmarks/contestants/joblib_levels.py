"""joblib: knows no dependencies, so the plan goes layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from joblib import Parallel, delayed

from benchmarks.contestants.sleeping import Run, Tasks, levels, nap, schedule


@contextmanager
def opened(executors: int) -> Iterator[Run]:
    """A pool whose processes are there."""
    with Parallel(n_jobs=executors, batch_size=1) as pool:
        pool(delayed(nap)(0.05) for _ in range(executors))

        def run(tasks: Tasks, _folder: Path) -> None:
            for layer in levels(tasks):
                pool(delayed(nap)(task[2]) for task in layer)

        yield run


if __name__ == "__main__":
    schedule(opened)
