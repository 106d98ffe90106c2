"""Scenarios that stop early: what is told of them is what their files have, and nobody waits for their end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.batch import scenarios
from tests.end_to_end import harness, scripted
from tests.fake_api import Answer, Block, Body, FakeApi, Fault, text
from tests.journals import read_all


def _scenarios(folder: Path) -> dict[str, dict[str, Any]]:
    """Those of the batch's summary, by name."""
    return {one["name"]: one for one in json.loads((folder / "batch_summary.json").read_text())["scenarios"]}


def _costs(folder: Path) -> dict[str, float]:
    """What `status` says that each scenario has cost."""
    status = json.loads(harness.run("status", str(folder), "--json"))["result"]
    return {one["name"]: one["cost_usd"] for one in status["scenario_list"]}


def test_a_planning_that_failed_has_cost_what_its_answers_did(tmp_path: Path) -> None:
    def script(body: Body) -> Answer | list[Block]:
        vague = "Project vague" in json.dumps(body)
        return [text("What do you mean?")] if vague else scenarios.model(body)

    wanted = {"a": "Project a: 1 layers of 1", "vague": "Project vague: something"}
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", wanted), tmp_path / "out"
    with FakeApi(script, task_of=scenarios.of_scenario) as api:
        told = harness.run("batch", str(config), "--output-dir", str(folder), api=api, code=1)
        asked = sum(request.task == "vague/plan" for request in api.requests)
    found, costs = _scenarios(folder), _costs(folder)
    assert (asked, found["vague"]["status"]) == (3, "stopped")
    assert costs["vague"] > 0
    assert {name: one["cost_usd"] for name, one in found.items()} == costs
    assert f"1 of 1 tasks merged, ${sum(costs.values()):.2f}; this session" in told


def test_a_whole_that_cannot_be_tested_keeps_its_tasks_and_its_cost(tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def build(body: Body) -> list[Block]:
        if scripted.answers_before(body) == 3:  # the last answer: what is read from now on is read for the last tests
            (folder / "a" / "execution_plan.json").write_text("{}")
        return scripted.build_part(body)

    config = scenarios.write_batch(tmp_path / "batch.yaml", {"a": "Project a: 1 layers of 1"})
    with scenarios.api(build) as api:
        command = ("batch", str(config), "--output-dir", str(folder), "--max-executors", "1")
        told = harness.run(*command, api=api, code=1)
    found = _scenarios(folder)["a"]
    assert "execution_plan.json is no plan any more" in found["why"]
    assert (found["status"], found["completed"], found["total_tasks"]) == ("stopped", 1, 1)
    assert found["cost_usd"] == harness.summary(folder / "a")["cost_usd"] > 0
    assert "1 of 1 tasks merged" in told


def test_a_cost_that_is_a_lower_bound_is_shown_as_one(tmp_path: Path) -> None:
    wanted = {name: f"Project {name}: 1 layers of 1" for name in ("a", "b")}
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", wanted), tmp_path / "out"
    with scenarios.api() as api:
        told = harness.run("batch", str(config), "--output-dir", str(folder), "--model", "llama-9", api=api)
        assert len(api.requests) == 10
    assert {name: one["unpriced_calls"] for name, one in _scenarios(folder).items()} == {"a": 5, "b": 5}
    assert told.count("  ≥ $0.00 (5 turns unpriced)  ") == 2
    assert "2 of 2 tasks merged, ≥ $0.00 (10 turns unpriced); this session" in told
    assert (folder / "batch_summary.md").read_text().count("| ≥ $0.00 (5 turns unpriced) |") == 2


def test_what_a_call_of_unknown_end_may_have_cost_is_in_the_total(tmp_path: Path) -> None:
    config = scenarios.write_batch(tmp_path / "batch.yaml", {"a": "Project a: 1 layers of 1"})
    folder = tmp_path / "out"
    with scenarios.api(faults=[None, Fault.RESET]) as api:
        told = harness.run("batch", str(config), "--output-dir", str(folder), api=api)
    uncertain = harness.summary(folder / "a")["uncertain_cost_usd"]
    assert _scenarios(folder)["a"]["uncertain_cost_usd"] == uncertain > 0
    assert f", up to ${uncertain:.2f} more for calls of unknown end or price; this session" in told


@pytest.mark.thorough
def test_a_scenario_at_its_cap_is_closed_beside_last_tests_that_take_long(tmp_path: Path) -> None:
    def script(body: Body) -> Answer | list[Block]:
        late = scenarios.of_scenario(body) == "poor/plan"  # so that a is begun first
        answer = scenarios.model(body)
        return Answer(answer, latency_s=1.0) if late and isinstance(answer, list) else answer

    config, folder = tmp_path / "batch.yaml", tmp_path / "out"
    config.write_text(
        "scenarios:\n  - {name: a, requirements: 'Project a: 2 layers of 1', verify: [sleep 8]}\n"
        "  - {name: poor, requirements: 'Project poor: 1 layers of 1', limits: {cost: 0.000001}}\n"
        "  - {name: c, requirements: 'Project c: 1 layers of 1'}\n"
    )
    with FakeApi(script, task_of=scenarios.of_scenario) as api:
        # One executor, so that one thread makes last tests: those of a.
        command = ("batch", str(config), "--output-dir", str(folder), "--max-executors", "1")
        harness.run(*command, api=api, code=4)
    closed = [record["scenario"] for record in read_all(folder / "batch.jsonl") if record.get("state") == "closed"]
    assert closed == ["poor", "a", "c"]
    found = _scenarios(folder)
    assert {name: (one["status"], one["total_tasks"]) for name, one in found.items()} == {
        "a": ("done", 2),
        "poor": ("stopped", 1),
        "c": ("done", 1),
    }
    assert found["poor"]["cost_usd"] == harness.summary(folder / "poor")["cost_usd"] > 0
