"""What became of a scenario that stopped early: its tasks and its money are told as its own files have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.batch import scenarios
from tests.end_to_end import harness, scripted
from tests.fake_api import Answer, Block, Body, FakeApi, Fault, text


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
