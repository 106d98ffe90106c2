"""A long-lived program in the sandbox that exchanges messages with this process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from parallel_orchestrator.sandbox.resource_monitor import USUAL, ResourceLimits, ResourceMonitor


@dataclass(frozen=True)
class Mount:
    """A file or folder of the host that a program sees besides its own folder."""

    path: Path
    inside: str
    """Its path inside a sandbox."""
    writable: bool = False

    @property
    def option(self) -> str:
        """bwrap's option for it."""
        return "--bind" if self.writable else "--ro-bind"


@dataclass(frozen=True)
class ServiceProgram:
    """A program that exchanges messages while it runs. A `Command` only runs to its end."""

    argv: tuple[str, ...]
    folder: Path
    """Its working directory, which it may write to."""
    environment: Mapping[str, str]
    """Variables in addition to those of every command."""
    stdin: int
    stderr: int
    """The descriptors that it gets as these streams."""
    mounts: tuple[Mount, ...] = ()
    limits: ResourceLimits = USUAL


@dataclass(frozen=True)
class ServiceProcess:
    """A running service program. Its standard output is a pipe."""

    process: subprocess.Popen[bytes]
    _monitor: ResourceMonitor
    _allowed: Callable[[], bool]

    def violation(self) -> str:
        """Return which limit it exceeded; empty while it exceeds none. Cheap to call often."""
        return "" if self._allowed() else self._monitor.violation
