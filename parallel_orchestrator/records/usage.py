"""What model calls used and cost: figures as endpoints state them, their sums, and the fold of a ledger.

A figure of an endpoint may be anything. One that is not a count, or not an amount, is unknown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from parallel_orchestrator.records.journals.ledger import AnswerRecord, FaultRecord, IntentRecord, LedgerRecord

MOST_TOKENS = 1_000_000_000
"""More than one answer can have read or written: the largest context windows have a thousandth of it."""


def token_count(value: Any) -> int | None:
    """Return `value` when it is a number of tokens, else None: negative, fractional, a text, a truth value, too large.

    A negative figure would lower what was spent, and so lift a cap.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        return None
    return value


def dollars(value: Any) -> float | None:
    """Return an amount in USD, or None unless `value` is a finite number from 0.

    What is not a number is never at least a cap, and would lift it.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        amount = float(value)
    except OverflowError:
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None


TOKEN_KINDS = {
    "input": "input_tokens",
    "cache_write": "cache_creation_input_tokens",
    "cache_read": "cache_read_input_tokens",
    "output": "output_tokens",
}
"""Our name of each kind of token, and the API's. Input counts uncached tokens only, as the API does."""


@dataclass
class Spending:
    """Sums over model calls, of one task or of several."""

    calls: int = 0
    """Answers received."""
    tokens: Counter[str] = field(default_factory=Counter)
    usd: float = 0.0
    recorded_usd: float = 0.0
    """What replayed answers cost when they were recorded; not part of `usd`."""
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

    @property
    def most_usd(self) -> float:
        """The most that can have been billed. A cap is compared with this."""
        return self.usd + self.uncertain_usd

    def add_intent(self, intent: IntentRecord) -> None:
        """Count the beginning of a try."""
        self.changed += intent.changed and intent.try_number == 1
        self.retries += intent.try_number > 1

    def add_answer(self, answer: AnswerRecord, intent: IntentRecord, *, again: bool) -> None:
        """Count an answer, at its upper bound when its cost is unknown. `again`: its turn had one before."""
        self.calls += 1
        usage = answer.usage if isinstance(answer.usage, dict) else {}
        self.tokens.update({ours: token_count(usage.get(theirs)) or 0 for ours, theirs in TOKEN_KINDS.items()})
        usd = dollars(answer.usd)
        if usd is None:
            self.unpriced += 1
            self.add_doubt(intent)
        self.usd += usd or 0.0
        self.recorded_usd += dollars(answer.recorded_usd) or 0.0
        self.endpoint_s += answer.endpoint_s
        self.bought_again += again

    def add_doubt(self, intent: IntentRecord) -> None:
        """Count a try that may have been billed, at its upper bound: at 0 where that is unknown."""
        self.uncertain_usd += dollars(intent.bound_usd) or 0.0

    def add_open(self, intent: IntentRecord) -> None:
        """Count a try whose outcome was never recorded."""
        self.open_calls += 1
        self.add_doubt(intent)

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


class LedgerFold:
    """What a ledger's records say together. The planner is the task `plan`."""

    def __init__(self) -> None:
        self.last_call = 0
        self.open: dict[int, IntentRecord] = {}
        """Tries without an outcome so far, by call."""
        self._tasks: dict[str, Spending] = {}
        self.settled = Spending()
        """Sums over all tasks, without open tries. Kept up to date, as a cap is compared with it before every try."""
        self._answered: set[tuple[str, int, int | None]] = set()

    def apply(self, record: LedgerRecord) -> None:
        """Take the next record into account. Raises ValueError when it does not fit those before it."""
        self.last_call = max(self.last_call, record.call)
        sums = (self._tasks.setdefault(record.task, Spending()), self.settled)
        if isinstance(record, IntentRecord):
            if record.call in self.open:
                raise ValueError(f"call {record.call} was begun twice")
            self.open[record.call] = record
            for spending in sums:
                spending.add_intent(record)
            return
        intent = self.open.pop(record.call, None)
        if intent is None:
            raise ValueError(f"call {record.call} was not begun")
        if isinstance(record, AnswerRecord):
            again = record.turn_id in self._answered
            self._answered.add(record.turn_id)
            for spending in sums:
                spending.add_answer(record, intent, again=again)
        elif isinstance(record, FaultRecord) and record.ambiguous:
            for spending in sums:
                spending.add_doubt(intent)

    def close_open(self) -> int:
        """Count every open try as one of a gateway that died; their number. For the gateway that comes after it."""
        for intent in self.open.values():
            for spending in (self._tasks[intent.task], self.settled):
                spending.add_open(intent)
        died = len(self.open)
        self.open.clear()
        return died

    def spent_usd(self, task: str) -> float:
        """Returns the most in USD that can have been billed for one task, without open tries."""
        return self._tasks[task].most_usd if task in self._tasks else 0.0

    def of(self, task: str) -> Spending:
        """Returns the spending of one task. Open tries count as uncertain."""
        mine = (intent for intent in self.open.values() if intent.task == task)
        return _with_open(self._tasks.get(task, Spending()), mine)

    def total(self) -> Spending:
        """Returns the spending of all tasks. Open tries count as uncertain."""
        return _with_open(self.settled, self.open.values())

    def in_flight(self) -> int:
        """Returns how many tasks wait for an answer. Each asks for one at a time.

        A call that died with its gateway stays open in the file, and counts until its turn is answered or its task
        asks for another.
        """
        last = {intent.task: intent.turn_id for intent in self.open.values()}
        return sum(turn not in self._answered for turn in last.values())

    def turns(self, task: str, attempt: int) -> int:
        """Returns how many turns of one attempt have an answer."""
        return sum(turn[:2] == (task, attempt) for turn in self._answered)


def _with_open(spending: Spending, intents: Iterable[IntentRecord]) -> Spending:
    copied = replace(spending)
    for intent in intents:
        copied.add_open(intent)
    return copied
