"""`batch --plan-only`: what concerns one scenario stops no other, and what was paid for is shown."""

from __future__ import annotations

import json
from pathlib import Path

from parallel_orchestrator.store.run_lock import RunLock
from tests.batch import scenarios
from tests.end_to_end import harness
from tests.fake_api import Answer, Block, Body, FakeApi, Fault, text


def test_whatever_keeps_one_scenario_from_its_plan_the_others_are_planned(tmp_path: Path) -> None:
    config, folder = tmp_path / "batch.yaml", tmp_path / "out"
    names = ("gone", "spoilt", "damaged", "held", "poor", "foreign", "a")
    more = {"gone": ", planner: {model: no-model}", "poor": ", limits: {cost: 0.0000001}"}
    lines = [f"  - {{name: {n}, requirements: 'Project {n}: 1 layers of 1'{more.get(n, '')}}}" for n in names]
    config.write_text("\n".join(["scenarios:", *lines]) + "\n")

    def script(body: Body) -> Answer | list[Block]:
        poor = "Project poor" in json.dumps(body)  # has to be asked again, and by then its budget is spent
        return [text("What do you mean?")] if poor else scenarios.model(body)

    with FakeApi(script, models=frozenset({"claude-opus-5-5"})) as api:
        command = ("batch", str(config), "--output-dir", str(folder), "--plan-only", "--json")
        harness.quiet(*command, "--only", "spoilt,held", api=api)
        (folder / "spoilt" / "execution_plan.json").write_text("{}")
        for name in ("damaged", "foreign"):
            (folder / name).mkdir()
        (folder / "damaged" / "scenario.json").write_text("x\n")
        (folder / "foreign" / "letter.txt").touch()
        lock = RunLock.acquire(folder / "held" / "run.lock", say=print)
        document = json.loads(harness.quiet(*command, api=api, code=2))
        lock.release()
    found = document["result"]["scenarios"]
    whys = {name: one.get("why", "") for name, one in found.items()}
    assert list(whys) == list(names)
    assert "no-model" in whys["gone"]
    assert "is no plan any more" in whys["spoilt"]
    assert "scenario.json is damaged" in whys["damaged"]
    assert "is in use by another orchestrator" in whys["held"]
    assert "spent" in whys["poor"]
    assert "holds files that no run made" in whys["foreign"]
    assert found["a"]["advice"]["width"] == 1
    # Usage is worse than a budget that was reached, as it is when the batch is built.
    told = {"kind": "unsuccessful", "message": f"not planned: {', '.join(names[:-1])}", "exit_code": 2}
    assert document["error"] == told


def test_what_stops_everything_shows_what_was_planned_before(tmp_path: Path) -> None:
    wanted = {name: f"Project {name}: 1 layers of 1" for name in ("a", "b", "c")}
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", wanted), tmp_path / "out"
    with scenarios.api(faults=[None, Fault.KEY_REFUSED]) as api:
        command = ("batch", str(config), "--output-dir", str(folder), "--plan-only")
        document = json.loads(harness.quiet(*command, "--json", api=api, code=2))
        assert len(api.requests) == 2
    found = document["result"]["scenarios"]
    assert {name: "plan" in one for name, one in found.items()} == {"a": True, "b": False}
    assert (document["error"]["kind"], document["error"]["message"]) == ("key_refused", found["b"]["why"])


def test_the_advice_keeps_to_the_executors_of_the_batch_and_of_the_scenario(tmp_path: Path) -> None:
    config, folder = tmp_path / "batch.yaml", tmp_path / "out"
    most = {"own": ", max_executors: 2", "more": ", max_executors: 5", "none": ""}
    lines = [f"  - {{name: {n}, requirements: 'Project {n}: 1 layers of 5'{own}}}" for n, own in most.items()]
    config.write_text("\n".join(["scenarios:", *lines]) + "\n")
    with scenarios.api() as api:
        command = ("batch", str(config), "--output-dir", str(folder), "--plan-only", "--json")
        found = json.loads(harness.quiet(*command, "--max-executors", "3", api=api))["result"]["scenarios"]
    advised = {name: one["advice"]["recommended_executors"] for name, one in found.items()}
    assert advised == {"own": 2, "more": 3, "none": 3}
