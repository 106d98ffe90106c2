"""A wrong model or a wrong server stops the run before any task is to blame, and the command that goes on is named."""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end import harness, scripted
from tests.fake_api import KEY, Answer, Block, Body, FakeApi
from tests.journals import read_all

REQUIREMENT = "Build a project of many parts"
GOOD, BAD = "claude-opus-5-5", "claude-opus-5-6"


def _api(tasks: int, **options: Any) -> FakeApi:
    planned = scripted.plan([scripted.task(n, []) for n in range(1, tasks + 1)])

    def model(body: Body) -> Answer | list[Block]:
        return scripted.model(planned, scripted.build_part)(body)

    return FakeApi(model, task_of=scripted.task_of, models=frozenset({GOOD}), **options)


def _models(api: FakeApi) -> list[str]:
    return [request.model for request in api.requests]


def test_a_wrong_model_stops_the_run_and_resume_takes_another(tmp_path: Path) -> None:
    directory, executors = tmp_path / "out", 2
    with _api(4) as api:
        harness.run("plan", REQUIREMENT, "--output-dir", str(directory), api=api)
        _rename_executor_model(directory, BAD)
        output = harness.run("resume", str(directory), "--max-executors", str(executors), api=api, code=2)
        assert f"does not know the model '{BAD}'" in output
        assert f"{harness.typed('resume', directory)} --model MODEL" in output
        assert f"{harness.typed('retry', directory)} --model MODEL" in output
        assert 1 <= _models(api).count(BAD) <= executors
        assert [move for move in harness.moves(directory) if move["state"] == "failed"] == []
        output = harness.run("resume", str(directory), "--model", GOOD, api=api)
        assert f"executor_model: '{BAD}' -> '{GOOD}'" in output
        assert f"executor_model: '{BAD}' -> '{GOOD}'" in (directory / "orchestrator.log").read_text()
        assert api.answered_twice() == []
    found = harness.summary(directory)
    assert (found["status"], found["completed"], found["bought_again"], found["changed_bodies"]) == ("done", 4, 0, 0)


def _rename_executor_model(directory: Path, model: str) -> None:
    """As if the person had given another model to the executors than to the planner."""
    path = directory / "scenario.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "executor_model": model}))


def test_a_wrong_model_of_the_planner_stops_the_run_and_resume_takes_another(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with _api(1) as api:
        output = harness.run(REQUIREMENT, "--model", BAD, "--output-dir", str(directory), api=api, code=2)
        assert f"does not know the model '{BAD}'" in output
        assert len(api.requests) == 1
        harness.run("resume", str(directory), "--model", GOOD, api=api)
    assert harness.summary(directory)["status"] == "done"


def test_a_wrong_model_stops_its_scenario_and_the_batch_resumes_with_another(tmp_path: Path) -> None:
    folder, config = tmp_path / "out", tmp_path / "batch.yaml"
    one = {"name": "one", "requirements": REQUIREMENT, "planner": {"model": GOOD}, "executor": {"model": BAD}}
    config.write_text(json.dumps({"scenarios": [one]}))
    with _api(2) as api:
        output = harness.run("batch", str(config), "--output-dir", str(folder), api=api, code=2)
        assert f"does not know the model '{BAD}'" in output
        assert [move for move in harness.moves(folder / "one") if move["state"] == "failed"] == []
        harness.run("resume", str(folder), "--model", GOOD, api=api)
        assert api.answered_twice() == []
    assert harness.summary(folder / "one")["status"] == "done"


@pytest.mark.long
def test_an_endpoint_that_is_away_is_told_of_and_can_be_waited_for(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with socket.socket() as never_listens:
        never_listens.bind(("127.0.0.1", 0))  # kept: nobody else gets the port
        away = {"ANTHROPIC_BASE_URL": "http://{}:{}".format(*never_listens.getsockname()), "ANTHROPIC_API_KEY": KEY}
        looked: list[str] = []

        def look() -> None:
            harness.wait_until(lambda: _tries(directory) >= 3, 60)
            looked.append(harness.quiet("status", str(directory)))

        watching = threading.Thread(target=look)
        watching.start()
        patience = ("--endpoint-patience", "12s")
        output = harness.run(REQUIREMENT, *patience, "--output-dir", str(directory), variables=away, code=3)
        watching.join()
    assert "the endpoint fails (connect: " in output
    assert re.search(r"try \d+ failed, (next in \d+ s|the next is under way), giving up in ", output)
    assert "the endpoint has sent nothing for 12 s" in output
    assert "endpoint: connect: " in looked[0]
    assert "giving up in " in (directory / "orchestrator.log").read_text()
    with _api(1) as api:
        harness.run("resume", str(directory), "--endpoint-patience", "8h", api=api)
    assert harness.summary(directory)["status"] == "done"


def _tries(directory: Path) -> int:
    ledger = directory / "ledger.jsonl"
    return sum(record["kind"] == "fault" for record in read_all(ledger)) if ledger.exists() else 0


@pytest.mark.parametrize("duration", ["0s", "soon", "-5", "1e400"])
def test_a_senseless_patience_is_refused(duration: str, tmp_path: Path) -> None:
    output = harness.run(
        REQUIREMENT, "--replay", "simple", f"--endpoint-patience={duration}", "--output-dir", str(tmp_path), code=2
    )
    assert "endpoint_patience: has to be" in output
