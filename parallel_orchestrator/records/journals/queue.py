"""The records of queue.jsonl: moves of tasks, starts of sessions, fix tasks, and tests of the whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import field

from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.journals.record import JournalRecord
from parallel_orchestrator.records.journals.red_whole import Correction, FailedCommand, RedWhole
from parallel_orchestrator.records.lifecycle import TaskState


class Move(JournalRecord, omit_defaults=True, kw_only=True):
    """A task entered a state."""

    task: str
    state: TaskState
    attempt: int
    executor: int = 0
    """The executor that claims the task, or that held the claim which ends here."""
    claim: int = 0
    """The number of the claim that ends here: that of its own record."""
    why: str = ""
    evidence: MergeEvidence | None = None
    """What was checked about a merge."""
    died: bool = False
    """Whether the claim ended because its executor died."""
    at: float = 0.0
    """By the wall clock, for people."""
    mono: float
    """By the monotonic clock, which all processes of a boot share: for durations."""


class SessionStart(JournalRecord, omit_defaults=True, kw_only=True):
    """An orchestrator began to work on the run."""

    session: str = ""
    executors: int
    plan: str = ""
    """The digest of the plan. Records of the first version hold none."""
    fix_asked: bool = False
    """The person asked for another fix round."""
    at: float = 0.0
    mono: float


class FixPlanned(JournalRecord, kw_only=True):
    """A fix task was planned, or a known one was given new facts."""

    fix: str
    commit: str = ""
    tests: list[str] = field(default_factory=list)
    verify: list[FailedCommand] = field(default_factory=list)
    at: float = 0.0
    mono: float

    @property
    def red(self) -> RedWhole:
        """Why the whole was red."""
        return RedWhole(self.commit, self.tests, self.verify)


class FinalTests(JournalRecord, kw_only=True):
    """The whole was tested. That the run has come to its end, and how, is proven by this."""

    final: dict[str, Any]
    """The part of the summary that is about the final trunk, and the `head` that was tested."""
    at: float = 0.0
    mono: float

    @property
    def head(self) -> str:
        """The commit of the trunk that was tested."""
        return str(self.final.get("head", ""))


QueueRecord = Move | SessionStart | FixPlanned | FinalTests


def fixes_in(records: Iterable[QueueRecord]) -> dict[str, RedWhole]:
    """Returns the fix tasks by id, each with its latest facts."""
    return {record.fix: record.red for record in records if isinstance(record, FixPlanned)}


def corrections_in(records: Iterable[QueueRecord]) -> list[Correction]:
    """Returns the corrections that merged fix tasks brought, in their order."""
    merges = (record.evidence for record in records if isinstance(record, Move) and record.evidence)
    return [one for evidence in merges for one in evidence.corrections or ()]
