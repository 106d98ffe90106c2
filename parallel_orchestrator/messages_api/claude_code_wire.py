"""Reads Claude Code's requests to the Messages API, and writes the answers to them.

Its first request shows its tools, system prompt and first message. The conversation keeps these. So a later start on
another day, kernel or version changes nothing for the model. Of each later request only the tool results count.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.messages_api.tool_calls import Json, ToolCall, ToolResult, text_block
from parallel_orchestrator.records.journals.transcript import Opening
from parallel_orchestrator.records.scenario import Profile
from parallel_orchestrator.records.usage import token_count
from parallel_orchestrator.system import redact

_CACHED = {"type": "ephemeral"}
_OWN_FIELDS = frozenset({"model", "max_tokens", "system", "tools", "messages", "stream", "metadata"})
"""Fields of a request that the opening holds by name, or that it leaves out because they vary (metadata)."""
_COUNTED = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_DATE = re.compile(r"(?<!\n)\n*Today's date is \d{4}-\d\d-\d\d\.")
_DEFERRED = "defer_loading"


def opening_of(body: Json, betas: str, profile: Profile) -> Opening:
    """Returns the start of a conversation from the program's first request, for `Transcript.begin`.

    An endpoint other than Anthropic's gets what every Messages API understands: no beta fields, no system messages
    between the others.
    """
    anthropic = profile == "anthropic"
    more = {name: value for name, value in body.items() if name not in _OWN_FIELDS} if anthropic else {}
    return Opening(
        model=body["model"],
        profile=profile,
        tools=[tool for tool in body.get("tools", ()) if anthropic or _DEFERRED not in tool],
        system=[_plain(block) for block in _blocks(body.get("system", ()))],
        task=list(_folded(body["messages"])),
        request={"max_tokens": body["max_tokens"], **more},
        betas=betas if anthropic else "",
    )


def request_of(start: Opening, model: str, messages: Sequence[Mapping[str, Any]], cuts: int = 0) -> Json:
    """Returns a whole request: the opening's fields, these messages, and cache breakpoints where the program has them.

    `cuts`: answers that were too long and were discarded; each doubles `max_tokens`.
    """
    cached = start.profile == "anthropic"
    request = {
        "model": model,
        **start.request,
        "system": _with_breakpoint(start.system) if cached else start.system,
        "tools": start.tools,
        "messages": list(messages),
    }
    request["max_tokens"] *= 2**cuts
    if cached and messages:
        last = messages[-1]
        request["messages"][-1] = {**last, "content": _with_breakpoint(last["content"])}
    return request


def steady(messages: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Returns messages without what changes from day to day; system messages become part of the user's."""
    joined: list[Json] = []
    for message in messages:
        blocks = [{**b, "text": _DATE.sub("", b["text"])} if b["type"] == "text" else b for b in _folded([message])]
        role = "user" if message["role"] == "system" else message["role"]
        if joined and joined[-1]["role"] == role:
            joined[-1]["content"] += blocks
        else:
            joined.append({"role": role, "content": blocks})
    return joined


def results_in(body: Json, calls: Sequence[ToolCall]) -> list[ToolResult] | None:
    """Returns the results of these calls when the request brings all of them, else None: it is another request."""
    results = {
        str(block.get("tool_use_id")): block
        for message in body.get("messages", ())[-2:]
        for block in _blocks(message.get("content", ()))
        if block.get("type") == "tool_result"
    }
    if not body.get("messages") or any(call.id not in results for call in calls):
        return None
    return [_result(results[call.id]) for call in calls]


def answer_stream(model: str, content: Sequence[Mapping[str, Any]], usage: Mapping[str, Any]) -> str:
    """Returns the SSE text of an answer with this content: text and tool calls, all that the program acts on."""
    acted_on = [
        # Arguments that are no object become an empty one: the program could not send others back.
        dict(block) if block["type"] == "text" or isinstance(block.get("input"), dict) else {**block, "input": {}}
        for block in content
        if block["type"] in ("text", "tool_use")
    ]
    stop_reason = "tool_use" if any(block["type"] == "tool_use" for block in acted_on) else "end_turn"
    counted = {figure: token_count(usage.get(figure)) or 0 for figure in _COUNTED}
    name = f"msg_{secrets.token_hex(8)}"
    return sse.stream_of(sse.message_of(name, model, acted_on, stop_reason, counted))


def _folded(messages: Iterable[Mapping[str, Any]]) -> Iterator[Json]:
    """Yields the blocks of messages as one user message. What the system says in between is marked."""
    for message in messages:
        for block in _blocks(message["content"]):
            plain = _plain(block)
            if message["role"] == "system":
                plain = text_block(f"<system-reminder>\n{plain['text']}\n</system-reminder>")
            yield plain


def _result(block: Mapping[str, Any]) -> ToolResult:
    # The transcript holds no pictures: of each part that is no text it names the type.
    parts = [
        str(part.get("text", "")) if part.get("type") == "text" else f"[{part.get('type')}: not shown]"
        for part in _blocks(block.get("content") or ())
    ]
    text = redact.foreign("\n".join(parts)).encode(errors="replace").decode()
    # A command with another exit code than 0 is no failed call: a red test run, for example, is a result.
    failed = bool(block.get("is_error")) and not text.startswith("Exit code ")
    return ToolResult(text or "(no output)", failed)


def _blocks(content: Any) -> list[Json]:
    return [text_block(content)] if isinstance(content, str) else list(content)


def _plain(block: Mapping[str, Any]) -> Json:
    """Returns the block without its cache breakpoint, which moves from request to request."""
    return {name: value for name, value in block.items() if name != "cache_control"}


def _with_breakpoint(blocks: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [*blocks[:-1], {**blocks[-1], "cache_control": _CACHED}] if blocks else []
