"""The queue's rules, one by one; several handles on one file stand for several processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_orchestrator.records.errors import CannotGoOn, StaleClaim
from parallel_orchestrator.records.graph import TaskGraph, TaskNode
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.journals.queue import Move
from parallel_orchestrator.records.lifecycle import IllegalMove, TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.queue.queue_state import Claim, QueueState
from parallel_orchestrator.store.record_parser import QUEUE
from tests.journals import read_all
from tests.records.plans import graph

MERGED, FAILED, REPAIR = (Outcome(TaskState(name)) for name in ("merged", "failed", "repair"))


class Bench:
    """Handles on one run's queue, closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.run = RunDirectory(folder)
        self.handles: list[TaskQueue] = []

    def open(self, *edges: str) -> TaskQueue:
        self.handles.append(TaskQueue(self.run, graph(*edges)))
        return self.handles[-1]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for handle in made.handles:
        handle.close()


def _claim(queue: TaskQueue, executor: int = 1) -> Claim:
    claim = queue.claim(executor).claim
    assert claim
    return claim


def _order(queue: TaskQueue) -> str:
    """The tasks in the order in which one executor gets them."""
    order = ""
    while claim := queue.claim(1).claim:
        queue.finish(claim, MERGED)
        order += claim.task
    return order


def _states(queue: TaskQueue) -> dict[str, str]:
    return {task: status.state.value for task, status in queue.refresh().tasks.items()}


def test_a_claim_is_numbered_by_its_record_and_no_task_has_two(bench: Bench) -> None:
    one, two = bench.open("a", "b"), bench.open("a", "b")
    first, second = _claim(one, 1), _claim(two, 2)
    assert (first.task, first.number, first.attempt, first.executor, first.folder) == ("a", 1, 1, 1, 1)
    assert (second.task, second.number, second.executor) == ("b", 2, 2)
    assert one.claim(1).claim is None


@pytest.mark.parametrize(
    ("edges", "order"),
    [
        (("a", "b", "c"), "abc"),  # the plan's order
        (("a!3", "b!1", "c!2"), "bca"),  # its priority before that
        (("a!1", "b*4!9", "c"), "bac"),  # the longest remaining path before everything
        (("a", "b", "c<b", "d<c"), "bcad"),
        (("a*4", "b*2", "c*4<b"), "bac"),
    ],
)
def test_the_longest_remaining_path_goes_first_then_priority_then_plan_order(
    edges: tuple[str, ...], order: str, bench: Bench
) -> None:
    assert _order(bench.open(*edges)) == order


def test_a_repair_goes_before_everything_and_stays_the_same_attempt_in_the_same_folder(bench: Bench) -> None:
    queue = bench.open("a", "b*4", "c*4")
    _claim(queue, 1), _claim(queue, 2)
    small = _claim(queue, 3)
    assert small.task == "a"
    queue.finish(small, REPAIR)
    bench.open("a", "b*4", "c*4").take_back(1, "died")  # b waits as well now, and its path is longer
    again = _claim(queue, 4)
    assert (again.task, again.attempt, again.folder, again.executor) == ("a", 1, 3, 4)
    assert _claim(queue, 1).task == "b"
    queue.take_back(4, "died over the repair")
    queue.take_back(1, "died")
    ours, others = queue.refresh().urgency(), QueueState(graph("d*9")).urgency()
    assert ours
    assert others
    assert ours < others  # before a longer task of another run, too
    assert _claim(queue, 5).task == "a"


def test_finishing_wakes_for_what_became_ready_besides_ones_own_next(bench: Bench) -> None:
    queue = bench.open("a", "b<a", "c<a", "d<b,c")
    advance = queue.finish(_claim(queue), MERGED, next_for=1)
    assert advance.claim
    assert advance.claim.task == "b"
    assert advance.ready == 1
    assert [record.state for record in advance.records if isinstance(record, Move)] == ["merged", "claimed"]


def test_a_failure_blocks_all_that_need_it_and_nothing_else(bench: Bench) -> None:
    queue = bench.open("a*4", "b<a", "c<b", "d")
    queue.finish(_claim(queue), Outcome(TaskState.FAILED, "too hard"))
    assert _states(queue) == {"a": "failed", "b": "blocked", "c": "blocked", "d": "queued"}
    assert queue.queue_state.tasks["a"].why == "too hard"
    assert queue.queue_state.tasks["c"].why == "a failed"
    assert queue.queue_state.unsettled == 1


def test_a_retry_begins_another_attempt_and_frees_what_waits_for_nothing_else(bench: Bench) -> None:
    queue = bench.open("a*4", "b*3", "c<a", "d<a,b", "e<d")
    queue.finish(_claim(queue, 1), FAILED)
    queue.finish(_claim(queue, 1), FAILED)
    queue.retry("a", "asked")
    assert _states(queue) == {"a": "queued", "b": "failed", "c": "queued", "d": "blocked", "e": "blocked"}
    again = _claim(queue, 2)
    assert (again.task, again.attempt, again.folder) == ("a", 2, 2)
    queue.finish(again, MERGED)
    queue.retry("b", "asked")
    assert _states(queue)["e"] == "queued"
    assert _order(queue) == "bdce"
    with pytest.raises(IllegalMove, match="a cannot go from merged to queued"):
        queue.retry("a", "asked")


@pytest.mark.parametrize("outcome", [MERGED, FAILED, REPAIR])
def test_a_stale_claim_can_neither_finish_nor_release(outcome: Outcome, bench: Bench) -> None:
    slow, other = bench.open("a"), bench.open("a")
    stale = _claim(slow, 1)
    other.take_back(1, "taken for dead")
    told = "claim 1 of executor 1 is no longer valid"
    with pytest.raises(StaleClaim, match=rf"{told} \(nobody holds it\)"):
        slow.finish(stale, outcome)
    valid = _claim(other, 1)  # the same executor: the number decides, not the name
    before = bench.run.queue.read_bytes()
    with pytest.raises(StaleClaim, match=rf"{told} \(claim 3 of executor 1 holds it\)"):
        slow.finish(stale, outcome, next_for=1)
    with pytest.raises(StaleClaim):
        slow.check(stale)
    with pytest.raises(StaleClaim):
        slow.release(stale, "stop")
    assert bench.run.queue.read_bytes() == before
    slow.check(valid)
    other.finish(valid, MERGED)
    with pytest.raises(StaleClaim, match="nobody holds it"):
        other.finish(valid, MERGED)


def test_a_released_task_waits_again_and_nobody_died(bench: Bench) -> None:
    queue = bench.open("a")
    advance = queue.release(_claim(queue, 3), "asked to stop")
    status = queue.queue_state.tasks["a"]
    assert (status.state, status.why, status.deaths, advance.ready) == (TaskState.QUEUED, "asked to stop", 0, 1)
    assert _claim(queue, 5).folder == 3


def test_what_the_dead_hold_is_taken_back_and_only_that(bench: Bench) -> None:
    queue = bench.open("a", "b", "c")
    for executor in (1, 2, 3):
        _claim(queue, executor)
    advance = bench.open("a", "b", "c").take_back(2, "killed")
    moves = [move for move in advance.records if isinstance(move, Move)]
    assert [(move.task, move.state, move.why, move.died) for move in moves] == [("b", "queued", "killed", True)]
    assert _states(queue) == {"a": "claimed", "b": "queued", "c": "claimed"}
    queue.take_back(None, "its orchestrator ended")
    assert set(_states(queue).values()) == {"queued"}
    assert [status.deaths for status in queue.queue_state.tasks.values()] == [0, 1, 0]  # a whole run's end is no death
    assert queue.take_back(None, "again").records == []


def test_a_task_whose_executor_dies_three_times_is_failed(bench: Bench) -> None:
    queue = bench.open("a", "b<a")
    for deaths in (1, 2, 3):
        _claim(queue, 1)
        queue.take_back(1, f"death {deaths}")
        assert queue.queue_state.tasks["a"].deaths == deaths
    assert _states(queue) == {"a": "failed", "b": "blocked"}
    assert queue.queue_state.tasks["a"].why == "its executor died 3 times; last: death 3"
    queue.retry("a", "asked")
    assert queue.queue_state.tasks["a"].deaths == 0
    assert _order(queue) == "ab"


def test_a_merge_found_after_its_task_was_given_up_stands_and_frees_what_it_blocked(bench: Bench) -> None:
    queue = bench.open("a", "b<a", "c<a,d", "d", "e<d")
    queue.finish(_claim(queue), FAILED)
    queue.finish(_claim(queue), FAILED)
    assert _states(queue) == {"a": "failed", "b": "blocked", "c": "blocked", "d": "failed", "e": "blocked"}
    queue.adopt("a", MergeEvidence(commit="c"))
    assert _states(queue) == {"a": "merged", "b": "queued", "c": "blocked", "d": "failed", "e": "blocked"}
    assert queue.queue_state.tasks["a"].attempt == 1
    queue.retry("d", "asked")
    assert sorted(_order(queue)) == ["b", "c", "d", "e"]


@pytest.mark.parametrize("before", ["queued", "claimed", "repair"])
def test_a_merge_found_on_the_trunk_is_adopted_whatever_was_lost(before: str, bench: Bench) -> None:
    queue = bench.open("a", "b<a")
    if before != "queued":
        claim = _claim(queue, 2)
        if before == "repair":
            queue.finish(claim, REPAIR)
    queue.adopt("a", MergeEvidence(commit="c"))
    assert _states(queue) == {"a": "merged", "b": "queued"}
    assert queue.queue_state.tasks["a"].folder == (1 if before == "queued" else 2)
    record = read_all(bench.run.queue)[-1]
    assert (record["state"], record["why"], record["evidence"]) == ("merged", "found on the trunk", {"commit": "c"})
    length = bench.run.queue.stat().st_size
    queue.adopt("a", MergeEvidence(commit="c"))
    assert bench.run.queue.stat().st_size == length


def _merge(queue_state: QueueState, task: str, begun: float, seconds: float) -> None:
    for state, mono in (("claimed", begun), ("merged", begun + seconds)):
        queue_state.apply(QUEUE.of({"seq": 1, "task": task, "state": state, "attempt": 1, "executor": 1, "mono": mono}))


def test_tasks_are_expected_to_take_as_long_as_others_of_their_effort_did() -> None:
    queue = QueueState(graph("light1", "light2", "heavy*4", "x*4"))
    for task, begun, seconds in (("light1", 100.0, 50.0), ("light2", 150.0, 70.0), ("heavy", 300.0, 1.0)):
        _merge(queue, task, begun, seconds)
    assert queue.expected() == {"light1": 60.0, "light2": 60.0, "heavy": 1.0, "x": 1.0}


def test_efforts_without_an_observation_are_scaled_from_the_others() -> None:
    queue_state = QueueState(graph("a", "b*4"))
    assert queue_state.expected() == {"a": 1.0, "b": 4.0}
    for seq, (state, mono) in enumerate((("claimed", 10.0), ("merged", 30.0)), 1):
        queue_state.apply(
            QUEUE.of({"seq": seq, "task": "a", "state": state, "attempt": 1, "executor": 1, "mono": mono})
        )
    assert queue_state.expected() == {"a": 20.0, "b": 80.0}


def test_the_time_between_two_sessions_is_no_work() -> None:
    queue_state = QueueState(graph("a", "b"))
    records = [
        {"session": "start", "executors": 2, "mono": 0.0},
        {"task": "a", "state": "claimed", "attempt": 1, "executor": 1, "mono": 10.0},
        {"task": "b", "state": "claimed", "attempt": 1, "executor": 2, "mono": 15.0},  # killed after this
        {"session": "start", "executors": 2, "mono": 3.0},  # after a reboot: the clock begins again
        {"task": "a", "state": "queued", "attempt": 1, "executor": 1, "mono": 3.1},
        {"task": "a", "state": "claimed", "attempt": 1, "executor": 1, "mono": 4.0},
        {"task": "a", "state": "merged", "attempt": 1, "executor": 1, "mono": 6.0},
    ]
    for seq, record in enumerate(records, 1):
        queue_state.apply(QUEUE.of({"seq": seq, **record}))
    assert queue_state.tasks["a"].busy == pytest.approx(5.0 + 0.1 + 2.0)
    assert [(s.executors, s.started, s.last) for s in queue_state.sessions] == [(2, 0.0, 15.0), (2, 3.0, 6.0)]


def test_a_handle_opened_late_and_one_that_followed_agree(bench: Bench) -> None:
    queue, follower = bench.open("a", "b<a", "c<b"), bench.open("a", "b<a", "c<b")
    queue.start_session(2)
    follower.refresh()
    assert _order(queue) == "abc"
    late = bench.open("a", "b<a", "c<b")
    assert late.refresh().tasks == follower.refresh().tasks == queue.queue_state.tasks
    assert late.last_seq == follower.last_seq == queue.last_seq == 7
    assert late.queue_state.count()[TaskState.MERGED] == 3


def test_a_torn_tail_is_mended_by_the_next_claim(bench: Bench) -> None:
    queue = bench.open("a", "b")
    _claim(queue, 1)
    with bench.run.queue.open("ab") as file:
        file.write(b'{"seq":2,"task":"b","sta')
    assert _claim(bench.open("a", "b"), 2).number == 2
    assert [record["task"] for record in read_all(bench.run.queue)] == ["a", "b"]


def test_a_queue_that_cannot_be_written_says_so_and_changes_no_state(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.queue.symlink_to("/dev/full")
    queue = TaskQueue(run, graph("a"))
    with pytest.raises(CannotGoOn, match="No space left"):
        queue.claim(1)
    assert queue.queue_state.tasks["a"].state is TaskState.QUEUED
    queue.close()
    with pytest.raises(CannotGoOn, match="cannot write"):
        TaskQueue(RunDirectory(tmp_path / "none"), graph("a")).claim(1)


def test_readers_hold_up_no_writer(bench: Bench) -> None:
    queue = bench.open("a")
    reader = Journal(bench.run.queue, QUEUE)
    _claim(queue)
    assert len(reader.read_new()) == 1
    assert bench.run.queue_lock.read_bytes() == b""
    reader.close()


def test_sessions_killed_before_their_first_move_add_no_time_to_an_open_claim() -> None:
    queue_state = QueueState(TaskGraph([TaskNode("a", (), 1.0)]))
    queue_state.apply(QUEUE.of({"seq": 1, "session": "start", "executors": 1, "mono": 100.0}))
    queue_state.apply(QUEUE.of({"seq": 2, "task": "a", "state": "claimed", "attempt": 1, "executor": 1, "mono": 100.0}))
    for seq, mono in ((3, 900.0), (4, 5000.0), (5, 20.0)):  # the last one after a boot
        queue_state.apply(QUEUE.of({"seq": seq, "session": "start", "executors": 1, "mono": mono}))
    queue_state.apply(Move(seq=6, task="a", state=TaskState.QUEUED, attempt=1, executor=1, claim=2, mono=20.5))
    assert queue_state.tasks["a"].busy == 0.5
