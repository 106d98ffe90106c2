"""Run tests in clones that lie elsewhere: `python -m tests.checks.surroundings [PLACE ...] [-- PYTEST ARGUMENTS]`.

Each place is a clone of the last commit with an environment of its own, its packages copied from this one:

    tmp      below /tmp, as root or whoever calls
    spaces   below a folder whose name has spaces and letters beyond ASCII
    link     below a home folder that is reached through a symbolic link
    user     as an ordinary user (only root can make one)
    without  on a PATH without bubblewrap: what needs it is skipped, with the reason

Without PLACES all are tried, without arguments the tests that depend most on where they run. Exit code 1 when any
place fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.attacks import other_user

ROOT = Path(__file__).resolve().parents[2]
SENSITIVE = (
    *("tests/agent/test_sandbox.py", "tests/agent/test_paths.py", "tests/cli/test_start.py", "tests/trunk/test_git.py"),
    *("tests/trunk/test_processes.py", "tests/end_to_end/test_command_line.py", "tests/store/test_program.py"),
)
LEFT_OUT = shutil.ignore_patterns("__pycache__", "claude_agent_sdk")


@dataclass(frozen=True)
class Place:
    """Where a clone lies, and how its tests are started."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    become: Sequence[str] = ()
    """Words before a command that run it as somebody else."""


def main(words: list[str]) -> int:
    """Try the places named, or all."""
    at = words.index("--") if "--" in words else len(words)
    names, arguments = words[:at], words[at + 1 :]
    unknown = [name for name in names if name not in PLACES]
    if unknown:
        print(f"there is no place {unknown[0]}; there are {', '.join(PLACES)}")
        return 2
    failed = [name for name in names or PLACES if not _tried(name, arguments or ["-n", "2", *SENSITIVE])]
    print(f"failed in: {', '.join(failed)}" if failed else "passed in every place")
    return 1 if failed else 0


def _tried(name: str, arguments: list[str]) -> bool:
    """Whether the tests pass in that place; a place that cannot be made here is left out, with the reason."""
    with tempfile.TemporaryDirectory(prefix="elsewhere-", dir="/tmp", ignore_cleanup_errors=True) as top:
        Path(top).chmod(0o755)
        with PLACES[name](Path(top)) as place:
            if isinstance(place, str):
                print(f"{name}: left out: {place}", flush=True)
                return True
            print(f"{name}: {place.folder}", flush=True)
            python = _clone(place.folder)
            return _pytest(place, python, arguments) == 0


def _clone(folder: Path) -> Path:
    """A clone of the last commit, with an environment made there; its Python."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / ".venv")], check=True)
    python = folder / ".venv/bin/python"
    ours, its = (
        Path(sysconfig.get_path("purelib", vars={"base": base})) for base in (sys.prefix, str(folder / ".venv"))
    )
    shutil.copytree(ours, its, dirs_exist_ok=True, symlinks=True, ignore=LEFT_OUT)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*install, "--no-build-isolation", "--editable", str(folder)], check=True)
    return python


def _pytest(place: Place, python: Path, arguments: list[str]) -> int:
    if place.become:
        subprocess.run(["chown", "-R", f"{other_user.UID}:{other_user.UID}", str(place.folder)], check=True)
    command = [*place.become, str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not thorough"]
    environment = {**os.environ, **place.environment}
    return subprocess.run([*command, *arguments], cwd=place.folder, env=environment, check=False).returncode


@contextmanager
def _tmp(top: Path) -> Iterator[Place | str]:
    yield Place(top / "clone")


@contextmanager
def _spaces(top: Path) -> Iterator[Place | str]:
    (top / "a b" / "ü").mkdir(parents=True)
    yield Place(top / "a b" / "ü" / "the clone")


@contextmanager
def _link(top: Path) -> Iterator[Place | str]:
    (top / "disk" / "home").mkdir(parents=True)
    (top / "home").symlink_to(top / "disk" / "home")
    yield Place(top / "home" / "clone", {"HOME": str(top / "home")})


@contextmanager
def _user(_: Path) -> Iterator[Place | str]:
    if os.geteuid() != 0:
        yield "this is an ordinary user already"
    elif why := other_user.impossible():
        yield why
    else:
        with other_user.ordinary_user() as (home, become):
            yield Place(home / "clone", {"HOME": str(home), "USER": "tests", "LOGNAME": "tests"}, become)


@contextmanager
def _without(top: Path) -> Iterator[Place | str]:
    """A PATH of links to all that is on it but bubblewrap."""
    (top / "bin").mkdir()
    for folder in map(Path, os.environ["PATH"].split(os.pathsep)):
        for program in folder.iterdir() if folder.is_dir() else ():
            link = top / "bin" / program.name
            if program.name != "bwrap" and not link.is_symlink():
                link.symlink_to(program)
    yield Place(top / "clone", {"PATH": str(top / "bin")})


PLACES: dict[str, Callable[[Path], AbstractContextManager[Place | str]]] = {
    "tmp": _tmp,
    "spaces": _spaces,
    "link": _link,
    "user": _user,
    "without": _without,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
