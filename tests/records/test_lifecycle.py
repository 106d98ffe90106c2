"""The table of legal moves."""

from __future__ import annotations

import pytest

from parallel_orchestrator.records.lifecycle import LEGAL_MOVES, SETTLED, IllegalMove, TaskState, check_move

LEGAL = {
    ("queued", "claimed"),
    ("queued", "blocked"),
    ("claimed", "queued"),
    ("claimed", "repair"),
    ("claimed", "merged"),
    ("claimed", "failed"),
    ("repair", "claimed"),
    ("failed", "queued"),
    ("blocked", "queued"),
}


@pytest.mark.parametrize("old", TaskState)
@pytest.mark.parametrize("new", TaskState)
def test_a_move_is_legal_or_refused_with_the_way_out(old: TaskState, new: TaskState) -> None:
    if (old, new) in LEGAL:
        check_move("task_1", old, new)
        return
    with pytest.raises(IllegalMove) as caught:
        check_move("task_1", old, new)
    assert str(caught.value).startswith(f"task_1 cannot go from {old} to {new}; from {old} it can go to: ")


def test_nothing_leaves_merged_and_only_a_person_leaves_the_settled() -> None:
    assert LEGAL_MOVES[TaskState.MERGED] == frozenset()
    assert all(LEGAL_MOVES[state] <= {TaskState.QUEUED} for state in SETTLED)
