"""What the ledger says was bought: a fold over ledger.jsonl, and its sums in words."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.records.journals.ledger import FaultRecord, IntentRecord, LedgerRecord
from parallel_orchestrator.records.usage import LedgerFold, Spending, dollars
from parallel_orchestrator.report.facts.documents import Tokens
from parallel_orchestrator.report.facts.trouble import Trouble, following
from parallel_orchestrator.store.journal import misfit, read_each
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.record_parser import LEDGER
from parallel_orchestrator.system.terminal_text import counted

MONEY = ("cost_usd", "uncertain_cost_usd", "recorded_cost_usd", "unpriced_calls")
"""Fields of every document."""
STATUS_MONEY = (*MONEY, "model_calls")


def call_fields(spending: Spending, *names: str) -> dict[str, Any]:
    """Return the fields of a document that are about model calls. `names`: only these."""
    fields = spending.as_json()
    fields["tokens"] = Tokens(**fields["tokens"])
    return {name: fields[name] for name in names or fields}


class Money(Protocol):
    """The fields on money, which every document has."""

    @property
    def cost_usd(self) -> float:
        """Answers at their price."""

    @property
    def uncertain_cost_usd(self) -> float:
        """The most that calls of unknown end or price may have cost on top."""

    @property
    def recorded_cost_usd(self) -> float:
        """What a replay's answers cost when they were recorded."""

    @property
    def unpriced_calls(self) -> float:
        """Answers whose cost is unknown."""


def spent_text(money: Money) -> str:
    """What was spent: at least so much, where answers have no price, and up to how much more."""
    text = least_text(money)
    if money.uncertain_cost_usd:
        text += f", up to ${money.uncertain_cost_usd:.2f} more for calls of unknown end or price"
    return text


def calls_text(money: Money, model_calls: float) -> str:
    """What was spent, on how many calls, and what a replay's answers cost when they were recorded."""
    recorded = f" (when recorded: ${money.recorded_cost_usd:.2f})" if money.recorded_cost_usd else ""
    return f"{spent_text(money)}{recorded}; {counted(int(model_calls), 'call')}"


def least_text(money: Money) -> str:
    """The lower bound alone."""
    text = f"${money.cost_usd:.2f}"
    if money.unpriced_calls:
        text = f"≥ {text} ({counted(int(money.unpriced_calls), 'turn')} unpriced)"
    return text


def read_ledger(path: Path) -> FollowedLedger:
    """Return the fold of a ledger; an empty one where there is no file. Raises DamagedState."""
    ledger = FollowedLedger()
    ledger.follow(read_each(path, LEDGER), path)
    return ledger


def spending_of(run: RunDirectory) -> Spending:
    """What a run has spent: by its ledger, or by its summary where the ledger cannot be read."""
    try:
        return read_ledger(run.ledger).total()
    except (OSError, OrchestratorError):  # the command that resumes the run reports it
        return _by_summary(run)


def _by_summary(run: RunDirectory) -> Spending:
    try:
        summary = json.loads(run.summary.read_bytes())
        return Spending(
            usd=dollars(summary["cost_usd"]) or 0.0,
            recorded_usd=dollars(summary["recorded_cost_usd"]) or 0.0,
            unpriced=int(summary["unpriced_calls"]),
            uncertain_usd=dollars(summary["uncertain_cost_usd"]) or 0.0,
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Spending()


class FollowedLedger(LedgerFold):
    """The fold of a ledger, and what it says of the endpoint now."""

    def __init__(self) -> None:
        super().__init__()
        self.limited_at: float | None = None
        """Wall clock at which the endpoint said that its rate limit is reached, as long as no call was let through."""
        self.trouble: Trouble | None = None
        """What fails at the endpoint, since its last answer."""

    def follow(self, records: Iterable[LedgerRecord], source: Path) -> None:
        """Take in records of the journal `source`. Raises DamagedState at one that does not fit those before it."""
        for record in records:
            try:
                self.apply(record)
            except ValueError as error:
                raise misfit(source, record, error) from error

    def apply(self, record: LedgerRecord) -> None:
        """Take in the ledger's next record."""
        super().apply(record)
        self.trouble = following(self.trouble, record)
        if isinstance(record, IntentRecord):
            self.limited_at = None
        elif isinstance(record, FaultRecord) and record.fault == "429":
            self.limited_at = record.at
