"""A command that an agent or the tests of a merged tree run, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

SandboxMode = Literal["auto", "required", "off"]

MOUNT = "/workspace"
"""Where models and sandboxed commands see the workspace."""

RESULTS = "{results}"
"""In an argument: replaced by where the command sees `Command.results`."""


@dataclass(frozen=True)
class Command:
    """What to run. `folder` is writable, is the working directory, and is all of the project that is seen."""

    argv: tuple[str, ...]
    folder: Path
    timeout_s: float
    results: Path | None = None
    """A second writable folder, outside `folder`, for what the command reports."""
    output_limit: int = 30_000
    """Characters of output kept; the middle is cut out of longer output."""


@dataclass(frozen=True)
class CommandResult:
    """How a command ended. Everything it started is gone by now."""

    code: int
    """Exit code; 128 + N when killed by signal N."""
    output: str
    """Standard output and error together, as they came."""
    timed_out: bool
    seconds: float
    starved: bool = False
    """It ended badly while the kernel killed processes for lack of memory: its end proves nothing."""
    memory: int = 0
    """Most bytes that it and its children were seen to use; 0 where that was not measured."""


CommandRunner = Callable[[Command], CommandResult]
"""Runs a command to its end, in a sandbox or not. Raises OrchestratorError when it cannot be started."""


class PrewarmedRunner(Protocol):
    """A sandbox that was started before its command is known. Used once, then closed."""

    def __call__(self, command: Command) -> CommandResult:
        """Run the command; in the sandbox that waits where it can be, otherwise as the runner does."""
        ...

    def close(self) -> None:
        """Leave nothing of it."""


Prewarm = Callable[[Command], PrewarmedRunner]
"""Starts a sandbox for a command like this one, over its folders, which may be filled until it runs."""
