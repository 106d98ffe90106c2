"""Campaigns of kills: at every point of a sweep, or at random."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.end_to_end import harness
from tests.fake_api import FakeApi, Script
from tests.reliability import killing, syscalls
from tests.reliability.accounts import Account, Job, folder_of_a_run, play, same_points
from tests.reliability.killing import EVERYTHING, LATENCY_S, Kill, Outcome, run_killed
from tests.reliability.project import REQUIREMENT, answer, conversation_of
from tests.reliability.syscalls import Point
from tests.reliability.watching import KINDS, Watch


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
        variables = {**(environment or {}), **(syscalls.variables(role, directory, folder) if role else {})}
        with FakeApi(model, task_of=conversation_of, latency_s=LATENCY_S) as api:
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
        if role and not environment:
            found = same_points(role, found)
        return Golden(
            killing.tree(directory), seconds, startup, {kind: watch.seen[kind] for kind in KINDS}, tuple(found)
        )


def campaign(
    title: str,
    plans: Iterable[Sequence[Kill]],
    golden: Golden,
    *,
    series: str = "",
    variables: dict[str, str] | None = None,
    options: tuple[str, ...] = (),
    model: Script = answer,
) -> Account:
    """Run each plan of kills on a run of its own. `series` tells plans apart that are named alike: random ones."""
    how = (golden.tree, variables, options, model)
    jobs = [
        Job(f"{series}{number}" if series else "; ".join(map(str, plan)), _one, (list(plan), *how))
        for number, plan in enumerate(plans)
    ]
    return play(title, jobs)


def _one(
    plan: list[Kill],
    golden: dict[str, bytes],
    variables: dict[str, str] | None,
    options: tuple[str, ...],
    model: Script,
) -> Outcome:
    with folder_of_a_run() as (folder, outcome):
        run_killed(folder, plan, golden, outcome, variables=variables, options=options, model=model)
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
    while (missing := kills - account.kills) > 0 and not account.left:
        plans = random_kills(seed, missing, golden, whom, shortest, longest)
        account.take(campaign(account.title, plans, golden, series=f"{seed}."))
        seed += 1
    return account
