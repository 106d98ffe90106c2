"""Whether a call may be made now: the credential, the caps, and what halted a run."""

from __future__ import annotations

from dataclasses import dataclass

from parallel_orchestrator.gateway.calls.messages import ModelRequest
from parallel_orchestrator.gateway.calls.run import ServedRun
from parallel_orchestrator.gateway.calls.runs import Runs
from parallel_orchestrator.gateway.http import errors
from parallel_orchestrator.gateway.http.errors import GatewayError


@dataclass
class Admission:
    """Asked before each try. Calls in flight are not counted: a cap can be passed by what they cost."""

    runs: Runs
    max_cost_usd: float | None
    """Cap over all runs together."""
    refused: GatewayError | None = None
    """Set when the endpoint refused the credential or is unusable: no live call goes out again."""

    def check(self, run: ServedRun, request: ModelRequest) -> None:
        """Raise GatewayError unless this call may be made now."""
        live = None if run.endpoint.free else self.refused or run.unknown_models.get(request.model)
        halted = run.halted or live
        if halted:
            raise halted.copy()
        if not run.endpoint.free:
            self._check_price(run, request)
            self._check_caps(run, request.key.task)

    def _check_price(self, run: ServedRun, request: ModelRequest) -> None:
        if (run.capped or self.max_cost_usd is not None) and not run.prices.knows(request.model):
            raise errors.unpriced(request.model)

    def _check_caps(self, run: ServedRun, task: str) -> None:
        if run.max_cost_usd is not None and run.spent_usd() >= run.max_cost_usd:
            raise errors.budget_reached(run.spent_usd(), run.max_cost_usd)
        if self.max_cost_usd is not None and self.runs.spent_usd() >= self.max_cost_usd:
            raise errors.batch_budget_reached(self.runs.spent_usd(), self.max_cost_usd)
        by_task = run.ledger.fold.spent_usd(task)
        if run.task_max_cost_usd is not None and by_task >= run.task_max_cost_usd:
            raise errors.task_budget_reached(task, by_task, run.task_max_cost_usd)
