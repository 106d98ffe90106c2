"""Estimates how long open runs will take, from what their tasks took so far. A run is a batch of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from parallel_orchestrator.records.lifecycle import SETTLED, TaskState
from parallel_orchestrator.store.queue.queue_state import QueueState, TaskStatus

_LEAST_MERGED = 3
"""Tasks that have to be merged before there is an estimate."""
_OVERDUE = 0.1
"""A task that exceeds its expected time is expected to take this share of its time so far again, so never nothing."""


@dataclass
class Seen:
    """What is known of the tasks of some runs."""

    runs: int = 0
    planned: float = 0.0
    """Weight of all their tasks."""
    merged: int = 0
    weight: float = 0.0
    """Of the merged tasks."""
    seconds: float = 0.0
    """That the merged tasks took."""

    def add(self, queue_state: QueueState) -> None:
        """Count one run in."""
        self.runs += 1
        for task, status in queue_state.tasks.items():
            weight = queue_state.graph.nodes[task].weight
            self.planned += weight
            if status.state is TaskState.MERGED:
                self.merged += 1
                self.weight += weight
                self.seconds += status.busy


@dataclass(frozen=True)
class OpenRun:
    """One run that is under way."""

    queue_state: QueueState
    limit: int
    """Executors that may work on it at once."""


def seconds_left(
    runs: Sequence[OpenRun], executors: int, now: float, *, closed: Seen | None = None, unplanned: int = 0
) -> float | None:
    """Estimate the seconds until everything is settled; None while too few tasks are merged.

    It is the longest of all work shared by the executors, and of what no single run can be quicker than. `now` is of
    the monotonic clock. `closed`: runs that have ended. `unplanned`: runs whose plan is not known yet.
    """
    seen = replace(closed) if closed else Seen()
    for run in runs:
        seen.add(run.queue_state)
    if seen.merged < _LEAST_MERGED or not (unplanned or any(run.queue_state.unsettled for run in runs)):
        return None
    pace = seen.seconds / seen.weight
    bounds = list(_bounds(runs, executors, pace, now))
    together = sum(work for _, work in bounds) + unplanned * seen.planned / seen.runs * pace
    return max([together / executors, *(least for least, _ in bounds)])


def _bounds(runs: Sequence[OpenRun], executors: int, pace: float, now: float) -> Iterator[tuple[float, float]]:
    """Of each run: the fewest seconds that it still takes, and the seconds of all its tasks together."""
    for run in runs:
        queue_state = run.queue_state
        known = any(status.state is TaskState.MERGED for status in queue_state.tasks.values())
        scaled = {task: node.weight * pace for task, node in queue_state.graph.nodes.items()}
        path, work = _path_and_work(queue_state, queue_state.expected() if known else scaled, now)
        yield max(path, work / max(1, min(run.limit, executors))), work


def _path_and_work(queue_state: QueueState, expected: Mapping[str, float], now: float) -> tuple[float, float]:
    """Seconds left on the critical path, and of all tasks together. `expected`: of each whole task."""
    left = {task: _task_left(status, expected[task], now) for task, status in queue_state.tasks.items()}
    return max(*queue_state.graph.remaining(left).values(), 0.0), sum(left.values())


def _task_left(status: TaskStatus, expected: float, now: float) -> float:
    if status.state in SETTLED:
        return 0.0
    if status.state is not TaskState.CLAIMED:
        return max(0.0, expected - status.busy)
    worked = status.busy + max(0.0, now - status.claimed_at)
    return max(expected - worked, _OVERDUE * worked)
