"""The supervisor: keeps M worker processes alive, replaces the dead, ends the hung, and stops them all.

supervise
  start M workers
  loop until all tasks are settled:
    hear reports            what each does; an error that stops the run
    replace the dead        take back what they held, by proof of death
    kill the hung           past the time they gave for their next report, also when stopped
    tick                    the caller's: live view, gateway
  stop                      end of file on the stop pipe, then patience, then kill
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.records.graph import TaskGraph
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue import TaskQueue
from parallel_orchestrator.workers.forking import InheritedDescriptor, start_process
from parallel_orchestrator.workers.worker import Report, WorkerPipes, WorkSource, run_worker

log = logging.getLogger(__name__)

TICK_S = 0.25
HANG_GRACE_S = 5.0
MAX_BARREN_DEATHS = 3
"""Deaths in a row of one slot in which the queue did not move: the workers cannot even start."""


@dataclass
class Slot:
    """One executor: the process that fills it now and what it said last."""

    number: int
    process: BaseProcess
    reports: Connection
    task: str | None = None
    doing: str = "starting"
    since: float = 0.0
    deadline: float | None = None
    barren_deaths: int = 0
    seq_at_start: int = 0


@dataclass(frozen=True)
class Workforce:
    """What the workers are made of."""

    executors: int
    source: WorkSource
    preload: tuple[str, ...]
    run_lock: int


class Supervisor:
    """Runs the workers of one run. Use `supervise`; not to be used twice."""

    def __init__(
        self, run: RunDirectory, graph: TaskGraph, force: Workforce, tick: Callable[[Supervisor], None]
    ) -> None:
        self.run = run
        self.queue = TaskQueue(run, graph)
        self.slots: dict[int, Slot] = {}
        self._graph = graph
        self._force = force
        self._tick = tick
        self._stop_read, self._stop_write = os.pipe()
        self._wake_read, self._wake_write = os.pipe()
        self._error: OrchestratorError | None = None

    def supervise(self) -> None:
        """Until every task is settled. Raises what stopped the run before that; KeyboardInterrupt passes through."""
        try:
            for number in range(1, self._force.executors + 1):
                self._start(number)
            while self.queue.refresh().unsettled and self._error is None:
                self._hear(TICK_S)
                self._replace_dead()
                self._kill_hung()
                self._tick(self)
        finally:
            self._stop(patience_s=HANG_GRACE_S)
        self._tick(self)
        if self._error is not None:
            raise self._error

    def ask_to_stop(self) -> None:
        """Have the workers claim nothing more and stop at the next safe point."""
        if self._stop_write >= 0:
            os.close(self._stop_write)
            self._stop_write = -1

    def _start(self, number: int, barren_deaths: int = 0) -> None:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        pipes = WorkerPipes(
            theirs,
            InheritedDescriptor(self._stop_read),
            InheritedDescriptor(self._wake_read),
            InheritedDescriptor(self._wake_write),
            InheritedDescriptor(self._force.run_lock),
        )
        arguments = (number, self.run, self._graph, self._force.source, pipes)
        process = start_process(run_worker, arguments, f"executor {number}", self._force.preload)
        theirs.close()  # so that the worker's death is an end of file here
        seq = self.queue.last_seq
        now = time.monotonic()
        self.slots[number] = Slot(number, process, ours, since=now, barren_deaths=barren_deaths, seq_at_start=seq)

    def _hear(self, timeout: float) -> None:
        """Take in what workers say, waiting up to `timeout` seconds for the first word or death."""
        living = [slot for slot in self.slots.values() if slot.process.exitcode is None]
        by_pipe = {slot.reports: slot for slot in living}
        sentinels = [slot.process.sentinel for slot in living]
        for ready in wait([*by_pipe, *sentinels], timeout):
            if isinstance(ready, Connection) and not self._take_report(by_pipe[ready]):
                # End of file: its process is dying. Wait for the proof, so that nothing is done on doubt.
                by_pipe[ready].process.join(TICK_S)

    def _take_report(self, slot: Slot) -> bool:
        """Take in one report if there is one."""
        try:
            if not slot.reports.poll():
                return False
            report: Report = slot.reports.recv()
        except (EOFError, OSError):
            return False
        slot.task, slot.doing, slot.since = report.task, report.doing, time.monotonic()
        slot.deadline = None if report.within_s is None else slot.since + report.within_s + HANG_GRACE_S
        self._error = self._error or report.error
        return True

    def _replace_dead(self) -> None:
        for slot in list(self.slots.values()):
            code = slot.process.exitcode
            if code is None:
                continue
            while self._take_report(slot):
                pass  # its last words, an error that stops the run among them perhaps
            self._close(slot)
            if self.queue.refresh().unsettled and self._error is None:
                self._mourn(slot, code)

    def _mourn(self, slot: Slot, code: int) -> None:
        """Take back what a dead worker held and fill its slot again."""
        why = f"executor {slot.number} (pid {slot.process.pid}) {_how_it_died(code)}"
        log.warning("%s; starting another", why)
        barren = slot.barren_deaths + 1 if self.queue.last_seq == slot.seq_at_start else 0
        if barren >= MAX_BARREN_DEATHS:
            raise OrchestratorError(f"{why}, the {barren}th time without claiming a task; see {self.run.log}")
        self.queue.take_back(slot.number, why)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")
        self._start(slot.number, barren)

    def _kill_hung(self) -> None:
        now = time.monotonic()
        for slot in self.slots.values():
            if slot.deadline is not None and now > slot.deadline and slot.process.pid:
                log.warning("executor %d hangs (%s, %s): killing it", slot.number, slot.task, slot.doing)
                slot.deadline = None
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
                self.queue.take_back(slot.number, "the run was asked to stop", died=False)
        for slot in list(self.slots.values()):
            self._close(slot)
        for descriptor in (self._stop_read, self._wake_read, self._wake_write):
            os.close(descriptor)
        self.queue.refresh()

    def _close(self, slot: Slot) -> None:
        slot.reports.close()
        slot.process.join()
        del self.slots[slot.number]


def _how_it_died(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed (signal 9), likely out of memory or by hand"
    return f"died by signal {-code}" if code < 0 else f"ended with code {code}"
