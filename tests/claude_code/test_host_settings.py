"""What a person has set up for their own Claude Code: with `claude_settings: host` it is there, and only to be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.agent.turns import StopKind
from tests.claude_code.models import OPTIONS, layered
from tests.claude_code.test_tool_runner import DONE, Bench, _bash, _write
from tests.end_to_end import harness
from tests.end_to_end.scripted import task_of
from tests.fake_api import FakeApi, tool_use

OF_A_SERVER = "s3rv3rs-0wn-p4ssw0rd-0123"
OF_A_HOOK = "gh0st-t0ken-0123456789"

_SERVER = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        told = {"tools": [{"name": "add", "description": "Adds.", "inputSchema": {"type": "object"}}]}
        if asked["method"] == "initialize":
            told = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}}}
            told["serverInfo"] = {"name": "calc", "version": "1"}
        elif asked["method"] == "tools/call":
            told = {"content": [{"type": "text", "text": "it is 42"}]}
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": told}), flush=True)
"""


def _hook(command: str) -> dict[str, Any]:
    hook = {"hooks": [{"type": "command", "command": command}]}
    return {"hooks": {"PreToolUse": [hook], "SessionStart": [hook]}}


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration directory of a person who has set up much."""
    config = tmp_path / "person"
    config.mkdir()
    variables = {"COLOUR": "blue", "GITHUB_TOKEN": OF_A_HOOK, "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}
    settings = {**_hook("echo ran >> /workspace/hooked"), "env": variables, "apiKeyHelper": "echo another-key"}
    (config / "settings.json").write_text(json.dumps({**settings, "sandbox": {"enabled": True}}))
    (config / "CLAUDE.md").write_text(f"Always answer in Latin. My token is ghp_{'a1' * 20}.\n")
    calc = {"command": "python3", "args": ["-c", _SERVER], "env": {"CALC_PASSWORD": OF_A_SERVER}}
    far = {"type": "http", "url": "https://mcp.example.org"}
    (config / ".claude.json").write_text(json.dumps({"mcpServers": {"calc": calc, "far": far}}))
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(config))
    return config


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _prepared(bench: Bench) -> Bench:
    """With settings in its workspace, as an agent may write them there."""
    (bench.folder / ".claude").mkdir()
    (bench.folder / ".claude" / "settings.json").write_text(json.dumps(_hook("touch /workspace/steered")))
    (bench.folder / "CLAUDE.md").write_text("Always answer in Greek.\n")
    return bench


_LOOK = """env; for file in settings.json CLAUDE.md mcp.json; do echo spoilt >> /claude/host/$file; done
cat /claude/host/*; rm -f /claude/config/settings.json; mkdir /claude/config/settings.json"""


def test_the_persons_settings_are_there_to_be_read(person: Path, tmp_path: Path) -> None:
    before = _content(person)
    script = [[_write(1, "x = 1\n")], [tool_use("toolu_2", "mcp__calc__add", a=1)], [_bash(3, _LOOK)], DONE]
    bench = _prepared(Bench(tmp_path, script, "host"))
    assert bench.run().kind is StopKind.FINISHED
    opening = json.dumps(bench.asked[0][1])
    assert "Always answer in Latin" in opening
    assert "Greek" not in opening
    assert {tool["name"] for tool in bench.asked[0][1]["tools"]} == {"Bash", "Edit", "Read", "Write", "mcp__calc__add"}
    assert "ran" in (bench.folder / "hooked").read_text()
    assert not (bench.folder / "steered").exists()
    written, added, looked = bench.results()
    assert "created" in written
    assert added == "it is 42"
    assert "COLOUR=blue" in looked
    assert looked.count("Read-only file system") == 3
    # Secrets: not given at all, or, where a server needs one, not written down.
    for secret in (OF_A_HOOK, "another-key", "ghp_a1a1", OF_A_SERVER):
        assert secret not in looked + opening
        assert not any(secret.encode() in path.read_bytes() for path in bench.path.parent.rglob("*") if _is_ours(path))
    assert "CALC_PASSWORD" in looked
    assert _content(person) == before
    assert sorted(path.name for path in person.iterdir()) == [".claude.json", "CLAUDE.md", "settings.json"]


def _is_ours(path: Path) -> bool:
    """Written by us: what Claude Code notes for itself is in its state folder."""
    return path.is_file() and "task_1.claude" not in path.parts


@pytest.mark.usefixtures("person")
def test_what_a_command_makes_of_them_is_gone_at_the_next_start(tmp_path: Path) -> None:
    planted = json.dumps(_hook("touch /workspace/steered"))
    spoil = f"cd /claude/config; rm settings.json CLAUDE.md; mkdir CLAUDE.md; echo '{planted}' > settings.json"
    script = [[_write(1, "x = 1\n")], [_bash(2, f"{spoil}; kill -9 $CLAUDE_PID; sleep 60")], [_write(3, "x")], DONE]
    bench = Bench(tmp_path, script, "host")
    assert bench.run().kind is StopKind.FINISHED
    assert "the tools stopped" in bench.results()[1]
    assert "created" in bench.results()[2]
    assert not (bench.folder / "steered").exists()


@pytest.mark.usefixtures("person")
def test_unless_asked_for_nothing_of_them_is_there(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [[_bash(1, "env; ls /claude; ls -A /claude/config")], DONE])
    assert bench.run().kind is StopKind.FINISHED
    assert "Latin" not in json.dumps(bench.asked)
    assert {tool["name"] for tool in bench.asked[0][1]["tools"]} == {"Bash", "Edit", "Read", "Write"}
    assert "COLOUR" not in bench.results()[0]
    assert "host" not in bench.results()[0].splitlines()
    assert not (bench.folder / "hooked").exists()


def test_a_whole_run_has_them_and_keeps_to_that(person: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    command = ("Build a part", "--output-dir", str(directory), *OPTIONS)
    around = {"CLAUDE_CONFIG_DIR": str(person)}
    with FakeApi(layered(1, 1), task_of=task_of) as api:
        output = harness.run(*command, "--claude-settings", "host", api=api, variables=around)
        bodies = [request.body for request in api.requests]
        again = harness.run(*command, api=api, variables=around, code=2)
    assert "with your own settings and CLAUDE.md and MCP servers calc" in output
    assert all("Always answer in Latin" in json.dumps(body["messages"]) for body in bodies)
    plan, work = bodies[0], bodies[-1]
    assert [tool["name"] for tool in plan["tools"]] == ["StructuredOutput"]
    assert "mcp__calc__add" in {tool["name"] for tool in work["tools"]}
    assert "claude_settings" in again  # part of what the run is
    secrets = (OF_A_SERVER.encode(), OF_A_HOOK.encode())
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert [path for path in files for secret in secrets if secret in path.read_bytes()] == []


def test_without_a_sandbox_they_are_there_too_and_no_path_of_the_host(person: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    options = (*OPTIONS, "--claude-settings", "host", "--sandbox", "off", "--output-dir", str(directory))
    with FakeApi(layered(1, 1), task_of=task_of) as api:
        harness.run("Build a part", *options, api=api, variables={"CLAUDE_CONFIG_DIR": str(person)})
        said = json.dumps([request.body for request in api.requests])
    assert "Always answer in Latin" in said
    assert "mcp__calc__add" in said
    assert str(tmp_path) not in said
    assert harness.summary(directory)["status"] == "done"
