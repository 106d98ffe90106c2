"""Asking the model: the official SDK, over the gateway's Unix socket.

The gateway retries, waits and records; it gives an answer only when that answer is whole and
on disk. So this client retries one thing alone: that the gateway itself is not there, is being
started again, or dies within a call. Asking again then costs nothing that was answered already.
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
"""The gateway gives a sign of life every 15 s; a connection without a byte for so long is dead."""
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
"""Fields of a body that are arguments of the SDK's method. It passes on others, beta ones say, as they are."""

_CONTEXT_FULL = re.compile(
    r"prompt is too long|exceeds? (?:the |its )?(?:maximum |available )?context|context (?:limit|window|size|length)"
    r"|maximum context",
    re.IGNORECASE,
)
"""How endpoints say that a request is longer than the model's context window."""

_PASSING = frozenset({"api_error", "overloaded_error", "rate_limit_error", "timeout_error"})
"""Error types that are gone at the next try."""

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
    """How long the endpoint took for it."""
    waited_s: float
    """All other waiting: for the rate limit, between tries."""


class _Fault(Exception):
    """This try gave no answer; the next may."""

    def __init__(self, told: str, *, begun: bool) -> None:
        super().__init__(told)
        self.begun = begun
        """Whether the gateway had begun to answer."""


class ModelClient:
    """Asks in the name of one attempt.

    Until it has asked for the first time it may be handed to another process. A connection does not survive that.
    """

    def __init__(self, socket: Path, token: str, patience_s: float = PATIENCE_S) -> None:
        self._socket = socket
        self._token = token
        self._patience_s = patience_s

    def ask(self, request: Mapping[str, Any], /, *, turn: int, phase: str, phase_turn: int, betas: str = "") -> Answer:
        """The model's answer to `request`, a body of the Messages API. `betas`: the beta features that it uses.

        `turn` counts all answers of the attempt and is part of the ledger's key: asked again after a
        fault or a restart, the same answer is delivered.

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

        # A transport of one's own also keeps proxies of the environment out of the way.
        # There is no TLS on a Unix socket; making ready for it takes twenty milliseconds for each client.
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
        # No stream: the gateway has the answer whole before it says a word of it (decision 0014).
        create = self._sdk.messages.with_streaming_response.create
        try:
            with create(**arguments, extra_headers=headers, extra_body=extra) as response:
                begun = True
                told = response.read()
        except anthropic.APIStatusError as error:
            raise _meaning(str(error.type or ""), error.api_message or str(error), error.status_code) from error
        except (anthropic.AnthropicError, httpx2.HTTPError) as error:
            raise _Fault(f"{type(error).__name__}: {error}", begun=begun) from error
        except ValueError as error:
            raise RequestRefused(f"the request cannot be written as JSON: {error}") from error
        return _answer(told, response.status_code)


def _answer(told: bytes, status: int) -> Answer:
    """What the gateway said. Raises what `_meaning` gives, and _Fault for what is no JSON."""
    try:
        message = json.loads(told)
    except ValueError as error:
        raise _Fault(f"{type(error).__name__}: {error}", begun=True) from error
    if message.get("type") == "error":  # found out after the first sign of life, so without a status of its own
        raise _meaning(message["error"]["type"], message["error"]["message"], status)
    return Answer(
        content=_clean(message["content"]),
        stop_reason=message["stop_reason"],
        usage=message["usage"],
        model=message.get("model") or "",
        endpoint_s=message["orchestrator"]["endpoint_s"],
        waited_s=message["orchestrator"]["waited_s"],
    )


def _meaning(kind: str, told: str, status: int) -> Exception:
    """What an error of the gateway, or one that it passes on, means for the caller."""
    if kind in _ENDS:
        return _ENDS[kind](told)
    if status >= 500 or kind in _PASSING:
        return _Fault(f"{kind or status}: {told}", begun=True)
    bad = kind == "invalid_request_error" or status == _BAD
    full = kind == "request_too_large" or status == _TOO_LARGE or (bad and _CONTEXT_FULL.search(told))
    refused = ContextFull if full else RequestRefused
    return refused(f"the endpoint refused the request ({kind or status}): {told}")


def _clean(value: Any) -> Any:
    """The value without lone surrogates, which JSON can carry and UTF-8 cannot."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value
