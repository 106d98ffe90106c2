"""Watching a batch: what its journal, its runs, its executors and the gateway say now, as snapshots for a view."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.report.facts.spending import Spending
from parallel_orchestrator.report.facts.trouble import TroubleNews, latest
from parallel_orchestrator.report.live.follower import BudgetWarning, Figures, Gateway, Part
from parallel_orchestrator.report.live.snapshot import Item, Row, Snapshot, Standing
from parallel_orchestrator.report.live.view import ScenarioView, View
from parallel_orchestrator.run.cost import add, of_run, take_off
from parallel_orchestrator.run.eta import Outlook
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.plan_file import read_plan
from parallel_orchestrator.store.queue.batch_journal import BatchReplica, ScenarioState, ScenarioStatus

_SHOW_S = 0.25

_STANDING = {
    ScenarioState.WAITING: Standing.WAITING,
    ScenarioState.PLANNED: Standing.READY,
    ScenarioState.OPEN: Standing.RUNNING,
}
_ENDED = {"done": Standing.DONE, "failed": Standing.FAILED, "stopped": Standing.BLOCKED}
LABELS = {
    Standing.DONE: "done",
    Standing.RUNNING: "open",
    Standing.READY: "planned",
    Standing.WAITING: "waiting",
    Standing.FAILED: "failed",
    Standing.BLOCKED: "stopped",
}
"""What a scenario that stands so is called."""


class Slot(Protocol):
    """An executor, as its supervisor knows it."""

    number: int
    task: str | None
    run: Path | None
    """Root of the run that `task` is of."""
    doing: str
    since: float


class BatchWatch:
    """Shows a batch in `view`: its scenarios in the place of tasks, and its executors with the tasks they hold.

    `names`: a few words on each scenario. `spent_before`: what the batch's runs have cost before, by folder.
    """

    def __init__(
        self,
        view: View,
        batch: BatchDirectory,
        names: Mapping[str, str],
        max_cost_usd: float | None = None,
        spent_before: Mapping[str, Spending] | None = None,
    ) -> None:
        self._view = view
        self._batch = batch
        self._names = names
        self.max_cost_usd = max_cost_usd
        self._before = dict(spent_before or {})
        """Of runs that were not looked at yet; it is in `_ended` till then."""
        self._ended = Spending()
        for one in self._before.values():
            add(self._ended, one)
        self._figures = Figures()
        self._parts: dict[str, Part] = {}
        """Of the scenarios that have a plan and are not closed."""
        self._counted: set[str] = set()
        """Scenarios whose cost is in `_ended`."""
        self._outlook = Outlook()
        self._shown = 0.0
        self._warning = BudgetWarning(view, "the batch's budget")
        self._news = TroubleNews(view.say)

    def of(self, scenario: str) -> ScenarioView:
        """The view that one scenario speaks to."""
        return ScenarioView(self._view, scenario)

    def look(self, replica: BatchReplica, slots: Iterable[Slot], gateway: Gateway | None = None) -> None:
        """Show how things stand now, some times a second."""
        now = time.monotonic()
        if now - self._shown < _SHOW_S and replica.left:
            return
        self._shown = now
        self._follow(replica)
        snapshot = Snapshot(
            self._rows(slots, now),
            {name: _item(self._names.get(name, ""), status) for name, status in replica.scenarios.items()},
            self._spent(),
            self.max_cost_usd,
            "scenarios",
            LABELS,
            self._figures.traffic(gateway, [part.ledger for part in self._parts.values()]),
            max(0.0, now - replica.began),
            self._outlook.left(replica, self._parts),
            self._news.look(latest(part.ledger.trouble for part in self._parts.values())),
        )
        self._view.show(snapshot)
        self._warning.look(snapshot.spent.usd, self.max_cost_usd)

    def close(self) -> None:
        """Nothing more will be shown."""
        for part in self._parts.values():
            part.close()
        self._parts.clear()
        self._view.close()

    def _follow(self, replica: BatchReplica) -> None:
        """Read what is new in the runs that are under way, and keep what the closed ones cost."""
        for name, status in replica.scenarios.items():
            if status.state is ScenarioState.CLOSED:
                if name not in self._counted:
                    self._count(name, status)
            elif status.state is not ScenarioState.WAITING:
                with suppress(OSError, OrchestratorError):  # what is wrong there is told by who works on it
                    part = self._parts.get(name) or self._opened(name, status)
                    part.refresh()

    def _opened(self, name: str, status: ScenarioStatus) -> Part:
        run = RunDirectory(self._batch.root / status.folder)
        part = self._parts[name] = Part(run, read_plan(run.plan))
        self._counts_itself(status.folder)
        return part

    def _counts_itself(self, folder: str) -> None:
        """From now on what is known of that run counts, in place of what it had cost before."""
        if before := self._before.pop(folder, None):
            take_off(self._ended, before)

    def _count(self, name: str, status: ScenarioStatus) -> None:
        self._counted.add(name)
        part = self._parts.pop(name, None)
        if part is not None:
            with suppress(OrchestratorError):
                part.refresh()
            self._outlook.close(part)
            add(self._ended, part.ledger.total())
            part.close()
        else:
            self._counts_itself(status.folder)
            add(self._ended, of_run(RunDirectory(self._batch.root / status.folder)))

    def _spent(self) -> Spending:
        spent = Spending()
        for one in (self._ended, *(part.ledger.total() for part in self._parts.values())):
            add(spent, one)
        return spent

    def _rows(self, slots: Iterable[Slot], now: float) -> list[Row]:
        return [self._row(slot, now) for slot in sorted(slots, key=lambda slot: slot.number)]

    def _row(self, slot: Slot, now: float) -> Row:
        if not slot.task or not slot.run:
            return Row(slot.number, None, "", slot.doing, now - slot.since)
        folder = slot.run.name
        part = next((part for part in self._parts.values() if part.folder == folder), None)
        if part is None:  # closed under its executor
            return Row(slot.number, f"{folder}/{slot.task}", "", slot.doing, now - slot.since)
        return part.row(part.replica, slot.number, slot.task, slot.doing, f"{folder}/")


def _item(name: str, status: ScenarioStatus) -> Item:
    if status.state is ScenarioState.CLOSED:
        ending = status.record["ending"]
        return Item(name, _ENDED[ending], ending, status.record["why"])
    return Item(name, _STANDING[status.state], status.state.value)
