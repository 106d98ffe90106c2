"""ProcessPoolExecutor: a task is submitted when its last dependency is done, first come first served."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager

from benchmarks.contestants.sleeping import Run, Tasks, nap, schedule, waiting


@contextmanager
def opened(executors: int) -> Iterator[Run]:
    """A pool whose processes are there."""
    with ProcessPoolExecutor(executors) as pool:
        list(pool.map(nap, [0.05] * executors))
        yield lambda tasks, _folder: _run(pool, tasks)


def _run(pool: ProcessPoolExecutor, tasks: Tasks) -> None:
    seconds = {task: length for task, _, length, _ in tasks}
    left, after = waiting(tasks)
    running: dict[Future[float], str] = {pool.submit(nap, seconds[t]): t for t in seconds if not left[t]}
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            future.result()
            for successor in after[running.pop(future)]:
                left[successor] -= 1
                if not left[successor]:
                    running[pool.submit(nap, seconds[successor])] = successor


if __name__ == "__main__":
    schedule(opened)
