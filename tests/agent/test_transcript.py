from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.agent.model_client import Answer
from parallel_orchestrator.agent.transcript import GO_ON, Transcript, read
from parallel_orchestrator.messages_api.tool_calls import ToolResult
from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.records.journals.transcript import Opening

OPENING = Opening(model="m", profile="anthropic", system=[], tools=[], task=[{"type": "text", "text": "do it"}])


def begun(path: Path) -> Transcript:
    transcript = Transcript(path)
    transcript.begin(OPENING, base="base0", run="r1", task_id="task_1", attempt=1)
    return transcript


def answered(transcript: Transcript, *content: dict[str, Any], stop: str = "tool_use", discarded: bool = False) -> None:
    transcript.answer(Answer(list(content), stop, {}, "m", 2.5, 9.0), list(content), discarded=discarded)


def call(tool_id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": tool_id, "name": "bash", "input": {"command": "ls"}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_a_whole_conversation(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    transcript = begun(path)
    answered(transcript, text("first"), call("a"), call("b"))
    assert [c.id for c in transcript.conversation.calls] == ["a", "b"]
    transcript.tree("tree1")
    transcript.results([ToolResult("one"), ToolResult("two", is_error=True)], 1.5)
    answered(transcript, text("report"), stop="end_turn")
    now = transcript.conversation
    assert now.messages == [
        {"role": "user", "content": OPENING.task},
        {"role": "assistant", "content": [text("first"), call("a"), call("b")]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "one", "is_error": False},
                {"type": "tool_result", "tool_use_id": "b", "content": "two", "is_error": True},
            ],
        },
        {"role": "assistant", "content": [text("report")]},
    ]
    assert (now.turns, now.phase, now.phase_turn, now.seconds, now.base) == (2, "work", 3, 6.5, "base0")
    assert (now.calls, now.stop_reason, now.text) == ((), "end_turn", "report")
    transcript.close()
    assert read(path) == now


def test_every_state_on_the_way_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    transcript = begun(path)
    steps: list[Callable[[], None]] = [
        lambda: answered(transcript, call("a")),
        lambda: transcript.tree("tree1"),
        lambda: transcript.results([ToolResult("x")], 1),
        lambda: answered(transcript, text("cut"), stop="max_tokens"),
        lambda: answered(transcript, stop="max_tokens", discarded=True),
        lambda: answered(transcript, stop="end_turn", discarded=True),
        lambda: answered(transcript, text("done"), stop="end_turn"),
        lambda: transcript.outcome("submitted"),
        lambda: transcript.repair("tests are red", base="base1", tree="tree2"),
    ]
    for step in steps:
        before = copy.deepcopy(transcript.conversation.messages)
        step()
        assert read(path) == transcript.conversation
        # What was sent once is never changed but by adding to it: the prompt cache and the ledger rely on that.
        flat = [(m["role"], block) for m in transcript.conversation.messages for block in m["content"]]
        assert flat[: sum(len(m["content"]) for m in before)] == [(m["role"], b) for m in before for b in m["content"]]
    transcript.close()


def test_pending_tools_and_their_tree(tmp_path: Path) -> None:
    transcript = begun(tmp_path / "t")
    answered(transcript, call("a"))
    assert transcript.conversation.tree is None
    transcript.tree("tree1")
    assert read(tmp_path / "t").tree == "tree1"
    transcript.results([ToolResult("x")], 0)
    assert read(tmp_path / "t").tree is None
    transcript.close()


def test_repair_begins_a_phase(tmp_path: Path) -> None:
    transcript = begun(tmp_path / "t")
    answered(transcript, text("done"), stop="end_turn")
    transcript.outcome("submitted")
    transcript.repair("red", base="base1", tree="tree7")
    now = transcript.conversation
    assert (now.phase, now.phase_turn, now.turns, now.repair_rounds) == ("repair 1", 1, 1, 1)
    assert (now.base, now.tree, now.stop_reason, now.outcome) == ("base1", "tree7", None, None)
    assert now.messages[-1] == {"role": "user", "content": [text("red")]}
    answered(transcript, text("again"), stop="end_turn")
    transcript.repair("still red", base="base2", tree="tree8")
    assert (now.phase, now.repair_rounds, now.turns) == ("repair 2", 2, 2)
    transcript.close()


def test_two_user_messages_in_a_row_are_one(tmp_path: Path) -> None:
    transcript = begun(tmp_path / "t")
    answered(transcript, text("half"), stop="max_tokens")
    transcript.repair("red", base="b", tree="t")
    assert transcript.conversation.messages[-1]["content"] == [text(GO_ON), text("red")]
    assert OPENING.task == [text("do it")]
    transcript.close()


def test_discarded_answers_are_counted_and_not_sent(tmp_path: Path) -> None:
    transcript = begun(tmp_path / "t")
    answered(transcript, call("a"), stop="max_tokens", discarded=True)
    answered(transcript, stop="end_turn", discarded=True)
    now = transcript.conversation
    assert (now.turns, now.phase_turn, len(now.messages), now.calls) == (2, 3, 1, ())
    assert (now.cuts, now.discarded_cuts, now.empties) == (0, 0, 1)
    transcript.close()


def test_outcome_is_kept(tmp_path: Path) -> None:
    transcript = begun(tmp_path / "t")
    transcript.outcome("failed", "no reason")
    outcome = read(tmp_path / "t").outcome
    assert outcome
    assert outcome.reason == "no reason"
    with pytest.raises(ValueError, match="not an outcome"):
        transcript.outcome("results")
    transcript.close()


def test_torn_tail_is_cut_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "t"
    transcript = begun(path)
    answered(transcript, text("größe"), stop="end_turn")
    transcript.close()
    data = path.read_bytes()
    first = data.index(b"\n") + 1
    for end in range(first, len(data)):
        path.write_bytes(data[:end])
        again = Transcript(path)
        assert (again.conversation.turns, again.torn_bytes) == (0, end - first)
        again.answer(Answer([text("new")], "end_turn", {}, "m", 1, 0), [text("new")], discarded=False)
        again.close()
        assert read(path).text == "new"


def test_a_torn_first_record_makes_a_new_transcript(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b'{"seq":1,"kind":"st')
    transcript = Transcript(tmp_path / "t")
    assert transcript.is_new
    transcript.begin(OPENING, base="b", run="r", task_id="task_1", attempt=1)
    assert not transcript.is_new
    transcript.close()


def test_another_journal_is_refused(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "t")
    transcript.outcome("failed")
    transcript.close()
    with pytest.raises(DamagedState, match="start record"):
        Transcript(tmp_path / "t")
