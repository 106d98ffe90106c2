"""Everything that a run directory holds, read as far as it can be read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from parallel_orchestrator.agent.transcript import Conversation
from parallel_orchestrator.records.errors import DamagedState, UsageError
from parallel_orchestrator.records.plan import Plan, plan_faults
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.store.journal import Record
from parallel_orchestrator.store.paths import AttemptFile, RunDirectory
from parallel_orchestrator.store.plan_file import plan_change
from parallel_orchestrator.store.queue.queue_state import Replica, follow
from parallel_orchestrator.store.run_directory import read_scenario
from parallel_orchestrator.store.salvage import Salvage, salvage


@dataclass
class Reading:
    """A run's state files. What cannot be read is None or empty, and `faults` says why, by file."""

    run: RunDirectory
    scenario: Scenario | None = None
    plan: Plan | None = None
    transcripts: dict[AttemptFile, Salvage] = field(default_factory=dict)
    queue: Salvage = field(default_factory=Salvage)
    ledger: Salvage = field(default_factory=Salvage)
    replica: Replica | None = None
    """The queue's state, when queue and plan are whole and fit each other."""
    faults: dict[Path, str] = field(default_factory=dict)


def read_run(directory: Path) -> Reading:
    """Read a run directory, changing nothing. Raises UsageError when no run is there, or one of another version.

    A run may be going on: what names something else is read before it, transcripts before the ledger.
    """
    run = RunDirectory(directory.absolute())
    if not run.scenario.exists() and not run.plan.exists() and not run.queue.exists():
        raise UsageError(f"{directory} holds no run (there is no scenario.json in it)")
    reading = Reading(run)
    reading.scenario = _scenario(reading)
    reading.plan = _plan(reading)
    reading.transcripts = {found: salvage(found.path) for found in run.transcripts()}
    reading.queue = salvage(run.queue)
    reading.ledger = salvage(run.ledger)
    for found, content in reading.transcripts.items():
        _note_damage(reading, found.path, content, conversation_fault(content.records))
    _note_damage(reading, run.queue, reading.queue, _queue_fault(reading))
    _note_damage(reading, run.ledger, reading.ledger, None)
    return reading


def _scenario(reading: Reading) -> Scenario | None:
    try:
        scenario = read_scenario(reading.run)
    except DamagedState as error:
        reading.faults[reading.run.scenario] = str(error).partition(". Nothing was")[0]
        return None
    if scenario is None:
        reading.faults[reading.run.scenario] = "it is not there"
    return scenario


def _plan(reading: Reading) -> Plan | None:
    path = reading.run.plan
    try:
        plan = Plan.model_validate_json(path.read_bytes())
        faults = plan_faults(plan, new=False)
        change = plan_change(reading.run, plan)
    except FileNotFoundError:
        if reading.run.queue.exists():
            reading.faults[path] = "it is not there"
        return None
    except (OSError, ValidationError) as error:
        reading.faults[path] = f"it is no plan: {_first_line(error)}"
        return None
    if fault := f"it cannot be run: {faults[0]}" if faults else change:
        reading.faults[path] = fault
    return None if fault else plan


def _first_line(error: OSError | ValidationError) -> str:
    return str(error.errors()[0]["msg"] if isinstance(error, ValidationError) else error)


def _note_damage(reading: Reading, path: Path, content: Salvage, misfit: str | None) -> None:
    told = [str(damage) for damage in content.damage[:5]] or ([misfit] if misfit else [])
    if told:
        reading.faults[path] = "; ".join(told)


def _queue_fault(reading: Reading) -> str | None:
    if reading.plan is None or reading.queue.damage:
        return None
    reading.replica = Replica(reading.plan.graph())
    try:
        follow(reading.replica, reading.queue.records, reading.run.queue)
    except DamagedState as error:
        reading.replica = None
        return str(error).partition(". Nothing was")[0].partition(", ")[2]
    return None


def conversation_fault(records: Iterable[Record]) -> str | None:
    """Why records are no conversation, or None."""
    conversation = Conversation()
    for place, record in enumerate(records):
        if not place and record["kind"] != "start":
            return "line 1: it does not begin with a start record"
        try:
            conversation.apply(record)
        except (KeyError, ValueError, TypeError) as error:
            return f"line {record['seq']}: the record does not fit those before it ({type(error).__name__}: {error})"
    return None


def unknown_attempts(replica: Replica, transcripts: Iterable[AttemptFile]) -> Iterator[AttemptFile]:
    """Transcripts of attempts that were never claimed, as far as the queue says, or in another folder."""
    for found in transcripts:
        status = replica.tasks.get(found.task)
        known = status and (found.attempt < status.attempt or found.executor == status.folder)
        if status and (not known or found.attempt > status.attempt):
            yield found


def read_summary(run: RunDirectory) -> dict[str, object] | None:
    """execution_summary.json as it is: None when it is absent, empty when it is no JSON object."""
    try:
        found = json.loads(run.summary.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
