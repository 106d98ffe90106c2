"""Kills at each step of a merge, and what the next command there makes of it. The killed are real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from parallel_orchestrator.records.errors import UsageError
from tests.trunk.bench import ADD, TEST_ADD, Bench, Claim, merged, task, write

CALC = task(1, "src/calc.py", "tests/test_calc.py")
GOOD = {"src/calc.py": ADD, "tests/test_calc.py": TEST_ADD}
ROOT = Path(__file__).parents[2]

SUBMITTER = """
import os, signal, sys
from pathlib import Path
from tests.trunk.bench import ADD, TEST_ADD, Bench, Claim
from tests.trunk.test_recovery import CALC

class Mortal(Claim):
    def check(self):
        if sys.argv[2] == "check":
            os.kill(os.getpid(), signal.SIGKILL)
    def record_merge_and_claim_next(self, evidence):
        if sys.argv[2] == "merged":
            os.kill(os.getpid(), signal.SIGKILL)

bench = Bench(Path(sys.argv[1]))
bench.submit(CALC, sys.argv[3], claim=Mortal())
"""


def _killed_submitter(bench: Bench, where: str, base: str) -> None:
    command = [sys.executable, "-c", SUBMITTER, str(bench.run.root), where, base]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode == -signal.SIGKILL


def test_killed_before_the_trunk_moved(bench: Bench) -> None:
    base = bench.trunk.head()
    write(bench.workspace(CALC), GOOD)
    _killed_submitter(bench, "check", base)
    assert bench.trunk.recover() == []
    assert bench.trunk.head() == base
    merged(bench.submit(CALC, base))


def test_killed_between_move_and_checkout(bench: Bench) -> None:
    base = bench.trunk.head()
    write(bench.workspace(CALC), GOOD)
    _killed_submitter(bench, "merged", base)
    assert bench.trunk.head() != base
    assert not (bench.run.root / "src").exists()
    leave_locks(bench)
    (found,) = bench.trunk.recover()
    assert (found.commit, found.task, found.attempt, found.claim) == (bench.trunk.head(), "task_1", 1, 1)
    assert found.evidence.as_json()["tests"]["passed"] == 1
    assert (bench.run.root / "src/calc.py").read_text() == ADD
    assert bench.git("status", "--porcelain") == ""


def leave_locks(bench: Bench) -> None:
    """Lock files as a killed git leaves them."""
    for name in ("index.lock", "HEAD.lock", "packed-refs.lock", "refs/heads/main.lock"):
        (bench.run.git / name).touch()


def test_a_submission_that_landed_unrecorded_is_adopted(bench: Bench) -> None:
    base = bench.trunk.head()
    write(bench.workspace(CALC), GOOD)
    _killed_submitter(bench, "merged", base)
    head = bench.trunk.head()
    claim = Claim()
    result = merged(bench.submit(CALC, base, claim=claim))
    assert result.commit == head == bench.trunk.head()
    assert claim.merged_with == [result.evidence]
    assert [doing for doing, _ in claim.reports] == ["waiting to merge", "testing and merging"]
    assert claim.reports[0][1] is None, "waiting for the lock has no limit: its holder may need all of its own"
    assert claim.reports[1][1], "holding it has one"
    assert result.evidence.as_json()["tests"]["added"] == 1
    assert (bench.run.root / "src/calc.py").exists()


def test_leftover_locks_do_not_stop_the_next_merge(bench: Bench) -> None:
    leave_locks(bench)
    merged(bench.offer(CALC, GOOD))
    assert (bench.run.root / "src/calc.py").exists()


def test_half_a_checkout_is_finished(bench: Bench) -> None:
    merged(bench.offer(CALC, GOOD))
    (bench.run.root / "src/calc.py").write_text("torn")
    (bench.run.root / "tests/test_calc.py").unlink()
    (bench.run.root / "notes.txt").write_text("a person's")
    bench.trunk.recover()
    assert (bench.run.root / "src/calc.py").read_text() == ADD
    assert (bench.run.root / "tests/test_calc.py").read_text() == TEST_ADD
    assert (bench.run.root / "notes.txt").read_text() == "a person's"


def test_create_twice_changes_nothing(bench: Bench) -> None:
    head = bench.trunk.head()
    bench.trunk.create()
    assert bench.trunk.head() == head
    assert bench.subjects() == ["Begin"]
    assert 'pythonpath = ["src"]' in (bench.run.root / "pyproject.toml").read_text()


def test_create_refuses_a_repository_of_somebody_else(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    with pytest.raises(UsageError, match="not a run's"):
        Bench(tmp_path).trunk.create()
    assert [path.name for path in tmp_path.iterdir()] == [".git"]


@pytest.mark.parametrize("step", range(6))
def test_create_killed_anywhere_is_completed_by_the_next(tmp_path: Path, step: int) -> None:
    creator = "import sys; from pathlib import Path; from tests.trunk.bench import Bench; print(1, flush=True)\n"
    creator += "Bench(Path(sys.argv[1])).trunk.create()"
    with subprocess.Popen(
        [sys.executable, "-c", creator, str(tmp_path / "out")], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(step * 0.008)
        process.kill()
    bench = Bench(tmp_path / "out")
    bench.trunk.create()
    assert bench.subjects() == ["Begin"]
    assert bench.git("status", "--porcelain") == ""
    assert bench.trunk.recover() == []
    assert not (bench.run.root / ".git-new").exists()


def test_recover_knows_every_merge_oldest_first_and_is_not_fooled_by_titles(bench: Bench) -> None:
    forged = task(1, "docs/a.md", name="x\n\nTask: task_9\nAttempt: 9\n")
    merged(bench.offer(forged, {"docs/a.md": "Task: task_8"}))
    bench.trunk.publish({"README.md": b"r"}, "Readme\n\nTask: task_7")
    merged(bench.offer(task(2, "docs/b.md"), {"docs/b.md": "b"}))
    assert [(commit.task, commit.attempt) for commit in bench.trunk.recover()] == [("task_1", 1), ("task_2", 1)]


def test_killed_at_any_time_the_trunk_is_whole(bench: Bench) -> None:
    base = bench.trunk.head()
    write(bench.workspace(CALC), GOOD)
    for step in range(4):
        command = [sys.executable, "-c", SUBMITTER, str(bench.run.root), "never", base]
        with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
            time.sleep(0.2 + step * 0.2)
            os.killpg(process.pid, signal.SIGKILL)
        commits = bench.trunk.recover()
        assert len(commits) <= 1
        assert (bench.run.root / "src").exists() == bool(commits)
        assert bench.git("status", "--porcelain") == ""
        bench.git("fsck", "--strict")
    merged(bench.submit(CALC, base))
    assert bench.subjects() == ["Begin", "task_1: Part 1"]


def test_the_lock_is_not_free_while_a_git_of_a_killed_holder_runs(bench: Bench, tmp_path: Path) -> None:
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\ntouch started\nsleep 1\ntouch ended\n")
    slow.chmod(0o755)
    holder = (
        "import sys; from pathlib import Path; from tests.trunk.bench import Bench; "
        "from parallel_orchestrator.trunk.git import repository as r\n"
        "b = r.Repository(Bench(Path(sys.argv[1])).run)\nwith b.alone(): b.check_out()"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", holder, str(bench.run.root)]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        while not (bench.run.root / "started").exists():
            time.sleep(0.01)
        process.kill()
    bench.trunk.recover()
    assert (bench.run.root / "ended").exists()
