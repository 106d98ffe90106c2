"""Ctrl-C once and twice, SIGTERM, a terminal that goes away, output that nobody reads: the run stops in good order.

Each stop leaves a whole state and no process, says how to go on where somebody can read it, and buys nothing twice.
"""

from __future__ import annotations

import contextlib
import os
import pty
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from parallel_orchestrator.maintenance.check import check
from tests.end_to_end import harness, scripted
from tests.fake_api import FakeApi
from tests.journals import read_all

REQUIREMENT = "Build a project of many parts"
TASKS = 4
LATENCY_S = 1.0
CTRL_C = b"\x03"


@dataclass
class Terminal:
    """A terminal of its own, with the program in its foreground."""

    process: subprocess.Popen[bytes]
    keyboard: int
    shown: bytes = b""

    def read_to_end(self) -> str:
        """All that it showed, once the program has ended."""
        with contextlib.suppress(OSError):  # the program was its last user
            while data := os.read(self.keyboard, 65536):
                self.shown += data
        self.process.wait(60)
        return self.shown.decode(errors="replace")

    def hang_up(self) -> None:
        """Close it: the kernel sends SIGHUP, and nothing can be written any more."""
        os.close(self.keyboard)
        self.keyboard = -1


@contextlib.contextmanager
def terminal(*arguments: str, url: str) -> Iterator[Terminal]:
    """The program in a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        # A shell starts what it puts into the background with SIGINT ignored, these tests perhaps; nohup, with SIGHUP.
        ["env", "--default-signal=INT,HUP", "setsid", "--ctty", "--wait", *harness.command(*arguments)],
        env=harness.environment(url, TERM="dumb"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = Terminal(process, ours)
    try:
        yield shown
    finally:
        if shown.keyboard >= 0:
            shown.hang_up()
        process.kill()
        process.wait()


def _api() -> FakeApi:
    script = scripted.model(scripted.plan([scripted.task(number, []) for number in range(1, TASKS + 1)]))
    return FakeApi(script, latency_s=LATENCY_S, task_of=scripted.task_of)


def _in_flight(api: FakeApi, asked: int) -> None:
    """Wait until there are calls under way, some time after `asked` requests."""
    harness.wait_until(lambda: len(api.requests) >= asked + 2 and api.in_work)


def _assert_in_order(directory: Path, api: FakeApi) -> None:
    """Nothing is left, all that was answered is in the ledger, and every file is whole."""
    harness.wait_until(lambda: not harness.family(directory), timeout_s=60)
    answers = sum(record["kind"] == "answer" for record in read_all(directory / "ledger.jsonl"))
    assert answers == sum(request.whole for request in api.requests)
    assert check(directory).findings == []
    assert "Traceback" not in (directory / "orchestrator.log").read_text()


@pytest.mark.long
def test_a_run_that_is_told_to_stop_in_every_way_loses_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    goes_on = f"to go on: {harness.typed('resume', directory)}"
    with _api() as api:
        # Ctrl-C once: nothing new begins, what is under way lands.
        with terminal(REQUIREMENT, "--output-dir", str(directory), url=api.url) as shown:
            _in_flight(api, 2)
            os.write(shown.keyboard, CTRL_C)
            asked = len(api.requests)
            output = " ".join(shown.read_to_end().split())
        assert (shown.process.returncode, "Traceback" in output) == (130, False), output
        assert goes_on in output
        # An executor that was about to ask may still do so, and no executor begins another turn after that.
        asked_then = Counter(request.task for request in api.requests[asked:])
        assert max(asked_then.values(), default=0) <= 1, asked_then
        assert api.in_work == 0
        asked = len(api.requests)
        _assert_in_order(directory, api)
        # Twice: it does not wait for what is under way, which lands behind its back.
        api.latency_s = 20.0
        with terminal("resume", str(directory), url=api.url) as shown:
            _in_flight(api, asked)
            os.write(shown.keyboard, CTRL_C)
            time.sleep(0.3)
            os.write(shown.keyboard, CTRL_C)
            output = " ".join(shown.read_to_end().split())
            assert api.in_work > 0, "it waited for the calls in flight"
        assert (shown.process.returncode, "Traceback" in output) == (130, False), output
        assert goes_on in output
        api.latency_s = LATENCY_S
        _assert_in_order(directory, api)
        # The terminal goes away.
        asked = len(api.requests)
        with terminal("resume", str(directory), url=api.url) as shown:
            _in_flight(api, asked)
            shown.hang_up()
            shown.process.wait(60)
        _assert_in_order(directory, api)
        # SIGTERM.
        asked = len(api.requests)
        with harness.started("resume", str(directory), url=api.url) as process:
            _in_flight(api, asked)
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
        assert (process.returncode, goes_on in output, "Traceback" in output) == (130, True, False), output
        _assert_in_order(directory, api)
        _resume_unread(directory, api)
        assert api.answered_twice() == []
    summary = harness.summary(directory)
    assert (summary["status"], summary["completed"], summary["bought_again"]) == ("done", TASKS, 0)
    assert sum(task["deaths"] for task in summary["tasks"]) == 0
    assert check(directory).findings == []


def _resume_unread(directory: Path, api: FakeApi) -> None:
    """Finish it while nobody reads standard output, as `| head` leaves it."""
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen(
        harness.command("resume", str(directory)),
        env=harness.environment(api.url),
        stdin=subprocess.DEVNULL,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    _, told = process.communicate(timeout=200)
    assert "Traceback" not in told, told
    assert "Exception ignored" not in told, told
    assert "error: " not in told, told


def test_under_nohup_a_run_outlives_its_terminal(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with _api() as api:
        with harness.started(REQUIREMENT, "--output-dir", str(directory), url=api.url, prefix=("nohup",)) as process:
            _in_flight(api, 2)
            os.killpg(process.pid, signal.SIGHUP)
            output, _ = process.communicate(timeout=100)
        assert process.returncode == 0, output
        _assert_in_order(directory, api)
        assert api.answered_twice() == []
    assert "starting it again" not in (directory / "orchestrator.log").read_text()


@pytest.mark.thorough
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(8))
def test_an_interrupt_at_any_moment_is_one_message_and_a_run_to_go_on_with(seed: int, tmp_path: Path) -> None:
    dice, directory = random.Random(seed), tmp_path / "out"
    with _api() as api:
        api.latency_s = 0.1
        for _ in range(3):
            begun = (directory / "scenario.json").exists()
            command = ("resume", str(directory)) if begun else (REQUIREMENT, "--output-dir", str(directory))
            with harness.started(*command, url=api.url) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(dice.uniform(0.5, 8))
                process.send_signal(dice.choice((signal.SIGINT, signal.SIGTERM)))
                output, _ = process.communicate(timeout=100)
            assert process.returncode in (0, 130), output
            assert "Traceback" not in output, output
            assert "Exception ignored" not in output, output
        if not (directory / "scenario.json").exists():
            harness.run(REQUIREMENT, "--output-dir", str(directory), api=api)
        else:
            assert check(directory).findings == []
            harness.run("resume", str(directory), api=api)
        assert api.answered_twice() == []
    assert harness.summary(directory)["completed"] == TASKS
    assert check(directory).findings == []
