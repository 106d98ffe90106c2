"""Running sandboxes: one that runs a command, and one that was started before its command is known.

A short command mostly waits for starts: of a sandbox, then of a shell, or of Python with pytest. So they start while
the model thinks, and then wait for a line with the command. Each runs one command, so nothing that it changes in the
sandbox is left for another. Nothing of the project runs before the command.
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
from parallel_orchestrator.sandbox.guarded_process import GuardedProcess, Namespace
from parallel_orchestrator.sandbox.mounts import RESULTS_MOUNT
from parallel_orchestrator.sandbox.resource_monitor import ResourceMonitor
from parallel_orchestrator.system.memory import ROOM


@dataclass(frozen=True)
class Entrypoint:
    """A program that waits in a sandbox for a command."""

    stands_for: tuple[str, ...]
    """The first words of the commands that it can run."""
    program: tuple[str, ...]
    encode: Callable[[tuple[str, ...]], bytes]
    """Makes its standard input of a command's words."""

    def fits(self, command: Command) -> bool:
        """Whether it can run the command."""
        return command.argv[: len(self.stands_for)] == self.stands_for


def _arguments(argv: tuple[str, ...]) -> bytes:
    return json.dumps([part.replace(RESULTS, RESULTS_MOUNT) for part in argv[2:]]).encode() + b"\n"


ENTRYPOINTS = (
    Entrypoint(prewarmed_pytest.STANDS_FOR, ("python", "-c", prewarmed_pytest.read_text()), _arguments),
    Entrypoint(
        ("bash", "-c"),
        ("bash", "-c", 'IFS= read -rd "" script && exec bash -c "$script" < /dev/null'),
        lambda argv: argv[2].encode() + b"\0",
    ),
)


class RunningSandbox:
    """A started sandbox. A context manager that ends everything in it."""

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
        """End everything in it."""
        self._resources.close()

    def finish(self, command: Command, monitor: ResourceMonitor, started: float) -> CommandResult:
        """Follow its command to its end. Raises CannotGoOn when the sandbox could not be set up."""
        with Namespace(self._reports.readline(), monitor) as namespace:
            deadline = started + command.timeout_s
            in_time = follow(self._guarded, monitor, deadline, namespace.is_within_limits, namespace.terminate)
            namespace.kill()
            self._guarded.end()
            output = self._guarded.reader.rest()
        began = namespace.killed_early or b"exit-code" in self._reports.read()
        if not began and in_time:
            raise CannotGoOn(f"the sandbox could not be set up: {output.strip() or 'bwrap printed nothing'}")
        return command_result(self.process, output, monitor, in_time, started)


class _Runner(Protocol):
    """Runs a command in a new sandbox."""

    def __call__(self, command: Command) -> CommandResult: ...

    def monitor(self, command: Command) -> ResourceMonitor: ...


class PrewarmedSandbox:
    """A sandbox in which an entrypoint waits for a command. It is used once, then closed."""

    def __init__(self, runner: _Runner, entrypoint: Entrypoint, sandbox: RunningSandbox, command: Command) -> None:
        self._runner = runner
        self._entrypoint = entrypoint
        self._sandbox: RunningSandbox | None = sandbox
        self._folders = folders_of(command)

    def __call__(self, command: Command) -> CommandResult:
        """Run a command here if the entrypoint fits it and still waits; otherwise in a new sandbox."""
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is None:
            return self._runner(command)
        with sandbox, ROOM.shared():
            started = time.monotonic()
            monitor = self._runner.monitor(command)
            if monitor.initial_violation:
                return not_run(monitor)
            if folders_of(command) == self._folders and self._entrypoint.fits(command) and self._send(sandbox, command):
                return sandbox.finish(command, monitor, started)
        return self._runner(command)

    def close(self, *, wait: bool = False) -> None:
        """End it unless it was used. With `wait`, return when everything in it is gone.

        The kernel needs a while to end its namespaces, so a thread waits for that. It is no daemon thread: this
        process cannot exit before it and leave the sandbox behind.
        """
        sandbox, self._sandbox = self._sandbox, None
        if sandbox:
            ending = threading.Thread(target=sandbox.close, name="sandbox ending")
            ending.start()
            if wait:
                ending.join()

    def _send(self, sandbox: RunningSandbox, command: Command) -> bool:
        """Send the command to the entrypoint. Returns False when that does not wait any more."""
        if sandbox.process.stdin is None or sandbox.process.poll() is not None:
            return False
        try:
            with sandbox.process.stdin as line:
                line.write(self._entrypoint.encode(command.argv))
        except OSError:
            return False
        return True


def follow(
    guarded: GuardedProcess,
    monitor: ResourceMonitor,
    deadline: float,
    is_within_limits: Callable[[], bool],
    terminate: Callable[[], None],
) -> bool:
    """Follow a command until it ends, violates a limit, or is late. Returns whether it ended in time.

    Only a late command gets SIGTERM and time to end. A command beyond a limit would use that time to take more.
    """
    in_time = guarded.reader.until_end(deadline, is_within_limits)
    if not in_time and not monitor.violation:
        terminate()
        guarded.reader.until_end(time.monotonic() + reaper.GRACE_S)
    return in_time


def not_run(monitor: ResourceMonitor) -> CommandResult:
    """Return the result of a command that was not started, because its folders are too full."""
    return CommandResult(126, f"[not run: {monitor.initial_violation}]", timed_out=False, seconds=0.0)


def command_result(
    process: subprocess.Popen[bytes], output: str, monitor: ResourceMonitor, in_time: bool, started: float
) -> CommandResult:
    """Return the result of a command that is gone, with a note on the limit that it violated."""
    monitor.look_at_files()
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    note = f"\n[{'killed' if code == 137 else 'ended'}: {monitor.violation}]" if monitor.violation else ""
    late = not in_time and not monitor.violation
    starved = in_time and monitor.starved(code)
    return CommandResult(code, output + note, late, time.monotonic() - started, starved, monitor.peak)


def folders_of(command: Command) -> list[Path]:
    """Return the folders that a command can write to."""
    return [folder for folder in (command.folder, command.results) if folder]
