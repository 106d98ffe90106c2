"""A process that claims tasks until all are settled, and two ways of its own to notice that a fellow has the same one.

    python -m tests.store.claimant FOLDER EXECUTOR SECONDS

It locks a file of the task for as long as it works on it (a second holder is refused by the kernel), and it
writes when it began and ended (overlapping spans of one task show afterwards). Neither uses the queue's own means.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from pathlib import Path

from parallel_orchestrator.records.graph import TaskGraph, TaskNode
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.queue.queue_state import Claim

LAYER = 30


def layered(tasks: int) -> TaskGraph:
    """Layers of 30 tasks; each task needs two of the layer before."""
    nodes = []
    for number in range(tasks):
        before = {number - LAYER, (number // LAYER - 1) * LAYER + (number + 1) % LAYER} if number >= LAYER else set()
        nodes.append(TaskNode(f"t{number}", tuple(f"t{n}" for n in sorted(before)), 1.0 + number % 3))
    return TaskGraph(nodes)


def work(folder: Path, claim: Claim, seconds: float) -> None:
    """Hold the task for that long. Exits with 9 when somebody else has it."""
    lock = os.open(folder / f"{claim.task}.held", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os._exit(9)
    begun = time.monotonic()
    time.sleep(seconds)
    line = json.dumps([claim.task, claim.number, begun, time.monotonic()]) + "\n"
    os.close(lock)
    with (folder / f"spans.{os.getpid()}").open("a") as file:
        file.write(line)


def main(folder: Path, executor: int, seconds: float) -> None:
    """Claim, work, finish; look again each few milliseconds while nothing is ready."""
    tasks = int((folder / "tasks").read_text())
    queue = TaskQueue(RunDirectory(folder), layered(tasks))
    claim = None
    while True:
        claim = claim or queue.claim(executor).claim
        if claim:
            work(folder, claim, seconds)
            claim = queue.finish(claim, Outcome(TaskState.MERGED), next_for=executor).claim
        elif queue.refresh().unsettled == 0:
            return
        else:
            time.sleep(0.002)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
