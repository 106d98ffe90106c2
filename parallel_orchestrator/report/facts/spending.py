"""What the ledger says was bought: a fold over ledger.jsonl, and its sums in words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from parallel_orchestrator.records.errors import DamagedState, OrchestratorError
from parallel_orchestrator.records.usage import dollars, token_count
from parallel_orchestrator.report.facts.documents import Tokens
from parallel_orchestrator.report.facts.trouble import Trouble, following
from parallel_orchestrator.store.journal import read_each
from parallel_orchestrator.store.paths import RunDirectory, repair_hint
from parallel_orchestrator.system import json_codec
from parallel_orchestrator.system.terminal_text import counted

MONEY = ("cost_usd", "uncertain_cost_usd", "recorded_cost_usd", "unpriced_calls")
"""Fields of every document."""
STATUS_MONEY = (*MONEY, "model_calls")
TOKEN_KINDS = {
    "input": "input_tokens",
    "cache_write": "cache_creation_input_tokens",
    "cache_read": "cache_read_input_tokens",
    "output": "output_tokens",
}
"""Our name of each kind of token, and the API's. Input counts uncached tokens only, as the API does."""


@dataclass
class Spending:
    """Sums over model calls, of one task or of the whole run."""

    calls: int = 0
    """Answers received."""
    tokens: Counter[str] = field(default_factory=Counter)
    usd: float = 0.0
    recorded_usd: float = 0.0
    """What replayed answers would have cost; not part of `usd`."""
    unpriced: int = 0
    """Answers whose cost is unknown, by their model or their usage; `usd` leaves them out."""
    retries: int = 0
    """Tries that failed and were made again."""
    bought_again: int = 0
    """Answers beyond the first for the same turn."""
    changed: int = 0
    """Calls whose body differed from one already answered for the same turn."""
    open_calls: int = 0
    """Calls whose outcome was never recorded: the gateway died with them in flight."""
    uncertain_usd: float = 0.0
    """Upper bound of what faults, open calls and unpriced answers may have cost on top of `usd`."""
    endpoint_s: float = 0.0
    """Seconds that the endpoint worked on answers."""

    def add(self, answer: dict[str, Any]) -> None:
        """Count one answer."""
        self.calls += 1
        usage = answer["usage"] if isinstance(answer["usage"], Mapping) else {}
        self.tokens.update({ours: token_count(usage.get(theirs)) or 0 for ours, theirs in TOKEN_KINDS.items()})
        usd = dollars(answer["usd"])
        self.unpriced += usd is None
        self.usd += usd or 0.0
        self.recorded_usd += dollars(answer.get("recorded_usd")) or 0.0
        self.endpoint_s += answer["endpoint_s"]

    def __add__(self, other: Spending) -> Spending:
        """The sum, field by field."""
        both: dict[str, Any] = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return Spending(**both)

    def __sub__(self, other: Spending) -> Spending:
        """The difference, field by field. Sums of floats may end a little below 0, which counts as 0."""
        left: dict[str, Any] = {name: value - getattr(other, name) for name, value in vars(self).items()}
        tokens: Counter[str] = left.pop("tokens")
        return Spending(tokens=tokens, **{name: max(0, value) for name, value in left.items()})

    def as_json(self) -> dict[str, Any]:
        """The part of a summary that is about model calls."""
        return {
            "model_calls": self.calls,
            "tokens": {kind: self.tokens[kind] for kind in TOKEN_KINDS},
            "cost_usd": round(self.usd, 6),
            "uncertain_cost_usd": round(self.uncertain_usd, 6),
            "recorded_cost_usd": round(self.recorded_usd, 6),
            "unpriced_calls": self.unpriced,
            "retries": self.retries,
            "bought_again": self.bought_again,
            "changed_bodies": self.changed,
            "open_calls": self.open_calls,
        }


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


def _bound(intent: Mapping[str, Any]) -> float:
    """The most that a try can have cost, 0 where that is unknown."""
    return dollars(intent.get("bound_usd")) or 0.0


def read_ledger(path: Path) -> FollowedLedger:
    """Return the fold of a ledger; an empty one where there is no file. Raises DamagedState."""
    ledger = FollowedLedger()
    ledger.follow(read_each(path, json_codec.loads), path)
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


class FollowedLedger:
    """Spending per task, folded record by record; the planner is the task `plan`."""

    def __init__(self) -> None:
        self.tasks: dict[str, Spending] = {}
        self.limited_at: float | None = None
        """Wall clock at which the endpoint said that its rate limit is reached, as long as no call was let through."""
        self.trouble: Trouble | None = None
        """What fails at the endpoint, since its last answer."""
        self._answered: Counter[tuple[str, int, int]] = Counter()
        self._open: dict[int, dict[str, Any]] = {}
        """Intents whose outcome has not been seen, by call."""

    def follow(self, records: Iterable[dict[str, Any]], source: Path) -> None:
        """Take in records of the journal `source`. Raises DamagedState at one that cannot be understood."""
        for record in records:
            try:
                self.apply(record)
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                raise DamagedState(
                    f"{source}, line {record['seq']}: the record cannot be understood "
                    f"({type(error).__name__}: {error}). Nothing was changed. {repair_hint(source)}"
                ) from error

    def apply(self, record: dict[str, Any]) -> None:
        """Take in the ledger's next record."""
        spending = self.tasks.setdefault(record["task"], Spending())
        self.trouble = following(self.trouble, record)
        if record["kind"] == "intent":
            spending.changed += bool(record["changed"]) and record["try"] == 1
            spending.retries += record["try"] > 1
            self._open[record["call"]] = record
            self.limited_at = None
            return
        intent = self._open.pop(record["call"], {})
        if record["kind"] == "answer":
            key = (record["task"], record["attempt"], record["turn"])
            spending.bought_again += self._answered[key] > 0
            self._answered[key] += 1
            spending.add(record)
            spending.uncertain_usd += _bound(intent) if dollars(record["usd"]) is None else 0.0
        elif record["kind"] == "fault":
            spending.uncertain_usd += _bound(intent) if record["ambiguous"] else 0.0
            self.limited_at = record["at"] if record["fault"] == "429" else self.limited_at

    def in_flight(self) -> int:
        """Return how many tasks wait for an answer. Each asks for one at a time.

        A call that died with its gateway stays open in the file, and counts until its turn is answered or its task
        asks for another.
        """
        last = {one["task"]: (one["task"], one["attempt"], one["turn"]) for one in self._open.values()}
        return sum(turn not in self._answered for turn in last.values())

    def turns(self, task: str, attempt: int) -> int:
        """Turns of one attempt that have an answer."""
        return sum(key[:2] == (task, attempt) for key in self._answered)

    def of(self, task: str) -> Spending:
        """Spending of one task, calls still open counted as uncertain."""
        spending = replace(self.tasks.get(task, Spending()))
        for intent in self._open.values():
            if intent["task"] == task:
                spending.open_calls += 1
                spending.uncertain_usd += _bound(intent)
        return spending

    def total(self) -> Spending:
        """The sum over all tasks."""
        return sum(map(self.of, self.tasks), Spending())
