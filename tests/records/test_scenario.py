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
