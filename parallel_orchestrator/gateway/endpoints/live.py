"""The live endpoint: makes one try at a call over HTTP. Returns every failure as an outcome and raises none."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx2

from parallel_orchestrator.gateway.calls.messages import (
    Answered,
    CallFault,
    Json,
    ModelRequest,
    Outcome,
    Refusal,
    Scope,
)
from parallel_orchestrator.gateway.endpoints.answer_redaction import redacted, without_secrets, writable
from parallel_orchestrator.gateway.endpoints.error_classifier import classify_event, classify_status, lasting_reason
from parallel_orchestrator.gateway.pacing.inactivity import InactivityTimeout
from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.records.credential import Credential
from parallel_orchestrator.system import json_codec, redact

_LONGEST_TIMEOUT_S = 600.0
_CONNECT_S = 30.0
_END_S = 0.05
_LARGEST_ERROR = 100_000
_LONGEST_TEXT = 1000
_EXCERPT = 120
"""Characters of a server's text that a message quotes."""
_BEGINNING_S = 1.0
_LARGEST_MESSAGE = 64 * 2**20
"""Bytes of an answer without a stream; far more than any model writes."""


Streamed = tuple[list[Json], str]
"""The events of a stream, and its text."""


class LiveEndpoint:
    """A server that speaks the Messages API. It reports to `inactivity` what the server sends."""

    free = False

    def __init__(self, base_url: str, credential: Credential | None, inactivity: InactivityTimeout) -> None:
        longest = min(inactivity.patience_s, _LONGEST_TIMEOUT_S)
        self.name = base_url
        self._url = httpx2.URL(base_url.rstrip("/") + "/v1/messages")  # parsed once, not at each call
        self._credential = credential
        self._inactivity = inactivity
        self._pool = ConnectionPool(
            # httpx reads proxies and the CA bundle from the environment. Nothing else is in this process's environment.
            timeout=httpx2.Timeout(longest, connect=min(longest, _CONNECT_S), pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=1, keepalive_expiry=30.0),
            # A redirect would carry the credential to a host that the user has not named.
            follow_redirects=False,
            mounts={"http://": None, "https://": None} if _is_here(base_url) else None,
        )

    async def ask(self, request: ModelRequest, on_first_event: Callable[[Json], None]) -> Outcome:
        """Makes one try. An incomplete answer is a fault."""
        try:
            # Each event of an answer moves this limit. Bytes alone do not: one a minute would never end.
            async with asyncio.timeout(self._inactivity.no_progress_s) as limit:
                return redacted(await self._try(request, limit, on_first_event))
        except TimeoutError:
            seconds = self._inactivity.no_progress_s
            return CallFault("stalled", ambiguous=True, detail=f"no further event of an answer in {seconds:g} s")
        except httpx2.TimeoutException as error:
            # Only after the whole request was sent can the endpoint have billed it.
            sent = isinstance(error, httpx2.ReadTimeout)
            return _fault("timeout" if sent else "connect", error, ambiguous=sent, responded=False)
        except (httpx2.ConnectError, httpx2.ProxyError, httpx2.UnsupportedProtocol) as error:
            return await self._unreached(error)
        except (httpx2.TransportError, httpx2.StreamError) as error:
            # A request that was not sent whole starts no work. After that the gateway cannot know what was billed.
            sent = not isinstance(error, (httpx2.WriteError, httpx2.LocalProtocolError))
            return _fault("reset", error, ambiguous=sent, responded=False)
        except (httpx2.HTTPError, httpx2.InvalidURL, sse.BadEvent, RecursionError) as error:
            bad = isinstance(error, sse.BadEvent)
            return replace(_fault("garbage", error, ambiguous=bad), misformat="bad event" if bad else "")

    async def _unreached(self, error: httpx2.TransportError) -> Outcome:
        """Returns a refusal when no try can ever connect, else a fault."""
        # A proxy resolves and connects in the endpoint's place, so its failure says nothing about the endpoint.
        proxied = isinstance(error, httpx2.ProxyError)
        if not proxied and (why := await lasting_reason(error, self._url.host)):
            return Refusal(502, "api_error", why, Scope.UNUSABLE)
        return _fault("connect", error, ambiguous=False, responded=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.close()

    async def _try(
        self, request: ModelRequest, limit: asyncio.Timeout, on_first_event: Callable[[Json], None]
    ) -> Outcome:
        started = time.monotonic()
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "anthropic-version": "2023-06-01",
            # The caller authenticates with its attempt's token; only the gateway's credential goes out.
            **request.headers,
            **(self._credential.headers() if self._credential else {}),
        }
        url = self._url.copy_with(query=request.query.encode()) if request.query else self._url
        async with (
            self._pool.acquire() as client,
            client.stream("POST", url, content=request.body, headers=headers) as response,
        ):
            self._inactivity.on_bytes()
            if response.status_code != 200:
                # Redacted before it is cut: half a secret would not be recognised.
                body = redact.foreign(_json_or_text(await _body(response, _LARGEST_ERROR)))
                body = body[:_LONGEST_TEXT] if isinstance(body, str) else body
                return classify_status(response.status_code, response.headers, body)
            content_type = response.headers.get("content-type", "")
            if "text/event-stream" in content_type:
                received = await self._read(response, limit, on_first_event)
            elif "application/json" in content_type:
                received = _events_of_message(await _body(response, _LARGEST_MESSAGE))
            else:
                detail = f"with {content_type or 'no content type'}, no event stream"
                return _garbage(detail, await _beginning(response), "no event stream", ambiguous=False)
            if not isinstance(received, tuple):
                return received
            request_id = response.headers.get("request-id")
            return _whole_answer(request, *received, request_id, time.monotonic() - started)

    async def _read(
        self, response: httpx2.Response, limit: asyncio.Timeout, on_first_event: Callable[[Json], None]
    ) -> Streamed | CallFault | Refusal:
        reader = sse.EventReader()
        events: list[Json] = []
        pieces = response.aiter_bytes()
        async for data in pieces:
            self._inactivity.on_bytes()
            before = len(events)
            for event in reader.feed(data):
                if event.get("type") == "error":  # redacted before it is cut: half a secret would not be recognised
                    return classify_event(redact.foreign(event), answer_started=bool(events))
                if event.get("type") == "message_start":
                    on_first_event(event)
                events.append(event)
            if any(event.get("type") != "ping" for event in events[before:]):
                limit.reschedule(asyncio.get_running_loop().time() + self._inactivity.no_progress_s)
                self._inactivity.on_progress()
            if events and events[-1].get("type") == "message_stop":
                break
        await _read_to_end(pieces)
        return events, reader.verbatim()


class ConnectionPool:
    """HTTP clients with one connection each, as many as there were calls at once. The last released is reused first.

    One client for all calls would examine each of its connections at the start and end of every call. `options` go
    to each `httpx2.AsyncClient`.
    """

    def __init__(self, **options: Any) -> None:
        # Reading the certificates of the authorities is the slowest step, so all clients share the context.
        self._options = {"verify": httpx2.create_ssl_context(), **options}
        self._idle: list[httpx2.AsyncClient] = []
        self._all: list[httpx2.AsyncClient] = []

    @contextlib.asynccontextmanager
    async def acquire(self) -> AsyncIterator[httpx2.AsyncClient]:
        """Yields a client that no other call uses meanwhile."""
        if self._idle:
            client = self._idle.pop()
        else:
            client = httpx2.AsyncClient(**self._options)
            self._all.append(client)
        try:
            yield client
        finally:
            self._idle.append(client)

    async def close(self) -> None:
        """Close all connections."""
        for client in self._all:
            await client.aclose()


def _fault(kind: str, error: Exception, *, ambiguous: bool, responded: bool = True) -> CallFault:
    detail = f"{type(error).__name__}: {error}"
    return CallFault(kind, ambiguous, redact.foreign(detail)[:300], responded=responded)


def _garbage(detail: str, text: str, misformat: str, *, ambiguous: bool = True) -> CallFault:
    """Returns the fault for a response that is no answer; it quotes the start of `text`."""
    detail = f"status 200 {detail}: {redact.foreign(text)[:_EXCERPT]!r}"
    return CallFault("garbage", ambiguous, detail, misformat=misformat)


def _is_here(url: str) -> bool:
    """Whether the URL names this machine itself, which a proxy cannot reach."""
    host = httpx2.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _whole_answer(
    request: ModelRequest, events: list[Json], text: str, request_id: str | None, endpoint_s: float
) -> Outcome:
    """Returns the answer when it is complete, else a fault."""
    last = events[-1].get("type") if events else "nothing"
    if last != "message_stop":
        # A break inside the answer may be the connection's. One before the first event, or after the end of the
        # content, is the server's way to write its streams.
        misformat = f"ends after {last}" if last in ("nothing", "message_delta") else ""
        return CallFault("truncated", ambiguous=True, detail=f"the stream ended after {last}", misformat=misformat)
    try:
        message = sse.assemble(events)
        stop_reason, model = message["stop_reason"], str(message.get("model") or request.model)
        ending = str(stop_reason)
        text, message = without_secrets(events, text, message)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError) as error:
        return _garbage(f"with events out of order ({error!r})", text, "events out of order")
    if not stop_reason:
        return CallFault("truncated", ambiguous=True, detail="the answer has no stop reason")
    usage = _recordable(message["usage"])
    return Answered(text, message, writable(model), writable(ending), usage, request_id, endpoint_s)


def _recordable(usage: Json) -> Json:
    """Returns the usage if a file can hold it, else an empty one: the answer is worth more."""
    try:
        return json.loads(json_codec.text(usage).encode())  # type: ignore[no-any-return]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return {}


def _events_of_message(data: bytes) -> Streamed | CallFault | Refusal:
    """Returns the events that an endpoint would have streamed; some ignore `stream`."""
    message = _json_or_text(data)
    if not isinstance(message, dict):
        return _garbage("with JSON that is cut or invalid", str(message), "no JSON")
    if message.get("type") == "error" or "error" in message:
        return classify_event(redact.foreign(message), answer_started=False)
    try:
        text = sse.stream_of(message)
        return sse.parse(text), text
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        return _garbage(f"without a message ({error!r})", json.dumps(message), "no message")


async def _read_to_end(pieces: AsyncIterator[bytes]) -> None:
    """Read the end of a response after its last event, so that the next call can reuse the connection.

    When more than the end follows, or it does not come at once, the connection is closed instead.
    """
    with contextlib.suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(_END_S):
            await anext(pieces, None)


async def _beginning(response: httpx2.Response) -> str:
    """Returns the first characters of a body, as far as they arrive soon."""
    data = bytearray()
    with contextlib.suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(_BEGINNING_S):
            await _collect(response, data, _LONGEST_TEXT)
    return data.decode("utf-8", errors="replace")


async def _body(response: httpx2.Response, at_most: int) -> bytes:
    data = bytearray()
    await _collect(response, data, at_most)
    return bytes(data)


async def _collect(response: httpx2.Response, data: bytearray, at_most: int) -> None:
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > at_most:
            break


def _json_or_text(data: bytes) -> Any:
    try:
        return json_codec.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", errors="replace")
