"""Works for our worker processes, in place of a model's."""

from __future__ import annotations

import os
import time
from pathlib import Path

from parallel_orchestrator.records.errors import BudgetReached
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.workers.worker import Job, Work


def sleeper(seconds: dict[str, float]) -> Work:
    """Sleep for as long as each task takes; the result is always taken."""

    def work(job: Job) -> Outcome:
        time.sleep(seconds[job.claim.task])
        job.merged({})
        return Outcome(TaskState.MERGED)

    return work


def sleeper_unsynced(seconds: dict[str, float]) -> Work:
    """The same without the sync that makes a finished task durable."""
    without_sync()
    return sleeper(seconds)


def without_sync() -> None:
    """Have this process sync nothing any more: beside a figure with syncs, what they cost."""
    os.fdatasync = lambda fd: None


def stopping_at_once(folder: str) -> Work:
    """Note when the worker was up, and stop the run at its first task."""
    (Path(folder) / f"up.{os.getpid()}").write_text(repr(time.monotonic()))

    def work(job: Job) -> Outcome:
        raise BudgetReached(f"{job.claim.task} was claimed: that is all there was to see")

    return work
