"""The records of batch.jsonl: starts of sessions, and moves of scenarios."""

from __future__ import annotations

from enum import Enum

from msgspec import UNSET, UnsetType

from parallel_orchestrator.records.command import SandboxMode
from parallel_orchestrator.records.journals.record import JournalRecord


class ScenarioState(Enum):
    """Where one scenario of the session stands."""

    WAITING = "waiting"
    """It has no plan yet. No record holds this: a session begins with it."""
    PLANNED = "planned"
    """It may be opened."""
    OPEN = "open"
    """Executors may claim its tasks."""
    CLOSED = "closed"


class BatchSession(JournalRecord, kw_only=True):
    """A session began. It is about these scenarios alone."""

    session: str
    executors: int
    scenarios: dict[str, str]
    """Name to folder."""
    mono: float | UnsetType = UNSET
    """By the monotonic clock, which all processes of a boot share."""


class ScenarioMove(JournalRecord, omit_defaults=True, kw_only=True):
    """A scenario entered a state."""

    scenario: str
    state: ScenarioState
    path: float = 0.0
    """Of a planned one: the length of its critical path."""
    limit: int = 0
    """Of a planned one: how many executors may work on it at once."""
    sandbox: SandboxMode | None = None
    venv: str = ""
    ending: str = ""
    """Of a closed one: the word for how it ended."""
    why: str | None = None


BatchRecord = BatchSession | ScenarioMove
