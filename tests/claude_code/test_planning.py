"""The planner with the real Claude Code: over a real gateway, on a fake API."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.agent.model_client import ModelClient
from parallel_orchestrator.claude_code.binary import find
from parallel_orchestrator.claude_code.planning import ClaudeCodePlanning
from parallel_orchestrator.claude_code.session import ClaudeCodeSession, SessionSettings
from parallel_orchestrator.records.errors import PlanRefused
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.sandbox.runner import detect
from planner_agent import CLAUDE_CODE_PROMPT, PLAN_SCHEMA, PlannerAgent
from tests.end_to_end.scripted import plan, task
from tests.fake_api import Answer, Block, Body, FakeApi, text, tool_use
from tests.gateway.support import MODEL, Setup, gateway

REQUIREMENT = "Build a project of two parts"
GOOD = plan([task(1, []), task(2, [1])])
CYCLE = plan([task(1, [2]), task(2, [1])])


def _structured(value: Any) -> Answer:
    return Answer([tool_use("toolu_plan", "StructuredOutput", **value)], "tool_use")


class Bench:
    """A planner whose model gives these answers, one after the other."""

    def __init__(self, api: FakeApi, setup: Setup, folder: Path) -> None:
        self.api, self.setup, self.folder = api, setup, folder
        self.notes: list[str] = []

    def answers(self, *answers: Answer) -> None:
        def script(body: Body) -> Answer | list[Block]:
            turn: int = sum(message["role"] == "assistant" for message in body["messages"])
            return answers[min(turn, len(answers) - 1)]

        self.api.script = script
        self.setup.open()

    def plan(self, **fields: Any) -> dict[str, Any]:
        client = ModelClient(self.setup.process.config.socket, self.setup.token("plan"))
        settings = SessionSettings(MODEL, uuid.UUID(int=7, version=4), "", CLAUDE_CODE_PROMPT, 6, schema=PLAN_SCHEMA)
        state = self.folder / "p"
        session = ClaudeCodeSession(detect("required"), find(), state / "workspace", state, settings)
        scenario = Scenario(run="run1", requirements=REQUIREMENT, endpoint=self.api.url, **fields)
        planning: Callable[[], ClaudeCodePlanning] = lambda: ClaudeCodePlanning(  # noqa: E731 - as the planner takes it
            session, client, scenario.endpoint_profile
        )
        try:
            return PlannerAgent(client, scenario, self.notes.append, planning).create_plan(REQUIREMENT).model_dump()
        finally:
            client.close()

    def last_words(self, number: int) -> str:
        """What the model was told last in that request."""
        return json.dumps(self.api.requests[number].body["messages"][-1])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with FakeApi() as api, gateway(tmp_path, api) as setup:
        yield Bench(api, setup, tmp_path)


def test_a_good_plan_costs_one_call_and_leaves_nothing_behind(bench: Bench) -> None:
    bench.answers(_structured(GOOD))
    assert bench.plan() == GOOD
    (request,) = bench.api.requests
    assert REQUIREMENT in bench.last_words(0)
    assert "one owner" in json.dumps(request.body["system"])
    assert request.body["tools"][0]["input_schema"]["required"]
    assert not (bench.folder / "p").exists()


def test_words_that_are_the_plan_are_taken_as_such(bench: Bench) -> None:
    bench.answers(Answer([text(json.dumps(GOOD))]))
    assert bench.plan(endpoint_profile="compatible") == GOOD
    (request,) = bench.api.requests
    assert request.body.keys() == {"model", "max_tokens", "system", "tools", "messages", "stream"}


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (_structured(CYCLE), "cycl"),  # of the right shape, so its process has ended: `--resume`
        (Answer([text("I would rather talk.")]), "answer"),  # it asks again by itself
        # Its own schema refuses it.
        pytest.param(_structured({"tasks": "none"}), "tasks", marks=pytest.mark.thorough),
        pytest.param(Answer([text("{")], "max_tokens"), "cut off", marks=pytest.mark.thorough),
    ],
)
def test_an_unusable_plan_is_asked_again_with_its_faults_and_once_after_a_restart(
    first: Answer, told: str, bench: Bench
) -> None:
    bench.answers(first, _structured(GOOD))
    if first.stop_reason == "max_tokens":  # it is not shown a cut answer, so its conversation does not grow
        bench.api.script = lambda body: _structured(GOOD) if "cannot be used" in json.dumps(body) else first
    assert bench.plan() == GOOD
    assert len(bench.api.requests) == 2
    assert "This plan cannot be used" in bench.last_words(1)
    assert told in bench.last_words(1).lower()
    assert len(bench.notes) == 1
    # Begun again, as after a kill: every answer comes from the ledger, for the same bytes.
    assert bench.plan() == GOOD
    assert len(bench.api.requests) == 2


def test_three_unusable_plans_are_the_end(bench: Bench) -> None:
    bench.answers(_structured(CYCLE))
    with pytest.raises(PlanRefused, match="after 3 answers"):
        bench.plan()
    assert len(bench.api.requests) == 3


def test_a_refusal_is_the_end_at_once(bench: Bench) -> None:
    bench.answers(Answer([text("No.")], "refusal"))
    with pytest.raises(PlanRefused, match="refuses"):
        bench.plan()
    assert len(bench.api.requests) == 1
