"""This program: its queue, its supervisor and its worker processes; the work sleeps, and the result is always taken.

Durations are measured between the queue's own records, on the clock that all processes share: from the first claim,
when all workers are up, to the last task that is merged, every merge synced to disk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.contestants import Job, answer
from benchmarks.work import Sleeping, sleeper
from parallel_orchestrator.records.graph import TaskGraph, TaskNode
from parallel_orchestrator.records.journals.queue import Move
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.run.prepare import PRELOAD
from parallel_orchestrator.store.journal import read_all
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.queue.scheduler import RunHandle, SingleRun
from parallel_orchestrator.store.record_parser import QUEUE
from parallel_orchestrator.workers.supervisor import Supervisor, Workforce
from parallel_orchestrator.workers.worker import Work, WorkSource

WITH_WORKS = (*PRELOAD, "benchmarks.work")
"""What the fork server imports: all that it does for real executors, and the works of benchmarks."""


def warm_up(folder: Path) -> None:
    """Return when the fork server has imported all: it does so while the planner's model thinks."""
    place = folder / "warm"
    place.mkdir(parents=True)
    supervise(place, TaskGraph([TaskNode("task_1", (), 1.0)]), 1, {"task_1": 0.0})


def supervise(
    folder: Path,
    graph: TaskGraph,
    executors: int,
    seconds: dict[str, float],
    work: Callable[[Sleeping], Work] = sleeper,
) -> dict[str, float]:
    """Have the plan done; seconds to the first claim, from it to the last merge and until all are at work, and all."""
    lock = os.open(folder / "run.lock", os.O_CREAT | os.O_RDWR)
    sleeping = Sleeping(seconds, folder, min(executors, len(graph.nodes)))
    force = Workforce(executors, WorkSource(work, sleeping), WITH_WORKS, lock)
    run = RunDirectory(folder)
    begun = time.monotonic()
    with closing(TaskQueue(run, TaskGraph(graph.nodes.values()))) as queue:
        queue.start_session(executors)  # as a run does: else the first claim would make the journal, under the lock
    Supervisor(SingleRun(RunHandle(run, graph, ExecutionEnv("off"))), force, lambda _: None).supervise()
    ended = time.monotonic()
    os.close(lock)
    records = [record for record in read_all(run.queue, QUEUE) if isinstance(record, Move)]
    if sum(record.state is TaskState.MERGED for record in records) != len(graph.nodes):
        raise SystemExit("not every task was merged")
    first, last = records[0].mono, records[-1].mono
    claims = [record.mono for record in records if record.state is TaskState.CLAIMED]
    at_work = claims[: sleeping.workers][-1] - first
    return {"start": first - begun, "makespan": last - first, "at_work": at_work, "wall": ended - begun}


def _work(job: Job) -> Any:
    folder = Path(job["folder"])
    warm_up(folder)
    found = {}
    for number, shape in enumerate(job["shapes"]):
        place = folder / str(number)
        place.mkdir()
        graph = TaskGraph(
            TaskNode(task, tuple(before), job["weights"][shape["name"]][task]) for task, before, *_ in shape["tasks"]
        )
        seconds = {task: length for task, _, length, _ in shape["tasks"]}
        found[shape["name"]] = supervise(place, graph, shape["executors"], seconds)
    return found


if __name__ == "__main__":
    answer(_work)
