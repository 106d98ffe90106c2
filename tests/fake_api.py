"""A fake Messages API on loopback TCP: refuses what the API refuses, streams what it streams, fails on demand.

    with FakeApi(script=lambda body: [text("hello")], latency_s=0.01) as api:
        ...                     # POST {api.url}/v1/messages with `Authorization: Bearer {api.key}`
        assert api.answered_twice() == []

`script(body)` gives an `Answer` or a list of content blocks. `faults` decides per request what goes wrong: a
callable of the request's number (from 0), a list, or `seeded_faults`. Every request is in `api.requests`, and as
a JSON line in `log`. The server runs in a thread; `python -m tests.fake_api --help` runs it as a process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import importlib
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.fake_api_rules import Refused, refusal
from tests.fake_api_wire import (
    ERRORS,
    KEY,
    USELESS,
    Answer,
    Block,
    Body,
    Fault,
    Reply,
    Request,
    Wrong,
    events_of,
    message_of,
)

__all__ = [
    "KEY",
    "Answer",
    "Block",
    "Body",
    "FakeApi",
    "Fault",
    "Request",
    "Wrong",
    "body_hash",
    "echo",
    "events_of",
    "message_of",
    "seeded_faults",
    "text",
    "tool_use",
]


RequestKey = tuple[str, int, str]
"""Task, turn, hash of the body."""


Script = Callable[[Body], Answer | list[Block]]
Faults = Callable[[int], Wrong | Fault | None]


def text(words: str) -> Block:
    """A text block."""
    return {"type": "text", "text": words}


def tool_use(tool_id: str, name: str, **arguments: Any) -> Block:
    """A tool_use block."""
    return {"type": "tool_use", "id": tool_id, "name": name, "input": arguments}


def echo(body: Body) -> list[Block]:
    """A script: answers with the number of the turn and a digest of the request."""
    return [text(f"turn {_turn(body)} of {body_hash(body)[:12]}")]


def seeded_faults(seed: int, probabilities: dict[Fault, float]) -> Faults:
    """Each request fails by chance, the same way for the same seed and request number."""

    def choose(number: int) -> Fault | None:
        drawn = random.Random(f"{seed}:{number}").random()
        for fault, probability in probabilities.items():
            drawn -= probability
            if drawn < 0:
                return fault
        return None

    return choose


def body_hash(body: Any) -> str:
    """What identifies a request, whether streamed or not."""
    bare = {name: value for name, value in body.items() if name != "stream"} if isinstance(body, dict) else body
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()


class FakeApi:
    """The server; a context manager. `url` and `requests` are for the test, the rest is configuration."""

    def __init__(
        self,
        script: Script = echo,
        *,
        faults: Faults | Sequence[Wrong | Fault | None] | None = None,
        latency_s: float = 0.0,
        task_of: Callable[[Body], str] = lambda body: "",
        models: frozenset[str] | None = None,
        key: str = KEY,
        port: int = 0,
        log: Path | None = None,
    ) -> None:
        self.script = script
        self.faults = _as_callable(faults)
        self.latency_s = latency_s
        self.task_of = task_of
        self.models = models
        self.key = key
        self.log = log
        self.requests: list[Request] = []
        self.in_work = 0
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="fake-api", daemon=True)

    @property
    def url(self) -> str:
        """Base URL, without /v1."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def start(self) -> Self:
        """Answer requests from now on."""
        self._thread.start()
        self._ready.wait()
        return self

    def stop(self) -> None:
        """Cut every connection and end the thread."""
        if self._loop and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def whole_answers(self) -> Counter[RequestKey]:
        """How often each (task, turn, hash) was answered whole."""
        return Counter((r.task, r.turn, r.hash) for r in list(self.requests) if r.whole)

    def answered_twice(self) -> list[RequestKey]:
        """What was paid for more than once. Empty is what every crash test wants."""
        return [key for key, count in self.whole_answers().items() if count > 1]

    def wait_for_requests(self, count: int, timeout_s: float = 20.0) -> None:
        """Return when that many requests have arrived; AssertionError when they do not."""
        deadline = time.monotonic() + timeout_s
        while len(self.requests) < count:
            assert time.monotonic() < deadline, f"{len(self.requests)} of {count} requests came"
            time.sleep(0.005)

    def _serve(self) -> None:
        asyncio.run(self._serve_until_stopped())

    async def _serve_until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connection, sock=self._socket, limit=2**26)
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._request(reader, writer):
                pass
        writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; whether the connection can serve another."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        method, path, _ = head[0].split(" ")
        request = self._received(path, headers, raw)
        self.in_work += 1
        try:
            return await self._answer(request, method, Reply(writer))
        finally:
            self.in_work -= 1
            self._write_log(request)

    def _received(self, path: str, headers: dict[str, str], raw: bytes) -> Request:
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        known = body if isinstance(body, dict) else {}
        request = Request(
            number=len(self.requests),
            task=self.task_of(known),
            turn=_turn(known),
            hash=body_hash(body),
            model=str(known.get("model")),
            at=time.time(),
            concurrent=self.in_work + 1,
            path=path,
            headers=headers,
            body=body,
        )
        self.requests.append(request)
        return request

    async def _answer(self, request: Request, method: str, reply: Reply) -> bool:
        refused = self._refusal(request, method)
        if refused:
            return await reply.error(request, refused)
        wrong = self.faults(request.number)
        wrong = Wrong(wrong) if isinstance(wrong, Fault) else wrong
        request.fault = wrong.fault if wrong else ""
        if wrong and wrong.fault in ERRORS:
            return await reply.error(request, ERRORS[wrong.fault], wrong)
        scripted = self.script(request.body)
        answer = scripted if isinstance(scripted, Answer) else Answer(scripted)
        latency_s = self.latency_s if answer.latency_s is None else answer.latency_s
        await asyncio.sleep(max(0.0, request.at + latency_s - time.time()))  # its own work is part of that time
        if answer.page:
            return await reply.page(request, 200, *answer.page)
        message = message_of(request, answer)
        if wrong and wrong.fault in USELESS:
            return await reply.nothing_useful(request, wrong, message)
        if request.body.get("stream") and not (wrong and wrong.fault is Fault.UNSTREAMED):
            events = events_of(message)
            return await reply.stream(request, answer.tamper(events) if answer.tamper else events, wrong)
        return await reply.json(request, 200, message)

    def _refusal(self, request: Request, method: str) -> Refused | None:
        headers = request.headers
        if method != "POST" or request.path.partition("?")[0] != "/v1/messages":
            return Refused(404, "not_found_error", "Not found")
        shown = [headers.get("authorization", "").removeprefix("Bearer "), headers.get("x-api-key", "")]
        if self.key not in shown:
            message = "invalid x-api-key" if any(shown) else "x-api-key header is required"
            return Refused(401, "authentication_error", message)
        if "anthropic-version" not in headers:
            return Refused(400, "invalid_request_error", "anthropic-version: header is required")
        return refusal(request.body, self.models)

    def _write_log(self, request: Request) -> None:
        if self.log:
            line = {k: v for k, v in asdict(request).items() if k not in ("headers", "body")}
            with self.log.open("a") as file:
                file.write(json.dumps(line) + "\n")


def _turn(body: Body) -> int:
    messages = body.get("messages")
    return 1 + sum(1 for m in messages if m.get("role") == "assistant") if isinstance(messages, list) else 1


def _as_callable(faults: Faults | Sequence[Wrong | Fault | None] | None) -> Faults:
    if callable(faults):
        return faults
    listed = list(faults or [])
    return lambda number: listed[number] if number < len(listed) else None


def main() -> None:
    """Run the server as a process of its own; prints its URL, ends at end of standard input."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--script", default="tests.fake_api:echo", metavar="MODULE:FUNCTION")
    parser.add_argument("--task-of", metavar="MODULE:FUNCTION")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=PROBABILITY", help="RESET=0.1, say")
    options = parser.parse_args()
    chances = {Fault[name]: float(share) for name, _, share in (item.partition("=") for item in options.fault)}
    api = FakeApi(
        _named(options.script),
        faults=seeded_faults(options.seed, chances),
        latency_s=options.latency,
        task_of=_named(options.task_of) if options.task_of else lambda body: "",
        port=options.port,
        log=options.log,
    )
    with api:
        print(api.url, flush=True)
        with contextlib.suppress(EOFError, KeyboardInterrupt):
            while True:
                input()


def _named(spec: str) -> Callable[..., Any]:
    module, _, name = spec.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


if __name__ == "__main__":
    main()
