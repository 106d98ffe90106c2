"""A transcript is put together again across a new conversation, with no answer bought twice."""

from __future__ import annotations

from typing import Any

from parallel_orchestrator.agent.transcript import fold
from parallel_orchestrator.maintenance.transcript import LOST_FACTS, Mending
from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.store.journal import Record

TASK = [{"type": "text", "text": "do it"}]
START: Record = {
    "seq": 1,
    "kind": "start",
    "task": TASK,
    "tools": [{"name": "bash"}],
    "base": "base1",
    "run": "r",
    "task_id": "task_1",
    "attempt": 1,
}


def _answer(turn: int, phase: str, phase_turn: int, stop_reason: str, *content: dict[str, Any]) -> Record:
    message = {"id": "m", "type": "message", "content": list(content), "stop_reason": stop_reason, "usage": {}}
    where = {"turn": turn, "phase": phase, "phase_turn": phase_turn}
    more = {"stop_reason": stop_reason, "usage": {}, "endpoint_s": 1.0, "events": sse.stream_of(message)}
    return {"kind": "answer", **where, **more}


def _call(arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": arguments}


ANSWERS = {
    1: _answer(1, "work", 1, "tool_use", _call("no JSON")),
    2: _answer(2, "work", 2, "model_context_window_exceeded", {"type": "text", "text": "and"}),
    3: _answer(3, "restart 1", 1, "end_turn", {"type": "text", "text": "done"}),
}


def _mended(*left: Record) -> Mending:
    mending = Mending(ANSWERS, lambda tree: "base2")
    mending.take([START, *left], None)
    return mending


def test_a_lost_restart_is_made_again_and_the_model_learns_that_the_facts_are_lost() -> None:
    mending = _mended()
    now = mending.conversation
    assert [record["kind"] for record in mending.records] == [
        "start",
        "answer",
        "results",
        "answer",
        "restart",
        "answer",
    ]
    assert (now.turns, now.phase, now.restarts, now.base) == (3, "restart 1", 1, "base2")
    assert now.messages[0]["content"] == [*TASK, {"type": "text", "text": LOST_FACTS}]
    assert "have to be a JSON object" in mending.records[1]["faults"]["toolu_1"]
    assert fold(mending.records) == now


def test_what_is_left_of_a_restart_is_kept() -> None:
    restart = {"seq": 2, "kind": "restart", "round": 1, "text": "it was too long", "base": "base3", "tree": "t"}
    now = _mended(restart).conversation
    assert (now.turns, now.base, now.earlier_turns) == (3, "base3", 2)
    assert now.messages[0]["content"] == [*TASK, {"type": "text", "text": "it was too long"}]


def test_the_end_of_a_stopped_conversation_comes_after_its_answers() -> None:
    stopped = {"seq": 2, "kind": "stopped", "reason": "too long", "restartable": True}
    kinds = [record["kind"] for record in _mended(stopped).records]
    assert kinds == ["start", "answer", "results", "answer", "stopped", "restart", "answer"]
