"""A batch over the live path: scenarios beside each other, edited, failing, stopped, killed and gone on with."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.records.scenario import Surroundings
from parallel_orchestrator.store.batchlog import BatchLog, ScenarioState
from parallel_orchestrator.store.journal import read_all
from parallel_orchestrator.store.paths import BatchDirectory
from tests.batch import scenarios
from tests.end_to_end import harness, scripted
from tests.fake_api import Block, Body, text

THREE = {
    name: f"Project {name}: {shape}"
    for name, shape in (("a", "1 layers of 3"), ("b", "2 layers of 1"), ("c", "1 layers of 1"))
}


def _summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "batch_summary.json").read_text())
    return found


def _statuses(folder: Path) -> dict[str, str]:
    return {one["name"]: one["status"] for one in _summary(folder)["scenarios"]}


def test_all_are_built_and_then_left_alone_and_an_edited_one_alone_runs_anew(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", THREE), tmp_path / "out"
    with scenarios.api() as api:
        output = harness.run("batch", str(config), "--output-dir", str(folder), "--max-executors", "3", api=api)
        assert "3 of 3 scenarios done, 6 of 6 tasks merged" in output
        assert api.answered_twice() == []
        assert len({move["executor"] for name in THREE for move in harness.moves(folder / name)}) == 3
        assert (folder / "batch_summary.md").read_text().count("| done |") == 3
        before, asked = harness.fingerprint(folder), len(api.requests)

        again = harness.run("resume", str(folder), api=api)
        assert "all 3 scenarios are finished; nothing to do" in again
        changed = {path for path, print_ in harness.fingerprint(folder).items() if before.get(path) != print_}
        assert changed <= {"batch_summary.json", "batch_summary.md", "batch.json"}
        assert len(api.requests) == asked

        scenarios.write_batch(config, {**THREE, "b": "Project b2: 1 layers of 2"})
        edited = harness.run("batch", str(config), "--output-dir", str(folder), api=api)
        new = next(one["folder"] for one in _summary(folder)["scenarios"] if one["name"] == "b")
        assert new.startswith("b-")
        assert len(new) == len("b-123456")
        assert f"b differs from what was run before: it runs anew, in {new}" in edited
        assert {request.task.partition("/")[0] for request in api.requests[asked:]} == {"b2"}
        untouched = {path: print_ for path, print_ in before.items() if path.startswith(("a/", "b/", "c/"))}
        assert untouched.items() <= harness.fingerprint(folder).items()
    assert harness.family(folder) == set()


def test_what_stops_or_fails_one_scenario_stops_no_other(tmp_path: Path) -> None:
    def build(body: Body) -> list[Block]:
        return [text("Done, all tests pass.")] if "Project lazy" in json.dumps(body) else scripted.build_part(body)

    wanted = {**THREE, "lazy": "Project lazy: 1 layers of 2"}
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", wanted), tmp_path / "out"
    config.write_text(
        config.read_text() + "  - {name: poor, requirements: 'Project poor: 1 layers of 1', limits: {cost: 0.000001}}\n"
    )
    with scenarios.api(build) as api:
        output = harness.run("batch", str(config), "--output-dir", str(folder), "--max-executors", "3", api=api, code=4)
        assert _statuses(folder) == {**dict.fromkeys(THREE, "done"), "lazy": "failed", "poor": "stopped"}
        assert "poor: $" in output
        assert "Traceback" not in output
        # Each is a run of its own, and goes on alone.
        harness.run("resume", str(folder / "poor"), "--max-cost", "5", api=api)
        output = harness.run("batch", str(config), "--output-dir", str(folder), api=api, code=1)
        assert _statuses(folder)["poor"] == "done"
        assert api.answered_twice() == []
    assert harness.family(folder) == set()


def test_a_cap_over_all_scenarios_stops_them_together_and_can_be_raised(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", THREE), tmp_path / "out"
    options = ("batch", str(config), "--output-dir", str(folder), "--max-executors", "2")
    with scenarios.api() as api:
        output = harness.run(*options, "--max-cost", "0.01", api=api, code=4)
        assert "all scenarios together have spent" in output
        assert f"resume {folder}" in output
        harness.run("resume", str(folder), "--max-cost", "5", api=api)
        assert _summary(folder)["done"] == 3
        assert api.answered_twice() == []


def test_a_run_of_a_batch_at_work_is_not_to_be_had_alone(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", THREE), tmp_path / "out"
    with (
        scenarios.api(latency_s=1.0) as api,
        harness.started("batch", str(config), "--output-dir", str(folder), url=api.url),
    ):
        harness.wait_until((folder / "a" / "scenario.json").exists)
        assert "is in use by another orchestrator" in harness.run("resume", str(folder / "a"), api=api, code=5)


def _kill_everything(folder: Path) -> None:
    for pid in harness.family(folder):
        os.kill(pid, signal.SIGKILL)
    harness.wait_until(lambda: harness.family(folder) == set())


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.thorough)])
def test_killed_at_any_instant_the_same_command_goes_on(kills: int, tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", "7"))
    chance = random.Random(seed)
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", THREE), tmp_path / "out"
    options = ("batch", str(config), "--output-dir", str(folder), "--max-executors", "3")
    with scenarios.api(latency_s=0.2) as api:
        for _ in range(kills):
            with harness.started(*options, url=api.url) as process:
                harness.wait_until((folder / "run.lock").exists)
                time.sleep(chance.uniform(0.5, 5))
                process.send_signal(signal.SIGKILL)
                _kill_everything(folder)
        finished = {one["name"] for one in _ended_well(folder)}
        before = harness.fingerprint(folder)
        harness.run(*options, api=api)
        assert set(_statuses(folder).values()) == {"done"}, f"SEED={seed}"
        kept = {path: print_ for path, print_ in before.items() if path.partition("/")[0] in finished}
        assert kept.items() <= harness.fingerprint(folder).items()
        changed = sum(harness.summary(folder / name)["changed_bodies"] for name in THREE)
        in_flight = sum(harness.summary(folder / name)["open_calls"] for name in THREE)
        assert changed == 0
        assert sum(count - 1 for count in api.whole_answers().values()) <= in_flight, f"SEED={seed}"


def _ended_well(folder: Path) -> list[dict[str, Any]]:
    """Scenarios whose own summary says that they are done."""
    found = []
    for name in THREE:
        path = folder / name / "execution_summary.json"
        if path.exists() and json.loads(path.read_text())["status"] == "done":
            found.append({"name": name})
    return found


def test_the_longest_scenario_that_is_planned_is_opened_first(tmp_path: Path) -> None:
    log = BatchLog(BatchDirectory(tmp_path))
    log.start_session(2, {name: name for name in "abcd"})
    for name, path in (("a", 2.0), ("b", 7.0), ("c", 7.0)):
        log.planned(name, path, 5, Surroundings("off"))
    other = BatchLog(BatchDirectory(tmp_path))  # as another process has it
    assert [log.open_next(), other.open_next(), log.open_next(), other.open_next()] == [True, True, True, False]
    opened = [record["scenario"] for record in read_all(tmp_path / "batch.jsonl") if record.get("state") == "open"]
    assert opened == ["b", "c", "a"]
    log.closed("b", "done")
    assert other.refresh().left == 3
    log.start_session(2, {"d": "d"})
    assert other.refresh().named(ScenarioState.WAITING) == ["d"]
    log.close()
    other.close()
