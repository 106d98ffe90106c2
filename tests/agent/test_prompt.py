from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from parallel_orchestrator.agent.fix_prompt import fix_text
from parallel_orchestrator.agent.prompt import (
    CLAUDE_CODE_SYSTEM,
    SYSTEM,
    Rejection,
    build_request,
    opening,
    send_back_text,
)
from parallel_orchestrator.agent.transcript import Transcript
from parallel_orchestrator.records.fix import FixTask, fix_task
from parallel_orchestrator.records.journals.red_whole import FailedCommand, RedWhole
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.records.scenario import Profile
from tests.fake_api_rules import refusal
from tests.records.plans import task


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


SENT_BACK = {
    Rejection.CONFLICT: """\
Your work is not merged yet. It conflicts with work that other engineers merged after you started.

CONFLICT (content): Merge conflict in src/a.py

The workspace now contains your work merged with theirs. Where both changed the same lines, the file contains both \
versions between conflict markers: the trunk's after <<<<<<<, yours before >>>>>>>. Combine them so that both changes \
work, and delete the markers. Then run the tests and finish with a short report, as before.""",
    Rejection.RED: """\
Your work is not merged yet. The orchestrator merged it with the work of the other engineers and ran all tests. \
The result cannot be accepted.

tests/test_a.py::test_sum failed:
assert 3 == 4

Passing tests with your work: 1; without it: 2. No passing test may be lost.

The workspace now contains your work merged with theirs. Fix every point above. Then run the tests and finish with a \
short report, as before.""",
    Rejection.STILL_RED: """\
Your work is not merged yet. The orchestrator ran all tests and verify commands on it. The whole is still red.

`make check` ended with exit code 2.

The workspace is as you left it. Fix every point above. Then run the tests and the commands and finish with a short \
report, as before.""",
    Rejection.REFUSED: """\
Your work is not merged yet. The orchestrator checked your files before the merge and cannot accept them.

src/a.py:3: invalid syntax. Fix it.

The workspace is as you left it. Fix every point above. Then run the tests and finish with a short report, as \
before.""",
}


@pytest.mark.parametrize(
    ("why", "facts"),
    [
        (Rejection.CONFLICT, ["CONFLICT (content): Merge conflict in src/a.py"]),
        (
            Rejection.RED,
            [
                "tests/test_a.py::test_sum failed:\nassert 3 == 4",
                "Passing tests with your work: 1; without it: 2. No passing test may be lost.",
            ],
        ),
        (Rejection.STILL_RED, ["`make check` ended with exit code 2."]),
        (Rejection.REFUSED, ["src/a.py:3: invalid syntax. Fix it."]),
    ],
)
def test_what_is_sent_back_reads_as_english(why: Rejection, facts: list[str]) -> None:
    assert send_back_text(why, facts) == SENT_BACK[why]


FAILED = [
    FailedCommand(command="python check.py", code=2, output="can't open 'check.py'\n```\nx\n```", correctable=True),
    FailedCommand(command="make check", code=1, output="", timed_out=True),
]


def test_a_fix_task_reads_what_is_red_and_what_it_may_do(plan: Plan) -> None:
    red = RedWhole(tests=["tests/test_a.py::test_sum failed:\nassert 3 == 4"], verify=FAILED)
    told = fix_text(fix_task("fix_2", red, plan))
    assert told.startswith("# Your task: fix_2, Correct the whole")
    assert "````text\ncan't open 'check.py'\n```\nx\n```\n````" in told, "the fence is longer than any in it"
    assert "assert 3 == 4" in told
    assert "It did not end in time. It printed nothing." in told
    assert '[{"command": "python check.py", "replacement": "…", "reason": "…"}]' in told
    assert "- make check" not in told, "only a command that cannot work may be corrected"


FIX_TEXT = fix_text(FixTask(**task(1).model_dump(), red=RedWhole(verify=FAILED)))


@pytest.mark.parametrize("text", [SYSTEM, CLAUDE_CODE_SYSTEM, FIX_TEXT, *SENT_BACK.values()])
def test_no_text_to_a_model_uses_words_of_our_own(text: str) -> None:
    own = r"\b(mend\w*|told|whoever|anew|beside|nobody|somebody|everybody|go on|so many|is none|has to|have to)\b"
    assert re.findall(own, text, re.IGNORECASE) == []
