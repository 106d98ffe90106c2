"""What a follower reports apart from tasks: calls at the endpoint, and the warning before a cap."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection
from typing import Any, Protocol

from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.report.facts.spending import FollowedLedger
from parallel_orchestrator.report.live.snapshot import Traffic
from parallel_orchestrator.report.live.view import View

_ASK_S = 1.0


class StatsSource(Protocol):
    """Knows the calls in flight; GatewayProcess."""

    def status(self) -> dict[str, Any]:
        """Its figures. Raises CannotGoOn."""


class GatewayStats:
    """The calls that are under way at the endpoint, as the gateway says, or as the ledgers show.

    A thread asks the gateway at most once a second, because its answer may take long.
    """

    def __init__(self) -> None:
        self._last: dict[str, Any] | None = None
        self._asked = 0.0
        self._asking: threading.Thread | None = None

    def traffic(self, gateway: StatsSource | None, ledgers: Collection[FollowedLedger]) -> Traffic | None:
        """Return the latest figures; None before a gateway's first answer."""
        if gateway is None:
            return Traffic.from_ledgers(ledgers)
        now = time.monotonic()
        if now - self._asked >= _ASK_S and not (self._asking and self._asking.is_alive()):
            self._asked = now
            self._asking = threading.Thread(target=self._ask, args=(gateway,), name="gateway stats", daemon=True)
            self._asking.start()
        return Traffic.of(self._last) if self._last else None

    def _ask(self, gateway: StatsSource) -> None:
        with contextlib.suppress(CannotGoOn):
            self._last = gateway.status()


class BudgetWarning:
    """Says once in `view` that most of a budget is spent. `whose`: what the budget is called."""

    def __init__(self, view: View, whose: str) -> None:
        self._view = view
        self._whose = whose
        self._said = False

    def look(self, usd: float, cap: float | None) -> None:
        """Compare what is spent with the cap; None: no cap."""
        if cap and not self._said and usd >= 0.8 * cap:
            self._said = True
            self._view.say(f"80 % of {self._whose} is spent: ${usd:.2f} of ${cap:.2f}")
