"""Many scenarios, one set of executors.

    Batch.go
      own              the batch's folder; scenarios that are finished are not touched
      gateway          one for all: one rate limit, a cap over everything beside each scenario's own
      supervise        M executors claim from the runs that are open, and open another when they would be idle
        prepare        beside that, in threads: some scenarios ahead are planned and made ready
        finish         and those whose tasks are settled are tested as a whole; a red one gets a fix task, which
                       executors claim like others; the rest are summed up
      sum up           what became of each

A scenario that cannot go on is closed, the others go on. Killed anywhere, the same command goes on: what each run
has is in its own directory, as if it were alone.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from parallel_orchestrator.records.errors import (
    BatchBudgetReached,
    EndpointUnavailable,
    EndpointUnusable,
    KeyRefused,
    OrchestratorError,
    internal_error,
)
from parallel_orchestrator.report.facts.batch_summary import Ending, kept
from parallel_orchestrator.report.live.follower import BatchFollower
from parallel_orchestrator.report.live.view import ScenarioView, View
from parallel_orchestrator.run.cost import by_folder, by_run
from parallel_orchestrator.run.daemon_pool import Crew
from parallel_orchestrator.run.manifest import Entry, Site, standing
from parallel_orchestrator.store.paths import BatchDirectory
from parallel_orchestrator.store.queue.batch_journal import BatchLog, BatchSource
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.run_directory import own_in, take_up
from parallel_orchestrator.store.run_lock import RunLock
from parallel_orchestrator.system.logfile import log_to, stop_logging
from parallel_orchestrator.workers.supervisor import Supervisor, Workforce
from parallel_orchestrator.workers.worker import WorkerReport

if TYPE_CHECKING:
    from parallel_orchestrator.gateway.config import StartConfig
    from parallel_orchestrator.gateway.handle import GatewayProcess

log = logging.getLogger("parallel_orchestrator.batch")

STOPS_EVERYTHING = (KeyRefused, EndpointUnusable, EndpointUnavailable, BatchBudgetReached)
"""What no scenario can go on after. Anything else is the matter of one."""

_LAST_HOLD_S = 10.0
"""For executors to let go of the tasks of a scenario that was closed under them."""


@dataclass(frozen=True)
class Tools:
    """What the batch is given, being below it in no room: how to serve and who works."""

    serving: Callable[[StartConfig, int], AbstractContextManager[GatewayProcess]]
    """A gateway for as long as its block runs; it holds the lock's descriptor."""
    workforce: Callable[[int, GatewayProcess, RunLock], Workforce]


class Batch:
    """The story of one batch. Not to be used twice."""

    def __init__(
        self, batch: BatchDirectory, entries: Sequence[Entry], executors: int, tools: Tools, view: View
    ) -> None:
        self.batch = batch
        self.entries = entries
        self.executors = executors
        self.endings = {e.name: Ending(e.name, e.folder, e.finished) for e in entries if e.finished}
        """What became of the scenarios so far."""
        self._tools = tools
        self._log = BatchLog(batch)
        self._todo = [entry for entry in entries if not entry.finished]
        names = {entry.name: entry.scenario.requirements[:60] for entry in self._todo}
        self._spent_before = by_folder(batch)
        self._view = view
        self._follower = BatchFollower(view, self._log, names, spent_before=self._spent_before)
        self._by_root = {entry.run(batch).root: entry for entry in self._todo}
        self._waiting = deque(self._todo)
        self._sites: dict[str, Site] = {}
        """Of the scenarios that are planned or open."""
        self._leaving: set[str] = set()
        """Scenarios whose end was handed to the crew."""
        self._preparing = 0
        self._fatal: OrchestratorError | None = None

    def go(self, lock: RunLock, max_cost_usd: float | None) -> list[Ending]:
        """All of it, in a folder that is owned; what became of each scenario. Raises what stopped everything.

        `max_cost_usd`: the cap over all scenarios together, what they cost in earlier sessions included.
        """
        if self._todo:
            handler = log_to(self.batch.log)
            try:
                with closing(self._log):
                    self._work(lock, max_cost_usd)
            except BaseException:
                self._sum_up_what_is_left()
                raise
            finally:
                self._follower.close()
                self._view.close()
                stop_logging(handler)
        return [self.endings[entry.name] for entry in self.entries]

    def _work(self, lock: RunLock, max_cost_usd: float | None) -> None:
        self._lock = lock
        self._follower.max_cost_usd = max_cost_usd
        self._log.start_session(self.executors, {entry.name: entry.folder for entry in self._todo})
        paying = next((entry for entry in self._todo if not entry.scenario.replay), self._todo[0])
        start = replace(
            paying.story.gateway_config(),
            patience_s=max(entry.scenario.endpoint_patience for entry in self._todo),
            max_cost_usd=max_cost_usd,
            spent_before_usd=by_run(self.batch, self._spent_before),
        )
        with self._tools.serving(start, lock.descriptor) as gateway:
            self._gateway = gateway
            self._preparers, self._finishers = Crew(2 * self.executors, "prepare"), Crew(self.executors, "finish")
            force = self._tools.workforce(self.executors, gateway, lock)
            self._supervisor = Supervisor(BatchSource(self.batch), force, self._tick, self._stops)
            try:
                self._supervisor.supervise()
                self._finishers.end(self._show)  # the last tests take their time
                self._preparers.end(self._show)
                if self._fatal:
                    raise self._fatal
            finally:
                self._supervisor.board.close()

    def _tick(self, supervisor: Supervisor) -> None:
        """Called several times a second: keep scenarios coming, and let the settled ones go."""
        if self._fatal:
            raise self._fatal
        # So many are ready beforehand that the longest of them can be opened first, and none is waited for.
        while self._waiting and self._preparing + self._log.refresh().ready < 2 * self.executors:
            self._preparing += 1
            self._preparers.do(partial(self._prepare, self._waiting.popleft()))
        for member, replica in supervisor.board.replicas():
            entry = self._by_root[member.run.root]
            if not replica.unsettled and self._leaves(entry):
                self._finishers.do(partial(self._finish, entry))
        self._show()

    def _show(self) -> None:
        self._follower.look(self._supervisor.slots.values(), self._gateway)

    def _stops(self, report: WorkerReport) -> bool:
        """Whether an executor's error stops everything. One that stops a single scenario is seen to."""
        if report.run is None or isinstance(report.error, STOPS_EVERYTHING):
            return True
        entry = self._by_root[report.run]
        if report.error is not None and self._leaves(entry):
            # Closed at once: whoever met the error waits for that, and last tests may go on for long.
            self._end(entry, None, report.error)
            self._finishers.do(partial(self._stop, entry))
        return False

    def _leaves(self, entry: Entry) -> bool:
        """Mark that the scenario's end has begun; False when it had."""
        if entry.name in self._leaving:
            return False
        self._leaving.add(entry.name)
        return True

    def _prepare(self, entry: Entry) -> None:
        """Plan one scenario and make it ready to be opened."""
        try:
            resumed = entry.story.settled.resumed
            owned = own_in(entry.run(self.batch), entry.scenario, self._lock, resumed=resumed)
            take_up(owned, ScenarioView(self._view, entry.name).say)
            self._gateway.open_run(entry.story.served(owned))
            site = self._sites[entry.name] = entry.story.prepare(owned, self._gateway, entry.story.check()[0])
            path = max(site.plan.graph().remaining().values())
            self._log.planned(entry.name, path, entry.scenario.max_executors, site.env)
        except Exception as error:  # noqa: BLE001 - one scenario's trouble, whatever it is, stops no other
            self._end(entry, standing(entry.run(self.batch)), _foreseen(error))
        finally:
            self._preparing -= 1
            self._supervisor.wake(self.executors)

    def _finish(self, entry: Entry) -> None:
        """Test and sum up a scenario whose tasks are settled. With a red whole it may have another task to do first."""
        site = self._sites[entry.name]
        try:
            final = entry.story.test_whole(site)
            if final is None:
                self._leaving.discard(entry.name)
                self._supervisor.wake()
                return
            summary, stop = kept(entry.story.finish(site, final)), None
        except Exception as error:  # noqa: BLE001 - as in _prepare
            summary, stop = self._so_far(entry), _foreseen(error)
        self._close_at_gateway(site)
        self._end(entry, summary, stop)
        del self._sites[entry.name]

    def _stop(self, entry: Entry) -> None:
        """Sum up a scenario that was closed under the executors that work on it, when they have let go."""
        site = self._sites[entry.name]
        self._close_at_gateway(site)  # whoever asks for it now lets go
        deadline = time.monotonic() + _LAST_HOLD_S
        with suppress(OrchestratorError), closing(TaskQueue(site.owned.run, site.plan.graph())) as queue:
            while queue.refresh().held and time.monotonic() < deadline:
                time.sleep(0.1)
        self._sum_up(entry)
        del self._sites[entry.name]

    def _close_at_gateway(self, site: Site) -> None:
        with suppress(OrchestratorError):  # it has died: one that is started in its place does not know the run
            self._gateway.close_run(site.owned.scenario.run)

    def _so_far(self, entry: Entry) -> dict[str, Any]:
        """What is kept of a scenario that stops before its end."""
        try:
            return kept(entry.story.stopped(self._sites[entry.name]))
        except Exception as error:  # noqa: BLE001 - a full disk, which stopped it perhaps
            log.error("%s: cannot be summed up: %s", entry.name, error)
            return standing(entry.run(self.batch))

    def _sum_up(self, entry: Entry) -> None:
        """Say in a begun scenario's own summary, too, how far it is, unless it has come to its end."""
        ending = self.endings.get(entry.name) or Ending(entry.name, entry.folder, None)
        if ending.summary is None:
            self.endings[entry.name] = replace(ending, summary=self._so_far(entry))

    def _end(self, entry: Entry, summary: dict[str, Any] | None, error: OrchestratorError | None = None) -> None:
        """Record what became of a scenario; an error that concerns all is kept for the next tick."""
        if isinstance(error, STOPS_EVERYTHING):
            self._fatal = error
            return
        ending = self.endings[entry.name] = Ending(entry.name, entry.folder, summary, error)
        if error:
            log.error("%s: %s", entry.name, error)
        try:
            self._log.closed(entry.name, ending.status, ending.why)
        except OrchestratorError as broken:  # the batch's own journal: nobody would hear of anything any more
            self._fatal = broken
        self._supervisor.wake(self.executors)

    def _sum_up_what_is_left(self) -> None:
        """Everything stops: sum up each scenario that was begun."""
        for entry in self._todo:
            if entry.name in self._sites:
                self._sum_up(entry)


def _foreseen(error: Exception) -> OrchestratorError:
    """The error as one that a person can be told."""
    if isinstance(error, OrchestratorError):
        return error
    log.error("an unexpected error", exc_info=error)
    return internal_error(error)
