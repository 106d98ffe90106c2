"""A scripted model: plans a layered project and builds each task in four turns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from tests.fake_api import Answer, Block, Body, text, tool_use

EDITOR = "str_replace_based_edit_tool"


def task_of(body: Body) -> str:
    """Which task a request is about: the planner's request holds no task text."""
    found = re.search(r"# Your task: ((?:task|fix)_\d+)", json.dumps(body["messages"][:1]))
    return found.group(1) if found else "plan"


def answers_before(body: Body) -> int:
    """Answers already in the conversation."""
    return sum(message["role"] == "assistant" for message in body["messages"])


def said_last(body: Body) -> str:
    """The last user message as JSON text."""
    return json.dumps(body["messages"][-1])


def task(number: int, dependencies: list[int], **changes: Any) -> dict[str, Any]:
    """A planned task that owns one module, its test and its document."""
    return {
        "id": f"task_{number}",
        "name": f"Part {number}",
        "description": f"Build part {number}.",
        "priority": 1,
        "estimated_effort": "medium",
        "dependencies": [f"task_{d}" for d in dependencies],
        "files": [f"src/part_{number}.py", f"tests/test_part_{number}.py", f"docs/part_{number}.md"],
        "acceptance": [f"part_{number}.value() returns {number}"],
        "integration_notes": "",
        **changes,
    }


def plan(tasks: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A plan of these tasks."""
    return {
        "complexity": {
            "level": "complex",
            "reasoning": "It has many parts.",
            "key_features": ["parts"],
            "technical_components": ["Python"],
        },
        "contract": "part_N.value() returns N.",
        "integration_notes": "None.",
        "packages": [],
        "verify": ["PYTHONPATH=src python -c 'import part_1; assert part_1.value() == 1'"],
        "tasks": tasks,
        **changes,
    }


def layered(layers: int, width: int) -> dict[str, Any]:
    """`layers` layers of `width` tasks; each depends on two of the layer before."""
    tasks = []
    for number in range(1, layers * width + 1):
        layer, place = divmod(number - 1, width)
        before = [(layer - 1) * width + p + 1 for p in {place, (place + 1) % width}] if layer else []
        tasks.append(task(number, sorted(before)))
    return plan(tasks)


def build_part(body: Body, turn: int | None = None) -> list[Block]:
    """The next turn of building a part: module and test, document, a try, report. `turn` counts from 1.

    A red whole is left as it is.
    """
    name = task_of(body)
    if name.startswith("fix_"):
        return [text(f"I see nothing to correct, {answers_before(body)}.")]
    number = int(name.removeprefix("task_"))
    turn = turn or answers_before(body) + 1
    create = {"command": "create"}
    if turn == 1:
        module = f'"""Part {number}."""\n\n\ndef value() -> int:\n    """Its value."""\n    return {number}\n'
        test = f"import part_{number}\n\n\ndef test_value():\n    assert part_{number}.value() == {number}\n"
        return [
            text("The module and its test."),
            tool_use(f"toolu_{name}_1", EDITOR, **create, path=f"src/part_{number}.py", file_text=module),
            tool_use(f"toolu_{name}_2", EDITOR, **create, path=f"tests/test_part_{number}.py", file_text=test),
        ]
    if turn == 2:
        page = f"# Part {number}\n\nReturns {number}.\n"
        return [tool_use(f"toolu_{name}_3", EDITOR, **create, path=f"docs/part_{number}.md", file_text=page)]
    if turn == 3:
        # The test itself runs when it is handed in: hundreds of parts are built, and pytest takes ten times as long.
        tried = f"PYTHONPATH=src python -c 'import part_{number}; print(part_{number}.value())'"
        return [tool_use(f"toolu_{name}_4", "bash", command=tried)]
    return [text(f"Part {number} returns {number}.")]


def model(
    planned: dict[str, Any], build: Callable[[Body], Answer | list[Block]] = build_part
) -> Callable[[Body], Answer | list[Block]]:
    """A script that plans `planned` and builds its tasks with `build`."""

    def script(body: Body) -> Answer | list[Block]:
        return [text(json.dumps(planned))] if task_of(body) == "plan" else build(body)

    return script
