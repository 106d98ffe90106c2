"""How a person calls this program: what is told to be typed next has to work where it is read."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

NAME = "parallel-orchestrator"
_FILES = ("orchestrator.py", "demo.py")


def command(name: str, root: Path) -> str:
    """What to type to have the command `name` done with the directory of a run or a batch."""
    return f"{_program()} {name} {shlex.quote(str(root))}"


def _program() -> str:
    """As it was called itself. In a process that somebody else's program started, by its name."""
    called = Path(sys.argv[0])
    if called.name in _FILES:
        return f"{shlex.quote(sys.orig_argv[0])} {shlex.quote(str(called.with_name(_FILES[0])))}"
    if called.name == NAME and shutil.which(NAME) != sys.argv[0]:
        return shlex.quote(sys.argv[0])
    return NAME
