"""What never ends by itself is ended, nothing of it is left, and the run goes on: commands, the endpoint, an executor.

Limits are far smaller here than a person's: a command has `LIMIT_S` seconds, the endpoint `PATIENCE_S`.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.stage import bash
from tests.end_to_end import harness, scripted
from tests.fake_api import Answer, Block, Body, FakeApi, Fault
from tests.journals import read_all
from tests.reliability import syscalls

REQUIREMENT = "Build a project of many parts"
TASKS = 3
LIMIT_S = 2.0
PATIENCE_S = 2.0
FOREVER = "1000.25"
"""Seconds; also what a command that is left over is known by."""

NEVER_END = {
    "task_1": f"sleep {FOREVER}",
    "task_2": f"trap '' TERM; (setsid sh -c \"trap '' TERM HUP; sleep {FOREVER}; sleep {FOREVER}\" &); "
    f"sleep {FOREVER}; sleep {FOREVER}",
}


def _build(body: Body) -> Answer | list[Block]:
    """A part, after a command that never ends."""
    command, before = NEVER_END.get(scripted.task_of(body)), scripted.answers_before(body)
    if command and before == 0:
        return [bash(command)]
    return scripted.build_part(body, before + (0 if command else 1))


def _api(**options: Any) -> FakeApi:
    planned = scripted.plan([scripted.task(number, []) for number in range(1, TASKS + 1)])
    return FakeApi(scripted.model(planned, _build), task_of=scripted.task_of, **options)


def _set_patience(directory: Path, seconds: float) -> None:
    path = directory / "scenario.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "endpoint_patience": seconds}))


@pytest.mark.long
def test_what_never_ends_is_ended_and_the_run_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with _api() as api:
        harness.run("plan", REQUIREMENT, "--output-dir", str(directory), api=api)
        port = int(api.url.rpartition(":")[2])
    # Some calls get not a byte, the others one now and then, for ever.
    _set_patience(directory, PATIENCE_S)
    with _api(port=port, faults=lambda number: Fault.DRIP if number % 2 else Fault.HANG) as api:
        output = harness.run("resume", str(directory), api=api, code=3)
        assert "error: the endpoint has given no whole answer for 6 s" in output
        assert f"to go on: {harness.typed('resume', directory)}" in output
    assert harness.family(directory) == set()
    _set_patience(directory, 600.0)
    limit = {"PYTHONPATH": str(syscalls.HOOK), "PYTHONBASHTIMEOUT": str(LIMIT_S)}
    with _api(port=port, latency_s=1.0) as api:
        with harness.started("resume", str(directory), url=api.url, variables=limit) as process:
            harness.wait_until(lambda: api.in_work == TASKS)
            stopped = min(harness.workers(directory, process.pid))
            os.kill(stopped, signal.SIGSTOP)  # it waits for the model, which has a limit of its own
            output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
        assert api.answered_twice() == []
    summary = harness.summary(directory)
    assert (summary["status"], summary["completed"]) == ("done", TASKS)
    assert sum(task["deaths"] for task in summary["tasks"]) == 1
    assert "was stopped by a signal" in (directory / "orchestrator.log").read_text()
    _assert_ended(directory)


def _assert_ended(directory: Path) -> None:
    """The commands took their limit and not much more, the model was told, and no process is left."""
    for task in NEVER_END:
        (path,) = directory.glob(f"executor_*/{task}.jsonl")
        first = next(record for record in read_all(path) if record["kind"] == "results")
        assert LIMIT_S <= first["seconds"] < 10 * LIMIT_S
        assert f"[stopped: it ran longer than {LIMIT_S:g} s" in json.dumps(first)
    assert harness.family(directory) == set()
    assert [pid for pid in Path("/proc").glob("[0-9]*") if FOREVER in _command_line(pid)] == []


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
