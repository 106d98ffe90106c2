"""Watching from another terminal: the same view as the run's own, fed from its files alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from parallel_orchestrator.records.scenario import Surroundings
from parallel_orchestrator.report.facts.spending import Ledger
from parallel_orchestrator.report.facts.status import doing, held_s
from parallel_orchestrator.report.facts.trouble import LedgerTrouble
from parallel_orchestrator.report.live.console import make_view
from parallel_orchestrator.report.live.follower import Watch
from parallel_orchestrator.report.live.view import View
from parallel_orchestrator.run.batch_follower import BatchWatch
from parallel_orchestrator.run.cost import by_folder
from parallel_orchestrator.run.manifest import recall
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.plan_file import read_plan
from parallel_orchestrator.store.queue.batch_journal import BatchLog, BatchSource
from parallel_orchestrator.store.queue.queue_state import Claim
from parallel_orchestrator.store.queue.scheduler import Alone, Board, Member
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
        member = Member(run, plan.graph(), Surroundings("off"))
        executors = Executors(Board(Alone(member)))
        with (
            closing(executors.board) as board,
            closing(Watch(view, run, plan, require_scenario(run).max_cost_usd)) as watch,
        ):
            for _ in looks(run.run_lock, run.summary):
                board.look()
                replica = board.replica(run)
                watch.look(replica, executors.slots(replica.sessions[-1].executors if replica.sessions else 0))


def follow_batch(batch: BatchDirectory) -> None:
    """Show a batch until it ends."""
    with _view() as view, closing(BatchLog(batch)) as log:
        scenarios = log.refresh().scenarios
        names = {name: _about(batch, status.folder) for name, status in scenarios.items()}
        watch = BatchWatch(view, batch, names, recall(batch).max_cost_usd, by_folder(batch))
        executors = Executors(Board(BatchSource(batch)))
        with closing(executors.board) as board:
            for _ in looks(batch.run_lock):
                board.look()
                watch.look(log.refresh(), executors.slots(0))


@contextmanager
def _view() -> Iterator[View]:
    view = make_view()
    view.say("Ctrl-C leaves this view; what is shown goes on")
    try:
        yield view
    finally:
        view.close()


@dataclass
class Slot:
    """An executor, as the files tell of it."""

    number: int
    task: str | None = None
    run: Path | None = None
    doing: str = "idle"
    since: float = 0.0


class Executors:
    """Who works on what, by the queues of the open runs."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._known: dict[int, Slot] = {}
        self._ledgers: dict[Path, tuple[Journal, Ledger]] = {}

    def slots(self, executors: int) -> list[Slot]:
        """At least so many, as of the board's last look."""
        held = {
            status.claim.executor: Slot(
                status.claim.executor,
                status.claim.task,
                member.run.root,
                doing(member.run, status.claim, self._turns(member.run, status.claim)),
                time.monotonic() - held_s(status),
            )
            for member, replica in self.board.replicas()
            for status in replica.tasks.values()
            if status.claim
        }
        for number in {*range(1, executors + 1), *held, *self._known}:
            known = self._known.get(number)
            idle = known if known and known.task is None else Slot(number, since=time.monotonic())
            self._known[number] = held.get(number, idle)
        return list(self._known.values())

    def _turns(self, run: RunDirectory, claim: Claim) -> int:
        return self._read(run.root)[1].turns(claim.task, claim.attempt)

    def _read(self, root: Path) -> tuple[Journal, Ledger]:
        journal, ledger = self._ledgers.setdefault(root, (Journal(RunDirectory(root).ledger), Ledger()))
        ledger.follow(journal.each_new(), journal.path)
        journal.close()  # a batch may have more runs than a process may have files open
        return journal, ledger


def _about(batch: BatchDirectory, folder: str) -> str:
    """A few words on a scenario."""
    scenario = read_scenario(RunDirectory(batch.root / folder))
    return scenario.requirements[:60] if scenario else ""
