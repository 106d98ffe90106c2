"""What passes between the gateway's parts: a caller's request, and the ways in which one try at it can end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol

Json = dict[str, Any]


@dataclass(frozen=True)
class TurnKey:
    """Where an answer belongs: one turn of one attempt. `turn` is None for callers that count no turns."""

    task: str
    attempt: int
    turn: int | None


@dataclass(frozen=True)
class ModelRequest:
    """One request of a caller, as it will go to the endpoint."""

    key: TurnKey
    phase: str
    phase_turn: int
    """From 1, within the phase. 0 until the service has counted it, for callers that do not."""
    model: str
    max_tokens: int
    body: bytes
    """The caller's JSON with `stream` set; everything else as it came."""
    hash: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the caller, to be passed on: versions and user agent."""
    prefix: str = ""
    """Digest of what comes before its messages, where the endpoint is asked to cache that; else empty."""


@dataclass(frozen=True)
class Answered:
    """A whole answer: its last event was seen, it has a stop reason, and every event is JSON."""

    events: str
    """The endpoint's SSE text, verbatim."""
    message: Json
    """The Message object that they describe."""
    model: str
    stop_reason: str
    usage: Json
    request_id: str | None
    endpoint_s: float
    """Seconds that this try took."""


@dataclass(frozen=True)
class CallFault:
    """The try failed in a way that another try may not."""

    kind: str
    """An HTTP status, or: reset, truncated, sse_error, timeout, stalled, connect, garbage, silent, internal."""
    ambiguous: bool
    """Whether the endpoint may have billed it."""
    detail: str
    retry_after_s: float | None = None
    overload: bool = False
    """The endpoint has too much to do: fewer calls in flight from now on."""
    holds_back: bool = False
    """A rate limit: no call is sent for a while."""
    responded: bool = True
    """Whether the endpoint itself responded. Then the wait before the next try is not its inactivity."""
    misformat: str = ""
    """How the answer breaks the format of the Messages API. The same twice more, and no other try is made."""


class Scope(Enum):
    """Whom a refusal concerns."""

    CALLER = auto()
    KEY_REFUSED = auto()
    CREDIT_EXHAUSTED = auto()
    MODEL_UNKNOWN = auto()
    UNUSABLE = auto()
    """The server speaks no Messages API, or cannot be reached under this address at all."""


@dataclass(frozen=True)
class Refusal:
    """The endpoint said no, and would say it again."""

    status: int
    type: str
    detail: str
    scope: Scope = Scope.CALLER
    body: Json | None = None
    """The endpoint's own error object, when it sent one."""


Outcome = Answered | CallFault | Refusal


class Endpoint(Protocol):
    """Where answers come from: a live endpoint or a recording."""

    name: str
    """For a person: the address of a live one."""
    free: bool
    """Whether answers cost nothing now; their price is then noted as the recorded one."""

    async def ask(self, request: ModelRequest, on_first_event: Callable[[Json], None]) -> Outcome:
        """Makes one try, and calls `on_first_event` when an answer starts. Raises nothing but CancelledError."""
        ...


_BILLING_HEADER = "x-anthropic-billing-header"


def body_hash(body: Json) -> str:
    """SHA-256 of what a request asks for.

    Left out is what varies without changing the question: whether it is streamed, the caller's metadata,
    and the billing header that Claude Code puts in front of its system prompt.
    """
    asked = {name: value for name, value in body.items() if name not in ("stream", "metadata")}
    if isinstance(asked.get("system"), list):
        asked["system"] = [block for block in asked["system"] if not _is_billing_header(block)]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def prefix_hash(body: Json) -> str:
    """SHA-256 of what stands before the messages; empty unless a cache breakpoint ends or lies in the system prompt."""
    system = body.get("system")
    if not isinstance(system, list) or not any(isinstance(b, dict) and b.get("cache_control") for b in system):
        return ""
    prefix = json.dumps([body.get("model"), body.get("tools"), system], separators=(",", ":"))
    return hashlib.sha256(prefix.encode()).hexdigest()


def _is_billing_header(block: Any) -> bool:
    return isinstance(block, dict) and str(block.get("text", "")).startswith(_BILLING_HEADER)
