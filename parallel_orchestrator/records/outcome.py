"""How one executor's work on a claimed task ended, with the evidence that code has checked."""

from __future__ import annotations

from dataclasses import dataclass

from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.lifecycle import TaskState


@dataclass(frozen=True)
class Outcome:
    """MERGED, REPAIR (goes back to its conversation with facts) or FAILED, and why."""

    state: TaskState
    reason: str = ""
    evidence: MergeEvidence | None = None
