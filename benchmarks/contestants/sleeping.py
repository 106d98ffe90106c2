"""What all schedulers are asked: the plans, and how long each took.

A contestant has a context manager that opens it for so many executors, so that starting up counts apart; it gives a
function that has the tasks of a plan done. A task is (id, dependencies, seconds, rank): the rank is the longest path
from its start to the end of the plan, for those that know priorities.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.contestants import Job, answer

Tasks = list[tuple[str, list[str], float, float]]
Run = Callable[[Tasks, Path], None]
"""Has a plan done; the folder is empty, for those that keep files."""
Open = Callable[[int], AbstractContextManager[Run]]
"""Starts so many executors."""


def nap(seconds: float, *_before: Any) -> float:
    """A task. What it depends on comes as further arguments."""
    time.sleep(seconds)
    return seconds


def waiting(tasks: Tasks) -> tuple[dict[str, int], dict[str, list[str]]]:
    """For those that submit a task when it is ready: how many each waits for, and who waits for each."""
    left = {task: len(before) for task, before, *_ in tasks}
    after: dict[str, list[str]] = {task: [] for task in left}
    for task, before, *_ in tasks:
        for dependency in before:
            after[dependency].append(task)
    return left, after


def levels(tasks: Tasks) -> list[Tasks]:
    """The plan in layers, for those that know no dependencies: each layer waits for all of the one before."""
    level: dict[str, int] = {}
    layers: list[Tasks] = []
    for task in tasks:
        number = level[task[0]] = 1 + max((level[before] for before in task[1]), default=-1)
        if number == len(layers):
            layers.append([])
        layers[number].append(task)
    return layers


def schedule(opened: Open) -> None:
    """The main function of a scheduler: seconds to start and seconds for each plan."""

    def work(job: Job) -> Any:
        found = {}
        for executors in sorted({shape["executors"] for shape in job["shapes"]}):
            plans = [shape for shape in job["shapes"] if shape["executors"] == executors]
            begun = time.monotonic()
            with opened(executors) as run:
                start = time.monotonic() - begun
                for shape in plans:
                    folder = Path(job["folder"]) / shape["name"]
                    folder.mkdir(parents=True)
                    ready = time.monotonic()
                    run(shape["tasks"], folder)
                    found[shape["name"]] = {"start": start, "makespan": time.monotonic() - ready}
        return found

    answer(work)
