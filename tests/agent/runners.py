"""The two ways to run a command, and what tests of them use."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from parallel_orchestrator.records.command import Command, CommandResult, CommandRunner
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.sandbox.runner import BubblewrapRunner, PlainRunner, detect

ROOT = Path(__file__).resolve().parents[2]


def _bubblewrap() -> BubblewrapRunner | str:
    try:
        found = detect("required")
    except UsageError as error:
        return str(error)
    assert isinstance(found, BubblewrapRunner)
    return found


BUBBLEWRAP = _bubblewrap()
needs_bubblewrap = pytest.mark.skipif(isinstance(BUBBLEWRAP, str), reason=str(BUBBLEWRAP))
SANDBOXED = pytest.param(BUBBLEWRAP, id="bubblewrap", marks=needs_bubblewrap)
BOTH = [SANDBOXED, pytest.param(PlainRunner(), id="plain")]
in_both = pytest.mark.parametrize("runner", BOTH)
in_sandbox = pytest.mark.parametrize("runner", [SANDBOXED])


def sh(runner: CommandRunner, folder: Path, script: str, timeout_s: float = 60, limit: int = 30_000) -> CommandResult:
    return runner(Command(("bash", "-c", script), folder, timeout_s, output_limit=limit))


def running(marker: str) -> list[int]:
    """Processes whose command line holds the marker."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdecimal() and marker.encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root owns the host's device nodes")
