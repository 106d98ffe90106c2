"""From a caller's HTTP request to a `ModelRequest`: whose turn it is, and what goes to the endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parallel_orchestrator.gateway.calls.messages import Json, ModelRequest, TurnKey, body_hash, prefix_hash
from parallel_orchestrator.gateway.http import errors
from parallel_orchestrator.records.attempt_token import Caller, verify
from parallel_orchestrator.records.usage import token_count
from parallel_orchestrator.system import json_codec

MAX_BODY = 32 * 2**20
"""Bytes; the API's own limit."""

_MOST_DIGITS = 9
"""Of a number in a header."""

_PASSED_ON = ("anthropic-version", "anthropic-beta", "user-agent")


@dataclass(frozen=True)
class Headers:
    """Request headers by lower-case name, the last of equal ones."""

    values: Mapping[str, str]

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> Headers:
        """Those of an ASGI scope."""
        return cls({name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]})

    def tokens(self) -> list[str]:
        """What the caller shows to prove who it is. Some clients send both headers, for different credentials."""
        bearer = self.values.get("authorization", "")
        shown = [bearer[7:].strip() if bearer[:7].lower() == "bearer " else "", self.values.get("x-api-key", "")]
        return [token for token in shown if token]

    def caller(self, secret: str) -> Caller:
        """The attempt that the token proves. Raises GatewayError."""
        found = [caller for token in self.tokens() if (caller := verify(secret, token))]
        if not found:
            raise errors.unknown_token()
        return found[0]

    def number(self, name: str) -> int | None:
        """A header that is a whole number from 1. Raises GatewayError when it is something else."""
        text = self.values.get(name)
        if text is None:
            return None
        if not text.isdecimal() or len(text) > _MOST_DIGITS or not int(text):
            raise errors.bad_request(f"{name}: a whole number from 1 is wanted, not {text!r}")
        return int(text)


def read_request(caller: Caller, headers: Headers, query: str, data: bytes) -> tuple[ModelRequest, bool]:
    """The request, and whether the caller wants a stream. Raises GatewayError."""
    body = _object(data)
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise errors.bad_request("model: Field required")
    try:
        digest, prefix = body_hash(body), prefix_hash(body)
    except RecursionError:
        raise errors.bad_request("the request body is nested too deep") from None
    turn = headers.number("x-orchestrator-turn")
    # A caller that counts no turns is given a count by the service, which knows its earlier answers.
    phase_turn = headers.number("x-orchestrator-phase-turn") or turn or 0
    request = ModelRequest(
        key=TurnKey(caller.task, caller.attempt, turn),
        phase=headers.values.get("x-orchestrator-phase", "work") if turn else "work",
        phase_turn=phase_turn if turn else 0,
        model=body["model"],
        max_tokens=_most_tokens(body.get("max_tokens")),
        # Written anew, as a key that came twice must not mean two things.
        body=json_codec.dumps({**body, "stream": True}),
        hash=digest,
        query=query,
        prefix=prefix,
        headers={name: headers.values[name] for name in _PASSED_ON if name in headers.values},
    )
    return request, bool(body.get("stream"))


def _most_tokens(value: Any) -> int:
    """What a request says of the answer's length; 0 where it says nothing. Raises GatewayError for an absurd figure."""
    if not isinstance(value, int):
        return 0
    count = token_count(value)
    if count is None:
        raise errors.bad_request("max_tokens: a number of tokens is wanted")  # a price cannot be bounded by it
    return count


def _object(data: bytes) -> Json:
    try:
        body = json_codec.strict(data)
    except (ValueError, RecursionError) as error:
        raise errors.bad_request(f"the request body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise errors.bad_request("the request body is not a JSON object")
    return body
