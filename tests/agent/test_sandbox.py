from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_orchestrator.agent import reaper, seccomp
from parallel_orchestrator.agent.asroot import process_group
from parallel_orchestrator.agent.namespace import Namespace
from parallel_orchestrator.agent.sandbox import BubblewrapRunner, PlainRunner, detect
from parallel_orchestrator.agent.watch import Limits, Watch
from parallel_orchestrator.records.command import RESULTS, Command, CommandRunner, Finished
from parallel_orchestrator.records.errors import CannotGoOn, UsageError
from tests.agent.conftest import wait_for

ROOT = Path(__file__).resolve().parents[2]


def _bubblewrap() -> BubblewrapRunner | str:
    try:
        found = detect("required")
    except UsageError as error:
        return str(error)
    assert isinstance(found, BubblewrapRunner)
    return found


BUBBLEWRAP = _bubblewrap()
needs_bubblewrap = pytest.mark.skipif(isinstance(BUBBLEWRAP, str), reason=str(BUBBLEWRAP))
SANDBOXED = pytest.param(BUBBLEWRAP, id="bubblewrap", marks=needs_bubblewrap)
BOTH = [SANDBOXED, pytest.param(PlainRunner(), id="plain")]
in_both = pytest.mark.parametrize("runner", BOTH)
in_sandbox = pytest.mark.parametrize("runner", [SANDBOXED])


def sh(runner: CommandRunner, folder: Path, script: str, timeout_s: float = 60, limit: int = 30_000) -> Finished:
    return runner(Command(("bash", "-c", script), folder, timeout_s, output_limit=limit))


def running(marker: str) -> list[int]:
    """Processes whose command line holds the marker."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdecimal() and marker.encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


# What both promise


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
from parallel_orchestrator.agent.sandbox import detect
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
def test_a_flood_of_output_costs_no_memory(runner: CommandRunner, folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = sh(runner, folder, "echo first; yes | head -c 200000000; echo last", limit=1000)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert done.output.startswith("first\n")
    assert done.output.endswith("last\n")
    assert "200,000,011 bytes of output" in done.output
    assert len(done.output) < 1200
    assert grown_kib < 50_000


@in_both
def test_a_memory_bomb_hits_the_limit(runner: CommandRunner, folder: Path) -> None:
    done = sh(runner, folder, "python -c 'x = bytearray(5 * 2**30)'")
    assert done.code == 1
    assert "MemoryError" in done.output


@in_both
def test_files_are_limited_in_size_and_number(runner: CommandRunner, folder: Path) -> None:
    assert sh(runner, folder, "truncate -s 300M big").code != 0
    done = sh(runner, folder, "python -c 'f = [open(\"/dev/null\") for _ in range(2000)]'")
    assert "Too many open files" in done.output


# The sums that a watch keeps


MIB = 2**20


def limited(runner: BubblewrapRunner | PlainRunner, **limits: int) -> BubblewrapRunner | PlainRunner:
    """A runner of the same kind with these limits."""
    if isinstance(runner, PlainRunner):
        return PlainRunner(limits=Limits(**limits))
    return BubblewrapRunner("bwrap", limits=Limits(**limits))


@in_both
def test_memory_is_limited_in_sum_and_shared_memory_counts_once(
    runner: BubblewrapRunner | PlainRunner, folder: Path
) -> None:
    own = "import os, time\nfor _ in range(8): os.fork() or (bytearray(b'x') * (40 << 20), time.sleep(1000.75))"
    (folder / "own.py").write_text(own.replace("(bytearray", "(x := bytearray") + "\ntime.sleep(1000)\n")
    done = sh(limited(runner, memory=200 * MIB), folder, "echo begun; python own.py")
    assert "its processes used more than 200 MiB of memory]" in done.output
    assert (done.output.startswith("begun\n"), done.code, done.timed_out) == (True, 137, False)
    assert running("own.py") == []
    shared = (
        "import os, time\nx = bytearray(b'x') * (100 << 20)\nfor _ in range(8): os.fork() or time.sleep(1) or exit()"
    )
    (folder / "shared.py").write_text(shared + "\ntime.sleep(1)\nprint('end')\n")
    assert sh(limited(runner, memory=200 * MIB), folder, "python shared.py").output == "end\n"


@in_both
def test_processes_are_counted_with_their_threads(runner: BubblewrapRunner | PlainRunner, folder: Path) -> None:
    small = limited(runner, processes=60)
    threads = "import threading, time\nfor _ in range(80): threading.Thread(target=time.sleep, args=(1000,)).start()"
    for script in (f"python -c '{threads}'", "for i in $(seq 80); do sleep 1000.875 & done; wait"):
        done = sh(small, folder, script, timeout_s=20)
        # The kernel holds a user to it, inside the sandbox.
        assert "[killed: it had started more than 60 processes]" in done.output or os.geteuid(), done.output
        assert (
            "killed" in done.output or "Resource temporarily unavailable" in done.output or "can't start" in done.output
        )
    assert running("1000.875") == []


WRITERS = {
    "many": "for i in $(seq 200); do yes | head -c 1M > $i; done; sleep 100",
    "sparse": "for i in 1 2 3 4 5; do truncate -s 30M $i; done; sleep 100",
    "deleted": "exec 3> a 4> b 5> c; rm a b c; for i in 3 4 5; do yes | head -c 30M >&$i; done; sleep 100",
    "hidden": "mkdir d; chmod 300 d; yes | head -c 90M > d/x; sleep 100",
    "deep": "for i in $(seq 30); do mkdir d; cd d; yes | head -c 3M > x; done; sleep 100",
}


@in_both
@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_written_is_limited_in_sum(runner: BubblewrapRunner | PlainRunner, folder: Path, kind: str) -> None:
    done = sh(limited(runner, written=64 * MIB), folder, WRITERS[kind])
    assert done.output.endswith("[killed: the project's folder holds more than 64 MiB]"), done.output


@in_both
def test_files_are_limited_in_number(runner: BubblewrapRunner | PlainRunner, folder: Path) -> None:
    small = limited(runner, files=500)
    done = sh(small, folder, "mkdir d; for i in $(seq 700); do : > d/$i; done; sleep 100")
    assert done.output.endswith("[killed: the project's folder holds more than 500 files]")
    # What is too much can still be deleted, and then all is well.
    done = sh(small, folder, "find d -name '??' -o -name '5??' -o -name '6??' -o -name '4??' | xargs rm; ls d | wc -l")
    assert "]" not in done.output


@in_both
def test_links_to_one_file_count_once(runner: BubblewrapRunner | PlainRunner, folder: Path) -> None:
    done = sh(limited(runner, written=64 * MIB), folder, "yes | head -c 20M > a; for i in 1 2 3 4; do ln a a$i; done")
    assert (done.code, done.output) == (0, "")


@in_both
def test_what_was_too_quick_for_the_watch_is_told_and_ends_there(
    runner: BubblewrapRunner | PlainRunner, folder: Path
) -> None:
    small = limited(runner, written=20 * MIB)
    assert "ed: the project's folder holds more than 20 MiB]" in sh(small, folder, "truncate -s 30M a").output
    assert sh(small, folder, "cat a | wc -c").output == f"{30 * MIB}\n"
    assert "ed: the project's folder holds more than 20 MiB]" in sh(small, folder, "truncate -s 30M b").output
    done = sh(small, folder, "touch c")
    assert (done.code, done.output) == (126, "[not run: the project's folder holds more than 40 MiB]")
    assert not (folder / "c").exists()


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
    slow: list[Finished] = []
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
from parallel_orchestrator.agent.sandbox import detect
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


# What the sandbox adds


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@in_sandbox
def test_no_network_but_its_own_loopback(runner: CommandRunner, folder: Path, listener: int) -> None:
    (folder / "probe.py").write_text(
        "import socket, sys\n"
        "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname(), 2); print('own')\n"
        f"for address in [('127.0.0.1', {listener}), ('169.254.169.254', 80), ('1.1.1.1', 53)]:\n"
        "    try:\n        socket.create_connection(address, 2); print('LEAK', address)\n"
        "    except OSError as e: print('blocked')\n"
        "try: socket.getaddrinfo('example.com', 80); print('LEAK')\n"
        "except OSError: print('blocked')\n"
    )
    assert sh(runner, folder, "python probe.py").output.split() == ["own", *4 * ["blocked"]]


@in_sandbox
def test_nothing_outside_is_there(runner: CommandRunner, folder: Path) -> None:
    (folder.parent / "neighbour").write_text("x")
    seen = sh(runner, folder, f"ls -A / /root /home /work /tmp /etc; ls {folder} {folder.parent}; ls ..").output
    assert "neighbour" not in seen
    assert "shadow" not in seen
    roots = set(sh(runner, folder, "ls -A /").output.split())
    python = {Path(prefix).parts[1] for prefix in (sys.prefix, sys.base_prefix)}
    usual = {"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "tmp", "usr", "workspace"}
    assert roots <= usual | python


@in_sandbox
def test_nothing_outside_can_be_written(runner: CommandRunner, folder: Path) -> None:
    places = f"/x /usr/x /etc/x /dev/x /results /proc/sys/kernel/hostname {sys.prefix}/x {sys.base_prefix}/x"
    seen = sh(runner, folder, f"for p in {places}; do (echo x > $p) 2>/dev/null && echo LEAK $p; done; echo end")
    assert seen.output == "end\n"
    python = sh(runner, folder, "ls /tmp").output.split()  # it may itself be installed somewhere below /tmp
    assert sh(runner, folder, "touch /tmp/x /dev/shm/x && ls /tmp").output.split() == sorted([*python, "x"])
    assert sh(runner, folder, "ls /tmp").output.split() == python
    kernel = "find /proc/sys /proc/sysrq-trigger /proc/mtrr /proc/fs -writable 2> /dev/null"
    assert sh(runner, folder, kernel).output == ""
    assert sh(runner, folder, "mount -o remount,rw / || mount --bind /tmp /usr").code != 0


@in_sandbox
def test_of_pythons_folder_only_what_is_pythons_is_there(runner: CommandRunner, folder: Path) -> None:
    """Somebody's environment may have been made in the project itself, where keys and runs lie, too."""
    project = folder.parent
    (project / "bin").mkdir()
    (project / "bin/tool").write_text("#!/bin/sh\necho works\n")
    (project / "bin/tool").chmod(0o755)
    (project / ".env").write_text("SECRET")
    done = sh(detect("required", venv=project), folder, f"tool; ls -A {project}; cat {project}/.env")
    assert done.output.split()[:2] == ["works", "bin"]
    assert "SECRET" not in done.output
    assert "No such file" in done.output


@in_sandbox
def test_every_mount_is_read_only_but_those_meant_to_be_written(runner: CommandRunner, folder: Path) -> None:
    mounts = [line.split() for line in sh(runner, folder, "cat /proc/self/mountinfo").output.splitlines()]
    writable = {place for _, _, _, _, place, options, *_ in mounts if "rw" in options.split(",")}
    devices = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")}
    assert writable - devices == {"/proc", "/tmp", "/workspace", "/dev/pts", "/dev/shm"}
    assert {place for _, _, _, _, place, *_ in mounts} >= {"/", "/usr", "/dev", "/proc/sys"}


@in_sandbox
def test_no_environment_of_the_host_is_readable(
    runner: CommandRunner, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "sk-canary-8c1f0d3a"
    code = "import time; print('up', flush=True); time.sleep(1000)"
    environment = {**os.environ, "ANTHROPIC_API_KEY": canary}
    # The environment that bwrap itself is started from is that of this process.
    monkeypatch.setenv("ANTHROPIC_API_KEY", canary)
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        seen = sh(runner, folder, "cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; ps eww 2>/dev/null").output
        holder.kill()
    assert canary not in seen
    assert str(folder.parent) not in seen
    processes = sh(runner, folder, "ls /proc").output.split()
    assert len([name for name in processes if name.isdecimal()]) < 5


@in_sandbox
def test_no_capabilities(runner: CommandRunner, folder: Path) -> None:
    assert "CapEff:\t0000000000000000" in sh(runner, folder, "cat /proc/self/status").output


@in_sandbox
def test_a_fork_bomb_is_bounded(runner: CommandRunner, folder: Path) -> None:
    # It would end at 1,024 by itself, should nothing else bound it.
    bomb = "import os, time\nfor _ in range(10):\n    try: os.fork()\n    except OSError: pass\ntime.sleep(999)\n"
    (folder / "bomb.py").write_text(bomb)
    done = sh(runner, folder, "python bomb.py", timeout_s=20)
    assert done.code != 0
    # As root it is ended early; the kernel holds anybody else to the limit until the time is up.
    assert done.timed_out or f"more than {Limits().processes} processes" in done.output
    assert running("bomb.py") == []


FORBIDDEN = """
import ctypes, errno, os, platform, socket
libc = ctypes.CDLL(None, use_errno=True)
column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
def call(name, numbers, *arguments):
    ctypes.set_errno(0)
    done = libc.syscall(numbers[column], *arguments)
    print(name, "done" if done >= 0 else errno.errorcode[ctypes.get_errno()])
call("ptrace", (101, 117), 0, 0, 0, 0)
call("keyctl", (250, 219), 0, -3, 0)
call("bpf", (321, 280), 0, 0, 0)
call("userfaultfd", (323, 282), 1)
call("perf_event_open", (298, 241), 0, 0, 0, 0, 0)
call("io_uring_setup", (425, 425), 1, 0)
call("unshare", (272, 97), 0x10000000)
call("clone", (56, 220), 0x10000000 | 17, 0, 0, 0, 0)
call("mount", (165, 40), 0, 0, 0, 0, 0)
call("kexec_load", (246, 104), 0, 0, 0, 0)
call("shmget", (29, 194), 0, 4096, 0o1600)
call("finit_module", (313, 273), 0, 0, 0)
call("clone3", (435, 435), 0, 0)
call("fallocate", (285, 47), 1, 0, 0, 1)
for family in (40, 17, 38, 1, 2, 10, 16):
    try: socket.socket(family, socket.SOCK_STREAM if family != 16 else socket.SOCK_RAW).close(); print(family, "done")
    except OSError as e: print(family, errno.errorcode[e.errno])
"""


@in_sandbox
@pytest.mark.skipif(seccomp.program() is None, reason="there is no filter for this machine's system calls")
def test_system_calls_that_nothing_needs_are_refused(runner: CommandRunner, folder: Path) -> None:
    (folder / "calls.py").write_text(FORBIDDEN)
    seen = dict(line.split() for line in sh(runner, folder, "python calls.py").output.splitlines())
    assert {name for name, ending in seen.items() if ending == "done"} == {"1", "2", "10", "16"}
    assert {name: ending for name, ending in seen.items() if ending not in ("done", "EPERM")} == {
        "clone3": "ENOSYS",
        "fallocate": "ENOTSUP",
    }
    assert len(seen) == 21


def test_there_is_no_filter_for_an_unknown_machine() -> None:
    assert seccomp.program("sparc64") is None


@in_sandbox
def test_folder_with_odd_name(runner: CommandRunner, tmp_path: Path) -> None:
    odd = tmp_path / "größe 'a' $b --x"
    odd.mkdir()
    assert sh(runner, odd, "touch x; pwd").output == "/workspace\n"
    assert (odd / "x").exists()


@in_sandbox
def test_a_sandbox_that_cannot_be_set_up_is_no_verdict_on_the_command(runner: CommandRunner, folder: Path) -> None:
    with pytest.raises(CannotGoOn, match="could not be set up"):
        sh(runner, folder / "absent", "true")


# Choosing


def test_off_is_obeyed_and_told() -> None:
    assert (detect("off").name, detect("off").describe()) == ("none", "Sandbox: OFF - commands run as you")


@in_sandbox
def test_on_is_told(runner: BubblewrapRunner) -> None:
    assert (runner.name, runner.describe()) == ("bubblewrap", "Sandbox: ON (bubblewrap)")


CALLERS = """
import ctypes, os, signal, sys, time
from pathlib import Path
from parallel_orchestrator.agent import reaper
from parallel_orchestrator.agent.sandbox import PlainRunner, detect
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


@pytest.mark.parametrize("mode", ["auto", "required"])
@pytest.mark.parametrize("broken", [False, True])
def test_no_sandbox_names_both_ways_on(
    mode: str, broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken:
        (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create a namespace' >&2; exit 1\n")
        (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"(?s)nstall bubblewrap.*--sandbox off") as caught:
        detect(mode)  # type: ignore[arg-type]
    assert ("No permissions" in str(caught.value)) is broken


def test_descendants_see_the_whole_tree() -> None:
    with subprocess.Popen(["bash", "-c", "sleep 1000.5 & sleep 1000.5 & wait"]) as shell:
        assert wait_for(lambda: len(reaper.descendants(shell.pid)) == 2)
        for pid in reaper.descendants(shell.pid):
            os.kill(pid, signal.SIGKILL)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root owns the host's device nodes")


@as_root
@in_sandbox
def test_the_device_nodes_of_the_host_are_out_of_reach(runner: CommandRunner, folder: Path) -> None:
    names = ("null", "zero", "full", "random", "urandom", "tty")
    before = [Path(f"/dev/{name}").stat().st_mode for name in names]
    script = "head -c 4 /dev/zero | wc -c; echo x > /dev/null; chmod 000 /dev/zero /dev/tty; ls -l /dev/zero"
    done = runner(Command(("sh", "-c", script), folder, timeout_s=20))
    try:
        assert "4\n" in done.output
        assert [Path(f"/dev/{name}").stat().st_mode for name in names] == before
    finally:
        for name, mode in zip(names, before, strict=True):
            Path(f"/dev/{name}").chmod(stat.S_IMODE(mode))


def test_the_hosts_processes_are_not_held_against_a_sandbox_that_is_being_set_up(folder: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        report = f'{{"child-pid": {process.pid}}}'.encode()  # as bwrap's first process before it has a root of its own
        with Namespace(report, Watch(Limits(processes=1), [folder])) as namespace:
            assert namespace.is_within_limits()
    finally:
        process.kill()
        process.wait()


@as_root
@in_sandbox
def test_a_control_group_holds_roots_processes(runner: CommandRunner, folder: Path) -> None:
    """That the kernel keeps to it, and that a command is in one: of the two, it or the watch may end a flood first."""
    with process_group(20) as words:
        if not words:
            pytest.skip("no control group for processes can be made here")
        flood = "for n in $(seq 40); do sleep 0.1 & done; wait"
        done = subprocess.run([*words, "bash", "-c", flood], stderr=subprocess.PIPE, text=True, check=False)
        assert "Resource temporarily unavailable" in done.stderr
    seconds = f"{3000 + os.getpid()}.125"
    thread = threading.Thread(target=sh, args=(runner, folder, f"exec sleep {seconds}"))
    thread.start()
    try:
        assert wait_for(lambda: [_most_tasks(pid) for pid in running(f"sleep\0{seconds}")] == [256 + 8])
    finally:
        for pid in running(f"sleep\0{seconds}"):
            os.kill(pid, signal.SIGKILL)
        thread.join()


def _most_tasks(pid: int) -> int | None:
    """The limit of a process's control group for the number of tasks."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            root = {"pids": "/sys/fs/cgroup/pids", "": "/sys/fs/cgroup"}.get(controllers, "/nowhere")
            limit = Path(root + path, "pids.max")
            if limit.exists():
                return int(limit.read_text())
    return None
