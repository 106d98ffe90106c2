"""Run directories of every released version, kept in golden/: they still load, check clean, and go on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from parallel_orchestrator.maintenance.check import check
from tests.end_to_end import harness
from tests.journals import read_all
from tests.reliability.runs import GOLDEN, VERSIONS, answers, bought_since, unpack


def test_the_archives_are_small() -> None:
    assert VERSIONS
    for version in VERSIONS:
        assert sum(file.stat().st_size for file in (GOLDEN / version).iterdir()) < 300_000


@pytest.mark.parametrize("version", VERSIONS)
def test_a_finished_run_is_whole_and_stays_as_it_is(version: str, tmp_path: Path) -> None:
    run = unpack(tmp_path, "finished", version)
    report = check(run)
    assert (report.state, report.findings, report.notes) == ("finished", [], [])
    before = harness.fingerprint(run)
    plainly = [*harness.PROGRAM, "resume", str(run)]  # without --yes, which would be written down
    told = subprocess.run(
        plainly, env=harness.environment(None), stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    assert b"is finished; nothing to do" in told.stderr
    assert harness.fingerprint(run) == before
    assert harness.recount(run) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_an_interrupted_run_goes_on_to_the_same_end_and_buys_nothing_again(version: str, tmp_path: Path) -> None:
    run, finished = unpack(tmp_path, "interrupted", version), unpack(tmp_path, "finished", version)
    report = check(run)
    assert (report.state, report.findings) == ("interrupted", [])
    answered, written = set(answers(run)), len(read_all(run / "ledger.jsonl"))
    output = harness.run("resume", str(run), "--speed", "100")
    assert "resuming: reusing 1 task, 6 turns of task_2" in output
    assert {(task, 1, turn) for task, turn in bought_since(run, written)} & answered == set()
    assert harness.tree(run) == harness.tree(finished)
    assert set(answers(run)) == set(answers(finished))
    told = harness.summary(run)
    assert (told["status"], told["bought_again"], told["changed_bodies"]) == ("done", 0, 0)
    assert check(run).findings == []
