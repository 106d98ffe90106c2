"""What a task costs beside its work, part by part, on the two shapes that hand over most often.

    python -m benchmarks.hand_over

`chain` is one task after the other on an idle machine, so its parts are the time that passes; `wide` has 64 executors
on few cores, so its parts are processor time. The parts are the program's own functions with a clock around each,
which makes a run a little longer than the benchmark's.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from benchmarks.contestants import ours
from benchmarks.rounds import folder, markdown
from benchmarks.shapes import Shape, shapes
from benchmarks.work import Sleeping, sleeper
from parallel_orchestrator.store import queue
from parallel_orchestrator.store.board import Board
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.replica import Replica
from parallel_orchestrator.workers import worker
from parallel_orchestrator.workers.worker import Work, Worker

CLOCKS: dict[str, Callable[[], float]] = {"chain": time.monotonic, "wide": time.process_time}
IN_FINISH: dict[str, tuple[Any, str]] = {
    "taking and leaving the lock": (fcntl, "flock"),
    "reading and checking what others wrote": (Journal, "read_new"),
    "taking their moves in": (queue, "follow"),
    "ranking anew": (Replica, "rank"),
    "making and appending the two lines": (Journal, "append"),
    "the sync": (Journal, "sync"),
}
FINISH, WORK, WHOLE = "finish", "work", "whole"
OTHERS: dict[str, tuple[Any, str]] = {
    "the log's line": (worker.log, "info"),
    "telling the supervisor": (Worker, "report"),
    FINISH: (Board, "finish"),
    WORK: (time, "sleep"),
}
"""None of the functions in these two calls another, but `Board.finish` those of `IN_FINISH`."""


def main(scale: float = 1.0) -> None:
    """Run both shapes and print a Markdown table: µs of each part for each task."""
    plans = {plan.name: plan for plan in shapes(scale) if plan.name in CLOCKS}
    columns = [_parts(plan) for plan in plans.values()]
    titles = [f"{name}, {'processor µs' if name == 'wide' else 'µs'} a task" for name in plans]
    rows = [[part, *(f"{column[part]:,.0f}" for column in columns)] for part in columns[0]]
    print(markdown(["part", *titles], rows))


def _parts(plan: Shape) -> dict[str, float]:
    """µs of each part, for each task."""
    spent = _run(plan)
    of = {title: spent[title] / len(plan.tasks) * 1e6 for title in (*IN_FINISH, *OTHERS, WHOLE)}
    finish, whole = of.pop(FINISH), of.pop(WHOLE)
    late = {"the sleep, beyond its length": of.pop(WORK)}
    rest = {"the rest of recording an end and claiming the next": finish - sum(of[title] for title in IN_FINISH)}
    parts = late | of | rest
    return parts | {"the rest": whole - sum(parts.values()), "all": whole}


def _run(plan: Shape) -> dict[str, float]:
    """Seconds of each part in all executors together, sleeps without their length."""
    seconds = {task.id: task.seconds for task in plan.tasks}
    total: dict[str, float] = defaultdict(float)
    with folder() as place:
        ours.warm_up(place)
        told = ours.supervise(place, plan.exact(), plan.executors, seconds, timed)
        for file in place.glob("spent.*"):
            for title, taken in json.loads(file.read_text()).items():
                total[title] += taken
    print(f"{plan.name}: {told['makespan'] / plan.perfect():.3f} of the perfect schedule")
    if plan.name == "chain":
        total[WORK] -= sum(seconds.values())
        total[WHOLE] = told["makespan"] - sum(seconds.values())
    return total


def timed(sleeping: Sleeping) -> Work:
    """The benchmark's work in a process in which each part is timed, from when all are up."""
    clock = CLOCKS["chain" if len(set(sleeping.seconds.values())) == 1 else "wide"]
    spent: dict[str, float] = defaultdict(float)
    for title, (place, name) in (IN_FINISH | OTHERS).items():
        setattr(place, name, _clocked(getattr(place, name), spent, title, clock))
    work = sleeper(sleeping)
    begun = clock()
    Finalize(None, lambda: _write(sleeping.folder, {**spent, WHOLE: clock() - begun}), exitpriority=1)
    spent.clear()
    return work


def _clocked(function: Callable[..., Any], spent: dict[str, float], title: str, clock: Callable[[], float]) -> Any:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        begun = clock()
        try:
            return function(*args, **kwargs)
        finally:
            spent[title] += clock() - begun

    return call


def _write(place: Path, spent: dict[str, float]) -> None:
    (place / f"spent.{os.getpid()}").write_text(json.dumps(spent))


if __name__ == "__main__":
    from benchmarks import hand_over  # noqa: PLW0406 - by its name: workers find `timed` by it

    hand_over.main()
