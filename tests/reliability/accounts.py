"""Many runs, several at a time, and the account of them; in pieces, where one sitting is not enough.

With RELIABILITY_ACCOUNT=FILE each run's outcome is added to FILE, a JSON line each, and a run whose outcome is there
is not run again: what a first start did not get to, the next one does. With RELIABILITY_SECONDS=420 a campaign begins
no run after that time. The file holds the points of each sweep, too, because no two runs are alike to the last call.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.end_to_end import harness
from tests.reliability import killing
from tests.reliability.killing import Outcome
from tests.reliability.states import STATES
from tests.reliability.syscalls import Point

AT_ONCE = int(os.environ.get("RELIABILITY_JOBS", "2"))
SECONDS = float(os.environ.get("RELIABILITY_SECONDS", "inf"))
FILE = Path(os.environ["RELIABILITY_ACCOUNT"]) if "RELIABILITY_ACCOUNT" in os.environ else None


@dataclass(frozen=True)
class Job:
    """One run of a campaign: its name there, and what plays it in another process."""

    name: str
    play: Callable[..., Outcome]
    arguments: tuple[Any, ...]


@dataclass
class Account:
    """What came of a campaign."""

    title: str
    runs: int = 0
    kills: int = 0
    seconds: float = 0.0
    again: int = 0
    in_flight: int = 0
    left: int = 0
    """Runs that there was no time for."""
    states: Counter[str] = field(default_factory=Counter)
    programs: Counter[str] = field(default_factory=Counter)
    """Runs by the commit of the program."""
    faults: list[str] = field(default_factory=list)
    """One text for each run that is not as it must be."""

    def add(self, name: str, outcome: Outcome, program: str) -> None:
        """Count one run."""
        self.runs += 1
        self.kills += len(outcome.kills)
        self.again += outcome.again
        self.in_flight += outcome.in_flight
        self.states.update(outcome.states)
        self.programs[program] += 1
        if outcome.faults:
            self.faults.append(f"{'; '.join(outcome.kills or [name])}\n    " + "\n    ".join(outcome.faults))

    def take(self, more: Account) -> None:
        """Count the runs of another campaign as well."""
        for name in ("runs", "kills", "seconds", "again", "in_flight", "left", "faults"):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.states.update(more.states)
        self.programs.update(more.programs)

    def __str__(self) -> str:
        where = ", ".join(f"{state} {self.states[state]}" for state in STATES if self.states[state])
        programs = ", ".join(f"{runs} of {program}" for program, runs in self.programs.items())
        return (
            f"{self.title}: {self.runs} runs ({programs}), {self.left} left, {self.kills} kills, "
            f"{len(self.faults)} runs at fault, {self.again} answers bought again of {self.in_flight} in flight, "
            f"{self.seconds:.0f} s\n    at: {where}"
        )


def play(title: str, jobs: Iterable[Job]) -> Account:
    """Play those that were not played before, `AT_ONCE` at a time, each in a process that adopts its orphans."""
    account, started, program = Account(title), time.monotonic(), _program()
    waiting, done = list(jobs), _done(title)
    for job in waiting:
        if job.name in done:
            account.add(job.name, *done[job.name])
    waiting = [job for job in waiting if job.name not in done]
    random.Random(title).shuffle(waiting)  # so that a piece is spread over all of it
    under_way: dict[Future[Outcome], Job] = {}
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn"), killing.adopt_orphans) as pool:
        while under_way or (waiting and time.monotonic() < started + SECONDS):
            while waiting and len(under_way) < AT_ONCE and time.monotonic() < started + SECONDS:
                job = waiting.pop(0)
                under_way[pool.submit(job.play, *job.arguments)] = job
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                job = under_way.pop(future)
                account.add(job.name, future.result(), program)
                _keep({"campaign": title, "run": job.name, "program": program, "outcome": asdict(future.result())})
    account.left = len(waiting)
    account.seconds = time.monotonic() - started
    return account


def same_points(role: str, found: list[Point]) -> list[Point]:
    """The points of a role's sweep: those of the first undisturbed run that the file knows of; without a file these."""
    if not any(line.get("points") == role for line in _lines()):
        _keep({"points": role, "found": [[point.kind, point.number, point.where, point.opening] for point in found]})
    known = (line["found"] for line in _lines() if line.get("points") == role)
    return [Point(role, *fields) for fields in next(known, [])] or found


@contextmanager
def folder_of_a_run() -> Iterator[tuple[Path, Outcome]]:
    """A folder and what comes of the run in it. A run at fault is kept with RELIABILITY_KEEP."""
    folder, outcome = Path(tempfile.mkdtemp(prefix="killed-")), Outcome([])
    try:
        yield folder, outcome
    finally:
        if outcome.faults and os.environ.get("RELIABILITY_KEEP"):
            outcome.faults.append(f"kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _done(title: str) -> dict[str, tuple[Outcome, str]]:
    return {
        line["run"]: (Outcome(**line["outcome"]), line["program"]) for line in _lines() if line.get("campaign") == title
    }


def _lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE and FILE.exists() else []


def _keep(fields: dict[str, Any]) -> None:
    if FILE:
        with FILE.open("ab", buffering=0) as file:  # in one piece: several campaigns may be under way
            file.write(json.dumps(fields).encode() + b"\n")


def _program() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    done = subprocess.run(command, cwd=harness.ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no repository"
