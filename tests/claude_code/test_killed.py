"""Claude Code killed with everything, at random and while its Bash runs: the run ends as if it had not been.

Judged as the kills of the other back end are (`tests.reliability.killing.judge`): the same project byte for byte,
nothing bought again but calls in flight when the gateway died, no request changed under its key, no process left.

    RELIABILITY_SEED    of the random kills
"""

from __future__ import annotations

import os
import random

import pytest

from tests.claude_code.models import OPTIONS, SLEEP, killed, killed_slowly
from tests.reliability.campaign import Golden, campaign, random_kills, undisturbed
from tests.reliability.conftest import Sound
from tests.reliability.killing import EVERYTHING, WORKER, Kill

SEED = int(os.environ.get("RELIABILITY_SEED", "1"))


def during_commands(count: int, whom: str) -> list[list[Kill]]:
    """Kills while a Bash child runs, each in a run of its own."""
    dice = random.Random(f"{SEED} {whom}")
    return [[Kill(whom, during=SLEEP, number=dice.randint(0, 60))] for _ in range(count)]


@pytest.fixture(scope="module")
def golden() -> Golden:
    """Of the other back end: with either, the same project comes of the same answers."""
    return undisturbed(model=killed)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_three_times(golden: Golden, sound: Sound) -> None:
    middle = Kill(EVERYTHING, random.Random(SEED).uniform(0.5, 1) * golden.seconds, golden.startup)
    plans = [[middle, *during_commands(1, EVERYTHING)[0]], *during_commands(1, WORKER)]
    account = campaign("Claude Code killed", plans, golden, series="claude ", options=OPTIONS, model=killed_slowly)
    sound(account)
    assert account.kills >= 2


@pytest.mark.thorough
@pytest.mark.timeout(0)
def test_killed_at_30_instants_ten_of_them_while_a_command_runs(golden: Golden, sound: Sound) -> None:
    paced = undisturbed(options=OPTIONS, model=killed_slowly)
    anywhere = random_kills(SEED, 24, paced, EVERYTHING, shortest=1, longest=2)
    plans = [*anywhere, *during_commands(7, EVERYTHING), *during_commands(3, WORKER)]
    account = campaign(
        "Claude Code killed at 30 instants", plans, golden, series="claude ", options=OPTIONS, model=killed_slowly
    )
    sound(account)
    assert account.kills >= 30  # of 34: some come when the run is over
