"""The HTTP side: a raw ASGI application on a Unix socket.

    POST /v1/messages             token of an attempt       the Messages API, streamed or not
    GET  /orchestrator/turn/N     token of an attempt       {"endpoint_s", "waited_s"} of its turn N; a stream that had
                                                            no ping has them as headers x-orchestrator-…, too
    GET  /orchestrator/status     the gateway's secret      money, load, waiting

Errors have the API's form. Whoever waits for a stream gets a real status when the outcome is known within
15 seconds; later ones learn of an error by an `error` event, and until then get a ping every 15 seconds.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from parallel_orchestrator.gateway import declined, sse
from parallel_orchestrator.gateway.asks import MAX_BODY, Headers, read_ask
from parallel_orchestrator.gateway.declined import Declined
from parallel_orchestrator.gateway.ledger import Stored
from parallel_orchestrator.gateway.messages import Slot
from parallel_orchestrator.gateway.run import Run
from parallel_orchestrator.gateway.service import Service
from parallel_orchestrator.records.errors import OrchestratorError

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Answer = tuple[Run, Stored]

PING_S = 15.0
"""Between two pings, and until the headers of a stream go out without an outcome."""

TIMES = "x-orchestrator-"
"""In front of the names of a turn's times, as headers of a stream."""

_PING = sse.encode({"type": "ping"}).encode()
_TURN = "/orchestrator/turn/"


class Application:
    """The gateway as an ASGI application."""

    def __init__(self, service: Service, secret: str, ping_s: float = PING_S) -> None:
        self._service = service
        self._secret = secret
        self._ping_s = ping_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        response = Response(send)
        try:
            await self._route(scope, receive, response)
        except Declined as error:
            await response.error(error)
        except OrchestratorError as error:
            log.error("%s", error)
            await response.error(declined.cannot_write(str(error)))

    async def _route(self, scope: Scope, receive: Receive, response: Response) -> None:
        method, path, headers = scope["method"], scope["path"], Headers.of(scope)
        if (method, path) == ("POST", "/v1/messages"):
            await self._messages(scope, headers, receive, response)
        elif (method, path) == ("GET", "/orchestrator/status"):
            if not any(hmac.compare_digest(token.encode(), self._secret.encode()) for token in headers.tokens()):
                raise declined.unknown_token()
            await response.json(200, self._service.status())
        elif method == "GET" and path.startswith(_TURN) and path.removeprefix(_TURN).isdecimal():
            await response.json(200, await self._times(headers, int(path.removeprefix(_TURN))))
        else:
            raise declined.not_found()

    async def _times(self, headers: Headers, turn: int) -> dict[str, float]:
        caller = headers.caller(self._secret)
        run = await self._service.runs.opened(caller.run)
        stored = run.ledger.latest(Slot(caller.task, caller.attempt, turn))
        if stored is None:
            raise declined.not_found()
        return _times_of(stored)

    async def _messages(self, scope: Scope, headers: Headers, receive: Receive, response: Response) -> None:
        caller = headers.caller(self._secret)
        ask, wants_stream = read_ask(caller, headers, scope["query_string"].decode("latin-1"), await _body(receive))
        answer = asyncio.create_task(self._service.ask(caller.run, ask))
        if wants_stream:
            await self._wait_with_pings(answer, response)
        run, stored = await answer
        events = run.ledger.events(stored)
        if wants_stream:
            await response.stream(events, stored)
        else:
            await response.json(200, sse.assemble(sse.parse(events)), stored.request_id)

    async def _wait_with_pings(self, answer: asyncio.Task[Answer], response: Response) -> None:
        while not (await asyncio.wait([answer], timeout=self._ping_s))[0]:
            await response.ping()


def _times_of(stored: Stored) -> dict[str, float]:
    return {"endpoint_s": stored.endpoint_s, "waited_s": stored.waited_s}


async def _body(receive: Receive) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise declined.bad_request("the caller went away before its request was whole")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise declined.too_large(MAX_BODY)
        more = message.get("more_body", False)
    return b"".join(parts)


class Response:
    """Writes one response. Writing to a caller that has gone away does nothing."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False

    async def json(self, status: int, value: Any, request_id: str | None = None) -> None:
        """A whole response."""
        await self._head(status, "application/json", request_id)
        await self._write(json.dumps(value).encode(), last=True)

    async def ping(self) -> None:
        """A sign of life in a stream that has no event yet."""
        if not self._begun:
            await self._head(200, "text/event-stream; charset=utf-8")
        await self._write(_PING)

    async def stream(self, events: str, stored: Stored) -> None:
        """All events at once, and the end. The turn's times go ahead, unless a ping went out before they were known."""
        if not self._begun:
            times = {f"{TIMES}{name}": str(seconds) for name, seconds in _times_of(stored).items()}
            await self._head(200, "text/event-stream; charset=utf-8", stored.request_id, times)
        await self._write(events.encode(), last=True)

    async def error(self, error: Declined) -> None:
        """The error: as a status while there is a choice, as an event after that."""
        if self._begun:
            event = {**error.body, "type": "error"}
            await self._write(sse.encode(event).encode(), last=True)
        else:
            await self.json(error.status, error.body)

    async def _head(
        self, status: int, content_type: str, request_id: str | None = None, more: Mapping[str, str] | None = None
    ) -> None:
        self._begun = True
        headers = [
            (name.encode(), value.encode()) for name, value in {"content-type": content_type, **(more or {})}.items()
        ]
        if request_id:
            headers.append((b"request-id", request_id.encode("latin-1", errors="replace")))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write(self, data: bytes, *, last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})
