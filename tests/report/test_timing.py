"""When tasks were worked on, by the queue's records: sessions, kills between them, executors side by side."""

from __future__ import annotations

import pytest

from parallel_orchestrator.records.journals.queue import Move, QueueRecord, SessionStart
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.report.facts.timing import Timing, fold_timing
from tests.records.plans import graph


def _start(mono: float) -> SessionStart:
    return SessionStart(session="start", executors=2, mono=mono)


def _move(mono: float, task: str, state: str, executor: int = 1) -> Move:
    return Move(mono=mono, task=task, state=TaskState(state), attempt=1, executor=executor)


def _spans(timing: Timing) -> list[tuple[str, int, float, float, str]]:
    return [(h.task, h.executor, h.start, h.end, h.ending.value) for h in timing.holds]


def test_a_session_begins_at_its_first_claim_and_ends_at_its_last_move() -> None:
    timing = fold_timing(
        [
            _start(100.0),
            _move(107.0, "a", "claimed", 1),
            _move(108.0, "b", "claimed", 2),
            _move(110.0, "a", "merged", 1),
            _move(110.5, "c", "claimed", 1),
            _move(111.0, "b", "repair", 2),
            _move(111.5, "b", "claimed", 2),
            _move(112.0, "b", "merged", 2),
            _move(115.0, "c", "failed", 1),
            _move(115.0, "d", "blocked"),
        ]
    )
    assert _spans(timing) == [
        ("a", 1, 0.0, 3.0, "merged"),
        ("b", 2, 1.0, 4.0, "repair"),
        ("b", 2, 4.5, 5.0, "merged"),
        ("c", 1, 3.5, 8.0, "failed"),
    ]
    assert timing.makespan == 8.0
    assert timing.work == 11.0
    assert timing.utilisation() == {1: pytest.approx(7.5 / 8), 2: pytest.approx(3.5 / 8)}
    assert [hold.ending for hold in timing.of("b")] == [TaskState.REPAIR, TaskState.MERGED]
    assert timing.critical_path(graph("a", "b", "c<a", "d<c")) == 7.5


def test_holds_cut_by_a_kill_end_with_their_session_and_the_clock_stands_still_until_the_next() -> None:
    timing = fold_timing(
        [
            _start(0.0),
            _move(10.0, "a", "claimed", 1),
            _move(12.0, "b", "claimed", 2),
            _move(14.0, "b", "merged", 2),
            _move(14.0, "c", "claimed", 2),  # everything is killed, and the machine is started again
            _start(3.0),
            _move(3.1, "a", "queued", 1),
            _move(3.2, "c", "queued", 2),
            _move(5.0, "a", "claimed", 2),
            _move(6.0, "c", "claimed", 1),
            _move(9.0, "a", "merged", 2),
            _move(9.5, "c", "merged", 1),
        ]
    )
    assert _spans(timing) == [
        ("b", 2, 2.0, 4.0, "merged"),
        ("a", 1, 0.0, 4.0, "queued"),
        ("c", 2, 4.0, 4.0, "queued"),
        ("a", 2, 4.0, 8.0, "merged"),
        ("c", 1, 5.0, 8.5, "merged"),
    ]
    assert timing.makespan == 8.5
    assert all(0 <= hold.start <= hold.end <= timing.makespan for hold in timing.holds)
    assert all(0 <= share <= 1 for share in timing.utilisation().values())


def test_a_merge_adopted_before_anything_is_claimed_ends_where_its_session_did() -> None:
    timing = fold_timing(
        [
            _start(0.0),
            _move(1.0, "a", "claimed"),
            _move(3.0, "b", "claimed", 2),
            _start(500.0),
            _move(500.1, "a", "merged"),
            _move(500.2, "b", "queued", 2),
        ]
    )
    assert _spans(timing) == [("a", 1, 0.0, 2.0, "merged"), ("b", 2, 2.0, 2.0, "queued")]
    assert timing.makespan == 2.0


@pytest.mark.parametrize("records", [[], [_start(1.0)], [_move(1.0, "a", "claimed")]])
def test_no_work_is_no_division_by_zero(records: list[QueueRecord]) -> None:
    timing = fold_timing(records)
    assert (timing.makespan, timing.work, timing.utilisation()) == (0.0, 0.0, {})
    assert timing.critical_path(graph("a", "b<a")) == 0.0


def test_a_clock_that_was_set_back_makes_no_time_negative() -> None:
    moves = [_move(100.0, "a", "claimed"), _move(3.0, "a", "merged"), _move(4.0, "b", "claimed")]
    timing = fold_timing([_start(99.0), *moves, _move(5.0, "b", "failed")])
    assert all(hold.seconds >= 0 for hold in timing.holds)
    assert (timing.makespan, timing.work) == (0.0, 0.0)
    assert all(0 <= share <= 1 for share in timing.utilisation().values())
