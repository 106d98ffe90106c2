"""The life of a task: a closed set of states and the table of legal moves.

    queued ──claim──> claimed ──merge──> merged
      ^                 │  │
      │   owner died    │  ├─conflict or red tests─> repair ──claim──> claimed
      ├─────────────────┘  └─gave up──────────────> failed
      └──retry── failed, blocked <──a dependency failed── queued

`queued` covers both "waits for dependencies" and "ready": which of the two is
derived from the dependencies, never stored.
"""

from __future__ import annotations

from enum import StrEnum

from parallel_orchestrator.records.errors import OrchestratorError


class TaskState(StrEnum):
    """Where a task stands. The values are what queue.jsonl holds."""

    QUEUED = "queued"
    CLAIMED = "claimed"
    REPAIR = "repair"
    MERGED = "merged"
    FAILED = "failed"
    BLOCKED = "blocked"


LEGAL_MOVES: dict[TaskState, frozenset[TaskState]] = {
    TaskState.QUEUED: frozenset({TaskState.CLAIMED, TaskState.BLOCKED}),
    TaskState.CLAIMED: frozenset({TaskState.QUEUED, TaskState.REPAIR, TaskState.MERGED, TaskState.FAILED}),
    TaskState.REPAIR: frozenset({TaskState.CLAIMED}),
    TaskState.MERGED: frozenset(),
    TaskState.FAILED: frozenset({TaskState.QUEUED}),
    TaskState.BLOCKED: frozenset({TaskState.QUEUED}),
}

SETTLED = frozenset({TaskState.MERGED, TaskState.FAILED, TaskState.BLOCKED})
"""States in which nothing more happens to a task by itself."""


class IllegalMove(OrchestratorError):
    """A task was asked to move where the table does not allow it: a bug, or a damaged queue."""


def check_move(task: str, old: TaskState, new: TaskState) -> None:
    """Raise `IllegalMove` unless `old` -> `new` stands in the table."""
    if new not in LEGAL_MOVES[old]:
        legal = ", ".join(sorted(LEGAL_MOVES[old])) or "nothing"
        raise IllegalMove(f"{task} cannot go from {old} to {new}; from {old} it can go to: {legal}")
