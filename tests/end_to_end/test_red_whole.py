"""Everything is merged and the whole is red: it is corrected by a fix task, or a person is told what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.records.fix import CORRECTIONS
from tests.batch import scenarios
from tests.end_to_end import harness, red_whole, scripted
from tests.end_to_end.red_whole import REQUIREMENT, THIRTY
from tests.end_to_end.scripted import answers_before, said_last, task_of
from tests.fake_api import Block, Body, FakeApi, text
from tests.journals import read_all


def _fixes(directory: Path) -> list[tuple[str, str]]:
    return [(fix["id"], fix["state"]) for fix in harness.summary(directory)["fixes"]]


def _planned(directory: Path) -> list[dict[str, Any]]:
    """The records of the queue that plan a fix."""
    return [record for record in read_all(directory / "queue.jsonl") if "fix" in record]


def _status(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(harness.quiet("status", str(directory), "--json"))["result"]
    return found


def _git(directory: Path, *arguments: str) -> str:
    """What a person's git prints in the output directory."""
    identity = ["-c", "user.name=A Person", "-c", "user.email=person@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_red_whole_is_corrected_by_a_fix_task(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with red_whole.api(red_whole.planned(), red_whole.corrects) as api:
        output = harness.run(REQUIREMENT, "--output-dir", str(directory), api=api)
        assert api.answered_twice() == []
        front = {json.dumps([request.body["system"], request.body["tools"]]) for request in api.requests[1:]}
        asked = json.dumps(next(request.body for request in api.requests if request.task == "fix_1")["messages"])
    assert len(front) == 1, "the shared part of the prompt is the same for all, so that it is bought once"
    assert "assert part_1.value() == 28" in asked
    assert "AssertionError" in asked
    assert "fix_1 begins" in output
    found = harness.summary(directory)
    assert (found["status"], found["total_tasks"], found["completed"], found["success_rate"]) == ("done", 2, 2, 1.0)
    (fix,) = found["fixes"]
    assert (fix["state"], fix["verified"], fix["model_calls"], fix["attempt"]) == ("merged", True, 2, 1)
    assert fix["evidence"]["files"]["changed"]["paths"] == ["src/part_1.py", "tests/test_part_1.py"]
    assert fix["cost_usd"] > 0
    parts = [*found["tasks"], fix, found["planning"]]
    assert found["cost_usd"] == pytest.approx(sum(part["cost_usd"] for part in parts))
    assert harness.recount(directory, "--run-verify") == []
    assert [check["code"] for check in found["verify"]] == [0]
    assert "# Your task: fix_1" in harness.run("logs", str(directory), "fix_1")
    assert [(fix["id"], fix["state"]) for fix in _status(directory)["fix_list"]] == [("fix_1", "merged")]
    assert "fix_1" in (directory / "execution_summary.md").read_text()
    harness.run("check", str(directory))


@pytest.mark.thorough
def test_a_fix_that_is_sent_back_corrects_it_in_the_same_conversation(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with red_whole.api(red_whole.planned(), red_whole.late) as api:
        harness.run(REQUIREMENT, "--output-dir", str(directory), api=api)
    assert _fixes(directory) == [("fix_1", "merged")]
    assert [move["state"] for move in harness.moves(directory) if move["task"] == "fix_1"] == [
        "claimed",
        "repair",
        "claimed",
        "merged",
    ]


def _one(folder: Path, **settings: Any) -> tuple[str, ...]:
    """The command line that builds the project with these settings."""
    config = folder / "one.yaml"
    config.write_text(json.dumps({"scenarios": [{"name": "one", "requirements": REQUIREMENT, **settings}]}))
    return ("run", "--config", str(config), "--output-dir", str(folder / "out"))


def _correct(directory: Path) -> None:
    """A person's edit that makes the whole green."""
    module, test = directory / "src" / "part_1.py", directory / "tests" / "test_part_1.py"
    module.write_text(module.read_text().replace("return 1", "return 28"))
    test.write_text(test.read_text().replace("== 1", "== 28"))


def test_a_model_that_changes_nothing_leaves_reason_output_and_ways_on(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with red_whole.api(red_whole.planned(), red_whole.only_talks) as api:
        output = harness.run(*_one(tmp_path, repair_rounds=1), api=api, code=1)
    told = " ".join(output.split())
    for text_ in ("the whole is red", f"FAILED {THIRTY}", "AssertionError", "fix_1 failed", "Nothing was changed"):
        assert text_ in told
    assert f"next: {harness.typed('retry', directory)}" in told
    assert f"commit that there, then {harness.typed('resume', directory)}" in told
    status = " ".join(harness.run("status", str(directory)).split())
    assert "AssertionError" in status
    assert f"next: {harness.typed('retry', directory)}" in status
    for name in ("execution_summary.md", "orchestrator.log"):
        assert "AssertionError" in (directory / name).read_text()
    assert _fixes(directory) == [("fix_1", "failed")]
    assert harness.recount(directory) == []


@pytest.mark.thorough
def test_retry_begins_another_attempt_at_a_failed_fix_and_resume_never_does(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with red_whole.api(red_whole.planned(), red_whole.only_talks) as api:
        harness.run(*_one(tmp_path, repair_rounds=0), api=api, code=1)
        asked = len(api.requests)
        harness.run("resume", str(directory), api=api, code=1)
        assert len(api.requests) == asked, "the whole is tested again, and no model is asked"
        api.script = red_whole.script(red_whole.planned(), red_whole.corrects)
        harness.run("retry", str(directory), "fix_1", api=api)
    (fix,) = harness.summary(directory)["fixes"]
    assert (fix["state"], fix["attempt"]) == ("merged", 2)
    assert harness.recount(directory) == []
    harness.run("check", str(directory))


def test_a_commit_of_the_person_counts_and_an_uncommitted_edit_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with red_whole.api(red_whole.planned(), red_whole.only_talks) as api:
        harness.run(REQUIREMENT, "--output-dir", str(directory), "--fix-rounds", "0", api=api, code=1)
        _correct(directory)
        refused = " ".join(harness.run("resume", str(directory), api=api, code=2).split())
        assert "uncommitted edits: src/part_1.py, tests/test_part_1.py" in refused
        assert "return 28" in (directory / "src" / "part_1.py").read_text()
        _git(directory, "commit", "-qam", "Let part 1 return 28")
        asked = len(api.requests)
        harness.run("resume", str(directory), api=api)
        assert len(api.requests) == asked
    found = harness.summary(directory)
    assert (found["status"], found["fixes"]) == ("done", [])
    assert harness.recount(directory) == []
    assert _git(directory, "status", "--porcelain") == ""
    assert "Let part 1 return 28" in _git(directory, "log", "--format=%s")


@pytest.mark.thorough
def test_a_fix_that_makes_nothing_worse_is_merged_and_the_next_round_goes_on_from_it(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with red_whole.api(red_whole.planned(), red_whole.changes_something_else) as api:
        harness.run(REQUIREMENT, "--output-dir", str(directory), "--fix-rounds", "1", api=api, code=1)
        assert _fixes(directory) == [("fix_1", "merged")]
        assert (directory / "docs" / "notes.md").exists()
        assert harness.summary(directory)["fixes"][0]["evidence"]["whole"] == "red"
        assert harness.recount(directory) == []
        asked = len(api.requests)
        harness.run("resume", str(directory), api=api, code=1)
        assert len(api.requests) == asked
        api.script = red_whole.script(red_whole.planned(), red_whole.corrects)
        harness.run("retry", str(directory), api=api)
    assert _fixes(directory) == [("fix_1", "merged"), ("fix_2", "merged")]
    assert harness.recount(directory) == []


@pytest.mark.thorough
def test_two_rounds_are_all_that_are_planned_unasked(tmp_path: Path) -> None:
    directory = tmp_path / "out"

    def fix(body: Body) -> list[Block]:
        name = task_of(body)
        if answers_before(body) == 0:
            return [red_whole.written(f"docs/{name}.md", f"# {name}\n")]
        return [text(f"{name}, {answers_before(body)}")]

    with red_whole.api(red_whole.planned(), fix) as api:
        harness.run(REQUIREMENT, "--output-dir", str(directory), api=api, code=1)
    assert _fixes(directory) == [("fix_1", "merged"), ("fix_2", "merged")]


def test_without_rounds_a_red_whole_ends_the_run(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with red_whole.api(red_whole.planned(), red_whole.corrects) as api:
        harness.run(REQUIREMENT, "--output-dir", str(directory), "--fix-rounds", "0", api=api, code=1)
        assert _fixes(directory) == []
        harness.run("retry", str(directory), api=api)
    assert _fixes(directory) == [("fix_1", "merged")]


WORKING = "PYTHONPATH=src python -c 'import part_1; assert part_1.value() == 1'"


def _corrects_the_command(body: Body) -> list[Block]:
    """First puts a command in its place that proves nothing, and a proper one when that comes back."""
    correction = {"command": red_whole.ABSENT, "replacement": "true", "reason": "No task writes check_all.py."}
    if answers_before(body) == 0:
        return [red_whole.written(CORRECTIONS, json.dumps([correction]), "first")]
    if "proves nothing" in said_last(body):
        return [red_whole.written(CORRECTIONS, json.dumps({**correction, "replacement": WORKING}), "second")]
    return [text(f"Corrected, {answers_before(body)}.")]


def test_a_command_of_the_plan_that_cannot_work_is_corrected_with_a_reason(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with red_whole.api(red_whole.planned(red_whole.ABSENT), _corrects_the_command) as api:
        output = harness.run(REQUIREMENT, "--output-dir", str(directory), api=api)
    expected = {
        "command": red_whole.ABSENT,
        "replacement": WORKING,
        "reason": "No task writes check_all.py.",
        "fix": "fix_1",
    }
    found = harness.summary(directory)
    assert found["corrections"] == [expected]
    assert [(check["command"], check["code"]) for check in found["verify"]] == [(WORKING, 0)]
    assert "No task writes check_all.py." in output
    assert "No task writes check_all.py." in (directory / "execution_summary.md").read_text()
    assert "No task writes check_all.py." in harness.run("status", str(directory))
    assert not (directory / CORRECTIONS).exists()
    assert harness.recount(directory, "--run-verify") == []
    harness.run("check", str(directory))


@pytest.mark.thorough
def test_a_command_of_the_person_is_not_corrected(tmp_path: Path) -> None:
    directory, config = tmp_path / "out", tmp_path / "one.yaml"
    one = {"name": "one", "requirements": REQUIREMENT, "verify": [red_whole.ABSENT], "fix_rounds": 1}
    config.write_text(json.dumps({"scenarios": [one]}))
    with red_whole.api(red_whole.planned(WORKING), _corrects_the_command) as api:
        output = harness.run("run", "--config", str(config), "--output-dir", str(directory), api=api, code=1)
    assert "it is the command of the person" in " ".join(output.split())
    assert harness.summary(directory)["corrections"] == []
    assert _fixes(directory) == [("fix_1", "failed")]


@pytest.mark.thorough
def test_a_fix_is_exported_and_replayed(tmp_path: Path) -> None:
    made, recording = tmp_path / "made", tmp_path / "with.yaml"
    with red_whole.api(red_whole.planned(), red_whole.corrects) as api:
        harness.run(REQUIREMENT, "--output-dir", str(made), api=api)
    harness.run("export", str(made), "--recording", str(recording))
    harness.run(REQUIREMENT, "--replay", str(recording), "--output-dir", str(tmp_path / "a"))
    assert _fixes(tmp_path / "a") == [("fix_1", "merged")]


def test_a_recording_without_a_fix_ends_with_the_reason(tmp_path: Path) -> None:
    made, recording = tmp_path / "made", tmp_path / "without.yaml"
    with red_whole.api(red_whole.planned(), red_whole.corrects) as api:
        harness.run(REQUIREMENT, "--output-dir", str(made), "--fix-rounds", "0", api=api, code=1)
    harness.run("export", str(made), "--recording", str(recording))
    output = harness.run(REQUIREMENT, "--replay", str(recording), "--output-dir", str(tmp_path / "b"), code=1)
    assert "has no answer for fix_1, phase work, turn 1" in " ".join(output.split())
    assert _fixes(tmp_path / "b") == [("fix_1", "failed")]


def _is_at(what: str, directory: Path, api: FakeApi) -> bool:
    """Whether the run has come to that place."""
    if not (directory / "queue.jsonl").exists():
        return False
    records = read_all(directory / "queue.jsonl")
    if what == "the whole is tested":
        return [r.get("state") for r in records].count("merged") == 2
    if what == "the fix is worked on":
        return any(request.task == "fix_1" for request in api.requests)
    return any(r.get("task") == "fix_1" and r["state"] == "merged" for r in records)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("the whole is tested", marks=pytest.mark.thorough),
        "the fix is worked on",
        pytest.param("the fix is merged", marks=pytest.mark.thorough),
    ],
)
def test_killed_around_a_fix_the_run_goes_on_and_buys_nothing_again(place: str, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    slow = f"sleep 2; {THIRTY}"
    with red_whole.api(red_whole.planned(slow), red_whole.corrects, latency_s=0.3) as api:
        with harness.started(REQUIREMENT, "--output-dir", str(directory), url=api.url) as process:
            harness.wait_until(lambda: _is_at(place, directory, api))
            os.kill(process.pid, signal.SIGKILL)
            harness.wait_until(lambda: harness.family(directory) == set(), timeout_s=30)
        assert not (directory / "execution_summary.json").exists()
        assert bool(_planned(directory)) == (place != "the whole is tested")
        harness.run("resume", str(directory), api=api)
        assert api.answered_twice() == []
    found = harness.summary(directory)
    assert (found["status"], found["bought_again"], found["changed_bodies"]) == ("done", 0, 0)
    assert _fixes(directory) == [("fix_1", "merged")]
    assert len(_planned(directory)) == 1
    assert harness.recount(directory) == []


@pytest.mark.thorough
def test_an_edit_made_while_the_run_works_is_kept(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    module = directory / "src" / "part_1.py"

    def fix(body: Body) -> list[Block]:
        if answers_before(body) == 0:
            module.write_text("# mine\n")
            (directory / "src" / "part_2.py").write_text("# mine, too\n")
        return red_whole.corrects(body)

    with red_whole.api(red_whole.planned(), fix) as api:
        output = " ".join(harness.run(REQUIREMENT, "--output-dir", str(directory), api=api).split())
    kept = directory / "edits-1" / "src"
    assert {path.name: path.read_text() for path in kept.iterdir()} == {
        "part_1.py": "# mine\n",
        "part_2.py": "# mine, too\n",
    }
    assert "return 28" in module.read_text()
    assert f"kept in {directory / 'edits-1'}" in output


def test_a_batch_corrects_a_red_whole_while_its_other_scenarios_go_on(tmp_path: Path) -> None:
    def script(body: Body) -> list[Block]:
        if task_of(body) == "plan":
            red = "Project red" in json.dumps(body["messages"])
            return [text(json.dumps(red_whole.planned() if red else scripted.layered(2, 2)))]
        return red_whole.corrects(body) if task_of(body).startswith("fix_") else scripted.build_part(body)

    wanted = {"red": "Project red", "fine": "Project fine"}
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", wanted), tmp_path / "out"
    with FakeApi(script, task_of=scenarios.of_scenario, latency_s=0.05) as api:
        harness.run("batch", str(config), "--output-dir", str(folder), api=api)
        assert api.answered_twice() == []
    assert _fixes(folder / "red") == [("fix_1", "merged")]
    assert _fixes(folder / "fine") == []
    assert harness.recount(folder / "red") == []


@pytest.mark.thorough
def test_a_batch_tells_of_a_red_whole_and_retry_begins_another_round(tmp_path: Path) -> None:
    def script(body: Body) -> list[Block]:
        if task_of(body) == "plan":
            return [text(json.dumps(red_whole.planned()))]
        return fix(body) if task_of(body).startswith("fix_") else scripted.build_part(body)

    fix = red_whole.only_talks
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", {"red": "Project red"}), tmp_path / "out"
    with FakeApi(script, task_of=scenarios.of_scenario, latency_s=0.02) as api:
        output = " ".join(harness.run("batch", str(config), "--output-dir", str(folder), api=api, code=1).split())
        assert "verify failed" in output
        assert "fix_1 failed" in output
        assert f"next: {harness.typed('retry', folder)}" in output
        fix = red_whole.corrects
        harness.run("retry", str(folder), api=api)
    assert _fixes(folder / "red") == [("fix_1", "merged")]
