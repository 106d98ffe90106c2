"""The wire side of `tests.fake_api`: requests, answers and faults, and the HTTP and SSE bytes they become."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.fake_api_rules import Refused

KEY = "sk-ant-fake-key-of-the-fake-api-0123456789"
Block = dict[str, Any]
Body = dict[str, Any]


class Fault(StrEnum):
    """What can go wrong with one request."""

    RATE_LIMIT = "429"
    OVERLOADED = "529"
    SERVER_ERROR = "500"
    RESET = "reset mid-stream"
    RESET_AT_ONCE = "reset before a byte"
    EARLY_END = "clean end of file mid-stream"
    SSE_ERROR = "error event mid-stream"
    SSE_OVERLOADED = "overloaded error as the first event"
    GARBAGE = "a data line that is no JSON"
    HTML = "an HTML page with status 200"
    HANG = "not a byte"
    STALL = "half an answer, then not a byte"
    TRICKLE = "the answer in small pieces, slowly"
    BAD_REQUEST = "400"
    KEY_REFUSED = "401"
    FORBIDDEN = "403"
    CREDIT = "credit balance too low"
    SPEND_LIMIT = "429 enforced spend limit"
    STATUS = "the status that Wrong names, with a page of a proxy"
    EMPTY = "an event stream without a byte"
    CUT_JSON = "half a message as JSON"
    UNSTREAMED = "a whole message as JSON, though a stream was asked for"
    DRIP = "a byte now and then, for ever"
    PINGS = "pings, for ever"


@dataclass(frozen=True)
class Wrong:
    """A fault with its details."""

    fault: Fault
    retry_after: str | None = None
    after_events: int = 3
    """For faults in mid-stream: events that are sent whole before."""
    message: str | None = None
    """What the error says, instead of the fault's own words."""
    status: int = 503
    """For STATUS."""


@dataclass(frozen=True)
class Answer:
    """One answer of the model. `stop_reason` and `usage` follow from the content when left out."""

    content: list[Block]
    stop_reason: str | None = None
    usage: dict[str, Any] | None = None
    latency_s: float | None = None
    model: str | None = None
    """The model that the endpoint names; None for the one asked for."""
    tamper: Callable[[list[Block]], list[Block]] | None = None
    """Changes the events of its stream."""
    page: tuple[str, bytes] | None = None
    """Content type and body of the whole response, instead of what the fields above make."""


@dataclass
class Request:
    """One request as it was received, and how it ended."""

    number: int
    task: str
    turn: int
    """Assistant messages in it, and one."""
    hash: str
    """SHA-256 of the body without `stream`, keys sorted."""
    model: str
    at: float
    concurrent: int
    """Requests in work at its arrival, itself included."""
    path: str
    headers: dict[str, str] = field(repr=False)
    body: Any = field(repr=False)
    status: int = 0
    fault: str = ""
    whole: bool = False
    """Whether a complete answer was handed to the network."""


ERRORS = {
    Fault.RATE_LIMIT: Refused(429, "rate_limit_error", "This request would exceed your rate limit."),
    Fault.OVERLOADED: Refused(529, "overloaded_error", "Overloaded"),
    Fault.SERVER_ERROR: Refused(500, "api_error", "Internal server error"),
    Fault.BAD_REQUEST: Refused(400, "invalid_request_error", "messages: something is wrong with them"),
    Fault.KEY_REFUSED: Refused(401, "authentication_error", f"invalid x-api-key {KEY}"),
    Fault.FORBIDDEN: Refused(403, "permission_error", "Your API key does not have permission to use this resource"),
    Fault.CREDIT: Refused(400, "invalid_request_error", "Your credit balance is too low to access the API."),
    Fault.SPEND_LIMIT: Refused(429, "rate_limit_error", "You have reached your specified spend limit."),
}


USELESS = frozenset(
    {
        *(Fault.HANG, Fault.RESET_AT_ONCE, Fault.HTML, Fault.STATUS),
        *(Fault.EMPTY, Fault.CUT_JSON, Fault.DRIP, Fault.PINGS),
    }
)
"""Faults instead of any answer."""


class Reply:
    """Writes one HTTP response."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def json(self, request: Request, status: int, value: Any, **headers: str) -> bool:
        data = json.dumps(value).encode()
        self._head(request, status, {"content-type": "application/json", "content-length": str(len(data)), **headers})
        self._writer.write(data)
        await self._writer.drain()
        request.whole = status == 200
        return True

    async def error(self, request: Request, refused: Refused, wrong: Wrong | None = None) -> bool:
        error: dict[str, Any] = {"type": refused.type, "message": (wrong and wrong.message) or refused.message}
        if wrong and wrong.fault is Fault.SPEND_LIMIT:
            error["details"] = {"error_code": "enforced_spend_limit_reached"}
        headers = {"retry-after": wrong.retry_after} if wrong and wrong.retry_after else {}
        body = {"type": "error", "error": error, "request_id": _request_id(request)}
        return await self.json(request, refused.status, body, **headers)

    async def nothing_useful(self, request: Request, wrong: Wrong, message: Block) -> bool:
        """One of the faults in `USELESS`; whether the connection can serve another request."""
        page, stream = b"<html><body>It works!</body></html>", "text/event-stream; charset=utf-8"
        match wrong.fault:
            case Fault.HANG:
                await asyncio.sleep(3600)
            case Fault.RESET_AT_ONCE:
                self._reset()
            case Fault.HTML:
                return await self.page(request, 200, "text/html", page)
            case Fault.STATUS:
                return await self.page(request, wrong.status, "text/html", page)
            case Fault.EMPTY:
                return await self.page(request, 200, stream, b"")
            case Fault.CUT_JSON:
                return await self.page(request, 200, "application/json", json.dumps(message).encode()[:-20])
            case Fault.DRIP | Fault.PINGS:
                self._head(request, 200, {"content-type": stream, "transfer-encoding": "chunked"})
                while True:
                    await self._chunk(b":" if wrong.fault is Fault.DRIP else b'event: ping\ndata: {"type": "ping"}\n\n')
                    await asyncio.sleep(0.1)
        return False

    async def page(self, request: Request, status: int, content_type: str, data: bytes) -> bool:
        """A whole response of any type."""
        self._head(request, status, {"content-type": content_type, "content-length": str(len(data))})
        self._writer.write(data)
        await self._writer.drain()
        return True

    async def stream(self, request: Request, events: list[Block], wrong: Wrong | None) -> bool:
        self._head(request, 200, {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"})
        for number, event in enumerate(events):
            if wrong and await self._goes_wrong(wrong, number):
                return False
            await self._event(event, slowly=bool(wrong and wrong.fault is Fault.TRICKLE))
        request.whole = not (wrong and wrong.fault is Fault.GARBAGE)
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        return True

    async def _goes_wrong(self, wrong: Wrong, number: int) -> bool:
        """Spoil the stream before event `number` when it is time to; whether the connection is over."""
        if number != (0 if wrong.fault is Fault.SSE_OVERLOADED else wrong.after_events):
            return False
        match wrong.fault:
            case Fault.RESET:
                await asyncio.sleep(0.02)  # let the peer read what came before
                self._reset()
            case Fault.EARLY_END:
                self._writer.write(b"0\r\n\r\n")
                await self._writer.drain()
            case Fault.SSE_ERROR | Fault.SSE_OVERLOADED:
                overloaded = wrong.fault is Fault.SSE_OVERLOADED
                words = wrong.message or "Overloaded"
                error = {"type": "overloaded_error" if overloaded else "api_error", "message": words}
                await self._event({"type": "error", "error": error})
                self._writer.write(b"0\r\n\r\n")
            case Fault.GARBAGE:
                line = f'data: {{"type": "{wrong.message or "content_bl"}'
                await self._chunk(f"event: content_block_delta\n{line}\n\n".encode())
                return False
            case Fault.STALL:
                await asyncio.sleep(3600)
            case _:
                return False
        return True

    async def _event(self, event: Block, *, slowly: bool = False) -> None:
        data = f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()
        for start in range(0, len(data), 40 if slowly else len(data)):
            await self._chunk(data[start : start + 40] if slowly else data)
            if slowly:
                await asyncio.sleep(0.005)

    async def _chunk(self, data: bytes) -> None:
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self._writer.drain()

    def _head(self, request: Request, status: int, headers: dict[str, str]) -> None:
        request.status = status
        lines = [
            f"HTTP/1.1 {status} x",
            *(f"{n}: {v}" for n, v in headers.items()),
            f"request-id: {_request_id(request)}",
        ]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    def _reset(self) -> None:
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def message_of(request: Request, answer: Answer) -> Block:
    """The Message object of an answer."""
    calls_tools = any(block["type"] == "tool_use" for block in answer.content)
    usage = {
        "input_tokens": len(json.dumps(request.body)) // 4,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": len(json.dumps(answer.content)) // 4,
    }
    return {
        "id": f"msg_fake_{request.number}",
        "type": "message",
        "role": "assistant",
        "model": answer.model or request.model,
        "content": answer.content,
        "stop_reason": answer.stop_reason or ("tool_use" if calls_tools else "end_turn"),
        "stop_sequence": None,
        "usage": usage if answer.usage is None else answer.usage,
    }


def events_of(message: Block) -> list[Block]:
    """The events that a stream of `message` consists of."""
    usage = message["usage"]
    started = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1} if usage else {}}
    events: list[Block] = [{"type": "message_start", "message": started}, {"type": "ping"}]
    for index, block in enumerate(message["content"]):
        events += _block_events(index, block)
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events.append(
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage.get("output_tokens")}},
    )
    return [*events, {"type": "message_stop"}]


def _block_events(index: int, block: Block) -> Iterator[Block]:
    if block["type"] == "text":
        opened, deltas = {**block, "text": ""}, [{"type": "text_delta", "text": p} for p in _pieces(block["text"])]
    elif block["type"] == "tool_use":
        opened = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": p} for p in _pieces(json.dumps(block["input"]))]
    elif block["type"] == "thinking":
        opened = {**block, "thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": p} for p in _pieces(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    else:
        opened, deltas = block, []
    yield {"type": "content_block_start", "index": index, "content_block": opened}
    yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
    yield {"type": "content_block_stop", "index": index}


def _pieces(words: str, size: int = 200) -> list[str]:
    middle = min(size, max(1, len(words) // 2))
    return [words[:middle], *(words[i : i + size] for i in range(middle, len(words), size))]


def _request_id(request: Request) -> str:
    return f"req_fake_{request.number}"
