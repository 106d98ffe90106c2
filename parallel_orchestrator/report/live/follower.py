"""Follows a run, or the runs of a batch, through their files, and shows snapshots of them in a view.

The orchestrator passes its executors and its gateway. `status --follow` passes neither: claims and ledgers then say
who works on what.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.records.journals.batch import ScenarioState
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.records.usage import Spending
from parallel_orchestrator.report.facts.spending import spending_of
from parallel_orchestrator.report.facts.trouble import TroubleNews, latest
from parallel_orchestrator.report.live.eta import OpenRun, Seen, seconds_left
from parallel_orchestrator.report.live.followed_run import Executor, FollowedRun, SeenExecutor
from parallel_orchestrator.report.live.gateway_stats import BudgetWarning, GatewayStats, StatsSource
from parallel_orchestrator.report.live.snapshot import Item, Row, Snapshot, Standing
from parallel_orchestrator.report.live.view import View
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.plan_file import read_plan
from parallel_orchestrator.store.queue.batch_journal import BatchLog, ScenarioStatus

_SHOW_S = 0.25
"""Between two snapshots of a batch."""

_STANDING = {
    ScenarioState.WAITING: Standing.WAITING,
    ScenarioState.PLANNED: Standing.READY,
    ScenarioState.OPEN: Standing.RUNNING,
}
_ENDED = {"done": Standing.DONE, "failed": Standing.FAILED, "stopped": Standing.BLOCKED}
_SCENARIO_LABELS = {
    Standing.DONE: "done",
    Standing.RUNNING: "open",
    Standing.READY: "planned",
    Standing.WAITING: "waiting",
    Standing.FAILED: "failed",
    Standing.BLOCKED: "stopped",
}


class ProgressFollower(ABC):
    """What following a run and following a batch have in common."""

    noun = "tasks"
    labels: Mapping[Standing, str] | None = None
    budget = "the budget"

    def __init__(self, view: View, max_cost_usd: float | None) -> None:
        self.max_cost_usd = max_cost_usd
        self._view = view
        self._runs: dict[str, FollowedRun] = {}
        """Those under way: of a batch by scenario."""
        self._stats = GatewayStats()
        self._warning = BudgetWarning(view, self.budget)
        self._news = TroubleNews(view.say)
        self._seen: dict[int, SeenExecutor] = {}
        self._executors = 0
        self._began = 0.0
        """When the present session began, by the monotonic clock; 0 before the first."""
        self._unplanned = 0
        """Runs without a plan."""
        self._closed = Seen()
        """The runs that have ended."""
        self._settled = Spending()
        """Cost of all runs but those in `_runs`."""

    def look(self, executors: Iterable[Executor] | None = None, gateway: StatsSource | None = None) -> Snapshot:
        """Show the present state. `executors`, `gateway`: None where only files can be asked."""
        self._refresh()
        now = time.monotonic()
        spent = sum((run.ledger.total() for run in self._runs.values()), self._settled)
        ledgers = [run.ledger for run in self._runs.values()]
        working = self._by_files(now) if executors is None else executors
        snapshot = Snapshot(
            [self._row(executor, now) for executor in sorted(working, key=lambda one: one.number)],
            self._items(),
            spent,
            self.max_cost_usd,
            self.noun,
            self.labels,
            self._stats.traffic(gateway, ledgers),
            max(0.0, now - self._began) if self._began else 0.0,
            self._seconds_left(now),
            self._news.look(latest(ledger.trouble for ledger in ledgers)),
        )
        self._view.show(snapshot)
        self._warning.look(spent.usd, self.max_cost_usd)
        return snapshot

    def close(self) -> None:
        """Close the files."""
        for run in self._runs.values():
            run.close()
        self._runs.clear()

    def _by_files(self, now: float) -> Collection[SeenExecutor]:
        """Every executor seen so far, and as many as the session has."""
        held = {worker.number: worker for run in self._runs.values() for worker in run.workers()}
        for number in {*range(1, self._executors + 1), *held, *self._seen}:
            known = self._seen.get(number)
            idle = known if known and known.task is None else SeenExecutor(number, since=now)
            self._seen[number] = held.get(number, idle)
        return self._seen.values()

    def _row(self, executor: Executor, now: float) -> Row:
        run = next((run for run in self._runs.values() if run.run.root == executor.run), None)
        label = self._label(executor)
        if executor.task and label and run:
            return run.row(executor, executor.task, label)
        return Row(executor.number, label, "", executor.doing, now - executor.since)

    def _label(self, executor: Executor) -> str | None:
        return executor.task

    @abstractmethod
    def _refresh(self) -> None:
        """Fold what is new in the files."""

    @abstractmethod
    def _items(self) -> Mapping[str, Item]: ...

    def _seconds_left(self, now: float) -> float | None:
        runs = [OpenRun(run.queue_state, run.limit or self._executors) for run in self._runs.values()]
        executors = max(1, self._executors)
        return seconds_left(runs, executors, now, closed=self._closed, unplanned=self._unplanned)


class RunFollower(ProgressFollower):
    """Follows one run: its tasks."""

    def __init__(self, view: View, run: RunDirectory, plan: Plan, max_cost_usd: float | None = None) -> None:
        super().__init__(view, max_cost_usd)
        self._run = self._runs[""] = FollowedRun(run, plan)

    def _refresh(self) -> None:
        self._run.refresh()
        if sessions := self._run.queue_state.sessions:
            self._began, self._executors = sessions[-1].started, sessions[-1].executors

    def _items(self) -> Mapping[str, Item]:
        return self._run.items()


class BatchFollower(ProgressFollower):
    """Follows a batch: its scenarios.

    `names`: a few words on each scenario. `spent_before`: what the batch's runs have cost before, by folder.
    """

    noun = "scenarios"
    labels = _SCENARIO_LABELS
    budget = "the batch's budget"

    def __init__(
        self,
        view: View,
        log: BatchLog,
        names: Mapping[str, str],
        max_cost_usd: float | None = None,
        spent_before: Mapping[str, Spending] | None = None,
    ) -> None:
        super().__init__(view, max_cost_usd)
        self._log = log
        self._names = names
        self._unread = dict(spent_before or {})
        """Cost of runs that this session has not read yet. `_settled` includes it."""
        self._settled = sum(self._unread.values(), Spending())
        self._counted: set[str] = set()
        """Scenarios whose end was counted."""
        self._last: tuple[float, Snapshot] | None = None

    def look(self, executors: Iterable[Executor] | None = None, gateway: StatsSource | None = None) -> Snapshot:
        """Show the present state, at most four times a second."""
        now = time.monotonic()
        if self._last and now - self._last[0] < _SHOW_S and self._log.refresh().left:
            return self._last[1]
        self._last = now, super().look(executors, gateway)
        return self._last[1]

    def _refresh(self) -> None:
        """Read what is new in the runs under way, and keep what the closed ones cost."""
        batch = self._log.refresh()
        self._began, self._executors = batch.began, batch.executors
        self._unplanned = len(batch.named(ScenarioState.WAITING))
        for name, status in batch.scenarios.items():
            if status.state is ScenarioState.CLOSED:
                if name not in self._counted:
                    self._count(name, status)
            elif status.state is not ScenarioState.WAITING:
                with suppress(OSError, OrchestratorError):  # the orchestrator of the run reports its damage
                    run = self._runs.get(name) or self._opened(name, status)
                    run.refresh()

    def _directory(self, status: ScenarioStatus) -> RunDirectory:
        return RunDirectory(self._log.batch.root / status.folder)

    def _opened(self, name: str, status: ScenarioStatus) -> FollowedRun:
        run = self._directory(status)
        limit = status.planned.limit if status.planned else None
        followed = self._runs[name] = FollowedRun(run, read_plan(run.plan), limit)
        self._settled -= self._unread.pop(status.folder, Spending())
        return followed

    def _count(self, name: str, status: ScenarioStatus) -> None:
        self._counted.add(name)
        if run := self._runs.pop(name, None):
            with suppress(OrchestratorError):
                run.refresh()
            self._closed.add(run.queue_state)
            self._settled += run.ledger.total()
            run.close()
        else:
            self._settled -= self._unread.pop(status.folder, Spending())
            self._settled += spending_of(self._directory(status))

    def _items(self) -> Mapping[str, Item]:
        scenarios = self._log.queue_state.scenarios
        return {name: _scenario_item(self._names.get(name, ""), status) for name, status in scenarios.items()}

    def _label(self, executor: Executor) -> str | None:
        return f"{executor.run.name}/{executor.task}" if executor.task and executor.run else None


def _scenario_item(name: str, status: ScenarioStatus) -> Item:
    if status.state is ScenarioState.CLOSED and (closed := status.closed):
        return Item(name, _ENDED[closed.ending], closed.ending, closed.why or "")
    return Item(name, _STANDING[status.state], status.state.value)
