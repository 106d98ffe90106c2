"""What one pair of claim and completion spends its processor time on, part by part.

    python -m benchmarks.queue_parts

One process, not synced, 10,000 tasks. Each part is the queue's own function, timed by itself in a loop; the rest is
what the pair as a whole takes beyond them. Processor time, so that a busy machine changes little.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from msgspec import UNSET

from parallel_orchestrator.records.graph import TaskGraph, TaskNode
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.store.journal import Journal, body_of, encode, read_all
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.queue.queue_state import QueueState
from parallel_orchestrator.store.record_parser import QUEUE
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.files import write_all

TASKS = 10_000
Part = tuple[str, int, Callable[[], object]]
T = TypeVar("T")


def main() -> None:
    """Measure and print a Markdown table."""
    graph = TaskGraph(TaskNode(f"task_{number}", (), 1.0) for number in range(1, TASKS + 1))
    with tempfile.TemporaryDirectory(prefix="queue-parts-") as folder:
        run = RunDirectory(Path(folder))
        whole = _pair_us(run, graph)
        parts = [(name, times, times * _us(call)) for name, times, call in _parts(run, graph)]
    own = [us for name, _, us in parts if not name.startswith("another's")]
    print("| part | times in a pair | processor µs |\n| --- | ---: | ---: |")
    for name, times, us in [
        *parts,
        ("the rest: calls between these, objects, caches that are colder", 1, whole - sum(own)),
        ("an own pair", 1, whole),
    ]:
        print(f"| {name} | {times} | {us:.1f} |")


def _pair_us(run: RunDirectory, graph: TaskGraph) -> float:
    """Processor µs of a pair in a queue that nobody else uses."""
    queue = TaskQueue(run, graph)
    queue._journal.sync = lambda: None  # type: ignore[method-assign]  # not synced, as in `queue`
    claim, began = queue.claim(1).claim, time.process_time()
    while claim:
        claim = queue.finish(claim, Outcome(TaskState.MERGED), next_for=1).claim
    queue.close()
    return (time.process_time() - began) / TASKS * 1e6


def _parts(run: RunDirectory, graph: TaskGraph) -> Iterator[Part]:
    records = read_all(run.queue, QUEUE)
    lines = run.queue.read_bytes().splitlines()
    move = QUEUE(body_of(lines[1]) or b"")
    move.seq = cast("int", UNSET)
    with (
        closing(Journal(run.queue, QUEUE)) as journal,
        run.queue_lock.open() as lock,
        (run.root / "scratch").open("ab") as file,
    ):
        journal.read_new()
        yield "taking and leaving the lock", 1, partial(_take_and_leave, lock.fileno())
        yield "looking for news, none there", 2, journal.read_new
        yield "choosing a task", 1, QueueState(graph).pick
        yield "looking at the clocks", 2, lambda: (round(time.time(), 3), round(time.monotonic(), 6))
        yield "looking whether a tail is torn", 2, partial(os.fstat, file.fileno())
        yield "looking for secrets", 2, partial(redact.known, move)
        yield "making the line, checksum in it", 2, partial(encode, 1, move)
        yield "appending it", 2, partial(write_all, file.fileno(), lines[1])
        yield "taking the move in", 2, _each(QueueState(graph).apply, records)
        yield "another's line, read and checked", 2, _each(_read, lines)
        yield "another's move, taken in", 2, _each(QueueState(graph).apply, records)


def _read(line: bytes) -> None:
    QUEUE(body_of(line) or b"")


def _take_and_leave(lock: int) -> None:
    fcntl.flock(lock, fcntl.LOCK_EX)
    fcntl.flock(lock, fcntl.LOCK_UN)


def _each(do: Callable[[T], object], things: Sequence[T]) -> Callable[[], object]:
    """Do it with the next one at each call."""
    left = iter(things)
    return lambda: do(next(left))


def _us(call: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(2 * TASKS):  # as many as there are records
        call()
    return (time.process_time() - began) / (2 * TASKS) * 1e6


if __name__ == "__main__":
    main()
