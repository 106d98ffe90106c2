"""`check` and `repair` of a batch's folder: its own files, and every run in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.maintenance.batch import check_all
from parallel_orchestrator.store.journal import encode
from tests.end_to_end import harness
from tests.journals import read_all
from tests.reliability.runs import lines, unpack


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """Two runs of a batch, one of them finished."""
    folder = tmp_path / "batch"
    folder.mkdir()
    runs = {name: unpack(folder, name).name for name in ("finished", "interrupted")}
    (folder / "batch.json").write_text(json.dumps({"version": 1, "scenarios": []}))
    records: list[dict[str, Any]] = [
        {"session": "start", "executors": 2, "scenarios": runs},
        {"scenario": "finished", "state": "open"},
    ]
    (folder / "batch.jsonl").write_bytes(b"".join(encode(seq, body) for seq, body in enumerate(records, 1)))
    return folder


def test_a_healthy_batch_is_clean_and_left_as_it_is(batch: Path) -> None:
    before = harness.fingerprint(batch)
    told = harness.run("check", str(batch)).splitlines()
    assert told == [
        f"{batch} (a batch): clean",
        f"{batch / 'finished'} (finished): clean",
        f"{batch / 'interrupted'} (interrupted): clean",
    ]
    assert f"nothing was changed in {batch / 'finished'}" in harness.run("repair", str(batch))
    after = harness.fingerprint(batch)
    after.pop("run.lock", None)
    assert {name: value for name, value in before.items() if name != "run.lock"} == after


def test_damage_is_found_wherever_it_is_and_mended_with_a_backup(batch: Path) -> None:
    damaged = lines(batch / "batch.jsonl")
    (batch / "batch.jsonl").write_bytes(b"xx" + b"".join(damaged))
    ledger = batch / "finished" / "ledger.jsonl"
    ledger.write_bytes(b"".join(lines(ledger)[:-1]) + b"no record\n")
    document = json.loads(harness.run("check", str(batch), "--json", code=1))["result"]
    assert document["findings"][0]["file"] == "batch.jsonl"
    assert document["findings"][0]["what"].startswith("is damaged at line 1, byte 0")
    assert document["findings"][0]["fix"] == harness.typed("repair", batch)
    assert [run["clean"] for run in document["runs"]] == [False, True]
    told = harness.run("repair", str(batch))
    assert "batch.jsonl was damaged and is kept as batch.jsonl.1" in told
    assert (batch / "batch.jsonl.1").read_bytes() == b"xx" + b"".join(damaged)
    assert all(report.findings == [] for report in check_all(batch))
    assert len(read_all(ledger)) >= len(lines(ledger)) - 1


def test_a_list_of_scenarios_that_cannot_be_read_is_told_with_the_way_on(batch: Path) -> None:
    (batch / "batch.json").write_text("{")
    told = harness.run("repair", str(batch), code=1)
    assert "batch.json: cannot be read" in told
    assert "start the batch again from its YAML file" in told
