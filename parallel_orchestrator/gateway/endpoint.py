"""The live endpoint: one try at one call over HTTP, told as an outcome and never as an exception."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx2

from parallel_orchestrator.gateway import sse
from parallel_orchestrator.gateway.credential import Credential, Redactor
from parallel_orchestrator.gateway.messages import Answered, Ask, Fault, Json, Outcome, Refusal
from parallel_orchestrator.gateway.verdicts import verdict_on_event, verdict_on_status

_LONGEST_SILENCE_S = 600.0
_CONNECT_S = 30.0
_LARGEST_ERROR = 100_000


class LiveEndpoint:
    """A server that speaks the Messages API. `heard` is called whenever it sends anything."""

    free = False

    def __init__(
        self, base_url: str, credential: Credential | None, patience_s: float, heard: Callable[[], None]
    ) -> None:
        silence = min(patience_s, _LONGEST_SILENCE_S)
        self._url = base_url.rstrip("/") + "/v1/messages"
        self._credential = credential.headers() if credential else {}
        self._redactor = Redactor(credential.value if credential else None)
        self._heard = heard
        self._client = httpx2.AsyncClient(
            # Of the environment this reads the proxies and the CA bundle; the process is started without anything else.
            timeout=httpx2.Timeout(silence, connect=min(silence, _CONNECT_S), pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30.0),
            follow_redirects=False,
        )

    async def ask(self, ask: Ask) -> Outcome:
        """One try. An answer that is not whole is a fault."""
        try:
            return self._redacted(await self._try(ask))
        except httpx2.TimeoutException as error:
            sent = isinstance(error, httpx2.ReadTimeout)
            return self._fault("timeout" if sent else "connect", error, ambiguous=sent, heard=False)
        except (httpx2.ConnectError, httpx2.ProxyError, httpx2.UnsupportedProtocol) as error:
            return self._fault("connect", error, ambiguous=False, heard=False)
        except (httpx2.TransportError, httpx2.StreamError) as error:
            # A request that was not sent whole starts no work. After that nobody knows what was billed.
            sent = not isinstance(error, (httpx2.WriteError, httpx2.LocalProtocolError))
            return self._fault("reset", error, ambiguous=sent, heard=False)
        except (httpx2.HTTPError, httpx2.InvalidURL, sse.BadEvent) as error:
            return self._fault("garbage", error, ambiguous=isinstance(error, sse.BadEvent))

    async def close(self) -> None:
        """End all connections."""
        await self._client.aclose()

    async def _try(self, ask: Ask) -> Outcome:
        started = time.monotonic()
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "anthropic-version": "2023-06-01",
            **ask.headers,
            **self._credential,
        }
        url = f"{self._url}?{ask.query}" if ask.query else self._url
        async with self._client.stream("POST", url, content=ask.body, headers=headers) as response:
            self._heard()
            if response.status_code != 200:
                return verdict_on_status(response.status_code, response.headers, await _error_body(response))
            return await self._read(ask, response, started)

    async def _read(self, ask: Ask, response: httpx2.Response, started: float) -> Outcome:
        if "text/event-stream" not in response.headers.get("content-type", ""):
            return Fault("garbage", ambiguous=False, detail="status 200, but no event stream")
        reader = sse.EventReader()
        events: list[Json] = []
        async for data in response.aiter_bytes():
            self._heard()
            for event in reader.feed(data):
                if event.get("type") == "error":
                    return verdict_on_event(event, begun=bool(events))
                events.append(event)
            if events and events[-1].get("type") == "message_stop":
                break
        took = time.monotonic() - started
        return _whole(ask, events, reader.verbatim(), response.headers.get("request-id"), took)

    def _fault(self, kind: str, error: Exception, *, ambiguous: bool, heard: bool = True) -> Fault:
        detail = f"{type(error).__name__}: {error}"
        return Fault(kind, ambiguous, self._redactor.text(detail)[:300], heard=heard)

    def _redacted(self, outcome: Outcome) -> Outcome:
        """The outcome without the key, should the endpoint have quoted it."""
        if isinstance(outcome, Answered):
            return replace(outcome, events=self._redactor.text(outcome.events))
        if isinstance(outcome, Refusal):
            cleaned = self._redactor.text(outcome.detail)
            return replace(outcome, detail=cleaned, body=self._redactor.deep(outcome.body))
        return replace(outcome, detail=self._redactor.text(outcome.detail))


def _whole(ask: Ask, events: list[Json], text: str, request_id: str | None, took: float) -> Outcome:
    """The answer, when nothing of it is missing."""
    last = events[-1].get("type") if events else "nothing"
    if last != "message_stop":
        return Fault("truncated", ambiguous=True, detail=f"the stream ended after {last}")
    try:
        message = sse.assemble(events)
        stop_reason, usage, model = message["stop_reason"], message["usage"], message.get("model") or ask.model
        json.dumps([stop_reason, usage, model], ensure_ascii=False).encode()  # or it could not be recorded
    except (KeyError, IndexError, TypeError, AttributeError, UnicodeEncodeError) as error:
        return Fault("garbage", ambiguous=True, detail=f"events out of order: {error!r}")
    if not stop_reason:
        return Fault("truncated", ambiguous=True, detail="the answer has no stop reason")
    return Answered(text, str(model), str(stop_reason), usage, request_id, took)


async def _error_body(response: httpx2.Response) -> Any:
    data = b""
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > _LARGEST_ERROR:
            break
    try:
        return json.loads(data)
    except ValueError:
        return data[:1000].decode("utf-8", errors="replace")
