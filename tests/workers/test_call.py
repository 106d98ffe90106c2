"""Calls in real child processes: what comes back, and what becomes of them when they die."""

from __future__ import annotations

import logging
import multiprocessing.forkserver
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.records.errors import CannotGoOn, OrchestratorError, PlanRefused
from parallel_orchestrator.system.process import process_birth
from parallel_orchestrator.workers import call
from parallel_orchestrator.workers.call import call_apart
from tests.workers import calls

Call = Callable[..., Any]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def apart(tmp_path: Path, said: list[str]) -> Iterator[Call]:
    lock = os.open(tmp_path / "run.lock", os.O_CREAT | os.O_RDWR)

    def start(function: Call, *arguments: Any, say: Callable[[str], None] = said.append) -> Any:
        return call_apart(function, arguments, say, preload=("tests.workers.calls",), run_lock=lock)

    yield start
    os.close(lock)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pids"
    made.mkdir()
    return made


def _living(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if process_birth(int(path.name)) is not None]


def test_the_result_what_was_said_and_what_was_logged_come_back(
    apart: Call, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        result, pid = apart(calls.double, 21)
    assert (result, said) == (42, ["doubling 21"])
    assert pid != os.getpid()
    assert process_birth(pid) is None
    assert "doubled 21" in caplog.messages


def test_an_error_is_raised_here(apart: Call) -> None:
    with pytest.raises(PlanRefused, match=r"^no usable plan$"):
        apart(calls.refuse, "no usable plan")


def test_a_bug_is_told_in_one_line_and_logged(apart: Call, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(OrchestratorError, match="internal error: ZeroDivisionError: a bug"):
        apart(calls.stumble)
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_a_child_that_dies_is_replaced(
    apart: Call, folder: Path, by: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(call, "STOPPED_GRACE_S", 0.5)
    assert apart(calls.die, folder, 2, by) == 2
    assert _living(folder) == []
    how = "died by signal 15" if by == signal.SIGTERM else "was killed (signal 9)"
    assert sum(how in message for message in caplog.messages) == 2


def test_not_for_ever(apart: Call, folder: Path) -> None:
    with pytest.raises(OrchestratorError, match=r"die \(pid \d+\) was killed .* 3 times in a row; the log has more"):
        apart(calls.die, folder, 100, signal.SIGKILL)
    assert len(list(folder.iterdir())) == call.MAX_DEATHS


def test_nothing_is_left_of_it_after_an_interrupt(apart: Call, folder: Path) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apart(calls.sleep, folder, say=interrupt)
    assert len(list(folder.iterdir())) == 1
    assert _living(folder) == []


def test_threads_may_call_at_once_and_the_environment_stays(apart: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-not-a-real-one")
    apart(calls.double, 0)  # from here on there is a fork server
    before, seen = dict(os.environ), []

    def one(number: int) -> Any:
        seen.append(dict(os.environ))
        return apart(calls.double, number)[0]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(one, range(40))) == [2 * number for number in range(40)]
    assert all(environment == before for environment in seen)


def test_a_child_knows_no_credential_and_leaves_ctrl_c_alone(apart: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]  # CPython's own, for its tests
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-not-a-real-one")
    assert apart(calls.secrets) == [str(signal.SIG_IGN)]


def test_a_fork_server_that_dies_while_it_is_asked_is_followed_by_another(
    apart: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart(calls.double, 1)
    server: Any = multiprocessing.forkserver._forkserver
    real, asked = server.connect_to_new_process, list[int]()

    def connect(descriptors: Any) -> Any:
        server.ensure_running()
        asked.append(server._forkserver_pid)
        if len(asked) in deadly:
            os.kill(server._forkserver_pid, signal.SIGSTOP)  # it takes the call, and dies before it answers
            threading.Timer(0.3, os.kill, (server._forkserver_pid, signal.SIGKILL)).start()
        return real(descriptors)

    monkeypatch.setattr(multiprocessing.forkserver, "connect_to_new_process", connect)
    deadly = {1}
    assert apart(calls.double, 4)[0] == 8
    assert len(set(asked)) == 2
    asked.clear()
    deadly = {1, 2}
    with pytest.raises(CannotGoOn, match=r"the fork server cannot start a process .* resume") as raised:
        apart(calls.double, 4)
    assert raised.value.exit_code == 3
    asked.clear()
    deadly = set()
    assert apart(calls.double, 5)[0] == 10
