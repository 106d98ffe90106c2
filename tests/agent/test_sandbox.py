"""What the sandbox adds: nothing outside is to be seen, reached or written."""

from __future__ import annotations

import os
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel_orchestrator.records.command import Command, CommandRunner
from parallel_orchestrator.records.errors import CannotGoOn, UsageError
from parallel_orchestrator.sandbox import seccomp
from parallel_orchestrator.sandbox.runner import BubblewrapRunner, detect
from tests.agent.runners import as_root, in_sandbox, sh


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
    python_lies = [f"{prefix}/{below}" for prefix in (sys.prefix, sys.base_prefix) for below in ("x", "bin/x", "lib/x")]
    places = ["/x", "/usr/x", "/etc/x", "/dev/x", "/results", "/proc/sys/kernel/hostname", *python_lies]
    listed = " ".join(map(shlex.quote, places))
    seen = sh(runner, folder, f'for p in {listed}; do (echo x > "$p") 2>/dev/null && echo "$p"; done; echo end')
    own = [place for place in python_lies if place.endswith("/x") and place.startswith("/tmp/")]
    assert set(seen.output.splitlines()) <= {"end", *own}  # the folder above what is shown of Python, in its own /tmp
    assert [place for place in places if place.endswith("x") and Path(place).exists()] == []
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
