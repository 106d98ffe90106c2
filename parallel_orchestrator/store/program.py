"""How a person calls this program: what is told to be typed next has to work where it is read."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

NAME = "parallel-orchestrator"
CALLED = "PARALLEL_ORCHESTRATOR_CALLED"
"""The variable by which gateway and executors know it, who tell such commands as well."""
_FILES = ("orchestrator.py", "demo.py")


def require_packages() -> None:
    """End a script that was called by a Python without the packages it needs."""
    if find_spec("typer") is None:
        raise SystemExit(
            f"error: {sys.executable} lacks packages that this program needs. "
            "`make setup` makes .venv/bin/python, which has them"
        )


def command(name: str, root: Path) -> str:
    """What to type to have the command `name` done with the directory of a run or a batch."""
    return f"{called()} {name} {shlex.quote(str(root))}"


def called() -> str:
    """How this program was called. Where it is part of somebody else's, its name."""
    if known := os.environ.get(CALLED):
        return known
    file = Path(sys.argv[0])
    if file.name in _FILES:
        return f"{shlex.quote(sys.orig_argv[0])} {shlex.quote(str(file.with_name(_FILES[0])))}"
    if file.name == NAME and shutil.which(NAME) != sys.argv[0]:
        return shlex.quote(sys.argv[0])
    return NAME
