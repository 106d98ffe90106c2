"""Estimates the time and the cost of a plan, by the number of executors, from its efforts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from parallel_orchestrator.records.graph import TaskGraph, choose_executors
from parallel_orchestrator.records.plan import Plan

Price = Callable[[Mapping[str, int]], float | None]
"""USD for such a usage at the executors' model; None when it has no known price."""

SECONDS_PER_EFFORT = 19.2
"""Of one unit (records/plan.py, EFFORT_WEIGHT), waiting for the model. From the three shipped recordings: 19 tasks,
43 units, 89 answers. They were written by hand with estimated latencies, so this is an estimate on an estimate."""

USAGE_PER_EFFORT = {
    "input_tokens": 5172,
    "output_tokens": 1388,
    "cache_creation_input_tokens": 360,
    "cache_read_input_tokens": 10159,
}
"""Tokens of one unit, from the same."""

TIME_RANGE, COST_RANGE = (0.6, 1.6), (0.5, 1.6)
"""By how much single tasks of the recordings lie below and above the mean."""

_STEPS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)
"""Numbers of executors to list, up to the plan's width. The number that is allowed is listed, too."""


@dataclass(frozen=True)
class Choice:
    """A number of executors, and how long the plan is expected to take with them."""

    executors: int
    seconds: float
    speedup: float

    def range_s(self) -> tuple[int, int]:
        """The fewest and the most seconds that are likely."""
        return round(self.seconds * TIME_RANGE[0]), round(self.seconds * TIME_RANGE[1])


@dataclass(frozen=True)
class Advice:
    """What a plan is expected to take."""

    path: list[str]
    """The critical path."""
    width: int
    """The most tasks that can ever run at once."""
    choices: list[Choice]
    cost_usd: tuple[float, float] | None
    """Lowest and highest; the same for any number of executors. None without a known price."""
    tokens: int
    recommended: int
    reason: str

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "estimate": True,
            "critical_path": self.path,
            "width": self.width,
            "choices": [
                {"executors": one.executors, "seconds": one.range_s(), "speedup": round(one.speedup, 2)}
                for one in self.choices
            ],
            "cost_usd": self.cost_usd,
            "tokens": self.tokens,
            "recommended_executors": self.recommended,
            "reason": self.reason,
        }


def advise(plan: Plan, budget: int, price: Price = lambda usage: None) -> Advice:
    """Return what to expect of the plan, and how many of at most `budget` executors to run it with."""
    graph = plan.graph()
    units = sum(node.weight for node in graph.nodes.values())
    usage = {kind: round(count * units) for kind, count in USAGE_PER_EFFORT.items()}
    usd, chosen, width = price(usage), choose_executors(graph, budget), graph.width()
    numbers = sorted({m for m in _STEPS if m <= width} | {min(width, budget), budget, chosen.executors})
    if chosen.executors == 1:
        reason = "run this sequentially: " + _why_alone(graph, width, budget)
    else:
        reason = f"run it with {chosen.executors} executors: {_why_so_many(chosen.executors, width, budget)}"
    return Advice(
        graph.critical_path(),
        width,
        [Choice(m, graph.makespan(m) * SECONDS_PER_EFFORT, units / graph.makespan(m)) for m in numbers],
        None if usd is None else (round(usd * COST_RANGE[0], 2), round(usd * COST_RANGE[1], 2)),
        sum(usage.values()),
        chosen.executors,
        reason,
    )


def _why_so_many(executors: int, width: int, budget: int) -> str:
    if executors == width:
        return "no more tasks than that can ever run at once"
    if executors == budget:
        return "no more are allowed; --max-executors changes that"
    allowed = f" of the {budget} that are allowed" if budget < width else ""
    return f"more{allowed} would end less than 5 % sooner"


def _why_alone(graph: TaskGraph, width: int, budget: int) -> str:
    if len(graph.nodes) == 1:
        return "it is one task"
    if width == 1:
        return "each task waits for the one before it"
    if budget == 1:
        return "one executor is allowed; --max-executors changes that"
    return "more executors would end less than 5 % sooner"
