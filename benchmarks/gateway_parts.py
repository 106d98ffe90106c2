"""The two ends of the gateway benchmark, each a process of its own: a fast server, and callers that watch the clock.

    python -m benchmarks.gateway_parts server
    python -m benchmarks.gateway_parts callers       what to do as JSON on standard input, samples on standard output

Both speak just enough HTTP/1.1 over asyncio's streams to cost little beside what is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

ANSWER_CHARACTERS = 2_000
"""Of text in each answer."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Calls:
    """What the callers do: each of `callers` makes `each` calls, every other one straight to the server."""

    callers: int
    each: int
    latency_s: float
    """That the server takes; it is told in a header."""
    size: int
    """Bytes of a request's body."""
    server_port: int
    gateway_socket: str
    tokens: tuple[str, ...]
    """One for each caller."""


async def serve() -> None:
    """Answer each POST with one event stream, after the seconds that its body's metadata ask for."""
    server = await asyncio.start_server(_connection, "127.0.0.1", 0, limit=2**23)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def call(calls: Calls) -> list[Json]:
    """All calls; for each: which way, seconds beside the server's own, status."""
    samples: list[Json] = []
    await asyncio.gather(*(_caller(calls, number, samples) for number in range(calls.callers)))
    return samples


async def _connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head, body = await _message(reader)
            await asyncio.sleep(float(_between(body, b'"user_id":"', b'"')))
            writer.write(_RESPONSE)
            await writer.drain()
            del head
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _caller(calls: Calls, number: int, samples: list[Json]) -> None:
    direct = await asyncio.open_connection("127.0.0.1", calls.server_port, limit=2**23)
    through = await asyncio.open_unix_connection(calls.gateway_socket, limit=2**23)
    # Spread over one call's time, so that they do not all come at once; and every other one begins the other way.
    await asyncio.sleep(calls.latency_s * number / calls.callers)
    for turn in range(1, calls.each + 1):
        way = ("direct", "gateway")[(turn + number) % 2]
        request = _request(calls, number, turn, stream=way == "direct")
        began = time.perf_counter()
        reader, writer = direct if way == "direct" else through
        writer.write(request)
        head, _ = await _message(reader)
        took = time.perf_counter() - began - calls.latency_s
        samples.append({"way": way, "s": took, "status": int(head[9:12])})


def _request(calls: Calls, number: int, turn: int, *, stream: bool) -> bytes:
    """As an executor asks the gateway, without a stream, and the gateway the server, with one."""
    told = f"{number} {turn} "
    body = json.dumps(
        {
            "model": "claude-sonnet-5",
            "max_tokens": 16000,
            "stream": stream,
            "metadata": {"user_id": str(calls.latency_s)},
            "system": [{"type": "text", "text": "You build software."}],
            "messages": [
                {"role": "user", "content": told + _TEXT * (calls.size // 3 // len(_TEXT))},
                {"role": "assistant", "content": _TEXT * (calls.size // 3 // len(_TEXT))},
                {"role": "user", "content": _TEXT * (calls.size // 3 // len(_TEXT))},
            ],
        },
        separators=(",", ":"),
    ).encode()
    head = (
        "POST /v1/messages HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {calls.tokens[number]}\r\nanthropic-version: 2023-06-01\r\n"
        f"x-orchestrator-turn: {turn}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of one request or response, with a length or in chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    if b"content-length:" in lower:
        return head, await reader.readexactly(int(_between(lower, b"content-length:", b"\r\n")))
    if b"chunked" not in lower:
        return head, b""
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return head, body


def _between(data: bytes, before: bytes, after: bytes) -> bytes:
    start = data.index(before) + len(before)
    return data[start : data.index(after, start)]


def _response() -> bytes:
    usage = {"input_tokens": 1000, "output_tokens": 500}
    message: Json = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    pieces = [_TEXT[start : start + 20] for start in range(0, len(_TEXT), 20)] * (ANSWER_CHARACTERS // len(_TEXT))
    events: list[Json] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body) + body


_TEXT = 'def add(a: int, b: int) -> int:\n    """The sum of both."""\n    return a + b  # "quoted"\n\n\n'.ljust(
    100, "#"
)
_RESPONSE = _response()


if __name__ == "__main__":
    if sys.argv[1:] == ["server"]:
        asyncio.run(serve())
    else:
        told = json.loads(sys.stdin.readline())
        print(json.dumps(asyncio.run(call(Calls(**told)))))
