"""One run, followed through its files, and the executors that work on it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from parallel_orchestrator.records.fix import FIX_NAME
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.report.facts.spending import FollowedLedger
from parallel_orchestrator.report.facts.status import doing, held_s
from parallel_orchestrator.report.live.snapshot import Item, Row, Standing
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue_state import QueueState, TaskStatus, follow
from parallel_orchestrator.store.record_parser import LEDGER, QUEUE

_STANDING = {
    TaskState.MERGED: Standing.DONE,
    TaskState.FAILED: Standing.FAILED,
    TaskState.BLOCKED: Standing.BLOCKED,
}


class Executor(Protocol):
    """One executor, as its supervisor knows it."""

    number: int
    task: str | None
    run: Path | None
    """Root of the run that `task` belongs to."""
    doing: str
    since: float


@dataclass
class SeenExecutor:
    """One executor, as the files show it."""

    number: int
    task: str | None = None
    run: Path | None = None
    doing: str = "idle"
    since: float = 0.0


class FollowedRun:
    """One run's queue and ledger, folded as they grow."""

    def __init__(self, run: RunDirectory, plan: Plan, limit: int | None = None) -> None:
        """`limit`: executors that may work on it at once."""
        self.run = run
        self.limit = limit
        self._names = {task.id: task.name for task in plan.tasks}
        self._queue, self._calls = Journal(run.queue, QUEUE), Journal(run.ledger, LEDGER)
        self.queue_state = QueueState(plan.graph())
        self.ledger = FollowedLedger()

    def refresh(self) -> None:
        """Fold what was written since."""
        follow(self.queue_state, self._queue.each_new(), self._queue.path)
        self.ledger.follow(self._calls.each_new(), self._calls.path)

    def items(self) -> dict[str, Item]:
        """Its tasks."""
        return {task: self._item(task, status) for task, status in self.queue_state.tasks.items()}

    def _item(self, task: str, status: TaskStatus) -> Item:
        if status.claim:
            word = f"{status.state} by executor {status.claim.executor}"
            return Item(self._name(task), Standing.RUNNING, word, status.why)
        open_ = Standing.WAITING if status.waiting_for else Standing.READY
        return Item(self._name(task), _STANDING.get(status.state, open_), str(status.state), status.why)

    def row(self, executor: Executor, task: str, label: str) -> Row:
        """Return the row of an executor that works on `task`. `label`: what the task is called there."""
        status = self.queue_state.tasks[task]
        seconds = held_s(status) if status.claim else 0.0
        tokens = sum(self.ledger.of(task).tokens.values())
        turns = self.ledger.turns(task, status.attempt)
        return Row(executor.number, label, self._name(task), executor.doing, seconds, turns, tokens)

    def workers(self) -> list[SeenExecutor]:
        """The executors that hold its tasks, by the queue; what they do, by their transcripts."""
        now = time.monotonic()
        return [
            SeenExecutor(
                claim.executor,
                claim.task,
                self.run.root,
                doing(self.run, claim, self.ledger.turns(claim.task, claim.attempt)),
                now - held_s(status),
            )
            for status in self.queue_state.tasks.values()
            if (claim := status.claim)
        ]

    def close(self) -> None:
        """Close both files."""
        self._queue.close()
        self._calls.close()

    def _name(self, task: str) -> str:
        return self._names.get(task, FIX_NAME)
