"""What the shell completes besides commands and options: run directories, tasks, scenario names.

A completion that cannot be made is empty: it never raises, and reads no more than it has to.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import typer

_NAME = re.compile(r"^[ \t]*(?:-[ \t]*)?(?:\{[ \t]*)?name:[ \t]*[\"']?([A-Za-z0-9][A-Za-z0-9_-]*)", re.MULTILINE)
_MOST_BYTES = 1_000_000


def runs(incomplete: str) -> list[str]:
    """Directories of runs and batches, and folders that may hold some; without a beginning those in outputs/."""
    typed = incomplete or "outputs/"
    folder, _, beginning = typed.rpartition("/")
    place = Path(folder or ("/" if typed.startswith("/") else "."))
    found = (path for path in _listed(place) if path.name.startswith(beginning or "") and _is_folder(path))
    return [f"{folder}/{path.name}" if folder else path.name for path in found if not path.name.startswith(".")]


def tasks(ctx: typer.Context, incomplete: str) -> list[str]:
    """Tasks of the run whose directory is typed; of a batch as SCENARIO/TASK."""
    directory = ctx.params.get("directory")
    if not directory:
        return []
    root = Path(directory)
    found = _tasks(root)
    if not found:
        found = [f"{run.name}/{task}" for run in _listed(root) if _is_folder(run) for task in _tasks(run)]
    return [task for task in found if task.startswith(incomplete)]


def scenarios(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the scenarios in the file that is typed."""
    config = ctx.params.get("config") or _typed_file()
    if not config:
        return []
    before, _, beginning = incomplete.rpartition(",")
    found = (name for name in _NAME.findall(_text(Path(config))) if name.startswith(beginning))
    return [f"{before},{name}" if before else name for name in found]


def _typed_file() -> str | None:
    """The scenario file among the words typed so far: before an option without its value, arguments are not parsed."""
    words = " ".join(os.environ.get(name, "") for name in ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")).split()
    return next((word for word in words if word.endswith((".yaml", ".yml"))), None)


def _tasks(run: Path) -> list[str]:
    try:
        return [str(task["id"]) for task in json.loads(_text(run / "execution_plan.json"))["tasks"]]
    except (ValueError, KeyError, TypeError):
        return []


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode(errors="replace")
    except (OSError, ValueError):
        return ""


def _listed(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except (OSError, ValueError):
        return


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False
