"""What all queues are asked: so many processes take tasks and acknowledge them until none is left.

A pair is one claim and one completion. A contestant fills its queue, and gives each process a function that does one
pair, and says whether there was one.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from benchmarks.contestants import Job, answer

Pair = Callable[[], bool]
Opened = tuple[Pair, list[float]]
"""What does a pair, and the seconds that each wait for a lock took, where that is known."""


def race(fill: Callable[[Path, Job], None], opened: Callable[[Path, Job, int], Opened]) -> None:
    """The main function of a queue: pairs, seconds from first to last, each process's share, waits for the lock."""

    def work(job: Job) -> Any:
        folder = Path(job["folder"])
        fill(folder, job)
        context = multiprocessing.get_context("fork")
        start = context.Barrier(job["processes"])
        ends = []
        for number in range(1, job["processes"] + 1):
            ours, theirs = context.Pipe(duplex=False)
            arguments = (opened, folder, job, number, (start, theirs))
            context.Process(target=_take, args=arguments, daemon=True).start()
            theirs.close()
            ends.append(ours)
        found = [end.recv() for end in ends]
        begun, ended = min(f["begun"] for f in found), max(f["ended"] for f in found)
        waits = sorted(wait for f in found for wait in f["waits"])
        told: dict[str, Any] = {"pairs": sum(f["pairs"] for f in found), "seconds": ended - begun}
        told["shares"] = sorted(f["pairs"] for f in found)
        if waits:
            told["waits"] = {"p50": waits[len(waits) // 2], "p99": waits[len(waits) * 99 // 100], "max": waits[-1]}
        return told

    answer(work)


def _take(
    opened: Callable[[Path, Job, int], Opened], folder: Path, job: Job, number: int, ends: tuple[Barrier, Connection]
) -> None:
    """One process: wait for all the others to be ready, do pairs, tell."""
    start, told = ends
    pair, waits = opened(folder, job, number)
    start.wait()
    pairs, begun = 0, time.monotonic()
    deadline = begun + job["seconds"]
    while pair():
        pairs += 1
        if time.monotonic() > deadline:
            break
    told.send({"begun": begun, "ended": time.monotonic(), "pairs": pairs, "waits": waits})
