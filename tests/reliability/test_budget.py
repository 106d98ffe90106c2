"""The budget: a hard cap over any number of kills and resumes, warned of once, and gone on from with a higher one."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end import harness, scripted
from tests.fake_api import Answer, Body, FakeApi

REQUIREMENT = "Build a project of many parts"
EXECUTORS, TASKS = 3, 6
USAGE = {"input_tokens": 50_000, "output_tokens": 20_000}
WARNED = "80 % of the budget is spent"


def _build(body: Body) -> Answer:
    content = scripted.build_part(body)
    assert isinstance(content, list)
    return Answer(content, usage=USAGE)


def _api() -> FakeApi:
    planned = scripted.plan([scripted.task(n, []) for n in range(1, TASKS + 1)])
    return FakeApi(scripted.model(planned, _build), task_of=scripted.task_of, latency_s=0.3)


def _price(directory: Path) -> float:
    """What one answer costs, by the summary."""
    summary = harness.summary(directory)
    cost: float = next(task["cost_usd"] / task["model_calls"] for task in summary["tasks"] if task["model_calls"])
    return cost


def _answers(api: FakeApi) -> int:
    return sum(request.whole for request in api.requests)


def _enough(api: FakeApi, answers: int) -> bool:
    return _answers(api) >= answers and api.in_work > 0


@pytest.mark.long
def test_a_cap_holds_over_kills_and_resumes_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    options = ("--max-executors", str(EXECUTORS))
    cap = 10.0
    with _api() as api:
        begin = (REQUIREMENT, *options, "--max-cost", str(cap), "--output-dir", str(directory))
        for command, answers in ((begin, 3), (("resume", str(directory)), 6)):
            with harness.started(*command, url=api.url) as process:
                harness.wait_until(partial(_enough, api, answers))
                for pid in {process.pid, *harness.family(directory)}:
                    os.kill(pid, signal.SIGKILL)
            harness.wait_until(lambda: not harness.family(directory))
        output = harness.run("resume", str(directory), api=api, code=4)
        assert output.count(WARNED) <= 1  # none when the kills came so late that nothing is left to spend
        assert f"of ${cap:.2f} are spent; raise --max-cost to continue" in output
        assert f"to go on: {harness.typed('resume', directory)} --max-cost {2 * cap:g}" in output
        price, spent = _price(directory), _answers(api)
        summary = harness.summary(directory)
        # Everything that the endpoint has answered, delivered or not, is within the cap and the calls in flight: at
        # its end, and at the kills (what those cost nobody was told, and this endpoint counts more than was bounded).
        assert price * spent <= cap + (EXECUTORS + summary["open_calls"]) * price
        assert price * (spent - 1 - summary["open_calls"]) <= summary["cost_usd"]  # the plan costs less
        assert cap <= summary["cost_usd"] + summary["uncertain_cost_usd"]
        assert (summary["status"], summary["failed"], summary["blocked"]) == ("incomplete", 0, 0)
        assert harness.recount(directory) == []
        # As it stands, it buys nothing more.
        again = harness.run("resume", str(directory), api=api, code=4)
        assert "raise --max-cost" in again
        assert _answers(api) == spent
        assert "failed" not in {move["state"] for move in harness.moves(directory)}
        done = harness.run("resume", str(directory), "--max-cost", "1000", api=api)
        assert WARNED not in done
        assert f"max_cost_usd: {cap} -> 1000.0" in done
        # Only what was in flight at a kill can have been answered to nobody.
        assert len(api.answered_twice()) <= harness.summary(directory)["open_calls"] <= 2 * EXECUTORS
    found = harness.summary(directory)
    assert (found["status"], found["completed"], found["bought_again"]) == ("done", TASKS, 0)
