"""A sandbox that was started before its command is known does what one does that is started for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_orchestrator.agent.tools.toolbox import ToolBox
from parallel_orchestrator.records.command import RESULTS, Command
from parallel_orchestrator.sandbox.prewarm import PrewarmedSandbox
from parallel_orchestrator.sandbox.runner import BubblewrapRunner, detect

PYTEST = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={RESULTS}/report.xml", "tests")
TEST = """\
import sys


def test_surroundings():
    import answer  # the project's root is on the path, as `python -m pytest` puts it there
    assert answer.VALUE == 42
    assert sys.stdin.read is not None


def test_that_fails():
    assert 1 == 2, "as it should"
"""


@pytest.fixture
def runner() -> BubblewrapRunner:
    found = detect("required")
    assert isinstance(found, BubblewrapRunner)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture
def shell(runner: BubblewrapRunner, folder: Path) -> Iterator[PrewarmedSandbox]:
    waiting = runner.prewarm(_bash(folder, ""))
    yield waiting
    waiting.close(wait=True)


def _bash(folder: Path, script: str, timeout_s: float = 60) -> Command:
    return Command(("bash", "-c", script), folder, timeout_s)


def _processes(word: str) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if word in line]


def test_a_waiting_pytest_is_the_one_that_is_started_for_it(runner: BubblewrapRunner, tmp_path: Path) -> None:
    told = {}
    for name in ("waiting", "started"):
        project, results = tmp_path / name / "project", tmp_path / name / "results"
        project.mkdir(parents=True)
        results.mkdir()
        command = Command(PYTEST, project, 60, results)
        prewarmed = runner.prewarm(command) if name == "waiting" else None
        (project / "tests").mkdir()
        (project / "answer.py").write_text("VALUE = 42\n")
        (project / "tests/test_answer.py").write_text(TEST)
        done = (prewarmed or runner)(command)
        told[name] = (done.code, done.output.partition("seconds")[0].splitlines()[:-1])
        assert b'failures="1"' in (results / "report.xml").read_bytes()
    assert told["waiting"] == told["started"]
    assert told["waiting"][0] == 1


@pytest.mark.parametrize(
    "script",
    [
        "echo one; echo two >&2; exit 3",
        "printf '%s|' \"a  b\" 'c\\td' $0; cat",  # nothing is left on its standard input
        "echo $'line\\nline' | wc -l; pwd; ls -A /tmp",
        "exit",
        "kill -9 $$",
        "echo umlaut äöü; echo $SHLVL",
    ],
)
def test_a_waiting_shell_is_the_one_that_is_started_for_it(
    runner: BubblewrapRunner, shell: PrewarmedSandbox, folder: Path, script: str
) -> None:
    waiting, started = shell(_bash(folder, script)), runner(_bash(folder, script))
    assert (waiting.code, waiting.output) == (started.code, started.output)


def test_a_long_command_goes_through_whole(shell: PrewarmedSandbox, folder: Path) -> None:
    script = f"echo {'x' * 90_000} | wc -c"
    assert shell(_bash(folder, script)).output == "90001\n"


def test_time_counts_from_the_command_on(shell: PrewarmedSandbox, folder: Path) -> None:
    time.sleep(0.5)
    done = shell(_bash(folder, "sleep 0.2; echo awake", timeout_s=30))
    assert (done.output, done.timed_out) == ("awake\n", False)
    assert done.seconds > 0.19


def test_a_command_beyond_its_time_is_ended_with_all_that_it_started(shell: PrewarmedSandbox, folder: Path) -> None:
    done = shell(_bash(folder, "setsid sleep 4321 & sleep 4321", timeout_s=0.3))
    assert done.timed_out
    assert not _processes("sleep 4321")


def test_what_was_in_the_folder_before_is_not_held_against_the_command(shell: PrewarmedSandbox, folder: Path) -> None:
    for number in range(50):
        (folder / f"file_{number}").write_text("written while it waited")
    assert shell(_bash(folder, "ls | wc -l")).output == "50\n"


def test_another_command_or_a_second_one_has_a_sandbox_started_for_it(
    runner: BubblewrapRunner, shell: PrewarmedSandbox, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    assert shell(_bash(tmp_path / "other", "touch here")).code == 0
    assert (tmp_path / "other/here").exists()
    assert shell(Command(("true",), folder, 30)).code == 0
    python = runner.prewarm(_bash(folder, ""))
    assert python(Command(("python", "-c", "print(6 * 7)"), folder, 30)).output == "42\n"


def test_one_that_was_killed_while_it_waited_is_replaced(shell: PrewarmedSandbox, folder: Path) -> None:
    assert shell._sandbox
    os.kill(shell._sandbox.process.pid, signal.SIGKILL)
    shell._sandbox.process.wait()
    assert shell(_bash(folder, "echo alive")).output == "alive\n"


def test_closed_it_is_gone_with_all_that_it_held(runner: BubblewrapRunner, folder: Path) -> None:
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    waiting = runner.prewarm(_bash(folder, ""))
    assert waiting._sandbox
    pid = waiting._sandbox.process.pid
    waiting.close(wait=True)
    assert not Path(f"/proc/{pid}").exists()
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_a_toolbox_has_a_shell_waiting_for_each_command(runner: BubblewrapRunner, folder: Path) -> None:
    tools = ToolBox(folder, runner, 60, runner.prewarm)
    for number in range(3):
        tools.prepare()
        tools.prepare()
        assert tools._prewarmed
        assert tools.run("bash", {"command": f"echo {number}; cat seen; echo {number} >> seen"}).content
        assert tools._prewarmed is None
    assert (folder / "seen").read_text() == "0\n1\n2\n"
    tools.prepare()
    tools.close()
    assert tools._prewarmed is None


def test_what_waits_gets_nothing_of_ours(shell: PrewarmedSandbox, folder: Path) -> None:
    seen = shell(_bash(folder, "env; ls -l /proc/self/fd")).output
    assert "ANTHROPIC" not in seen
    assert json.dumps(seen).count("pipe:") <= 2  # its output's, and ls reads a folder
