"""Whose a run directory is: one of many at once, nobody's dead, nobody's late; and clocks that jump decide nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.maintenance.check import check
from parallel_orchestrator.records.errors import DirectoryHeld, StaleClaim
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.outcome import Outcome
from parallel_orchestrator.records.plan import Plan
from parallel_orchestrator.store.journal import encode
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.queue.queue_state import Claim
from parallel_orchestrator.store.run_lock import RunLock
from tests.end_to_end import harness
from tests.journals import read_all
from tests.reliability.runs import answers, unpack
from tests.trunk.bench import ADD, TEST_ADD, Bench, task, write
from tests.trunk.conftest import bench

__all__ = ["bench"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("rounds", [12, pytest.param(200, marks=[pytest.mark.thorough, pytest.mark.timeout(1800)])])
def test_of_many_orchestrators_at_once_exactly_one_proceeds(rounds: int, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    directory.mkdir()
    command = [sys.executable, "-m", "tests.reliability.contenders", str(directory), str(rounds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seed, *played = done.stdout.splitlines()
    assert len(played) == rounds, (seed, done.stderr)
    for number, line in enumerate(played):
        told = dict(json.loads(line))
        owners = [pid for pid, text in told.items() if text == "owner"]
        assert len(owners) == 1, (seed, number, told)
        for text in told.values():
            if text != "owner" and "just started" not in text:
                named = rf"5 .* \(process {owners[0]} on {re.escape(socket.gethostname())}, started \d{{4}}-"
                # Between taking the lock and writing its name, the last owner's name still stands there.
                assert re.match(named, text) or "process " in text, (seed, number, told)


def test_of_several_commands_on_one_run_one_goes_on_and_the_others_end_with_5(tmp_path: Path) -> None:
    run = unpack(tmp_path, "interrupted")
    (tmp_path / "link").symlink_to(run)
    with harness.started("resume", str(run), "--speed", "0.01") as first:
        # A second session has begun, and works.
        harness.wait_until(lambda: "claimed" in "".join((run / "queue.jsonl").read_text().split('"session"')[2:]))
        for command, way in (("resume", str(run)), ("retry", "link"), ("repair", "./interrupted")):
            output = harness.run(command, way, code=5, cwd=tmp_path)
            assert f"(process {first.pid} on {socket.gethostname()}, started 2" in output
            assert "Traceback" not in output
        report = check(run)  # which may look at a run that goes on
        assert (report.state, report.findings) == ("running", [])


HOLDER = """
import sys, time
from pathlib import Path
from parallel_orchestrator.store.run_lock import RunLock
lock = RunLock.acquire(Path(sys.argv[1]), say=print)
print("held", flush=True)
time.sleep(60)
"""


def _can(*command: str) -> bool:
    return bool(shutil.which(command[0])) and not subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.skipif(not _can("unshare", "-p", "-f", "--mount-proc", "true"), reason="no pid namespaces here")
def test_an_owner_in_another_pid_namespace_is_not_taken_for_dead(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    command = ["unshare", "-p", "-f", "--mount-proc", "--kill-child", sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "held\n"
            said: list[str] = []
            with pytest.raises(DirectoryHeld, match=r"\(process 1 on "):
                RunLock.acquire(path, say=said.append, patience_s=60)
            assert said == []  # it was not waited for, either
        finally:
            process.send_signal(signal.SIGKILL)


def test_a_reused_pid_and_a_dead_owner_hold_nothing(tmp_path: Path) -> None:
    run = unpack(tmp_path, "interrupted")
    names: list[dict[str, Any]] = [
        {"pid": 4194303, "host": socket.gethostname(), "started": "then", "birth": 1},
        {"pid": os.getpid(), "host": socket.gethostname(), "started": "then", "birth": 1, "pids": "", "more": 1},
        {"pid": os.getpid(), "host": "elsewhere", "started": "then", "birth": 1, "pids": "pid:[1]"},
    ]
    for name in names:
        (run / "run.lock").write_text(json.dumps(name))
        RunLock.acquire(run / "run.lock", say=pytest.fail).release()


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize(
    ("fault", "told"), [("retval=0", "whose locks have no effect"), ("error=ENOLCK", "that cannot lock files")]
)
def test_a_file_system_without_locks_is_refused(fault: str, told: str, tmp_path: Path) -> None:
    trace = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=flock", "-e", f"inject=flock:{fault}"]
    command = [*trace, sys.executable, "-c", HOLDER, str(tmp_path / "run.lock")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode
    last = done.stderr.splitlines()[-1]
    assert "UsageError" in last
    assert told in last
    assert str(tmp_path) in last
    assert "--output-dir" in last


# A late submission

CALC = task(1, "src/calc.py", "tests/test_calc.py")


class Held:
    """The hold of a claim in a real queue."""

    def __init__(self, queue: TaskQueue, claim: Claim) -> None:
        self.queue = queue
        self.claim = claim

    def check(self) -> None:
        self.queue.check(self.claim)

    def report(self, doing: str, within_s: float | None = None) -> None:
        """Nobody listens."""

    def record_merge_and_claim_next(self, evidence: MergeEvidence) -> None:
        self.queue.finish(self.claim, Outcome(TaskState.MERGED, evidence=evidence))


@pytest.fixture
def queue(bench: Bench) -> Iterator[TaskQueue]:
    plan = Plan.model_construct(tasks=[CALC])
    queue = TaskQueue(bench.run, plan.graph())
    yield queue
    queue.close()


def test_a_submission_under_an_old_claim_is_refused_and_moves_nothing(bench: Bench, queue: TaskQueue) -> None:
    base = bench.trunk.head()
    write(bench.workspace(CALC), {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD})
    old = queue.claim(1).claim
    assert old
    queue.take_back(1, "it was taken for dead")
    new = queue.claim(2).claim
    assert new
    assert new.number > old.number
    before = read_all(bench.run.queue)
    with pytest.raises(StaleClaim, match=f"claim {old.number} of executor 1 .*claim {new.number} of executor 2"):
        bench.submit(CALC, base, claim=Held(queue, old))
    assert bench.trunk.head() == base
    assert read_all(bench.run.queue) == before
    bench.submit(CALC, base, claim=Held(queue, new))
    assert bench.trunk.head() != base
    with pytest.raises(StaleClaim):  # what has landed cannot land again under the old claim, nor under the used one
        bench.submit(CALC, base, claim=Held(queue, old))
    assert [record["state"] for record in read_all(bench.run.queue)].count("merged") == 1


# Clocks

JUMPING = """
import random, time
_real = time.time
time.time = lambda: _real() + random.choice((86400, -86400))
"""


def _negative(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_negative, value.values()))
    if isinstance(value, list):
        return any(map(_negative, value))
    return isinstance(value, int | float) and value < 0


def test_clocks_that_jump_by_a_day_and_a_boot_in_between_change_nothing(tmp_path: Path) -> None:
    run, finished = unpack(tmp_path, "interrupted"), unpack(tmp_path, "finished")
    # The earlier session ran on a machine that had been up for a year.
    moves = [{**record, "mono": record["mono"] + 3e7} for record in read_all(run / "queue.jsonl")]
    bodies = ({k: v for k, v in move.items() if k != "seq"} for move in moves)
    (run / "queue.jsonl").write_bytes(b"".join(encode(seq, body) for seq, body in enumerate(bodies, 1)))
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(JUMPING)
    variables = {"PYTHONPATH": str(tmp_path / "clock")}
    output = harness.run("resume", str(run), "--speed", "20", variables=variables)
    times = [record["at"] for record in read_all(run / "queue.jsonl")[len(moves) :]]
    assert times
    assert all(abs(at - time.time()) > 80_000 for at in times)  # each record of this session has a clock a day off
    assert not re.search(r"-\d[\d.]* s\b", output)
    summary = harness.summary(run)
    assert not _negative(summary)
    assert summary["makespan_s"] < 3600
    assert (summary["status"], summary["bought_again"], summary["changed_bodies"]) == ("done", 0, 0)
    assert max(answers(run).values()) == 1
    assert harness.tree(run) == harness.tree(finished)
    assert check(run).findings == []
