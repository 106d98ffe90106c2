"""What the Messages API refuses in a request, with its own error types: the rules of `tests.fake_api`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_TOOL_USE_ID = re.compile(r"[a-zA-Z0-9_-]+")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SAMPLING = ("temperature", "top_p", "top_k")
_MAX_BREAKPOINTS = 4


@dataclass(frozen=True)
class Refused:
    """An error answer: HTTP status, error type and message."""

    status: int
    type: str
    message: str


def refusal(body: Any, models: frozenset[str] | None) -> Refused | None:
    """Why the API would refuse `body`, or None. `models`: the known ones, None for any."""
    if not isinstance(body, dict):
        return _invalid("body: Input should be an object")
    if models is not None and body.get("model") not in models:
        return Refused(404, "not_found_error", f"model: {body.get('model')}")
    fault = next(_faults(body), None)
    return _invalid(fault) if fault else None


def _invalid(message: str) -> Refused:
    return Refused(400, "invalid_request_error", message)


def _faults(body: dict[str, Any]) -> Iterator[str]:
    yield from _parameter_faults(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "messages: at least one message is required"
        return
    yield from _shape_faults(messages)
    yield from _tool_pair_faults(messages)
    yield from _tool_faults(body.get("tools") or [])
    if sum(1 for block in _walk(body) if "cache_control" in block) > _MAX_BREAKPOINTS:
        yield f"A maximum of {_MAX_BREAKPOINTS} blocks with cache_control may be provided."


def _parameter_faults(body: dict[str, Any]) -> Iterator[str]:
    if not isinstance(body.get("model"), str) or not body["model"]:
        yield "model: Field required"
    max_tokens = body.get("max_tokens")
    if not isinstance(max_tokens, int):
        yield "max_tokens: Field required"
    elif max_tokens < 1:
        yield "max_tokens: Input should be greater than or equal to 1"
    for name in _SAMPLING:
        if name in body:
            yield f"{name}: this parameter is not supported by this model"


def _shape_faults(messages: list[Any]) -> Iterator[str]:
    if messages[0].get("role") != "user":
        yield "messages: first message must use the user role"
    for index, message in enumerate(messages):
        where, last = f"messages.{index}", index == len(messages) - 1
        if message.get("role") not in ("user", "assistant", "system"):
            yield f"{where}.role: Input should be 'user' or 'assistant'"
        if not message.get("content") and not (last and message.get("role") == "assistant"):
            yield f"{where}: all messages must have non-empty content except for the optional final assistant message"
        for block in _blocks(message):
            if block.get("type") == "text" and not block.get("text"):
                yield f"{where}: text content blocks must be non-empty"
    final = messages[-1]
    texts = [block["text"] for block in _blocks(final) if block.get("type") == "text"]
    if final.get("role") == "assistant" and texts and texts[-1] != texts[-1].rstrip():
        yield "messages: final assistant content cannot end with trailing whitespace"


def _tool_pair_faults(messages: list[Any]) -> Iterator[str]:
    """Each tool_use has its tool_result in the next message, and no result comes without its use."""
    expected: list[str] = []
    for index, message in enumerate(_merged(messages)):
        where = f"messages.{index}"
        results = [block.get("tool_use_id") for block in _blocks(message) if block.get("type") == "tool_result"]
        missing = [name for name in expected if name not in results]
        if missing:
            yield (
                f"{where}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block "
                "in the next message."
            )
        surplus = [name for name in results if name not in expected]
        if surplus or len(set(results)) != len(results):
            found = ", ".join(map(str, surplus or results))
            yield f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {found}"
        expected = [str(block.get("id")) for block in _blocks(message) if block.get("type") == "tool_use"]
        if any(not _TOOL_USE_ID.fullmatch(name) for name in expected):
            yield f"{where}: tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
        if len(set(expected)) != len(expected):
            yield f"{where}: `tool_use` ids must be unique"
    if expected:
        found = ", ".join(expected)
        yield f"messages: `tool_use` ids were found without `tool_result` blocks immediately after: {found}."


def _tool_faults(tools: list[Any]) -> Iterator[str]:
    names = [tool.get("name") for tool in tools]
    if len(set(names)) != len(names):
        yield "tools: Tool names must be unique."
    for index, tool in enumerate(tools):
        if not isinstance(tool.get("name"), str) or not _TOOL_NAME.fullmatch(tool["name"]):
            yield f"tools.{index}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        if tool.get("type", "custom") == "custom" and "input_schema" not in tool:
            yield f"tools.{index}.custom.input_schema: Field required"


def _merged(messages: list[Any]) -> list[dict[str, Any]]:
    """Messages with neighbours of one role joined, as the API does; mid-conversation system messages left out."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        if message.get("role") == "system":
            continue
        if merged and merged[-1]["role"] == message.get("role"):
            merged[-1]["content"] = [*merged[-1]["content"], *_blocks(message)]
        else:
            merged.append({"role": message.get("role"), "content": _blocks(message)})
    return merged


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content or [] if isinstance(block, dict)]


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in `value` that can carry a cache breakpoint."""
    if isinstance(value, dict):
        yield value
        for name, part in value.items():
            if name not in ("input", "input_schema"):
                yield from _walk(part)
    elif isinstance(value, list):
        for part in value:
            yield from _walk(part)
