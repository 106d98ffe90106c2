"""How long the endpoint has sent nothing, or nothing of use, while somebody waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

USELESS_FACTOR = 3
"""An endpoint that sends something has this many times the patience until an answer is whole."""
MAX_FAILURES = 3
"""Tries that fail between two answers; from then on parts of answers are no sign of progress any more."""


class Silence:
    """Patience with an endpoint, on two clocks.

    Sent nothing: `heard` sets it back; a wait of our own choosing (`excuse`) does not count. Nothing of use: whole
    answers set it back, and so does each further event of an answer, which may take an hour on a slow machine. Where
    answers break off again and again only whole ones count.
    """

    def __init__(self, patience_s: float, quiet_since: Callable[[], float]) -> None:
        self.patience_s = patience_s
        self._quiet_since = quiet_since
        """Monotonic time before which we held calls back ourselves."""
        self._since = self._useful = time.monotonic()
        self._failures = 0

    @property
    def useless_s(self) -> float:
        """How long an endpoint may send without anything of use, in all and in a single try."""
        return USELESS_FACTOR * self.patience_s

    def begin(self) -> None:
        """The first call begins to wait."""
        self.heard()
        self.answered()

    def heard(self) -> None:
        """The endpoint sent something."""
        self._since = max(self._since, time.monotonic())

    def progressed(self) -> None:
        """The endpoint sent a further event of an answer."""
        if self._failures < MAX_FAILURES:
            self._useful = time.monotonic()

    def answered(self) -> None:
        """An answer is whole."""
        self._useful, self._failures = time.monotonic(), 0

    def failed(self) -> None:
        """A try gave no answer."""
        self._failures += 1

    def excuse(self, seconds: float) -> None:
        """We shall not call for that long."""
        self._since = max(self._since, time.monotonic() + seconds)

    def left_s(self) -> float:
        """Seconds until the patience is over, when nothing comes."""
        return max(0.0, min(self._left()))

    def _left(self) -> tuple[float, float]:
        """Seconds that are left on each clock: sent nothing, nothing of use."""
        now = time.monotonic()
        silent = max(self._since, self._quiet_since()) + self.patience_s - now
        return silent, self._useful + self.useless_s - now

    async def until_too_long(self) -> str:
        """Return when the patience is over, with what was waited for in vain."""
        while True:
            silent, useless = self._left()
            if silent <= 0:
                return f"the endpoint has sent nothing for {self.patience_s:g} s"
            if useless <= 0:
                return f"the endpoint has given no whole answer for {self.useless_s:g} s"
            await asyncio.sleep(min(silent, useless) + 0.001)
