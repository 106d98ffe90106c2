"""A batch over the live path: scenarios beside each other, edited, failing, stopped, killed and gone on with."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.config.options import SHIPPED, Options
from parallel_orchestrator.records.journals.batch import ScenarioState
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.run import manifest
from parallel_orchestrator.run.cost import by_folder
from parallel_orchestrator.store.paths import BatchDirectory
from parallel_orchestrator.store.queue.batch_journal import BatchLog
from tests.batch import scenarios
from tests.end_to_end import harness, scripted
from tests.fake_api import KEY, Block, Body, text
from tests.journals import read_all

THREE = {
    name: f"Project {name}: {shape}"
    for name, shape in (("a", "1 layers of 3"), ("b", "2 layers of 1"), ("c", "1 layers of 1"))
}


def _summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "batch_summary.json").read_text())
    return found


def _statuses(folder: Path) -> dict[str, str]:
    return {one["name"]: one["status"] for one in _summary(folder)["scenarios"]}


@pytest.mark.long
def test_all_are_built_and_then_left_alone_and_an_edited_one_alone_runs_anew(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", THREE), tmp_path / "out"
    with scenarios.api() as api:
        output = harness.run("batch", str(config), "--output-dir", str(folder), "--max-executors", "3", api=api)
        assert "3 of 3 scenarios done, 6 of 6 tasks merged" in output
        assert output.count("/3] ✓ ") == 3
        assert "output_dir is for" not in output
        assert api.answered_twice() == []
        assert len({move["executor"] for name in THREE for move in harness.moves(folder / name)}) == 3
        assert (folder / "batch_summary.md").read_text().count("| done |") == 3
        before, asked = harness.fingerprint(folder), len(api.requests)

        again = harness.run("resume", str(folder), api=api)
        assert "every scenario is finished; nothing to do" in again
        changed = {path for path, print_ in harness.fingerprint(folder).items() if before.get(path) != print_}
        assert changed <= {"batch_summary.json", "batch_summary.md", "batch.json"}
        assert len(api.requests) == asked

        scenarios.write_batch(config, {**THREE, "b": "Project b2: 1 layers of 2"})
        config.write_text(config.read_text().replace("name: c,", "name: c, output_dir: elsewhere,"))
        edited = harness.run("batch", str(config), "--output-dir", str(folder), api=api)
        new = next(one["folder"] for one in _summary(folder)["scenarios"] if one["name"] == "b")
        assert new.startswith("b-")
        assert len(new) == len("b-123456")
        assert "output_dir is for `run --config` alone: of c it is not used" in edited
        assert f"b differs from what was run before: it runs anew, in {new}" in edited
        assert {request.task.partition("/")[0] for request in api.requests[asked:]} == {"b2"}
        untouched = {path: print_ for path, print_ in before.items() if path.startswith(("a/", "b/", "c/"))}
        assert untouched.items() <= harness.fingerprint(folder).items()
    assert harness.family(folder) == set()


@pytest.mark.long
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
        poor = f"next:  {harness.typed('resume', folder / 'poor')} --max-cost 2e-06"
        assert output.splitlines()[-2:] == [poor, f"next:  {harness.typed('retry', folder)}"]
        assert "Traceback" not in output
        # Each is a run of its own, and goes on alone.
        harness.run("resume", str(folder / "poor"), "--max-cost", "5", api=api)
        output = harness.run("batch", str(config), "--output-dir", str(folder), api=api, code=1)
        assert _statuses(folder)["poor"] == "done"
        assert api.answered_twice() == []
    assert harness.family(folder) == set()


@pytest.mark.long
def test_a_cap_over_all_scenarios_stops_them_together_and_can_be_raised(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", THREE), tmp_path / "out"
    options = ("batch", str(config), "--output-dir", str(folder), "--max-executors", "2")
    with scenarios.api() as api:
        output = harness.run(*options, "--max-cost", "0.01", api=api, code=4)
        assert "all scenarios together have spent" in output
        assert f"resume {folder}" in output
        assert "of 3 scenarios done" in output
        assert f"more in {folder / 'batch_summary.md'}" in output
        assert _summary(folder)["exit_code"] == 4
        document = json.loads(harness.quiet("resume", str(folder), "--json", api=api, code=4))
        assert (document["error"]["kind"], document["result"]["summary"]) == ("batch_budget_reached", _summary(folder))
        assert document["error"]["next"] == [f"to go on: {harness.typed('resume', folder)} --max-cost 0.02"]
        harness.run("resume", str(folder), "--max-cost", "5", api=api)
        assert _summary(folder)["done"] == 3
        assert api.answered_twice() == []


@pytest.mark.thorough
def test_the_cap_counts_what_every_run_of_the_folder_has_spent(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", THREE), tmp_path / "out"
    command = ("batch", str(config), "--output-dir", str(folder), "--only")
    with scenarios.api() as api:
        harness.run(*command, "c", api=api)
        spent, asked = str(harness.summary(folder / "c")["cost_usd"]), len(api.requests)
        told = harness.run(*command, "b", "--max-cost", spent, api=api, code=4)
        assert "all scenarios together have spent" in told
        scenarios.write_batch(config, {"c": "Project c2: 1 layers of 1"})
        harness.run(*command, "c", "--max-cost", spent, api=api, code=4)
        assert len(api.requests) == asked


def test_a_run_of_a_batch_at_work_is_not_to_be_had_alone(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", THREE), tmp_path / "out"
    with (
        scenarios.api(latency_s=1.0) as api,
        harness.started("batch", str(config), "--output-dir", str(folder), url=api.url),
    ):
        harness.wait_until((folder / "a" / "scenario.json").exists)
        assert "is in use by another orchestrator" in harness.run("resume", str(folder / "a"), api=api, code=5)


def test_an_interrupted_batch_says_how_far_it_is(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", THREE), tmp_path / "out"
    with (
        scenarios.api(latency_s=1.0) as api,
        # A shell starts what it puts into the background with SIGINT ignored, these tests perhaps.
        harness.started(
            *("batch", str(config), "--output-dir", str(folder)), url=api.url, prefix=("env", "--default-signal=INT")
        ) as process,
    ):
        harness.wait_until((folder / "a" / "scenario.json").exists)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == _summary(folder)["exit_code"] == 130
    assert f"more in {folder / 'batch_summary.md'}" in output
    assert f"resume {folder}" in output


@pytest.mark.thorough
def test_a_session_of_some_leaves_the_others_in_the_batch(tmp_path: Path) -> None:
    def build(body: Body) -> list[Block]:
        return [text("Done, all tests pass.")] if "Project lazy" in json.dumps(body) else scripted.build_part(body)

    wanted = {name: f"Project {name}: 1 layers of 1" for name in ("lazy", "a")}
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", wanted), tmp_path / "out"
    red = "  - {name: red, requirements: 'Project red: 1 layers of 1', verify: [echo no; false], fix_rounds: 0}\n"
    config.write_text(config.read_text() + red)
    command = ("batch", str(config), "--output-dir", str(folder), "--only")
    with scenarios.api(build) as api:
        told = harness.run(*command, "lazy,red", api=api, code=1)
        assert "red: verify failed: echo no; false" in told
        harness.run(*command, "a", api=api)
        before = {one["name"]: (one["status"], one["why"]) for one in _summary(folder)["scenarios"]}
        assert before.pop("lazy")[1].startswith("task_1 failed: ")
        assert before == {
            "red": ("failed", "verify failed: echo no; false"),
            "a": ("done", ""),
        }
        status = json.loads(harness.run("status", str(folder), "--json"))["result"]
        found = {one["name"]: (one["state"], one["why"]) for one in status["scenario_list"]}
        assert found.pop("lazy")[1].startswith("task_1 failed: ")
        assert found == before
        assert list(manifest.load(BatchDirectory(folder)).options) == ["lazy", "red", "a"]
        unfinished = folder / "a" / "execution_summary.json"
        unfinished.unlink()
        asked = len(api.requests)
        harness.run("retry", str(folder), "lazy/task_1", api=api, code=1)
        assert len(api.requests) > asked
        assert not unfinished.exists()


@pytest.mark.thorough
def test_what_failed_in_a_batch_is_tried_again_by_its_folder_alone(tmp_path: Path) -> None:
    again = tmp_path / "again"

    def build(body: Body) -> list[Block]:
        lazy = "Project lazy" in json.dumps(body) and not again.exists()
        return [text("Done, all tests pass.")] if lazy else scripted.build_part(body)

    wanted = {"a": "Project a: 1 layers of 1", "lazy": "Project lazy: 2 layers of 1"}
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", wanted), tmp_path / "out"
    with scenarios.api(build) as api:
        harness.run("batch", str(config), "--output-dir", str(folder), "--max-executors", "2", api=api, code=1)
        status = json.loads(harness.run("status", str(folder), "--json"))["result"]
        assert status["next"] == harness.typed("retry", folder)
        assert "SCENARIO/TASK" in harness.run("retry", str(folder), "task_1", api=api, code=2)
        before = harness.fingerprint(folder)
        for wrong in ("a/task_1", "lazy/task_9"):
            assert "did not fail" in harness.run("retry", str(folder), wrong, api=api, code=2)
        assert harness.fingerprint(folder) == before
        before = harness.fingerprint(folder / "a")
        again.touch()
        harness.run("retry", str(folder), "--failed", api=api)
        assert _statuses(folder) == {"a": "done", "lazy": "done"}
        assert {move["attempt"] for move in harness.moves(folder / "lazy") if move["task"] == "task_1"} == {1, 2}
        assert harness.fingerprint(folder / "a") == before
        assert "nothing to retry" in harness.run("retry", str(folder), api=api, code=2)


def test_a_key_is_named_in_the_file_and_by_every_way_to_go_on(tmp_path: Path) -> None:
    config, folder = tmp_path / "batch.yaml", tmp_path / "out"
    one = "{name: one, requirements: 'Project one: 1 layers of 1', api_key_env: MINE, base_url_env: URL"
    config.write_text(f"scenarios:\n  - {one}, limits: {{cost: 0.000001}}}}\n")
    with scenarios.api() as api:
        mine = {"MINE": KEY, "URL": api.url}
        harness.run("batch", str(config), "--output-dir", str(folder), variables=mine, code=4)
        assert KEY.encode() not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        # Beside it in the batch's own memory, and in that of the run.
        harness.run("resume", str(folder), variables=mine, code=4)
        harness.run("resume", str(folder / "one"), "--max-cost", "5", variables=mine)
        assert {request.headers.get("x-api-key") for request in api.requests} == {KEY}


def test_scenarios_that_one_gateway_cannot_serve_are_refused(tmp_path: Path) -> None:
    config, folder = tmp_path / "batch.yaml", tmp_path / "out"
    config.write_text(
        "scenarios:\n  - {name: a, requirements: A}\n  - {name: b, requirements: B, api_key_env: OTHER}\n"
        "  - {name: c, requirements: C}\n  - {name: d, requirements: D, replay: simple}\n"
    )
    variables = {"ANTHROPIC_API_KEY": "k-" + "a" * 20, "OTHER": "k-" + "b" * 20}
    told = harness.run("batch", str(config), "--output-dir", str(folder), variables=variables, code=2)
    assert "share one key" in told
    assert "a, c: paid by API key from ANTHROPIC_API_KEY" in told
    assert "b: paid by" in told
    assert not folder.exists()


def test_a_cap_over_models_without_a_price_is_refused_before_anything_begins(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", THREE), tmp_path / "out"
    with scenarios.api() as api:
        command = ("batch", str(config), "--output-dir", str(folder), "--model", "llama-9", "--max-cost", "5")
        assert "the price of llama-9 is unknown" in harness.run(*command, api=api, code=2)
        assert not folder.exists()
        assert api.requests == []


@pytest.mark.thorough
def test_a_batch_is_planned_before_it_is_built_and_one_that_cannot_be_stops_no_other(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", THREE), tmp_path / "out"
    config.write_text(config.read_text() + "  - {name: poor, requirements: P, limits: {cost: 0.0000001}}\n")
    with scenarios.api() as api:
        command = ("batch", str(config), "--output-dir", str(folder))
        planned = json.loads(harness.quiet(*command, "--plan-only", "--json", api=api, code=4))
        plans = planned["result"]["scenarios"]
        assert [plans[name]["advice"]["width"] for name in THREE] == [3, 1, 1]
        assert "spent" in plans["poor"]["why"]
        asked = len(api.requests)
        scenarios.write_batch(config, {name: f"Project {name}: 1 layers of 1" for name in ("d", "e")})
        spent = sum(one.usd + one.uncertain_usd for one in by_folder(BatchDirectory(folder)).values())
        cap = ("--max-cost", str(spent + 1e-9))
        told = json.loads(harness.quiet(*command, "--plan-only", *cap, "--json", api=api, code=4))
        assert ["why" in one for one in told["result"]["scenarios"].values()] == [False, True]
        assert "all scenarios together have spent" in told["result"]["scenarios"]["e"]["why"]
        asked += 1
        assert len(api.requests) == asked
        scenarios.write_batch(config, {**THREE, "b": "Project b2: 1 layers of 2"})
        again = json.loads(harness.quiet(*command, "--plan-only", "--json", api=api))["result"]["scenarios"]
        assert Path(again["b"]["directory"]).name.startswith("b-")
        assert len(api.requests) == asked + 1
        harness.run(*command, api=api)
        assert set(_statuses(folder).values()) == {"done"}
        assert api.answered_twice() == []


def test_a_batch_is_gone_on_with_from_every_folder(tmp_path: Path) -> None:
    (tmp_path / "cfg").mkdir()
    shutil.copy(SHIPPED / "simple.yaml", tmp_path / "cfg" / "mine.yaml")
    (tmp_path / "cfg" / "mine.json").write_text('{"models": {}}')
    (tmp_path / "cfg" / "b.yaml").write_text(
        "scenarios: [{name: a, requirements: A, replay: mine.yaml, prices: mine.json, speed: 100}]"
    )
    harness.run("batch", "cfg/b.yaml", "--output-dir", "out", cwd=tmp_path)
    told = harness.run("resume", str(tmp_path / "out"), cwd=Path("/"))
    assert "every scenario is finished" in told


def test_a_shipped_recordings_name_stays_a_name(tmp_path: Path) -> None:
    batch = BatchDirectory(tmp_path)
    manifest.save(batch, 2, None, {"a": Options("A", replay="simple")})
    assert manifest.load(batch).options["a"].replay == "simple"


def test_a_scenario_that_names_no_executors_may_have_all_of_them(tmp_path: Path) -> None:
    config, folder = scenarios.write_batch(tmp_path / "batch.yaml", {"a": "Project a: 1 layers of 7"}), tmp_path / "out"
    config.write_text(
        config.read_text() + "  - {name: b, requirements: 'Project b: 1 layers of 1', max_executors: 2}\n"
    )
    with scenarios.api() as api:
        harness.run("batch", str(config), "--output-dir", str(folder), "--max-executors", "6", api=api)
    planned = [record for record in read_all(folder / "batch.jsonl") if record.get("state") == "planned"]
    assert {record["scenario"]: record["limit"] for record in planned} == {"a": 6, "b": 2}
    assert "max_executors" not in manifest.load(BatchDirectory(folder)).options["a"].settings


def _kill_everything(folder: Path) -> None:
    for pid in harness.family(folder):
        with contextlib.suppress(ProcessLookupError):  # one dies with another
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


def _shipped_until_done(folder: Path, kills: int, chance: random.Random) -> dict[str, str]:
    """The shipped batch, killed that often and gone on with to its end; what finished runs were before the last time.

    One time the orchestrator alone is killed, the next all of its processes.
    """
    command = ["batch", str(harness.ROOT / "configs" / "batch.yaml"), "--output-dir", str(folder), "--speed", "100"]
    command += ["--max-executors", "4"]
    for kill in range(kills):
        with harness.started(*command) as process:
            harness.wait_until((folder / "run.lock").exists)
            time.sleep(chance.uniform(0.5, 12))
            process.send_signal(signal.SIGKILL)
            if kill % 2:
                _kill_everything(folder)
        harness.wait_until(lambda: harness.family(folder) == set())
    done = {path.parent.name for path in folder.glob("*/execution_summary.json") if _says_done(path)}
    before = {path: print_ for path, print_ in harness.fingerprint(folder).items() if path.partition("/")[0] in done}
    harness.run(*command)
    return before


def _says_done(summary: Path) -> bool:
    return bool(json.loads(summary.read_text())["status"] == "done")


@pytest.mark.thorough
@pytest.mark.timeout(1800)
def test_the_shipped_batch_killed_at_ten_seeded_instants_ends_with_all_done(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", "7"))
    folder = tmp_path / "out"
    before = _shipped_until_done(folder, kills=10, chance=random.Random(seed))
    statuses = _statuses(folder)
    assert len(statuses) == 10
    assert set(statuses.values()) == {"done"}, f"SEED={seed}"
    assert before.items() <= harness.fingerprint(folder).items()
    for name in statuses:
        asked = Counter(
            (record["task"], record["attempt"], record["turn"])
            for record in read_all(folder / name / "ledger.jsonl")
            if record["kind"] == "answer"
        )
        assert asked
        assert set(asked.values()) == {1}, f"SEED={seed}"
        assert harness.summary(folder / name)["changed_bodies"] == 0


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
        log.planned(name, path, 5, ExecutionEnv("off"))
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
