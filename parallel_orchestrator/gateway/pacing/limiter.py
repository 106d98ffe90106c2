"""Limits how many calls go to the endpoint at once, and when. All runs and executors share one limiter.

A call meets three rules, in this order:

- a rate limit (429) closes the gate for all calls, for the endpoint's time or a growing one;
- after the gate opens, calls start one by one, not in a burst; each success halves the space between them;
- the number in flight adapts as TCP does. It doubles with each round of successes until the first overload,
  then grows by one a round. An overload halves it, at most once for all calls of one round.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator

START_LIMIT = 16
"""Calls in flight at first: more than the default five executors, few enough for a small account."""
MAX_LIMIT = 512
SPACING_S = 0.25
"""Between two calls just after a rate limit."""
MAX_HOLD_S = 120.0
"""Caps a retry-after header."""
MAX_BACKOFF_S = 30.0


def backoff(failures: int) -> float:
    """Returns the seconds to wait after so many failures in a row: exponential, capped, full jitter."""
    return random.uniform(0, min(MAX_BACKOFF_S, 0.5 * 2 ** min(failures - 1, 10)))  # noqa: S311 - no secret


class Limiter:
    """The shared gate. Only the event loop's thread may call it."""

    def __init__(self) -> None:
        self.limit = float(START_LIMIT)
        self.in_flight = 0
        self.held_until = 0.0
        """Monotonic time at which the gate opens."""
        self._learning = True
        self._spacing = 0.0
        self._last_start = 0.0
        self._last_cut = 0.0
        self._rate_limits = 0
        """Rounds with a 429 answer since the last success."""
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many calls wait at the gate."""
        return len(self._waiting)

    @contextlib.asynccontextmanager
    async def turn(self, *, retry: bool = False) -> AsyncIterator[float]:
        """Wait at the gate, a retry before all others; yields the start time. The call is in flight inside."""
        await self._admitted(retry=retry)
        try:
            yield self._last_start
        finally:
            self.in_flight -= 1
            self._let_through()

    def succeeded(self) -> None:
        """A call was answered."""
        self._rate_limits = 0
        self._spacing = self._spacing / 2 if self._spacing > 0.01 else 0.0
        self.limit = min(MAX_LIMIT, self.limit + (1 if self._learning else 1 / self.limit))
        self._let_through()

    def overloaded(self, started: float) -> None:
        """The endpoint was overloaded by a call that started then."""
        # All calls of one round meet the same overload. Only those that started after the cut may cut again.
        if started > self._last_cut:
            self._last_cut = time.monotonic()
            self._learning = False
            self.limit = max(1.0, self.limit / 2)

    def hold_back(self, started: float, retry_after_s: float | None) -> float:
        """Close the gate for all calls after a rate limit. Returns the seconds until it opens."""
        now = time.monotonic()
        # Before `overloaded` moves the cut: afterwards this call would seem to belong to an earlier round.
        if started > self._last_cut or not self._rate_limits:
            self._rate_limits += 1
        self.overloaded(started)
        growing = min(MAX_BACKOFF_S, 2.0 ** min(self._rate_limits - 1, 10)) * random.uniform(0.5, 1)  # noqa: S311
        wait = growing if retry_after_s is None else min(retry_after_s, MAX_HOLD_S)
        self.held_until = max(self.held_until, now + wait)
        self._spacing = SPACING_S
        return self.held_until - now

    async def _admitted(self, *, retry: bool) -> None:
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The caller of a retry has waited longest, and its attempt's clock runs.
        if retry:
            self._waiting.appendleft(admitted)
        else:
            self._waiting.append(admitted)
        self._let_through()
        try:
            await admitted
        except asyncio.CancelledError:
            # `_let_through` may admit this call, and its task be cancelled before it runs: give the place back.
            if admitted.done() and not admitted.cancelled():
                self.in_flight -= 1
            with contextlib.suppress(ValueError):
                self._waiting.remove(admitted)
            self._let_through()
            raise

    def _let_through(self) -> None:
        # Timer, success, end and admission all come here: only this loop counts a call as in flight.
        while self._waiting and self.in_flight + 1 <= self.limit:
            if self._waiting[0].cancelled():
                self._waiting.popleft()
                continue
            now = time.monotonic()
            opens = max(self.held_until, self._last_start + self._spacing if self._spacing else 0.0)
            if opens > now:
                self._reopen_after(opens - now)
                return
            self.in_flight += 1
            self._last_start = now
            self._waiting.popleft().set_result(None)

    def _reopen_after(self, delay: float) -> None:
        # One timer is enough: each call of `_let_through` computes the time again.
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay + 0.001, self._let_through)


class Unlimited(Limiter):
    """Lets every call through at once: a recording has no rate limit."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = float("inf")

    def succeeded(self) -> None:
        """Keep the limit as it is."""
