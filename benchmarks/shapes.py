"""The plans that are scheduled. Seconds are sleeps that stand for a model's latency; chance is seeded."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from parallel_orchestrator.records.graph import TaskGraph, TaskNode

EFFORTS = ("low", "medium", "high")
WEIGHTS = {"low": 1.0, "medium": 2.0, "high": 4.0}
"""As the planner's words are weighed (records/plan.py)."""


@dataclass(frozen=True)
class Task:
    """One task: `seconds` of sleep."""

    id: str
    dependencies: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Shape:
    """A plan and the number of executors that work on it."""

    name: str
    executors: int
    tasks: tuple[Task, ...]

    def exact(self) -> TaskGraph:
        """The plan as one sees it who knows how long everything takes."""
        return TaskGraph(TaskNode(task.id, task.dependencies, task.seconds) for task in self.tasks)

    def coarse(self) -> TaskGraph:
        """The plan as a planner sees it: a third of the tasks low, a third medium, a third high effort.

        Where all take about as long (the longest less than 1.5 times the shortest) all are medium.
        """
        ordered = sorted(task.seconds for task in self.tasks)
        first, second = ordered[len(ordered) // 3], ordered[2 * len(ordered) // 3]
        alike = ordered[-1] < 1.5 * ordered[0]

        def weight(seconds: float) -> float:
            return WEIGHTS[EFFORTS[1 if alike else (seconds >= first) + (seconds >= second)]]

        return TaskGraph(TaskNode(task.id, task.dependencies, weight(task.seconds)) for task in self.tasks)

    def perfect(self) -> float:
        """Seconds of the longest-remaining-path-first schedule, all durations known and nothing else costing time."""
        return self.exact().makespan(self.executors)

    def bound(self) -> float:
        """Seconds that no schedule can beat: the longest path, or all work shared evenly."""
        longest = max(self.exact().remaining().values())
        return max(longest, sum(task.seconds for task in self.tasks) / self.executors)

    def as_json(self) -> dict[str, Any]:
        """For a contestant: tasks as [id, dependencies, seconds, longest path from here in seconds]."""
        rank = self.exact().remaining()
        tasks = [[task.id, list(task.dependencies), task.seconds, rank[task.id]] for task in self.tasks]
        return {"name": self.name, "executors": self.executors, "tasks": tasks}


def shapes(scale: float = 1.0) -> list[Shape]:
    """All of them. `scale` makes them smaller: so much of the tasks, rounded up."""

    def some(count: int) -> int:
        return max(2, math.ceil(count * scale))

    return [
        _shape("independent", 8, _independent(some(200), 0.2, 0.8)),
        _shape("layered", 8, _layered(some(12), 10)),
        _shape("critical path", 4, _critical_path(some(60), some(20))),
        _shape("map-reduce", 8, _map_reduce(some(60))),
        _shape("chain", 8, [((n - 1,) if n else (), 0.02) for n in range(some(100))]),
        _shape("wide", 64, _independent(some(1000), 0.5, 0.8)),
    ]


_Rows = list[tuple[tuple[int, ...], float]]
"""By number of the task: the numbers that it depends on, and its seconds."""


def _shape(name: str, executors: int, rows: _Rows) -> Shape:
    def named(number: int) -> str:
        return f"task_{number + 1}"

    tasks = (Task(named(n), tuple(map(named, before)), round(s, 4)) for n, (before, s) in enumerate(rows))
    return Shape(name, executors, tuple(tasks))


def _lognormal(chance: random.Random, mean: float, sigma: float) -> float:
    return chance.lognormvariate(math.log(mean) - sigma**2 / 2, sigma)


def _independent(count: int, mean: float, sigma: float) -> _Rows:
    chance = random.Random(f"independent {count}")
    return [((), _lognormal(chance, mean, sigma)) for _ in range(count)]


def _layered(layers: int, width: int) -> _Rows:
    """Each task depends on one to three of the layer before."""
    chance = random.Random("layered 0")
    rows: _Rows = []
    for number in range(layers * width):
        first = (number // width - 1) * width
        before = sorted(chance.sample(range(first, first + width), chance.randint(1, 3))) if first >= 0 else []
        rows.append((tuple(before), _lognormal(chance, 0.25, 0.6)))
    return rows


def _critical_path(fillers: int, chain: int) -> _Rows:
    """Short independent tasks, named first, and a chain that takes as long as all of them together."""
    chance = random.Random("critical path")
    rows: _Rows = [((), chance.uniform(0.11, 0.33)) for _ in range(fillers)]
    rows += [((fillers + n - 1,) if n else (), chance.uniform(0.2, 0.24)) for n in range(chain)]
    return rows


def _map_reduce(count: int) -> _Rows:
    chance = random.Random("map-reduce")
    mapped: _Rows = [((0,), _lognormal(chance, 0.4, 0.6)) for _ in range(count)]
    return [((), 0.3), *mapped, (tuple(range(1, count + 1)), 0.3)]
