"""Killed at every call that changes the disk, at random instants, one process or all of them: it ends as if it had not.

Each run is judged by `killing.judge`: the project equals that of an undisturbed run byte for byte; what the endpoint
answered was bought once, but for calls in flight when their gateway died, and the summary counts those exactly; no
request changed under its key; no traceback, no process left; the resume says what it reuses.

    RELIABILITY_SEED    of the random kills; printed with the figures
    RELIABILITY_JOBS    runs at a time, 2 unless said
    RELIABILITY_KEEP    keep the directories of runs at fault

A campaign can be run in pieces: see `accounts`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.end_to_end import harness
from tests.end_to_end.scripted import task_of
from tests.fake_api import FakeApi
from tests.reliability.accounts import Account
from tests.reliability.campaign import campaign, random_campaign, random_kills, sweep, undisturbed
from tests.reliability.conftest import Sound
from tests.reliability.killing import EVERYTHING, GATEWAY, ORCHESTRATOR, WORKER
from tests.reliability.project import REQUIREMENT, answer

SEED = int(os.environ.get("RELIABILITY_SEED", "1"))
ROLES = (ORCHESTRATOR, GATEWAY, WORKER)
IN_PLACE = {"RELIABILITY_IN_PLACE": "1"}

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("role", ROLES)
def test_one_process_killed_at_a_syscall_and_at_random_instants(role: str, sound: Sound) -> None:
    golden = undisturbed(role)
    (at_syscall,) = sweep([golden.points[SEED * 37 % len(golden.points)]])
    (at_random,) = random_kills(SEED, 2, golden, role, shortest=2, longest=2)
    # One chain is one run less to finish, but three deaths of its executors would fail a task.
    plans = [at_syscall, at_random] if role == WORKER else [at_syscall + at_random]
    account = campaign(f"{role} killed at a syscall, and twice at random", plans, golden)
    sound(account)
    assert account.kills > 0
    _assert_nothing_bought_again(account, role)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_everything_killed_at_12_random_instants(sound: Sound) -> None:
    sound(random_campaign(SEED, 12, undisturbed(), EVERYTHING, shortest=6, longest=6))


@pytest.mark.timeout(600)
def test_a_writer_that_rewrites_in_place_does_not_stand_the_same_sweep() -> None:
    golden = undisturbed(ORCHESTRATOR, IN_PLACE)
    writes = [point for point in golden.points if point.kind == "write" and "<scenario.json>" in point.where]
    account = campaign("in place, killed at writes", sweep(writes[:1]), golden, variables=IN_PLACE)
    assert account.kills
    assert account.faults


def test_ten_resumes_of_a_finished_run_change_nothing_but_the_log(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with FakeApi(answer, task_of=task_of) as api:
        harness.run(REQUIREMENT, "--output-dir", str(directory), "--max-executors", "2", api=api)
        before, size, asked = harness.fingerprint(directory), _size(directory), len(api.requests)
        for _ in range(10):
            assert "is finished; nothing to do" in harness.run("resume", str(directory), api=api)
        assert len(api.requests) == asked
    assert harness.fingerprint(directory) == before
    assert _size(directory) < 1.1 * size


def _assert_nothing_bought_again(account: Account, role: str) -> None:
    if role != GATEWAY:
        assert (account.again, account.in_flight) == (0, 0)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


@pytest.mark.thorough
@pytest.mark.timeout(0)
@pytest.mark.parametrize("role", ROLES)
def test_killed_at_every_syscall_that_changes_the_disk(role: str, sound: Sound) -> None:
    golden = undisturbed(role)
    account = campaign(f"{role} killed at each syscall", sweep(golden.points), golden)
    sound(account)
    assert account.kills > 0.7 * len(golden.points)  # two runs are not alike to the last call


@pytest.mark.thorough
@pytest.mark.timeout(0)
def test_everything_killed_at_500_random_instants(sound: Sound) -> None:
    # Mostly long chains: what takes time is to come to an end.
    sound(random_campaign(SEED, 500, undisturbed(), shortest=3))


@pytest.mark.thorough
@pytest.mark.timeout(0)
def test_everything_killed_where_a_worker_syncs(sound: Sound) -> None:
    golden = undisturbed(WORKER)
    syncs = [point for point in golden.points if point.kind in ("fsync", "fdatasync", "rename")]
    plans = sweep(syncs[SEED % 4 :: 4], EVERYTHING)
    sound(campaign("everything killed at a worker's sync or rename", plans, golden))


@pytest.mark.thorough
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("role", "kills", "longest"), [(ORCHESTRATOR, 60, 5), (GATEWAY, 60, 3), (WORKER, 60, 2)])
def test_one_process_killed_at_many_random_instants(role: str, kills: int, longest: int, sound: Sound) -> None:
    # No executor dies more than twice here: a task whose executor died three times is failed, and that is right.
    account = random_campaign(SEED, kills, undisturbed(), role, longest=longest)
    sound(account)
    _assert_nothing_bought_again(account, role)
