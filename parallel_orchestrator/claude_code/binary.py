"""Finds Claude Code: the program of the `claude-code` extra, or a `claude` on the PATH."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from parallel_orchestrator.claude_code.host_settings import HostSettings
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.system.environment import clean_environment

_PATIENCE_S = 30
_ELF = b"\x7fELF"

MISSING = (
    "Claude Code was not found: install it with `pip install 'parallel-orchestrator[claude-code]'`, or put a native "
    "`claude` on the PATH; or run with --backend api"
)


@dataclass(frozen=True)
class ClaudeCodeProgram:
    """One installed Claude Code."""

    path: Path
    source: str
    """Where it comes from, for people."""
    version: str


def find() -> ClaudeCodeProgram:
    """Returns the program, the extra's before the PATH's. Raises UsageError if none is found or it does not start."""
    candidate = _of_the_extra() or _on_the_path()
    if candidate is None:
        raise UsageError(MISSING)
    path, source = candidate
    return ClaudeCodeProgram(path, source, _version(path))


def acting(scenario: Scenario) -> str:
    """Says which Claude Code a run uses, and for what; empty if it uses none. Raises UsageError as `find` does."""
    backends = {"planner": scenario.planner_backend, "executors": scenario.backend}
    roles = [role for role, backend in backends.items() if backend == "claude-code"]
    if not roles:
        return ""
    program = find()
    text = f"Claude Code {program.version} from {program.source} acts as {' and '.join(roles)}"
    if scenario.claude_settings == "host":
        text += f", with {HostSettings.read(os.environ).describe()}"
    return text


def _of_the_extra() -> tuple[Path, str] | None:
    spec = importlib.util.find_spec("claude_agent_sdk")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "_bundled" / "claude"
    return (path, "the claude-code extra") if os.access(path, os.X_OK) else None


def _on_the_path() -> tuple[Path, str] | None:
    named = shutil.which("claude")
    if named is None:
        return None
    path = Path(named).resolve()  # the sandbox mounts the program itself, not the folder of a link to it
    with path.open("rb") as file:
        if file.read(4) != _ELF:
            raise UsageError(
                f"{named} is a script, and only the native Claude Code runs in the sandbox: install it with "
                "`pip install 'parallel-orchestrator[claude-code]'`"
            )
    return path, f"the PATH ({named})"


@cache
def _version(path: Path) -> str:
    """Returns the program's version. It runs with an empty home, so that it does not write into the user's."""
    with tempfile.TemporaryDirectory(prefix="claude-") as home:
        try:
            done = subprocess.run(
                [str(path), "--version"],
                env={**clean_environment(os.environ), "HOME": home, "CLAUDE_CONFIG_DIR": home},
                capture_output=True,
                text=True,
                timeout=_PATIENCE_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise UsageError(f"{path} does not start ({error}); reinstall Claude Code") from error
    return done.stdout.split()[0] if done.stdout.split() else "unknown"
