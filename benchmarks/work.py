"""Works for our worker processes, in place of a model's."""

from __future__ import annotations

import os
import time

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
    """The same without the sync that makes a finished task durable: what that costs."""
    os.fdatasync = lambda _descriptor: None
    return sleeper(seconds)
