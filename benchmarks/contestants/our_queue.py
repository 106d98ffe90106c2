"""This program's queue, by the calls that its workers make. Without `sync`, the call that syncs does nothing."""

from __future__ import annotations

import fcntl
import random
import time
from contextlib import closing
from pathlib import Path

from benchmarks.contestants import Job
from benchmarks.contestants.taking import Opened, race
from benchmarks.work import without_sync
from parallel_orchestrator.records.graph import TaskGraph, TaskNode
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue import TaskQueue

_graphs: dict[Path, TaskGraph] = {}
"""Made before the processes are forked."""


def plan(tasks: int, sparse: bool = False) -> TaskGraph:
    """Independent tasks of three efforts; or each with up to three dependencies among the 500 before it."""
    chance = random.Random(tasks)
    nodes = []
    for number in range(tasks):
        before = range(max(0, number - 500), number)
        chosen = chance.sample(before, min(len(before), chance.randint(0, 3))) if sparse else []
        nodes.append(TaskNode(f"task_{number}", tuple(f"task_{n}" for n in sorted(chosen)), float(1 + number % 3)))
    return TaskGraph(nodes)


def fill(folder: Path, job: Job) -> None:
    """A plan, and a queue in which a session was begun."""
    _graphs[folder] = plan(job["tasks"], job["sparse"])
    with closing(TaskQueue(RunDirectory(folder), _graphs[folder])) as queue:
        queue.start_session(job["processes"])


def opened(folder: Path, job: Job, number: int) -> Opened:
    """Claim the first task; then finish one and claim the next in one hold of the lock."""
    waits: list[float] = []
    kernel_lock = fcntl.flock

    def timed_lock(descriptor: int, operation: int) -> None:
        begun = time.monotonic()
        kernel_lock(descriptor, operation)
        if operation == fcntl.LOCK_EX:
            waits.append(time.monotonic() - begun)

    fcntl.flock = timed_lock  # type: ignore[assignment]  # for file numbers, as all of ours are
    if not job["sync"]:
        without_sync()
    queue = TaskQueue(RunDirectory(folder), _graphs[folder])
    held, deadline = None, time.monotonic() + 2 * job["seconds"]

    def pair() -> bool:
        nonlocal held
        held = held or queue.claim(number).claim
        # With dependencies it may be that none is ready just now.
        while held is None and job["sparse"] and queue.refresh().unsettled and time.monotonic() < deadline:
            held = queue.claim(number).claim
        if held is None:
            return False
        held = queue.finish(held, Outcome(TaskState.MERGED), next_for=number).claim
        return True

    return pair, waits


if __name__ == "__main__":
    race(fill, opened)
