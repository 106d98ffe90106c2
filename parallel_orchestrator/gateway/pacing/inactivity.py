"""How long the endpoint has sent nothing, or made no progress, while a call waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

NO_PROGRESS_FACTOR = 3
"""An endpoint that sends something has this many times the patience to finish an answer."""
MAX_FAILURES = 3
"""After so many failed tries in a row, parts of answers no longer count as progress."""


class InactivityTimeout:
    """Measures an endpoint's inactivity on two clocks, for all calls together.

    Any byte resets the first; a pause of the gateway's own stops it. An answer's end or further event resets the
    second: on a slow machine one answer may take an hour. After several broken answers only a whole one resets it.
    """

    def __init__(self, patience_s: float, held_until: Callable[[], float]) -> None:
        self.patience_s = patience_s
        self._held_until = held_until
        """Monotonic time until which the gateway itself holds calls back."""
        self._last_bytes = self._last_progress = time.monotonic()
        self._failures = 0

    @property
    def no_progress_s(self) -> float:
        """How long an endpoint may send without progress, over all calls and in a single try."""
        return NO_PROGRESS_FACTOR * self.patience_s

    def start(self) -> None:
        """Start both clocks: the first call begins to wait."""
        self.on_bytes()
        self.on_answer()

    def on_bytes(self) -> None:
        """The endpoint sent something."""
        # A pause may lie in the future. Another call's bytes must not shorten it: hence the maximum.
        self._last_bytes = max(self._last_bytes, time.monotonic())

    def on_progress(self) -> None:
        """The endpoint sent a further event of an answer."""
        if self._failures < MAX_FAILURES:
            self._last_progress = time.monotonic()

    def on_answer(self) -> None:
        """The endpoint finished an answer."""
        self._last_progress, self._failures = time.monotonic(), 0

    def on_failure(self) -> None:
        """A try ended without an answer."""
        self._failures += 1

    def pause(self, seconds: float) -> None:
        """The gateway makes no call for so long, so the endpoint has nothing to send."""
        self._last_bytes = max(self._last_bytes, time.monotonic() + seconds)

    def left_s(self) -> float:
        """Seconds until the timeout, if the endpoint sends nothing."""
        return max(0.0, min(self._left()))

    def _left(self) -> tuple[float, float]:
        """Seconds left on each clock: without a byte, without progress."""
        now = time.monotonic()
        silent = max(self._last_bytes, self._held_until()) + self.patience_s - now
        return silent, self._last_progress + self.no_progress_s - now

    async def wait(self) -> str:
        """Return at the timeout, with the reason for people."""
        while True:
            silent, no_progress = self._left()
            if silent <= 0:
                return f"the endpoint has sent nothing for {self.patience_s:g} s"
            if no_progress <= 0:
                return f"the endpoint has given no whole answer for {self.no_progress_s:g} s"
            # Other calls move both clocks while this sleeps, so it computes them again.
            await asyncio.sleep(min(silent, no_progress) + 0.001)
