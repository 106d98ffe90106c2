"""Works for worker processes to import: they only touch files and the clock."""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from parallel_orchestrator.records.errors import BudgetReached
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.workers.worker import Job, Work


@dataclass(frozen=True)
class Settings:
    """What the work does with which task."""

    folder: Path
    seconds: float = 0.0
    fail: tuple[str, ...] = ()
    die_once: tuple[str, ...] = ()
    die_always: tuple[str, ...] = ()
    hang_once: tuple[str, ...] = ()
    repair_once: tuple[str, ...] = ()
    stop_run: tuple[str, ...] = ()
    raise_bug: tuple[str, ...] = ()
    full_disk: tuple[str, ...] = ()
    starve_once: tuple[str, ...] = ()
    starve_always: tuple[str, ...] = ()
    group: Path | None = None
    """A control group with little memory, for those two."""


def starve(group: Path | None) -> None:
    """Have the kernel kill this process, for it takes more memory than its control group has."""
    assert group
    (group / "cgroup.procs").write_text(str(os.getpid()))
    hoard = [b"x" * 2**20 for _ in range(256)]
    raise AssertionError(f"the kernel let it have {len(hoard)} MiB")


def touching(settings: Settings) -> Work:
    """Work that leaves one file per task and time, named by process."""

    def first_time(task: str, what: str) -> bool:
        mark = settings.folder / f"{what}.{task}"
        if mark.exists():
            return False
        mark.touch()
        return True

    def work(job: Job) -> Outcome:
        task = job.claim.task
        with (settings.folder / f"ran.{task}").open("a") as file:
            file.write(f"{os.getpid()} {job.claim.executor} {job.claim.folder}\n")
        if task in settings.die_always or (task in settings.die_once and first_time(task, "died")):
            os.kill(os.getpid(), signal.SIGKILL)
        if task in settings.hang_once and first_time(task, "hung"):
            job.report("hanging", within_s=0.2)
            os.kill(os.getpid(), signal.SIGSTOP)
        if task in settings.stop_run:
            raise BudgetReached("the cap is reached")
        if task in settings.raise_bug:
            raise ZeroDivisionError("a bug")
        if task in settings.full_disk:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/somewhere")
        if task in settings.starve_always or (task in settings.starve_once and first_time(task, "starved")):
            starve(settings.group)
        time.sleep(settings.seconds)
        if task in settings.fail:
            return Outcome(TaskState.FAILED, "told to fail")
        if task in settings.repair_once and first_time(task, "repaired"):
            return Outcome(TaskState.REPAIR, "conflict")
        job.record_merge_and_claim_next(MergeEvidence(commit=str(os.getpid())))
        return Outcome(TaskState.MERGED)

    return work
