"""ProcessPoolExecutor with our order programmed on top: the ready task with the longest path goes first.

Nobody gets this without writing a scheduler. It is here as the limit of what a pool in memory, which keeps nothing,
can do with the same knowledge.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager

from benchmarks.contestants.sleeping import Run, Tasks, nap, schedule, waiting


@contextmanager
def opened(executors: int) -> Iterator[Run]:
    """A pool whose processes are there."""
    with ProcessPoolExecutor(executors) as pool:
        list(pool.map(nap, [0.05] * executors))
        yield lambda tasks, _folder: _run(pool, tasks, executors)


def _run(pool: ProcessPoolExecutor, tasks: Tasks, executors: int) -> None:
    known = {task: (seconds, rank) for task, _, seconds, rank in tasks}
    left, after = waiting(tasks)
    ready = [(-known[task][1], task) for task in known if not left[task]]
    heapq.heapify(ready)
    running: dict[Future[float], str] = {}
    while ready or running:
        while ready and len(running) < executors:
            task = heapq.heappop(ready)[1]
            running[pool.submit(nap, known[task][0])] = task
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            for successor in after[running.pop(future)]:
                left[successor] -= 1
                if not left[successor]:
                    heapq.heappush(ready, (-known[successor][1], successor))


if __name__ == "__main__":
    schedule(opened)
