"""The file-locked task queue: M processes, one journal, one kernel lock.

    under queue.lock:  read the new lines -> pick -> append

Each worker keeps a queue_state and reads only what is new, so a claim costs the same at
100,000 tasks as at ten. The lock is a blocking flock, not a polled one: a waiter is
woken by the kernel when the holder lets go or is killed. Nothing slow happens under
it; the fsync that makes a finished task durable comes after it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict

from parallel_orchestrator.records.errors import DamagedState, StaleClaim, UsageError
from parallel_orchestrator.records.graph import TaskGraph
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.journals.queue import FinalTests, FixPlanned, Move, QueueRecord, SessionStart
from parallel_orchestrator.records.journals.red_whole import RedWhole
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.paths import RunDirectory, repair_hint
from parallel_orchestrator.store.queue.queue_state import MAX_DEATHS, Advance, Claim, QueueState, follow
from parallel_orchestrator.store.record_parser import QUEUE
from parallel_orchestrator.system.files import disk_error


class TaskQueue:
    """One process's handle on a run's queue. Not to be shared between threads, nor carried over a fork."""

    def __init__(self, run: RunDirectory, graph: TaskGraph, limit: int | None = None) -> None:
        self.queue_state = QueueState(graph)
        self._limit = limit
        """At most so many tasks are claimed at once."""
        self._journal = Journal(run.queue, QUEUE)
        self._lock_path = run.queue_lock
        self._lock = -1

    @property
    def last_seq(self) -> int:
        """Sequence number of the last record read or written."""
        return self._journal.next_seq - 1

    def refresh(self) -> QueueState:
        """The state after all that is in the file by now. Takes no lock: readers never hold up writers."""
        follow(self.queue_state, self._journal.each_new(), self._journal.path)
        return self.queue_state

    def claim(self, executor: int) -> Advance:
        """Claim the ready task with the longest remaining path, if there is one."""
        with self._held() as advance:
            self._claim_next(executor, advance)
        return advance

    def finish(self, claim: Claim, outcome: Outcome, *, next_for: int | None = None) -> Advance:
        """Record how `claim` ended and, in the same hold, claim the next task for executor `next_for`.

        On disk when it returns. Raises StaleClaim when somebody else holds the task by now.
        """
        with self._held() as advance:
            self._require(claim)
            self._move(advance, claim.task, outcome.state, why=outcome.reason, evidence=outcome.evidence)
            if outcome.state is TaskState.FAILED:
                self._block_dependents(advance, claim.task)
            if next_for is not None:
                self._claim_next(next_for, advance)
        self._journal.sync()
        return advance

    def check(self, claim: Claim) -> None:
        """Raise StaleClaim unless `claim` is the task's present one."""
        with self._held():
            self._require(claim)

    def release(self, claim: Claim, why: str) -> Advance:
        """Return an unfinished task that did not fail. The next executor that claims it continues its attempt."""
        with self._held() as advance:
            self._require(claim)
            self._move(advance, claim.task, TaskState.QUEUED, why=why)
        return advance

    def take_back(self, executor: int | None, why: str, *, died: bool = True) -> Advance:
        """Put back what a dead executor holds (None: all are dead). Only on proof of death, never on doubt.

        `died`: whether it counts against the task. It does not when we ended the executor, or all of them.
        """
        died = died and executor is not None
        with self._held() as advance:
            for task, status in self.queue_state.tasks.items():
                if status.claim is None or executor not in (None, status.claim.executor):
                    continue
                if died and status.deaths + 1 >= MAX_DEATHS:
                    why_failed = f"its executor died {MAX_DEATHS} times; last: {why}"
                    self._move(advance, task, TaskState.FAILED, why=why_failed, died=True)
                    self._block_dependents(advance, task)
                else:
                    self._move(advance, task, TaskState.QUEUED, why=why, died=died)
        return advance

    def adopt(self, task: str, evidence: MergeEvidence) -> None:
        """Record a merge that is on the trunk but whose move was lost with its writer, whatever was thought since."""
        with self._held() as advance:
            if task not in self.queue_state.tasks:
                raise DamagedState(
                    f"{self._journal.path}: {task} is on the trunk, and no record here plans it. "
                    f"{repair_hint(self._journal.path)}"
                )
            status = self.queue_state.tasks[task]
            if status.state in (TaskState.FAILED, TaskState.BLOCKED):
                self._move(advance, task, TaskState.QUEUED, why="its merged commit was found")
                self._unblock_dependents(advance, task)
            if status.state in (TaskState.QUEUED, TaskState.REPAIR):
                self._move(
                    advance, task, TaskState.CLAIMED, executor=status.folder or 1, why="adopting a merged commit"
                )
            if status.state is TaskState.CLAIMED:
                self._move(advance, task, TaskState.MERGED, why="found on the trunk", evidence=evidence)
        self._journal.sync()

    def plan_fix(self, red: RedWhole, rounds: int) -> str | None:
        """Plan a fix task for a red whole, or a failed one's next attempt; its id.

        On disk when it returns. None when no round is left of `rounds`, or the whole has unsettled or failed tasks.
        """
        with self._held() as advance:
            fix = self.queue_state.next_fix(rounds)
            if fix is None:
                return None
            self._append(advance, FixPlanned(fix=fix, commit=red.commit, tests=red.tests, verify=red.verify, **_now()))
            status = self.queue_state.tasks[fix]
            if status.state is TaskState.FAILED:
                why = "the person asked for another attempt"
                self._move(advance, fix, TaskState.QUEUED, why=why, attempt=status.attempt + 1)
        self._journal.sync()
        return fix

    def to_retry(self, wanted: Sequence[str] | None, *, red: bool = False) -> list[str]:
        """The failed tasks to begin again: those `wanted`, all for an empty list, none for None. Raises UsageError.

        `red`: the whole may be red. With all tasks merged there is nothing to list then, and a fix round to begin.
        """
        failed = [task for task, status in self.refresh().tasks.items() if status.state is TaskState.FAILED]
        wrong = [task for task in wanted or () if task not in failed]
        if wrong:
            raise UsageError(f"{', '.join(wrong)} did not fail; failed tasks here: {', '.join(failed) or 'none'}")
        if wanted is not None and not failed and not (red and not self.queue_state.unsettled):
            raise UsageError("no task failed here, so there is nothing to retry")
        return [] if wanted is None else list(wanted) or failed

    def retry(self, task: str, why: str) -> Advance:
        """Begin another attempt at a failed task; dependents that it blocked wait again."""
        with self._held() as advance:
            status = self.queue_state.tasks[task]
            self._move(advance, task, TaskState.QUEUED, why=why, attempt=status.attempt + 1)
            self._unblock_dependents(advance, task)
        return advance

    def start_session(self, executors: int, plan: str | None = None, *, fix_asked: bool = False) -> None:
        """Mark that an orchestrator begins to work on the run, with that many executors; `plan`: its plan's digest.

        `fix_asked`: the person asked for another fix round.
        """
        with self._held() as advance:
            start = SessionStart(session="start", executors=executors, plan=plan or "", fix_asked=fix_asked, **_now())
            self._append(advance, start)

    def record_final(self, final: Mapping[str, Any], head: str) -> None:
        """Record what the tests of the whole said, and that the trunk stands at `head`. On disk when it returns.

        That is what proves later that the run has come to its end, and how.
        """
        with self._held() as advance:
            self._append(advance, FinalTests(final={**final, "head": head}, **_now()))
        self._journal.sync()

    def close(self) -> None:
        """Give the descriptors back."""
        self._journal.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @contextmanager
    def _held(self) -> Iterator[Advance]:
        if self._lock < 0:
            try:
                self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise disk_error(self._lock_path, error) from error
        # Most of what is new is read before the lock is held, while others do the same: the lock is held for less.
        self.refresh()
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self.refresh()
            yield Advance()
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _require(self, claim: Claim) -> None:
        held = self.queue_state.tasks[claim.task].claim
        if held is None or held.number != claim.number:
            now = f"claim {held.number} of executor {held.executor}" if held else "nobody"
            raise StaleClaim(
                f"{claim.task}: claim {claim.number} of executor {claim.executor} is no longer valid ({now} holds it); "
                "its workspace and transcript are kept, nothing was merged"
            )

    def _claim_next(self, executor: int, advance: Advance) -> None:
        task = self.queue_state.pick()
        if task is not None and (self._limit is None or self.queue_state.held < self._limit):
            self._move(advance, task, TaskState.CLAIMED, executor=executor)
            advance.claim = self.queue_state.tasks[task].claim
            advance.ready = max(0, advance.ready - 1)

    def _block_dependents(self, advance: Advance, task: str) -> None:
        for dependent in self.queue_state.dependents(task):
            if self.queue_state.tasks[dependent].state is TaskState.QUEUED:
                self._move(advance, dependent, TaskState.BLOCKED, why=f"{task} failed")

    def _unblock_dependents(self, advance: Advance, task: str) -> None:
        for dependent in list(self.queue_state.dependents(task)):
            if self.queue_state.tasks[dependent].state is TaskState.BLOCKED and not self._failed_before(dependent):
                self._move(advance, dependent, TaskState.QUEUED, why=f"waits for {task} again")

    def _failed_before(self, task: str) -> bool:
        """Whether another failed task still stands before `task`."""
        return any(
            status.state is TaskState.FAILED and task in self.queue_state.dependents(other)
            for other, status in self.queue_state.tasks.items()
        )

    def _move(
        self,
        advance: Advance,
        task: str,
        state: TaskState,
        *,
        executor: int = 0,
        attempt: int = 0,
        why: str = "",
        evidence: MergeEvidence | None = None,
        died: bool = False,
    ) -> None:
        """Record that a task enters a state. Its present claim, if it has one, ends with that."""
        status = self.queue_state.tasks[task]
        claim = status.claim
        move = Move(
            task=task,
            state=state,
            attempt=attempt or status.attempt,
            executor=claim.executor if claim else executor,
            claim=claim.number if claim else 0,
            why=why,
            evidence=evidence,
            died=died,
            **_now(),
        )
        self._append(advance, move)

    def _append(self, advance: Advance, record: QueueRecord) -> None:
        record = self._journal.append(record, durable=False)
        advance.ready += self.queue_state.apply(record)
        advance.records.append(record)


class _Now(TypedDict):
    at: float
    mono: float


def _now() -> _Now:
    """Wall clock for people, the monotonic clock for durations: it is one for all processes of a boot."""
    return {"at": round(time.time(), 3), "mono": round(time.monotonic(), 6)}
