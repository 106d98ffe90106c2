"""What one process knows of the queue: a pure fold over its records, and the choice of the next task.

Holds ids, edges and states, never texts. No I/O and no clock: times come with the records.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.records.fix import FIX_ID, FIX_WEIGHT
from parallel_orchestrator.records.graph import TaskGraph, TaskNode
from parallel_orchestrator.records.journals.queue import FixPlanned, Move, QueueRecord, SessionStart
from parallel_orchestrator.records.lifecycle import SETTLED, IllegalMove, TaskState, check_move
from parallel_orchestrator.store.paths import repair_hint

# Once, not at each use: a member of an enumeration is looked up by a property, and `apply` is every process's share in
# what all the others do.
QUEUED, CLAIMED, REPAIR, MERGED, *_ = TaskState

MAX_DEATHS = 3
"""A task whose executor died this often is failed: it may be what kills them."""

_CLAIMABLE = frozenset({QUEUED, REPAIR})


class Claim(NamedTuple):
    """One executor's hold on a task. `number` only grows and is the fencing token.

    A tuple, as one is made for every claim that is read.
    """

    task: str
    number: int
    attempt: int
    executor: int
    folder: int
    """The executor slot in whose folder the attempt lives: that of its first claim."""


@dataclass(slots=True)
class TaskStatus:
    """Where one task stands."""

    weight: float
    successors: list[str]
    """These two are the graph's. Here as well, so that `apply` looks a task up once."""
    state: TaskState = QUEUED
    attempt: int = 1
    folder: int = 0
    """0 until the attempt's first claim."""
    claim: Claim | None = None
    claimed_at: float = 0.0
    busy: float = 0.0
    """Seconds under claims of the present attempt that have ended."""
    deaths: int = 0
    waiting_for: int = 0
    """Dependencies that are not merged yet."""
    repairing: bool = False
    """Its present attempt was sent back before."""
    why: str = ""


@dataclass
class Session:
    """One orchestrator's time on the run, from its start record to the last record before the next."""

    executors: int
    started: float
    last: float


class QueueState:
    """The queue's state after the records applied so far."""

    def __init__(self, graph: TaskGraph) -> None:
        self.graph = graph
        self.tasks = {
            task: TaskStatus(node.weight, graph.successors[task], waiting_for=len(node.dependencies))
            for task, node in graph.nodes.items()
        }
        self.sessions: list[Session] = []
        self.fixes: list[str] = []
        """Fix tasks, in their order. They are in `tasks` and `graph`, too."""
        self.fix_asked = False
        """The person asked for another fix round, which has not begun."""
        self.unsettled = len(self.tasks)
        self.final: dict[str, Any] | None = None
        """What the tests of the whole said, and the `head` of the trunk then; None until the present session's end."""
        self.finals = 0
        """How often that was recorded: never by earlier versions of this program."""
        self.held = 0
        """Tasks that are claimed now."""
        self._last_mono = 0.0
        self._observed: dict[float, tuple[int, float]] = {}
        """Of each weight: how many of its tasks were merged, and their seconds together."""
        self._places = graph.planned_places
        self._ready = [(True, place, task) for task, place in self._places.items() if self._is_ready(task)]
        """A heap, as what is sorted is one."""

    def apply(self, record: QueueRecord) -> int:
        """Take in one record; the number of tasks that it made ready. Raises IllegalMove, KeyError for no task."""
        if isinstance(record, Move):  # as nearly every record is
            return self._move(record)
        if isinstance(record, FixPlanned):
            return self._add_fix(record)
        if isinstance(record, SessionStart):
            self._begin_session(record)
        else:
            self.final, self.finals = record.final, self.finals + 1
        return 0

    def _move(self, record: Move) -> int:
        mono = self._last_mono = record.mono
        if self.sessions:
            self.sessions[-1].last = mono
        task, new = record.task, record.state
        status = self.tasks[task]
        old = status.state
        check_move(task, old, new)
        if old is CLAIMED:
            status.busy += max(0.0, mono - status.claimed_at)
            self.held -= 1
        elif new is CLAIMED:
            self.held += 1
        self.unsettled += (old in SETTLED) - (new in SETTLED)
        status.state, status.why = new, record.why
        return self._enter(task, status, record)

    def _begin_session(self, record: SessionStart) -> None:
        # Claims that a killed session left open end with its last record: no executor ran until this session.
        for status in self.tasks.values():
            if status.state is CLAIMED:
                status.busy += max(0.0, self._last_mono - status.claimed_at)
                status.claimed_at = record.mono
        self._last_mono = record.mono  # a session that was killed before its first move ends where it began
        self.final = None
        self.sessions.append(Session(record.executors, record.mono, record.mono))
        self.fix_asked |= record.fix_asked

    def _add_fix(self, record: FixPlanned) -> int:
        """Take in a fix task, which depends on all tasks before it; the number of tasks made ready.

        A further record of a known one holds its new facts.
        """
        fix = record.fix
        self._last_mono = record.mono
        if fix in self.fixes:
            return 0
        if not FIX_ID.fullmatch(fix):
            raise ValueError(f"{fix!r} is not the id of a fix task")
        # The graph, and what it has computed, is shared with others: a new one takes its place.
        self.graph = TaskGraph([*self.graph.nodes.values(), TaskNode(fix, tuple(self.tasks), FIX_WEIGHT)])
        for task, status in self.tasks.items():
            status.successors = self.graph.successors[task]
        waiting = sum(status.state is not MERGED for status in self.tasks.values())
        self.tasks[fix] = TaskStatus(FIX_WEIGHT, [], waiting_for=waiting)
        self.fixes.append(fix)
        self.fix_asked = False
        self._places = {**self._places, fix: len(self._places)}
        self.unsettled += 1
        if waiting:
            return 0
        self._push(fix)
        return 1

    def next_fix(self, rounds: int) -> str | None:
        """The fix task to begin, or to begin again, for a red whole; None when it is not time, or no round is left.

        `rounds`: fix tasks that are planned without the person's asking.
        """
        if any(status.state is not MERGED for task, status in self.tasks.items() if task not in self.fixes):
            return None
        if self.fixes and self.tasks[self.fixes[-1]].state is not MERGED:
            failed = self.tasks[self.fixes[-1]].state is TaskState.FAILED
            return self.fixes[-1] if failed and self.fix_asked else None
        more = self.fix_asked or len(self.fixes) < rounds
        return f"fix_{len(self.fixes) + 1}" if more else None

    def _enter(self, task: str, status: TaskStatus, record: Move) -> int:
        """What follows from the state just entered; the number of tasks made ready."""
        if status.state is CLAIMED:
            status.folder = status.folder or record.executor
            status.claim = Claim(task, record.seq, status.attempt, record.executor, status.folder)
            status.claimed_at = record.mono
            return 0
        status.claim = None
        status.deaths += record.died
        if status.state is MERGED:
            return self._release_dependents(status)
        if status.state is QUEUED and record.attempt != status.attempt:
            status.attempt, status.folder, status.busy, status.deaths = record.attempt, 0, 0.0, 0
            status.repairing = False
            self.fix_asked &= task not in self.fixes
        status.repairing |= status.state is REPAIR
        if self._is_ready(task):
            self._push(task)
            return 1
        return 0

    def _release_dependents(self, merged: TaskStatus) -> int:
        count, total = self._observed.get(merged.weight, (0, 0.0))
        self._observed[merged.weight] = (count + 1, total + merged.busy)
        ready = 0
        for successor in merged.successors:
            status = self.tasks[successor]
            status.waiting_for -= 1
            if not status.waiting_for and status.state is QUEUED:
                self._push(successor)
                ready += 1
        return ready

    def expected(self) -> dict[str, float]:
        """Expected seconds of each task: the mean of what its effort took so far, scaled effort where none has."""
        total = sum(seconds for _, seconds in self._observed.values())
        per_weight = total / (sum(weight * count for weight, (count, _) in self._observed.items()) or 1.0) or 1.0
        means = {weight: seconds / count for weight, (count, seconds) in self._observed.items()}
        return {task: means.get(node.weight, node.weight * per_weight) for task, node in self.graph.nodes.items()}

    def _push(self, task: str) -> None:
        heapq.heappush(self._ready, self._entry(task))

    def _entry(self, task: str) -> tuple[bool, int, str]:
        # Repairs first: their work is nearly done and others may wait for it.
        return (not self.tasks[task].repairing, self._places[task], task)

    def _is_ready(self, task: str) -> bool:
        status = self.tasks[task]
        return status.state in _CLAIMABLE and not status.waiting_for

    def pick(self) -> str | None:
        """The ready task to claim next, or None. Asking does not take it."""
        while self._ready:
            task = self._ready[0][-1]
            if self._is_ready(task):
                return task
            heapq.heappop(self._ready)  # stale: claimed since it was pushed
        return None

    def urgency(self) -> tuple[bool, float] | None:
        """How much the next task presses, the least first; None when none is ready.

        By the plan's own weights, so that the tasks of different runs can be compared.
        """
        task = self.pick()
        return None if task is None else (not self.tasks[task].repairing, -self.graph.planned[task])

    def dependents(self, task: str) -> Iterator[str]:
        """Every task that depends on `task`, direct or not, once each."""
        seen = {task}
        reached = [task]
        for current in reached:
            for successor in self.graph.successors[current]:
                if successor not in seen:
                    seen.add(successor)
                    reached.append(successor)
                    yield successor

    def count(self) -> dict[TaskState, int]:
        """How many of the plan's tasks are in each state; fix tasks are not among them."""
        counts = dict.fromkeys(TaskState, 0)
        for task, status in self.tasks.items():
            counts[status.state] += task not in self.fixes
        return counts


def follow(queue_state: QueueState, records: Iterable[QueueRecord], source: Path) -> None:
    """Take in records of the journal `source`. Raises DamagedState at one that does not fit what came before."""
    for record in records:
        try:
            queue_state.apply(record)
        except (IllegalMove, KeyError, ValueError) as error:
            why = f"{error} is not in the plan" if isinstance(error, KeyError) else str(error)
            raise DamagedState(
                f"{source}, line {record.seq}: the record does not fit plan and queue ({why}). Nothing was "
                f"changed; if execution_plan.json was edited, put it back. {repair_hint(source)}"
            ) from error


@dataclass
class Advance:
    """What one hold of the queue's lock brought."""

    claim: Claim | None = None
    ready: int = 0
    """Tasks that became ready, besides the one claimed: how many idle executors to wake."""
    records: list[QueueRecord] = field(default_factory=list)
