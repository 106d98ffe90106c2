"""The projects that the whole-stack benchmark builds, and the scripted model that builds them.

A part is a module, its tests and its document, written in four turns: module and tests, document, a run of the tests,
a closing report. How long each answer takes is drawn once, by shape, task and turn: log-normal with sigma 0.6.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
from dataclasses import asdict, dataclass
from typing import Any

from tests.fake_api import Answer, Block, Body, text, tool_use

EDITOR = "str_replace_based_edit_tool"
TURNS = 4
SIGMA = 0.6
PLANNING = 2
"""Mean latencies that the plan takes."""
VARIABLE = "BENCHMARK_SHAPE"
"""In the environment of the fake server: the shape as JSON."""


@dataclass(frozen=True)
class Shape:
    """A graph of tasks. `after[i]` are the numbers (from 1) of the tasks that task i + 1 depends on."""

    name: str
    executors: int
    mean_s: float
    """Of one answer."""
    after: tuple[tuple[int, ...], ...]

    @property
    def tasks(self) -> int:
        """How many there are."""
        return len(self.after)

    def latency(self, number: int, turn: int) -> float:
        """Seconds that the model takes for a turn (from 1) of a task."""
        drawn = random.Random(f"{self.name}:{number}:{turn}").lognormvariate(-(SIGMA**2) / 2, SIGMA)
        return self.mean_s * drawn

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, told: str) -> Shape:
        """What `to_json` gave."""
        fields = json.loads(told)
        return cls(**{**fields, "after": tuple(tuple(numbers) for numbers in fields["after"])})


def layered(layers: int, width: int, executors: int, mean_s: float) -> Shape:
    """Layers of `width` tasks; each depends on one to three of the layer before."""
    drawn = random.Random("layered")
    after: list[tuple[int, ...]] = []
    for layer in range(layers):
        before = range((layer - 1) * width + 1, layer * width + 1)
        for _ in range(width):
            after.append(tuple(sorted(drawn.sample(before, drawn.randint(1, min(3, width))))) if layer else ())
    return Shape("layered", executors, mean_s, tuple(after))


def chain(length: int, executors: int, mean_s: float) -> Shape:
    """One task after the other."""
    return Shape("chain", executors, mean_s, ((), *((number,) for number in range(1, length))))


def map_reduce(width: int, executors: int, mean_s: float) -> Shape:
    """One task, `width` that need it, and one that needs those."""
    return Shape("map-reduce", executors, mean_s, ((), *((1,),) * width, tuple(range(2, width + 2))))


def plan(shape: Shape) -> dict[str, Any]:
    """The plan of a shape, as the planner writes plans."""
    return {
        "complexity": {
            "level": "complex",
            "reasoning": "It has many parts.",
            "key_features": ["parts"],
            "technical_components": ["Python"],
        },
        "contract": "part_N.value() returns N plus the values of the parts that it depends on.",
        "integration_notes": "None.",
        "packages": [],
        "verify": [],
        "tasks": [_task(shape, number) for number in range(1, shape.tasks + 1)],
    }


def files_of(shape: Shape, number: int) -> dict[str, str]:
    """What a part consists of."""
    needs = shape.after[number - 1]
    imports = "".join(f"import part_{other}\n" for other in needs)
    total = " + ".join([str(number), *(f"part_{other}.value()" for other in needs)])
    module = (
        f'"""Part {number}."""\n\nfrom __future__ import annotations\n\n{imports}\n\n'
        f'def value() -> int:\n    """Its value."""\n    return {total}\n\n\n'
        'def label(prefix: str = "part") -> str:\n    """How people call it."""\n'
        '    if not prefix:\n        raise ValueError("a label needs a prefix")\n'
        f'    return f"{{prefix}} {number}"\n'
    )
    tests = (
        f"import pytest\n\nimport part_{number}\n\n\n"
        f"def test_value_adds_up():\n    assert part_{number}.value() == {_value(shape, number)}\n\n\n"
        f'def test_label_has_its_prefix():\n    assert part_{number}.label("unit") == "unit {number}"\n\n\n'
        f"def test_a_label_needs_a_prefix():\n    with pytest.raises(ValueError):\n"
        f'        part_{number}.label("")\n'
    )
    return {
        f"src/part_{number}.py": module,
        f"tests/test_part_{number}.py": tests,
        f"docs/part_{number}.md": f"# Part {number}\n\nReturns a value and a label.\n",
    }


def command_of(number: int) -> str:
    """The command that the model runs in its third turn."""
    return f"python -m pytest -q tests/test_part_{number}.py"


def turn_of(shape: Shape, number: int, turn: int) -> list[Block]:
    """What the model says in a turn."""
    files = files_of(shape, number)
    names = {1: (f"src/part_{number}.py", f"tests/test_part_{number}.py"), 2: (f"docs/part_{number}.md",)}
    if turn in names:
        return [
            tool_use(
                f"toolu_{number}_{path}".translate(_ID), EDITOR, command="create", path=path, file_text=files[path]
            )
            for path in names[turn]
        ]
    if turn == 3:
        return [tool_use(f"toolu_{number}_run", "bash", command=command_of(number))]
    return [text(f"Part {number} is built, and its tests pass.")]


def answer(body: Body) -> Answer:
    """The fake server's script: planner, and executor of each task."""
    shape = _shape()
    found = re.search(r"# Your task: task_(\d+)", json.dumps(body["messages"][0]))
    if not found:
        return Answer([text(json.dumps(plan(shape)))], latency_s=PLANNING * shape.mean_s)
    number = int(found.group(1))
    turn = 1 + sum(message["role"] == "assistant" for message in body["messages"])
    return Answer(turn_of(shape, number, turn), latency_s=shape.latency(number, turn))


def bound(durations: list[float], shape: Shape) -> tuple[float, float]:
    """Makespan of a schedule that knows the durations and loses no time (longest remaining path first), and the
    lower bound of any schedule: the longest path, or all work over all executors."""
    longest = _longest_paths(durations, shape)
    return _simulate(durations, shape, longest), max(*longest, sum(durations) / shape.executors)


def bound_of_our_order(durations: list[float], shape: Shape) -> float:
    """Makespan of a schedule that loses no time and knows the graph alone, as the product does at first."""
    return _simulate(durations, shape, _longest_paths([1.0] * shape.tasks, shape))


def _longest_paths(durations: list[float], shape: Shape) -> list[float]:
    longest = list(durations)
    for number in range(shape.tasks, 0, -1):
        below = [longest[other - 1] for other in range(1, shape.tasks + 1) if number in shape.after[other - 1]]
        longest[number - 1] = durations[number - 1] + max(below, default=0.0)
    return longest


def _simulate(durations: list[float], shape: Shape, order: list[float]) -> float:
    ends = [math.inf] * shape.tasks
    free, left, now = [0.0] * shape.executors, set(range(shape.tasks)), 0.0
    while left:
        now = max(now, min(free))
        ready = [task for task in left if all(ends[before - 1] <= now for before in shape.after[task])]
        if not ready:
            now = min(end for end in ends if end > now)
            free = [max(moment, now) for moment in free]
            continue
        chosen = max(ready, key=lambda task: order[task])
        ends[chosen] = free[free.index(min(free))] = now + durations[chosen]
        left.remove(chosen)
    return max(ends)


_ID = str.maketrans("/.", "__")


def _shape() -> Shape:
    return Shape.of_json(os.environ[VARIABLE])


def _value(shape: Shape, number: int) -> int:
    return number + sum(_value(shape, other) for other in shape.after[number - 1])


def _task(shape: Shape, number: int) -> dict[str, Any]:
    return {
        "id": f"task_{number}",
        "name": f"Part {number}",
        "description": f"Build part {number}: its value and its label.",
        "priority": 1,
        "estimated_effort": "medium",
        "dependencies": [f"task_{other}" for other in shape.after[number - 1]],
        "files": list(files_of(shape, number)),
        "acceptance": [f"part_{number}.value() adds up", f"part_{number}.label() has its prefix"],
        "integration_notes": "",
    }
