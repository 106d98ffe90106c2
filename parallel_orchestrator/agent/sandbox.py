"""Running commands: in a bubblewrap sandbox, or without one.

**Bubblewrap** covers: nothing of the host is seen but /usr, a few files of /etc and
the Python installation, all read-only; the command's folder is /workspace and, with
/results and private /tmp and /dev/shm, all that it can write; no network but its own
loopback; its own process table, so the environment of no other process is there to
read; no capabilities; limits on memory, processes, open files and file size; a wall
clock. Everything it started, daemons too, is dead when the call returns.

It does not cover: faults of the kernel itself (no seccomp filter); the sum of memory
over many processes, where the limit is the kernel's out-of-memory killer, which is
told to take these first; how much is written into /workspace in many files.

**Plain**, without a sandbox: the command runs as you, and can read and write what you
can. What holds is the clean environment, the limits but that on processes, the wall
clock, and that nothing is left running.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parallel_orchestrator.agent import reaper
from parallel_orchestrator.agent.capture import Follower
from parallel_orchestrator.agent.paths import MOUNT
from parallel_orchestrator.agent.rootfs import (
    MAX_PROCESSES,
    RESULTS_MOUNT,
    TMP,
    environment,
    limited,
    minimal_root,
    python_binds,
)
from parallel_orchestrator.records.command import Command, Finished
from parallel_orchestrator.records.errors import CannotGoOn, UsageError
from parallel_orchestrator.records.scenario import SandboxMode

_LAST_WAIT_S = 10.0
"""For a killed process to be gone; only a hanging disk takes so long."""


def detect(mode: SandboxMode, venv: Path | None = None) -> BubblewrapRunner | PlainRunner:
    """The runner for a run; `venv` is the run's own Python environment, if it has one.

    Raises UsageError, with both ways on, where a sandbox is wanted and none works.
    """
    if mode == "off":
        return PlainRunner(venv)
    program = shutil.which("bwrap")
    if program is None:
        raise _no_sandbox("bubblewrap (bwrap) is not installed")
    runner = BubblewrapRunner(program, venv)
    with tempfile.TemporaryDirectory() as folder:
        try:
            probe = runner(Command(("true",), Path(folder), timeout_s=30))
        except CannotGoOn as error:
            raise _no_sandbox(f"bubblewrap does not work on this machine ({error})") from error
    if probe.code != 0:
        raise _no_sandbox(f"bubblewrap does not work on this machine ({probe.output.strip()})")
    return runner


def _no_sandbox(why: str) -> UsageError:
    return UsageError(
        f"no sandbox for the commands that agents run: {why}. Install bubblewrap (for instance "
        "`apt install bubblewrap`) where user namespaces are allowed, or run without one: --sandbox off"
    )


class BubblewrapRunner:
    """Runs each command in a sandbox of its own."""

    name = "bubblewrap"

    def __init__(self, program: str, venv: Path | None = None) -> None:
        self._program = program
        self._root = minimal_root()
        self._python = python_binds(venv)
        self._environment = environment(TMP, venv)

    def describe(self) -> str:
        """One line for a person."""
        return "Sandbox: ON (bubblewrap)"

    def __call__(self, command: Command) -> Finished:
        """Run it to its end. Raises CannotGoOn when the sandbox cannot be set up."""
        started = time.monotonic()
        status, status_end = os.pipe()
        with os.fdopen(status, "rb") as reports:
            # By descriptor: what is on its command line, the command could read in /proc.
            options = _as_file(self._options(command, status_end))
            arguments = [self._program, "--args", str(options), "--"]
            arguments += limited(command, RESULTS_MOUNT, limit_processes=True)
            process = _start(arguments, self._environment, Path("/"), status_end, options)
            with process, _Namespace(reports.readline()) as namespace:
                follower = Follower(process, command.output_limit)
                in_time = follower.until_end(started + command.timeout_s, namespace.is_small)
                if not in_time and not namespace.crowded:
                    namespace.terminate()
                    follower.until_end(time.monotonic() + reaper.GRACE_S)
                namespace.kill()
                output = follower.rest()
            began = namespace.killed_early or b"exit-code" in reports.read()
        if not began and in_time:
            raise CannotGoOn(f"the sandbox could not be set up: {output.strip() or 'bwrap said nothing'}")
        if namespace.crowded:
            output += f"\n[killed: it had started more than {MAX_PROCESSES} processes]"
        timed_out = not in_time and not namespace.crowded
        return Finished(_code(process), output, timed_out, time.monotonic() - started)

    def _options(self, command: Command, status: int) -> list[str]:
        folder = str(command.folder.resolve())
        results = ["--bind", str(command.results.resolve()), RESULTS_MOUNT] if command.results else []
        return [
            *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            *("--hostname", "workspace", "--json-status-fd", str(status)),
            *self._root,
            *("--bind", folder, MOUNT, *results),
            *self._python,
            *("--remount-ro", "/", "--chdir", MOUNT),
        ]


class PlainRunner:
    """Runs each command as the user, below a `reaper` that leaves nothing of it behind."""

    name = "none"

    def __init__(self, venv: Path | None = None) -> None:
        self._venv = venv

    def describe(self) -> str:
        """One line for a person."""
        return "Sandbox: OFF - commands run as you"

    def __call__(self, command: Command) -> Finished:
        """Run it to its end. Raises CannotGoOn when it cannot be started."""
        started = time.monotonic()
        # A home of its own: what other commands or users put into a shared /tmp is not trusted.
        with tempfile.TemporaryDirectory(prefix="command-", ignore_cleanup_errors=True) as home:
            leash, leash_end = os.pipe()
            results = str(command.results.resolve()) if command.results else ""
            arguments = [sys.executable, "-I", "-S", reaper.__file__, str(leash)]
            arguments += limited(command, results, limit_processes=False)
            process = _start(arguments, environment(home, self._venv), command.folder, leash)
            with process:
                follower = Follower(process, command.output_limit)
                try:
                    in_time = follower.until_end(started + command.timeout_s)
                    if not in_time:
                        with contextlib.suppress(BrokenPipeError):
                            os.write(leash_end, b"T")
                        follower.until_end(time.monotonic() + reaper.GRACE_S)
                finally:
                    os.close(leash_end)
                    if not follower.until_end(time.monotonic() + _LAST_WAIT_S):
                        process.kill()
                output = follower.rest().replace(home, TMP)
        return Finished(_code(process), output, not in_time, time.monotonic() - started)


class _Namespace:
    """The process namespace of one sandbox, held by a descriptor of its first process: kill that and all is gone."""

    def __init__(self, report: bytes) -> None:
        self.crowded = False
        self.killed_early = False
        self._init = json.loads(report)["child-pid"] if report else 0
        self._descriptor = -1
        self._threads = _threads_of_the_machine()
        if self._init:
            with contextlib.suppress(ProcessLookupError):
                self._descriptor = os.pidfd_open(self._init)

    def __enter__(self) -> _Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def is_small(self) -> bool:
        """Whether it keeps within the limit on processes. The kernel does not hold root to that limit; this does.

        Only within tens of milliseconds: a fork bomb gets to some hundreds of processes first.
        """
        if _threads_of_the_machine() - self._threads > MAX_PROCESSES:
            self.crowded = self._count() > MAX_PROCESSES
        return not self.crowded

    def _count(self) -> int:
        """Its processes as its own /proc lists them: quick enough to be done while they multiply."""
        try:
            with os.scandir(f"/proc/{self._init}/root/proc") as entries:
                return sum(entry.name.isdecimal() for entry in entries)
        except OSError:
            return 0

    def terminate(self) -> None:
        """Ask everything in it to end."""
        self.killed_early = True
        for pid in reaper.descendants(self._init) if self._descriptor >= 0 else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        """End everything in it, and wait until it is gone: its first process ends after all others."""
        if self._descriptor < 0:
            return
        self.killed_early = self.killed_early or self.crowded
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        gone = select.poll()
        gone.register(self._descriptor, select.POLLIN)
        gone.poll(_LAST_WAIT_S * 1000)


def _threads_of_the_machine() -> int:
    """How many threads run here, ours and others'; cheap, so that the exact count is made only when it may matter."""
    try:
        return int(Path("/proc/loadavg").read_text().split()[3].split("/")[1])
    except (OSError, IndexError, ValueError):
        return 0


def _start(arguments: list[str], environment: dict[str, str], folder: Path, *kept: int) -> subprocess.Popen[bytes]:
    """Start it in a session of its own, so that a Ctrl-C for us is none for it. `kept` are handed over to it."""
    try:
        return subprocess.Popen(
            arguments,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=kept,
        )
    except OSError as error:
        raise CannotGoOn(f"cannot start {arguments[0]}: {error.strerror or error}") from error
    finally:
        for descriptor in kept:
            os.close(descriptor)


def _as_file(words: list[str]) -> int:
    """A descriptor to read them from, each ended by NUL."""
    descriptor = os.memfd_create("options")
    os.write(descriptor, b"".join(os.fsencode(word) + b"\0" for word in words))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _code(process: subprocess.Popen[bytes]) -> int:
    code = process.returncode
    return code if code >= 0 else 128 - code
