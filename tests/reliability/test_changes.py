"""Changed between a kill and the resume: the same run goes on, another one is refused and the field is named."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from parallel_orchestrator.config.options import SHIPPED
from tests.end_to_end import harness, scripted
from tests.fake_api import FakeApi

REQUIREMENT = "Build a project of many parts"
TASKS = 3


def _plan_file(path: Path, **changes: object) -> str:
    planned = scripted.plan([scripted.task(number, []) for number in range(1, TASKS + 1)], **changes)
    path.write_text(json.dumps(planned))
    return str(path)


def _scenario_file(path: Path, **fields: object) -> str:
    path.write_text(json.dumps({"scenarios": [{"name": "one", "requirements": REQUIREMENT, **fields}]}))
    return str(path)


def _refused(directory: Path, field: str, *command: str, url: str) -> None:
    """It is another run: nothing is changed, and the field is named."""
    before = harness.fingerprint(directory)
    with harness.started(*command, url=url) as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 2, output
    assert f"belongs to another run: its {field} is " in output
    assert "Traceback" not in output
    assert harness.fingerprint(directory) == before


def _kill_in_the_middle(directory: Path, begin: Sequence[str], api: FakeApi) -> None:
    with harness.started(*begin, url=api.url) as process:
        harness.wait_until(lambda: len(api.requests) > 3 and api.in_work)
        for pid in {process.pid, *harness.family(directory)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    harness.wait_until(lambda: not harness.family(directory))


def test_a_killed_run_goes_on_with_other_limits_and_is_refused_as_another_run(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    plan = _plan_file(tmp_path / "plan.json")
    other = _plan_file(tmp_path / "other.json", contract="part_N.value() returns N, always.")
    there = ("--output-dir", str(directory))
    begin = (REQUIREMENT, "--plan", plan, "--max-executors", "2", *there)
    with FakeApi(scripted.build_part, latency_s=0.5, task_of=scripted.task_of) as api:
        _kill_in_the_middle(directory, begin, api)
        asked = len(api.requests)
        verify = _scenario_file(tmp_path / "verify.yaml", verify=["true"])
        for field, command in {
            "requirements": ("Build something else", "--plan", plan, *there),
            "plan_sha256": (REQUIREMENT, "--plan", other, *there),
            "planner_model": (*begin, "--model", "claude-haiku-4-5"),
            "verify": ("run", "--config", verify, "--plan", plan, *there),
        }.items():
            _refused(directory, field, *command, url=api.url)
        _refused(directory, "endpoint", *begin, url="http://127.0.0.1:9")
        assert len(api.requests) == asked
        limits = ("--max-cost", "50", "--max-executors", "1", "--max-turns", "30", "--task-timeout", "20")
        output = harness.run("resume", str(directory), *limits, api=api)
        changed = ("max_cost_usd: None -> 50", "max_executors: 2 -> 1", "max_turns: 60 -> 30", "task_timeout_min: 30")
        assert [change for change in changed if change not in output] == []
        summary = harness.summary(directory)
        assert len(api.answered_twice()) <= summary["open_calls"]
    assert (summary["status"], summary["completed"], summary["bought_again"]) == ("done", TASKS, 0)
    assert json.loads((directory / "scenario.json").read_text())["max_executors"] == 1


def test_a_recording_that_was_edited_is_another_endpoint(tmp_path: Path) -> None:
    directory, recording = tmp_path / "out", tmp_path / "mine.yaml"
    shutil.copy(SHIPPED / "simple.yaml", recording)
    whole = recording.read_bytes()
    replay = ("--replay", str(recording), "--speed", "1000")
    harness.run("plan", "Create a hello world function", *replay, "--output-dir", str(directory))
    recording.write_bytes(whole + b"# edited\n")
    _refused(directory, "endpoint", "resume", str(directory), url="http://127.0.0.1:9")
    recording.write_bytes(whole)
    output = harness.run("resume", str(directory), "--speed", "2000")
    assert "speed: 1000.0 -> 2000.0" in output
    assert harness.summary(directory)["status"] == "done"
