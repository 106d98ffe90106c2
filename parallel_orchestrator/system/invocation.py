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


OLDEST = (3, 11)
"""Python's version. What a script imports before `require_packages` has to be understood by older ones, too."""


def require_packages() -> None:
    """End a script that was called by a Python that is too old, or that has not the packages it needs."""
    if sys.version_info[:2] < OLDEST:
        raise SystemExit(
            f"error: {sys.executable} is Python {'.'.join(map(str, sys.version_info[:3]))}, which is too old. "
            f"This program needs Python {'.'.join(map(str, OLDEST))} or newer. "
            "In a clone `make setup PYTHON=python3.12` makes .venv/bin/python"
        )
    if find_spec("typer") is None:
        raise SystemExit(
            f"error: {sys.executable} lacks packages that this program needs. "
            "`make setup` makes .venv/bin/python, which has them"
        )


def command(name: str, root: Path) -> str:
    """What to type to have the command `name` done with the directory of a run or a batch."""
    return f"{called()} {name} {shlex.quote(str(root))}"


def typed_again(option: str = "--fresh") -> str:
    """The command line of this process, with one option more."""
    words = [word for word in sys.argv[1:] if word != option]
    place = words.index("--") if "--" in words else len(words)
    return f"{called()} {shlex.join([*words[:place], option, *words[place:]])}"


def help_of(command_path: str) -> str:
    """What to type for the help of a command. `command_path`: the program's name and the command's."""
    file = Path(sys.argv[0])
    if file.name == _FILES[1]:
        return f"{shlex.join([sys.orig_argv[0], str(file)])} --help"
    return " ".join([called(), *command_path.split()[1:], "--help"])


def called() -> str:
    """How this program was called. Where it is part of somebody else's, its name."""
    if known := os.environ.get(CALLED):
        return known
    file = Path(sys.argv[0])
    if file.name in _FILES:
        return f"{shlex.quote(sys.orig_argv[0])} {shlex.quote(str(file.with_name(_FILES[0])))}"
    if file.parts[-2:] == (NAME.replace("-", "_"), "__main__.py"):
        return f"{shlex.quote(sys.orig_argv[0])} -m {file.parent.name}"
    if file.name == NAME and shutil.which(NAME) != sys.argv[0]:
        return shlex.quote(sys.argv[0])
    return NAME
