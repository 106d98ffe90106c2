"""Which fields make a run what it is."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from parallel_orchestrator.records.scenario import IDENTITY, Scenario, identity_difference

SCENARIO = Scenario(run="r", requirements="Build it", endpoint="http://x")
CHANGED: dict[str, Any] = {
    "requirements": "Build another",
    "plan_sha256": "ab",
    "planner_model": "m",
    "executor_model": "m",
    "planner_backend": "claude-code",
    "backend": "claude-code",
    "claude_settings": "host",
    "endpoint": "http://y",
    "planner_instructions": "be brief",
    "verify": ["make test"],
}


@pytest.mark.parametrize("name", IDENTITY)
def test_a_run_is_another_when_a_field_of_its_identity_differs(name: str) -> None:
    assert identity_difference(SCENARIO, {**SCENARIO.model_dump(), name: CHANGED[name]}) == name


def test_caps_limits_and_the_runs_id_are_no_identity() -> None:
    other = {"run": "s", "max_cost_usd": 1.0, "max_executors": 9, "speed": 2.0, "sandbox": "off", "max_turns": 1}
    assert identity_difference(SCENARIO, {**SCENARIO.model_dump(), **other}) is None


@pytest.mark.parametrize(
    "bad",
    [
        {"requirements": ""},
        {"max_executors": 0},
        {"speed": 0},
        {"max_cost_usd": -1},
        {"sandbox": "maybe"},
        {"version": 2},
        {"api_key": "sk-ant-x"},
    ],
)
def test_a_scenario_has_no_other_fields_and_no_senseless_values(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Scenario(**{**SCENARIO.model_dump(), **bad})


def test_a_resume_may_change_models_and_a_live_endpoint() -> None:
    changed = {"planner_model": "m", "executor_model": "m", "endpoint": "http://y"}
    assert identity_difference(SCENARIO, {**SCENARIO.model_dump(), **changed}, resumed=True) is None
    replayed = {**SCENARIO.model_dump(), "endpoint": "recording:a:b", "replay": "a"}
    assert identity_difference(SCENARIO, replayed, resumed=True) == "endpoint"


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("8h", 28800), ("1h30m", 5400), (5, 5)])
def test_a_patience_is_a_duration(text: str | int, seconds: float) -> None:
    fields = SCENARIO.model_dump(exclude={"endpoint_patience"})
    assert Scenario(**{**fields, "endpoint_patience": text}).endpoint_patience == seconds
    assert Scenario(**{**fields, "endpoint_patience_s": seconds}).endpoint_patience == seconds  # as it was called once
