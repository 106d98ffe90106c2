"""A project whose parts are green and whose whole is red, and a scripted model that corrects it or does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.end_to_end import scripted
from tests.end_to_end.scripted import EDITOR, answers_before, build_part, said_last, task_of
from tests.fake_api import Answer, Block, Body, FakeApi, text, tool_use

REQUIREMENT = "Build two parts whose values are thirty together"
THIRTY = "PYTHONPATH=src python -c 'import part_1, part_2; print(part_1.value()); assert part_1.value() == 28'"
"""The whole's check. Part 1 returns 1, as the plan says, so it fails until somebody changes that."""
ABSENT = "PYTHONPATH=src python check_all.py"
"""A check that no change of the project can make pass: nothing may be written at the top of the project."""


def planned(*verify: str) -> dict[str, Any]:
    """A plan of two parts, with these verify commands."""
    return scripted.plan([scripted.task(1, []), scripted.task(2, [])], verify=list(verify or (THIRTY,)))


def replaced(path: str, old: str, new: str, name: str = "") -> Block:
    """A call that replaces text in a file."""
    arguments = {"command": "str_replace", "path": path, "old_str": old, "new_str": new}
    return tool_use(_call_id(name or path), EDITOR, **arguments)


def written(path: str, content: str, name: str = "") -> Block:
    """A call that writes a file."""
    return tool_use(_call_id(name or path), EDITOR, command="create", path=path, file_text=content)


def _call_id(name: str) -> str:
    return "toolu_fix_" + "".join(letter if letter.isalnum() else "_" for letter in name)


def corrects(body: Body) -> list[Block]:
    """A fix that changes a module and the test of it, both of which another task owns."""
    if answers_before(body) == 0:
        return [
            replaced("src/part_1.py", "return 1", "return 28"),
            replaced("tests/test_part_1.py", "== 1", "== 28"),
        ]
    return [text("The value is 28 now.")]


def only_talks(body: Body) -> list[Block]:
    """A fix that changes nothing, however often it comes back."""
    return [text(f"I see nothing wrong, {answers_before(body)}.")]


def changes_something_else(body: Body) -> list[Block]:
    """A fix that makes nothing worse, and leaves the whole red."""
    if answers_before(body) == 0:
        return [written("docs/notes.md", "# Notes\n\nPart 1 returns 1.\n")]
    return [text(f"I have written it down, {answers_before(body)}.")]


def late(body: Body) -> list[Block]:
    """A fix that corrects the whole when it is sent back for the first time."""
    if answers_before(body) == 0:
        return [text("It is fine as it is.")]
    if "not merged yet" in said_last(body):
        return [
            replaced("src/part_1.py", "return 1", "return 28"),
            replaced("tests/test_part_1.py", "== 1", "== 28"),
        ]
    return [text("The value is 28 now.")]


Fix = Callable[[Body], list[Block]]


def script(plan: dict[str, Any], fix: Fix) -> Callable[[Body], Answer | list[Block]]:
    """A model that builds the parts, and does `fix` on each fix task."""

    def build(body: Body) -> list[Block]:
        return fix(body) if task_of(body).startswith("fix_") else build_part(body)

    return scripted.model(plan, build)


def api(plan: dict[str, Any], fix: Fix, latency_s: float = 0.02) -> FakeApi:
    """A server with that model."""
    return FakeApi(script(plan, fix), task_of=task_of, latency_s=latency_s)
