"""Two holds on everything that a command started, so that none of it outlives the command or this process.

- `GuardedProcess`: a `reaper` above the command. It kills everything when its lifeline, a pipe, breaks.
- `Namespace`: the sandbox's process namespace. The kernel kills everything in it with its first process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from functools import cached_property, partial
from pathlib import Path

from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.sandbox import reaper
from parallel_orchestrator.sandbox.output import OutputReader
from parallel_orchestrator.sandbox.resource_monitor import ResourceMonitor

LAST_WAIT_S = 10.0
"""For a killed process to disappear. Only a hanging disk takes so long."""


class GuardedProcess:
    """Starts a command in its own session, which Ctrl-C does not reach. A context manager that ends it.

    The command inherits the descriptors `kept`; they are closed here. Raises CannotGoOn when it does not start.
    """

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str],
        folder: Path,
        output_limit: int,
        *kept: int,
        stdin: int = subprocess.DEVNULL,
        stderr: int = subprocess.STDOUT,
    ) -> None:
        lifeline, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", reaper.__file__, str(lifeline), *arguments],
                env=environment,
                cwd=folder,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                pass_fds=(lifeline, *kept),
            )
        except OSError as error:
            os.close(self._lifeline)
            raise CannotGoOn(f"cannot start {arguments[0]}: {error.strerror or error}") from error
        finally:
            for descriptor in (lifeline, *kept):
                os.close(descriptor)
        self._output_limit = output_limit

    @cached_property
    def reader(self) -> OutputReader:
        """Reads the output from the first use on. Callers that never use it read the pipe themselves."""
        return OutputReader(self.process, self._output_limit)

    def __enter__(self) -> GuardedProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.process.__exit__(None, None, None)

    def ask_to_end(self) -> None:
        """Have the reaper send SIGTERM, and SIGKILL a little later."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._lifeline, b"T")

    def end(self) -> None:
        """Kill what is left of the command, and wait until it is gone."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
            if not self._ends_within(LAST_WAIT_S):
                self.process.kill()

    def _ends_within(self, seconds: float) -> bool:
        if "reader" in self.__dict__:
            return self.reader.until_end(time.monotonic() + seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is not None


class Namespace:
    """The processes of one sandbox, held by a pidfd of the first. When that is killed, the kernel kills all others."""

    def __init__(self, report: bytes, monitor: ResourceMonitor | None = None) -> None:
        self.killed_early = False
        self._monitor = monitor
        self._init = json.loads(report)["child-pid"] if report else 0
        self._descriptor = -1
        if self._init:
            with contextlib.suppress(ProcessLookupError):
                self._descriptor = os.pidfd_open(self._init)

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def is_within_limits(self) -> bool:
        """Whether the processes in its /proc keep within the limits."""
        proc = Path(f"/proc/{self._init}/root/proc")
        return self._monitor is None or self._monitor.allows(proc, partial(_listed, proc))

    def terminate(self) -> None:
        """Send SIGTERM to all its processes."""
        self.killed_early = True
        for pid in reaper.descendants(self._init) if self._descriptor >= 0 else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill all its processes and wait until they are gone: the first one ends after all others."""
        if self._descriptor < 0:
            return
        self.killed_early = self.killed_early or bool(self._monitor and self._monitor.violation)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        gone = select.poll()
        gone.register(self._descriptor, select.POLLIN)
        gone.poll(LAST_WAIT_S * 1000)


def _listed(proc: Path) -> list[int]:
    """Return the processes in `proc`; none while the sandbox is being set up, when it still is the host's /proc."""
    try:
        if proc.stat().st_dev == Path("/proc").stat().st_dev:
            return []
        with os.scandir(proc) as entries:
            return [int(entry.name) for entry in entries if entry.name.isdecimal()]
    except OSError:
        return []
