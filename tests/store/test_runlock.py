"""One orchestrator per directory: who comes second is told who is there, and waits only for a dead one's family."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parallel_orchestrator.records.errors import CannotGoOn, DirectoryHeld
from parallel_orchestrator.store.run_lock import RunLock
from parallel_orchestrator.system.process import process_birth

OWNER = """
import subprocess, sys, time
from pathlib import Path
from parallel_orchestrator.store.run_lock import RunLock
lock = RunLock.acquire(Path(sys.argv[1]), say=print)
child = None
if len(sys.argv) > 2:
    child = subprocess.Popen(["sleep", sys.argv[2]], pass_fds=[lock.descriptor], stdout=subprocess.DEVNULL)
print(child.pid if child else 0, flush=True)
time.sleep(60)
"""


@contextmanager
def _owner(path: Path, child_s: float | None = None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that owns the lock, and the pid of its child that keeps the descriptor, 0 without one."""
    arguments = [str(path), *([str(child_s)] if child_s else [])]
    command = [sys.executable, "-c", OWNER, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            process.kill()
            if child and process_birth(child):
                os.kill(child, signal.SIGKILL)


def _silent(text: str) -> None:
    raise AssertionError(f"it said: {text}")


def test_the_second_is_refused_at_once_and_told_who_is_there(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with _owner(path) as (process, _):
        with pytest.raises(DirectoryHeld) as caught:
            RunLock.acquire(path, say=_silent)
        found = re.search(r"\(process (\d+) on (\S+), started (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\)", str(caught.value))
        assert found
        assert (int(found[1]), found[2]) == (process.pid, socket.gethostname())
        assert str(tmp_path) in str(caught.value)
        assert "--output-dir" in str(caught.value)
        assert caught.value.exit_code == 5
        written = json.loads(path.read_text())
        assert written["birth"] == process_birth(process.pid)


def test_a_dead_owners_lock_is_free_without_a_wait(tmp_path: Path) -> None:
    with _owner(tmp_path / "run.lock") as (process, _):
        process.kill()
        process.wait()
        lock = RunLock.acquire(tmp_path / "run.lock", say=_silent)
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == os.getpid()
        lock.release()


def test_a_child_that_holds_the_descriptor_keeps_the_lock_and_who_comes_next_waits_for_it(tmp_path: Path) -> None:
    path, said = tmp_path / "run.lock", list[str]()
    with _owner(path, child_s=60) as (process, child):
        process.kill()
        process.wait()
        with pytest.raises(DirectoryHeld, match=f"process {process.pid} "):
            RunLock.acquire(path, say=said.append, patience_s=0.3)
        assert process_birth(child)
        told = f"orchestrator {process.pid} is gone; waiting for its calls in flight to land in the ledger"
        assert said == [told]
        gone_at: list[float] = []

        def end_child() -> None:
            gone_at.append(time.monotonic())
            os.kill(child, signal.SIGKILL)

        timer = threading.Timer(0.3, end_child)
        timer.start()
        lock = RunLock.acquire(path, say=said.append, patience_s=60)
        assert gone_at
        assert time.monotonic() >= gone_at[0]
        assert said == [told, told]
        timer.join()
        lock.release()


def test_a_released_lock_is_held_until_the_last_of_the_family_ends(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    lock = RunLock.acquire(path, say=_silent)
    with subprocess.Popen(["sleep", "60"], pass_fds=[lock.descriptor]) as child:
        lock.release()
        with pytest.raises(DirectoryHeld):  # we, the owner it names, are alive
            RunLock.acquire(path, say=_silent)
        child.kill()
        child.wait()
    RunLock.acquire(path, say=_silent).release()


def test_a_pid_that_was_given_to_another_process_is_no_owner(tmp_path: Path) -> None:
    path, said = tmp_path / "run.lock", list[str]()
    with _owner(path):
        owner = json.loads(path.read_text())
        path.write_text(json.dumps({**owner, "birth": owner["birth"] - 1}))
        with pytest.raises(DirectoryHeld):
            RunLock.acquire(path, say=said.append, patience_s=0.2)
        assert len(said) == 1
        path.write_text(json.dumps({**owner, "birth": owner["birth"] - 1, "host": "elsewhere"}))
        with pytest.raises(DirectoryHeld, match="on elsewhere"):  # whether it lives cannot be seen from here
            RunLock.acquire(path, say=_silent, patience_s=0.2)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "\0"])
def test_content_that_names_nobody_decides_nothing(content: str, tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with _owner(path):
        path.write_text(content)
        with pytest.raises(DirectoryHeld, match="a process that just started"):
            RunLock.acquire(path, say=_silent)
    path.write_text(content)
    RunLock.acquire(path, say=_silent).release()


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotGoOn, match="cannot write"):
        RunLock.acquire(tmp_path / "none" / "run.lock", say=_silent)


RACE = """
import sys, time
from pathlib import Path
from parallel_orchestrator.records.errors import DirectoryHeld
from parallel_orchestrator.store.run_lock import RunLock
sys.stdin.read(1)
try:
    RunLock.acquire(Path(sys.argv[1]), say=lambda text: None)
except DirectoryHeld as error:
    sys.exit(error.exit_code)
print("owner", flush=True)
time.sleep(60)
"""


def test_of_many_that_come_at_once_one_gets_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path / "run.lock")]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(5)]
    try:
        for process in processes:
            assert process.stdin
            process.stdin.close()
        deadline = time.monotonic() + 60
        while sum(process.poll() is None for process in processes) > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sorted(process.poll() or 0 for process in processes) == [0, 5, 5, 5, 5]
        assert [process.poll() for process in processes].count(None) == 1
    finally:
        for process in processes:
            process.kill()
            process.wait()
