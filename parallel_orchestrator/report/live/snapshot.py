"""The state of a run or a batch at one moment, for views."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from parallel_orchestrator.records.usage import Spending
from parallel_orchestrator.report.facts.spending import FollowedLedger
from parallel_orchestrator.system.terminal_text import counted

_LONGEST_HOLD_S = 120.0
"""After a rate limit, a call goes out within this time (gateway/pacing/limiter.py). Older marks are of ended runs."""


class Standing(Enum):
    """The state of a task, or of a scenario of a batch, as views show it. In the order of the counts."""

    DONE = "done"
    RUNNING = "running"
    READY = "ready"
    WAITING = "waiting"
    FAILED = "failed"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class Item:
    """One task, or one scenario."""

    name: str
    """For people; may be empty."""
    standing: Standing
    word: str
    """Its exact state: `merged`, `open`, …"""
    why: str = ""


@dataclass(frozen=True)
class Row:
    """One executor, now."""

    executor: int
    task: str | None
    """In a batch SCENARIO/TASK."""
    name: str
    doing: str
    seconds: float
    """Since it claimed its task; since it became idle, where it has none."""
    turns: int = 0
    """Answers of the present attempt."""
    tokens: int = 0
    """Of the task, read and written."""


@dataclass(frozen=True)
class Traffic:
    """The calls between the gateway and a live endpoint."""

    in_flight: int = 0
    waiting: int = 0
    """Calls that wait for their turn."""
    limit: int = 0
    """Calls that may be in flight at once, as the endpoint bears them now."""
    held_s: float = 0.0
    """Seconds for which the endpoint's rate limit holds all calls back."""
    limited_s: float | None = None
    """Seconds since the endpoint said that its rate limit is reached, where no call was let through since."""

    @classmethod
    def of(cls, status: Mapping[str, Any]) -> Traffic:
        """From what the gateway's status says."""
        return cls(status["in_flight"], status["waiting"], status["limit"], status["held_until_s"])

    @classmethod
    def from_ledgers(cls, ledgers: Collection[FollowedLedger]) -> Traffic:
        """From files alone, which lack how long and how many calls wait."""
        now = time.time()
        since = [max(0.0, now - ledger.limited_at) for ledger in ledgers if ledger.limited_at is not None]
        limited_s = min((one for one in since if one < _LONGEST_HOLD_S), default=None)
        return cls(sum(ledger.in_flight() for ledger in ledgers), limited_s=limited_s)


@dataclass(frozen=True)
class Snapshot:
    """A run or a batch, now."""

    rows: Sequence[Row]
    items: Mapping[str, Item]
    """By id, in the plan's order."""
    spent: Spending
    max_cost_usd: float | None = None
    noun: str = "tasks"
    labels: Mapping[Standing, str] | None = None
    """What each standing is called here; None: by its own value."""
    traffic: Traffic | None = None
    """None where no figures of a gateway are at hand."""
    elapsed_s: float = 0.0
    """Of the present session."""
    left_s: float | None = None
    """Estimated seconds to the end, never negative; None as long as too little was seen."""
    trouble: str = ""
    """What fails at the endpoint, as a line; empty when nothing does."""

    def done(self) -> int:
        """Items that are done."""
        return sum(item.standing is Standing.DONE for item in self.items.values())

    def counts(self) -> list[tuple[Standing, str, int]]:
        """Each standing that is counted, its label, and its number of items."""
        found = Counter(item.standing for item in self.items.values())
        labels = self.labels or {standing: standing.value for standing in Standing}
        return [(standing, label, found[standing]) for standing, label in labels.items()]


class Changes:
    """Finds the items whose state differs from one snapshot to the next."""

    def __init__(self, *unsaid: Standing) -> None:
        self._known: dict[str, str] = {}
        self._unsaid = unsaid

    def of(self, snapshot: Snapshot) -> Iterator[tuple[str, Item]]:
        """Yield the changed items. One that waits or is done when first seen is no change."""
        for key, item in snapshot.items.items():
            known = self._known.get(key)
            self._known[key] = item.word
            begins = known is None and item.standing in (Standing.READY, Standing.WAITING, Standing.DONE)
            if known != item.word and not begins and item.standing not in self._unsaid:
                yield key, item


def change_text(snapshot: Snapshot, key: str, item: Item) -> str:
    """The line that reports a change of an item. Not escaped."""
    mark = {Standing.DONE: "✓", Standing.FAILED: "✗", Standing.BLOCKED: "–"}.get(item.standing, "·")
    text = f"{mark} {key}{' ' if item.name else ''}{item.name}: {item.word}"
    if item.why and item.standing is not Standing.DONE:
        text += f" ({item.why})"
    return f"[{snapshot.done()}/{len(snapshot.items)}] {text}"


def counts_text(snapshot: Snapshot) -> str:
    """The number of items in each standing, on one line."""
    return " · ".join(f"{count} {label}" for _, label, count in snapshot.counts())


def cost_text(snapshot: Snapshot) -> str:
    """What was spent, of which budget."""
    spent = snapshot.spent
    if spent.recorded_usd and not spent.usd:
        return f"${spent.usd:.2f} (recorded ${spent.recorded_usd:.2f})"
    cap = f" of ${snapshot.max_cost_usd:.2f}" if snapshot.max_cost_usd is not None else ""
    if not spent.unpriced:
        return f"${spent.usd:.2f}{cap}"
    return f"≥ ${spent.usd:.2f}{cap} ({counted(spent.unpriced, 'turn')} unpriced)"


def traffic_text(traffic: Traffic | None) -> str:
    """The state of the rate limit; empty where no call is under way."""
    if traffic is None:
        return ""
    if traffic.held_s >= 1:
        return f"rate limit: all calls wait {traffic.held_s:.0f} s"
    if traffic.limited_s is not None:
        return f"rate limit: reached {traffic.limited_s:.0f} s ago"
    calls = f"{counted(traffic.in_flight, 'call')} in flight"
    if traffic.waiting:
        return f"{calls} (limit {traffic.limit}), {traffic.waiting} waiting"
    return calls if traffic.in_flight else ""


def time_text(snapshot: Snapshot) -> str:
    """How long it has taken, and about how much longer it will."""
    left = "" if snapshot.left_s is None else f", ~{clock(max(0.0, snapshot.left_s))} left"
    return clock(snapshot.elapsed_s) + left


def clock(seconds: float) -> str:
    """Seconds as M:SS, or H:MM:SS."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short_count(number: int) -> str:
    """A count in at most five characters or so: 950, 12.3k, 4.5M."""
    if number < 1000:
        return str(number)
    return f"{number / 1000:.1f}k" if number < 999_950 else f"{number / 1e6:.1f}M"
