"""What is taken from Claude Code's requests, and what of it goes on to the model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.messages_api.claude_code_wire import (
    answer_stream,
    opening_of,
    request_of,
    results_in,
    steady,
)
from parallel_orchestrator.messages_api.tool_calls import ToolCall
from tests.fake_api import Block, text, tool_use

CACHED = {"cache_control": {"type": "ephemeral"}}


def _body(day: str = "2026-01-02") -> dict[str, Any]:
    """A first request, of the shape that the program sends."""
    around = f"# Environment\nplatform\n\nToday's date is {day}."
    return {
        "model": "m",
        "max_tokens": 32000,
        "stream": True,
        "metadata": {"user_id": day},
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": []},
        "system": [{**text("You are Claude Code"), **CACHED}, {**text("more"), **CACHED}],
        "tools": [{"name": "Write"}, {"name": "Placeholder", "defer_loading": True}],
        "messages": [{"role": "user", "content": "do it"}, {"role": "system", "content": [{**text(around), **CACHED}]}],
    }


def test_anthropics_endpoint_is_sent_what_the_program_sends() -> None:
    start = opening_of(_body(), "beta-1,beta-2", "anthropic")
    request = request_of(start, start.model, [{"role": "user", "content": start.task}])
    body = _body()
    for name in ("model", "max_tokens", "thinking", "context_management", "tools"):
        assert request[name] == body[name]
    assert start.betas == "beta-1,beta-2"
    assert "metadata" not in request
    assert "stream" not in request
    (message,) = request["messages"]
    assert message["content"][0] == text("do it")
    assert message["content"][1]["text"].startswith("<system-reminder>\n# Environment")
    assert json.dumps(request).count("ephemeral") == 2  # at the end of what all share, and at the end


def test_other_endpoints_are_sent_what_every_messages_api_knows() -> None:
    start = opening_of(_body(), "beta-1", "compatible")
    request = request_of(start, start.model, [{"role": "user", "content": start.task}], cuts=2)
    assert request.keys() == {"model", "max_tokens", "system", "tools", "messages"}
    assert (request["max_tokens"], request["tools"], start.betas) == (128000, [{"name": "Write"}], "")
    assert "cache_control" not in json.dumps(request)


def test_another_day_makes_no_other_plan_request() -> None:
    assert steady(_body("2026-01-02")["messages"]) == steady(_body("2027-12-31")["messages"])
    assert [message["role"] for message in steady(_body()["messages"])] == ["user"]


CALLS = [ToolCall("a", "Bash", {}), ToolCall("b", "Write", {})]


def _results(*results: Block) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": [*results, text("reminder")]}]}


def test_results_are_found_by_their_calls_and_in_their_order() -> None:
    told = _results(
        {"type": "tool_result", "tool_use_id": "b", "content": [text("written"), {"type": "image", "source": {}}]},
        {"type": "tool_result", "tool_use_id": "a", "content": "Exit code 1\nred", "is_error": True},
    )
    found = results_in(told, CALLS)
    assert found is not None
    assert [(result.content, result.is_error) for result in found] == [
        ("Exit code 1\nred", False),  # a red test is news, and no failed call
        ("written\n[image: not shown]", False),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": []},
        {"messages": [{"role": "user", "content": "hello"}]},
        _results({"type": "tool_result", "tool_use_id": "a", "content": "half"}),
    ],
)
def test_another_request_brings_no_results(body: dict[str, Any]) -> None:
    assert results_in(body, CALLS) is None


def test_an_answer_is_a_stream_of_what_can_be_acted_on() -> None:
    content = [{"type": "thinking", "thinking": "hm", "signature": "s"}, text("so"), tool_use("t", "Bash", command="ü")]
    message = sse.assemble(sse.parse(answer_stream("m", content, {"output_tokens": 3, "input_tokens": None})))
    assert (message["content"], message["stop_reason"]) == (content[1:], "tool_use")
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (0, 3)
