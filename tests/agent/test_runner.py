"""What both ways to run a command promise: its surroundings, its output, its end."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from parallel_orchestrator.records.command import RESULTS, Command, CommandResult, CommandRunner
from parallel_orchestrator.sandbox import reaper
from parallel_orchestrator.sandbox.runner import PlainRunner
from tests.agent.conftest import wait_for
from tests.agent.runners import ROOT, in_both, needs_bubblewrap, running, sh


@in_both
def test_output_code_and_folder(runner: CommandRunner, folder: Path) -> None:
    done = sh(runner, folder, "echo out; echo err >&2; touch made; exit 3")
    assert (done.code, done.output, done.timed_out) == (3, "out\nerr\n", False)
    assert (folder / "made").exists()


@in_both
def test_death_by_signal_is_told_as_a_shell_does(runner: CommandRunner, folder: Path) -> None:
    assert sh(runner, folder, "kill -9 $$").code == 137


@in_both
def test_results_folder(runner: CommandRunner, folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results folder"
    results.mkdir()
    done = runner(Command(("sh", "-c", 'echo x > "$1"', "sh", f"{RESULTS}/report"), folder, 60, results))
    assert done.code == 0, done.output
    assert (results / "report").read_text() == "x\n"


@in_both
def test_python_and_pytest_are_there(runner: CommandRunner, folder: Path) -> None:
    (folder / "test_a.py").write_text("def test_a(tmp_path):\n    (tmp_path / 'x').touch()\n")
    done = sh(runner, folder, "python -m pytest -q -p no:cacheprovider")
    assert (done.code, "1 passed" in done.output) == (0, True), done.output
    assert sorted(path.name for path in folder.iterdir()) == ["test_a.py"]


@in_both
def test_environment_is_built_from_nothing(
    runner: CommandRunner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "canary-1")
    monkeypatch.setenv("SSH_AUTH_SOCK", "canary-2")
    names = {line.partition("=")[0] for line in sh(runner, folder, "env").output.splitlines()}
    ours = {"PATH", "HOME", "TMPDIR", "LANG", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED"}
    assert names == ours | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PWD", "SHLVL", "_"}


@in_both
def test_no_descriptor_of_ours_reaches_a_command(runner: CommandRunner, folder: Path) -> None:
    """Not even one that was left inheritable: a lock, a socket or a terminal could be meddled with."""
    with (folder.parent / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        assert sh(runner, folder, "ls /proc/$$/fd; true").output.split() == ["0", "1", "2"]


HAS_TERMINAL = """
import os, pty, sys
from pathlib import Path
from parallel_orchestrator.sandbox.runner import detect
from parallel_orchestrator.records.command import Command
pid, terminal = pty.fork()
if pid == 0:
    command = "import fcntl, termios; fcntl.ioctl(open('/dev/tty'), termios.TIOCSTI, b'x'); print('typed')"
    done = detect(sys.argv[1])(Command(("python", "-c", command), Path(sys.argv[2]), 100))
    Path(sys.argv[2], "told").write_text(done.output)
    os._exit(0)
try:
    while os.read(terminal, 4096): pass
except OSError: pass
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("mode", [pytest.param("required", marks=needs_bubblewrap), "off"])
def test_a_command_has_no_terminal_to_type_into(mode: str, folder: Path) -> None:
    """Also where the program itself runs on one."""
    subprocess.run([sys.executable, "-c", HAS_TERMINAL, mode, str(folder)], check=True)
    told = (folder / "told").read_text()
    assert "No such device or address" in told
    assert "typed" not in told


@in_both
def test_standard_input_is_empty(runner: CommandRunner, folder: Path) -> None:
    assert sh(runner, folder, "cat; echo end").output == "end\n"


@in_both
def test_time_limit_ends_with_what_was_said(runner: CommandRunner, folder: Path) -> None:
    done = sh(runner, folder, "trap 'echo asked; exit 5' TERM; echo begun; sleep 1000 & wait", timeout_s=0.5)
    assert done.timed_out
    assert done.output.startswith("begun\nasked")


@in_both
def test_ignoring_sigterm_does_not_help(runner: CommandRunner, folder: Path) -> None:
    done = sh(runner, folder, "trap '' TERM; while :; do sleep 0.1234; done", timeout_s=0.3)
    assert (done.timed_out, done.code) == (True, 137)
    assert running("0.1234") == []


@in_both
@pytest.mark.parametrize(
    "start",
    [
        "sleep {s} &",
        "setsid sleep {s} > /dev/null 2>&1 < /dev/null &",
        "(setsid bash -c 'sleep {s} & disown' &)",
        "python -c 'import os, time\nfor _ in (1, 2): os.fork() and os._exit(0); os.setsid()\ntime.sleep({s})' &",
        "env -i setsid sleep {s} &",
    ],
    ids=["background", "setsid", "orphan", "double-fork", "no-environment"],
)
def test_what_stays_behind_is_killed(runner: CommandRunner, folder: Path, start: str) -> None:
    seconds = f"{1000 + os.getpid()}.5"
    done = sh(runner, folder, start.format(s=seconds) + "\nsleep 0.1; echo done")
    assert (done.output, done.timed_out) == ("done\n", False)
    assert running(seconds) == []


@in_both
def test_nothing_writes_after_the_end(runner: CommandRunner, folder: Path) -> None:
    sh(runner, folder, "(trap '' TERM HUP; setsid bash -c 'while :; do date +%N > tick; done' &) ; sleep 0.2")
    before = (folder / "tick").stat().st_mtime_ns
    time.sleep(0.1)
    assert (folder / "tick").stat().st_mtime_ns == before


@in_both
def test_no_core_files_also_where_they_are_usual(runner: CommandRunner, folder: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    if os.geteuid() != 0 and before[1] == 0:
        pytest.skip("this user may make no core files anyway")
    usual = resource.RLIM_INFINITY if os.geteuid() == 0 else before[1]
    resource.setrlimit(resource.RLIMIT_CORE, (usual, usual))
    try:
        assert sh(runner, folder, "ulimit -S -c; ulimit -H -c").output == "0\n0\n"
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


@in_both
def test_two_at_once_leave_each_other_alone(runner: CommandRunner, folder: Path) -> None:
    slow: list[CommandResult] = []
    thread = threading.Thread(target=lambda: slow.append(sh(runner, folder, "sleep 1; echo slow")))
    thread.start()
    while thread.is_alive():
        assert sh(runner, folder, "echo quick").output == "quick\n"
    thread.join()
    assert slow[0].output == "slow\n"


@in_both
def test_no_descriptor_is_left_open(runner: CommandRunner, folder: Path) -> None:
    sh(runner, folder, "true")
    before = len(list(Path("/proc/self/fd").iterdir()))
    sh(runner, folder, "echo x")
    sh(runner, folder, "sleep 10", timeout_s=0.1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


WORKER = """
import sys
from pathlib import Path
from parallel_orchestrator.sandbox.runner import detect
from parallel_orchestrator.records.command import Command
detect(sys.argv[1])(Command(("bash", "-c", sys.argv[3]), Path(sys.argv[2]), 100))
"""


@pytest.mark.parametrize("mode", [pytest.param("required", marks=needs_bubblewrap), "off"])
def test_kill_9_of_the_worker_leaves_nothing(mode: str, folder: Path) -> None:
    seconds = f"{2000 + os.getpid()}.25"
    script = f"setsid sleep {seconds} & touch started; sleep {seconds}"
    worker = subprocess.Popen([sys.executable, "-c", WORKER, mode, str(folder), script])
    assert wait_for((folder / "started").exists)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert wait_for(lambda: running(seconds) == [])


CALLERS = """
import ctypes, os, signal, sys, time
from pathlib import Path
from parallel_orchestrator.sandbox import reaper
from parallel_orchestrator.sandbox.runner import PlainRunner, detect
from parallel_orchestrator.records.command import Command

def seen(name):
    for pid in reaper.descendants(os.getpid()):
        try:
            if name in Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"-I")[0]:
                return True
        except OSError:
            pass

ctypes.CDLL(None).prctl(reaper.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
runner = PlainRunner() if sys.argv[1] == "none" else detect("required")
for number in range(8):
    caller = os.fork()
    if not caller:
        runner(Command(("sleep", "300"), Path(sys.argv[2]), timeout_s=300))
    while not seen(b"sleep" if sys.argv[1] == "none" else b"bwrap"):
        pass
    time.sleep(number * 0.002)
    os.kill(caller, signal.SIGKILL)
    until = time.monotonic() + 30
    while reaper.descendants(os.getpid()) and time.monotonic() < until:
        time.sleep(0.01)
    for pid in reaper.descendants(os.getpid()):
        print(number, Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(pid, signal.SIGKILL)
"""


@in_both
def test_a_caller_killed_while_its_sandbox_is_being_set_up_leaves_nothing(runner: PlainRunner, folder: Path) -> None:
    command = [sys.executable, "-c", CALLERS, runner.name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=280)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_descendants_see_the_whole_tree() -> None:
    with subprocess.Popen(["bash", "-c", "sleep 1000.5 & sleep 1000.5 & wait"]) as shell:
        assert wait_for(lambda: len(reaper.descendants(shell.pid)) == 2)
        for pid in reaper.descendants(shell.pid):
            os.kill(pid, signal.SIGKILL)
