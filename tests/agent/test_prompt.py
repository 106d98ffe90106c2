from __future__ import annotations

import json
from pathlib import Path

import pytest

from parallel_orchestrator.agent.prompt import build_request, opening
from parallel_orchestrator.agent.transcript import Transcript
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.records.scenario import Profile
from tests.fake_api_rules import refusal


def first_request(plan: Plan, task: str, profile: Profile, path: Path) -> dict[str, object]:
    transcript = Transcript(path)
    start = opening(requirement="Build it", plan=plan, task=plan.task(task), model="m", profile=profile)
    transcript.begin(start, base="c0ffee", run="r1", task_id=task, attempt=1)
    transcript.close()
    return build_request(transcript.conversation)


@pytest.mark.parametrize("profile", ["anthropic", "compatible"])
def test_the_front_is_the_same_for_all_tasks(plan: Plan, profile: Profile, tmp_path: Path) -> None:
    one = first_request(plan, "task_1", profile, tmp_path / "1")
    two = first_request(plan, "task_2", profile, tmp_path / "2")
    front = ["model", "max_tokens", "system", "tools"]
    assert [json.dumps(one[key]) for key in front] == [json.dumps(two[key]) for key in front]
    assert one["messages"] != two["messages"]


def test_anthropic_profile_caches_the_front_and_the_end(plan: Plan, tmp_path: Path) -> None:
    request = first_request(plan, "task_1", "anthropic", tmp_path / "t")
    told = json.dumps(request)
    assert told.count("cache_control") == 2
    assert request["system"][-1]["cache_control"] == {"type": "ephemeral"}  # type: ignore[index]
    assert [tool["type"] for tool in request["tools"]] == ["text_editor_20250728", "bash_20250124"]  # type: ignore[attr-defined]


def test_compatible_profile_has_plain_tools_and_no_extensions(plan: Plan, tmp_path: Path) -> None:
    request = first_request(plan, "task_1", "compatible", tmp_path / "t")
    assert "cache_control" not in json.dumps(request)
    assert set(request) == {"model", "max_tokens", "system", "tools", "messages"}
    assert all(set(tool) == {"name", "description", "input_schema"} for tool in request["tools"])  # type: ignore[attr-defined]


def test_the_task_is_told_with_all_that_it_needs(plan: Plan, tmp_path: Path) -> None:
    told = json.dumps(first_request(plan, "task_2", "anthropic", tmp_path / "t"))
    for fact in ("Build it", "add(a, b) adds", "be careful", "build task_2", "tests/test_task_2.py", "task_2 works"):
        assert fact in told
    assert "- task_1: the task_1" in told
    for secret in ("c0ffee", "executor_", "claim", str(tmp_path)):
        assert secret not in told


@pytest.mark.parametrize("profile", ["anthropic", "compatible"])
def test_the_api_would_take_it(plan: Plan, profile: Profile, tmp_path: Path) -> None:
    assert refusal(first_request(plan, "task_1", profile, tmp_path / "t"), None) is None
