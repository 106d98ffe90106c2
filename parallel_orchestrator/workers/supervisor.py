"""The supervisor: keeps M worker processes alive, replaces the dead, ends the hung, and stops them all.

supervise
  _start                    each of M workers
  loop until all tasks are settled:
    _hear                   reports: what each does; an error that stops the run
    _replace_dead           once a process is proven dead:
      _adopt                  record the merge that it may have died before recording
      scheduler.take_back         release its claims
      _start                  another worker in its slot
    _kill_hung              past the time given for the next report, or stopped by a signal
    tick                    the caller's: live view, gateway
  _stop                     end of file on the stop pipe, then patience, then kill
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.store.queue.scheduler import RunHandle, RunSource, Scheduler
from parallel_orchestrator.system import memory
from parallel_orchestrator.system.process import Stopped
from parallel_orchestrator.workers.forking import InheritedDescriptor, how_it_died, start_process
from parallel_orchestrator.workers.worker import WorkerPipes, WorkerReport, WorkSource, run_worker

log = logging.getLogger(__name__)

TICK_S = 0.25
HANG_GRACE_S = 5.0
_LOOKS_BACK = 8
"""A death belongs to a memory counter that rose within so many looks, TICK_S apart."""
MAX_FRUITLESS_DEATHS = 3
"""Most deaths in a row of one slot without a new queue record: then the workers cannot even start."""


@dataclass(eq=False)
class Slot:
    """One executor: its present process and that process's last report."""

    number: int
    process: BaseProcess
    reports: Connection
    task: str | None = None
    run: Path | None = None
    doing: str = "starting"
    since: float = 0.0
    deadline: float | None = None
    stopped: Stopped = field(default_factory=Stopped)
    ended_here: bool = False
    """Whether it was killed for hanging."""
    fruitless_deaths: int = 0
    moves_at_start: int = 0


@dataclass(frozen=True)
class Workforce:
    """How the workers are made."""

    executors: int
    work: WorkSource
    preload: tuple[str, ...]
    run_lock: int


def everything_stops(report: WorkerReport) -> bool:
    """Whether an error stops everything: in a run of its own, any does."""
    return report.error is not None


class Supervisor:
    """Runs the workers of one run or of a batch. Call `supervise`, once.

    `stops`: whether a report with an error stops everything. `landed`: returns the evidence of a task whose work is
    on its run's trunk, else None.
    """

    def __init__(
        self,
        source: RunSource,
        force: Workforce,
        tick: Callable[[Supervisor], None],
        stops: Callable[[WorkerReport], bool] = everything_stops,
        landed: Callable[[RunHandle, str], MergeEvidence | None] = lambda handle, task: None,
    ) -> None:
        self.scheduler = Scheduler(source)
        self.slots: dict[int, Slot] = {}
        self._selector = selectors.PollSelector()
        """The reports and the sentinel of each process not known to be dead. Polling 200 one by one is slow."""
        self._dying: list[Slot] = []
        self._source = source
        self._force = force
        self._tick = tick
        self._stops = stops
        self._landed = landed
        self._stop_read = self._stop_write = self._wake_read = self._wake_write = -1
        self._pipe_mutex = threading.Lock()
        self._error: OrchestratorError | None = None
        self._next_look_for_hung = 0.0
        self._kills = deque([memory.kills()], maxlen=_LOOKS_BACK)
        """The counters at the last looks, oldest first."""
        self._starved_alone = 0

    def supervise(self) -> None:
        """Run the workers until every task is settled. Raises the error that stopped them, or KeyboardInterrupt."""
        try:
            self._stop_read, self._stop_write = os.pipe()
            self._wake_read, self._wake_write = os.pipe()
            for number in range(1, self.scheduler.room_for(self._force.executors) + 1):
                self._start(number)
            while self.scheduler.refresh() and self._error is None:
                self._hear(TICK_S)
                self._replace_dead()
                self._kill_hung()
                self._tick(self)
        finally:
            self._stop(patience_s=HANG_GRACE_S)
        self._tick(self)
        if self._error is not None:
            raise self._error

    def wake(self, count: int = 1) -> None:
        """Hint to idle workers that a task became ready. Callable from any thread at any time."""
        with self._pipe_mutex, contextlib.suppress(BlockingIOError):
            if self._wake_write >= 0:
                os.write(self._wake_write, b"x" * count)

    def ask_to_stop(self) -> None:
        """Ask the workers to claim nothing more and to stop at the next safe point."""
        if self._stop_write >= 0:
            os.close(self._stop_write)
            self._stop_write = -1

    def _start(self, number: int, fruitless_deaths: int = 0) -> None:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        pipes = WorkerPipes(
            theirs,
            InheritedDescriptor(self._stop_read),
            InheritedDescriptor(self._wake_read),
            InheritedDescriptor(self._wake_write),
            InheritedDescriptor(self._force.run_lock),
        )
        arguments = (number, self._source, self._force.work, pipes)
        process = start_process(run_worker, arguments, f"executor {number}", self._force.preload)
        theirs.close()  # the worker has the only write end now, so its death is an end of file here
        moves, now = self.scheduler.moves, time.monotonic()
        slot = Slot(number, process, ours, since=now, fruitless_deaths=fruitless_deaths, moves_at_start=moves)
        self.slots[number] = slot
        for source in (ours, process.sentinel):
            self._selector.register(source, selectors.EVENT_READ, slot)

    def _hear(self, timeout: float) -> None:
        """Read the workers' reports. Waits up to `timeout` seconds for the first report or death."""
        for key, _ in self._selector.select(timeout):
            slot = key.data
            # End of file: its process is dying. `_close` reads its last reports.
            if slot not in self._dying and not (key.fileobj is slot.reports and self._take_report(slot)):
                self._dying.append(slot)
                for source in (slot.reports, slot.process.sentinel):
                    self._selector.unregister(source)

    def _take_report(self, slot: Slot) -> bool:
        """Read one report. Returns False when there is none."""
        try:
            if not slot.reports.poll():
                return False
            report: WorkerReport = slot.reports.recv()
        except (EOFError, OSError):
            return False
        now = time.monotonic()
        if (slot.task, slot.run, slot.doing) != (report.task, report.run, report.doing):
            slot.task, slot.run, slot.doing, slot.since = report.task, report.run, report.doing, now
        slot.deadline = None if report.within_s is None else now + report.within_s + HANG_GRACE_S
        if report.error is not None and self._stops(report):
            self._error = self._error or report.error
        return True

    def _replace_dead(self) -> None:
        for slot in list(self._dying):
            # Its pipe closes while it exits. Only the exit code proves
            # its death: claims that are taken back earlier could be worked on twice.
            slot.process.join(TICK_S)
            code = slot.process.exitcode
            if code is None:
                continue
            self._dying.remove(slot)
            self._close(slot)
            if self.scheduler.refresh() and self._error is None:
                self._replace(slot, code)

    def _replace(self, slot: Slot, code: int) -> None:
        """Take back what a dead worker held, and start another in its slot."""
        why = f"executor {slot.number} (pid {slot.process.pid}) {how_it_died(code)}"
        log.warning("%s; starting another", why)
        if code == -signal.SIGKILL and not slot.ended_here and memory.killed_since(self._kills[0], 128 - code):
            self._after_starvation(slot, why)
            return
        fruitless = slot.fruitless_deaths + 1 if self.scheduler.moves == slot.moves_at_start else 0
        if fruitless >= MAX_FRUITLESS_DEATHS:
            raise OrchestratorError(f"{why}, the {fruitless}th time without claiming a task; see {self._source.log}")
        # Adopt first: a task that is taken back is ready again, and a peer would do the merged work a second time.
        self._adopt(slot.number)
        self.scheduler.take_back(slot.number, why)
        self.wake()
        self._start(slot.number, fruitless)

    def _after_starvation(self, slot: Slot, why: str) -> None:
        """Continue with one executor fewer after the kernel killed one for lack of memory. It blames no task.

        The last executor is started again, once. Raises OutOfMemory when the kernel kills it again, alone.
        """
        self._adopt(slot.number)
        self.scheduler.take_back(slot.number, f"{why}: the kernel had no memory left", died=False)
        self.wake()
        if self.slots:
            log.warning("executor %d was killed for lack of memory; %d others continue", slot.number, len(self.slots))
            return
        self._starved_alone += 1
        if self._starved_alone > 1:
            raise memory.lacking("an executor's process", 0, self._force.executors)
        self._start(slot.number, slot.fruitless_deaths)

    def _adopt(self, executor: int) -> None:
        """Record the merges of a dead worker that died between moving the trunk and recording it."""
        for claimed in self.scheduler.holds_of(executor):
            if (evidence := self._landed(claimed.handle, claimed.claim.task)) is not None:
                self.scheduler.adopt(claimed, evidence)

    def _kill_hung(self) -> None:
        now = time.monotonic()
        if now < self._next_look_for_hung:  # each look reads /proc for every process
            return
        self._next_look_for_hung = now + TICK_S
        self._kills.append(memory.kills())
        for slot in self.slots.values():
            if slot.process.pid and (why := _hangs(slot, now)):
                log.warning("executor %d %s (%s, %s): killing it", slot.number, why, slot.task, slot.doing)
                slot.deadline, slot.stopped, slot.ended_here = None, Stopped(), True
                # SIGKILL ends a stopped process as well. It is replaced once its death is proven.
                os.kill(slot.process.pid, signal.SIGKILL)

    def _stop(self, patience_s: float) -> None:
        self.ask_to_stop()
        deadline = time.monotonic() + patience_s
        for slot in self.slots.values():
            while slot.process.exitcode is None and time.monotonic() < deadline:
                self._hear(0.05)
            if slot.process.exitcode is None:
                slot.process.kill()
                slot.process.join()
                self.scheduler.take_back(slot.number, "the run was asked to stop", died=False)
        for slot in list(self.slots.values()):
            self._close(slot)
        # Another thread may be in `wake`. Once closed, the number may belong to another file, so the write end is
        # forgotten under the same mutex.
        with self._pipe_mutex:
            for descriptor in (self._stop_read, self._wake_read, self._wake_write):
                if descriptor >= 0:
                    os.close(descriptor)
            self._wake_write = -1
        self.scheduler.refresh()

    def _close(self, slot: Slot) -> None:
        while self._take_report(slot):
            pass  # its last reports; one may hold the error that stops the run
        slot.reports.close()
        slot.process.join()
        del self.slots[slot.number]


def _hangs(slot: Slot, now: float) -> str:
    """Return why a worker counts as hung; empty while it does not."""
    if slot.deadline is not None and now > slot.deadline:
        return "hangs"
    # A worker that waits for the model has no deadline: a stopped one would keep its task for ever.
    if slot.process.pid and slot.stopped.seconds(slot.process.pid) > HANG_GRACE_S:
        return "was stopped by a signal"
    return ""
