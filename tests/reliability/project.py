"""The project that is built while it is killed: small, with repairs, and its files do not depend on who merges first.

task_1 makes a shared file, to which task_2 and task_3 add a name each: at once, and then they conflict, or one after
the other, and then they do not. Either way it ends with both names in order. task_4 stands alone; it hands in without
a test first and is sent back, always. Then its context is full, and a new conversation writes the test.
"""

from __future__ import annotations

import json

from tests.end_to_end import scripted
from tests.end_to_end.scripted import EDITOR, answers_before, said_last, task_of
from tests.fake_api import Answer, Block, Body, text, tool_use

REQUIREMENT = "Build parts that share a file"
SHARED = "src/shared.py"
AGAIN = "An earlier conversation worked on this task"
TASKS = ("task_1", "task_2", "task_3", "task_4")

_PLAN = scripted.plan(
    [
        scripted.task(1, [], files=["src/part_1.py", SHARED, "tests/test_part_1.py", "docs/part_1.md"]),
        scripted.task(2, [1]),
        scripted.task(3, [1]),
        scripted.task(4, []),
    ]
)
_ADD = """python - <<'END'
from pathlib import Path
shared = Path("{path}")
names = {{line for line in shared.read_text().splitlines() if line.startswith("#")}} | {{"# {name}"}}
shared.write_text("NAMES = True\\n" + "\\n".join(sorted(names)) + "\\n")
END"""
_BOTH = "NAMES = True\n# task_2\n# task_3\n"


def answer(body: Body) -> Answer | list[Block]:
    """The scripted model."""
    return scripted.model(_PLAN, _build)(body)


def conversation_of(body: Body) -> str:
    """Which conversation a request is of: a task's, or its new one, whose turns the fake server counts from 1 again."""
    begun_anew = AGAIN in json.dumps(body["messages"][0])
    return f"{task_of(body)} again" if begun_anew else task_of(body)


def _build(body: Body) -> Answer | list[Block]:
    name, said, turn = task_of(body), said_last(body), answers_before(body) + 1
    if "not merged yet" in said and name == "task_4":
        return Answer([text("There is no")], "model_context_window_exceeded")
    if "not merged yet" in said or AGAIN in said:
        return [_mend(name)]
    if f"toolu_{name}_mend" in said:
        return [text("It is mended.")]
    if turn == 1:
        return _write(name)
    if turn == 2 and name in ("task_2", "task_3"):
        return [tool_use(f"toolu_{name}_add", "bash", command=_ADD.format(path=SHARED, name=name))]
    return [text(f"{name} is built.")]


def _write(name: str) -> list[Block]:
    """Module, document and test; task_4 forgets the test."""
    number = name.removeprefix("task_")
    blocks = [
        _create(name, "module", f"src/part_{number}.py", f"def value():\n    return {number}\n"),
        _create(name, "document", f"docs/part_{number}.md", f"# Part {number}\n"),
    ]
    if name == "task_1":
        blocks.append(_create(name, "shared", SHARED, "NAMES = True\n"))
    return blocks if name == "task_4" else [*blocks, _test(name, "test")]


def _mend(name: str) -> Block:
    return _test(name, "mend") if name == "task_4" else _create(name, "mend", SHARED, _BOTH)


def _test(name: str, what: str) -> Block:
    number = name.removeprefix("task_")
    code = f"import part_{number}\n\n\ndef test_value():\n    assert part_{number}.value() == {number}\n"
    return _create(name, what, f"tests/test_part_{number}.py", code)


def _create(name: str, what: str, path: str, content: str) -> Block:
    return tool_use(f"toolu_{name}_{what}", EDITOR, command="create", path=path, file_text=content)
