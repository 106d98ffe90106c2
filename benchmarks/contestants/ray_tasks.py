"""Ray: remote tasks that take their dependencies' results as arguments."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from benchmarks.contestants.sleeping import Run, Tasks, nap, schedule


@contextmanager
def opened(executors: int) -> Iterator[Run]:
    """A local cluster with so many workers, all of them up."""
    ray.init(
        num_cpus=executors,
        include_dashboard=False,
        configure_logging=True,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    remote = ray.remote(nap)
    ray.get([remote.remote(0.2) for _ in range(executors)])

    def run(tasks: Tasks, _folder: Path) -> None:
        done: dict[str, Any] = {}
        for task, before, seconds, _ in tasks:
            done[task] = remote.remote(seconds, *(done[dependency] for dependency in before))
        ray.get(list(done.values()))

    yield run
    ray.shutdown()


if __name__ == "__main__":
    schedule(opened)
