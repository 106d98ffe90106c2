"""What the commands need of orchestrator.py, which gives it to them: they cannot import it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from parallel_orchestrator.config.options import Options, Settled
    from parallel_orchestrator.records.plan import Plan
    from parallel_orchestrator.run.cost import Budget
    from parallel_orchestrator.run.session import Given


class Story(Protocol):
    """One run; orchestrator.Run."""

    settled: Settled
    found_finished: bool
    """Whether `go` found the run finished, and so did nothing."""

    def go(self) -> dict[str, Any]:
        """Run it to its end and return the summary."""

    def check_files(self) -> bool:
        """Refuse prices and recordings that cannot be used."""

    def only_plan(self, budget: Budget | None = None) -> Plan:
        """Run it until there is a plan."""

    def price(self, usage: Mapping[str, int]) -> float | None:
        """USD for such a usage at the executors' model."""


class Start(Protocol):
    """Makes a run of options; orchestrator.start."""

    def __call__(
        self, options: Options, *, retry: Sequence[str] | None = None, ask: Callable[[str], bool] | None = None
    ) -> Story:
        """Return the run, checked as far as possible without a directory. `ask` asks the person a question."""


StartBatch = Callable[["Given"], dict[str, Any]]
"""Runs a batch; its summary. orchestrator.start_batch."""
