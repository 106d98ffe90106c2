"""Run directories of every released version, kept in golden/: they still load, check clean, and go on."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from parallel_orchestrator.maintenance.check import check
from parallel_orchestrator.store.journal import encode
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.record_parser import LEDGER, QUEUE, TRANSCRIPT, RecordParser
from tests.end_to_end import harness
from tests.journals import read_all
from tests.reliability.runs import GOLDEN, VERSIONS, answers, bought_since, unpack


def test_the_archives_are_small() -> None:
    assert VERSIONS
    for version in VERSIONS:
        assert sum(file.stat().st_size for file in (GOLDEN / version).iterdir()) < 300_000


@pytest.mark.parametrize("kind", ["finished", "interrupted"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_record_is_read_and_would_be_written_as_it_was(version: str, kind: str, tmp_path: Path) -> None:
    run = RunDirectory(unpack(tmp_path, kind, version))
    parsers: dict[Path, RecordParser[Any]] = {
        run.queue: QUEUE,
        run.ledger: LEDGER,
        **{found.path: TRANSCRIPT for found in run.transcripts()},
    }
    for path, parse in parsers.items():
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
            record = parse(line)
            record.seq = UNSET
            assert encode(number, record) == line


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
