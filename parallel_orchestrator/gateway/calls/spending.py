"""What a run has spent, counted from its ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from parallel_orchestrator.records.usage import dollars


@dataclass
class Spending:
    """Money in USD. A cap is compared with `total`, which is what can have been billed at most."""

    answered: float = 0.0
    """Whole answers, by their usage."""
    unsure: float = 0.0
    """Upper bounds of calls that may or may not have been billed, and of answers that do not say what they cost."""
    recorded: float = 0.0
    """What replayed answers cost when they were recorded; nothing is paid for them now."""
    unpriced: int = 0
    """Calls whose cost is unknown, and is in none of these sums."""

    @property
    def total(self) -> float:
        """Answers and doubtful calls together."""
        return self.answered + self.unsure

    def add_answer(self, usd: Any, recorded_usd: Any, bound_usd: Any) -> None:
        """Count a whole answer; at its upper bound towards a cap when nobody knows what it cost."""
        known = dollars(usd)
        self.answered += known or 0.0
        self.unsure += (dollars(bound_usd) or 0.0) if known is None else 0.0
        self.recorded += dollars(recorded_usd) or 0.0
        self.unpriced += known is None

    def add_doubt(self, bound_usd: Any) -> None:
        """Count a call that may have been billed, at its upper bound."""
        known = dollars(bound_usd)
        self.unsure += known or 0.0
        self.unpriced += known is None
