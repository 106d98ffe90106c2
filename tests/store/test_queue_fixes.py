"""Fix tasks in the queue: one more task after all others, planned while rounds are left or when a person asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parallel_orchestrator.records.errors import DamagedState, UsageError
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.journals.red_whole import RedWhole
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue import TaskQueue
from tests.records.plans import graph

RED = RedWhole(commit="c", tests=["x failed"])
MERGED, FAILED = Outcome(TaskState.MERGED), Outcome(TaskState.FAILED, "gave up")


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Callable[[], TaskQueue]]:
    """Opens a handle on one run's queue, as another process would."""
    handles: list[TaskQueue] = []

    def opened() -> TaskQueue:
        handles.append(TaskQueue(RunDirectory(tmp_path), graph("a", "b<a")))
        return handles[-1]

    yield opened
    for handle in handles:
        handle.close()


def _end(queue: TaskQueue, outcome: Outcome = MERGED) -> str:
    claim = queue.claim(1).claim
    assert claim
    queue.finish(claim, outcome)
    return claim.task


def test_a_fix_is_planned_when_all_is_merged_and_claimed_as_any_task(reopen: Callable[[], TaskQueue]) -> None:
    queue, other = reopen(), reopen()
    queue.start_session(1)
    assert _end(queue) == "a"
    assert queue.plan_fix(RED, 2) is None
    assert _end(queue) == "b"
    assert other.refresh().unsettled == 0
    assert queue.plan_fix(RED, 2) == "fix_1"
    assert other.refresh().unsettled == 1
    assert queue.plan_fix(RED, 2) is None, "one at a time"
    assert other.refresh().graph.nodes["fix_1"].dependencies == ("a", "b")
    assert _end(other) == "fix_1"
    assert queue.refresh().count()[TaskState.MERGED] == 2, "the plan's tasks alone"
    assert queue.plan_fix(RED, 2) == "fix_2"
    assert _end(queue) == "fix_2"
    assert queue.plan_fix(RED, 2) is None


def test_another_round_is_asked_for_once(reopen: Callable[[], TaskQueue]) -> None:
    queue = reopen()
    queue.start_session(1)
    _end(queue), _end(queue)
    assert queue.plan_fix(RED, 0) is None
    assert queue.to_retry([], red=True) == []
    with pytest.raises(UsageError, match="nothing to retry"):
        queue.to_retry([], red=False)
    queue.start_session(1, fix_asked=True)
    queue = reopen()  # killed, and resumed without asking
    queue.start_session(1)
    assert queue.plan_fix(RED, 0) == "fix_1"
    _end(queue)
    assert queue.plan_fix(RED, 0) is None


def test_a_failed_fix_gets_another_attempt_only_when_asked(reopen: Callable[[], TaskQueue]) -> None:
    queue = reopen()
    queue.start_session(1)
    _end(queue), _end(queue)
    queue.plan_fix(RED, 2)
    _end(queue, FAILED)
    assert queue.refresh().unsettled == 0
    assert queue.plan_fix(RED, 2) is None
    assert queue.to_retry(["fix_1"], red=True) == ["fix_1"]
    queue.start_session(1, fix_asked=True)
    assert queue.plan_fix(RED, 2) == "fix_1"
    status = reopen().refresh().tasks["fix_1"]
    assert (status.state, status.attempt) == (TaskState.QUEUED, 2)
    assert not queue.refresh().fix_asked


def test_a_fix_on_the_trunk_without_its_record_is_damage(reopen: Callable[[], TaskQueue]) -> None:
    queue = reopen()
    queue.start_session(1)
    with pytest.raises(DamagedState, match="fix_1 is on the trunk, and no record here plans it"):
        queue.adopt("fix_1", MergeEvidence())
