"""Works for our worker processes, in place of a model's."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from parallel_orchestrator.agent.model_client import ModelClient
from parallel_orchestrator.records.errors import BudgetReached
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.workers.worker import Job, Work

clients: list[ModelClient] = []
"""Kept, as an executor keeps its own while it works."""


@dataclass(frozen=True)
class Sleeping:
    """How long each task takes; and how many workers begin together, which note that they are up in `folder`."""

    seconds: dict[str, float]
    folder: Path
    workers: int


def sleeper(sleeping: Sleeping) -> Work:
    """Once all workers are up, sleep for as long as each task takes; the result is always taken."""
    seconds = sleeping.seconds
    note_up(str(sleeping.folder))
    all_up = sleeping.folder / "all up"
    if len(list(sleeping.folder.glob("up.*"))) >= sleeping.workers:
        all_up.touch()  # the last one sees all; 64 that count again and again would keep the machine busy
    while not all_up.exists():
        time.sleep(0.005)

    def work(job: Job) -> Outcome:
        time.sleep(seconds[job.claim.task])
        job.record_merge_and_claim_next(MergeEvidence())
        return Outcome(TaskState.MERGED)

    return work


def without_sync() -> None:
    """Have this process sync nothing any more: beside a figure with syncs, what they cost."""
    os.fdatasync = lambda fd: None


def stopping_at_once(folder: str) -> Work:
    """Note when the worker was up, and stop the run at its first task."""
    note_up(folder)

    def work(job: Job) -> Outcome:
        raise BudgetReached(f"{job.claim.task} was claimed: that is all there was to see")

    return work


def holding(folder: str) -> Work:
    """Be ready to ask a model, and hold the first task until told to let it go."""
    become_ready(folder)

    def work(job: Job) -> Outcome:
        while not (Path(folder) / f"go.{job.claim.task}").exists():
            time.sleep(0.05)
        job.record_merge_and_claim_next(MergeEvidence())
        return Outcome(TaskState.MERGED)

    return work


def become_ready(folder: str) -> None:
    """Build the client that asks the gateway, and note when that was done."""
    clients.append(ModelClient(Path(folder) / "gateway", "token"))
    clients[-1]._sdk  # noqa: B018 - it is built at the first call; here that would need a gateway
    note_up(folder)


def note_up(folder: str) -> None:
    """Write down, for whoever counts such files, that this process is up, and since when."""
    mark = Path(folder) / f".{os.getpid()}"
    mark.write_text(repr(time.monotonic()))
    mark.rename(Path(folder) / f"up.{os.getpid()}")
