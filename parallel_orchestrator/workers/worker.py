"""One worker process: claim a task, do it, record how it ended, claim the next.

    run_worker
      loop: step
        claim            (or take the claim that came with the last finish)
        work             the function that was passed in; this module knows nothing of models or git
        finish + claim   one hold of the queue's lock

What the work is, is not this room's business: it gets a `Job` and returns an Outcome.
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
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.store.queue.scheduler import Board, Hold, Member, Source
from parallel_orchestrator.system.files import disk_faults_in
from parallel_orchestrator.system.logfile import log_to
from parallel_orchestrator.workers.forking import InheritedDescriptor, become_worker

log = logging.getLogger(__name__)

IDLE_LOOK_S = 1.0
"""An idle worker looks at the queue this often even when no wake-up arrives: wake-ups are only hints."""

MAX_TASKS_PER_PROCESS = 100
"""After so many a worker ends, and another takes its place: it shares the fork server's memory, of which this one has
come to have more and more pages for itself."""


@dataclass(frozen=True)
class Report:
    """What a worker tells the supervisor."""

    executor: int
    task: str | None
    doing: str
    within_s: float | None = None
    """Seconds in which the next report must come, or the worker counts as hung. None: no limit."""
    error: OrchestratorError | None = None
    """Set when the run of this task, or everything, has to stop."""
    run: Path | None = None
    """Root of the run that `task` belongs to."""


class Job:
    """A claimed task as the work sees it. Also the `Hold` that a submission checks and records with."""

    def __init__(self, worker: Worker, hold: Hold) -> None:
        self.claim = hold.claim
        self.member = hold.member
        self._hold = hold
        self._worker = worker

    def check(self) -> None:
        """Raise StaleClaim unless the claim still stands."""
        self._worker.board.check(self._hold)

    def merged(self, evidence: dict[str, Any]) -> None:
        """Record the merge and, in the same hold, claim this worker's next task."""
        self._worker.finish(self._hold, Outcome(TaskState.MERGED, evidence=evidence))

    def report(self, doing: str, within_s: float | None = None) -> None:
        """Say what is being done now. Raises Interrupted when the run is to stop: call it where stopping is safe."""
        self._worker.report(self._hold, doing, within_s)
        if self._worker.stopping():
            raise Interrupted("the run was asked to stop")


Work = Callable[[Job], Outcome]
"""Does a job; for a merged outcome it has called `job.merged` itself. CannotGoOn and UsageError stop the run."""


@dataclass(frozen=True)
class WorkerPipes:
    """What a worker shares with the supervisor and its fellows."""

    reports: Connection
    stop: InheritedDescriptor
    """Read end: end of file means that the run is to stop."""
    wake_read: InheritedDescriptor
    wake_write: InheritedDescriptor
    """One pipe for all: each byte is a hint that a task became ready."""
    run_lock: InheritedDescriptor
    """Never used, only kept open: while any worker lives the run's lock is held."""


class Worker:
    """The state of one worker process."""

    def __init__(self, executor: int, board: Board, work: Work, pipes: WorkerPipes) -> None:
        self.executor = executor
        self.board = board
        self._work = work
        self._pipes = pipes
        self._next: Hold | None = None
        self._tasks_left = MAX_TASKS_PER_PROCESS

    def run(self) -> None:
        """Work until every task is settled, the run is to stop, or this process has done its share."""
        while self._tasks_left and not self.stopping():
            if self._next is None:
                self._next = self.board.claim(self.executor)
            if self._next is not None:
                self.step(self._next)
            elif not self.board.look():
                self._wake(1)  # let the next idle one see the end as well
                return
            else:
                self.report(None, "idle")
                self._wait()
        if self._next is not None:
            self.board.release(self._next, "the run was asked to stop")

    def step(self, hold: Hold) -> None:
        """Do the claimed task and record how it ended."""
        self._next = None
        self._tasks_left -= 1
        job = Job(self, hold)
        try:
            job.report("starting")
            with disk_faults_in(hold.member.run.root):  # a full disk is no task's fault
                outcome = self._work(job)
        except StaleClaim as error:
            log.warning("%s", error)
        except Interrupted as error:
            self._give_back(hold, str(error))
        except (CannotGoOn, UsageError, DamagedState) as error:
            # The supervisor hears it before the task is free again: no fellow may run into the same wall.
            self._send(Report(self.executor, hold.claim.task, "stopped", error=error, run=hold.member.run.root))
            self._wait_for_stop(hold.member)
            self._give_back(hold, str(error))
        except Exception as error:
            # A bug or a bad surrounding met by one task must not take the run down, nor be tried for ever.
            # After the merge was recorded the claim is gone, and the merge stands.
            log.exception("%s: unexpected error", hold.label)
            with contextlib.suppress(StaleClaim):
                self.finish(hold, Outcome(TaskState.FAILED, f"internal error: {type(error).__name__}: {error}"))
        else:
            if outcome.state is not TaskState.MERGED:
                self.finish(hold, outcome)

    def finish(self, hold: Hold, outcome: Outcome) -> None:
        """Record an outcome and, in the same hold, claim the next task; wake others for what is ready, or to end."""
        next_for = self.executor if self._tasks_left and not self.stopping() else None
        self._next, ready = self.board.finish(hold, outcome, next_for)
        over = not ready and self._next is None and not self.board.look()
        self._wake(1 if over else ready)
        log.info("%s %s%s", hold.label, outcome.state, f": {outcome.reason}" if outcome.reason else "")

    def report(self, hold: Hold | None, doing: str, within_s: float | None = None) -> None:
        """Tell the supervisor."""
        task, run = (hold.claim.task, hold.member.run.root) if hold else (None, None)
        self._send(Report(self.executor, task, doing, within_s, run=run))

    def _send(self, report: Report) -> None:
        try:
            self._pipes.reports.send(report)
        except BrokenPipeError:
            # Nobody supervises any more: end as by a kill. What is claimed stays so until a resume takes it back.
            raise SystemExit(1) from None

    def stopping(self) -> bool:
        """Whether the supervisor has asked to stop."""
        return bool(select.select([self._pipes.stop.number], [], [], 0)[0])

    def _give_back(self, hold: Hold, why: str) -> None:
        with contextlib.suppress(StaleClaim, DamagedState):
            self._wake(self.board.release(hold, why))

    def _wake(self, count: int) -> None:
        if count:
            with contextlib.suppress(BlockingIOError):  # a full pipe holds hints enough
                os.write(self._pipes.wake_write.number, b"x" * count)

    def _wait(self) -> None:
        wake = self._pipes.wake_read.number
        if wake in select.select([wake, self._pipes.stop.number], [], [], IDLE_LOOK_S)[0]:
            with contextlib.suppress(BlockingIOError):  # a fellow was quicker
                os.read(wake, 1)

    def _wait_for_stop(self, member: Member) -> None:
        """After reporting that a run cannot go on: claim nothing more until it is closed, or everything stops."""
        deadline = time.monotonic() + 30
        while self.board.look() and self.board.is_open(member) and time.monotonic() < deadline:
            if select.select([self._pipes.stop.number], [], [], 0.2)[0]:
                return


@dataclass(frozen=True)
class WorkSource:
    """Makes the work inside the worker process."""

    make: Callable[[Any], Work]
    """Importable by name: what `__main__` defines cannot reach a worker."""
    settings: Any


def run_worker(executor: int, source: Source, work: WorkSource, pipes: WorkerPipes) -> None:
    """The main function of a worker process, which the fork server forked."""
    become_worker()
    os.set_blocking(pipes.wake_read.number, False)
    os.set_blocking(pipes.wake_write.number, False)
    try:
        log_to(source.log)
        with contextlib.closing(Board(source)) as board:
            Worker(executor, board, work.make(work.settings), pipes).run()
    except OrchestratorError as error:
        pipes.reports.send(Report(executor, None, "stopped", error=error))
