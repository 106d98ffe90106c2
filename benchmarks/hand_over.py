"""What a task costs beside its work, part by part, on the two shapes that hand over most often.

    python -m benchmarks.hand_over

`chain` is one task after the other, by one executor while the others are idle: its parts are the time that passes for
that one. `wide` has 64 executors on few cores, so its parts are processor time, of all. The parts are the program's own
functions with a clock around each, which makes a run a little longer than the benchmark's.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from multiprocessing.util import Finalize
from typing import Any

from benchmarks.contestants import ours
from benchmarks.rounds import folder, markdown
from benchmarks.shapes import Shape, shapes
from benchmarks.work import Sleeping, sleeper
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.queue import queue
from parallel_orchestrator.store.queue.scheduler import Scheduler
from parallel_orchestrator.workers import worker
from parallel_orchestrator.workers.worker import Work, Worker

CLOCKS: dict[str, Callable[[], float]] = {"chain": time.monotonic, "wide": time.process_time}
FINISH, SLEEP, WHOLE = "recording an end and claiming the next", "sleep", "all"
IN_FINISH: dict[str, tuple[Any, str]] = {
    "taking and leaving the lock": (fcntl, "flock"),
    "reading and checking what others wrote": (Journal, "read_new"),
    "taking their moves in": (queue, "follow"),
    "making and appending the two lines": (Journal, "append"),
    "the sync": (Journal, "sync"),
}
"""What `Scheduler.finish` calls. None calls another, and each counts only while `Scheduler.finish` runs."""
OTHERS: dict[str, tuple[Any, str]] = {
    FINISH: (Scheduler, "finish"),
    SLEEP: (time, "sleep"),
    "the log's line": (worker.log, "info"),
    "telling the supervisor": (Worker, "report"),
}


def main(scale: float = 1.0) -> None:
    """Run both shapes and print a Markdown table: µs of each part for each task."""
    plans = {plan.name: plan for plan in shapes(scale) if plan.name in CLOCKS}
    columns = [_parts(plan) for plan in plans.values()]
    titles = [f"{name}, {'processor µs' if name == 'wide' else 'µs'} a task" for name in plans]
    rows = [[part, *(f"{column[part]:,.0f}" for column in columns)] for part in columns[0]]
    print(markdown(["part", *titles], rows))


def _parts(plan: Shape) -> dict[str, float]:
    """µs of each part, for each task."""
    us = {title: seconds / len(plan.tasks) * 1e6 for title, seconds in _run(plan).items()}
    parts = {"the sleep itself, beyond its length": us[SLEEP]}
    parts |= {title: us[title] for title in IN_FINISH}
    parts[f"the rest of {FINISH}"] = us[FINISH] - sum(us[title] for title in IN_FINISH)
    parts |= {title: us[title] for title in OTHERS if title not in (FINISH, SLEEP)}
    return parts | {"the rest": us[WHOLE] - sum(parts.values()), WHOLE: us[WHOLE]}


def _run(plan: Shape) -> dict[str, float]:
    """Seconds of each part, sleeps without their length, in all executors that ended a task."""
    lengths = {task.id: task.seconds for task in plan.tasks}
    with folder() as place:
        ours.warm_up(place)
        told = ours.supervise(place, plan.exact(), plan.executors, lengths, partial(timed, plan.name))
        found = [json.loads(file.read_text()) for file in place.glob("spent.*")]
    ratio = told["makespan"] / plan.perfect()
    print(f"{plan.name}: {ratio:.3f} of the perfect schedule; all executors at work after {told['at_work']:.3f} s")
    spent = {title: sum(one.get(title, 0.0) for one in found) for title in (*IN_FINISH, *OTHERS, WHOLE)}
    if plan.name == "chain":
        spent[SLEEP] -= sum(lengths.values())
        spent[WHOLE] = told["makespan"] - sum(lengths.values())
    return spent


def timed(name: str, sleeping: Sleeping) -> Work:
    """The benchmark's work in a process in which each part is timed, from when all are up."""
    clocked = Clocked(CLOCKS[name])
    for title, (place, function) in (IN_FINISH | OTHERS).items():
        setattr(place, function, clocked.around(getattr(place, function), title))
    work = sleeper(sleeping)
    clocked.spent.clear()  # of it, the waiting for the others
    begun = clocked.clock()

    def write() -> None:
        if FINISH in clocked.spent:
            told = {**clocked.spent, WHOLE: clocked.clock() - begun}
            (sleeping.folder / f"spent.{os.getpid()}").write_text(json.dumps(told))

    Finalize(None, write, exitpriority=1)
    return work


class Clocked:
    """Functions of one process with a clock around each."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.spent: dict[str, float] = defaultdict(float)
        self._finishing = False

    def around(self, function: Callable[..., Any], title: str) -> Callable[..., Any]:
        """The function, its time added to that of `title`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if title in IN_FINISH and not self._finishing:
                return function(*args, **kwargs)
            self._finishing = self._finishing or title == FINISH
            begun = self.clock()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[title] += self.clock() - begun
                self._finishing = self._finishing and title != FINISH

        return call


if __name__ == "__main__":
    from benchmarks import hand_over  # noqa: PLW0406 - by its name: workers find `timed` by it

    hand_over.main()
