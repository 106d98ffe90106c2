"""Random attacks, run after run: nothing beside the output directory changes, nothing is left, nothing crashes.

ATTACK_SEED=N makes N the first seed; a failure names its own, and with it what the program printed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.attacks.generator import Attack
from tests.attacks.stage import REQUIREMENT, Stage
from tests.end_to_end import harness, scripted
from tests.fake_api import FakeApi

FIRST = int(os.environ.get("ATTACK_SEED", "1"))


@pytest.mark.parametrize("seed", [FIRST, pytest.param(FIRST + 1, marks=pytest.mark.thorough)])
def test_random_attacks_many_at_once(tmp_path: Path, seed: int) -> None:
    assert_nothing_comes_of(Stage(tmp_path), seed, tasks=3, calls=9)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(FIRST, FIRST + 200))
def test_random_attacks_run_after_run(tmp_path: Path, seed: int) -> None:
    assert_nothing_comes_of(Stage(tmp_path), seed, tasks=2, calls=12)


def assert_nothing_comes_of(stage: Stage, seed: int, *, tasks: int, calls: int) -> None:
    """Run the attacks of a seed. Each fourth run is without a sandbox."""
    sandboxed = seed % 4 != 3
    attack = Attack(seed, parent=stage.parent, out=stage.out, sandboxed=sandboxed, tasks=tasks, calls=calls)
    options = ("--sandbox", "required" if sandboxed else "off", "--max-executors", "2")
    with FakeApi(scripted.model(attack.plan(), attack.build), task_of=scripted.task_of) as api:
        arguments = (REQUIREMENT, "--output-dir", str(stage.out), *options)
        with harness.started(*arguments, url=api.url) as process:
            output, _ = process.communicate(timeout=230)
    print(f"ATTACK_SEED={seed} begins with these attacks\n{output}")
    assert process.returncode in (0, 1)
    assert "Traceback" not in output
    assert "unexpected error" not in (stage.out / "orchestrator.log").read_text()
    stage.assert_nothing_happened()
    assert harness.recount(stage.out) == []
