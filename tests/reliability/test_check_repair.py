"""`check DIR` finds what is wrong and changes nothing; `repair DIR` repairs what can be repaired, with a backup."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from parallel_orchestrator.maintenance.check import check
from parallel_orchestrator.maintenance.repair import repair
from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.store.journal import encode
from tests.end_to_end import harness, red_whole
from tests.journals import read_all
from tests.reliability.runs import GOLDEN, LATEST, answers, flipped, lines, moves, repaired, transcript, unpack


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run that has ended."""
    return unpack(tmp_path, "finished")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was killed: task_1 merged, task_2 in its first repair round, task_3 not begun."""
    return unpack(tmp_path, "interrupted")


def _found(run: Path) -> list[tuple[str, str]]:
    """File and fault of each finding; checking changes nothing."""
    before = harness.fingerprint(run)
    findings = check(run).findings
    assert harness.fingerprint(run) == before
    assert all(finding.fix for finding in findings)
    return [(finding.file, finding.what) for finding in findings]


def _rewrite(path: Path, records: list[dict[str, object]]) -> None:
    bodies = ({k: v for k, v in record.items() if k != "seq"} for record in records)
    path.write_bytes(b"".join(encode(seq, body) for seq, body in enumerate(bodies, 1)))


def test_the_commands(finished: Path, run: Path, tmp_path: Path) -> None:
    assert harness.run("check", str(finished)) == f"{finished} (finished): clean\n"
    before = harness.fingerprint(finished)
    assert harness.run("repair", str(finished)) == f"nothing was changed in {finished}\n"
    assert harness.fingerprint(finished) == before
    (run / "ledger.jsonl").write_bytes(b"".join([*lines(run / "ledger.jsonl")[:3], b"\x1b[2Jx\n"]))
    document = json.loads(harness.run("check", str(run), "--json", code=1))["result"]
    assert (document["version"], document["state"], document["clean"]) == (1, "interrupted", False)
    assert document["findings"][0]["file"] == "ledger.jsonl"
    assert re.match(r"line 4, byte \d+: bytes that are not a record", document["findings"][0]["what"])
    assert document["findings"][0]["fix"] == harness.typed("repair", run)
    told = harness.run("check", str(run), code=1).splitlines()
    assert len(told) == 1 + len(document["findings"]) + len(document["notes"])
    planned = tmp_path / "planned"
    harness.run("plan", "Build it", "--replay", str(GOLDEN / LATEST / "model.yaml"), "--output-dir", str(planned))
    assert harness.run("check", str(planned)) == f"{planned} (planned): clean\n"
    for command in ("check", "repair"):
        for nothing in (tmp_path, tmp_path / "absent"):
            assert "holds no run" in harness.run(command, str(nothing), code=2)


def test_what_does_not_add_up_is_found(finished: Path) -> None:
    summary = json.loads((finished / "execution_summary.json").read_text())
    altered = {**summary, "model_calls": 3, "completed": 1}
    (finished / "execution_summary.json").write_text(json.dumps(altered))
    calls = summary["model_calls"]
    assert _found(finished) == [
        ("execution_summary.json", "completed is 1, by the queue 3"),
        ("execution_summary.json", f"model_calls is 3, by the ledger {calls}"),
    ]
    (finished / "execution_summary.json").write_text(json.dumps(summary))
    assert _found(finished) == []
    # A ledger whose records are whole, and one answer is missing.
    whole = read_all(finished / "ledger.jsonl")
    gone = next(n for n, r in enumerate(whole) if r["kind"] == "answer" and r["task"] == "task_3" and r["turn"] == 2)
    _rewrite(finished / "ledger.jsonl", [*whole[: gone - 1], *whole[gone + 1 :]])
    assert "by the ledger" in dict(_found(finished))["execution_summary.json"]
    (note,) = check(finished).notes
    assert note.file == "ledger.jsonl"
    assert note.what.startswith("the answers to task_3 attempt 1, turns [2], are not here; the transcript has them")
    # An outcome whose beginning is lost, and a beginning whose outcome is lost before the call is tried again.
    intent = next(n for n, r in enumerate(whole) if r["kind"] == "intent" and r["task"] == "task_1")
    _rewrite(finished / "ledger.jsonl", [*whole[:intent], *whole[intent + 1 :]])
    assert "has no record of its start" in dict(_found(finished))["ledger.jsonl"]
    repaired(finished)
    _rewrite(finished / "ledger.jsonl", [*whole[: intent + 1], whole[intent], *whole[intent + 1 :]])
    assert "has no record of its end" in dict(_found(finished))["ledger.jsonl"]
    repaired(finished)
    assert set(answers(finished)) == {(r["task"], r["attempt"], r["turn"]) for r in whole if r["kind"] == "answer"}
    (finished / "ledger.jsonl").unlink()
    assert dict(_found(finished))["ledger.jsonl"] == "it is gone, and transcripts hold answers"


def test_a_queue_that_is_gone_or_says_less_than_the_trunk_is_made_anew(finished: Path, run: Path) -> None:
    before = {task["id"]: (task["evidence"], task["executor"]) for task in harness.summary(finished)["tasks"]}
    (finished / "queue.jsonl").unlink()
    repaired(finished)
    assert [(move["task"], move["state"]) for move in moves(finished)] == [
        (task, state) for task in ("task_1", "task_2", "task_3") for state in ("claimed", "merged")
    ]
    assert "nothing left to do" in harness.run("resume", str(finished))
    after = {task["id"]: (task["evidence"], task["executor"]) for task in harness.summary(finished)["tasks"]}
    assert after == before
    assert max(answers(finished).values()) == 1
    # The interrupted one: the attempt stays in its folder, and is in its repair.
    folder = transcript(run).parent
    (run / "queue.jsonl").write_bytes(lines(run / "queue.jsonl")[0])
    repaired(run)
    states = {move["task"]: (move["state"], move["executor"], move["attempt"]) for move in moves(run)}
    assert states["task_2"][:2] == ("queued", int(folder.name.removeprefix("executor_")))
    assert states["task_1"][0] == "merged"


def test_a_failed_attempt_and_its_retry_are_found_again(run: Path) -> None:
    first = transcript(run)
    first.write_bytes(first.read_bytes() + encode(len(lines(first)) + 1, {"kind": "failed", "reason": "gave up"}))
    (run / "queue.jsonl").unlink()
    repaired(run)
    states = {move["task"]: move["state"] for move in moves(run)}
    assert states == {"task_1": "merged", "task_2": "failed", "task_3": "blocked"}
    second = run / "executor_7" / "task_2.2.jsonl"
    second.parent.mkdir()
    start = {**read_all(first)[0], "attempt": 2}
    _rewrite(second, [start])
    (run / "queue.jsonl").unlink()
    repaired(run)
    last = {move["task"]: move for move in moves(run)}
    assert [(last[t]["state"], last[t]["attempt"]) for t in ("task_2",)] == [("queued", 2)]
    assert moves(run)[-1]["executor"] == 7
    assert "task_3" not in last


# The trunk


def _zeroed(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"\0" * path.stat().st_size)


def test_what_power_loss_does_to_a_repository_is_put_back(finished: Path) -> None:
    head = (finished / ".git" / "refs/heads/main").read_text()
    project = harness.tree(finished)
    blob = next(r["evidence"] for r in moves(finished) if r["state"] == "merged")
    assert blob["commit"]
    for name in ("HEAD", "config", "index", "refs/heads/main"):
        _zeroed(finished / ".git" / name)
    (finished / "src/part_1.py").unlink()
    assert {file for file, _ in _found(finished)} >= {".git"}
    output = harness.run("resume", str(finished)) if (finished / "execution_summary.json").exists() else ""
    assert "Traceback" not in output
    repaired(finished)
    assert (finished / ".git" / "refs/heads/main").read_text() == head
    _zeroed(finished / ".git/view/config")
    assert [file for file, _ in _found(finished)] == [".git"]
    assert any(".git/view was changed" in step for step in repaired(finished))
    assert harness.tree(finished) == project
    assert (finished / "repair-1/.git/HEAD").read_bytes().strip(b"\0") == b""


def test_a_lost_object_comes_back_from_a_file_with_its_content(finished: Path) -> None:
    content, project = (finished / "src/part_1.py").read_bytes(), harness.tree(finished)
    name = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    stored = finished / ".git/objects" / name[:2] / name[2:]
    _zeroed(stored)
    assert [file for file, _ in _found(finished)] == [".git"]
    said = repaired(finished)
    assert f"git object {name} was restored from a file in the run directory" in said
    stored.chmod(0o600)
    stored.write_bytes(flipped(stored.read_bytes()))
    for path in finished.rglob("part_1.py"):
        path.write_text("changed\n")
    report = repair(finished, said.append)
    # Its content is nowhere any more: what stands in the output directory takes its place, and nothing else is lost.
    assert f"git object {name} is lost" in said
    assert any(step.startswith("src/part_1.py of commit ") for step in said)
    assert report.findings == []
    assert {move["task"]: move["state"] for move in moves(finished)}["task_1"] == "merged"
    assert harness.tree(finished) == {**project, "src/part_1.py": "changed\n"}


def test_a_merge_that_the_trunk_lost_is_merged_again_without_a_model(finished: Path, tmp_path: Path) -> None:
    project = harness.tree(finished)
    landed = [record["evidence"]["commit"] for record in moves(finished) if record["state"] == "merged"]
    (finished / ".git/refs/heads/main").write_text(landed[1] + "\n")  # the file system brought back an old one
    assert ("queue.jsonl", "task_3 is merged here, but no commit of the trunk brings it") in _found(finished)
    before = answers(finished)
    repaired(finished)
    output = harness.run("resume", str(finished))
    assert "done: 3 of 3 tasks merged" in output
    assert harness.tree(finished) == project
    assert answers(finished) == before


# What nothing else can tell


def test_what_cannot_be_repaired_is_said(run: Path) -> None:
    plan, scenario = (run / "execution_plan.json").read_text(), (run / "scenario.json").read_text()
    (run / "scenario.json").write_text("{")
    assert "scenario.json" in dict(_found(run))
    with pytest.raises(DamagedState, match="Restore it from a backup"):
        repair(run, list[str]().append)
    given = json.dumps({**json.loads(scenario), "plan_sha256": "ab"})
    (run / "scenario.json").write_text(given)
    assert _found(run) == [("execution_plan.json", "it is not the plan that the run was started from")]
    (run / "execution_plan.json").write_text(plan.replace('"task_2"', '"task_x"'))
    said: list[str] = []
    report = repair(run, said.append)
    assert [finding.file for finding in report.findings] == ["execution_plan.json"]
    assert "put back the plan file that the run was started from" in said[0]


def test_a_damaged_plan_comes_back_from_the_planners_answer(run: Path, tmp_path: Path) -> None:
    plan = (run / "execution_plan.json").read_text()
    (run / "execution_plan.json").write_text(plan[:500])
    assert "repair" in harness.run("resume", str(run), code=1)
    for content in (plan[:500], None):
        if content is None:
            (run / "execution_plan.json").unlink()
        assert any("rebuilt from the planner's answer" in step for step in repaired(run))
        assert (run / "execution_plan.json").read_text() == plan


def test_a_lost_record_of_a_fix_task_is_planned_again_and_no_model_is_asked(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with red_whole.api(red_whole.planned(), red_whole.corrects) as api:
        harness.run(red_whole.REQUIREMENT, "--output-dir", str(directory), api=api)
        project, asked = harness.tree(directory), len(api.requests)
        queue = directory / "queue.jsonl"
        queue.write_bytes(b"".join(flipped(line) if b'"fix":"fix_1"' in line else line for line in lines(queue)))
        assert [file for file, _ in _found(directory)] == ["queue.jsonl"]
        repaired(directory)
        last = {move["task"]: move["state"] for move in moves(directory)}
        assert (last["fix_1"], set(last.values())) == ("merged", {"merged"})
        assert [record["fix"] for record in read_all(queue) if "fix" in record] == ["fix_1"]
        harness.run("resume", str(directory), api=api)
        assert len(api.requests) == asked
    assert [(fix["id"], fix["state"]) for fix in harness.summary(directory)["fixes"]] == [("fix_1", "merged")]
    assert harness.tree(directory) == project
    assert check(directory).findings == []
