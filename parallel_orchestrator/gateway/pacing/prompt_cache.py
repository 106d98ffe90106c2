"""Shared beginnings of prompts, each bought once: whoever asks first goes ahead, the others follow when it is cached.

The endpoint's cache takes a prefix over when the answer to a request that holds it begins. Of several calls with one
prefix that go out before that, each would buy it for itself. So while a prefix is not known to be cached, one call
leads; the others wait until its answer begins, or it fails, and then the next one leads.

Nothing of this is kept: after a restart the first call of each prefix leads again. Nothing is asked beside the calls
themselves. A prefix that the endpoint says it did not cache (it may be too short) is waited for once and never again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

LIFETIME_S = 270.0
"""A prefix counts as cached for so long after its last use: the API keeps one for five minutes."""
LONGEST_WAIT_S = 30.0
"""For the beginning of somebody else's answer. A slow one costs money then, not time."""

Begun = Callable[[dict[str, Any]], None]
"""Told of the answer's first event."""


class Prefixes:
    """What is known of the endpoint's cache. For one event loop."""

    def __init__(self, lifetime_s: float = LIFETIME_S, longest_wait_s: float = LONGEST_WAIT_S) -> None:
        self._lifetime_s = lifetime_s
        self._longest_wait_s = longest_wait_s
        self._cached_until: dict[str, float] = {}
        self._leading: dict[str, asyncio.Event] = {}

    @contextlib.asynccontextmanager
    async def turn(self, prefix: str) -> AsyncIterator[Begun]:
        """Wait until a call with `prefix` should go out; inside, the call is made, and tells when its answer begins."""
        deadline = time.monotonic() + self._longest_wait_s
        while self._is_cold(prefix) and prefix in self._leading and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leading[prefix].wait(), left)
        over = None
        if self._is_cold(prefix) and prefix not in self._leading:
            over = self._leading[prefix] = asyncio.Event()
        try:
            yield lambda event: self._begun(prefix, event)
        finally:
            if over:
                self._leave(prefix)

    def _is_cold(self, prefix: str) -> bool:
        return bool(prefix) and self._cached_until.get(prefix, 0.0) < time.monotonic()

    def _begun(self, prefix: str, event: dict[str, Any]) -> None:
        if prefix:
            self._cached_until[prefix] = time.monotonic() + self._lifetime_s if _was_cached(event) else float("inf")
            self._leave(prefix)

    def _leave(self, prefix: str) -> None:
        if leading := self._leading.pop(prefix, None):
            leading.set()


def _was_cached(event: dict[str, Any]) -> bool:
    """Whether the answer's first event says that anything was read from the cache or written to it."""
    message = event.get("message")
    usage = message.get("usage") if isinstance(message, dict) else None
    told = usage if isinstance(usage, dict) else {}
    return any(told.get(f"cache_{way}_input_tokens") for way in ("read", "creation"))
