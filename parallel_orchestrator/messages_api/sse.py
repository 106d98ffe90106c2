"""Server-sent events of the Messages API: reads them, assembles a message from them, and writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from parallel_orchestrator.system import json_codec

Json = dict[str, Any]

CUT = frozenset({"max_tokens", "model_context_window_exceeded", "refusal"})
"""Stop reasons after which the last block may be incomplete."""

_DEEPEST = 100
"""Levels that a tool's input may have. The Messages API's own tools have one."""

_ASSEMBLED = frozenset({"content", "usage"})
"""Fields of a message that the last event must not overwrite as a whole."""

_PIECE = 2000
"""Characters in one delta of a synthesised stream."""


class BadEvent(ValueError):
    """A data line does not hold a JSON object."""


class EventReader:
    """Splits a stream into events as the bytes arrive."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._rest = b""

    def feed(self, data: bytes) -> list[Json]:
        """Returns the events that `data` completes. Raises BadEvent."""
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        # Decoded line by line: the endpoint may cut a character of several bytes into two pieces.
        text = (whole + newline).decode("utf-8", errors="replace")
        self._parts.append(text)
        # Only \n ends a line: the JSON inside may hold U+2028, at which str.splitlines would cut.
        return [_object(line[5:]) for line in text.split("\n") if line.startswith("data:")]

    def verbatim(self) -> str:
        """Returns the whole text. It ends with an empty line, as every event does."""
        text = "".join(self._parts) + self._rest.decode("utf-8", errors="replace")
        return text.rstrip("\r\n") + "\n\n"


def parse(text: str) -> list[Json]:
    """Returns all events of a stored stream."""
    return EventReader().feed(text.encode())


def _object(text: str) -> Json:
    try:
        event = json_codec.loads(text)
    except (ValueError, RecursionError):
        raise BadEvent(f"not JSON: data:{text!r}") from None
    if not isinstance(event, dict):
        raise BadEvent(f"not an object: data:{text!r}")
    return event


def assemble(events: Iterable[Json]) -> Json:
    """Returns the Message object that a stream of events describes.

    A later usage figure replaces an earlier one unless it is null. The first event's output tokens do not count the
    whole answer, so they are dropped. Null fields of a block are dropped: some endpoints do not accept them back. A
    tool input that is no JSON object becomes an empty one in an answer that was cut. In a whole answer it stays, as
    text if it is not JSON.
    """
    message: Json = {}
    for event in events:
        match event.get("type"):
            case "message_start":
                usage = _usage(event["message"])
                usage.pop("output_tokens", None)
                message = {**event["message"], "content": [], "usage": usage}
            case "content_block_start":
                message["content"].append({k: v for k, v in event["content_block"].items() if v is not None})
            case "content_block_delta":
                _extend(message["content"][event["index"]], event["delta"])
            case "message_delta":
                message.update({k: v for k, v in event["delta"].items() if k not in _ASSEMBLED})
                message["usage"].update({k: v for k, v in _usage(event).items() if v is not None})
    for block in message.get("content", ()):
        raw = block.pop("partial_json", "") or block.get("input")
        if isinstance(raw, str):
            value = _input(raw)
            block["input"] = value if isinstance(value, dict) or message.get("stop_reason") not in CUT else {}
    return message


def _usage(holder: Json) -> Json:
    usage = holder.get("usage")
    # NaN and infinity must not become null: null would count as 0 and cost nothing.
    return json_codec.finite(usage, "not finite") if isinstance(usage, dict) else {}


def _extend(block: Json, delta: Json) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] = block.get("text", "") + delta["text"]
        case "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "input_json_delta":
            block["partial_json"] = block.get("partial_json", "") + delta["partial_json"]
        case "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]


def _input(text: str) -> Any:
    """Returns a tool's input from its JSON. An object that was written as a JSON string becomes that object."""
    value = _value(text)
    inner = _value(value) if isinstance(value, str) else None
    return inner if isinstance(inner, dict) else value


def _value(text: str) -> Any:
    """Returns the value of strict JSON, which every JSON library can write again; else the text itself."""
    try:
        value = json_codec.strict(text)
    except (ValueError, RecursionError):
        return text
    return text if _is_deeper(value, _DEEPEST) else value


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deeper(item, levels - 1) for item in inner)


def message_of(name: str, model: str, content: Iterable[Json], stop_reason: str, usage: Json) -> Json:
    """Returns a whole Message object."""
    message = {"id": name, "type": "message", "role": "assistant", "model": model, "content": list(content)}
    return {**message, "stop_reason": stop_reason, "stop_sequence": None, "usage": usage}


def stream_of(message: Json) -> str:
    """Returns the SSE text of a whole Message object."""
    return "".join(encode(event) for event in _events_of(message))


def encode(event: Json) -> str:
    """Returns one event's text, all in ASCII: some readers end a line at U+2028."""
    return f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n"


def _events_of(message: Json) -> Iterator[Json]:
    usage = _usage(message)
    yield {
        "type": "message_start",
        "message": {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 0}},
    }
    for index, block in enumerate(message["content"]):
        empty, deltas = _start_and_deltas(block)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": message.get("stop_sequence")}
    yield {"type": "message_delta", "delta": ending, "usage": usage}
    yield {"type": "message_stop"}


def _start_and_deltas(block: Json) -> tuple[Json, list[Json]]:
    """Returns a content block as it starts, and the deltas that fill it."""
    match block["type"]:
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": p} for p in _pieces(block["text"])]
        case "tool_use":
            arguments = json.dumps(block.get("input", {}), ensure_ascii=False)
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": p} for p in _pieces(arguments)]
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": p} for p in _pieces(block["thinking"])]
            signature = {"type": "signature_delta", "signature": block.get("signature", "")}
            return {**block, "thinking": "", "signature": ""}, [*deltas, signature]
    return block, []


def _pieces(text: str) -> list[str]:
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
