"""The shape of a plan: dependencies and weights, and what follows from them for scheduling.

Pure arithmetic. Weights are relative durations; all figures here are in their unit.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class TaskNode:
    """One task as the scheduler sees it."""

    id: str
    dependencies: tuple[str, ...]
    weight: float
    priority: int = 1


class TaskGraph:
    """Tasks in plan order with their dependencies. Unknown dependencies are a KeyError at first use."""

    def __init__(self, nodes: Iterable[TaskNode]) -> None:
        self.nodes: dict[str, TaskNode] = {node.id: node for node in nodes}

    @cached_property
    def successors(self) -> dict[str, list[str]]:
        """Direct dependents of each task, in plan order."""
        found: dict[str, list[str]] = {task: [] for task in self.nodes}
        for node in self.nodes.values():
            for dependency in node.dependencies:
                found[dependency].append(node.id)
        return found

    @cached_property
    def order(self) -> list[str]:
        """A topological order (Kahn 1962), stable in plan order. Tasks on a cycle are missing from it."""
        waiting = {node.id: len(node.dependencies) for node in self.nodes.values()}
        ready = [task for task, count in waiting.items() if count == 0]
        for task in ready:
            for successor in self.successors[task]:
                waiting[successor] -= 1
                if waiting[successor] == 0:
                    ready.append(successor)
        return ready

    def cycle(self) -> list[str]:
        """One dependency cycle, its first task repeated at the end, or an empty list."""
        left = set(self.nodes) - set(self.order)
        if not left:
            return []
        path: list[str] = []
        task = min(left)
        while task not in path:
            path.append(task)
            task = next(d for d in self.nodes[task].dependencies if d in left)
        return [*path[path.index(task) :], task]

    def remaining(self, weights: Mapping[str, float] | None = None) -> dict[str, float]:
        """For each task the longest path from its start to the end of the plan, itself included."""
        longest: dict[str, float] = {}
        for task in reversed(self.order):
            own = weights[task] if weights else self.nodes[task].weight
            after = self.successors[task]
            longest[task] = own + max([longest[s] for s in after]) if after else own
        return longest

    def places(self, remaining: Mapping[str, float]) -> dict[str, int]:
        """Each task's place in the order of preference: the longest path first, then the plan's priority and order."""
        first = sorted(self._by_priority, key=remaining.__getitem__, reverse=True)  # equal ones stay as they stand
        return {task: place for place, task in enumerate(first)}

    @cached_property
    def _by_priority(self) -> list[str]:
        return sorted(self.nodes, key=lambda task: self.nodes[task].priority)

    @cached_property
    def planned(self) -> dict[str, float]:
        """`remaining` by the plan's own weights. Kept with the graph, also when that is sent to another process."""
        return self.remaining()

    @cached_property
    def planned_places(self) -> dict[str, int]:
        """`places` by the plan's own weights, kept in the same way."""
        return self.places(self.planned)

    def critical_path(self, weights: Mapping[str, float] | None = None) -> list[str]:
        """The tasks of a longest path, first to last."""
        longest = self.remaining(weights)
        path: list[str] = []
        candidates = [task for task in self.order if not self.nodes[task].dependencies]
        while candidates:
            path.append(max(candidates, key=lambda task: longest[task]))
            candidates = self.successors[path[-1]]
        return path

    @cached_property
    def ancestors(self) -> dict[str, frozenset[str]]:
        """All tasks, direct or not, that each task depends on."""
        found: dict[str, frozenset[str]] = {}
        for task in self.order:
            direct = self.nodes[task].dependencies
            found[task] = frozenset(direct).union(*(found[d] for d in direct))
        return found

    def ordered(self, first: str, second: str) -> bool:
        """Whether one of the two tasks always runs after the other."""
        return first in self.ancestors[second] or second in self.ancestors[first]

    def width(self) -> int:
        """The most tasks that can ever run at once: the largest antichain.

        By Dilworth's theorem that is the number of tasks less a maximum matching of the bipartite
        graph "a precedes b", found here by augmenting paths.
        """
        matched: dict[str, str] = {}

        def augment(task: str, seen: set[str]) -> bool:
            for earlier in self.ancestors[task]:
                if earlier not in seen:
                    seen.add(earlier)
                    if earlier not in matched or augment(matched[earlier], seen):
                        matched[earlier] = task
                        return True
            return False

        return len(self.nodes) - sum(augment(task, set()) for task in self.order)

    def makespan(self, executors: int, weights: Mapping[str, float] | None = None) -> float:
        """Length of the schedule that longest-remaining-path-first makes with that many executors."""
        longest = self.remaining(weights)
        waiting = {node.id: len(node.dependencies) for node in self.nodes.values()}
        ready = [(-longest[t], i, t) for i, t in enumerate(self.order) if not waiting[t]]
        heapq.heapify(ready)
        place = {task: i for i, task in enumerate(self.order)}
        running: list[tuple[float, str]] = []
        now = 0.0
        while ready or running:
            while ready and len(running) < executors:
                task = heapq.heappop(ready)[2]
                heapq.heappush(running, (now + (weights[task] if weights else self.nodes[task].weight), task))
            now, done = heapq.heappop(running)
            for successor in self.successors[done]:
                waiting[successor] -= 1
                if not waiting[successor]:
                    heapq.heappush(ready, (-longest[successor], place[successor], successor))
        return now


@dataclass(frozen=True)
class ExecutorChoice:
    """How many executors a run starts, and why."""

    executors: int
    reason: str


def choose_executors(graph: TaskGraph, budget: int) -> ExecutorChoice:
    """The fewest executors whose simulated makespan is within 5 % of the best that `budget` allows."""
    tasks, width = len(graph.nodes), graph.width()
    best = graph.makespan(min(budget, width))
    chosen = next(m for m in range(1, budget + 1) if graph.makespan(m) <= best * 1.05)
    if tasks == 1:
        return ExecutorChoice(1, "1 task: 1 executor")
    reason = f"{tasks} tasks, width {width}: {chosen} of {budget} executors"
    if chosen < min(budget, width):
        reason += " (more would end less than 5 % sooner)"
    return ExecutorChoice(chosen, reason)
