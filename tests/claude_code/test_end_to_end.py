"""Whole runs in which the real Claude Code plans and builds, over the real gateway, on a fake server or a recording."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.claude_code.session import session_id
from parallel_orchestrator.records.attempt_token import Caller
from tests.attacks.canary import CANARY, leaks, processes_watched
from tests.claude_code.models import OPTIONS, in_their_tools, layered
from tests.end_to_end import harness, scripted
from tests.end_to_end.scripted import EDITOR, answers_before, said_last, task_of
from tests.fake_api import Answer, Block, Body, FakeApi, Fault, text, tool_use
from tests.journals import read_all

pytestmark = pytest.mark.timeout(600)

REQUIREMENT = "Build a project of a few parts"
MEDIUM = scripted.plan([scripted.task(1, []), scripted.task(2, []), scripted.task(3, []), scripted.task(4, [1, 2, 3])])
"""Three that can be worked on at once, and one that needs all of them."""


def _built(directory: Path, api: FakeApi, *options: str, **more: Any) -> str:
    return harness.run(REQUIREMENT, "--output-dir", str(directory), *OPTIONS, *options, api=api, **more)


def _processes(directory: Path) -> list[str]:
    """Command lines of Claude Codes that were started for this run."""
    run = json.loads((directory / "scenario.json").read_text())["run"]
    tasks = ["plan", *(task["id"] for task in harness.summary(directory)["tasks"])]
    names = [str(session_id(Caller(run, task, 1))).encode() for task in tasks]
    living = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                line = (process / "cmdline").read_bytes()
            except OSError:
                continue
            living += [line.decode(errors="replace")] * any(name in line for name in names)
    return living


def _sessions(directory: Path) -> list[list[dict[str, Any]]]:
    """The entries of each session that Claude Code kept."""
    found = sorted(directory.glob("executor_*/*.claude/config/projects/*/*.jsonl"))
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in found]


@pytest.mark.long
def test_it_plans_and_builds_with_three_at_once_as_the_other_back_end_does(tmp_path: Path) -> None:
    mine, other = tmp_path / "claude", tmp_path / "api"
    script = in_their_tools(scripted.model(MEDIUM))

    def patient(body: Body) -> Answer:
        """The first answer to each task comes when the others have asked as well, however slow their starts are."""
        first = task_of(body) != "plan" and answers_before(body) == 0
        return replace(script(body), latency_s=5.0 if first else 0.0)

    with FakeApi(patient, task_of=task_of) as api:
        output = _built(mine, api, "--max-executors", "3")
        assert api.answered_twice() == []
        answered = Counter((request.task, request.turn) for request in api.requests if request.whole)
        asked_at_once = max(request.concurrent for request in api.requests)
        bodies = [request.body for request in api.requests]
    assert re.search(r"Claude Code \d\S* from .* acts as planner and executors", output)
    found = harness.summary(mine)
    assert (found["status"], found["completed"], found["tests"]["passed"]) == ("done", 4, 4)
    assert found["bought_again"] == found["changed_bodies"] == 0
    assert asked_at_once == 3
    assert harness.family(mine) == set()
    assert _processes(mine) == []
    ledger = [record for record in read_all(mine / "ledger.jsonl") if record["kind"] == "answer"]
    assert Counter((record["task"], record["turn"]) for record in ledger) == answered
    assert harness.recount(mine) == []
    # Its own prompts and tools, nothing of the host, and nothing that would be another tomorrow on the planner's way.
    assert all("Claude" in body["system"][0]["text"] for body in bodies)
    plan, *works = sorted(bodies, key=lambda body: "StructuredOutput" not in json.dumps(body["tools"]))
    assert [tool["name"] for tool in plan["tools"]] == ["StructuredOutput"]
    assert "Today's date" not in json.dumps(plan)
    assert {tool["name"] for body in works for tool in body["tools"]} == {"Bash", "Edit", "Read", "Write"}
    assert not any(str(tmp_path) in json.dumps(body) for body in bodies)
    assert len({json.dumps([body["system"], body["tools"]]) for body in works}) == 1  # bought once, by its cache

    with FakeApi(script, task_of=task_of) as api:
        harness.run(REQUIREMENT, "--output-dir", str(other), api=api)
    assert harness.tree(mine) == harness.tree(other)
    layout = [sorted(path.name for path in directory.iterdir() if path.is_file()) for directory in (mine, other)]
    assert layout[0] == layout[1]
    assert harness.summary(other).keys() == found.keys()


def _forgetful(body: Body) -> list[Block]:
    """Builds a part and forgets its test; mends that when it is told."""
    module = {"command": "create", "path": "src/part_1.py", "file_text": "def value() -> int:\n    return 1\n"}
    checked = "import part_1\n\n\ndef test_value():\n    assert part_1.value() == 1\n"
    test = {"command": "create", "path": "tests/test_part_1.py", "file_text": checked}
    page = {"command": "create", "path": "docs/part_1.md", "file_text": "# Part 1\n"}
    if answers_before(body) == 0:
        return [tool_use("toolu_1", EDITOR, **module), tool_use("toolu_2", EDITOR, **page)]
    if "not merged yet" in said_last(body):
        changed = {"command": "str_replace", "path": "src/part_1.py", "old_str": "return 1", "new_str": "return 2 - 1"}
        return [tool_use("toolu_3", EDITOR, **test), tool_use("toolu_4", EDITOR, **changed)]
    return [text("Done.")]


def test_what_is_sent_back_goes_on_in_the_same_session(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    script = in_their_tools(scripted.model(scripted.plan([scripted.task(1, [])]), _forgetful))
    with FakeApi(script, task_of=task_of) as api:
        _built(directory, api)
        assert api.answered_twice() == []
    (task,) = harness.summary(directory)["tasks"]
    assert task["state"] == "merged"
    (session,) = _sessions(directory)
    prompts = [entry["message"]["content"] for entry in session if entry["type"] == "user"]
    said = [prompt for prompt in prompts if isinstance(prompt, str)]
    assert len(said) == 2
    assert said[0].startswith("# Your task")
    assert said[1].startswith("Your work is not merged yet")
    # It remembers what it wrote in the first round, so it may edit it without reading it again.
    assert "return 2 - 1" in (directory / "src" / "part_1.py").read_text()


def test_a_bad_key_ends_the_run_at_its_first_call(tmp_path: Path) -> None:
    with FakeApi(layered(1, 1), faults=lambda number: Fault.KEY_REFUSED, task_of=task_of) as api:
        output = _built(tmp_path / "run", api, code=2)
        assert len(api.requests) == 1
    assert "credential" in output or "key" in output


def test_a_budget_stops_it_and_it_goes_on_from_there(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with FakeApi(layered(1, 2), task_of=task_of) as api:
        _built(directory, api, "--max-cost", "0.000001", code=4)
        before = len(api.requests)
        harness.run("resume", str(directory), "--max-cost", "100", api=api)
        assert api.answered_twice() == []
        assert len(api.requests) > before
    assert harness.summary(directory)["status"] == "done"


def _spying(body: Body) -> list[Block]:
    """Looks for credentials with every means that a command has, then builds its part."""
    spy = (
        "{ env; cat /proc/*/environ; cat /proc/*/cmdline; find / -xdev -type f -size -200k "
        "-not -path '/usr/*' -not -path '/proc/*' -exec cat {} +; } 2>/dev/null | tr '\\0' '\\n' > docs/part_1.md"
    )
    turn = answers_before(body) + 1
    if turn == 1:
        return [tool_use("toolu_spy", "bash", command=spy), tool_use("toolu_env", "bash", command="env | sort")]
    return scripted.build_part(body, turn - 1)


def test_the_key_is_nowhere(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    script = in_their_tools(scripted.model(scripted.plan([scripted.task(1, [])]), _spying))
    with FakeApi(script, key=CANARY, task_of=task_of) as api, processes_watched() as seen:
        _built(directory, api, variables={"ANTHROPIC_API_KEY": CANARY})
    assert harness.summary(directory)["status"] == "done"
    assert leaks(directory) == []
    # The person's own start of the program apart, which is where the key comes from.
    assert [place for place in seen if "orchestrator.py" not in place] == []
    (transcript,) = directory.glob("executor_*/task_1.jsonl")
    results = next(record for record in read_all(transcript) if record["kind"] == "results")["results"]
    assert "ANTHROPIC" not in results[1]["content"]
    assert "CLAUDE_CONFIG_DIR" in results[1]["content"]


@pytest.mark.long
def test_a_recording_is_for_both_back_ends(tmp_path: Path) -> None:
    """Played with Claude Code and exported, it plays with the other."""
    requirement = "Build a hello world program"
    first, file, second = tmp_path / "first", tmp_path / "exported.yaml", tmp_path / "second"
    fast = ("--speed", "100")
    harness.run(requirement, "--replay", "simple", *fast, *OPTIONS, "--output-dir", str(first))
    harness.run("export", str(first), "--recording", str(file))
    assert "Write" in file.read_text()
    harness.run(requirement, "--replay", str(file), *fast, "--output-dir", str(second))
    assert harness.tree(first) == harness.tree(second) != {}
    assert harness.summary(second)["status"] == "done"


def test_turns_are_limited_by_us(tmp_path: Path) -> None:
    directory = tmp_path / "run"

    def endless(body: Body) -> list[Block]:
        return [tool_use(f"toolu_{answers_before(body)}", "bash", command=f"echo {time.time()} >> docs/part_1.md")]

    script = in_their_tools(scripted.model(scripted.plan([scripted.task(1, [])]), endless))
    with FakeApi(script, task_of=task_of) as api:
        _built(directory, api, "--max-turns", "3", code=1)
        assert sum(request.task == "task_1" for request in api.requests) == 3
    (task,) = harness.summary(directory)["tasks"]
    assert task["state"] == "failed"
    assert "limit of 3 turns" in task["reason"]


def test_what_a_task_may_cost_is_a_limit_of_it_and_of_ours(tmp_path: Path) -> None:
    roles = {"planner": {"backend": "api"}, "executor": {"backend": "claude-code"}}
    entry = {"name": "one", "requirements": REQUIREMENT, "limits": {"task_cost": 0.0001}, **roles}
    (tmp_path / "one.yaml").write_text(json.dumps({"scenarios": [entry]}))
    options = ("run", "--config", str(tmp_path / "one.yaml"), "--output-dir", str(tmp_path / "run"))
    with FakeApi(in_their_tools(scripted.model(scripted.plan([scripted.task(1, [])]))), task_of=task_of) as api:
        harness.run(*options, api=api, code=1)
        assert [request.task for request in api.requests] == ["plan", "task_1"]
        assert "StructuredOutput" not in json.dumps(api.requests[0].body)
    (task,) = harness.summary(tmp_path / "run")["tasks"]
    assert (task["state"], "cost" in task["reason"] or "spent" in task["reason"]) == ("failed", True), task["reason"]


def test_without_a_sandbox_the_model_reads_no_path_of_the_host(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with FakeApi(layered(1, 1), task_of=task_of) as api:
        _built(directory, api, "--sandbox", "off")
        said = json.dumps([request.body for request in api.requests])
    assert harness.summary(directory)["status"] == "done"
    assert str(tmp_path) not in said
    assert "/workspace/src/part_1.py" in said


def test_a_full_context_is_followed_by_a_new_conversation_in_a_new_session(tmp_path: Path) -> None:
    def build(body: Body) -> Answer | list[Block]:
        turn = answers_before(body)
        if "An earlier conversation worked on this task" not in json.dumps(body["messages"][0]):
            return scripted.build_part(body, 1) if turn == 0 else Answer([text("and")], "model_context_window_exceeded")
        return scripted.build_part(body, 2) if turn == 0 else [text("The document is there now.")]

    script = in_their_tools(scripted.model(scripted.plan([scripted.task(1, [])]), build))
    with FakeApi(script, task_of=task_of) as api:
        _built(tmp_path / "out", api)
        assert api.answered_twice() == []
    (task,) = harness.summary(tmp_path / "out")["tasks"]
    assert (task["state"], task["model_calls"], task["evidence"].get("ended_early")) == ("merged", 4, None)
    (session,) = _sessions(tmp_path / "out")
    assert "src/part_1.py" not in json.dumps([entry for entry in session if entry.get("type") == "assistant"])
    assert harness.recount(tmp_path / "out") == []
