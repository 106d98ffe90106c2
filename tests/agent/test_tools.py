from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.agent.tools.toolbox import ToolBox
from parallel_orchestrator.messages_api.tool_calls import BASH, EDITOR
from parallel_orchestrator.sandbox.runner import PlainRunner


@pytest.fixture
def tools(folder: Path) -> ToolBox:
    return ToolBox(folder, PlainRunner(), bash_timeout_s=20)


def test_editor_and_bash_see_the_same_files(tools: ToolBox) -> None:
    assert not tools.run(EDITOR, {"command": "create", "path": "src/a.py", "file_text": "print(1)\n"}).is_error
    assert tools.run(BASH, {"command": "python src/a.py"}).content == "1"


def test_exit_code_is_told_and_is_no_error_of_the_tool(tools: ToolBox) -> None:
    result = tools.run(BASH, {"command": "echo why; exit 3"})
    assert (result.content, result.is_error) == ("why\n[exit code 3]", False)


def test_silence_is_told(tools: ToolBox) -> None:
    assert tools.run(BASH, {"command": "true"}).content == "(no output)"


def test_every_call_is_a_fresh_shell(tools: ToolBox) -> None:
    tools.run(BASH, {"command": "cd /; x=1"})
    assert tools.run(BASH, {"command": "echo $PWD ${x-none}"}).content == "/workspace none"
    assert not tools.run(BASH, {"restart": True}).is_error


def test_time_limit_is_told(folder: Path) -> None:
    result = ToolBox(folder, PlainRunner(), bash_timeout_s=3).run(BASH, {"command": "echo begun; sleep 100"})
    assert result.is_error
    assert result.content.startswith("begun\n[stopped: it ran longer than 3 s")


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("web_search", {}, "no tool 'web_search'; the tools are"),
        (BASH, {}, "command is missing"),
        (BASH, {"command": 3}, "command is missing"),
        (BASH, {"command": "echo \0"}, "NUL"),
        (BASH, {"command": "x" * 200_000}, "at most 100,000 bytes"),
        (BASH, "echo x", "must be a JSON object, not str"),
        (EDITOR, None, "must be a JSON object, not NoneType"),
        (EDITOR, {"command": "view", "path": "../../x"}, "could lead out"),
    ],
)
def test_wrong_calls_are_results(tools: ToolBox, name: str, arguments: Any, told: str) -> None:
    result = tools.run(name, arguments)
    assert result.is_error
    assert told in result.content


def test_lone_surrogates_do_no_harm(tools: ToolBox) -> None:
    assert tools.run(BASH, {"command": "echo '\ud800'"}).content == "?"
    assert not tools.run(EDITOR, {"command": "create", "path": "a", "file_text": "\ud800"}).is_error


def test_host_path_of_the_workspace_is_not_told(tools: ToolBox, folder: Path) -> None:
    (folder.parent / "task_10").mkdir()
    seen = tools.run(BASH, {"command": "pwd; echo $PWD/x $PWD' y'; echo ${PWD}0"}).content
    assert seen == f"/workspace\n/workspace/x /workspace y\n{folder}0"


@pytest.mark.parametrize(
    ("name", "arguments", "changes"),
    [
        (EDITOR, {"command": "view", "path": "."}, False),
        (EDITOR, {"command": "create"}, True),
        (EDITOR, {}, True),
        (EDITOR, [], False),
        (BASH, {"command": "ls"}, True),
        (BASH, {"restart": True}, False),
        ("unknown", {"command": "x"}, False),
    ],
)
def test_what_can_change_files(tools: ToolBox, name: str, arguments: Any, changes: bool) -> None:
    assert tools.mutates(name, arguments) is changes
