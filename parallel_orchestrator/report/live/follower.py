"""Watching a run: what its files and workers say now, as snapshots for a view."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.records.fix import FIX_NAME
from parallel_orchestrator.records.lifecycle import SETTLED, TaskState
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.report.facts.spending import Ledger, read_ledger
from parallel_orchestrator.report.facts.trouble import TroubleNews
from parallel_orchestrator.report.live.snapshot import Item, Row, Snapshot, Traffic, task_item
from parallel_orchestrator.report.live.view import View
from parallel_orchestrator.store.journal import Journal, read_each
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue_state import Replica, TaskStatus, follow
from parallel_orchestrator.system.terminal_text import counted

_ASK_S = 1.0
ETA_AFTER = 3
"""Tasks that have to be merged before a time to the end is named."""
_OVERDUE = 0.1
"""A task that takes longer than expected is expected to take so much of its time so far again: never nothing."""


class Slot(Protocol):
    """An executor, as its supervisor knows it."""

    number: int
    task: str | None
    doing: str
    since: float


class Gateway(Protocol):
    """What knows the calls in flight; GatewayProcess."""

    def status(self) -> dict[str, Any]:
        """Its figures. Raises CannotGoOn."""


class Figures:
    """What is under way at the endpoint, as a gateway says; who has none at hand reads it from ledgers.

    A gateway is asked at most once a second, and beside the work: its answer may be long in coming.
    """

    def __init__(self) -> None:
        self._last: dict[str, Any] | None = None
        self._asked = 0.0
        self._asking: threading.Thread | None = None

    def traffic(self, gateway: Gateway | None, ledgers: Collection[Ledger]) -> Traffic | None:
        """The latest there are; None before a gateway's first."""
        if gateway is None:
            return Traffic.told_by(ledgers)
        now = time.monotonic()
        if now - self._asked >= _ASK_S and not (self._asking and self._asking.is_alive()):
            self._asked = now
            self._asking = threading.Thread(target=self._ask, args=(gateway,), name="gateway figures", daemon=True)
            self._asking.start()
        return Traffic.of(self._last) if self._last else None

    def _ask(self, gateway: Gateway) -> None:
        with contextlib.suppress(CannotGoOn):
            self._last = gateway.status()


class BudgetWarning:
    """Says once in `view` that most of a budget is spent. `whose`: what the budget is called."""

    def __init__(self, view: View, whose: str) -> None:
        self._view = view
        self._whose = whose
        self._said = False

    def look(self, usd: float, cap: float | None) -> None:
        """So much is spent now, of so much; None: without a limit."""
        if cap and not self._said and usd >= 0.8 * cap:
            self._said = True
            self._view.say(f"80 % of {self._whose} is spent: ${usd:.2f} of ${cap:.2f}")


class Part:
    """One run, followed through its own files: its tasks, what they cost, who works on them."""

    def __init__(self, run: RunDirectory, plan: Plan) -> None:
        self.folder = run.root.name
        self.names = {task.id: task.name for task in plan.tasks}
        self._queue, self._calls = Journal(run.queue), Journal(run.ledger)
        self.replica = Replica(plan.graph())
        self.ledger = Ledger()

    def refresh(self) -> None:
        """Take in what was written since."""
        follow(self.replica, self._queue.each_new(), self._queue.path)
        self.refresh_ledger()

    def refresh_ledger(self) -> None:
        """As `refresh`, for who knows the queue by himself."""
        self.ledger.follow(self._calls.each_new(), self._calls.path)

    def row(self, replica: Replica, executor: int, task: str, doing: str, prefix: str = "") -> Row:
        """An executor that works on a task."""
        status = replica.tasks[task]
        # By the machine's monotonic clock; what was claimed before a restart of the machine says nothing.
        seconds = max(0.0, time.monotonic() - status.claimed_at) if status.claim else 0.0
        tokens = sum(self.ledger.of(task).tokens.values())
        turns = self.ledger.turns(task, status.attempt)
        return Row(executor, prefix + task, self.names.get(task, FIX_NAME), doing, seconds, turns, tokens)

    def close(self) -> None:
        """Give the descriptors back."""
        self._queue.close()
        self._calls.close()


class Watch:
    """Follows one run and shows it in `view`, from its files and its executors."""

    def __init__(self, view: View, run: RunDirectory, plan: Plan, max_cost_usd: float | None) -> None:
        self._view = view
        self._cap = max_cost_usd
        self._part = Part(run, plan)
        self._figures = Figures()
        self._warning = BudgetWarning(view, "the budget")
        self._news = TroubleNews(view.say)

    def look(self, replica: Replica, slots: Iterable[Slot], gateway: Gateway | None = None) -> Snapshot:
        """Show how things stand now."""
        self._part.refresh_ledger()
        spent = self._part.ledger.total()
        snapshot = Snapshot(
            self._rows(replica, slots),
            task_items(replica, self._part.names),
            spent,
            self._cap,
            traffic=self._figures.traffic(gateway, [self._part.ledger]),
            elapsed_s=max(0.0, time.monotonic() - replica.sessions[-1].started) if replica.sessions else 0.0,
            left_s=seconds_left(replica, time.monotonic()),
            trouble=self._news.look(self._part.ledger.trouble),
        )
        self._view.show(snapshot)
        self._warning.look(spent.usd, self._cap)
        return snapshot

    def close(self) -> None:
        """Give the files' descriptors back."""
        self._part.close()

    def _rows(self, replica: Replica, slots: Iterable[Slot]) -> list[Row]:
        now = time.monotonic()
        return [
            self._part.row(replica, slot.number, slot.task, slot.doing)
            if slot.task
            else Row(slot.number, None, "", slot.doing, now - slot.since)
            for slot in sorted(slots, key=lambda slot: slot.number)
        ]


def task_items(replica: Replica, names: dict[str, str]) -> dict[str, Item]:
    """A run's tasks as items."""
    return {
        task: task_item(
            names.get(task, FIX_NAME),
            status.state,
            status.why,
            ready=not status.waiting_for,
            executor=status.claim.executor if status.claim else None,
        )
        for task, status in replica.tasks.items()
    }


def seconds_left(replica: Replica, now: float) -> float | None:
    """Estimated seconds until every task is settled: the longer of the critical path and the work by executor.

    From what tasks took so far; None before three are merged. `now`: by the monotonic clock.
    """
    if replica.count()[TaskState.MERGED] < ETA_AFTER or not replica.unsettled:
        return None
    path, work = path_and_work_left(replica, replica.expected(), now)
    executors = replica.sessions[-1].executors if replica.sessions else 1
    return max(path, work / max(1, executors))


def path_and_work_left(replica: Replica, expected: Mapping[str, float], now: float) -> tuple[float, float]:
    """Seconds of the critical path that is left, and of all tasks together. `expected`: of each whole task."""
    left = {task: _task_left(status, expected[task], now) for task, status in replica.tasks.items()}
    return max(*replica.graph.remaining(left).values(), 0.0), sum(left.values())


def _task_left(status: TaskStatus, expected: float, now: float) -> float:
    if status.state in SETTLED:
        return 0.0
    if status.state is not TaskState.CLAIMED:
        return max(0.0, expected - status.busy)
    worked = status.busy + max(0.0, now - status.claimed_at)
    return max(expected - worked, _OVERDUE * worked)


def reuse(run: RunDirectory, replica: Replica) -> str:
    """What a resume takes over from before, what it goes on with, and why: in one line."""
    ledger = read_ledger(run.ledger)
    done = [task for task, status in replica.tasks.items() if status.state is TaskState.MERGED]
    turns_of = {
        task: ledger.turns(task, status.attempt)
        for task, status in replica.tasks.items()
        if status.state not in SETTLED
    }
    begun = {task: turns for task, turns in turns_of.items() if turns}
    spent = ledger.total()
    parts = [counted(len(done), "task")]
    parts += [f"{counted(turns, 'turn')} of {task}" for task, turns in begun.items()]
    parts.append(f"${spent.usd:.2f}" if not spent.recorded_usd else f"{counted(spent.calls, 'recorded answer')}")
    going_on = [_going_on(run, task, turns, replica.tasks[task]) for task, turns in begun.items()]
    fresh = [task for task, turns in turns_of.items() if not turns]
    going_on += [f"{counted(len(fresh), 'task')} to begin"] if fresh else []
    return f"resuming: reusing {', '.join(parts)}; {'; '.join(going_on) or 'nothing left to do but the last tests'}"


def _going_on(run: RunDirectory, task: str, turns: int, status: TaskStatus) -> str:
    records = read_each(run.transcript(status.folder, task, status.attempt)) if status.folder else iter(())
    handed_in = any(record.get("kind") == "submitted" for record in deque(records, maxlen=1))
    how = "is handed in again" if handed_in else f"goes on from turn {turns + 1}"
    return f"{task} {how}" + (f" ({_short(status.why)})" if status.why else "")


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
