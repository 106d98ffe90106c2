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
"""For a killed process to be gone; only a hanging disk takes so long."""


class Namespace:
    """The processes of one sandbox, held by a descriptor of the first of them: kill that and all are gone."""

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
        """Whether it takes up no more than it may, its processes being those that its own /proc lists."""
        proc = Path(f"/proc/{self._init}/root/proc")
        return self._monitor is None or self._monitor.allows(proc, partial(_listed, proc))

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
        self.killed_early = self.killed_early or bool(self._monitor and self._monitor.violation)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        gone = select.poll()
        gone.register(self._descriptor, select.POLLIN)
        gone.poll(LAST_WAIT_S * 1000)


def _listed(proc: Path) -> list[int]:
    """The processes in `proc`; none as long as the sandbox is being set up: until then the host's own stands there."""
    try:
        if proc.stat().st_dev == Path("/proc").stat().st_dev:
            return []
        with os.scandir(proc) as entries:
            return [int(entry.name) for entry in entries if entry.name.isdecimal()]
    except OSError:
        return []
