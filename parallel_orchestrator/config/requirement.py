"""What to build: a text, or the text of a file that is named in its place. A file's name is never planned as words."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.system.user_file import Unusable, read_user_file

_NAME_OF_A_FILE = re.compile(
    r"\S+\.(md|markdown|txt|text|rst|adoc|org|pdf|docx?|odt|rtf|html?|tex|csv|json|ya?ml|toml)", re.I
)
_PATH = re.compile(r"(~|\.{0,2})/\S*|[^\s/]+/\S*")
_STRUCTURED = (".yaml", ".yml", ".json", ".toml")
"""Files that are rather a scenario file or a plan than a text."""


def looks_like_a_file(text: str) -> bool:
    """Whether a text is written as the name of a file: one word with a known ending, or a path."""
    return bool(_NAME_OF_A_FILE.fullmatch(text) or _PATH.fullmatch(text))


def understood(text: str) -> str:
    """The requirement that a person typed: the text itself, or what is in the file that it names.

    Raises UsageError where a file is named that cannot be used, and where both may be meant.
    """
    name = text.strip()
    path = Path(name).expanduser() if name.startswith("~") else Path(name)
    there = _kind(path) if name and "\n" not in name else ""
    if not there:
        if looks_like_a_file(name):
            raise UsageError(
                f"there is no file {name}{_near(path)}. To give the requirement in words, write a sentence"
            )
        return text
    if there == "folder" and not looks_like_a_file(name):
        return text  # a folder may have the name of what is to be built
    if there == "folder":
        raise UsageError(
            f"{name} is a folder. To resume the run in it: resume {name}. To build what a file says, name that file"
        )
    if path.suffix.lower() in _STRUCTURED:
        raise UsageError(
            f"{name} is a file that may be meant in several ways: --config {name} if it is a scenario file, "
            f"--plan {name} and a requirement if it is a plan, --requirements-file {name} if it says what to build"
        )
    if not looks_like_a_file(name):
        raise UsageError(
            f"{name!r} is the name of a file, too. To build what is in it: --requirements-file {name!r}. To build what "
            "the words say, put them in a longer sentence"
        )
    return from_file(path)


def from_file(path: Path) -> str:
    """The requirement that a text file holds. Raises UsageError."""
    try:
        text = read_user_file(path)
    except Unusable as error:
        hint = "" if _kind(path) else _near(path)
        raise UsageError(f"cannot read the requirement {path}: {error}{hint}") from error
    if not text.strip():
        raise UsageError(f"{path} is empty: say in it what to build")
    return text


def _kind(path: Path) -> str:
    """Returns `file` or `folder`; empty where neither exists."""
    try:
        return "folder" if path.is_dir() else "file" if path.exists() else ""
    except (OSError, ValueError):
        return ""


def _near(path: Path) -> str:
    """Returns a hint that names a file of nearly that name; empty where there is none."""
    try:
        names = [one.name for one in path.parent.iterdir() if one.is_file()]
    except (OSError, ValueError):
        return ""
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(path.name.lower(), by_lower, 1)
    return f"; did you mean {path.with_name(by_lower[near[0]])}?" if near else ""
