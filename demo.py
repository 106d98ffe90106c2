"""The demonstration: build three projects from written recordings, one of your own, or compare one executor with many.

    python demo.py                      a menu
    python demo.py --scenario medium    one of them, without asking
    python demo.py --compare            each of them with one executor and in parallel

The recordings were written by hand; no model is asked and nothing is spent. Times are real, at the speed that
configs/demo.yaml sets. A requirement of your own needs a key or an endpoint.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator import start
from parallel_orchestrator.cli.app import run_app
from parallel_orchestrator.config.options import Options
from parallel_orchestrator.config.scenarios import load_options
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.records.plan import OUR_DOCUMENTS
from parallel_orchestrator.report.account import closing_account
from parallel_orchestrator.report.summary import succeeded

CONFIG = Path(__file__).parent / "configs" / "demo.yaml"
SCENARIOS = ("simple", "medium", "complex")
BAR = 40
"""Characters of the longest bar."""

MENU = """
What shall be built?
  1  simple    a hello world function: 1 task
  2  medium    a todo list application: 6 tasks
  3  complex   an e-commerce platform: 12 tasks
  4  custom    a requirement of your own (needs a key or an endpoint)
  5  compare   all three, with one executor and in parallel
"""


@dataclass(frozen=True)
class Measured:
    """One run, and how long a person waited for it."""

    summary: dict[str, Any]
    elapsed_s: float
    directory: Path


def build(options: Options) -> Measured:
    """Run to the end and give an account of it."""
    story = start(options)
    started = time.monotonic()
    summary = story.go()
    measured = Measured(summary, time.monotonic() - started, story.settled.directory)
    typer.echo(closing_account(summary, measured.directory))
    return measured


def recorded(name: str, folder: str, executors: int | None = None) -> Options:
    """The options of a recorded scenario, its output in a new folder of that name under outputs/."""
    options = load_options(CONFIG, name)
    options.output_dir = Path("outputs") / folder
    if executors is not None:
        options.settings["max_executors"] = executors
    return options


def compare(name: str) -> bool:
    """Build one scenario twice, with one executor and in parallel, and show both; whether all went well."""
    runs = []
    for folder, executors in ((f"compare-{name}-sequential", 1), (f"compare-{name}-parallel", None)):
        options = recorded(name, folder, executors)
        forget(options.output_dir)
        typer.echo(f"\n{name}, {'one executor' if executors else 'in parallel'}")
        runs.append(build(options))
    typer.echo(comparison(name, *runs))
    return all(succeeded(run.summary) for run in runs) and same_project(*runs)


def compare_each(names: Sequence[str]) -> bool:
    """Compare all of them, also after one that went wrong."""
    went_well = [compare(name) for name in names]
    return all(went_well)


def forget(directory: Path | None) -> None:
    """Remove an earlier comparison, so that both sides are run and neither is found finished."""
    if directory and (directory / "scenario.json").exists():
        shutil.rmtree(directory)


def comparison(name: str, one: Measured, many: Measured) -> str:
    """The two runs beside each other, with bars."""
    summary = many.summary
    executors, work, path = summary["executors_used"], summary["work_s"], summary["critical_path_s"]
    speedup = one.elapsed_s / many.elapsed_s
    read = sum(summary["tokens"][kind] for kind in ("input", "cache_read", "cache_write"))
    longest = max(one.elapsed_s, many.elapsed_s)
    rows = [
        ("tasks", f"{summary['completed']} of {summary['total_tasks']}"),
        ("executors", f"1 against {executors} (at most {summary['executors_budget']})"),
        ("work", f"{work:.1f} s of all executors together"),
        ("critical path", f"{path:.1f} s"),
        ("lower bound", f"{max(path, work / executors):.1f} s, the longer of critical path and work / executors"),
        ("elapsed", f"{one.elapsed_s:.1f} s against {many.elapsed_s:.1f} s, from the first check to the last test"),
        ("speedup", f"{speedup:.2f}, efficiency {speedup / executors:.0%}"),
        ("model calls", f"{summary['model_calls']}; {read} tokens read, {summary['tokens']['output']} written"),
        ("cost", f"${summary['cost_usd']:.2f} (when recorded: ${summary['recorded_cost_usd']:.2f})"),
        ("projects", "identical" if same_project(one, many) else "DIFFERENT"),
        ("one executor", "█" * round(BAR * one.elapsed_s / longest) + f" {one.elapsed_s:.1f} s"),
        ("in parallel", "█" * round(BAR * many.elapsed_s / longest) + f" {many.elapsed_s:.1f} s"),
    ]
    return f"\n{name}\n" + "\n".join(f"  {label:<14} {value}" for label, value in rows)


def computed(run: Measured) -> str:
    """A run beside what one executor would have taken: its own tasks one after the other, at no second bill."""
    summary = run.summary
    if not summary["makespan_s"]:
        return "no task was worked on, so there is nothing to compare"
    many, one = summary["makespan_s"], summary["work_s"]
    longest = max(one, many)
    rows = [
        (
            "one executor",
            "█" * round(BAR * one / longest) + f" {one:.1f} s, computed from this run's own tasks, not run",
        ),
        ("in parallel", "█" * round(BAR * many / longest) + f" {many:.1f} s, measured"),
        ("speedup", f"{one / many:.2f}"),
    ]
    return "\n".join(f"  {label:<14} {value}" for label, value in rows)


def same_project(one: Measured, many: Measured) -> bool:
    """Whether both runs built the same files, byte for byte."""
    return project_files(one.directory) == project_files(many.directory)


def project_files(directory: Path) -> dict[str, bytes]:
    """What the tasks wrote: all under src, tests and docs but our copies of plan and summary."""
    paths = (path for root in ("src", "tests", "docs") for path in (directory / root).rglob("*") if path.is_file())
    files = {path.relative_to(directory).as_posix(): path for path in paths if "__pycache__" not in path.parts}
    return {name: path.read_bytes() for name, path in files.items() if name not in OUR_DOCUMENTS}


def demo(
    scenario: Annotated[str | None, typer.Option(help="simple | medium | complex, without asking.")] = None,
    compare_all: Annotated[bool, typer.Option("--compare", help="One executor against many.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; without a choice, compare all.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")] = False,
) -> None:
    """Build a demonstration project from its recording, or compare one executor with many."""
    if scenario is not None and scenario not in SCENARIOS:
        raise UsageError(f"there is no demonstration {scenario!r}; choose one of {', '.join(SCENARIOS)}")
    if compare_all or (yes and scenario is None):
        good = compare_each([scenario] if scenario else SCENARIOS)
    elif scenario:
        good = succeeded(build(recorded(scenario, f"demo-{scenario}")).summary)
    else:
        good = choose()
    raise typer.Exit(0 if good else 1)


def choose() -> bool:
    """Ask what to do, and do it."""
    if not sys.stdin.isatty():
        raise UsageError("there is nobody to ask; choose with --scenario simple|medium|complex or --compare")
    typer.echo(MENU)
    choice = typer.prompt("Your choice", type=int, default=2)
    if 1 <= choice <= len(SCENARIOS):
        name = SCENARIOS[choice - 1]
        return succeeded(build(recorded(name, f"demo-{name}")).summary)
    if choice == 4:
        built = build(Options(typer.prompt("What shall be built?")))
        typer.echo(computed(built))
        return succeeded(built.summary)
    if choice == 5:
        return compare_each(SCENARIOS)
    raise UsageError(f"there is no choice {choice}; the menu has 1 to 5")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(demo)
    run_app(app)
