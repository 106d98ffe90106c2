"""How long so many executors take to be up, and what memory each has of its own."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from benchmarks.contestants import Job, answer
from benchmarks.contestants.ours import WITH_WORKS
from benchmarks.work import holding
from parallel_orchestrator.records.graph import TaskGraph, TaskNode
from parallel_orchestrator.records.scenario import ExecutionEnv
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.scheduler import RunHandle, SingleRun
from parallel_orchestrator.workers.supervisor import Supervisor, Workforce
from parallel_orchestrator.workers.worker import WorkSource


def pss_mib(pid: int) -> float:
    """Proportional set size: pages that are shared count in part."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def _work(job: Job) -> Any:
    """From a cold start: the fork server's imports count, too."""
    count = job["executors"]
    run = RunDirectory(Path(job["folder"]))
    handle = RunHandle(run, TaskGraph(TaskNode(f"task_{n}", (), 1.0) for n in range(count)), ExecutionEnv("off"))
    lock = os.open(run.run_lock, os.O_CREAT | os.O_RDWR)
    memory: list[float] = []

    def tick(supervisor: Supervisor) -> None:
        if not memory and len(list(run.root.glob("up.*"))) == count:
            memory.extend(sorted(pss_mib(slot.process.pid or 0) for slot in supervisor.slots.values()))
            for task in supervisor.scheduler.queue_state(run).tasks:
                (run.root / f"go.{task}").touch()

    begun = time.monotonic()
    Supervisor(
        SingleRun(handle), Workforce(count, WorkSource(holding, str(run.root)), WITH_WORKS, lock), tick
    ).supervise()
    ups = sorted(float(file.read_text()) for file in run.root.glob("up.*"))
    return {"first": ups[0] - begun, "last": ups[-1] - begun, "pss_mib": memory[len(memory) // 2], "most": memory[-1]}


if __name__ == "__main__":
    answer(_work)
