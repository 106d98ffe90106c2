"""What the runs in a batch's folder have cost so far: those of earlier texts of a scenario, and of others, as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from parallel_orchestrator.gateway.endpoints.prices import require_prices
from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.records.usage import Spending
from parallel_orchestrator.report.facts.spending import spending_of
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.run_directory import read_scenario


def by_folder(batch: BatchDirectory) -> dict[str, Spending]:
    """Of every run there is, by the name of its folder."""
    runs = [RunDirectory(path.parent) for path in sorted(batch.root.glob("*/ledger.jsonl"))]
    return {run.root.name: spending_of(run) for run in runs}


def by_run(batch: BatchDirectory, spent: Mapping[str, Spending]) -> dict[str, float]:
    """USD that can have been billed at most, by the run's id: as a gateway counts. `spent`: by folder."""
    return {_run_id(batch, folder): one.usd + one.uncertain_usd for folder, one in spent.items()}


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
        self.spent_usd.update(by_run(BatchDirectory(run.root.parent), {run.root.name: spending_of(run)}))

    def require_prices(self, scenarios: Iterable[Scenario]) -> None:
        """Refuse a cap that could not be kept. Raises UsageError."""
        for scenario in scenarios:
            require_prices(scenario, capped=self.max_cost_usd is not None)


def _run_id(batch: BatchDirectory, folder: str) -> str:
    """The folder's name where the id cannot be told: such a run is not opened."""
    try:
        scenario = read_scenario(RunDirectory(batch.root / folder))
    except OrchestratorError:
        return folder
    return scenario.run if scenario else folder
