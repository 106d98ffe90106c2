"""Damaged runs in a batch: each is told of under its name, and stops no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.batch import scenarios
from tests.end_to_end import harness

TWO = {name: f"Project {name}: 1 layers of 1" for name in ("a", "b")}


def _scenarios(folder: Path) -> dict[str, dict[str, Any]]:
    """Those of the batch's summary, by name."""
    return {one["name"]: one for one in json.loads((folder / "batch_summary.json").read_text())["scenarios"]}


@pytest.mark.parametrize("finished", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_a_damaged_run_stops_its_own_scenario_alone(finished: bool, tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", TWO), tmp_path / "out"
    command = ("batch", str(config), "--output-dir", str(folder))
    with scenarios.api() as api:
        if finished:
            harness.run(*command, "--only", "b", api=api)
        (folder / "b").mkdir(parents=True, exist_ok=True)
        (folder / "b" / "scenario.json").write_text("x\n")
        before = harness.fingerprint(folder / "b")
        told = harness.run(*command, api=api, code=1)
        found = _scenarios(folder)
        assert {name: one["status"] for name, one in found.items()} == {"a": "done", "b": "stopped"}
        assert f"{folder / 'b' / 'scenario.json'} is damaged" in found["b"]["why"]
        assert f"b: {found['b']['why']}".splitlines()[0] in told
        assert harness.fingerprint(folder / "b") == before


@pytest.mark.thorough
def test_a_damaged_run_of_an_earlier_text_keeps_nobody_from_the_present_one(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", TWO), tmp_path / "out"
    command = ("batch", str(config), "--output-dir", str(folder), "--only", "b")
    with scenarios.api() as api:
        harness.run(*command, api=api)
        scenarios.write_batch(config, {"b": "Project b2: 1 layers of 1"})
        harness.run(*command, api=api)
        (folder / "b" / "scenario.json").write_text("x\n")
        assert "every scenario is finished; nothing to do" in harness.run(*command, api=api)
