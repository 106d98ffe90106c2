"""Removes known secrets from an answer, from its SSE text and from its message alike."""

from __future__ import annotations

from collections.abc import Sequence

from parallel_orchestrator.gateway.calls.messages import Json
from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.system import redact


def without_secrets(events: Sequence[Json], text: str, message: Json) -> tuple[str, Json]:
    """Returns an answer's SSE text and message without known secrets. `events` are what `text` was parsed into.

    Returns both unchanged when neither contains a secret, even one split across events or escaped. Otherwise removes
    it from the message, regenerates the text from that, and reads the message from the new text. Raises ValueError,
    KeyError and the like when the message is no longer valid without the secret.
    """
    clean, joined = redact.known(message), sse.joined(events)
    if clean == message and redact.known(joined) == joined and redact.known(text) == text:
        return text, message
    text = redact.known(sse.stream_of(clean))
    return text, sse.assemble(sse.parse(text))
