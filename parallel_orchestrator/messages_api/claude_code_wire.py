"""What Claude Code says to the Messages API, and what it is answered, apart from how it gets there.

Its first request shows its tools, its system prompt and its first message: these open the conversation and are
kept, so whatever a later start of the program would say differently (another date, another kernel, another
version of itself) does not reach the model. Of each later request only the tool results count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from parallel_orchestrator.messages_api.tool_calls import ToolCall, ToolResult
from parallel_orchestrator.records.scenario import Profile
from parallel_orchestrator.records.usage import token_count
from parallel_orchestrator.system import redact

Json = dict[str, Any]

_CACHED = {"type": "ephemeral"}
_OWN_FIELDS = frozenset({"model", "max_tokens", "system", "tools", "messages", "stream", "metadata"})
"""Fields of a request that have a place of their own, or, metadata, vary and name nobody here."""
_COUNTED = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_DATE = re.compile(r"(?<!\n)\n*Today's date is \d{4}-\d\d-\d\d\.")
_DEFERRED = "defer_loading"


def opening_of(body: Json, betas: str, profile: Profile) -> Json:
    """What a conversation starts with, from the program's first request; for `Transcript.begin`.

    Another endpoint than Anthropic's gets what every Messages API understands: no beta fields, no system
    messages between the others.
    """
    ours = profile == "anthropic"
    more = {name: value for name, value in body.items() if name not in _OWN_FIELDS} if ours else {}
    return {
        "model": body["model"],
        "profile": profile,
        "tools": [tool for tool in body.get("tools", ()) if ours or _DEFERRED not in tool],
        "system": [_plain(block) for block in _blocks(body.get("system", ()))],
        "task": list(folded(body["messages"])),
        "request": {"max_tokens": body["max_tokens"], **more},
        "betas": betas if ours else "",
    }


def request_of(start: Mapping[str, Any], messages: Sequence[Mapping[str, Any]], cuts: int = 0) -> Json:
    """A whole request: the fields of the opening, these messages, and cache breakpoints where the program sets them.

    `cuts`: answers that did not fit and were thrown away; each doubles the room.
    """
    cached = start["profile"] == "anthropic"
    request = {
        "model": start["model"],
        **start["request"],
        "system": _with_breakpoint(start["system"]) if cached else start["system"],
        "tools": start["tools"],
        "messages": list(messages),
    }
    request["max_tokens"] *= 2**cuts
    if cached and messages:
        last = messages[-1]
        request["messages"][-1] = {**last, "content": _with_breakpoint(last["content"])}
    return request


def folded(messages: Iterable[Mapping[str, Any]]) -> Iterator[Json]:
    """The blocks of messages before any answer, as one user message: what the system says in between is marked."""
    for message in messages:
        for block in _blocks(message["content"]):
            plain = _plain(block)
            if message["role"] == "system":
                plain = {"type": "text", "text": f"<system-reminder>\n{plain['text']}\n</system-reminder>"}
            yield plain


def steady(messages: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Messages without what a start on another day would change, system messages folded into the user's."""
    joined: list[Json] = []
    for message in messages:
        blocks = [{**b, "text": _DATE.sub("", b["text"])} if b["type"] == "text" else b for b in folded([message])]
        role = "user" if message["role"] == "system" else message["role"]
        if joined and joined[-1]["role"] == role:
            joined[-1]["content"] += blocks
        else:
            joined.append({"role": role, "content": blocks})
    return joined


def results_in(body: Json, calls: Sequence[ToolCall]) -> list[ToolResult] | None:
    """The results of these calls, when the request brings all of them; None when it is another request."""
    last = body["messages"][-1] if body.get("messages") else {}
    found = {
        str(block.get("tool_use_id")): block
        for message in body.get("messages", ())[-2:]
        for block in _blocks(message.get("content", ()))
        if block.get("type") == "tool_result"
    }
    if not last or any(call.id not in found for call in calls):
        return None
    return [_result(found[call.id]) for call in calls]


def answer_stream(name: str, model: str, content: Sequence[Mapping[str, Any]], usage: Mapping[str, Any]) -> str:
    """The SSE text of an answer with this content: text and tool calls, which is all that the program acts on."""
    shown = [block for block in content if block["type"] in ("text", "tool_use")]
    stop_reason = "tool_use" if any(block["type"] == "tool_use" for block in shown) else "end_turn"
    counted = {figure: token_count(usage.get(figure)) or 0 for figure in _COUNTED}
    message: Json = {"id": name, "type": "message", "role": "assistant", "model": model, "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": {**counted, "output_tokens": 0}}
    events: list[Json] = [{"type": "message_start", "message": message}]
    for index, block in enumerate(shown):
        text = block["type"] == "text"
        empty = {**block, "text": ""} if text else {**block, "input": {}}
        arguments = None if text else json.dumps(_object(block.get("input")))
        delta = {"type": "text_delta", "text": block["text"]} if text else {"type": "input_json_delta"}
        delta |= {} if text else {"partial_json": arguments}
        events += [
            {"type": "content_block_start", "index": index, "content_block": empty},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    ending = {"stop_reason": stop_reason, "stop_sequence": None}
    events += [{"type": "message_delta", "delta": ending, "usage": counted}, {"type": "message_stop"}]
    return "".join(event_text(event) for event in events)


def event_text(event: Mapping[str, Any]) -> str:
    """One event as it goes over the wire."""
    return f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n"


def _result(block: Mapping[str, Any]) -> ToolResult:
    parts = [_said(part) for part in _blocks(block.get("content") or ())]
    shown = redact.foreign("\n".join(parts)).encode(errors="replace").decode()
    # A command that ends with another code than 0 is no failed call: a red test run, say, is news.
    failed = bool(block.get("is_error")) and not shown.startswith("Exit code ")
    return ToolResult(shown or "(no output)", failed)


def _said(part: Mapping[str, Any]) -> str:
    """A part of a result as text; the transcript holds no pictures."""
    return str(part.get("text", "")) if part.get("type") == "text" else f"[{part.get('type')}: not shown]"


def _blocks(content: Any) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _object(arguments: Any) -> Json:
    """The arguments of a call; empty unless they are an object, as the program could not send others back."""
    return arguments if isinstance(arguments, dict) else {}


def _plain(block: Mapping[str, Any]) -> Json:
    """The block without its cache breakpoint, which moves from request to request."""
    return {name: value for name, value in block.items() if name != "cache_control"}


def _with_breakpoint(blocks: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [*blocks[:-1], {**blocks[-1], "cache_control": _CACHED}] if blocks else []
