"""Lets one call fill the endpoint's prompt cache, so that others with the same prefix need not pay for it.

The endpoint caches a request's prefix when its answer starts. Calls with one prefix that go out earlier would each
pay the price of writing it. So one call leads; the others wait until its answer starts. If it fails, another leads.

This state is lost at a restart: then the first call of each prefix leads again. The gateway makes no extra calls.
A prefix that the endpoint did not cache (it may be too short) is waited for only once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

LIFETIME_S = 270.0
"""How long a prefix counts as cached after its last use. The API keeps one for five minutes."""
LONGEST_WAIT_S = 30.0
"""How long a call waits for the leader's answer to start. After that, time is worth more than the cached price."""

OnFirstEvent = Callable[[dict[str, Any]], None]
"""Called with the first event of an answer."""


class PromptCache:
    """What the gateway knows about the endpoint's prompt cache. For one event loop."""

    def __init__(self, lifetime_s: float = LIFETIME_S, longest_wait_s: float = LONGEST_WAIT_S) -> None:
        self._lifetime_s = lifetime_s
        self._longest_wait_s = longest_wait_s
        self._cached_until: dict[str, float] = {}
        self._leading: dict[str, asyncio.Event] = {}

    @contextlib.asynccontextmanager
    async def turn(self, prefix: str) -> AsyncIterator[OnFirstEvent]:
        """Wait until a call with `prefix` may go out. The call is made inside and reports its first event."""
        deadline = time.monotonic() + self._longest_wait_s
        # One leader wakes all that wait. The first to run leads next, so the others have to look again.
        while self._is_cold(prefix) and prefix in self._leading and (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leading[prefix].wait(), left)
        # No `await` stands between the look and this: no other call can start to lead in between.
        leads = self._is_cold(prefix) and prefix not in self._leading
        if leads:
            self._leading[prefix] = asyncio.Event()
        try:
            yield lambda event: self._on_first_event(prefix, event)
        finally:
            # A leader that failed, or was cancelled, must not leave the others waiting.
            if leads:
                self._leave(prefix)

    def _is_cold(self, prefix: str) -> bool:
        return bool(prefix) and self._cached_until.get(prefix, 0.0) < time.monotonic()

    def _on_first_event(self, prefix: str, event: dict[str, Any]) -> None:
        if prefix:
            self._cached_until[prefix] = time.monotonic() + self._lifetime_s if _was_cached(event) else float("inf")
            self._leave(prefix)

    def _leave(self, prefix: str) -> None:
        if leading := self._leading.pop(prefix, None):
            leading.set()


def _was_cached(event: dict[str, Any]) -> bool:
    """Whether an answer's first event says that the endpoint read from its cache, or wrote to it."""
    message = event.get("message")
    usage = message.get("usage") if isinstance(message, dict) else None
    return isinstance(usage, dict) and any(usage.get(f"cache_{way}_input_tokens") for way in ("read", "creation"))
