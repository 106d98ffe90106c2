"""One open run: its ledger, its endpoint, its caps, and the calls that are under way for it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from parallel_orchestrator.gateway.calls.ledger import Ledger, Stored
from parallel_orchestrator.gateway.calls.messages import Endpoint, Json, ModelRequest, TurnKey
from parallel_orchestrator.gateway.endpoints.prices import PriceTable
from parallel_orchestrator.gateway.http.errors import GatewayError
from parallel_orchestrator.gateway.pacing.limiter import Limiter
from parallel_orchestrator.messages_api import sse

CallKey = tuple[TurnKey, str]
"""Turn and hash of the request. Requests with equal keys are one call."""


@dataclass(frozen=True)
class Delivery:
    """A whole answer for its callers: where it lies on disk, and what it says."""

    stored: Stored
    events: str
    message: Json
    """What the events describe."""


@dataclass(eq=False)
class Purchase:
    """One call being bought, in a task of its own that no caller can cancel."""

    request: ModelRequest
    began: float = field(default_factory=time.monotonic)
    running: bool = False
    at_endpoint: bool = False
    ended_by: GatewayError | None = None
    tries: int = 0
    last_fault: str = ""
    """Why its last try failed."""
    misformat: str = ""
    """How its last answer broke the API's format, empty when it did not."""
    misformats: int = 0
    """How often in a row answers broke the format in that way."""
    task: asyncio.Task[Delivery] = field(init=False)

    def broke_format(self, misformat: str) -> int:
        """Note how an answer broke the format, empty for not at all; how often in a row it did so now."""
        same = bool(misformat) and misformat == self.misformat
        self.misformat, self.misformats = misformat, self.misformats + 1 if same else int(bool(misformat))
        return self.misformats

    def end(self, why: GatewayError) -> None:
        """Stop trying. What is at the endpoint may have been billed, and is recorded so."""
        if self.ended_by is None:
            self.ended_by = why
            # A task that is cancelled before its first step never enters its own try block; it will see `ended_by`.
            if self.running:
                self.task.cancel()


@dataclass(eq=False)
class ServedRun:
    """What the gateway holds of one run."""

    id: str
    ledger: Ledger
    endpoint: Endpoint
    limiter: Limiter
    prices: PriceTable
    max_cost_usd: float | None = None
    task_max_cost_usd: float | None = None
    unknown_models: dict[str, GatewayError] = field(default_factory=dict)
    """Models that the endpoint does not know: no other call asks for them."""
    halted: GatewayError | None = None
    """Set when nothing more may be bought for this run."""
    purchases: dict[CallKey, Purchase] = field(default_factory=dict)

    @property
    def capped(self) -> bool:
        """Whether spending has a limit, so that every call needs a price."""
        return self.max_cost_usd is not None or self.task_max_cost_usd is not None

    def delivery(self, stored: Stored) -> Delivery:
        """An answer from the ledger. Raises DamagedState."""
        events = self.ledger.events(stored)
        return Delivery(stored, events, sse.assemble(sse.parse(events)))

    def spent_usd(self) -> float:
        """Answers, and doubtful calls at their bound."""
        return self.ledger.fold.settled.most_usd

    def bound(self, request: ModelRequest) -> float | None:
        """The most in USD that a try can cost."""
        return 0.0 if self.endpoint.free else self.prices.bound(request.model, len(request.body), request.max_tokens)

    def end_waiting(self, why: GatewayError, model: str | None = None) -> None:
        """End the purchases that are not at the endpoint now. `model`: only those that ask for this model."""
        for purchase in list(self.purchases.values()):
            if not purchase.at_endpoint and model in (None, purchase.request.model):
                purchase.end(why)

    async def landed(self, timeout_s: float) -> None:
        """Wait until no purchase is under way, at most that long."""
        if tasks := [purchase.task for purchase in self.purchases.values()]:
            await asyncio.wait(tasks, timeout=timeout_s)

    def status(self) -> dict[str, Any]:
        """Figures for the live view."""
        spending = self.ledger.fold.settled
        return {
            "spent_usd": spending.most_usd,
            "unsure_usd": spending.uncertain_usd,
            "recorded_usd": spending.recorded_usd,
            "unpriced": spending.unpriced,
            "max_cost_usd": self.max_cost_usd,
            "answers": spending.calls,
            "changed": spending.changed,
            "under_way": len(self.purchases),
            "halted": self.halted.type if self.halted else None,
        }
