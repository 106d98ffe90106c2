"""The gateway's HTTP server: a raw ASGI application on a Unix socket.

    POST /v1/messages             token of an attempt       the Messages API, streamed or not; a whole message also has
                                                            `orchestrator`: {"endpoint_s", "waited_s"}
    GET  /orchestrator/status     the gateway's secret      money, load, waiting

Errors have the API's form. An error within 15 seconds has its own status. A caller that waits longer gets a ping every
15 seconds, an event or white space; a later error comes as an event or in the body.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from parallel_orchestrator.gateway.calls.run import Delivery
from parallel_orchestrator.gateway.calls.service import Service
from parallel_orchestrator.gateway.http import errors
from parallel_orchestrator.gateway.http.errors import GatewayError
from parallel_orchestrator.gateway.http.requests import MAX_BODY, Headers, read_request
from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.system import json_codec

log = logging.getLogger(__name__)

AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PING_S = 15.0
"""Between two pings. At the first one the headers go out, before the outcome is known."""

_PING = sse.encode({"type": "ping"}).encode()


class Application:
    """The gateway as an ASGI application."""

    def __init__(self, service: Service, secret: str, ping_s: float = PING_S) -> None:
        self._service = service
        self._secret = secret
        self._ping_s = ping_s

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        response = Response(send)
        try:
            await self._route(scope, receive, response)
        except GatewayError as error:
            await response.error(error)
        except OrchestratorError as error:
            log.error("%s", error)
            await response.error(errors.cannot_write(str(error)))

    async def _route(self, scope: AsgiScope, receive: Receive, response: Response) -> None:
        method, path, headers = scope["method"], scope["path"], Headers.of(scope)
        if (method, path) == ("POST", "/v1/messages"):
            await self._messages(scope, headers, receive, response)
        elif (method, path) == ("GET", "/orchestrator/status"):
            # In constant time: how long a comparison takes must not tell how much of a guess is right.
            if not any(hmac.compare_digest(token.encode(), self._secret.encode()) for token in headers.tokens()):
                raise errors.unknown_token()
            await response.json(200, self._service.status())
        else:
            raise errors.not_found()

    async def _messages(self, scope: AsgiScope, headers: Headers, receive: Receive, response: Response) -> None:
        caller = headers.caller(self._secret)
        query = scope["query_string"].decode("latin-1")
        request, response.streams = read_request(caller, headers, query, await _body(receive))
        # A task: if this caller goes away, the call continues, and its answer reaches the ledger.
        answer = asyncio.create_task(self._service.ask(caller.run, request))
        while not (await asyncio.wait([answer], timeout=self._ping_s))[0]:
            await response.ping()
        await response.answer(await answer)


def _message(answer: Delivery) -> bytes:
    times = {"endpoint_s": answer.stored.endpoint_s, "waited_s": answer.stored.waited_s}
    return json_codec.text({**answer.message, "orchestrator": times}).encode(errors="replace")


async def _body(receive: Receive) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise errors.bad_request("the caller disconnected before its request was complete")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        # While it arrives: a larger body never lies in memory as a whole.
        if size > MAX_BODY:
            raise errors.too_large(MAX_BODY)
        more = message.get("more_body", False)
    return b"".join(parts)


class Response:
    """Writes one response. Writing to a caller that has disconnected does nothing."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False
        self.streams = False
        """Whether the caller gets events; else it gets JSON."""

    async def json(self, status: int, value: Any) -> None:
        """Write a whole response that is no answer of the model."""
        await self._head(status, "application/json")
        await self._write(json.dumps(value).encode(), last=True)

    async def ping(self) -> None:
        """Write a sign of life before the answer."""
        await self._start()
        await self._write(_PING if self.streams else b"\n")  # JSON may begin with white space

    async def answer(self, answer: Delivery) -> None:
        """Write all events at once, or the message that they describe."""
        await self._start(answer.stored.request_id)
        await self._write(answer.events.encode() if self.streams else _message(answer), last=True)

    async def error(self, error: GatewayError) -> None:
        """Write an error, with its own status if no headers went out yet."""
        # After a ping the status 200 is out, so the error's type has to say all.
        if not self._started:
            await self.json(error.status, error.body)
            return
        body = {**error.body, "type": "error"}
        await self._write((sse.encode(body) if self.streams else json.dumps(body)).encode(), last=True)

    async def _start(self, request_id: str | None = None) -> None:
        if not self._started:
            await self._head(200, "text/event-stream" if self.streams else "application/json", request_id)

    async def _head(self, status: int, content_type: str, request_id: str | None = None) -> None:
        self._started = True
        headers = [(b"content-type", f"{content_type}; charset=utf-8".encode())]
        if request_id:
            headers.append((b"request-id", request_id.encode("latin-1", errors="replace")))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write(self, data: bytes, *, last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})
