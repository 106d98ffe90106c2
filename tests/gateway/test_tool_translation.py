"""One recording for both kinds of tools: calls told in those that are offered, and meaning the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.agent.prompt import _OWN_TOOLS, _PLAIN_TOOLS
from parallel_orchestrator.config.options import find_recording
from parallel_orchestrator.gateway.endpoints.recording import load
from parallel_orchestrator.messages_api.tool_translation import translated
from tests.fake_api import Block, text, tool_use

CLAUDE_CODE = {"tools": [{"name": name} for name in ("Bash", "Edit", "Read", "Write")]}
API = {"tools": _PLAIN_TOOLS}
EDITOR = "str_replace_based_edit_tool"


def _edit(**arguments: Any) -> Block:
    return tool_use("t", EDITOR, **arguments)


BOTH_WAYS = [
    (
        _edit(command="create", path="src/a.py", file_text="x"),
        tool_use("t", "Write", file_path="/workspace/src/a.py", content="x"),
    ),
    (
        _edit(command="str_replace", path="a", old_str="x", new_str="y"),
        tool_use("t", "Edit", file_path="/workspace/a", old_string="x", new_string="y"),
    ),
    (
        _edit(command="view", path="a", view_range=[3, 7]),
        tool_use("t", "Read", file_path="/workspace/a", offset=3, limit=5),
    ),
    (_edit(command="view", path="a", view_range=[3, -1]), tool_use("t", "Read", file_path="/workspace/a", offset=3)),
    (tool_use("t", "bash", command="ls"), tool_use("t", "Bash", command="ls")),
]


@pytest.mark.parametrize(("ours", "theirs"), BOTH_WAYS)
def test_a_call_is_told_in_the_tools_that_are_offered(ours: Block, theirs: Block) -> None:
    said = text("Now.")
    assert translated(CLAUDE_CODE, [said, ours], "tool_use") == ([said, theirs], "tool_use")
    assert translated(API, [said, theirs], "tool_use") == ([said, ours], "tool_use")
    for body, block in ((API, ours), ({"tools": _OWN_TOOLS}, ours), (CLAUDE_CODE, theirs), ({}, ours), ({}, theirs)):
        assert translated(body, [block], "tool_use") == ([block], "tool_use")


@pytest.mark.parametrize(
    "block",
    [
        _edit(command="undo", path="a"),
        _edit(path="a"),
        _edit(command="create", path=7, file_text="x"),
        tool_use("t", "bash", restart=True),
        tool_use("t", "unheard_of", command="x"),
    ],
)
def test_what_has_no_counterpart_stays(block: Block) -> None:
    assert translated(CLAUDE_CODE, [block], "tool_use") == ([block], "tool_use")


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_insertion_is_a_command_that_inserts(after: int, tmp_path: Path) -> None:
    (tmp_path / "a b").write_text("one\ntwo\n")
    call = _edit(command="insert", path="a b", insert_line=after, insert_text="it's $HOME\n")
    (told,), _ = translated(CLAUDE_CODE, [call], "tool_use")
    subprocess.run(["bash", "-c", told["input"]["command"]], cwd=tmp_path, check=True)
    lines = ["one", "two"]
    lines.insert(after, "it's $HOME")
    assert (tmp_path / "a b").read_text().splitlines() == lines
    assert [path.name for path in tmp_path.iterdir()] == ["a b"]


def test_a_view_is_a_command_that_shows_a_file_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("inside\n")
    for path, shown in (("file", "inside"), (".", "file")):
        (told,), _ = translated(CLAUDE_CODE, [_edit(command="view", path=path)], "tool_use")
        done = subprocess.run(
            ["bash", "-c", told["input"]["command"]], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        assert shown in done.stdout


def test_a_plan_is_text_or_structured_output() -> None:
    structured = {"tools": [{"name": "StructuredOutput"}]}
    plan = {"tasks": [1]}
    written = [text(json.dumps(plan))]
    told, stop_reason = translated(structured, written, "end_turn")
    assert (told[0]["name"], told[0]["input"], stop_reason) == ("StructuredOutput", plan, "tool_use")
    assert translated({}, told, stop_reason) == (written, "end_turn")
    for words, reason in (("no plan", "end_turn"), ("[1]", "end_turn"), (json.dumps(plan), "max_tokens")):
        assert translated(structured, [text(words)], reason) == ([text(words)], reason)


@pytest.mark.parametrize("name", ["simple", "medium", "complex"])
def test_no_call_of_the_shipped_recordings_is_left_over(name: str) -> None:
    path = find_recording(name)
    calls = 0
    for answer in load(path).answers:
        told, _ = translated(CLAUDE_CODE, answer.content, answer.stop_reason)
        names = {block["name"] for block in told if block["type"] == "tool_use"}
        assert names <= {"Bash", "Edit", "Read", "Write"}
        calls += len(names)
    assert calls
