"""One worker process: claim a task, do it, record how it ended, claim the next.

    run_worker
      Worker.run               until every task is settled, or the run stops
        scheduler.claim            unless the last `finish` brought a claim
        Worker.step
          job.report           "starting"; raises Interrupted when the run is to stop
          work(job)            the function that was passed in: turns, tools, submission
            job.record_merge_and_claim_next   inside trunk.submit, under merge.lock
          Worker.finish        for any other outcome: record it, claim the next task
          Worker._give_back    when the run stops: release the claim, so that a resume continues the task
        Worker._wait           nothing is ready: until a byte on the wake pipe, at most a second

This module knows nothing of models or git: the work gets a `Job` and returns an Outcome.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from parallel_orchestrator.records.errors import (
    CannotGoOn,
    DamagedState,
    Interrupted,
    OrchestratorError,
    StaleClaim,
    UsageError,
)
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.store.queue.scheduler import ClaimedTask, RunHandle, RunSource, Scheduler
from parallel_orchestrator.system.files import disk_faults_in
from parallel_orchestrator.system.logfile import log_to
from parallel_orchestrator.workers.forking import InheritedDescriptor, become_worker

log = logging.getLogger(__name__)

IDLE_LOOK_S = 1.0
"""How often an idle worker reads the queue without a wake-up. Wake-ups are only hints and may be lost."""


@dataclass(frozen=True)
class WorkerReport:
    """A message from a worker to the supervisor."""

    executor: int
    task: str | None
    doing: str
    within_s: float | None = None
    """The worker counts as hung without another report within so many seconds. None: no limit."""
    error: OrchestratorError | None = None
    """Set when the run of this task, or every run, has to stop."""
    run: Path | None = None
    """Root of the run that `task` belongs to."""


class Job:
    """A claimed task as the work sees it. Also the `Hold` with which a submission checks and records."""

    def __init__(self, worker: Worker, claimed: ClaimedTask) -> None:
        self.claim = claimed.claim
        self.handle = claimed.handle
        self._claimed = claimed
        self._worker = worker

    def check(self) -> None:
        """Raise StaleClaim unless the claim still stands."""
        self._worker.scheduler.check(self._claimed)

    def record_merge_and_claim_next(self, evidence: MergeEvidence) -> None:
        """Record the merge and claim this worker's next task, under one hold of the queue's lock."""
        # The claim belongs here, in the hold that makes the merged task's dependents ready. Claimed in a hold of its
        # own, a peer could take them first and this worker would idle beside a chain that it could have continued.
        # This worker still holds merge.lock. A kill before the record loses nothing: the commit names task and
        # attempt, and the supervisor or the task's next submission adopts it.
        self._worker.finish(self._claimed, Outcome(TaskState.MERGED, evidence=evidence))

    def report(self, doing: str, within_s: float | None = None) -> None:
        """Report what the work does now. Raises Interrupted when the run is to stop: call it where stopping is safe."""
        self._worker.report(self._claimed, doing, within_s)
        if self._worker.stopping():
            raise Interrupted("the run was asked to stop")


Work = Callable[[Job], Outcome]
"""Does a job. It records a merge itself, through the job. CannotGoOn and UsageError stop the run."""


@dataclass(frozen=True)
class WorkerPipes:
    """The descriptors that a worker shares with the supervisor and its peers."""

    reports: Connection
    stop: InheritedDescriptor
    """Read end. End of file means that the run is to stop; it also comes when the supervisor dies."""
    wake_read: InheritedDescriptor
    wake_write: InheritedDescriptor
    """One pipe for all workers. Each byte is a hint that a task became ready."""
    run_lock: InheritedDescriptor
    """Only kept open. The run's lock is held while any worker lives, so that no second owner starts beside it."""


class Worker:
    """The state of one worker process."""

    def __init__(self, executor: int, scheduler: Scheduler, work: Work, pipes: WorkerPipes) -> None:
        self.executor = executor
        self.scheduler = scheduler
        self._work = work
        self._pipes = pipes
        self._next: ClaimedTask | None = None

    def run(self) -> None:
        """Work until every task is settled or the run is to stop."""
        while not self.stopping():
            if self._next is None:
                self._next = self.scheduler.claim(self.executor)
            if self._next is not None:
                self.step(self._next)
            elif not self.scheduler.refresh():
                self._wake(1)  # the next idle worker sees the end as well, and wakes the one after it
                return
            else:
                self.report(None, "idle")
                self._wait()
        if self._next is not None:
            self.scheduler.release(self._next, "the run was asked to stop")

    def step(self, claimed: ClaimedTask) -> None:
        """Do the claimed task and record how it ended."""
        self._next = None  # before the work: recording a merge sets the next claim
        job = Job(self, claimed)
        try:
            job.report("starting")
            with disk_faults_in(claimed.handle.run.root):  # a full disk is not the task's fault
                outcome = self._work(job)
        except StaleClaim as error:
            # The task was taken back and has another claim: what this one did is dropped.
            log.warning("%s", error)
        except Interrupted as error:
            self._give_back(claimed, str(error))
        except (CannotGoOn, UsageError, DamagedState) as error:
            # First report, then wait for the stop, then release the claim. In the other order a peer would claim the
            # task and fail for the same reason.
            self._send(
                WorkerReport(self.executor, claimed.claim.task, "stopped", error=error, run=claimed.handle.run.root)
            )
            self._wait_for_stop(claimed.handle)
            self._give_back(claimed, str(error))
        except Exception as error:
            # A bug that one task meets neither stops the run nor is retried for ever. When the merge is recorded
            # already, the claim is gone, `finish` raises StaleClaim, and the merge stands.
            log.exception("%s: unexpected error", claimed.label)
            with contextlib.suppress(StaleClaim):
                self.finish(claimed, Outcome(TaskState.FAILED, f"internal error: {type(error).__name__}: {error}"))
        else:
            if outcome.state is not TaskState.MERGED:
                self.finish(claimed, outcome)

    def finish(self, claimed: ClaimedTask, outcome: Outcome) -> None:
        """Record an outcome and claim the next task. Wakes peers for the other tasks that it made ready."""
        next_for = None if self.stopping() else self.executor
        # One hold of the lock for both: between record and claim no peer can take the task that this one made ready,
        # and this worker need not wait for the lock again.
        self._next, ready = self.scheduler.finish(claimed, outcome, next_for)
        over = not ready and self._next is None and not self.scheduler.refresh()
        self._wake(1 if over else ready)
        log.info("%s %s%s", claimed.label, outcome.state, f": {outcome.reason}" if outcome.reason else "")

    def report(self, claimed: ClaimedTask | None, doing: str, within_s: float | None = None) -> None:
        """Report to the supervisor."""
        task, run = (claimed.claim.task, claimed.handle.run.root) if claimed else (None, None)
        self._send(WorkerReport(self.executor, task, doing, within_s, run=run))

    def _send(self, report: WorkerReport) -> None:
        try:
            self._pipes.reports.send(report)
        except BrokenPipeError:
            # The supervisor died: end as by a kill. The claim stays on record until a resume takes it back.
            raise SystemExit(1) from None

    def stopping(self) -> bool:
        """Whether the supervisor has asked to stop."""
        return bool(select.select([self._pipes.stop.number], [], [], 0)[0])

    def _give_back(self, claimed: ClaimedTask, why: str) -> None:
        with contextlib.suppress(StaleClaim, DamagedState):
            self._wake(self.scheduler.release(claimed, why))

    def _wake(self, count: int) -> None:
        if count:
            with contextlib.suppress(BlockingIOError):  # a full pipe holds enough hints
                os.write(self._pipes.wake_write.number, b"x" * count)

    def _wait(self) -> None:
        wake = self._pipes.wake_read.number
        if wake in select.select([wake, self._pipes.stop.number], [], [], IDLE_LOOK_S)[0]:
            with contextlib.suppress(BlockingIOError):  # a peer took the byte first
                os.read(wake, 1)

    def _wait_for_stop(self, handle: RunHandle) -> None:
        """Wait until the reported run is closed or everything stops. This worker claims nothing meanwhile."""
        deadline = time.monotonic() + 30
        while self.scheduler.refresh() and self.scheduler.is_open(handle) and time.monotonic() < deadline:
            if select.select([self._pipes.stop.number], [], [], 0.2)[0]:
                return


@dataclass(frozen=True)
class WorkSource:
    """Makes the work inside the worker process."""

    make: Callable[[Any], Work]
    """Importable by name: a worker cannot get what `__main__` defines."""
    settings: Any


def run_worker(executor: int, source: RunSource, work: WorkSource, pipes: WorkerPipes) -> None:
    """Main function of a worker process, which the fork server forked."""
    become_worker()
    os.set_blocking(pipes.wake_read.number, False)
    os.set_blocking(pipes.wake_write.number, False)
    try:
        log_to(source.log)
        with contextlib.closing(Scheduler(source)) as scheduler:
            Worker(executor, scheduler, work.make(work.settings), pipes).run()
    except OrchestratorError as error:
        pipes.reports.send(WorkerReport(executor, None, "stopped", error=error))
