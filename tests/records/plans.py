"""Plans for the tests of this and of other rooms."""

from __future__ import annotations

from typing import Any

from parallel_orchestrator.records.graph import TaskGraph, TaskNode
from parallel_orchestrator.records.plan import Complexity, Plan, Task

COMPLEXITY = Complexity(level="simple", reasoning="It is small.", key_features=["x"], technical_components=["Python"])


def task(number: int, after: tuple[int, ...] = (), **changes: Any) -> Task:
    """A task that owns one module, its test and its document."""
    fields: dict[str, Any] = {
        "id": f"task_{number}",
        "name": f"Part {number}",
        "description": f"Build part {number}.",
        "priority": 1,
        "estimated_effort": "medium",
        "dependencies": [f"task_{n}" for n in after],
        "files": [f"src/part_{number}.py", f"tests/test_part_{number}.py", f"docs/part_{number}.md"],
        "acceptance": ["it works"],
        "integration_notes": "",
    }
    return Task(**{**fields, **changes})


def plan(*tasks: Task, **changes: Any) -> Plan:
    """A plan of these tasks."""
    fields: dict[str, Any] = {
        "complexity": COMPLEXITY,
        "contract": "",
        "integration_notes": "",
        "packages": [],
        "verify": [],
        "tasks": list(tasks),
    }
    return Plan(**{**fields, **changes})


def graph(*edges: str) -> TaskGraph:
    """Tasks from "c<a,b" strings: c depends on a and b. "c*4<a" has weight 4, "c!2" priority 2."""
    nodes = []
    for edge in edges:
        head, _, after = edge.partition("<")
        head, _, priority = head.partition("!")
        name, _, weight = head.partition("*")
        dependencies = tuple(filter(None, after.split(",")))
        nodes.append(TaskNode(name, dependencies, float(weight or 1), int(priority or 1)))
    return TaskGraph(nodes)
