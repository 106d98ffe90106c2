"""Runs without a cap: nothing limits what they spend, so a person has to agree before anything is paid for."""

from __future__ import annotations

from pathlib import Path

from parallel_orchestrator.config.options import Settled
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.run_directory import read_scenario

NO_CAP = (
    "a live model is asked, and nothing limits what that costs. Nothing was started. Set a cap in USD with "
    "--max-cost USD (max_cost= in Python, max_cost: in a scenario file): the run stops there and can be resumed. "
    "Or agree to a run without a cap with --yes (yes=True, yes: true)"
)


def lacks_agreement(settled: Settled, directory: Path | None = None) -> bool:
    """Whether this run may spend without a limit, and the person has not agreed to that.

    A run that began without a cap needs no second agreement. `directory`: of the run, when not the settled one.
    """
    scenario = settled.scenario
    if settled.recording or scenario.max_cost_usd is not None or scenario.yes:
        return False
    run = RunDirectory(directory or settled.directory)
    old = None if settled.fresh else read_scenario(run)
    return old is None or old.max_cost_usd is not None or not (old.yes or run.queue.exists())


def require_agreement(settled: Settled) -> None:
    """Raise UsageError when the run `lacks_agreement`."""
    if lacks_agreement(settled):
        raise UsageError(NO_CAP)
