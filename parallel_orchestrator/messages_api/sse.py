"""Server-sent events of the Messages API: reading them, telling a whole answer, and making them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from parallel_orchestrator.system import json_codec

Json = dict[str, Any]

CUT = frozenset({"max_tokens", "model_context_window_exceeded", "refusal"})
"""Stop reasons after which the last thing said may be a part of something."""

_DEEPEST = 100
"""Levels of a tool's input. The Messages API's own tools have one."""

_MADE_HERE = frozenset({"content", "usage"})
"""Fields of a message that its last event does not set as a whole."""

_PIECE = 2000
"""Characters in one delta of a synthesised stream."""


class BadEvent(ValueError):
    """A data line is not a JSON object."""


class EventReader:
    """Splits a stream into events as the bytes arrive."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._rest = b""

    def feed(self, data: bytes) -> list[Json]:
        """The events that `data` completes. Raises BadEvent."""
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        text = (whole + newline).decode("utf-8", errors="replace")
        self._parts.append(text)
        # Only \n ends a line here: the JSON inside may hold U+2028 and the like, which str.splitlines would cut.
        return [_object(line[5:]) for line in text.split("\n") if line.startswith("data:")]

    def verbatim(self) -> str:
        """The whole text, ended by an empty line as every event is."""
        text = "".join(self._parts) + self._rest.decode("utf-8", errors="replace")
        return text.rstrip("\r\n") + "\n\n"


def parse(text: str) -> list[Json]:
    """All events of a stored stream."""
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
    """The Message object that a stream of events describes.

    Usage figures of later events replace earlier ones unless they are null; usage that is not an object is ignored.
    The first event's output tokens do not count the whole answer, so they are dropped. Null fields of a block are
    dropped as well, as not every endpoint accepts them back. A tool input that is not a JSON object becomes an empty
    one in an answer that was cut. In a whole answer it stays what it is, as text where it is not JSON.
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
                message.update({k: v for k, v in event["delta"].items() if k not in _MADE_HERE})
                message["usage"].update({k: v for k, v in _usage(event).items() if v is not None})
    for block in message.get("content", ()):
        given = block.pop("partial_json", "") or block.get("input")
        if isinstance(given, str):
            value = _input(given)
            block["input"] = value if isinstance(value, dict) or message.get("stop_reason") not in CUT else {}
    return message


def _usage(holder: Json) -> Json:
    usage = holder.get("usage")
    # NaN and infinity must not become null, which counts as nothing.
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
    """A tool's input: what `text` is the JSON of. An object written as a JSON string is that object."""
    value = _value(text)
    inner = _value(value) if isinstance(value, str) else None
    return inner if isinstance(inner, dict) else value


def _value(text: str) -> Any:
    """What it is the JSON of, to the letter, so that every JSON library can write it again; else the text itself."""
    try:
        value = json_codec.strict(text)
    except (ValueError, RecursionError):
        return text
    return text if _is_deeper(value, _DEEPEST) else value


def _is_deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_is_deeper(item, levels - 1) for item in inner)


def stream_of(message: Json) -> str:
    """The SSE text of a whole Message object."""
    return "".join(encode(event) for event in _events_of(message))


def encode(event: Json) -> str:
    """One event as it goes over the wire: all ASCII, for readers that take U+2028 for the end of a line."""
    return f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n"


def _events_of(message: Json) -> Iterator[Json]:
    usage = _usage(message)
    yield {
        "type": "message_start",
        "message": {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 0}},
    }
    for index, block in enumerate(message["content"]):
        empty, deltas = _taken_apart(block)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": message.get("stop_sequence")}
    yield {"type": "message_delta", "delta": ending, "usage": usage}
    yield {"type": "message_stop"}


def _taken_apart(block: Json) -> tuple[Json, list[Json]]:
    """A content block as it starts, and the deltas that fill it."""
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
