"""Real worker processes over a real queue: claims, deaths, hangs, stops."""

from __future__ import annotations

import multiprocessing
import os
import time
from contextlib import closing
from pathlib import Path

import pytest

from parallel_orchestrator.records.errors import BudgetReached, CannotGoOn, OutOfMemory
from parallel_orchestrator.records.graph import TaskGraph, TaskNode
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue_state import QueueState
from parallel_orchestrator.store.queue.scheduler import RunHandle, Scheduler, SingleRun
from parallel_orchestrator.system.process import process_birth
from parallel_orchestrator.workers.forking import InheritedDescriptor
from parallel_orchestrator.workers.supervisor import Supervisor, Workforce
from parallel_orchestrator.workers.worker import Worker, WorkerPipes, WorkSource
from tests.starving import can_starve, small_group
from tests.workers.works import Settings, touching


def _graph(*edges: str) -> TaskGraph:
    """Tasks from "c<a,b" strings: c depends on a and b."""
    parts = [edge.partition("<") for edge in edges]
    return TaskGraph(TaskNode(name, tuple(filter(None, after.split(","))), 1.0) for name, _, after in parts)


class _Watch:
    """A tick that remembers every process it saw."""

    def __init__(self) -> None:
        self.pids: set[int] = set()
        self.most = 0

    def __call__(self, supervisor: Supervisor) -> None:
        live = {slot.process.pid for slot in supervisor.slots.values() if slot.process.pid}
        self.pids |= live
        self.most = max(self.most, len(live))


def _supervise(
    folder: Path, graph: TaskGraph, executors: int, settings: Settings, landed: tuple[str, ...] = ()
) -> tuple[Supervisor, _Watch]:
    lock = os.open(folder / "run.lock", os.O_CREAT | os.O_RDWR)
    watch = _Watch()
    force = Workforce(executors, WorkSource(touching, settings), ("tests.workers.works",), lock)
    handle = RunHandle(RunDirectory(folder), graph, ExecutionEnv("off"))
    found = {task: MergeEvidence(commit=task) for task in landed}
    supervisor = Supervisor(SingleRun(handle), force, watch, landed=lambda _, task: found.get(task))
    try:
        supervisor.supervise()
    finally:
        os.close(lock)
        assert [pid for pid in watch.pids if process_birth(pid) is not None] == []
    return supervisor, watch


def _states(supervisor: Supervisor) -> dict[str, TaskState]:
    return {task: status.state for task, status in _replica(supervisor).tasks.items()}


def _replica(supervisor: Supervisor) -> QueueState:
    return supervisor.scheduler.queue_states()[0][1]


def _runs(folder: Path, task: str) -> list[str]:
    path = folder / f"ran.{task}"
    return path.read_text().splitlines() if path.exists() else []


def test_every_task_runs_once_in_dependency_order(tmp_path: Path) -> None:
    graph = _graph("a", "b", "c<a,b", "d<c", "e<c")
    supervisor, watch = _supervise(tmp_path, graph, 2, Settings(tmp_path, seconds=0.05))
    assert set(_states(supervisor).values()) == {TaskState.MERGED}
    assert [len(_runs(tmp_path, task)) for task in "abcde"] == [1] * 5
    assert watch.most == 2
    order = sorted("abcde", key=lambda task: (tmp_path / f"ran.{task}").stat().st_mtime_ns)
    assert set(order[:2]) == {"a", "b"}
    assert order[2] == "c"


def test_a_worker_that_died_after_its_work_landed_has_merged_it(tmp_path: Path) -> None:
    settings = Settings(tmp_path, die_always=("a", "b"))
    supervisor, _ = _supervise(tmp_path, _graph("a", "b", "c<a", "d<b"), 1, settings, landed=("a",))
    assert [state.value for state in _states(supervisor).values()] == ["merged", "failed", "merged", "blocked"]
    assert [len(_runs(tmp_path, task)) for task in "abcd"] == [1, 3, 1, 0]
    log = RunDirectory(tmp_path).log
    log.unlink()
    _supervise(tmp_path, _graph("a", "b", "c<a", "d<b"), 3, settings)
    assert not log.exists(), "nobody is started when nothing is left"


def test_tasks_overlap_on_several_workers(tmp_path: Path) -> None:
    graph = _graph(*"abcdefgh")
    supervisor, _ = _supervise(tmp_path, graph, 4, Settings(tmp_path, seconds=0.3))
    pids = {_runs(tmp_path, task)[0].split()[0] for task in "abcdefgh"}
    assert len(pids) == 4
    session = _replica(supervisor).sessions
    assert session == []  # sessions are the orchestrator's to mark


def test_a_failed_task_blocks_its_dependents_only(tmp_path: Path) -> None:
    graph = _graph("a", "b", "c<a", "d<c", "e<b")
    supervisor, _ = _supervise(tmp_path, graph, 2, Settings(tmp_path, fail=("a",)))
    assert _states(supervisor) == {
        "a": TaskState.FAILED,
        "b": TaskState.MERGED,
        "c": TaskState.BLOCKED,
        "d": TaskState.BLOCKED,
        "e": TaskState.MERGED,
    }
    assert _replica(supervisor).tasks["d"].why == "a failed"


def test_a_killed_worker_is_replaced_and_its_task_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    supervisor, _ = _supervise(tmp_path, _graph("a", "b<a"), 1, Settings(tmp_path, die_once=("a",)))
    assert set(_states(supervisor).values()) == {TaskState.MERGED}
    first, second = (line.split() for line in _runs(tmp_path, "a"))
    assert first[0] != second[0]
    assert first[2] == second[2] == "1"


def test_a_task_that_kills_its_executor_three_times_is_failed(tmp_path: Path) -> None:
    supervisor, _ = _supervise(tmp_path, _graph("a", "b"), 1, Settings(tmp_path, die_always=("a",)))
    assert _states(supervisor) == {"a": TaskState.FAILED, "b": TaskState.MERGED}
    assert len(_runs(tmp_path, "a")) == 3
    assert "died 3 times" in _replica(supervisor).tasks["a"].why


def test_a_stopped_worker_is_killed_after_its_time_and_replaced(tmp_path: Path) -> None:
    supervisor, _ = _supervise(tmp_path, _graph("a", "b"), 2, Settings(tmp_path, hang_once=("a",)))
    assert set(_states(supervisor).values()) == {TaskState.MERGED}
    assert len(_runs(tmp_path, "a")) == 2


def test_repair_goes_first_and_may_change_hands(tmp_path: Path) -> None:
    supervisor, _ = _supervise(tmp_path, _graph("a", "b", "c"), 1, Settings(tmp_path, repair_once=("a",)))
    assert set(_states(supervisor).values()) == {TaskState.MERGED}
    order = [record["task"] for record in _journal(tmp_path) if record["state"] == "claimed"]
    assert order[:2] == ["a", "a"]


def test_an_error_that_stops_the_run_fails_no_task(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(BudgetReached, match="cap is reached"):
        _supervise(tmp_path, _graph("a", "b<a"), 2, Settings(tmp_path, stop_run=("a",)))
    states = [record["state"] for record in _journal(tmp_path)]
    # A fellow that had looked before the stop may have had the task in its hands for a moment, too.
    assert states in (["claimed", "queued"], ["claimed", "queued"] * 2)
    assert time.monotonic() - started < 60


def test_a_bug_fails_the_task_with_its_reason_and_the_run_goes_on(tmp_path: Path) -> None:
    supervisor, _ = _supervise(tmp_path, _graph("a", "b"), 1, Settings(tmp_path, raise_bug=("a",)))
    assert _states(supervisor) == {"a": TaskState.FAILED, "b": TaskState.MERGED}
    assert _replica(supervisor).tasks["a"].why == "internal error: ZeroDivisionError: a bug"
    assert "Traceback" in RunDirectory(tmp_path).log.read_text()


def test_a_full_disk_that_work_meets_stops_the_run_and_fails_no_task(tmp_path: Path) -> None:
    with pytest.raises(CannotGoOn, match=r"cannot write /tmp/somewhere: No space left on device \(\d+ MiB free there"):
        _supervise(tmp_path, _graph("a"), 1, Settings(tmp_path, full_disk=("a",)))
    assert [record["state"] for record in _journal(tmp_path)] == ["claimed", "queued"]


def test_a_log_that_cannot_be_written_stops_the_run_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    RunDirectory(tmp_path).log.mkdir()
    with pytest.raises(CannotGoOn, match=r"cannot write .*orchestrator\.log: Is a directory"):
        _supervise(tmp_path, _graph("a"), 1, Settings(tmp_path))
    assert "Traceback" not in capfd.readouterr().err


def _journal(folder: Path) -> list[dict[str, object]]:
    from tests.journals import read_all

    return read_all(RunDirectory(folder).queue)


def test_a_report_is_small_however_large_the_plan(tmp_path: Path) -> None:
    source = SingleRun(RunHandle(RunDirectory(tmp_path), _graph(*map(str, range(1000))), ExecutionEnv("off")))
    reader, writer = multiprocessing.Pipe(duplex=False)
    nothing = InheritedDescriptor(-1)
    with closing(Scheduler(source)) as scheduler:
        scheduler.refresh()
        worker = Worker(1, scheduler, lambda job: Outcome(TaskState.MERGED), WorkerPipes(writer, *[nothing] * 4))
        worker.report(scheduler.claim(1), "starting")
        assert len(reader.recv_bytes()) < 1000
    for end in (reader, writer):
        end.close()


def test_a_supervisor_that_never_supervised_holds_no_pipe(tmp_path: Path) -> None:
    def held() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    before = held()
    force = Workforce(1, WorkSource(touching, None), (), 0)
    handle = RunHandle(RunDirectory(tmp_path), _graph("a"), ExecutionEnv("off"))
    Supervisor(SingleRun(handle), force, _Watch()).scheduler.close()
    assert held() == before


@pytest.mark.skipif(not can_starve(), reason="no control group for memory can be made here")
def test_an_executor_that_the_kernel_killed_for_memory_is_no_death_of_its_task(tmp_path: Path) -> None:
    with small_group() as group:
        settings = Settings(tmp_path, seconds=0.3, starve_once=("a", "b"), group=group)
        supervisor, watch = _supervise(tmp_path, _graph("a", "b", "c", "d"), 3, settings)
    assert set(_states(supervisor).values()) == {TaskState.MERGED}
    assert [status.deaths for status in _replica(supervisor).tasks.values()] == [0] * 4
    assert watch.most == 3
    assert len(watch.pids) == 3  # none is started in the place of those


@pytest.mark.skipif(not can_starve(), reason="no control group for memory can be made here")
def test_an_executor_killed_for_memory_after_its_work_landed_has_merged_it(tmp_path: Path) -> None:
    with small_group() as group:
        settings = Settings(tmp_path, starve_always=("a",), group=group)
        supervisor, _ = _supervise(tmp_path, _graph("a", "b<a"), 1, settings, landed=("a",))
    assert set(_states(supervisor).values()) == {TaskState.MERGED}
    assert [len(_runs(tmp_path, task)) for task in "ab"] == [1, 1]


@pytest.mark.skipif(not can_starve(), reason="no control group for memory can be made here")
def test_an_executor_killed_for_memory_with_nothing_beside_it_stops_the_run(tmp_path: Path) -> None:
    with small_group() as group:
        settings = Settings(tmp_path, starve_always=("a",), group=group)
        with pytest.raises(OutOfMemory, match=r"executor's process .* machine has.*fewer --max-executors") as raised:
            _supervise(tmp_path, _graph("a"), 1, settings)
    assert raised.value.exit_code == 3
    assert len(_runs(tmp_path, "a")) == 2
