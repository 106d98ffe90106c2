"""How long the endpoint has sent nothing while somebody waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Silence:
    """Patience with an endpoint. `heard` resets it; a wait of our own choosing (`excuse`) does not count."""

    def __init__(self, patience_s: float, quiet_since: Callable[[], float]) -> None:
        self.patience_s = patience_s
        self._quiet_since = quiet_since
        """Monotonic time before which we held calls back ourselves."""
        self._since = time.monotonic()

    def heard(self) -> None:
        """The endpoint sent something, or the first call begins to wait."""
        self._since = max(self._since, time.monotonic())

    def excuse(self, seconds: float) -> None:
        """We shall not call for that long."""
        self._since = max(self._since, time.monotonic() + seconds)

    async def until_too_long(self) -> None:
        """Return when the patience is over."""
        while True:
            left = max(self._since, self._quiet_since()) + self.patience_s - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left + 0.001)
