"""batch.jsonl: how each scenario of a batch stands. Append-only; a writer holds batch.lock.

    {"session": "start", "executors": 8, "scenarios": {NAME: FOLDER, "shop": "shop-1a2b3c"}, "mono": 1.5}
    {"scenario": "todo", "state": "planned", "path": 7.0, "limit": 5, "sandbox": "required"}       may be opened
    {"scenario": "todo", "state": "open"}                                                         may be claimed from
    {"scenario": "todo", "state": "closed", "ending": "done", "why": ""}

Planned and closed are written by the orchestrator. Open is written by the executor that would have been idle: it
opens the planned scenario with the longest critical path, so that what takes longest does not begin last. A session
begins with every scenario that is not finished; what an earlier one had planned or opened counts no more.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec import UnsetType

from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.records.journals.batch import BatchRecord, BatchSession, ScenarioMove, ScenarioState
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.plan_file import plan_of
from parallel_orchestrator.store.queue.scheduler import RunHandle
from parallel_orchestrator.store.record_parser import BATCH
from parallel_orchestrator.system.files import disk_error


@dataclass
class ScenarioStatus:
    """One scenario of the present session."""

    folder: str
    state: ScenarioState = ScenarioState.WAITING
    planned: ScenarioMove | None = None
    """The record of its plan."""
    closed: ScenarioMove | None = None
    """The record of its end."""


class BatchReplica:
    """The fold over the journal's records."""

    def __init__(self) -> None:
        self.scenarios: dict[str, ScenarioStatus] = {}
        self.begun = False
        self.executors = 1
        """Of the present session."""
        self.began = time.monotonic()
        """When the present session began, by the machine's monotonic clock."""
        self.left = 0
        """Scenarios that are not closed."""
        self.ready = 0
        """Scenarios that are planned and not open yet."""

    def apply(self, record: BatchRecord) -> None:
        """Take in one record. Raises KeyError for a scenario that the session is not about."""
        if isinstance(record, BatchSession):
            self.scenarios = {name: ScenarioStatus(folder) for name, folder in record.scenarios.items()}
            self.begun, self.left, self.ready = True, len(self.scenarios), 0
            self.executors = record.executors
            self.began = self.began if isinstance(record.mono, UnsetType) else record.mono
            return
        status, state = self.scenarios[record.scenario], record.state
        self.left -= state is ScenarioState.CLOSED and status.state is not ScenarioState.CLOSED
        self.ready += (state is ScenarioState.PLANNED) - (status.state is ScenarioState.PLANNED)
        status.state = state
        if state is ScenarioState.PLANNED:
            status.planned = record
        elif state is ScenarioState.CLOSED:
            status.closed = record

    def named(self, state: ScenarioState) -> list[str]:
        """The scenarios in that state, in the file's order."""
        return [name for name, status in self.scenarios.items() if status.state is state]

    def longest_planned(self) -> str | None:
        """The one to open next."""
        waiting = [record for status in self.scenarios.values() if (record := status.planned)]
        planned = [record for record in waiting if self.scenarios[record.scenario].state is ScenarioState.PLANNED]
        longest = max(planned, key=lambda record: record.path, default=None)
        return longest.scenario if longest else None


class BatchLog:
    """A handle on batch.jsonl. One process's; its threads may share it."""

    def __init__(self, batch: BatchDirectory) -> None:
        self.batch = batch
        self.queue_state = BatchReplica()
        self._journal = Journal(batch.journal, BATCH)
        self._mutex = threading.RLock()
        self._lock = -1

    def refresh(self) -> BatchReplica:
        """The state after all that is in the file by now."""
        with self._mutex:
            for record in self._journal.each_new():
                self.queue_state.apply(record)
        return self.queue_state

    def start_session(self, executors: int, scenarios: dict[str, str]) -> None:
        """Begin with these scenarios: name to folder."""
        with self._held():
            now = round(time.monotonic(), 6)
            self._append(BatchSession(session="start", executors=executors, scenarios=scenarios, mono=now))

    def planned(self, scenario: str, path: float, limit: int, env: ExecutionEnv) -> None:
        """A scenario has a plan whose critical path is `path` long."""
        move = ScenarioMove(
            scenario=scenario,
            state=ScenarioState.PLANNED,
            path=path,
            limit=limit,
            sandbox=env.sandbox,
            venv=str(env.venv or ""),
        )
        with self._held():
            self._append(move)

    def closed(self, scenario: str, ending: str, why: str = "") -> None:
        """A scenario has come to its end, or cannot go on."""
        with self._held():
            self._append(ScenarioMove(scenario=scenario, state=ScenarioState.CLOSED, ending=ending, why=why))

    def open_next(self) -> bool:
        """Open the planned scenario with the longest critical path. False when none is planned."""
        if not self.refresh().ready:
            return False
        with self._held():
            scenario = self.queue_state.longest_planned()
            if scenario is not None:
                self._append(ScenarioMove(scenario=scenario, state=ScenarioState.OPEN))
            return scenario is not None

    def close(self) -> None:
        """Give the descriptors back."""
        self._journal.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _append(self, record: BatchRecord) -> None:
        # Not synced: nothing is proven by this file that a run's own files do not prove.
        self.queue_state.apply(self._journal.append(record, durable=False))

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._mutex:
            if self._lock < 0:
                try:
                    self._lock = os.open(self.batch.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                except OSError as error:
                    raise disk_error(self.batch.lock, error) from error
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                self.refresh()
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)


class OpenRuns:
    """The source of a batch: its open runs. A run's plan is read when it is first seen open."""

    def __init__(self, batch: BatchDirectory) -> None:
        self._journal = BatchLog(batch)
        self._open: dict[str, RunHandle] = {}

    def __reduce__(self) -> tuple[type[OpenRuns], tuple[BatchDirectory]]:
        """Each process follows the journal by itself."""
        return OpenRuns, (self._journal.batch,)

    @property
    def log(self) -> Path:
        """The batch's own."""
        return self._journal.batch.log

    def refresh(self) -> tuple[RunHandle, ...]:
        """Those that are open now."""
        names = self._journal.refresh().named(ScenarioState.OPEN)
        self._open = {name: self._open.get(name) or self._handle(name) for name in names}
        return tuple(self._open.values())

    def open_next(self) -> bool:
        """Open the planned run with the longest critical path."""
        return self._journal.open_next()

    def exhausted(self) -> bool:
        """Whether every scenario is closed. One whose tasks are settled may still get a fix task."""
        queue_state = self._journal.queue_state
        return queue_state.begun and not queue_state.left

    def close(self) -> None:
        """Close the journal's files."""
        self._journal.close()

    def _handle(self, name: str) -> RunHandle:
        status = self._journal.queue_state.scenarios[name]
        run, planned = RunDirectory(self._journal.batch.root / status.folder), status.planned
        if planned is None or planned.sandbox is None:
            raise DamagedState(f"{self._journal.batch.journal}: {name} is open, and no record plans it")
        env = ExecutionEnv(planned.sandbox, Path(planned.venv) if planned.venv else None)
        return RunHandle(run, plan_of(run).graph(), env, planned.limit)
