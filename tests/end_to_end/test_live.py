"""The way through, over the live path: real command line, real SDK, real gateway, a fake API server.

It is thorough: `tests/reliability` kills the same program at more places, with a smaller project, in every run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end import harness, scripted
from tests.fake_api import FakeApi, Fault, seeded_faults
from tests.journals import read_all

REQUIREMENT = "Build a project of many parts"


def _api(tasks: int = 24, latency_s: float = 0.5, **options: object) -> FakeApi:
    script = scripted.model(scripted.layered(2, tasks // 2))
    return FakeApi(script, latency_s=latency_s, task_of=scripted.task_of, **options)  # type: ignore[arg-type]


def _assert_done(directory: Path, tasks: int) -> None:
    found = harness.summary(directory)
    assert (found["status"], found["completed"], found["failed"]) == ("done", tasks, 0)
    assert found["tests"]["passed"] == tasks
    assert found["bought_again"] == found["changed_bodies"] == 0
    assert harness.family(directory) == set()


def _built(directory: Path, executors: int) -> float:
    """Build it with so many executors, all of them at work; seconds."""
    most_workers = 0
    with _api() as api:
        started = time.monotonic()
        options = ("--max-executors", str(executors), "--output-dir", str(directory))
        with harness.started(REQUIREMENT, *options, url=api.url) as process:
            while process.poll() is None:
                if (directory / "run.lock").exists():
                    most_workers = max(most_workers, len(harness.workers(directory, process.pid)))
                time.sleep(0.1)
        elapsed = time.monotonic() - started
        assert process.returncode == 0
        assert api.answered_twice() == []
        assert max(request.concurrent for request in api.requests) == executors
    _assert_done(directory, 24)
    assert most_workers == executors
    claimed = {move["executor"] for move in harness.moves(directory) if move["state"] == "claimed"}
    assert claimed == set(range(1, executors + 1))
    return elapsed


@pytest.mark.alone
@pytest.mark.thorough
def test_four_executors_build_24_tasks(tmp_path: Path) -> None:
    _built(tmp_path / "out", 4)
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "24 passed" in tests.stdout


@pytest.mark.alone
@pytest.mark.thorough
def test_four_executors_take_less_than_half_the_time_of_one(tmp_path: Path) -> None:
    assert _built(tmp_path / "4", 4) < _built(tmp_path / "1", 1) / 2


@pytest.mark.thorough
def test_a_faulty_endpoint_fails_no_task_and_is_paid_once(tmp_path: Path) -> None:
    chances = {
        Fault.RATE_LIMIT: 0.10,
        Fault.OVERLOADED: 0.05,
        Fault.RESET: 0.05,
        Fault.EARLY_END: 0.03,
        Fault.SSE_ERROR: 0.03,
    }
    with _api(latency_s=0.05, faults=seeded_faults(7, chances)) as api:
        harness.run(REQUIREMENT, "--max-executors", "4", "--output-dir", str(tmp_path / "out"), api=api)
        assert {request.fault for request in api.requests} >= {"", *(fault.value for fault in chances)}
        assert api.answered_twice() == []
    _assert_done(tmp_path / "out", 24)
    assert harness.summary(tmp_path / "out")["retries"] > 0


@pytest.mark.thorough
def test_a_killed_executor_is_replaced_and_its_answer_not_bought_again(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with _api(tasks=8, latency_s=1.0) as api:
        with harness.started(
            REQUIREMENT, "--max-executors", "2", "--output-dir", str(directory), url=api.url
        ) as process:
            api.wait_for_requests(4)
            harness.wait_until(lambda: api.in_work == 2)
            os.kill(min(harness.workers(directory, process.pid)), signal.SIGKILL)
            output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
        assert "was killed (signal 9)" in (directory / "orchestrator.log").read_text()
        assert api.answered_twice() == []
    _assert_done(directory, 8)
    assert sum(task["deaths"] for task in harness.summary(directory)["tasks"]) == 1


@pytest.mark.thorough
@pytest.mark.parametrize("doing", ["call", "tool"])
def test_a_killed_orchestrator_takes_its_workers_along_and_fails_no_task(doing: str, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with _api(tasks=4, latency_s=0.5) as api:
        with harness.started(REQUIREMENT, "--output-dir", str(directory), url=api.url) as process:
            harness.wait_until(lambda: _is_doing(doing, directory, api))
            os.kill(process.pid, signal.SIGKILL)
            harness.wait_until(lambda: harness.family(directory) == set(), timeout_s=20)
        assert "failed" not in {move["state"] for move in harness.moves(directory)}
        harness.run("resume", str(directory), api=api)
        assert api.answered_twice() == []
    _assert_done(directory, 4)
    assert sum(task["deaths"] for task in harness.summary(directory)["tasks"]) == 0


def _is_doing(what: str, directory: Path, api: FakeApi) -> bool:
    """Whether an executor's call is in flight, or its tools run: the tree is noted and no results are."""
    if what == "call":
        return api.in_work > 0 and len(api.requests) > 2
    last = [read_all(path)[-1:] for path in directory.glob("executor_*/task_*.jsonl")]
    return any(records and records[0]["kind"] == "tree" for records in last)


@pytest.mark.thorough
def test_everything_killed_then_resumed_runs_nothing_twice(tmp_path: Path) -> None:
    directory, golden = tmp_path / "out", tmp_path / "golden"
    with _api(tasks=12, latency_s=0.4) as api:
        harness.run(REQUIREMENT, "--output-dir", str(golden), api=api)
    with _api(tasks=12, latency_s=0.4) as api:
        for command, count in (([REQUIREMENT, "--output-dir"], 2), (["resume"], 6)):
            with harness.started(*command, str(directory), url=api.url):
                harness.wait_until(partial(_has_merged, directory, count, api))
            harness.wait_until(lambda: harness.family(directory) == set())
        done = {move["task"] for move in harness.moves(directory) if move["state"] == "merged"}
        output = harness.run("resume", str(directory), api=api)
        assert f"reusing {len(done)} tasks" in output
        # What was in flight when the gateway died may have been answered to nobody; nothing else is asked twice.
        assert len(api.answered_twice()) <= harness.summary(directory)["open_calls"]
    _assert_done(directory, 12)
    merged = [move["task"] for move in harness.moves(directory) if move["state"] == "merged"]
    assert len(merged) == len(set(merged)) == 12
    assert harness.tree(directory) == harness.tree(golden)


def _has_merged(directory: Path, count: int, api: FakeApi) -> bool:
    """Whether so many tasks are merged while a call is in flight."""
    if not api.in_work or not (directory / "queue.jsonl").exists():
        return False
    return [move["state"] for move in harness.moves(directory)].count("merged") >= count
