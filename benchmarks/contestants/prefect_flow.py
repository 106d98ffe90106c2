"""Prefect: a flow of tasks that wait for others, in its pool of threads (the tasks sleep), on its own local server."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.contestants.sleeping import Run, Tasks, nap, schedule


@contextmanager
def opened(executors: int) -> Iterator[Run]:
    """A server that has served a flow once."""
    home = tempfile.TemporaryDirectory()
    os.environ |= {"PREFECT_HOME": home.name, "PREFECT_LOGGING_LEVEL": "CRITICAL", "DO_NOT_TRACK": "1"}
    os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    from prefect import flow, task
    from prefect.task_runners import ThreadPoolTaskRunner

    step = task(nap, persist_result=False)

    @flow(task_runner=ThreadPoolTaskRunner(max_workers=executors))  # type: ignore[untyped-decorator]
    def plan(tasks: Tasks) -> None:
        done: dict[str, Any] = {}
        for name, before, seconds, _ in tasks:
            done[name] = step.submit(seconds, wait_for=[done[dependency] for dependency in before])
        for future in done.values():
            future.result()

    plan([("first", [], 0.0, 0.0)])
    yield lambda tasks, _folder: plan(tasks)
    home.cleanup()


if __name__ == "__main__":
    schedule(opened)
