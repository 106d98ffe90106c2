"""Watching a run: what its files and workers say now, as snapshots for a view."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from parallel_orchestrator.records.lifecycle import SETTLED, TaskState
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.report.console import Row, Snapshot, View
from parallel_orchestrator.report.spending import Ledger
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.replica import Replica


class Slot(Protocol):
    """An executor, as its supervisor knows it."""

    number: int
    task: str | None
    doing: str
    since: float


class Watch:
    """Follows one run and shows it in `view`."""

    def __init__(self, view: View, run: RunDirectory, plan: Plan, max_cost_usd: float | None) -> None:
        self._view = view
        self._names = {task.id: task.name for task in plan.tasks}
        self._cap = max_cost_usd
        self._journal = Journal(run.ledger)
        self._ledger = Ledger()
        self._warned = False

    def look(self, replica: Replica, slots: Iterable[Slot]) -> None:
        """Show how things stand now."""
        for record in self._journal.read_new():
            self._ledger.apply(record)
        now = time.monotonic()
        rows = [
            Row(slot.number, slot.task, self._names.get(slot.task or "", ""), slot.doing, now - slot.since)
            for slot in sorted(slots, key=lambda slot: slot.number)
        ]
        states = {task: (status.state, status.why) for task, status in replica.tasks.items()}
        holders = {task: status.claim.executor for task, status in replica.tasks.items() if status.claim}
        spent = self._ledger.total()
        self._view.show(Snapshot(rows, states, holders, self._names, spent, self._cap))
        if self._cap and not self._warned and spent.usd >= 0.8 * self._cap:
            self._warned = True
            self._view.say(f"80 % of the budget is spent: ${spent.usd:.2f} of ${self._cap:.2f}")

    def close(self) -> None:
        """Give the ledger's descriptor back."""
        self._journal.close()

    def reuse(self, replica: Replica) -> str:
        """What a resume takes over from before, in one line."""
        for record in self._journal.read_new():
            self._ledger.apply(record)
        done = [task for task, status in replica.tasks.items() if status.state is TaskState.MERGED]
        turns_of = {
            task: self._ledger.turns(task, status.attempt)
            for task, status in replica.tasks.items()
            if status.state not in SETTLED
        }
        begun = {task: turns for task, turns in turns_of.items() if turns}
        spent = self._ledger.total()
        parts = [_counted(len(done), "task")]
        parts += [f"{_counted(turns, 'turn')} of {task}" for task, turns in begun.items()]
        parts.append(f"${spent.usd:.2f}" if not spent.recorded_usd else f"{_counted(spent.calls, 'recorded answer')}")
        going_on = [f"{task} goes on from turn {turns + 1}" for task, turns in begun.items()]
        left = [f"{_counted(replica.unsettled, 'task')} to do"] if replica.unsettled else ["nothing left to do"]
        return f"resuming: reusing {', '.join(parts)}; {'; '.join(going_on + left)}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
