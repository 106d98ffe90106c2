"""Reads all state files of a run directory, damaged ones as far as possible."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from parallel_orchestrator.agent.transcript import Conversation
from parallel_orchestrator.records.errors import DamagedState, UsageError
from parallel_orchestrator.records.lifecycle import SETTLED
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.store.journal import Record
from parallel_orchestrator.store.paths import AttemptFile, RunDirectory
from parallel_orchestrator.store.plan_file import plan_of
from parallel_orchestrator.store.queue.queue_state import QueueState, follow
from parallel_orchestrator.store.record_parser import QUEUE, TRANSCRIPT, R, RecordParser
from parallel_orchestrator.store.run_directory import read_scenario
from parallel_orchestrator.store.salvage import Salvage, salvage


@dataclass
class RunFiles:
    """A run's state files. What cannot be read is None or empty; `faults` holds the reason, by file."""

    run: RunDirectory
    scenario: Scenario | None = None
    plan: Plan | None = None
    transcripts: dict[AttemptFile, Salvage] = field(default_factory=dict)
    queue: Salvage = field(default_factory=Salvage)
    ledger: Salvage = field(default_factory=Salvage)
    queue_state: QueueState | None = None
    """The queue's state; None unless queue and plan are whole and fit each other."""
    faults: dict[Path, str] = field(default_factory=dict)

    def has_ended(self, attempt: AttemptFile) -> bool:
        """Returns whether no resume will continue this attempt, as far as the queue is known."""
        status = self.queue_state.tasks.get(attempt.task) if self.queue_state else None
        return status is None or status.state in SETTLED or status.attempt != attempt.attempt

    def unknown_attempts(self) -> list[AttemptFile]:
        """Returns the transcripts of attempts that the queue has not claimed, or has in another folder."""
        unknown = []
        for found in self.transcripts:
            status = self.queue_state.tasks.get(found.task) if self.queue_state else None
            known = status and (found.attempt < status.attempt or found.executor == status.folder)
            if status and (not known or found.attempt > status.attempt):
                unknown.append(found)
        return unknown


def read_run(directory: Path) -> RunFiles:
    """Read a run directory without changing it.

    Raises UsageError when it holds no run, or one of another version. The run may be active: a file that refers to
    another is read first, transcripts before the ledger.
    """
    run = RunDirectory(directory.absolute())
    if not run.scenario.exists() and not run.plan.exists() and not run.queue.exists():
        raise UsageError(f"{directory} holds no run (there is no scenario.json in it)")
    files = RunFiles(run)
    files.scenario = _scenario(files)
    files.plan = _plan(files)
    files.transcripts = {found: salvage(found.path) for found in run.transcripts()}
    files.queue = salvage(run.queue)
    files.ledger = salvage(run.ledger)
    for found, content in files.transcripts.items():
        _note_damage(files, found.path, content, conversation_fault(content.records))
    _note_damage(files, run.queue, files.queue, _queue_fault(files))
    _note_damage(files, run.ledger, files.ledger, None)
    return files


def _scenario(files: RunFiles) -> Scenario | None:
    try:
        scenario = read_scenario(files.run)
    except DamagedState as error:
        files.faults[files.run.scenario] = str(error).partition(". Nothing was")[0]
        return None
    if scenario is None:
        files.faults[files.run.scenario] = "it is not there"
    return scenario


def _plan(files: RunFiles) -> Plan | None:
    path = files.run.plan
    try:
        return plan_of(files.run)
    except FileNotFoundError:
        if files.run.queue.exists():
            files.faults[path] = "it is not there"
    except (OSError, DamagedState) as error:
        files.faults[path] = str(error).removeprefix(f"{path} ").partition(". ")[0]
    return None


def _note_damage(files: RunFiles, path: Path, content: Salvage, misfit: str | None) -> None:
    faults = [str(damage) for damage in content.damage[:5]] or ([misfit] if misfit else [])
    if faults:
        files.faults[path] = "; ".join(faults)


def _queue_fault(files: RunFiles) -> str | None:
    if files.plan is None or files.queue.damage:
        return None
    files.queue_state = QueueState(files.plan.graph())
    try:
        follow(files.queue_state, map(QUEUE.of, files.queue.records), files.run.queue)
    except ValueError as error:
        files.queue_state = None
        return f"a record cannot be understood ({error})"
    except DamagedState as error:
        files.queue_state = None
        return str(error).partition(". Nothing was")[0].partition(", ")[2]
    return None


def parsed(parse: RecordParser[R], records: Iterable[Record]) -> Iterator[R]:
    """Yields the records that can be understood, as their types."""
    for record in records:
        with contextlib.suppress(ValueError):
            yield parse.of(record)


def conversation_fault(records: Iterable[Record]) -> str | None:
    """Returns why records do not form a conversation, or None."""
    conversation = Conversation()
    for place, record in enumerate(records):
        if not place and record["kind"] != "start":
            return "line 1: it does not begin with a start record"
        try:
            conversation.apply(TRANSCRIPT.of(record))
        except (KeyError, ValueError, TypeError) as error:
            return f"line {record['seq']}: the record does not fit those before it ({type(error).__name__}: {error})"
    return None


def read_summary(run: RunDirectory) -> dict[str, object] | None:
    """Returns the content of execution_summary.json: None when it is absent, empty when it is not a JSON object."""
    try:
        found = json.loads(run.summary.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
