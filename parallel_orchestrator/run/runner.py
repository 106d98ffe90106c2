"""The runner: builds runs with one set of executors. A run outside a batch is a batch of one.

    Runner.execute
      gateway          one for all: one rate limit, a cap over all beside each run's own
      prepare          plan some runs ahead, so that the longest can be opened first
      supervise        M executors claim from the open runs, and open another when they would be idle
      finish           test each run whose tasks are settled as a whole; a red one gets a fix task, which executors
                       claim like others; sum up the rest
      sum up           the runs that something stopped

Two things differ for a run outside a batch. It has no journal of a batch: it is open from its plan to its end. And
whatever stops it stops everything, so nothing happens beside it: it is prepared before its executors start, and
tested when they have ended. In a batch both happen in threads, and a scenario that cannot continue is closed while
the others continue.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial

from executor_agent import ExecutorSettings, open_executor
from parallel_orchestrator.gateway.config import StartConfig
from parallel_orchestrator.gateway.handle import GatewayProcess, serving
from parallel_orchestrator.records.errors import (
    BatchBudgetReached,
    EndpointUnavailable,
    EndpointUnusable,
    KeyRefused,
    OrchestratorError,
    internal_error,
)
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.report.facts.batch_summary import ScenarioEnding, ScenarioSummary, kept
from parallel_orchestrator.report.facts.documents import Summary
from parallel_orchestrator.report.live.follower import BatchFollower, ProgressFollower, RunFollower
from parallel_orchestrator.report.live.view import View
from parallel_orchestrator.run.cost import by_folder, by_run
from parallel_orchestrator.run.daemon_pool import DaemonPool
from parallel_orchestrator.run.finish import finish, sum_up_unfinished, test_whole
from parallel_orchestrator.run.manifest import current_summary
from parallel_orchestrator.run.prepare import PRELOAD, PreparedRun, prepare
from parallel_orchestrator.run.run import Run
from parallel_orchestrator.sandbox.runner import clear_up
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.queue.batch_journal import BatchLog, OpenRuns
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.queue.scheduler import RunHandle, RunSource, SingleRun
from parallel_orchestrator.store.run_directory import OwnedRun, own_in, take_up
from parallel_orchestrator.store.run_lock import RunLock
from parallel_orchestrator.workers.forking import warm_up
from parallel_orchestrator.workers.supervisor import Supervisor, Workforce
from parallel_orchestrator.workers.worker import WorkerReport, WorkSource

log = logging.getLogger("parallel_orchestrator.orchestrator")

STOPS_EVERYTHING = (KeyRefused, EndpointUnusable, EndpointUnavailable, BatchBudgetReached)
"""What no scenario of a batch can continue after. Any other error stops one."""

MOST_PREWARMED = 16
"""Above this many executors, sandboxes are not prewarmed, to save their memory."""

_LAST_HOLD_S = 10.0
"""For executors to let go of the tasks of a scenario that was closed under them."""


def workforce(executors: int, gateway: GatewayProcess, lock: RunLock) -> Workforce:
    """What executor processes are made of."""
    settings = ExecutorSettings(gateway.config.socket, gateway.config.secret, executors <= MOST_PREWARMED)
    return Workforce(executors, WorkSource(open_executor, settings), PRELOAD, lock.descriptor)


class Runner:
    """Builds runs, in the directory of one or in the folder of a batch. Not to be used twice."""

    def __init__(
        self,
        runs: Sequence[Run],
        executors: int,
        lock: RunLock,
        folder: RunDirectory | BatchDirectory,
        view: View,
        *,
        max_cost_usd: float | None = None,
    ) -> None:
        """`max_cost_usd`: the cap over all runs together, what they cost in earlier sessions included."""
        self.endings: dict[str, ScenarioEnding] = {}
        """What became of the runs so far, by name."""
        self._summary: Summary | None = None
        """Of a run outside a batch, once it has ended."""
        self._runs = {run.directory.root: run for run in runs}
        self._executors = executors
        self._lock = lock
        self._folder = folder
        self._view = view
        self._max_cost_usd = max_cost_usd
        self._journal: BatchLog | None = None
        self._spent_before: dict[str, float] = {}
        self._follower: ProgressFollower | None = None
        if isinstance(folder, BatchDirectory):
            self._journal = BatchLog(folder)
            spent, names = by_folder(folder), {run.name: run.scenario.requirements[:60] for run in runs}
            self._spent_before = by_run(folder, spent)
            self._follower = BatchFollower(view, self._journal, names, max_cost_usd, spent)
        self._waiting = deque(runs)
        self._preparing = 0
        self._prepared: dict[str, PreparedRun] = {}
        """The runs that are planned or open, by name."""
        self._leaving: set[str] = set()
        """Runs whose end was handed to the finishers."""
        self._supervisor: Supervisor | None = None
        self._fatal: Exception | None = None

    def execute(self) -> None:
        """Build all.

        Raises what stopped everything; `endings` then says how far each run is.
        """
        warm_up(PRELOAD)  # importing the SDK takes longest: the rest happens meanwhile
        try:
            if self._journal:
                folders = {run.name: run.folder for run in self._runs.values()}
                self._journal.start_session(self._executors, folders)
            with serving(self._gateway_config(), self._lock.descriptor, self._folder.log, self._say) as self._gateway:
                self._build()
        except BaseException:
            for run in self._runs.values():
                if run.name in self._prepared:
                    self._sum_up(run)
            raise
        finally:
            for opened in (self._follower, self._journal):
                if opened:
                    opened.close()

    def _gateway_config(self) -> StartConfig:
        paying = next((run for run in self._waiting if not run.scenario.replay), self._waiting[0])
        return replace(
            paying.gateway_config(),
            patience_s=max(run.scenario.endpoint_patience for run in self._waiting),
            max_cost_usd=self._max_cost_usd,
            spent_before_usd=self._spent_before,
        )

    def _build(self) -> None:
        threads = self._executors if self._journal else 0
        self._preparers, self._finishers = DaemonPool(2 * threads, "prepare"), DaemonPool(threads, "finish")
        self._prepare_ahead()
        self._raise_fatal()
        while len(self.endings) < len(self._runs):  # once for a batch; a run alone comes back for its fix tasks
            self._supervise()
            self._finishers.join(self._show)  # the last tests take their time
            self._preparers.join(self._show)
            self._raise_fatal()

    def _supervise(self) -> None:
        """Run executors until all runs are closed, or the tasks of the only run are settled."""
        source: RunSource
        if isinstance(self._folder, BatchDirectory):
            source, executors = OpenRuns(self._folder), self._executors
        else:
            (prepared,) = self._prepared.values()
            source = SingleRun(RunHandle(prepared.owned.run, prepared.plan.graph(), prepared.env))
            executors = prepared.executors
        force = workforce(executors, self._gateway, self._lock)
        self._supervisor = Supervisor(source, force, self._tick, self._stops, self._landed)
        try:
            self._supervisor.supervise()
        finally:
            self._supervisor.scheduler.close()
            clear_up()  # after executors that were killed and not replaced

    def _tick(self, supervisor: Supervisor) -> None:
        """Called several times a second: keep runs coming, and let the settled ones go."""
        self._raise_fatal()
        self._prepare_ahead()
        self._show()
        for handle, queue_state in supervisor.scheduler.queue_states():
            run = self._runs[handle.run.root]
            if not queue_state.unsettled and self._leaves(run):
                self._finishers.do(partial(self._finish, run))

    def _raise_fatal(self) -> None:
        if self._fatal:
            raise self._fatal

    def _prepare_ahead(self) -> None:
        """Keep so many runs ready that the longest can be opened first, and none is waited for."""
        while self._waiting and self._preparing + self._ready() < 2 * self._executors:
            self._preparing += 1
            self._preparers.do(partial(self._prepare, self._waiting.popleft()))

    def _ready(self) -> int:
        return self._journal.refresh().ready if self._journal else 0

    def _show(self) -> None:
        slots = self._supervisor.slots.values() if self._supervisor else ()
        if self._follower:
            self._follower.look(slots, self._gateway)

    def _wake(self, count: int = 1) -> None:
        if self._supervisor:
            self._supervisor.wake(count)

    def _landed(self, handle: RunHandle, task: str) -> MergeEvidence | None:
        """The evidence of a task whose work is on its run's trunk."""
        prepared = self._prepared.get(self._runs[handle.run.root].name)
        return prepared.trunk.landed(task) if prepared else None

    def _stops(self, report: WorkerReport) -> bool:
        """Whether an executor's error stops everything. A scenario of a batch that it stops alone is closed."""
        if report.error is None or report.run is None or self._concerns_all(report.error):
            return True
        run = self._runs[report.run]
        if self._leaves(run):
            # Closed at once: the executor that met the error waits for that, and last tests may take long.
            self._end(run, None, report.error)
            self._finishers.do(partial(self._stop, run))
        return False

    def _concerns_all(self, error: Exception) -> bool:
        return self._journal is None or isinstance(error, STOPS_EVERYTHING)

    def _leaves(self, run: Run) -> bool:
        """Mark that the run's end has begun; False when it had."""
        if run.name in self._leaving:
            return False
        self._leaving.add(run.name)
        return True

    def _prepare(self, run: Run) -> None:
        """Plan one run and make it ready to be opened."""
        try:
            owned = run.owned or self._own(run)
            self._gateway.open_run(run.run_config(owned))
            prepared = self._prepared[run.name] = prepare(run, owned, self._gateway)
            if self._journal:
                path = max(prepared.plan.graph().remaining().values())
                self._journal.planned(run.name, path, owned.scenario.max_executors, prepared.env)
            else:
                self._follower = RunFollower(self._view, owned.run, prepared.plan, owned.scenario.max_cost_usd)
        except Exception as error:  # noqa: BLE001 - what stops one scenario stops no other
            self._end(run, None if self._concerns_all(error) else current_summary(run.directory), error)
        finally:
            self._preparing -= 1
            self._wake(self._executors)

    def _own(self, run: Run) -> OwnedRun:
        """Own the directory of a scenario, under the batch's lock."""
        owned = own_in(run.directory, run.scenario, self._lock, resumed=run.resolved.resumed)
        take_up(owned, run.view.say)
        return owned

    def ended_summary(self) -> Summary:
        """The summary of a run outside a batch that `execute` has built."""
        if self._summary is None:
            raise OrchestratorError("the run has not ended")
        return self._summary

    def _finish(self, run: Run) -> None:
        """Test and sum up a run whose tasks are settled. With a red whole it may have another task to do first."""
        prepared, error = self._prepared[run.name], None
        try:
            final = test_whole(prepared)
            if final is None:
                self._leaving.discard(run.name)
                self._wake()
                return
            whole = finish(prepared, final)
            if self._journal is None:
                self._summary = whole
            summary = kept(whole)
        except Exception as problem:  # noqa: BLE001 - as in _prepare
            summary, error = self._so_far(run), problem
        self._close_at_gateway(prepared)
        self._end(run, summary, error)
        del self._prepared[run.name]

    def _stop(self, run: Run) -> None:
        """Sum up a run that was closed under the executors that work on it, when they have let go."""
        prepared = self._prepared[run.name]
        self._close_at_gateway(prepared)  # an executor that asks for it now lets go
        deadline = time.monotonic() + _LAST_HOLD_S
        with suppress(OrchestratorError), closing(TaskQueue(prepared.owned.run, prepared.plan.graph())) as queue:
            while queue.refresh().held and time.monotonic() < deadline:
                time.sleep(0.1)
        self._sum_up(run)
        del self._prepared[run.name]

    def _close_at_gateway(self, prepared: PreparedRun) -> None:
        with suppress(OrchestratorError):  # it has died: one that is started in its place does not know the run
            self._gateway.close_run(prepared.owned.scenario.run)

    def _so_far(self, run: Run) -> ScenarioSummary:
        """What is kept of a run that stops before its end."""
        try:
            return kept(sum_up_unfinished(self._prepared[run.name]))
        except Exception as error:  # noqa: BLE001 - a full disk, which stopped it perhaps
            log.error("%s: cannot be summed up: %s", run.folder, error)
            return current_summary(run.directory)

    def _sum_up(self, run: Run) -> None:
        """Say in a begun run's own summary, too, how far it is, unless it has come to its end."""
        ending = self.endings.get(run.name) or ScenarioEnding(run.name, run.folder, None)
        if ending.summary is None:
            self.endings[run.name] = replace(ending, summary=self._so_far(run))

    def _end(self, run: Run, summary: ScenarioSummary | None, error: Exception | None = None) -> None:
        """Record what became of a run; an error that concerns all is kept for the next tick."""
        if error and self._concerns_all(error):
            self._fatal = error
            return
        ending = self.endings[run.name] = ScenarioEnding(run.name, run.folder, summary, _foreseen(error))
        if ending.error:
            log.error("%s: %s", run.name, ending.error)
        try:
            if self._journal:
                self._journal.closed(run.name, ending.status, ending.why)
        except OrchestratorError as broken:  # the batch's own journal: no executor would see anything any more
            self._fatal = broken
        self._wake(self._executors)

    def _say(self, text: str) -> None:
        log.info("%s", text)
        self._view.say(text)


def _foreseen(error: Exception | None) -> OrchestratorError | None:
    """The error as one that a person can read."""
    if error is None or isinstance(error, OrchestratorError):
        return error
    log.error("an unexpected error", exc_info=error)
    return internal_error(error)
