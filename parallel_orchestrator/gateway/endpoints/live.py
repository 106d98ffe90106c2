"""The live endpoint: one try at one call over HTTP, told as an outcome and never as an exception."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from typing import Any

import httpx2

from parallel_orchestrator.gateway.calls.messages import Answered, Ask, Fault, Json, Outcome, Refusal, Scope
from parallel_orchestrator.gateway.endpoints.answer_redaction import without_secrets
from parallel_orchestrator.gateway.endpoints.connection_pool import Clients
from parallel_orchestrator.gateway.endpoints.error_classifier import classify_event, classify_status, lasting_reason
from parallel_orchestrator.gateway.pacing.inactivity import InactivityTimeout
from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.records.credential import Credential
from parallel_orchestrator.system import json_codec, redact

_LONGEST_SILENCE_S = 600.0
_CONNECT_S = 30.0
_END_S = 0.05
_LARGEST_ERROR = 100_000
_LONGEST_TEXT = 1000
_EXCERPT = 120
"""Characters of what a server sent that are shown to a person."""
_BEGINNING_S = 1.0
_LARGEST_MESSAGE = 64 * 2**20
"""Bytes of an answer that does not come as a stream; far more than any model says."""


Streamed = tuple[list[Json], str]
"""The events of a stream, and its text."""


class LiveEndpoint:
    """A server that speaks the Messages API. It reports to `inactivity` what the server sends."""

    free = False

    def __init__(self, base_url: str, credential: Credential | None, inactivity: InactivityTimeout) -> None:
        longest = min(inactivity.patience_s, _LONGEST_SILENCE_S)
        self.name = base_url
        self._url = httpx2.URL(base_url.rstrip("/") + "/v1/messages")  # taken apart once, not at each call
        self._credential = credential
        self._inactivity = inactivity
        self._clients = Clients(
            # Of the environment this reads the proxies and the CA bundle; the process is started without anything else.
            timeout=httpx2.Timeout(longest, connect=min(longest, _CONNECT_S), pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=1, keepalive_expiry=30.0),
            follow_redirects=False,
            mounts={"http://": None, "https://": None} if _is_here(base_url) else None,
        )

    async def ask(self, ask: Ask, begun: Callable[[Json], None]) -> Outcome:
        """One try. An answer that is not whole is a fault."""
        try:
            # Each event of an answer moves this limit. Bytes alone do not: one a minute would never end.
            async with asyncio.timeout(self._inactivity.no_progress_s) as limit:
                return _redacted(await self._try(ask, limit, begun))
        except TimeoutError:
            seconds = self._inactivity.no_progress_s
            return Fault("stalled", ambiguous=True, detail=f"no further event of an answer in {seconds:g} s")
        except httpx2.TimeoutException as error:
            sent = isinstance(error, httpx2.ReadTimeout)
            return self._fault("timeout" if sent else "connect", error, ambiguous=sent, responded=False)
        except (httpx2.ConnectError, httpx2.ProxyError, httpx2.UnsupportedProtocol) as error:
            return await self._unreached(error)
        except (httpx2.TransportError, httpx2.StreamError) as error:
            # A request that was not sent whole starts no work. After that nobody knows what was billed.
            sent = not isinstance(error, (httpx2.WriteError, httpx2.LocalProtocolError))
            return self._fault("reset", error, ambiguous=sent, responded=False)
        except (httpx2.HTTPError, httpx2.InvalidURL, sse.BadEvent, RecursionError) as error:
            bad = isinstance(error, sse.BadEvent)
            return replace(self._fault("garbage", error, ambiguous=bad), misformat="bad event" if bad else "")

    async def _unreached(self, error: httpx2.TransportError) -> Outcome:
        """A refusal where no try can ever connect; else a fault."""
        proxied = isinstance(error, httpx2.ProxyError)
        if not proxied and (why := await lasting_reason(error, self._url.host)):
            return Refusal(502, "api_error", why, Scope.UNUSABLE)
        return self._fault("connect", error, ambiguous=False, responded=False)

    async def close(self) -> None:
        """End all connections."""
        await self._clients.close()

    async def _try(self, ask: Ask, limit: asyncio.Timeout, begun: Callable[[Json], None]) -> Outcome:
        started = time.monotonic()
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "anthropic-version": "2023-06-01",
            **ask.headers,
            **(self._credential.headers() if self._credential else {}),
        }
        url = self._url.copy_with(query=ask.query.encode()) if ask.query else self._url
        async with (
            self._clients.lend() as client,
            client.stream("POST", url, content=ask.body, headers=headers) as response,
        ):
            self._inactivity.on_bytes()
            if response.status_code != 200:
                body = redact.foreign(_json_or_text(await _body(response, _LARGEST_ERROR)))
                body = body[:_LONGEST_TEXT] if isinstance(body, str) else body
                return classify_status(response.status_code, response.headers, body)
            content_type = response.headers.get("content-type", "")
            if "text/event-stream" in content_type:
                found = await self._read(response, limit, begun)
            elif "application/json" in content_type:
                found = _events_of_message(await _body(response, _LARGEST_MESSAGE))
            else:
                shown = redact.foreign(await _beginning(response))[:_EXCERPT]
                detail = f"status 200 with {content_type or 'no content type'}, no event stream: {shown!r}"
                found = Fault("garbage", ambiguous=False, detail=detail, misformat="no event stream")
            if not isinstance(found, tuple):
                return found
            return _whole(ask, *found, response.headers.get("request-id"), time.monotonic() - started)

    async def _read(
        self, response: httpx2.Response, limit: asyncio.Timeout, begun: Callable[[Json], None]
    ) -> Streamed | Fault | Refusal:
        reader = sse.EventReader()
        events: list[Json] = []
        pieces = response.aiter_bytes()
        async for data in pieces:
            self._inactivity.on_bytes()
            before = len(events)
            for event in reader.feed(data):
                if event.get("type") == "error":  # cleaned before it is cut short: half a key is found by nobody
                    return classify_event(redact.foreign(event), answer_started=bool(events))
                if event.get("type") == "message_start":
                    begun(event)
                events.append(event)
            if any(event.get("type") != "ping" for event in events[before:]):
                limit.reschedule(asyncio.get_running_loop().time() + self._inactivity.no_progress_s)
                self._inactivity.on_progress()
            if events and events[-1].get("type") == "message_stop":
                break
        await _read_to_end(pieces)
        return events, reader.verbatim()

    def _fault(self, kind: str, error: Exception, *, ambiguous: bool, responded: bool = True) -> Fault:
        detail = f"{type(error).__name__}: {error}"
        return Fault(kind, ambiguous, redact.foreign(detail)[:300], responded=responded)


def _redacted(outcome: Outcome) -> Outcome:
    """The outcome without known secrets, should the endpoint have quoted one, and without lone surrogates.

    No file can hold those.
    """
    unclean = [field.name for field in fields(outcome) if field.name not in _CLEAN]
    return replace(outcome, **{name: _writable(redact.known(getattr(outcome, name))) for name in unclean})


_CLEAN = frozenset({"events", "message"})
"""Of a whole answer, by `without_secrets`."""


def _writable(value: Any) -> Any:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _is_here(url: str) -> bool:
    """Whether it names this machine itself, which no proxy can reach for us."""
    host = httpx2.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _whole(ask: Ask, events: list[Json], text: str, request_id: str | None, took: float) -> Outcome:
    """The answer, when nothing of it is missing."""
    last = events[-1].get("type") if events else "nothing"
    if last != "message_stop":
        # After a part of an answer a connection may have broken; after its end, or before any of it, none has.
        misformat = f"ends after {last}" if last in ("nothing", "message_delta") else ""
        return Fault("truncated", ambiguous=True, detail=f"the stream ended after {last}", misformat=misformat)
    try:
        message = sse.assemble(events)
        stop_reason, model = message["stop_reason"], str(message.get("model") or ask.model)
        ending = str(stop_reason)
        text, message = without_secrets(events, text, message)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError) as error:
        detail = f"events out of order ({error!r}): {redact.foreign(text)[:_EXCERPT]!r}"
        return Fault("garbage", ambiguous=True, detail=detail, misformat="events out of order")
    if not stop_reason:
        return Fault("truncated", ambiguous=True, detail="the answer has no stop reason")
    return Answered(text, message, _writable(model), _writable(ending), _recordable(message["usage"]), request_id, took)


def _recordable(usage: Json) -> Json:
    """The usage if a file can hold it; else nothing of it, for which no answer is thrown away."""
    try:
        return json.loads(json_codec.text(usage).encode())  # type: ignore[no-any-return]
    except (ValueError, TypeError, OverflowError, RecursionError):
        return {}


def _events_of_message(data: bytes) -> Streamed | Fault | Refusal:
    """What an endpoint that does not stream would have streamed: some take no notice of `stream`."""
    message = _json_or_text(data)
    if not isinstance(message, dict):
        return Fault(
            "garbage",
            ambiguous=True,
            detail=f"status 200, but the JSON is cut or none: {redact.foreign(str(message))[:_EXCERPT]!r}",
            misformat="no JSON",
        )
    if message.get("type") == "error" or "error" in message:
        return classify_event(redact.foreign(message), answer_started=False)
    try:
        text = sse.stream_of(message)
        return sse.parse(text), text
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        shown = redact.foreign(json.dumps(message))[:_EXCERPT]
        detail = f"status 200, but no message ({error!r}): {shown}"
        return Fault("garbage", ambiguous=True, detail=detail, misformat="no message")


async def _read_to_end(pieces: AsyncIterator[bytes]) -> None:
    """Take the end of a response whose last event was seen, so that its connection serves the next call as well.

    Where there is more than the end, or it does not come at once, the connection is closed instead.
    """
    with contextlib.suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(_END_S):
            await anext(pieces, None)


async def _beginning(response: httpx2.Response) -> str:
    """The first characters of a body, as far as they come soon."""
    data = bytearray()
    with contextlib.suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(_BEGINNING_S):
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > _LONGEST_TEXT:
                    break
    return data.decode("utf-8", errors="replace")


async def _body(response: httpx2.Response, at_most: int) -> bytes:
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > at_most:
            break
    return bytes(data)


def _json_or_text(data: bytes) -> Any:
    try:
        return json_codec.loads(data)
    except (ValueError, RecursionError):
        return data.decode("utf-8", errors="replace")
