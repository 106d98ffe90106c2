"""Tasks whose work does not fit together at once: conflicts, and parts that are green alone and red together."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.end_to_end import harness, scripted
from tests.end_to_end.scripted import EDITOR, answers_before, build_part, said_last, task_of
from tests.fake_api import Block, Body, FakeApi, text, tool_use

SHARED = "src/shared.py"
FIRST = 'NAMES = ["first"]\n'


def _plan() -> dict[str, object]:
    """task_1 makes a shared file; task_2 and task_3 change it, at once; task_4 needs task_3; task_5 stands alone."""
    tasks = [
        scripted.task(1, [], files=["src/part_1.py", SHARED, "tests/test_part_1.py", "docs/part_1.md"]),
        scripted.task(2, [1]),
        scripted.task(3, [1]),
        scripted.task(4, [3]),
        scripted.task(5, []),
    ]
    return scripted.plan(tasks)


def _first_part(body: Body) -> list[Block]:
    """Task 1 makes the shared file besides its part."""
    blocks = build_part(body)
    if answers_before(body) == 0:
        create = {"command": "create", "path": SHARED, "file_text": FIRST}
        blocks.append(tool_use("toolu_shared", EDITOR, **create))
    return blocks


def _change(name: str, old: str, new: str) -> list[Block]:
    return [tool_use(f"toolu_{name}_shared", EDITOR, command="str_replace", path=SHARED, old_str=old, new_str=new)]


def _conflicting(body: Body, *, repairs: bool) -> list[Block]:
    """Tasks 2 and 3 replace the same line, each by its own; whoever is told of the conflict takes both in, or not."""
    name = task_of(body)
    if name == "task_1":
        return _first_part(body)
    if name not in ("task_2", "task_3"):
        return build_part(body)
    if "not merged yet" in said_last(body):
        if not repairs:
            return [text("It is fine as it is.")]
        both = 'NAMES = ["first", "task_2", "task_3"]\n'
        return [tool_use(f"toolu_{name}_repair", EDITOR, command="create", path=SHARED, file_text=both)]
    if "toolu_" + name + "_repair" in said_last(body):
        return [text("Both names are there now.")]
    if answers_before(body) == 3:
        _wait_for_the_other(body)
        return _change(name, FIRST, f'NAMES = ["first", "{name}"]\n')
    return build_part(body)


def _wait_for_the_other(_body: Body) -> None:
    """Both tasks must have begun from the same trunk, or there is nothing to conflict."""
    time.sleep(0.5)


UNIQUE = """
import pathlib

import part_{number}

def test_id():
    assert part_{number}.ID > 0

def test_ids_are_unique():
    modules = pathlib.Path("src").glob("part_*.py")
    ids = [line for module in modules for line in module.read_text().splitlines() if "ID =" in line]
    assert len(ids) == len(set(ids))
"""


def _red_together(body: Body, *, repairs: bool) -> list[Block]:
    """Tasks 2 and 3 give their modules the same id, and each tests that ids are unique: green alone, red together."""
    name = task_of(body)
    if name == "task_1":
        return _first_part(body)
    if name not in ("task_2", "task_3"):
        return build_part(body)
    number = int(name[-1])
    module = {"command": "create", "path": f"src/part_{number}.py"}
    if "not merged yet" in said_last(body):
        if not repairs:
            return [text("It is fine as it is.")]
        return [tool_use(f"toolu_{name}_repair", EDITOR, **module, file_text=f"ID = {number}\n")]
    if "toolu_" + name + "_repair" in said_last(body):
        return [text("The id is its own now.")]
    if answers_before(body) == 0:
        _wait_for_the_other(body)
        test = {"command": "create", "path": f"tests/test_part_{number}.py", "file_text": UNIQUE.format(number=number)}
        return [
            tool_use(f"toolu_{name}_m", EDITOR, **module, file_text="ID = 7\n"),
            tool_use(f"toolu_{name}_t", EDITOR, **test),
        ]
    return build_part(body)


@pytest.mark.parametrize("build", [_conflicting, _red_together])
def test_a_model_that_repairs_when_told_gets_everything_merged(build: object, tmp_path: Path) -> None:
    script = scripted.model(_plan(), lambda body: build(body, repairs=True))  # type: ignore[operator]
    with FakeApi(script, task_of=task_of, latency_s=0.05) as api:
        harness.run("Build parts that clash", "--output-dir", str(tmp_path / "out"), api=api)
        assert api.answered_twice() == []
    found = harness.summary(tmp_path / "out")
    assert (found["status"], found["completed"]) == ("done", 5)
    assert found["tests"]["failed"] == 0
    repaired = {move["task"] for move in harness.moves(tmp_path / "out") if move["state"] == "repair"}
    assert repaired
    assert repaired <= {"task_2", "task_3"}


@pytest.mark.parametrize(
    ("build", "reason"),
    [(_conflicting, "conflict markers"), (_red_together, "the merged tests fail")],
)
def test_a_model_that_does_not_repair_fails_that_task_alone(build: object, reason: str, tmp_path: Path) -> None:
    script = scripted.model(_plan(), lambda body: build(body, repairs=False))  # type: ignore[operator]
    with FakeApi(script, task_of=task_of, latency_s=0.05) as api:
        output = harness.run("Build parts that clash", "--output-dir", str(tmp_path / "out"), api=api, code=1)
    found = {task["id"]: task for task in harness.summary(tmp_path / "out")["tasks"]}
    failed = [name for name, task in found.items() if task["state"] == "failed"]
    assert len(failed) == 1
    assert failed[0] in ("task_2", "task_3")
    assert reason in found[failed[0]]["reason"]
    assert reason in output
    assert "after 2 repair rounds" in found[failed[0]]["reason"]
    if failed == ["task_3"]:
        assert (found["task_4"]["state"], found["task_4"]["reason"]) == ("blocked", "task_3 failed")
    merged = {name for name, task in found.items() if task["state"] == "merged"}
    assert merged == set(found) - set(failed) - ({"task_4"} if failed == ["task_3"] else set())
    assert (tmp_path / "out" / "executor_1").is_dir()
