"""Commands that look at a run or a batch and change nothing in it. All work while it runs, and need no lock."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parallel_orchestrator.cli import completion
from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.answer import Answer
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.system.tail import Tail
from parallel_orchestrator.system.terminal_text import counted, one_line

if TYPE_CHECKING:
    Render = Callable[[bytes], Iterable[str]]


class Looking:
    """One method a command; its docstring is its help."""

    def status(self, directory: p.RunOrBatch, *, follow: p.Follow = False) -> Answer:
        """Show how a run or a batch stands.

        Each task, tests, cost, who works on it, and what to type next: from the files alone, also while it runs.
        """
        from parallel_orchestrator.report.pages.status_page import status_page
        from parallel_orchestrator.report.pages.wrapping import output_columns

        place = _place(directory)
        if follow:
            from parallel_orchestrator.cli.following import follow_batch, follow_run

            with suppress(KeyboardInterrupt):  # leaving the view is no failure: the run goes on
                follow_batch(place) if isinstance(place, BatchDirectory) else follow_run(place)
        status = _status(place)
        return Answer(status_page(status, output_columns()), status)

    def logs(
        self,
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
    ) -> Answer:
        """Show a run's log, or a task's conversation.

        The conversation is what the model of one task said, which tools it called, and what came back, long parts cut.
        """
        place = _place(directory)
        path, render = (_log_of(place), _log_line) if task is None else _conversation(place, task)
        if not path.exists():
            raise UsageError(f"{path} is not there: nothing has happened yet")
        count = tail or None
        if follow:
            from parallel_orchestrator.cli.following import follow_file

            finished = (place.summary,) if isinstance(place, RunDirectory) else ()
            with suppress(KeyboardInterrupt):
                _print(render, follow_file(path, place.run_lock, count, *finished))
            return Answer("", {"file": str(path)})
        lines = [text for line in Tail(path, count).read_new() for text in render(line)]
        return Answer("\n".join(lines), {"file": str(path), "lines": lines})

    def schema(self) -> Answer:
        """Print the JSON Schema of scenario files.

        Editors complete and check scenario files by it.
        """
        from parallel_orchestrator.config.schema import json_schema, schema_text

        return Answer(schema_text().rstrip(), {"schema": json_schema()})

    def export(
        self,
        directory: p.Directory,
        recording: Annotated[Path, typer.Option(help="The file to write.")],
    ) -> Answer:
        """Write a run's model answers as a recording.

        --replay plays them again, without a key.
        """
        from parallel_orchestrator.maintenance.export import export_recording

        count = export_recording(directory, recording)
        return Answer(
            f"{counted(count, 'answer')} written to {recording}", {"answers": count, "recording": str(recording)}
        )


def _place(directory: Path) -> RunDirectory | BatchDirectory:
    """The run or the batch that lies there. Raises UsageError."""
    root = directory.absolute()
    if BatchDirectory(root).config.exists():
        return BatchDirectory(root)
    if RunDirectory(root).scenario.exists():
        return RunDirectory(root)
    if not root.is_dir():
        raise UsageError(f"there is no folder {directory}")
    raise UsageError(f"{directory} holds neither a run nor a batch")


def _status(place: RunDirectory | BatchDirectory) -> dict[str, Any]:
    from parallel_orchestrator.report.facts.batch_status import batch_status
    from parallel_orchestrator.report.facts.status import run_status

    return batch_status(place) if isinstance(place, BatchDirectory) else run_status(place)


def _log_of(place: RunDirectory | BatchDirectory) -> Path:
    """Where is written what happened: to a run of a batch, in the batch's log until it has gone on alone."""
    in_batch = isinstance(place, RunDirectory) and place.batch and not place.log.exists()
    return place.root.parent / place.log.name if in_batch else place.log


def _log_line(line: bytes) -> Iterator[str]:
    yield one_line(line.decode("utf-8", errors="replace"))


def _conversation(place: RunDirectory | BatchDirectory, task: str) -> tuple[Path, Render]:
    """The transcript of a task's last attempt, and how to show it. Raises UsageError."""
    from parallel_orchestrator.report.pages.transcript_page import page_lines

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
