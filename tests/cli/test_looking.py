"""status and logs: what they say of a run or a batch at each point of its life, from its files alone."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from parallel_orchestrator.cli.app import make_app
from parallel_orchestrator.config.options import Options
from parallel_orchestrator.config.scenarios import load_batch
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.records.journals.evidence import MergedTests
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.report.facts.summary import incomplete_summary, summarize
from parallel_orchestrator.run import manifest
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.plan_file import plan_text
from parallel_orchestrator.store.queue.batch_journal import BatchLog
from parallel_orchestrator.store.record_parser import TRANSCRIPT
from parallel_orchestrator.store.run_lock import RunLock
from parallel_orchestrator.system.files import write_json
from tests.end_to_end import harness
from tests.records.plans import plan, task
from tests.report.runs import Story, evidence

PLAN = plan(task(1), task(2, (1,)), task(3, (2,)))


def answer(*arguments: str) -> Any:
    """What a command line answers."""
    return make_app()(list(arguments), standalone_mode=False)


def status(place: Path) -> dict[str, Any]:
    """The status, and that taking it has changed nothing."""
    before = harness.fingerprint(place)
    found: dict[str, Any] = answer("status", str(place)).result
    assert harness.fingerprint(place) == before
    return found


def text(place: Path) -> str:
    """The status for a person."""
    shown: str = answer("status", str(place)).text
    return shown


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    root = tmp_path / "run dir"
    root.mkdir()
    story = Story(root, PLAN, max_cost_usd=9.0)
    write_json(story.run.scenario, story.scenario.model_dump())
    yield story
    story.close()


def planned(story: Story) -> None:
    story.run.plan.write_text(plan_text(PLAN))


def conversation(story: Story, *records: dict[str, Any], attempt: int = 1) -> Path:
    """The transcript of task_1 by executor 1."""
    path = story.run.transcript(1, "task_1", attempt)
    path.parent.mkdir(exist_ok=True)
    journal = Journal(path, TRANSCRIPT)
    for record in records:
        journal.append(TRANSCRIPT.of(record), durable=False)
    journal.close()
    return path


def says(turn: int, *content: dict[str, Any]) -> dict[str, Any]:
    """An answer of the model."""
    fixed = {"phase": "work", "phase_turn": turn, "stop_reason": "tool_use", "usage": {"output_tokens": 7}}
    return {"kind": "answer", "turn": turn, "content": list(content), "endpoint_s": 1.5, "discarded": False, **fixed}


BASH = {"type": "tool_use", "id": "t", "name": "bash", "input": {"command": "echo \x1b[2J\necho b"}}


def test_a_runs_life(story: Story) -> None:
    root = story.run.root
    assert (status(root)["state"], status(root)["tasks"]["total"]) == ("interrupted", 0)
    lock = RunLock.acquire(story.run.run_lock, say=print)
    assert status(root)["state"] == "planning"
    planned(story)
    story.queue.start_session(2)
    story.calls.buy("task_1", 1, 2)
    assert story.queue.claim(1).claim
    conversation(story, says(3, BASH), {"kind": "tree", "turn": 3, "tree": "x"})
    now = status(root)
    assert (now["state"], now["cost_usd"], now["max_cost_usd"]) == ("running", 1.0, 9.0)
    assert now["owner"]["pid"] == os.getpid()
    assert now["owner"]["alive"]
    assert now["tasks"] | {"claimed": 1, "waiting": 2} == now["tasks"]
    first = now["task_list"][0]
    assert (first["executor"], first["turns"], first["cost_usd"]) == (1, 2, 1.0)
    assert first["doing"] == "turn 2: bash echo \\x1b[2J; echo b"
    assert "\x1b" not in text(root)
    assert now["next"] == f"parallel-orchestrator status '{root}' --follow"
    lock.release()
    # Its orchestrator was killed: the owner named in the lock is a process that has ended.
    owner = json.loads(story.run.run_lock.read_text())
    story.run.run_lock.write_text(json.dumps({**owner, "birth": 1}))
    now = status(root)
    assert (now["state"], now["task_list"][0]["state"]) == ("interrupted", "interrupted")
    assert now["next"] == f"parallel-orchestrator resume '{root}'"
    assert "which has ended" in text(root)


def test_a_planned_run_and_the_two_ways_to_end(story: Story) -> None:
    root = story.run.root
    planned(story)
    assert (status(root)["state"], status(root)["next"].split()[1]) == ("planned", "resume")
    story.queue.start_session(1)
    counts = {"passed": 4, "failed": 0, "skipped": 1, "added": 4}
    story.merge(found=structs.replace(evidence(3), tests=MergedTests(**counts)))
    assert "tests:    4 passed, 0 failed, 1 skipped, after the last merge" in text(root)
    story.fail("it \x07rang")
    story.run.summary.write_text(incomplete_summary(story.run, story.scenario, PLAN).text())
    now = status(root)
    assert (now["state"], now["tasks"]["failed"], now["tasks"]["blocked"]) == ("failed", 1, 1)
    assert now["next"] == f"parallel-orchestrator retry '{root}'"
    assert "Part 2: it \\x07rang" in text(root)
    story.queue.retry("task_2", "again")
    story.merge()
    story.merge()
    final = {"green": True, "tests": counts, "lines_of_code": None, "coverage_percent": None, "verify": None}
    story.run.summary.write_text(summarize(story.state(), final).text())
    now = status(root)
    assert (now["state"], now["tests"]["passed"], now["next"].split()[0]) == ("done", 4, "cd")
    assert "(attempt 2)" in text(root)
    checks = [
        {"command": "true", "code": 0, "output": "all is well"},
        {"command": "make check", "code": 2, "output": "1 of 9\nrang \x07 twice\n"},
    ]
    story.run.summary.write_text(summarize(story.state(), {**final, "green": False, "verify": checks}).text())
    now = status(root)
    # Every task is merged and the whole is red: `retry` begins another fix round, `resume` only tests it again.
    assert (now["state"], now["tasks"]["failed"], now["next"].split()[1]) == ("failed", 0, "retry")
    assert now["verify"] == [{"command": "true", "code": 0}, checks[1]]
    shown = "  verify:   FAILED make check (exit code 2)\n            | 1 of 9\n            | rang \\x07 twice\n"
    assert shown in text(root)
    assert "all is well" not in text(root)


def test_no_line_of_a_status_but_paths_is_wider_than_the_terminal(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(story)
    story.fail("a long reason " * 20)
    monkeypatch.setattr("parallel_orchestrator.cli.cmd_status.output_columns", lambda: 60)
    lines = [line for line in text(story.run.root).splitlines() if str(story.run.root) not in line]
    assert len(lines) > 5
    assert max(map(len, lines)) == 60


def test_a_batch(tmp_path: Path, story: Story) -> None:
    batch = BatchDirectory(tmp_path)
    manifest.save(batch, 3, None, {name: Options(f"Build {name}") for name in ("a", "b", "c")})
    planned(story)
    story.queue.start_session(1)
    story.calls.buy("task_1", 1)
    log = BatchLog(batch)
    log.start_session(3, {"a": "run dir", "b": "b", "c": "c"})
    log.planned("a", 1.0, 5, ExecutionEnv("off"))
    log.open_next()
    log.closed("b", "stopped", "no plan came")
    lock = RunLock.acquire(batch.run_lock, say=print)
    now = status(tmp_path)
    assert (now["state"], now["scenarios"]) == ("running", {"total": 3, "running": 1, "stopped": 1, "waiting": 1})
    assert (now["cost_usd"], now["tasks"]["total"]) == (0.5, 3)
    assert "no plan came" in text(tmp_path)
    lock.release()
    owner = json.loads(batch.run_lock.read_text())
    batch.run_lock.write_text(json.dumps({**owner, "birth": 1}))
    now = status(tmp_path)
    assert (now["state"], [one["state"] for one in now["scenario_list"]]) == (
        "interrupted",
        ["interrupted", "stopped", "interrupted"],
    )
    story.run.plan.write_text("{")  # one damaged run hides none of the others
    assert status(tmp_path)["scenario_list"][0]["state"] == "damaged"
    with pytest.raises(UsageError, match="name the task as SCENARIO/TASK"):
        answer("logs", str(tmp_path), "task_1")
    conversation(story, says(1, {"type": "text", "text": "hello"}))
    assert "    hello" in answer("logs", str(tmp_path), "run dir/task_1").text
    BatchDirectory(tmp_path).log.write_text("of the batch\n")
    for place in (tmp_path, story.run.root):
        assert answer("logs", str(place)).text == "of the batch"
    story.run.log.write_text("gone on alone\n")
    assert answer("logs", str(story.run.root)).text == "gone on alone"
    log.close()


def test_a_finished_batch_says_how_its_page_is_shown(tmp_path: Path) -> None:
    batch = BatchDirectory(tmp_path / "it's a batch")
    (batch.root / "a").mkdir(parents=True)
    story = Story(batch.root / "a", PLAN)
    manifest.save(batch, 3, None, {"a": Options("Build a")})
    write_json(story.run.scenario, story.scenario.model_dump())
    planned(story)
    write_json(story.run.summary, {"status": "done"})
    now = status(batch.root)
    assert (now["state"], now["next"].split()[1]) == ("interrupted", "resume")  # the queue says that, not the summary
    for _ in PLAN.tasks:
        story.merge()
    counts = {"passed": 4, "failed": 0, "skipped": 0, "added": 4}
    final = {"green": True, "tests": counts, "lines_of_code": None, "coverage_percent": None, "verify": None}
    story.queue.record_final(final, head="")
    story.close()
    now = status(batch.root)
    assert (now["state"], shlex.split(now["next"])) == ("done", ["cat", str(batch.page)])


def test_a_conversation_is_shown_without_what_steers_a_terminal_and_cut(story: Story) -> None:
    long = "\n".join(f"\x1b[31mline {number}" for number in range(500))
    start = {
        "kind": "start",
        "task_id": "task_1",
        "attempt": 1,
        "model": "m",
        "profile": "anthropic",
        "tools": [],
        "system": [],
        "base": "c",
        "run": "r",
        "task": [{"type": "text", "text": "Do."}],
    }
    result = {"tool_use_id": "t", "content": long, "is_error": True}
    editor = {
        "type": "tool_use",
        "id": "u",
        "name": "e",
        "input": {"command": "create", "path": "a", "file_text": long},
    }
    conversation(
        story,
        start,
        says(1, {"type": "text", "text": "I look.\u202e"}, BASH, editor),
        {"kind": "results", "turn": 1, "results": [result], "seconds": 1.0},
        {"kind": "repair", "round": 1, "text": "red", "base": "b", "tree": "t"},
        {"kind": "failed", "reason": "given up"},
    )
    shown = answer("logs", str(story.run.root), "task_1").text
    lines = shown.splitlines()
    assert all(line.isprintable() for line in lines)
    for told in ("── task_1, attempt 1, m ──", "    I look.\\u202e", "  $ echo \\x1b[2J", "    echo b", "  > create a"):
        assert told in lines
    for told in ("  = error", "    … 480 more lines …", "── sent back, round 1 ──", "── failed: given up ──"):
        assert told in lines
    assert len(lines) < 50
    assert answer("logs", str(story.run.root), "task_1", "--tail", "1").text == "── failed: given up ──"
    conversation(story, says(1, {"type": "text", "text": "second"}), attempt=2)
    assert "second" in answer("logs", str(story.run.root), "task_1").text
    with pytest.raises(UsageError, match="Did you mean task_1"):
        answer("logs", str(story.run.root), "tsk_1")


def test_the_log_is_cut_to_its_end_and_escaped(story: Story) -> None:
    with pytest.raises(UsageError, match="nothing has happened yet"):
        answer("logs", str(story.run.root))
    story.run.log.write_bytes(b"one\ntwo\nthr\x1b]0;ee\xff\n")
    assert answer("logs", str(story.run.root), "--tail", "2").text == "two\nthr\\x1b]0;ee\ufffd"
    assert answer("logs", str(story.run.root), "--tail", "0").result["lines"][0] == "one"


# A real run: begun by the file that `init` writes, followed from elsewhere


def test_a_new_users_first_run_is_followed_from_other_terminals(tmp_path: Path) -> None:
    harness.run("init", "first.yaml", cwd=tmp_path)
    file = tmp_path / "first.yaml"
    (options,) = load_batch(file, []).values()
    assert (options.replay, options.settings["speed"]) == ("medium", 10)
    file.write_text(file.read_text().replace("replay: medium", "replay: simple").replace("speed: 10", "speed: 4"))
    directory = tmp_path / "outputs" / "todo-list"
    program = [*harness.PROGRAM, "run", "--config", "first.yaml", "--json"]
    with subprocess.Popen(
        program, cwd=tmp_path, env=harness.environment(None), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            harness.wait_until((directory / "orchestrator.log").exists)
            with (
                harness.started("status", str(directory), "-f") as status_follower,
                harness.started("logs", str(directory), "-f") as logs_follower,
            ):
                output, _ = run.communicate(timeout=200)
                status_told, _ = status_follower.communicate(timeout=60)
                logs_told, _ = logs_follower.communicate(timeout=60)
        finally:
            run.kill()  # which does nothing to one that has ended
    assert [run.returncode, status_follower.returncode, logs_follower.returncode] == [0, 0, 0]
    assert json.loads(output)["result"]["summary"]["status"] == "done"
    assert "[1/1] ✓ task_1" in status_told
    assert f"done: {directory}" in status_told
    assert "task_1 merged" in logs_told
    assert "\x1b" not in status_told + logs_told
    assert "turn 1" in answer("logs", str(directory), "task_1").text
    assert harness.family(directory) == set()


@pytest.mark.parametrize("command", [["status", "run"], ["doctor"], ["logs", "run"]])
def test_looking_waits_for_no_client_library(command: list[str], tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.root.mkdir()
    write_json(run.scenario, {"requirements": "Build it", "run": "x", "endpoint": "http://x"})
    run.log.touch()
    code = (
        f"import sys, atexit; sys.argv = ['o', *{command!r}]; import orchestrator\n"
        "atexit.register(lambda: print('loaded:', *(n for n in ('anthropic', 'httpx2', 'rich') if n in sys.modules)))\n"
        "orchestrator.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=harness.environment(None, PYTHONPATH=str(harness.ROOT), ANTHROPIC_BASE_URL="http://127.0.0.1:9"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1].split() == ["loaded:"], done.stderr


def test_a_program_waits_for_no_table(story: Story) -> None:
    planned(story)
    run = "import sys, orchestrator\ntry: orchestrator.main()\nexcept SystemExit: pass\n"
    code = f"{run}print('rich' in sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", code, "status", str(story.run.root)]
    for options, loaded in (["--json"], "False"), ([], "True"):
        done = subprocess.run([*command, *options], cwd=harness.ROOT, capture_output=True, text=True, check=True)
        assert done.stderr.splitlines()[-1] == loaded
