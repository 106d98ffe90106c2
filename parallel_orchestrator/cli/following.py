"""Watching from another terminal: the same view as the run's own, fed from its files alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from parallel_orchestrator.report.facts.trouble import LedgerTrouble
from parallel_orchestrator.report.live.console import make_view
from parallel_orchestrator.report.live.follower import BatchFollower, RunFollower
from parallel_orchestrator.report.live.view import View
from parallel_orchestrator.run.cost import by_folder
from parallel_orchestrator.run.manifest import recall
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.plan_file import read_plan
from parallel_orchestrator.store.queue.batch_journal import BatchLog
from parallel_orchestrator.store.run_directory import read_scenario, require_scenario
from parallel_orchestrator.store.run_lock import is_held
from parallel_orchestrator.system.tail import Tail

_LOOK_S = 0.5


def looks(lock: Path, *finished: Path) -> Iterator[None]:
    """Some times a second until the run has ended or one of `finished` is there, and once more after that."""
    while is_held(lock) and not any(path.exists() for path in finished):
        yield
        time.sleep(_LOOK_S)
    yield


def follow_file(path: Path, lock: Path, count: int | None, *finished: Path) -> Iterator[bytes]:
    """The last `count` lines of a file, and those that are added until the run ends."""
    tail = Tail(path, count)
    for _ in looks(lock, *finished):
        yield from tail.read_new()


def follow_run(run: RunDirectory) -> None:
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


def follow_batch(batch: BatchDirectory) -> None:
    """Show a batch until it ends."""
    with _view() as view, closing(BatchLog(batch)) as log:
        scenarios = log.refresh().scenarios
        names = {name: _about(batch, status.folder) for name, status in scenarios.items()}
        with closing(BatchFollower(view, log, names, recall(batch).max_cost_usd, by_folder(batch))) as follower:
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
