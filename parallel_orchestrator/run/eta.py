"""How long a batch will take yet, by what its tasks took so far."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.report.live.follower import ETA_AFTER, Part, path_and_work_left
from parallel_orchestrator.store.queue.batch_journal import BatchReplica, ScenarioState
from parallel_orchestrator.store.queue.queue_state import Replica

_EVERY_S = 1.0


@dataclass
class Seen:
    """What was seen of the tasks of some scenarios."""

    scenarios: int = 0
    planned: float = 0.0
    """Weight of all their tasks."""
    merged: int = 0
    weight: float = 0.0
    """Of those that are merged."""
    seconds: float = 0.0
    """That those took."""

    def add(self, replica: Replica) -> None:
        """Count one scenario in."""
        self.scenarios += 1
        for task, status in replica.tasks.items():
            weight = replica.graph.nodes[task].weight
            self.planned += weight
            if status.state is TaskState.MERGED:
                self.merged += 1
                self.weight += weight
                self.seconds += status.busy


class Outlook:
    """Estimates the seconds to the end, once a second."""

    def __init__(self) -> None:
        self._closed = Seen()
        self._at = float("-inf")
        self._left: float | None = None

    def close(self, part: Part) -> None:
        """That scenario has ended."""
        self._closed.add(part.replica)

    def left(self, batch: BatchReplica, parts: Mapping[str, Part]) -> float | None:
        """Seconds to the end, never negative; None before three tasks are merged. `parts`: those with a plan."""
        now = time.monotonic()
        if now - self._at >= _EVERY_S:
            self._at, self._left = now, _estimate(batch, parts, self._closed, now)
        return None if self._left is None else max(0.0, self._left - (now - self._at))


def _estimate(batch: BatchReplica, parts: Mapping[str, Part], closed: Seen, now: float) -> float | None:
    """The longest of: what the executors have to do together, and what each scenario cannot be quicker than."""
    seen = Seen(**vars(closed))
    for part in parts.values():
        seen.add(part.replica)
    if seen.merged < ETA_AFTER or not batch.left:
        return None
    pace = seen.seconds / seen.weight
    bounds = list(_scenarios_left(batch, parts, pace, now))
    unplanned = len(batch.named(ScenarioState.WAITING)) * seen.planned / seen.scenarios * pace
    together = (sum(work for _, work in bounds) + unplanned) / batch.executors
    return max([together, *(least for least, _ in bounds)])


def _scenarios_left(
    batch: BatchReplica, parts: Mapping[str, Part], pace: float, now: float
) -> Iterator[tuple[float, float]]:
    """Of each scenario with a plan: the fewest seconds that it takes yet, and its tasks' seconds together."""
    for name, part in parts.items():
        replica, limit = part.replica, batch.scenarios[name].record.get("limit", batch.executors)
        known = any(status.state is TaskState.MERGED for status in replica.tasks.values())
        scaled = {task: node.weight * pace for task, node in replica.graph.nodes.items()}
        path, work = path_and_work_left(replica, replica.expected() if known else scaled, now)
        yield max(path, work / max(1, min(limit, batch.executors))), work
