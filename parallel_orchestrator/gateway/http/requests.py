"""Reads a caller's HTTP request into a `ModelRequest`: whose turn it is, and what goes to the endpoint."""

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
"""Digits of a number in a header."""

_FORWARDED = ("anthropic-version", "anthropic-beta", "user-agent")


@dataclass(frozen=True)
class Headers:
    """Request headers by lower-case name. Of repeated ones the last counts."""

    values: Mapping[str, str]

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> Headers:
        """Reads the headers of an ASGI scope."""
        return cls({name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]})

    def tokens(self) -> list[str]:
        """Returns the caller's tokens. Some clients send two headers, with different credentials."""
        bearer = self.values.get("authorization", "")
        tokens = [bearer[7:].strip() if bearer[:7].lower() == "bearer " else "", self.values.get("x-api-key", "")]
        return [token for token in tokens if token]

    def caller(self, secret: str) -> Caller:
        """Returns the attempt that the token proves. Raises GatewayError."""
        for token in self.tokens():
            if caller := verify(secret, token):
                return caller
        raise errors.unknown_token()

    def number(self, name: str) -> int | None:
        """Returns a header that is a whole number from 1. Raises GatewayError if it is something else."""
        text = self.values.get(name)
        if text is None:
            return None
        # The length first: `int` raises for thousands of digits.
        if not text.isdecimal() or len(text) > _MOST_DIGITS or not int(text):
            raise errors.bad_request(f"{name}: must be a whole number from 1, not {text!r}")
        return int(text)


def read_request(caller: Caller, headers: Headers, query: str, data: bytes) -> tuple[ModelRequest, bool]:
    """Returns the request, and whether the caller wants a stream. Raises GatewayError."""
    body = _object(data)
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise errors.bad_request("model: Field required")
    # The decoder allows more levels than the encoder behind the hashes.
    try:
        digest, prefix = body_hash(body), prefix_hash(body)
    except RecursionError:
        raise errors.bad_request("the request body is nested too deep") from None
    turn = headers.number("x-orchestrator-turn")
    # For a caller that counts no turns the service counts them: it knows the earlier answers.
    phase_turn = headers.number("x-orchestrator-phase-turn") or turn or 0
    request = ModelRequest(
        key=TurnKey(caller.task, caller.attempt, turn),
        phase=headers.values.get("x-orchestrator-phase", "work") if turn else "work",
        phase_turn=phase_turn if turn else 0,
        model=body["model"],
        max_tokens=_most_tokens(body.get("max_tokens")),
        # Encoded again: a key that came twice must not mean one thing here and another at the endpoint.
        body=json_codec.dumps({**body, "stream": True}),
        hash=digest,
        query=query,
        prefix=prefix,
        headers={name: headers.values[name] for name in _FORWARDED if name in headers.values},
    )
    return request, bool(body.get("stream"))


def _most_tokens(value: Any) -> int:
    """Returns the limit on the answer's length, 0 without one. Raises GatewayError for an absurd figure."""
    if not isinstance(value, int):
        return 0
    count = token_count(value)
    if count is None:
        raise errors.bad_request("max_tokens: must be a number of tokens")  # else it bounds no price
    return count


def _object(data: bytes) -> Json:
    try:
        body = json_codec.strict(data)
    except (ValueError, RecursionError) as error:
        raise errors.bad_request(f"the request body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise errors.bad_request("the request body is not a JSON object")
    return body
