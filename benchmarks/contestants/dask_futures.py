"""Dask distributed: futures as arguments of futures, an executor is a worker process, priorities as its docs offer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster

from benchmarks.contestants.sleeping import Run, Tasks, nap, schedule


@contextmanager
def opened(executors: int) -> Iterator[Run]:
    """A local cluster whose workers are up. Stealing looks more often than by default: its docs name the setting."""
    dask.config.set({"distributed.scheduler.work-stealing-interval": "20ms"})
    with (
        LocalCluster(n_workers=executors, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(executors)

        def run(tasks: Tasks, folder: Path) -> None:
            done: dict[str, Any] = {}
            for task, before, seconds, rank in tasks:
                inputs = [done[dependency] for dependency in before]
                done[task] = client.submit(
                    nap, seconds, *inputs, key=f"{folder.name} {task}", priority=rank, pure=False
                )
            client.gather(list(done.values()))

        yield run


if __name__ == "__main__":
    schedule(opened)
