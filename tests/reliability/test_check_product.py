"""What a run delivers and says: damage to it is named, what follows from other files is made again, nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.maintenance.check import check
from parallel_orchestrator.maintenance.repair import repair
from parallel_orchestrator.store.journal import encode
from tests.end_to_end import harness
from tests.journals import read_all
from tests.reliability.runs import GOLDEN, LATEST, repaired, transcript, unpack


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that this version has finished; nobody may change it."""
    run = tmp_path_factory.mktemp("made") / "run"
    model = str(GOLDEN / LATEST / "model.yaml")
    harness.run("run", "Build a project of three parts", "--replay", model, "--speed", "100", "--output-dir", str(run))
    return run


@pytest.fixture(params=["new", "old"])
def finished(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A finished run, of this version or of an earlier one."""
    if request.param == "old":
        return unpack(tmp_path, "finished")
    made: Path = request.getfixturevalue("made")
    return shutil.copytree(made, tmp_path / "run", symlinks=True)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run that this version has finished."""
    return shutil.copytree(made, tmp_path / "run", symlinks=True)


def _found(run: Path) -> dict[str, str]:
    return {finding.file: finding.what for finding in check(run).findings}


def _rewrite(path: Path, change: dict[str, Any]) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}, indent=2))


def test_product_files_that_were_damaged_or_deleted_are_named_and_come_back(finished: Path) -> None:
    assert _found(finished) == {}
    project = harness.tree(finished)
    altered, gone = finished / "src/part_1.py", finished / "docs/part_2.md"
    before = altered.stat()
    altered.write_bytes(altered.read_bytes().replace(b"1", b"2"))
    os.utime(altered, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a bad disk does it
    gone.unlink()
    (finished / "src/notes.py").write_text("MINE = 1\n")  # a person's own file is no damage
    assert _found(finished) == {
        "docs/part_2.md": "it is on the trunk and not here",
        "src/part_1.py": "it is not as on the trunk",
    }
    output = harness.run("resume", str(finished))
    assert "brought back from the trunk: docs/part_2.md" in output
    assert "not as on the trunk, and left as it is: src/part_1.py" in output
    assert list(_found(finished)) == ["src/part_1.py"]
    edited = altered.read_bytes()
    repaired(finished)
    assert harness.tree(finished) == {**project, "src/notes.py": "MINE = 1\n"}
    assert (finished / "repair-1/src/part_1.py").read_bytes() == edited


def test_lost_conversations_and_evidence_of_a_merged_task_are_named(finished: Path) -> None:
    evidence = finished / ".git/evidence"
    transcript(finished, "task_1").write_bytes(b"")
    transcript(finished, "task_2").unlink()
    (evidence / "task_1.1.json").write_text("{}")
    (evidence / "task_2.1.junit.xml").write_text("")
    (evidence / "task_3.1.json").unlink()
    found = _found(finished)
    assert {what for what in found.values() if "merged" in what} == {
        "it is empty, and task_1 is merged",
        "it is gone, and task_2 is merged",
        "it holds no evidence, and task_1 is merged",
        "it is empty, and task_2 is merged",
        "it is gone, and task_3 is merged",
    }
    report = repair(finished, list[str]().append)
    left = {Path(finding.file).name for finding in report.findings}
    assert left == {"task_1.jsonl", "task_2.jsonl", "task_2.1.junit.xml"}  # nothing else holds what they said
    assert json.loads((evidence / "task_3.1.json").read_text())["tests"]["passed"] == 3


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        return [leaf for name, below in value.items() for leaf in _leaves(below, (*path, name))]
    if isinstance(value, list) and value:
        return [leaf for place, below in enumerate(value) for leaf in _leaves(below, (*path, place))]
    return [path]


def _altered(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}x" if isinstance(value, str) else "other"


def test_every_field_of_a_summary_that_contradicts_the_other_files_is_named(run: Path) -> None:
    path = run / "execution_summary.json"
    whole = path.read_text()
    unnoticed = []
    for leaf in _leaves(json.loads(whole)):
        summary = json.loads(whole)
        inner = summary
        for name in leaf[:-1]:
            inner = inner[name]
        inner[leaf[-1]] = _altered(inner[leaf[-1]])
        path.write_text(json.dumps(summary))
        if "execution_summary.json" not in _found(run):
            unnoticed.append(leaf)
    assert unnoticed == []
    path.write_text(whole)
    assert _found(run) == {}


def test_repair_and_resume_write_a_summary_again_without_testing_or_buying(run: Path) -> None:
    path = run / "execution_summary.json"
    whole, records = json.loads(path.read_text()), len(read_all(run / "queue.jsonl"))
    for change in ({"status": "failed", "failed": 3}, {"model_calls": 99}, None):
        for mend in (lambda: harness.run("resume", str(run)), lambda: repaired(run)):
            if change:
                _rewrite(path, change)
            else:
                path.unlink()
            assert "execution_summary.json" in _found(run)
            mend()
            assert json.loads(path.read_text()) == whole
    assert len(read_all(run / "queue.jsonl")) == records


def test_a_summary_that_says_done_is_not_believed_against_the_queue(finished: Path) -> None:
    queue = finished / "queue.jsonl"
    place = next(n for n, r in enumerate(read_all(queue)) if (r.get("task"), r.get("state")) == ("task_3", "merged"))
    kept, lost = read_all(queue)[:place], read_all(queue)[place]
    failed = {"state": "failed", "why": "it gave up", **{k: lost[k] for k in ("task", "attempt", "at", "mono")}}
    records = [{k: v for k, v in record.items() if k != "seq"} for record in [*kept, failed]]
    queue.write_bytes(b"".join(encode(seq, record) for seq, record in enumerate(records, 1)))
    before = next(r["evidence"]["commit"] for r in kept if (r.get("task"), r.get("state")) == ("task_2", "merged"))
    subprocess.run(["git", "-C", str(finished), "reset", "--quiet", "--hard", before], check=True)
    assert "done" in (finished / "execution_summary.json").read_text()
    harness.run("resume", str(finished), code=1)
    assert harness.summary(finished)["status"] == "failed"


def test_a_commit_of_a_persons_own_has_the_whole_tested_again(run: Path) -> None:
    git = ["git", "-C", str(run), "-c", "user.name=A", "-c", "user.email=a@b"]
    (run / "src/part_1.py").write_text((run / "src/part_1.py").read_text() + "\nMORE = 1\n")
    subprocess.run([*git, "commit", "-qam", "Mine"], check=True)
    report = check(run)
    assert report.findings == []
    assert any("the next resume tests again" in note.what for note in report.notes)
    assert "done: 3 of 3 tasks merged" in harness.run("resume", str(run))
    assert "MORE = 1" in (run / "src/part_1.py").read_text()
    assert _found(run) == {}


IDLE = """#!/bin/sh
for word in "$@"; do
  case "$word" in
    --version) echo "git version 2.47.0"; exit 0;;
    {verb}) exit 0;;
  esac
done
exec {git} "$@"
"""


@pytest.mark.parametrize("verb", ["read-tree", "commit-tree", "update-ref", "init"])
def test_a_git_that_does_nothing_ends_no_run_as_done(verb: str, tmp_path: Path) -> None:
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    program.write_text(IDLE.format(verb=verb, git=shutil.which("git")))
    program.chmod(0o755)
    variables = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    out, model = str(tmp_path / "out"), str(GOLDEN / LATEST / "model.yaml")
    options = ("--replay", model, "--speed", "100", "--output-dir", out)
    output = harness.run("run", "Build a project of three parts", *options, code=3, variables=variables)
    assert "git" in output
    assert "Traceback" not in output
