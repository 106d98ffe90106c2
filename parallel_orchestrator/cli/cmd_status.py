"""status: how a run or a batch stands. It reads files alone, works while the run does, and needs no lock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.output import CliResult
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.report.facts.batch_status import batch_status
from parallel_orchestrator.report.facts.status import run_status
from parallel_orchestrator.report.facts.trouble import LedgerTrouble
from parallel_orchestrator.report.live.console import make_view
from parallel_orchestrator.report.live.follower import BatchFollower, RunFollower
from parallel_orchestrator.report.live.view import View
from parallel_orchestrator.report.pages.status_page import status_page
from parallel_orchestrator.report.pages.wrapping import output_columns
from parallel_orchestrator.run.cost import by_folder
from parallel_orchestrator.run.manifest import load
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.plan_file import read_plan
from parallel_orchestrator.store.queue.batch_journal import BatchLog
from parallel_orchestrator.store.run_directory import read_scenario, require_scenario
from parallel_orchestrator.store.run_lock import is_held

_LOOK_S = 0.5


def status(directory: p.RunOrBatch, *, follow: p.Follow = False) -> CliResult:
    """Show how a run or a batch stands.

    Each task, tests, cost, who works on it, and what to type next: from the files alone, also while it runs.
    """
    place = place_of(directory)
    if follow:
        with suppress(KeyboardInterrupt):  # leaving the view is no failure: the run goes on
            _follow_batch(place) if isinstance(place, BatchDirectory) else _follow_run(place)
    found = batch_status(place) if isinstance(place, BatchDirectory) else run_status(place)
    return CliResult(lambda: status_page(found, output_columns()), found.as_json())


def place_of(directory: Path) -> RunDirectory | BatchDirectory:
    """The run or the batch that lies there. Raises UsageError."""
    root = directory.absolute()
    if BatchDirectory(root).config.exists():
        return BatchDirectory(root)
    if RunDirectory(root).scenario.exists():
        return RunDirectory(root)
    if not root.is_dir():
        raise UsageError(f"there is no folder {directory}")
    raise UsageError(f"{directory} holds neither a run nor a batch")


def looks(lock: Path, *finished: Path) -> Iterator[None]:
    """Some times a second until the run has ended or one of `finished` is there, and once more after that."""
    while is_held(lock) and not any(path.exists() for path in finished):
        yield
        time.sleep(_LOOK_S)
    yield


def _follow_run(run: RunDirectory) -> None:
    """Show a run until it ends."""
    with _view() as view:
        if not run.plan.exists() and is_held(run.run_lock):
            view.say("planning …")
        with closing(LedgerTrouble(run.ledger, view.say)) as trouble:
            for _ in looks(run.run_lock, run.summary):
                trouble()
                if run.plan.exists():
                    break
        if not run.plan.exists():
            return
        plan = read_plan(run.plan)
        with closing(RunFollower(view, run, plan, require_scenario(run).max_cost_usd)) as follower:
            for _ in looks(run.run_lock, run.summary):
                follower.look()


def _follow_batch(batch: BatchDirectory) -> None:
    """Show a batch until it ends."""
    with _view() as view, closing(BatchLog(batch)) as log:
        scenarios = log.refresh().scenarios
        names = {name: _about(batch, status.folder) for name, status in scenarios.items()}
        with closing(BatchFollower(view, log, names, load(batch).max_cost_usd, by_folder(batch))) as follower:
            for _ in looks(batch.run_lock):
                follower.look()


@contextmanager
def _view() -> Iterator[View]:
    view = make_view()
    view.say("Ctrl-C leaves this view; what is shown goes on")
    try:
        yield view
    finally:
        view.close()


def _about(batch: BatchDirectory, folder: str) -> str:
    """A few words on a scenario."""
    scenario = read_scenario(RunDirectory(batch.root / folder))
    return scenario.requirements[:60] if scenario else ""
