"""What a command may take up, by itself and with all that it starts."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from parallel_orchestrator.records.command import CommandRunner
from parallel_orchestrator.sandbox.guarded_process import Namespace
from parallel_orchestrator.sandbox.resource_monitor import ResourceLimits, ResourceMonitor
from parallel_orchestrator.sandbox.root_isolation import process_group
from parallel_orchestrator.sandbox.runner import BubblewrapRunner, PlainRunner
from tests.agent.conftest import wait_for
from tests.agent.runners import as_root, in_both, in_sandbox, running, sh


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


MIB = 2**20


def limited(runner: BubblewrapRunner | PlainRunner, **limits: int) -> BubblewrapRunner | PlainRunner:
    """A runner of the same kind with these limits."""
    if isinstance(runner, PlainRunner):
        return PlainRunner(limits=ResourceLimits(**limits))
    return BubblewrapRunner("bwrap", limits=ResourceLimits(**limits))


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


def test_what_a_sandbox_holds_open_while_it_is_set_up_is_no_addition(folder: Path) -> None:
    (folder / "a").write_bytes(b"x" * 2000)
    monitor = ResourceMonitor(ResourceLimits(written=1500), [folder])
    with tempfile.TemporaryFile() as options:
        options.write(b"x" * 4096)
        options.flush()
        monitor.look_at_files([Path(f"/proc/{os.getpid()}")])
        assert monitor.violation == ""
        options.write(b"x" * 2**20)
        options.flush()
        monitor.look_at_files([Path(f"/proc/{os.getpid()}")])
        assert "holds more than" in monitor.violation


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


@in_sandbox
def test_a_fork_bomb_is_bounded(runner: CommandRunner, folder: Path) -> None:
    # It would end at 1,024 by itself, should nothing else bound it.
    bomb = "import os, time\nfor _ in range(10):\n    try: os.fork()\n    except OSError: pass\ntime.sleep(999)\n"
    (folder / "bomb.py").write_text(bomb)
    done = sh(runner, folder, "python bomb.py", timeout_s=20)
    assert done.code != 0
    # As root it is ended early; the kernel holds anybody else to the limit until the time is up.
    assert done.timed_out or f"more than {ResourceLimits().processes} processes" in done.output
    assert running("bomb.py") == []


def test_the_hosts_processes_are_not_held_against_a_sandbox_that_is_being_set_up(folder: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        report = f'{{"child-pid": {process.pid}}}'.encode()  # as bwrap's first process before it has a root of its own
        with Namespace(report, ResourceMonitor(ResourceLimits(processes=1), [folder])) as namespace:
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
