"""The process namespace of one sandbox, seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from functools import partial
from pathlib import Path

from parallel_orchestrator.sandbox import reaper
from parallel_orchestrator.sandbox.resource_monitor import ResourceMonitor

LAST_WAIT_S = 10.0
"""For a killed process to disappear. Only a hanging disk takes so long."""


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
