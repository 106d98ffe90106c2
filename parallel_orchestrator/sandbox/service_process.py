"""A program that runs beside us in the sandbox, and is talked to."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from parallel_orchestrator.sandbox.resource_monitor import USUAL, Limits, ResourceMonitor


@dataclass(frozen=True)
class Mount:
    """Something of the host that a program sees besides its folder."""

    path: Path
    inside: str
    """Where the program finds it, in a sandbox."""
    writable: bool = False

    @property
    def option(self) -> str:
        """bwrap's."""
        return "--bind" if self.writable else "--ro-bind"


@dataclass(frozen=True)
class ServiceProgram:
    """A program that is talked to while it runs. `Command` is for what is only waited for."""

    argv: tuple[str, ...]
    folder: Path
    """Its working directory, which it may write to."""
    environment: Mapping[str, str]
    """Besides what every command finds in its own."""
    stdin: int
    stderr: int
    """Descriptors that it inherits."""
    mounts: tuple[Mount, ...] = ()
    limits: Limits = USUAL


@dataclass(frozen=True)
class ServiceProcess:
    """A program that runs. Its standard output is a pipe."""

    process: subprocess.Popen[bytes]
    _monitor: ResourceMonitor
    _allowed: Callable[[], bool]

    def violation(self) -> str:
        """Why it has to be ended; empty while it keeps within its limits. Cheap to ask often."""
        return "" if self._allowed() else self._monitor.violation
