"""Many killed runs, several at a time, and the account of them."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.end_to_end import harness
from tests.end_to_end.scripted import task_of
from tests.fake_api import FakeApi, Script
from tests.reliability import killing, syscalls
from tests.reliability.killing import EVERYTHING, LATENCY_S, Kill, Outcome, run_killed
from tests.reliability.project import REQUIREMENT, answer
from tests.reliability.states import STATES
from tests.reliability.syscalls import Point
from tests.reliability.watching import KINDS, Watch

AT_ONCE = int(os.environ.get("RELIABILITY_JOBS", "2"))


@dataclass(frozen=True)
class Golden:
    """An undisturbed run: what comes of it, how long it takes, how many changes it makes."""

    tree: dict[str, bytes]
    seconds: float
    startup: float
    """Seconds to its first file."""
    changes: dict[str, int]
    points: tuple[Point, ...] = ()
    """Of the traced role, where one was traced."""


@dataclass
class Account:
    """What came of a campaign."""

    title: str
    runs: int = 0
    kills: int = 0
    seconds: float = 0.0
    again: int = 0
    in_flight: int = 0
    states: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """One text for each run that is not as it must be."""

    def add(self, plan: Sequence[Kill], outcome: Outcome) -> None:
        """Count one run."""
        self.runs += 1
        self.kills += len(outcome.kills)
        self.again += outcome.again
        self.in_flight += outcome.in_flight
        self.states.update(outcome.states)
        if outcome.faults:
            self.faults.append(f"{'; '.join(outcome.kills or map(str, plan))}\n    " + "\n    ".join(outcome.faults))

    def take(self, more: Account) -> None:
        """Count the runs of another campaign as well."""
        for name in ("runs", "kills", "seconds", "again", "in_flight", "faults"):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.states.update(more.states)

    def __str__(self) -> str:
        where = ", ".join(f"{state} {self.states[state]}" for state in STATES if self.states[state])
        return (
            f"{self.title}: {self.runs} runs, {self.kills} kills, {len(self.faults)} runs at fault, "
            f"{self.again} answers bought again of {self.in_flight} in flight, {self.seconds:.0f} s\n    at: {where}"
        )


def undisturbed(
    role: str = "",
    environment: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
    model: Script = answer,
) -> Golden:
    """Run it once in peace, with `role` traced and these variables in its environment."""
    killing.adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="golden-") as name:
        folder = Path(name)
        directory, watch = folder / "run", Watch(folder / "run")
        variables = {**(environment or {}), **(syscalls.variables(role, folder, None) if role else {})}
        with FakeApi(model, task_of=task_of, latency_s=LATENCY_S) as api:
            started = time.monotonic()
            arguments = (REQUIREMENT, "--output-dir", str(directory), "--max-executors", "2", *options)
            with harness.started(*arguments, url=api.url, variables=variables) as process:
                while not (directory / "scenario.json").exists() and process.poll() is None:
                    watch.wait_for("never", 1, time.monotonic() + 0.01)
                startup = time.monotonic() - started
                while process.poll() is None:
                    watch.wait_for("never", 1, time.monotonic() + 0.2)
                output, _ = process.communicate()
            assert process.returncode == 0, output
            assert api.answered_twice() == []
        seconds = time.monotonic() - started
        watch.close()
        found = syscalls.points(role, folder / "trace", directory) if role else []
        return Golden(
            killing.tree(directory), seconds, startup, {kind: watch.seen[kind] for kind in KINDS}, tuple(found)
        )


def campaign(
    title: str,
    plans: Iterable[Sequence[Kill]],
    golden: Golden,
    *,
    variables: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
    model: Script = answer,
    at_once: int = AT_ONCE,
) -> Account:
    """Run each plan of kills on a run of its own, `at_once` at a time."""
    account, started = Account(title), time.monotonic()
    # Processes, not threads: each is the subreaper of its own runs.
    with ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), killing.adopt_orphans) as pool:
        work = [(plan, pool.submit(_one, list(plan), golden.tree, options, variables or {}, model)) for plan in plans]
        for plan, future in work:
            account.add(plan, future.result())
            if os.environ.get("RELIABILITY_SHOW"):
                print(f"{account.runs}/{len(work)}", *account.faults[-1:], flush=True)
    account.seconds = time.monotonic() - started
    return account


def _one(
    plan: list[Kill],
    golden: dict[str, bytes],
    options: tuple[str, ...],
    variables: dict[str, str],
    model: Script,
) -> Outcome:
    folder = Path(tempfile.mkdtemp(prefix="killed-"))
    outcome = run_killed(folder, plan, golden, options=options, variables=variables, model=model)
    if outcome.faults and os.environ.get("RELIABILITY_KEEP"):
        outcome.faults.append(f"kept in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def random_kills(seed: int, kills: int, golden: Golden, whom: str, shortest: int, longest: int) -> list[list[Kill]]:
    """So many kills in chains of `shortest` to `longest`: half at any time, half just after a change to the disk."""
    dice, plans = random.Random(f"{seed} {whom}"), []
    while kills > 0:
        length = min(dice.randint(shortest, longest), kills)
        plans.append([_random_kill(dice, golden, whom, place) for place in range(length)])
        kills -= length
    return plans


def _random_kill(dice: random.Random, golden: Golden, whom: str, place: int) -> Kill:
    """One kill of a chain; the later its `place`, the less there is left to do."""
    left = 1 / (place + 1)
    if dice.random() < 0.5:
        after_s = dice.uniform(0, golden.seconds * left)
        return Kill(whom, after_s, golden.startup, number=dice.randrange(100))
    kind = dice.choice(KINDS)
    return Kill(whom, change=kind, number=dice.randint(1, max(1, int(0.9 * golden.changes[kind] * left))))


def sweep(points: Iterable[Point], whom: str | None = None) -> list[list[Kill]]:
    """One run for each point; the process dies there, or `whom` says that all of the run does."""
    return [[Kill(whom or point.role, point=point)] for point in points]


def random_campaign(
    seed: int, kills: int, golden: Golden, whom: str = EVERYTHING, shortest: int = 1, longest: int = 5
) -> Account:
    """Until so many random kills have hit: some come when the run is over, and do not count."""
    account = Account(f"{whom} killed at random, seed {seed}")
    while (missing := kills - account.kills) > 0:
        plans = random_kills(seed, missing, golden, whom, shortest, longest)
        more = campaign(account.title, plans, golden)
        account.take(more)
        seed += 1
    return account
