"""The queue under real processes: nothing lost, nothing twice, nothing too early, also when they are killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.queue.queue_state import QueueState
from parallel_orchestrator.store.record_parser import QUEUE
from tests.journals import read_all
from tests.store.claimant import layered

ROOT = Path(__file__).resolve().parents[2]


def _start(folder: Path, executor: int, seconds: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.store.claimant", str(folder), str(executor), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT)


def _assert_each_once(folder: Path, tasks: int, *, deaths: int) -> None:
    graph = layered(tasks)
    merged: set[str] = set()
    queue_state = QueueState(graph)
    for record in read_all(RunDirectory(folder).queue):
        queue_state.apply(QUEUE.of(record))
        if record["state"] == "claimed":
            assert merged.issuperset(graph.nodes[record["task"]].dependencies)
        elif record["state"] == "merged":
            assert record["task"] not in merged
            merged.add(record["task"])
    assert len(merged) == tasks
    assert queue_state.unsettled == 0
    assert sum(status.deaths for status in queue_state.tasks.values()) <= deaths
    spans: dict[str, list[tuple[float, float]]] = {}
    for file in folder.glob("spans.*"):
        for task, _, begun, ended in map(json.loads, file.read_text().splitlines()):
            spans.setdefault(task, []).append((begun, ended))
    assert len(spans) == tasks
    assert all(first[1] <= second[0] for found in spans.values() for first, second in pairwise(sorted(found)))
    assert sum(map(len, spans.values())) <= tasks + deaths


def test_six_processes_run_300_tasks_once_each_in_order(tmp_path: Path) -> None:
    (tmp_path / "tasks").write_text("300")
    processes = [_start(tmp_path, number, 0.001) for number in range(1, 7)]
    assert [process.wait() for process in processes] == [0] * 6
    _assert_each_once(tmp_path, 300, deaths=0)
    claimed = [r["executor"] for r in read_all(RunDirectory(tmp_path).queue) if r["state"] == "claimed"]
    assert set(claimed) == {1, 2, 3, 4, 5, 6}
    assert not any(status.state is not TaskState.MERGED for status in _state(tmp_path, 300).tasks.values())


def _state(folder: Path, tasks: int) -> QueueState:
    queue = TaskQueue(RunDirectory(folder), layered(tasks))
    queue_state = queue.refresh()
    queue.close()
    return queue_state


def test_processes_killed_wherever_they_are_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "tasks").write_text("150")
    chance, kills, taken_back = random.Random(5), 0, 0
    processes = {number: _start(tmp_path, number, 0.02) for number in range(1, 5)}
    queue = TaskQueue(RunDirectory(tmp_path), layered(150))
    try:
        while queue.refresh().unsettled:
            time.sleep(chance.uniform(0.02, 0.1))
            holders = [status.claim.executor for status in queue.refresh().tasks.values() if status.claim]
            number = chance.choice(holders or [0])
            if kills < 16 and number and processes[number].poll() is None:
                processes[number].kill()
                assert processes[number].wait() == -signal.SIGKILL
                kills += 1
                taken_back += len(queue.take_back(number, "killed").records)
                for task in [t for t, status in queue.queue_state.tasks.items() if status.state is TaskState.FAILED]:
                    queue.retry(task, "it was killed three times by chance")
                processes[number] = _start(tmp_path, number, 0.02)
        assert {process.wait() for process in processes.values()} == {0}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
        queue.close()
    assert kills > 5
    assert taken_back > 2
    _assert_each_once(tmp_path, 150, deaths=kills)


def test_a_claimant_killed_within_its_work_is_replaced_and_its_claim_is_stale(tmp_path: Path) -> None:
    (tmp_path / "tasks").write_text("2")
    first = _start(tmp_path, 1, 60)
    queue = TaskQueue(RunDirectory(tmp_path), layered(2))
    while not (tmp_path / "t0.held").exists() and not (tmp_path / "t1.held").exists():
        time.sleep(0.01)
    (task, held), *none = [(t, s.claim) for t, s in queue.refresh().tasks.items() if s.claim]
    assert none == []
    assert held
    first.kill()
    first.wait()
    queue.take_back(1, "killed")
    assert _start(tmp_path, 2, 0.001).wait() == 0
    status = queue.refresh().tasks[task]
    assert (status.state, status.deaths, status.folder) == (TaskState.MERGED, 1, 1)
    queue.close()
    spans = [json.loads(line) for file in tmp_path.glob("spans.*") for line in file.read_text().splitlines()]
    assert sorted(span[0] for span in spans) == ["t0", "t1"]
    assert all(span[1] > held.number for span in spans)
