"""logs: a run's log, or the conversation of a task. It reads files alone and works while the run does."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from parallel_orchestrator.cli import completion
from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.cmd_status import looks, place_of
from parallel_orchestrator.cli.output import CliResult
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.report.pages.transcript_page import page_lines
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.system.tail import Tail
from parallel_orchestrator.system.terminal_text import one_line

Render = Callable[[bytes], Iterable[str]]


def logs(
    directory: p.RunOrBatch,
    task: Annotated[
        str | None,
        typer.Argument(
            help="A task, to read its conversation; in a batch SCENARIO/TASK.",
            metavar="TASK",
            autocompletion=completion.tasks,
        ),
    ] = None,
    *,
    follow: p.Follow = False,
    tail: Annotated[
        int, typer.Option(min=0, help="Begin with the last N lines, of a conversation the last N steps; 0: all.")
    ] = 100,
) -> CliResult:
    """Show a run's log, or a task's conversation.

    The conversation is what the model of one task said, which tools it called, and what came back, long parts cut.
    """
    place = place_of(directory)
    path, render = (_log_of(place), _log_line) if task is None else _conversation(place, task)
    if not path.exists():
        raise UsageError(f"{path} is not there: nothing has happened yet")
    count = tail or None
    if follow:
        finished = (place.summary,) if isinstance(place, RunDirectory) else ()
        with suppress(KeyboardInterrupt):
            _print(render, _follow_file(path, place.run_lock, count, *finished))
        return CliResult("", {"file": str(path)})
    lines = [text for line in Tail(path, count).read_new() for text in render(line)]
    return CliResult("\n".join(lines), {"file": str(path), "lines": lines})


def _follow_file(path: Path, lock: Path, count: int | None, *finished: Path) -> Iterator[bytes]:
    """The last `count` lines of a file, and those that are added until the run ends."""
    tail = Tail(path, count)
    for _ in looks(lock, *finished):
        yield from tail.read_new()


def _log_of(place: RunDirectory | BatchDirectory) -> Path:
    """Where is written what happened: to a run of a batch, in the batch's log until it has gone on alone."""
    in_batch = isinstance(place, RunDirectory) and place.batch and not place.log.exists()
    return place.root.parent / place.log.name if in_batch else place.log


def _log_line(line: bytes) -> Iterator[str]:
    yield one_line(line.decode("utf-8", errors="replace"))


def _conversation(place: RunDirectory | BatchDirectory, task: str) -> tuple[Path, Render]:
    """The transcript of a task's last attempt, and how to show it. Raises UsageError."""
    scenario, slash, name = task.rpartition("/")
    if isinstance(place, BatchDirectory):
        if not slash:
            raise UsageError(f"{place.root} is a batch: name the task as SCENARIO/TASK")
        if not RunDirectory(place.root / scenario).scenario.exists():
            raise UsageError(f"{place.root} has no run in a folder {scenario}")
        return _conversation(RunDirectory(place.root / scenario), name)
    found = _transcripts(place)
    if task not in found:
        near = difflib.get_close_matches(task, found, 1)
        meant = f" Did you mean {near[0]}?" if near else f" There are those of {', '.join(found)}." if found else ""
        raise UsageError(f"no conversation of {task!r} has begun in {place.root}.{meant}")
    return found[task], page_lines


def _transcripts(run: RunDirectory) -> dict[str, Path]:
    """By task, that of the last attempt."""
    found: dict[str, tuple[int, Path]] = {}
    for path in run.root.glob("executor_*/*.jsonl"):
        match = re.fullmatch(r"(?P<task>.+?)(\.(?P<attempt>\d+))?\.jsonl", path.name)
        if match:
            attempt = int(match["attempt"] or 1)
            found[match["task"]] = max(found.get(match["task"], (0, path)), (attempt, path))
    return {task: found[task][1] for task in sorted(found, key=lambda task: (len(task), task))}


def _print(render: Render, lines: Iterable[bytes]) -> None:
    for line in lines:
        for text in render(line):
            print(text, flush=True)
