"""Rebuilds a queue from its own whole records, the trunk and the transcripts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from parallel_orchestrator.records.fix import FIX_ID
from parallel_orchestrator.records.graph import TaskGraph
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.journals.red_whole import RedWhole
from parallel_orchestrator.records.lifecycle import IllegalMove, TaskState
from parallel_orchestrator.store.journal import Record
from parallel_orchestrator.store.queue.queue_state import QueueState
from parallel_orchestrator.store.record_parser import QUEUE

WHY = "restored by repair"


@dataclass(frozen=True)
class MergedTask:
    """A task whose work is on the trunk."""

    task: str
    attempt: int
    evidence: MergeEvidence


@dataclass(frozen=True)
class LastAttempt:
    """The last attempt at a task that has a transcript."""

    task: str
    attempt: int
    executor: int
    """The executor whose folder holds the transcript."""
    last: Record
    """The transcript's last record."""


class QueueRebuilder:
    """Collects the records of a rebuilt queue."""

    def __init__(self, graph: TaskGraph) -> None:
        self._graph = graph
        self.queue_state = QueueState(graph)
        self.records: list[Record] = []

    def keep(self, unbroken: Iterable[Record], on_trunk: set[str], folders: Mapping[tuple[str, int], int]) -> None:
        """Keep old records up to the first that contradicts trunk or transcripts.

        `folders`: the executor of each attempt whose folder is known.
        """
        for record in unbroken:
            claim = (record.get("task", ""), record.get("attempt", 0))
            if record.get("executor", folders.get(claim)) != folders.get(claim, record.get("executor")):
                return
            if record.get("state") == TaskState.MERGED and record.get("task") not in on_trunk:
                return
            try:
                self.queue_state.apply(QUEUE.of(record))
            except (IllegalMove, KeyError, ValueError, TypeError):
                self.queue_state = QueueState(self._graph)  # the old one may have applied half of the record
                for kept in self.records:
                    self.queue_state.apply(QUEUE.of(kept))
                return
            self.records.append(record)

    def plan_fixes(self, named: Iterable[str]) -> None:
        """Plan each fix task again that has a commit or a transcript, but no record. Its facts are lost."""
        numbers = [int(task.removeprefix("fix_")) for task in named if FIX_ID.fullmatch(task)]
        for number in range(1, max(numbers, default=0) + 1):
            if f"fix_{number}" not in self.queue_state.fixes:
                self._add({"fix": f"fix_{number}", "why": WHY, **structs.asdict(RedWhole())})

    def complete(self, merged: Sequence[MergedTask], attempts: Mapping[str, LastAttempt]) -> None:
        """Bring every task to the state that trunk and transcripts prove."""
        self._add({"session": "start", "executors": 0})
        for task, status in self.queue_state.tasks.items():
            if status.state is TaskState.CLAIMED:
                self._move(task, TaskState.QUEUED)
        for work in merged:
            if self.queue_state.tasks[work.task].state is not TaskState.MERGED:
                self._claim(work.task, work.attempt, attempts.get(work.task))
                self._move(work.task, TaskState.MERGED, evidence=work.evidence.as_json())
        for task in self.queue_state.graph.order:
            if task in attempts and self.queue_state.tasks[task].state is not TaskState.MERGED:
                self._restore_attempt(attempts[task])
        self._block()

    def _restore_attempt(self, attempt: LastAttempt) -> None:
        status = self.queue_state.tasks[attempt.task]
        failed = attempt.last["kind"] == "failed"
        there = status.attempt == attempt.attempt and (status.folder or status.state is TaskState.FAILED)
        if there and (status.state is TaskState.FAILED or not failed):
            return
        self._claim(attempt.task, attempt.attempt, attempt)
        if failed:
            self._move(attempt.task, TaskState.FAILED, why=attempt.last.get("reason", ""))
        else:
            sent_back = attempt.last["kind"] in ("repair", "restart")
            self._move(attempt.task, TaskState.REPAIR if sent_back else TaskState.QUEUED)

    def _claim(self, task: str, attempt: int, last: LastAttempt | None) -> None:
        """Claim the task in that attempt, by the executor whose folder holds it."""
        status = self.queue_state.tasks[task]
        while status.attempt < attempt or status.state in (TaskState.FAILED, TaskState.BLOCKED):
            if status.state in (TaskState.QUEUED, TaskState.REPAIR):
                self._move(task, TaskState.CLAIMED, executor=status.folder or 1)
                self._move(task, TaskState.FAILED)
            self._move(task, TaskState.QUEUED, attempt=max(attempt, status.attempt))
        executor = last.executor if last and last.attempt == attempt else status.folder or 1
        self._move(task, TaskState.CLAIMED, executor=executor)

    def _block(self) -> None:
        """Block exactly the tasks that depend on a failed one."""
        tasks = self.queue_state.tasks
        failed = [task for task, status in tasks.items() if status.state is TaskState.FAILED]
        behind = {later: task for task in failed for later in self.queue_state.dependents(task)}
        for task, status in tasks.items():
            if status.state is TaskState.QUEUED and task in behind:
                self._move(task, TaskState.BLOCKED, why=f"{behind[task]} failed")
            elif status.state is TaskState.BLOCKED and task not in behind:
                self._move(task, TaskState.QUEUED)

    def _move(self, task: str, state: TaskState, **details: Any) -> None:
        status = self.queue_state.tasks[task]
        fields: Record = {"task": task, "state": state.value, "attempt": status.attempt, "why": WHY}
        if status.claim:
            fields |= {"executor": status.claim.executor, "claim": status.claim.number}
        self._add(fields | details)

    def _add(self, fields: Record) -> None:
        now = {"at": round(time.time(), 3), "mono": round(time.monotonic(), 6)}
        record = {"seq": len(self.records) + 1, **fields, **now}
        self.queue_state.apply(QUEUE.of(record))
        self.records.append(record)
