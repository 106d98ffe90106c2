"""When each task was worked on: a fold over queue.jsonl.

All times are seconds of the run's own clock. It runs from a session's first claim to its last move. It stops between
sessions, and while the whole is tested.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from parallel_orchestrator.records.graph import TaskGraph
from parallel_orchestrator.records.journals.queue import FixPlanned, Move, QueueRecord, SessionStart
from parallel_orchestrator.records.lifecycle import TaskState


@dataclass(frozen=True)
class ClaimSpan:
    """One claim: executor `executor` worked on `task` from `start` to `end`."""

    task: str
    executor: int
    start: float
    end: float
    ending: TaskState

    @property
    def seconds(self) -> float:
        """How long."""
        return self.end - self.start


@dataclass
class Timing:
    """Every claim of a run, and what follows from them."""

    holds: list[ClaimSpan] = field(default_factory=list)
    makespan: float = 0.0

    @property
    def work(self) -> float:
        """Seconds of work of all executors together."""
        return sum(hold.seconds for hold in self.holds)

    def of(self, task: str) -> list[ClaimSpan]:
        """The holds of one task, in order."""
        return [hold for hold in self.holds if hold.task == task]

    def critical_path(self, graph: TaskGraph) -> float:
        """Seconds along the longest path through the dependencies, by what the tasks really took."""
        longest = graph.remaining({task: sum(hold.seconds for hold in self.of(task)) for task in graph.nodes})
        return max(longest.values(), default=0.0)

    def utilisation(self) -> dict[int, float]:
        """For each executor slot the share of the makespan in which it held a task."""
        busy: dict[int, float] = {}
        for hold in self.holds:
            busy[hold.executor] = busy.get(hold.executor, 0.0) + hold.seconds
        return {executor: busy[executor] / self.makespan if self.makespan else 0.0 for executor in sorted(busy)}


def fold_timing(records: Iterable[QueueRecord]) -> Timing:
    """The holds from the queue's records, in order."""
    timing = Timing()
    offset = 0.0
    first: float | None = None
    open_claims: dict[str, tuple[int, float]] = {}
    last_now = 0.0
    for record in records:
        if isinstance(record, SessionStart | FixPlanned):  # the last tests came between
            offset, first = timing.makespan, None
        if not isinstance(record, Move):
            continue
        if first is None:
            if record.state is not TaskState.CLAIMED:
                _end(timing, open_claims, record, last_now)  # taken back from a dead session: held until that ended
                continue
            first = record.mono
        last_now = max(last_now, offset + record.mono - first)  # a clock that was set back takes nothing away
        timing.makespan = last_now
        if record.state is TaskState.CLAIMED:
            open_claims[record.task] = (record.executor, last_now)
        else:
            _end(timing, open_claims, record, last_now)
    return timing


def _end(timing: Timing, open_claims: dict[str, tuple[int, float]], record: Move, now: float) -> None:
    if record.task in open_claims:
        executor, start = open_claims.pop(record.task)
        timing.holds.append(ClaimSpan(record.task, executor, start, now, record.state))
