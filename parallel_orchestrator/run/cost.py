"""What the runs in a batch's folder have cost so far: those of earlier texts of a scenario, and of others, as well."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from parallel_orchestrator.gateway.endpoints.prices import require_prices
from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.records.usage import dollars
from parallel_orchestrator.report.facts.spending import Spending, read_ledger
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.run_directory import read_scenario


def by_folder(batch: BatchDirectory) -> dict[str, Spending]:
    """Of every run there is, by the name of its folder."""
    runs = [RunDirectory(path.parent) for path in sorted(batch.root.glob("*/ledger.jsonl"))]
    return {run.root.name: of_run(run) for run in runs}


def by_run(batch: BatchDirectory, spent: Mapping[str, Spending]) -> dict[str, float]:
    """USD that can have been billed at most, by the run's id: as a gateway counts. `spent`: by folder."""
    return {_run_id(batch, folder): one.usd + one.uncertain_usd for folder, one in spent.items()}


def of_run(run: RunDirectory) -> Spending:
    """By its ledger; by its summary where that cannot be read, which is told by whoever goes on with the run."""
    try:
        return read_ledger(run.ledger).total()
    except (OSError, OrchestratorError):
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


@dataclass(frozen=True)
class Budget:
    """A cap over all runs of a batch together, for who works on one after the other."""

    max_cost_usd: float | None
    spent_usd: dict[str, float]
    """By the run's id."""

    @classmethod
    def of(cls, batch: BatchDirectory, max_cost_usd: float | None) -> Budget:
        """With what was spent in earlier sessions."""
        return cls(max_cost_usd, by_run(batch, by_folder(batch)))

    def count(self, run: RunDirectory) -> None:
        """Count what that run has spent by now."""
        self.spent_usd.update(by_run(BatchDirectory(run.root.parent), {run.root.name: of_run(run)}))

    def require_prices(self, scenarios: Iterable[Scenario]) -> None:
        """Refuse a cap that could not be kept. Raises UsageError."""
        for scenario in scenarios:
            require_prices(scenario, capped=self.max_cost_usd is not None)


def add(total: Spending, one: Spending) -> None:
    """Count `one` in."""
    for name, value in vars(one).items():
        setattr(total, name, getattr(total, name) + value)


def take_off(total: Spending, one: Spending) -> None:
    """Count `one` out again."""
    for name, value in vars(one).items():
        left = getattr(total, name) - value
        setattr(total, name, left if isinstance(left, Counter) else max(0, left))


def _run_id(batch: BatchDirectory, folder: str) -> str:
    """The folder's name where the id cannot be told: such a run is not opened."""
    try:
        scenario = read_scenario(RunDirectory(batch.root / folder))
    except OrchestratorError:
        return folder
    return scenario.run if scenario else folder
