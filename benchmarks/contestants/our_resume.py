"""How soon a half-done run goes on: from workers that are up to the first task that is claimed anew."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.contestants import Job, answer
from benchmarks.contestants.our_queue import plan
from benchmarks.contestants.ours import WITH_WORKS, warm_up
from benchmarks.work import stopping_at_once, without_sync
from parallel_orchestrator.records.errors import BudgetReached
from parallel_orchestrator.records.journals.queue import Move
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.store.journal import read_all
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.queue.scheduler import RunHandle, SingleRun
from parallel_orchestrator.store.record_parser import QUEUE
from parallel_orchestrator.workers.supervisor import Supervisor, Workforce
from parallel_orchestrator.workers.worker import WorkSource


def _work(job: Job) -> Any:
    without_sync()
    run, graph = RunDirectory(Path(job["folder"]) / "run"), plan(job["tasks"], sparse=True)
    run.root.mkdir()
    warm_up(Path(job["folder"]))
    queue = TaskQueue(run, graph)
    held = queue.claim(1).claim
    for _ in range(job["tasks"] // 2):
        if held is None:
            raise SystemExit("no task was ready")
        held = queue.finish(held, Outcome(TaskState.MERGED), next_for=1).claim
    queue.take_back(None, "everything was killed")
    before = queue.last_seq
    queue.close()
    lock = os.open(run.run_lock, os.O_CREAT | os.O_RDWR)
    force = Workforce(job["executors"], WorkSource(stopping_at_once, str(run.root)), WITH_WORKS, lock)
    handle = RunHandle(run, graph, ExecutionEnv("off"))
    begun = time.monotonic()
    with contextlib.suppress(BudgetReached):
        Supervisor(SingleRun(handle), force, lambda _: None).supervise()
    moves = [record for record in read_all(run.queue, QUEUE) if isinstance(record, Move)]
    claimed = next(move.mono for move in moves[before:] if move.state is TaskState.CLAIMED)
    up = min(float(file.read_text()) for file in run.root.glob("up.*"))
    return {"tasks": job["tasks"], "after_up": claimed - up, "after_start": claimed - begun}


if __name__ == "__main__":
    answer(_work)
