"""What the commands that build share: their options, the build, and the hint by which command to resume."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from parallel_orchestrator.cli.output import CliResult
from parallel_orchestrator.config.options import Options
from parallel_orchestrator.config.requirement import from_file, understood
from parallel_orchestrator.config.settings import fields_of
from parallel_orchestrator.records.errors import (
    BudgetReached,
    CannotGoOn,
    EndpointUnusable,
    Interrupted,
    KeyRefused,
    ModelUnknown,
    OrchestratorError,
)
from parallel_orchestrator.report.facts.batch_summary import BatchSummary
from parallel_orchestrator.report.pages.batch_page import batch_text, totals
from parallel_orchestrator.report.pages.summary_text import summary_text
from parallel_orchestrator.report.pages.wrapping import folded
from parallel_orchestrator.run import manifest, start
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.run_directory import require_scenario
from parallel_orchestrator.system.invocation import command, command_with
from parallel_orchestrator.system.terminal_text import indented

_SETTINGS = (
    *("max_executors", "model", "backend", "claude_settings", "max_cost", "yes", "max_turns", "task_timeout"),
    *("fix_rounds", "sandbox", "endpoint_profile", "endpoint_patience", "speed", "prices", "allow_install"),
)
"""Parameters that set a field of the scenario; all others say which run to start."""


def explicit(parameters: Mapping[str, Any], *, but: Sequence[str] = ()) -> dict[str, Any]:
    """The scenario's fields that a command's parameters set. Options left out must not overwrite what a file says."""
    names = (name for name in _SETTINGS if name in parameters and name not in but)
    return fields_of({name: None if parameters[name] is False else parameters[name] for name in names})


def requirement_of(typed: str | None, file: Path | None) -> str:
    """What to build, typed or in a file; one of the two is given. Raises UsageError."""
    return from_file(file) if file else understood(str(typed))


def build_run(options: Options, retry: Sequence[str] | None = None, *, again: bool = False) -> CliResult:
    """Build or resume a run. `again`: say of a finished run that the same command with --fresh builds it once more."""
    run = start.make_run(options, retry=retry, ask=_ask_on_terminal())
    directory = run.directory.root
    with with_resume_hint(directory):
        summary = start.execute(run)
    text = summary_text(summary, directory)
    if again and run.found_finished:
        text += f"\n  again:    {command_with()}"
    result = {"directory": str(directory), "summary": summary.as_json()}
    return CliResult(text, result, 0 if summary.succeeded() else 1, text.partition("\n")[0])


def build_batch(request: start.BatchRequest) -> CliResult:
    """Build or resume a batch. What stops it has the summary with it."""
    try:
        with with_resume_hint(request.folder):
            summary = start.execute_batch(request)
        return _batch_result(request.folder, summary, _next_commands(request.folder, summary))
    except OrchestratorError as error:
        if error.summary is None:
            raise
        return replace(_batch_result(request.folder, error.summary), error=error)


def _batch_result(folder: Path, summary: BatchSummary, following: Sequence[str] = ()) -> CliResult:
    lines = [batch_text(summary), f"more in {folder / 'batch_summary.md'}", *(f"next:  {one}" for one in following)]
    result = {"directory": str(folder.absolute()), "summary": summary.as_json(), "next": list(following)}
    return CliResult("\n".join(lines), result, summary.exit_code, totals(summary))


def _ask_on_terminal() -> Callable[[str], bool] | None:
    """Asks a question and returns whether the answer is yes; None where standard input or error is not a terminal."""
    return _ask if sys.stdin and sys.stdin.isatty() and sys.stderr.isatty() else None


def _ask(question: str) -> bool:
    """Whether the person answers yes; anything else, the end of the input included, is a no."""
    print(folded(indented(f"{question} [y/N]"), sys.stderr), end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def with_resume_hint(directory: Path) -> Iterator[None]:
    """An error that stops the block and permits a resume says by which command. Ctrl-C becomes an error like others."""
    try:
        yield
    except (CannotGoOn, EndpointUnusable, KeyRefused, ModelUnknown, Interrupted, KeyboardInterrupt) as error:
        stop = Interrupted("interrupted") if isinstance(error, KeyboardInterrupt) else error
        if RunDirectory(directory).scenario.exists() or BatchDirectory(directory).config.exists():
            more = f" --max-cost {_raised_cap(directory):g}" if isinstance(stop, BudgetReached) else ""
            more += " --model MODEL" * isinstance(stop, ModelUnknown)
            stop.add_note(f"to go on: {command('resume', directory)}{more}")
            if isinstance(stop, ModelUnknown):
                stop.add_note(f"for tasks that failed before: {command('retry', directory)}{more}")
        raise stop from error.__cause__


def _next_commands(folder: Path, summary: BatchSummary) -> list[str]:
    """What to type after a batch that came to its end, where not all of it is done."""
    lines, whole = [], set()
    for one in summary.scenarios:
        if one.exit_code == BudgetReached.exit_code:  # its own cap, which the batch's options do not raise
            own = folder / one.folder
            lines.append(f"{command('resume', own)} --max-cost {_raised_cap(own):g}")
        elif one.exit_code:
            whole.add("retry" if one.status == "failed" else "resume")
    return lines + [command(name, folder) for name in sorted(whole)]


def _raised_cap(directory: Path) -> float:
    """Twice the USD at which a run or a batch stopped."""
    batch = BatchDirectory(directory)
    cap = (
        manifest.load(batch).max_cost_usd
        if batch.config.exists()
        else require_scenario(RunDirectory(directory)).max_cost_usd
    )
    return 2 * (cap or 0.5)
