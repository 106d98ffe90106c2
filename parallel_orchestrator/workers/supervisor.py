"""The supervisor: keeps M worker processes alive, replaces the dead, ends the hung, and stops them all.

supervise
  start M workers
  loop until all tasks are settled:
    hear reports            what each does; an error that stops the run
    replace the dead        take back what they held, by proof of death
    kill the hung           past the time they gave for their next report, or stopped by a signal
    tick                    the caller's: live view, gateway
  stop                      end of file on the stop pipe, then patience, then kill
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
from typing import Any

from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.store.queue.scheduler import Board, Member, Source
from parallel_orchestrator.system import memory
from parallel_orchestrator.system.process import Stopped
from parallel_orchestrator.workers.forking import InheritedDescriptor, how_it_died, start_process
from parallel_orchestrator.workers.worker import Report, WorkerPipes, WorkSource, run_worker

log = logging.getLogger(__name__)

TICK_S = 0.25
HANG_GRACE_S = 5.0
_LOOKS_BACK = 8
"""Looks at the memory counters, TICK_S apart, within which a death and a risen counter belong together."""
MAX_FRUITLESS_DEATHS = 3
"""Deaths in a row of one slot in which the queue did not move: the workers cannot even start."""


@dataclass(eq=False)
class Slot:
    """One executor: the process that fills it now and what it said last."""

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
    """What the workers are made of."""

    executors: int
    work: WorkSource
    preload: tuple[str, ...]
    run_lock: int


def everything_stops(report: Report) -> bool:
    """What an error means for a run that is alone."""
    return report.error is not None


class Supervisor:
    """Runs the workers of one run, or of a batch. Use `supervise`; not to be used twice.

    `stops` is asked about each report with an error: whether nothing at all can go on. `landed`: the evidence of a
    task whose work is on its run's trunk, None where it is not.
    """

    def __init__(
        self,
        source: Source,
        force: Workforce,
        tick: Callable[[Supervisor], None],
        stops: Callable[[Report], bool] = everything_stops,
        landed: Callable[[Member, str], dict[str, Any] | None] = lambda member, task: None,
    ) -> None:
        self.board = Board(source)
        self.slots: dict[int, Slot] = {}
        self._selector = selectors.PollSelector()
        """The reports and the sentinel of each process that is not known to be dead; asking 200 of them takes long."""
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
        """The counters at the last looks, the oldest first."""
        self._starved_alone = 0

    def supervise(self) -> None:
        """Until every task is settled. Raises what stopped the run before that; KeyboardInterrupt passes through."""
        try:
            self._stop_read, self._stop_write = os.pipe()
            self._wake_read, self._wake_write = os.pipe()
            for number in range(1, self.board.room_for(self._force.executors) + 1):
                self._start(number)
            while self.board.look() and self._error is None:
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
        """Hint to idle workers that something became ready. May be called from any thread, and at any time."""
        with self._pipe_mutex, contextlib.suppress(BlockingIOError):
            if self._wake_write >= 0:
                os.write(self._wake_write, b"x" * count)

    def ask_to_stop(self) -> None:
        """Have the workers claim nothing more and stop at the next safe point."""
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
        theirs.close()  # so that the worker's death is an end of file here
        moves, now = self.board.moves, time.monotonic()
        slot = Slot(number, process, ours, since=now, fruitless_deaths=fruitless_deaths, moves_at_start=moves)
        self.slots[number] = slot
        for source in (ours, process.sentinel):
            self._selector.register(source, selectors.EVENT_READ, slot)

    def _hear(self, timeout: float) -> None:
        """Take in what workers say, waiting up to `timeout` seconds for the first word or death."""
        for key, _ in self._selector.select(timeout):
            slot = key.data
            # At the end of file its process is dying; its last words are taken when its slot is closed.
            if slot not in self._dying and not (key.fileobj is slot.reports and self._take_report(slot)):
                self._dying.append(slot)
                for source in (slot.reports, slot.process.sentinel):
                    self._selector.unregister(source)

    def _take_report(self, slot: Slot) -> bool:
        """Take in one report if there is one."""
        try:
            if not slot.reports.poll():
                return False
            report: Report = slot.reports.recv()
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
            slot.process.join(TICK_S)  # wait for the proof, so that nothing is done on doubt
            code = slot.process.exitcode
            if code is None:
                continue
            self._dying.remove(slot)
            self._close(slot)
            if self.board.look() and self._error is None:
                self._replace(slot, code)

    def _replace(self, slot: Slot, code: int) -> None:
        """Take back what a dead worker held and fill its slot again. One that has done its share holds nothing."""
        why = f"executor {slot.number} (pid {slot.process.pid}) {how_it_died(code)}"
        log.log(logging.WARNING if code else logging.INFO, "%s; starting another", why)
        if code == -signal.SIGKILL and not slot.ended_here and memory.killed_since(self._kills[0], 128 - code):
            self._after_starvation(slot, why)
            return
        fruitless = slot.fruitless_deaths + 1 if self.board.moves == slot.moves_at_start else 0
        if fruitless >= MAX_FRUITLESS_DEATHS:
            raise OrchestratorError(f"{why}, the {fruitless}th time without claiming a task; see {self._source.log}")
        self._adopt(slot.number)
        self.board.take_back(slot.number, why)
        self.wake()
        self._start(slot.number, fruitless)

    def _after_starvation(self, slot: Slot, why: str) -> None:
        """Continue with one executor fewer after the kernel killed one for lack of memory; no task is to blame.

        The last one is started again, once. Raises OutOfMemory when it is killed a second time, alone.
        """
        self._adopt(slot.number)
        self.board.take_back(slot.number, f"{why}: the kernel had no memory left", died=False)
        self.wake()
        if self.slots:
            log.warning("executor %d was killed for lack of memory; %d others continue", slot.number, len(self.slots))
            return
        self._starved_alone += 1
        if self._starved_alone > 1:
            raise memory.lacking("an executor's process", 0, self._force.executors)
        self._start(slot.number, slot.fruitless_deaths)

    def _adopt(self, executor: int) -> None:
        """Record what a dead worker had brought onto the trunk: it may have died right before it did so itself."""
        for hold in self.board.holds_of(executor):
            if (evidence := self._landed(hold.member, hold.claim.task)) is not None:
                self.board.adopt(hold, evidence)

    def _kill_hung(self) -> None:
        now = time.monotonic()
        if now < self._next_look_for_hung:  # it asks the system about each process: not at each of their reports
            return
        self._next_look_for_hung = now + TICK_S
        self._kills.append(memory.kills())
        for slot in self.slots.values():
            if slot.process.pid and (why := _hangs(slot, now)):
                log.warning("executor %d %s (%s, %s): killing it", slot.number, why, slot.task, slot.doing)
                slot.deadline, slot.stopped, slot.ended_here = None, Stopped(), True
                os.kill(slot.process.pid, signal.SIGKILL)  # works on a stopped process, too

    def _stop(self, patience_s: float) -> None:
        self.ask_to_stop()
        deadline = time.monotonic() + patience_s
        for slot in self.slots.values():
            while slot.process.exitcode is None and time.monotonic() < deadline:
                self._hear(0.05)
            if slot.process.exitcode is None:
                slot.process.kill()
                slot.process.join()
                self.board.take_back(slot.number, "the run was asked to stop", died=False)
        for slot in list(self.slots.values()):
            self._close(slot)
        with self._pipe_mutex:  # its number may be another file's in a moment
            for descriptor in (self._stop_read, self._wake_read, self._wake_write):
                if descriptor >= 0:
                    os.close(descriptor)
            self._wake_write = -1
        self.board.look()

    def _close(self, slot: Slot) -> None:
        while self._take_report(slot):
            pass  # its last words, an error that stops the run among them perhaps
        slot.reports.close()
        slot.process.join()
        del self.slots[slot.number]


def _hangs(slot: Slot, now: float) -> str:
    """Why a worker counts as hung; empty while it does not."""
    if slot.deadline is not None and now > slot.deadline:
        return "hangs"
    # While it waits for the model it has no deadline, and its task would wait for ever.
    if slot.process.pid and slot.stopped.seconds(slot.process.pid) > HANG_GRACE_S:
        return "was stopped by a signal"
    return ""
