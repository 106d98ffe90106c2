"""Asks the model with the official SDK, over the gateway's Unix socket.

The gateway retries, waits and records; it returns an answer only when that answer is whole and on disk.
This client retries only when the gateway is absent, restarts, or dies within a call. An answer that the
gateway has recorded is then delivered again without a new call.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_orchestrator.records.errors import (
    BatchBudgetReached,
    BudgetReached,
    CannotGoOn,
    ContextFull,
    EndpointUnavailable,
    EndpointUnusable,
    KeyRefused,
    ModelUnknown,
    OrchestratorError,
    RecordingExhausted,
    RequestRefused,
    TaskLimit,
)

if TYPE_CHECKING:
    import anthropic

PATIENCE_S = 120.0
"""How long the gateway may be away in one stretch."""

_SILENCE_S = 60.0
"""The gateway sends a byte every 15 s at least; a connection that is silent for this long is dead."""
_BAD, _TOO_LARGE = 400, 413
_MAX_BROKEN = 5
"""Answers in a row that begin and then break off."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 2.0

_ENDS: dict[str, type[OrchestratorError]] = {
    "budget_reached": BudgetReached,
    "task_budget_reached": TaskLimit,
    "key_refused": KeyRefused,
    "model_unknown": ModelUnknown,
    "endpoint_unusable": EndpointUnusable,
    "batch_budget_reached": BatchBudgetReached,
    "credit_exhausted": EndpointUnavailable,
    "endpoint_silent": EndpointUnavailable,
    "gateway_stopping": CannotGoOn,
    "cannot_write": CannotGoOn,
    "gateway_fault": CannotGoOn,
    "unknown_token": CannotGoOn,
    "recording_exhausted": RecordingExhausted,
}
"""What the gateway's own error types mean for the caller."""

_ARGUMENTS = frozenset(
    {"model", "max_tokens", "messages", "system", "tools", "thinking", "output_config", "cache_control"}
)
"""Fields of a body that are arguments of the SDK's method. Others, such as beta fields, go in `extra_body`."""

_CONTEXT_FULL = re.compile(
    r"prompt is too long|exceeds? (?:the |its )?(?:maximum |available )?context|context (?:limit|window|size|length)"
    r"|maximum context",
    re.IGNORECASE,
)
"""Matches the messages with which endpoints refuse a request longer than the model's context window."""

_PASSING = frozenset({"api_error", "overloaded_error", "rate_limit_error", "timeout_error"})
"""Error types that a retry may cure."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A whole answer of the model."""

    content: list[dict[str, Any]]
    """Its blocks, as they can be sent back."""
    stop_reason: str | None
    usage: dict[str, Any]
    """Token counts as the endpoint gave them; any of them may be missing."""
    model: str
    endpoint_s: float
    """Seconds that the endpoint took."""
    waited_s: float
    """Seconds of all other waiting: for the rate limit, between tries."""


class _Fault(Exception):
    """This try gave no answer; the next may."""

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.begun = begun
        """Whether the gateway had begun to answer."""


class ModelClient:
    """Asks on behalf of one attempt.

    May be passed to another process before its first call; a connection does not survive that.
    """

    def __init__(self, socket: Path, token: str, patience_s: float = PATIENCE_S) -> None:
        self._socket = socket
        self._token = token
        self._patience_s = patience_s

    def ask(self, request: Mapping[str, Any], /, *, turn: int, phase: str, phase_turn: int, betas: str = "") -> Answer:
        """Returns the model's answer to `request`, a body of the Messages API. `betas`: the beta features it uses.

        `turn` counts all answers of the attempt and is part of the ledger's key: a call repeated after a
        fault or a restart gets the same answer.

        Raises BudgetReached, TaskLimit, KeyRefused, ModelUnknown, EndpointUnusable, RecordingExhausted, RequestRefused
        (ContextFull where the request is longer than the model's context window), and CannotGoOn, also when the
        gateway is away for longer than `patience_s`.
        """
        headers = {
            "x-orchestrator-turn": str(turn),
            "x-orchestrator-phase": phase,
            "x-orchestrator-phase-turn": str(phase_turn),
            **({"anthropic-beta": betas} if betas else {}),
        }
        away_since, broken, wait = time.monotonic(), 0, _FIRST_WAIT_S
        while True:
            try:
                return self._try(request, headers)
            except _Fault as fault:
                _log.info("turn %d gave no answer: %s", turn, fault)
                if fault.begun:
                    away_since, broken, wait = time.monotonic(), broken + 1, _FIRST_WAIT_S
                if broken >= _MAX_BROKEN:
                    raise CannotGoOn(f"the gateway gives no whole answer ({fault}); resume the run") from fault
                if time.monotonic() - away_since > self._patience_s:
                    raise EndpointUnavailable(f"the gateway gives no answer ({fault}); resume the run") from fault
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT_S)

    def close(self) -> None:
        """Close the connection."""
        if "_sdk" in self.__dict__:
            self._sdk.close()

    @cached_property
    def _sdk(self) -> anthropic.Anthropic:
        # Not above: it takes two seconds, and workers have it preloaded.
        import anthropic, httpx2  # noqa: E401, I001

        # Our own transport also ignores the environment's proxies. A Unix socket needs no TLS, and preparing
        # it would take 20 ms a client.
        transport = httpx2.HTTPTransport(uds=str(self._socket), verify=False)
        return anthropic.Anthropic(
            api_key=self._token,
            base_url="http://gateway",
            max_retries=0,
            http_client=anthropic.DefaultHttpxClient(transport=transport, timeout=_SILENCE_S),
            timeout=_SILENCE_S,
        )

    def _try(self, request: Mapping[str, Any], headers: dict[str, str]) -> Answer:
        import anthropic, httpx2  # noqa: E401, I001 - as in _sdk

        begun = False
        arguments: Any = {name: value for name, value in request.items() if name in _ARGUMENTS}
        extra = {name: value for name, value in request.items() if name not in _ARGUMENTS} or None
        # Not streamed: the gateway sends an answer only when it has the whole (decision 0014).
        create = self._sdk.messages.with_streaming_response.create
        try:
            with create(**arguments, extra_headers=headers, extra_body=extra) as response:
                begun = True
                body = response.read()
        except anthropic.APIStatusError as error:
            raise _meaning(str(error.type or ""), error.api_message or str(error), error.status_code) from error
        except (anthropic.AnthropicError, httpx2.HTTPError) as error:
            raise _Fault(f"{type(error).__name__}: {error}", begun=begun) from error
        except ValueError as error:
            raise RequestRefused(f"the request cannot be written as JSON: {error}") from error
        return _answer(body, response.status_code)


def _answer(body: bytes, status: int) -> Answer:
    """Parses the gateway's response. Raises the error of `_meaning`, and _Fault for a body that is not JSON."""
    try:
        message = json.loads(body)
    except ValueError as error:
        raise _Fault(f"{type(error).__name__}: {error}", begun=True) from error
    if message.get("type") == "error":  # it came after the first byte, so it has no HTTP status
        raise _meaning(message["error"]["type"], message["error"]["message"], status)
    return Answer(
        content=_clean(message["content"]),
        stop_reason=message["stop_reason"],
        usage=message["usage"],
        model=message.get("model") or "",
        endpoint_s=message["orchestrator"]["endpoint_s"],
        waited_s=message["orchestrator"]["waited_s"],
    )


def _meaning(kind: str, message: str, status: int) -> Exception:
    """Returns the exception for an error of the gateway, or of the endpoint behind it."""
    if kind in _ENDS:
        return _ENDS[kind](message)
    if status >= 500 or kind in _PASSING:
        return _Fault(f"{kind or status}: {message}", begun=True)
    bad = kind == "invalid_request_error" or status == _BAD
    full = kind == "request_too_large" or status == _TOO_LARGE or (bad and _CONTEXT_FULL.search(message))
    refused = ContextFull if full else RequestRefused
    return refused(f"the endpoint refused the request ({kind or status}): {message}")


def _clean(value: Any) -> Any:
    """Returns the value without lone surrogates, which JSON allows and UTF-8 does not."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value
