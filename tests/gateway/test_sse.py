from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_orchestrator.messages_api import sse
from tests.fake_api import events_of

texts = st.text(st.characters(exclude_categories=["Cs"]))
blocks = st.one_of(
    st.builds(lambda t: {"type": "text", "text": t}, texts),
    st.builds(lambda t: {"type": "thinking", "thinking": t, "signature": "c2ln"}, texts),
    st.builds(
        lambda i: {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": i},
        st.dictionaries(texts, st.one_of(texts, st.integers(), st.none(), st.lists(texts))),
    ),
)


def message(content: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": content,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 5},
    }


@given(st.lists(blocks))
def test_a_message_survives_being_streamed_and_put_together(content: list[dict[str, Any]]) -> None:
    assert sse.assemble(sse.parse(sse.stream_of(message(content)))) == message(content)
    assert sse.assemble(events_of(message(content))) == message(content)


@given(st.lists(blocks, max_size=3), st.lists(st.integers(1, 40), min_size=1))
def test_events_are_the_same_however_the_bytes_are_cut(content: list[dict[str, Any]], sizes: list[int]) -> None:
    events = events_of(message(content))
    data = "".join(f"event: x\r\ndata: {json.dumps(e, ensure_ascii=False)}\r\n\r\n" for e in events).encode()
    reader, found, start, turn = sse.EventReader(), [], 0, 0
    while start < len(data):
        size = sizes[turn % len(sizes)]
        found += reader.feed(data[start : start + size])
        start, turn = start + size, turn + 1
    assert found == events
    assert reader.verbatim().rstrip("\r\n") == data.decode().rstrip("\r\n")


@pytest.mark.parametrize("line", [b"data: {", b"data: []", b"data: 3", b"data: [DONE]", b"data: " + b"[" * 100_000])
def test_a_line_that_is_no_event_is_told(line: bytes) -> None:
    with pytest.raises(sse.BadEvent):
        sse.EventReader().feed(line + b"\n")


def test_comments_and_other_fields_are_skipped() -> None:
    assert sse.parse(': hello\nid: 3\nretry: 5\nevent: ping\ndata: {"type":"ping"}\n\n') == [{"type": "ping"}]


def test_later_usage_replaces_earlier_unless_null() -> None:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"input_tokens": None, "output_tokens": 7},
        },
    ]
    assert sse.assemble(events)["usage"] == {"input_tokens": 10, "output_tokens": 7}
    assert sse.assemble([{**events[0], "message": {"usage": None}}, {**events[1], "usage": None}])["usage"] == {}


DEEP = '{"a":' + "[" * 300 + "]" * 300 + "}"


@pytest.mark.parametrize(
    ("told", "stop_reason", "inputs"),
    [
        ('{"command": "x', "max_tokens", [{}]),
        ('{"command": "x', "refusal", [{}]),
        ("", "tool_use", [{}]),
        ("{'command': ls}", "tool_use", ["{'command': ls}"]),
        ("[1]", "tool_use", [[1]]),
        ("null", "tool_use", [None]),
        ('"ls"', "tool_use", ["ls"]),
        (json.dumps('{"command": "ls"}'), "tool_use", [{"command": "ls"}]),
        ("[" * 100_000, "tool_use", ["[" * 100_000]),
        (DEEP, "tool_use", [DEEP]),
        ('{"seconds": 1e400}', "tool_use", ['{"seconds": 1e400}']),
        ('{"seconds": NaN}', "tool_use", ['{"seconds": NaN}']),
        ('{"command": "\\ud800"}', "tool_use", ['{"command": "\\ud800"}']),
        ("{'command': ls}", "end_turn", ["{'command': ls}"]),
    ],
    ids=[
        *(
            "cut",
            "refused",
            "none",
            "no JSON",
            "no object",
            "null",
            "a string",
            "an object in a string",
            "far too deep",
            "too deep",
        ),
        *("no float", "no number", "no text", "no JSON at another end"),
    ],
)
def test_a_tool_input_that_is_no_object(told: str, stop_reason: str, inputs: list[Any]) -> None:
    call = {"type": "tool_use", "id": "t", "name": "bash", "input": {"command": "ls"}}
    events = sse.parse(sse.stream_of({**message([call]), "stop_reason": stop_reason}))
    events[2]["delta"]["partial_json"] = told
    found = sse.assemble(events)
    assert [block["input"] for block in found["content"]] == inputs
    assert sse.assemble(sse.parse(sse.stream_of(found))) == found  # as a recording of it says it again


def test_a_tool_input_that_comes_with_the_block_stays() -> None:
    call = {"type": "tool_use", "id": "t", "name": "bash", "input": {"command": "ls"}, "caller": None}
    events = sse.parse(sse.stream_of({**message([call]), "stop_reason": "tool_use"}))
    events[1]["content_block"]["input"] = call["input"]
    events[2]["delta"]["partial_json"] = ""
    (block,) = sse.assemble(events)["content"]
    assert block == {"type": "tool_use", "id": "t", "name": "bash", "input": {"command": "ls"}}


def test_the_output_tokens_of_the_first_event_are_none_of_the_answers() -> None:
    events = events_of(message([{"type": "text", "text": "hi"}]))
    ended = [{name: value for name, value in event.items() if name != "usage"} for event in events]
    assert sse.assemble(ended)["usage"] == {"input_tokens": 3}
    assert sse.assemble(events)["usage"] == {"input_tokens": 3, "output_tokens": 5}
