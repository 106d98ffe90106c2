"""How the program was invoked, so that suggested commands can be pasted into the same shell."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

NAME = "parallel-orchestrator"
INVOKED_AS = "PARALLEL_ORCHESTRATOR_INVOKED_AS"
"""The variable that passes it to the gateway and the executors, whose messages suggest commands, too."""
_FILES = ("orchestrator.py", "demo.py")


OLDEST = (3, 11)
"""Python version. Modules that a script imports before `require_packages` must parse under older ones, too."""


def require_packages() -> None:
    """End the script with a message when its Python is too old or lacks the packages."""
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
    """Return the command line for command `name` on the directory of a run or a batch."""
    return f"{invoked_as()} {name} {shlex.quote(str(root))}"


def command_with(option: str = "--fresh") -> str:
    """Return the command line of this process with one more option."""
    words = [word for word in sys.argv[1:] if word != option]
    place = words.index("--") if "--" in words else len(words)
    return f"{invoked_as()} {shlex.join([*words[:place], option, *words[place:]])}"


def help_command(command_path: str) -> str:
    """Return the command line for a command's help. `command_path`: the program's name and the command's."""
    file = Path(sys.argv[0])
    if file.name == _FILES[1]:
        return f"{shlex.join([sys.orig_argv[0], str(file)])} --help"
    return " ".join([invoked_as(), *command_path.split()[1:], "--help"])


def invoked_as() -> str:
    """Return how this program was invoked, or its name when another program embeds it."""
    if known := os.environ.get(INVOKED_AS):
        return known
    file = Path(sys.argv[0])
    if file.name in _FILES:
        return f"{shlex.quote(sys.orig_argv[0])} {shlex.quote(str(file.with_name(_FILES[0])))}"
    if file.parts[-2:] == (NAME.replace("-", "_"), "__main__.py"):
        return f"{shlex.quote(sys.orig_argv[0])} -m {file.parent.name}"
    if file.name == NAME and shutil.which(NAME) != sys.argv[0]:
        return shlex.quote(sys.argv[0])
    return NAME
