"""Sandboxes under way: one that a command runs in, and one that was started before its command is known.

Starting is most of a short command: a sandbox, then a shell, or Python with pytest. So they are started while the
model thinks, and wait for a line that says what to do. Each runs once: what a command does to it is gone with it.
Nothing of the project runs in it before its command does.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from parallel_orchestrator.records.command import RESULTS, Command, CommandResult
from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.sandbox import prewarmed_pytest, reaper
from parallel_orchestrator.sandbox.guarded_process import GuardedProcess
from parallel_orchestrator.sandbox.mounts import RESULTS_MOUNT
from parallel_orchestrator.sandbox.namespace import Namespace
from parallel_orchestrator.sandbox.resource_monitor import ResourceMonitor
from parallel_orchestrator.system.memory import ROOM


@dataclass(frozen=True)
class Entrypoint:
    """What waits in a sandbox."""

    stands_for: tuple[str, ...]
    """What the commands begin with that it can run."""
    program: tuple[str, ...]
    encode: Callable[[tuple[str, ...]], bytes]
    """What it is told on its standard input, from a command's words."""

    def fits(self, command: Command) -> bool:
        """Whether it can run that command."""
        return command.argv[: len(self.stands_for)] == self.stands_for


def _arguments(argv: tuple[str, ...]) -> bytes:
    return json.dumps([part.replace(RESULTS, RESULTS_MOUNT) for part in argv[2:]]).encode() + b"\n"


ENTRYPOINTS = (
    Entrypoint(prewarmed_pytest.STANDS_FOR, ("python", "-c", prewarmed_pytest.read_text()), _arguments),
    Entrypoint(
        ("bash", "-c"),
        ("bash", "-c", 'IFS= read -rd "" told && exec bash -c "$told" < /dev/null'),
        lambda argv: argv[2].encode() + b"\0",
    ),
)


class RunningSandbox:
    """A sandbox that was started. A context manager: at its end nothing of it is left."""

    def __init__(self, guarded: GuardedProcess, reports: BufferedReader, resources: contextlib.ExitStack) -> None:
        self.process = guarded.process
        self._guarded = guarded
        self._reports = reports
        self._resources = resources

    def __enter__(self) -> RunningSandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what there still is of it."""
        self._resources.close()

    def finish(self, command: Command, monitor: ResourceMonitor, started: float) -> CommandResult:
        """Follow its command to its end. Raises CannotGoOn when the sandbox could not be set up."""
        follower = self._guarded.follower
        with Namespace(self._reports.readline(), monitor) as namespace:
            in_time = follower.until_end(started + command.timeout_s, namespace.is_within_limits)
            if not in_time and not monitor.violation:
                namespace.terminate()
                follower.until_end(time.monotonic() + reaper.GRACE_S)
            namespace.kill()
            self._guarded.end()
            output = follower.rest()
        began = namespace.killed_early or b"exit-code" in self._reports.read()
        if not began and in_time:
            raise CannotGoOn(f"the sandbox could not be set up: {output.strip() or 'bwrap said nothing'}")
        return command_result(self.process, output, monitor, in_time, started)


class _Runner(Protocol):
    """Runs a command in a sandbox that is started for it."""

    def __call__(self, command: Command) -> CommandResult: ...

    def monitor(self, command: Command) -> ResourceMonitor: ...


class PrewarmedSandbox:
    """Something that waits in a sandbox of its own for a command to run. Closed, it is gone."""

    def __init__(self, runner: _Runner, entrypoint: Entrypoint, sandbox: RunningSandbox, command: Command) -> None:
        self._runner = runner
        self._entrypoint = entrypoint
        self._sandbox: RunningSandbox | None = sandbox
        self._folders = folders_of(command)

    def __call__(self, command: Command) -> CommandResult:
        """Run a command as the runner does: in here when it is one that was waited for, else in a sandbox anew."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is None:
            return self._runner(command)
        with sandbox, ROOM.shared():
            started = time.monotonic()
            monitor = self._runner.monitor(command)
            if monitor.initial_violation:
                return refused(monitor)
            if folders_of(command) == self._folders and self._entrypoint.fits(command) and self._send(sandbox, command):
                return sandbox.finish(command, monitor, started)
        return self._runner(command)

    def close(self, *, wait: bool = False) -> None:
        """End it unless it was used. Its namespaces take the kernel a while; with `wait`, nothing of it is left."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox:
            ending = threading.Thread(target=sandbox.close, name="sandbox ending")
            ending.start()  # no daemon: this process ends after it
            if wait:
                ending.join()

    def _send(self, sandbox: RunningSandbox, command: Command) -> bool:
        """Say what to do; False when it does not wait any more."""
        if sandbox.process.stdin is None or sandbox.process.poll() is not None:
            return False
        try:
            with sandbox.process.stdin as line:
                line.write(self._entrypoint.encode(command.argv))
        except OSError:
            return False
        return True


def refused(monitor: ResourceMonitor) -> CommandResult:
    """How a command ended that was not begun."""
    return CommandResult(126, f"[not run: {monitor.initial_violation}]", timed_out=False, seconds=0.0)


def command_result(
    process: subprocess.Popen[bytes], output: str, monitor: ResourceMonitor, in_time: bool, started: float
) -> CommandResult:
    """How a command ended of which nothing is left, with what its limits have to say."""
    monitor.look_at_files()
    code = _code(process)
    note = f"\n[{'killed' if code == 137 else 'ended'}: {monitor.violation}]" if monitor.violation else ""
    late = not in_time and not monitor.violation
    starved = in_time and monitor.starved(code)
    return CommandResult(code, output + note, late, time.monotonic() - started, starved, monitor.peak)


def folders_of(command: Command) -> list[Path]:
    """Where a command can write."""
    return [folder for folder in (command.folder, command.results) if folder]


def _code(process: subprocess.Popen[bytes]) -> int:
    code = process.returncode
    return code if code >= 0 else 128 - code
