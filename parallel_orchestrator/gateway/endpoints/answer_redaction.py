"""Keeping known secrets out of an answer, whichever way it is told."""

from __future__ import annotations

from collections.abc import Sequence

from parallel_orchestrator.gateway.calls.messages import Json
from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.system import redact


def without_secrets(events: Sequence[Json], text: str, message: Json) -> tuple[str, Json]:
    """An answer's SSE text and its message. `events` are what the text says, and what `message` was made of.

    Both as they came when no known secret is in them, in several pieces or spelt in another way neither. Else the
    text is that of the message without it, and the message what that text will be read as. Raises ValueError,
    KeyError and the like when a secret stood where nothing else can.
    """
    clean, joined = redact.known(message), sse.joined(events)
    if clean == message and redact.known(joined) == joined and redact.known(text) == text:
        return text, message
    text = redact.known(sse.stream_of(clean))
    return text, sse.assemble(sse.parse(text))
