"""Removes known secrets from what an endpoint answered, in case it quotes one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from parallel_orchestrator.gateway.calls.messages import Json, Outcome
from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.system import redact

_CLEAN = frozenset({"events", "message"})
"""Fields of a whole answer that `without_secrets` has cleaned."""


def without_secrets(events: Sequence[Json], text: str, message: Json) -> tuple[str, Json]:
    """Returns an answer's SSE text and message without known secrets. `events` are what `text` was parsed into.

    Returns both unchanged when neither contains a secret, even one split across events or escaped. Otherwise removes
    it from the message, regenerates the text from that, and reads the message from the new text. Raises ValueError,
    KeyError and the like when the message is no longer valid without the secret.
    """
    clean, deltas = redact.known(message), _joined_deltas(events)
    # All three: the message shows an escaped secret, the deltas one cut into events, the text one in other fields.
    if clean == message and redact.known(deltas) == deltas and redact.known(text) == text:
        return text, message
    text = redact.known(sse.stream_of(clean))
    return text, sse.assemble(sse.parse(text))


def redacted(outcome: Outcome) -> Outcome:
    """Returns the outcome without known secrets, and without lone surrogates, which no file can hold."""
    unclean = [field.name for field in fields(outcome) if field.name not in _CLEAN]
    return replace(outcome, **{name: writable(redact.known(getattr(outcome, name))) for name in unclean})


def writable(value: Any) -> Any:
    """Returns a text without lone surrogates, and any other value unchanged."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _joined_deltas(events: Iterable[Json]) -> str:
    """Joins the deltas of a stream block by block, so that a secret cut into several events is whole again."""
    pieces: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for event in events:
        delta, index = event.get("delta"), str(event.get("index"))
        for name, text in delta.items() if isinstance(delta, dict) else ():
            if isinstance(text, str):
                pieces[index, name].append(text)
    return "\n".join(map("".join, pieces.values()))
