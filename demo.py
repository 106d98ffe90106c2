"""The demonstration: build three projects from written recordings, one of your own, or compare one executor with many.

    python demo.py                      a menu
    python demo.py --scenario medium    one of them, without asking
    python demo.py --compare            each of them with one executor and in parallel

The recordings were written by hand; no model is asked and nothing is spent. Times are real: the recorded waiting for
the model is divided by the speed that is shown, tools and tests take what they take on this machine. A requirement of
your own needs a key, for Anthropic's API or another endpoint.
"""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from parallel_orchestrator.system.invocation import require_packages

if __name__ == "__main__":
    require_packages()

import typer

from parallel_orchestrator.cli.app import CliCommand, run_app
from parallel_orchestrator.cli.building import with_resume_hint
from parallel_orchestrator.config.credentials import credential_from
from parallel_orchestrator.config.options import Options
from parallel_orchestrator.config.requirement import understood
from parallel_orchestrator.config.scenarios import load_options
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.records.plan import OUR_DOCUMENTS
from parallel_orchestrator.report.facts.documents import Summary
from parallel_orchestrator.report.pages.summary_text import summary_text
from parallel_orchestrator.report.pages.wrapping import folded, output_columns
from parallel_orchestrator.run.prepare import PRELOAD
from parallel_orchestrator.run.start import execute, make_run
from parallel_orchestrator.store.journal import read_all
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.record_parser import QUEUE
from parallel_orchestrator.workers.forking import start_process

CONFIG = Path(__file__).parent / "configs" / "demo.yaml"
SCENARIOS = ("simple", "medium", "complex")
BAR = 40
"""Characters of the longest bar, where there is room."""
LABEL = 17
"""Characters before what a row says."""
COMPARE_SPEED = 50.0
"""Of a comparison unless said: at the speed of configs/demo.yaml its six runs would take more than two minutes."""
USUAL_CAP_USD = 5.0
AGAIN = (Path(__file__).name, "--scenario")

MENU = """
What shall be built?
  1  simple    a hello world function: 1 task
  2  medium    a todo list application: 6 tasks
  3  complex   an e-commerce platform: 12 tasks
  4  custom    your own (needs a key)
  5  compare   all three, with one executor and in parallel
"""


NEEDED = """\
no model to ask. For a project of your own one is needed:
  export ANTHROPIC_API_KEY=…            Anthropic's API (or ANTHROPIC_AUTH_TOKEN)
  export ANTHROPIC_BASE_URL=http://…    any endpoint with the Messages API, and its key if it wants one\
"""


@dataclass(frozen=True)
class Measured:
    """One run, and how long a person waited for it."""

    summary: Summary
    elapsed_s: float
    """From the first check to the last test."""
    directory: Path
    last_tests_s: float = 0.0
    """From the last merge to the end, when nothing else can be done any more."""

    @property
    def serial_s(self) -> float:
        """Planning and the last tests: what no number of executors makes shorter."""
        return self.summary.planning.endpoint_s + self.last_tests_s

    @property
    def work_s(self) -> float:
        """Of planner, executors and the last tests together."""
        return self.summary.work_s + self.serial_s

    @property
    def path_s(self) -> float:
        """Planning, the longest chain of tasks that wait for each other, and the last tests."""
        return self.summary.critical_path_s + self.serial_s

    @property
    def bound_s(self) -> float:
        """What so many executors cannot be quicker than."""
        return max(self.path_s, self.work_s / max(1, self.summary.executors_used))


def build(options: Options) -> Measured:
    """Run to the end and give an account of it. Of a finished run it says how to build it again."""
    run = make_run(options)
    directory, started = run.directory.root, time.monotonic()
    with with_resume_hint(directory):
        summary = execute(run)
    ended = time.monotonic()
    typer.echo(folded(summary_text(summary, directory), sys.stdout))
    if run.found_finished:
        typer.echo(f"  again:    {shlex.join([sys.orig_argv[0], *AGAIN, str(options.replay), '--fresh'])}")
    moves = [move.mono for move in read_all(RunDirectory(directory).queue, QUEUE) if move.mono >= started]
    return Measured(summary, ended - started, directory, ended - moves[-1] if moves else 0.0)


def recorded(name: str, folder: str, **settings: Any) -> Options:
    """The options of a recorded scenario, its output in a folder of that name under outputs/."""
    options = load_options(CONFIG, name)
    options.output_dir = Path("outputs") / folder
    options.settings |= settings
    return options


def compare(name: str, speed: float = COMPARE_SPEED) -> tuple[Measured, Measured]:
    """Build one scenario twice, with one executor and in parallel, and show both."""
    runs = []
    for folder, settings in ((f"compare-{name}-sequential", {"max_executors": 1}), (f"compare-{name}-parallel", {})):
        options = recorded(name, folder, speed=speed, **settings)
        forget(options.output_dir)
        typer.echo(f"\n{name}, {'one executor' if settings else 'in parallel'}")
        runs.append(build(options))
    one, many = runs
    typer.echo(comparison(name, one, many, speed))
    return one, many


def compare_each(names: Sequence[str], speed: float = COMPARE_SPEED) -> bool:
    """Compare all of them, also after one that went wrong; whether all went well."""
    # What every first run has to wait for once, neither side is to be charged with.
    start_process(time.sleep, (0,), "warm-up", PRELOAD).join()
    compared = {name: compare(name, speed) for name in names}
    if len(compared) > 1:
        typer.echo(at_a_glance(compared))
    return all(
        one.summary.succeeded() and many.summary.succeeded() and same_project(one, many)
        for one, many in compared.values()
    )


def at_a_glance(compared: Mapping[str, tuple[Measured, Measured]]) -> str:
    """All comparisons, one line each."""
    rows = [("", "one executor", "in parallel", "speedup", "projects")]
    rows += [
        (
            name,
            f"{one.elapsed_s:.1f} s",
            f"{many.elapsed_s:.1f} s",
            f"{one.elapsed_s / many.elapsed_s:.2f}",
            "identical" if same_project(one, many) else "DIFFERENT",
        )
        for name, (one, many) in compared.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    cells = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\nall of them\n" + "\n".join(f"  {line}" for line in cells)


def forget(directory: Path | None) -> None:
    """Remove an earlier comparison, so that both sides are run and neither is found finished."""
    if directory and (directory / "scenario.json").exists():
        shutil.rmtree(directory)


def comparison(name: str, one: Measured, many: Measured, speed: float) -> str:
    """The two runs beside each other, with bars."""
    summary, executors = many.summary, many.summary.executors_used
    speedup = one.elapsed_s / many.elapsed_s
    read = summary.tokens.input + summary.tokens.cache_read + summary.tokens.cache_write
    longest = max(one.elapsed_s, many.elapsed_s)
    rows = [
        ("speed", f"the model {speed:g} times as fast as recorded; tools and tests in real time"),
        ("tasks", f"{summary.completed} of {summary.total_tasks}"),
        ("executors", f"1 against {executors} (at most {summary.executors_budget})"),
        (
            "work",
            f"{many.work_s:.1f} s, planning {summary.planning.endpoint_s:.1f} s and the last tests "
            f"{many.last_tests_s:.1f} s included",
        ),
        ("critical path", f"{many.path_s:.1f} s, the same included"),
        ("lower bound", f"{many.bound_s:.1f} s, the longer of critical path and work / executors"),
        (
            "elapsed",
            f"{one.elapsed_s:.1f} s against {many.elapsed_s:.1f} s, {many.elapsed_s / many.bound_s:.2f} of the bound",
        ),
        ("speedup", f"{speedup:.2f}, efficiency {speedup / executors:.0%}"),
        ("model calls", f"{summary.model_calls}; {read} tokens read, {summary.tokens.output} written"),
        ("cost", f"${summary.cost_usd:.2f} (when recorded: ${summary.recorded_cost_usd:.2f})"),
        ("projects", "identical" if same_project(one, many) else "DIFFERENT"),
        ("one executor", bar(one.elapsed_s, longest)),
        ("in parallel", bar(many.elapsed_s, longest)),
    ]
    return f"\n{name}\n" + table(rows)


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Labels and what they say, that folded in its column on a narrow terminal."""
    room = max(20, output_columns() - LABEL)
    wrapped = [(label, textwrap.wrap(value, room, break_long_words=False)) for label, value in rows]
    return "\n".join(f"  {label:<{LABEL - 2}}" + f"\n{' ' * LABEL}".join(lines) for label, lines in wrapped)


def bar(seconds: float, longest: float) -> str:
    """A bar of that many seconds, for a chart whose longest is given."""
    room = max(10, min(BAR, output_columns() - LABEL - len(" 10000.0 s")))
    return "█" * round(room * seconds / longest) + f" {seconds:.1f} s"


def computed(run: Measured) -> str:
    """A run beside what one executor would have taken: its own tasks one after the other, at no second bill."""
    summary = run.summary
    if not summary.makespan_s:
        return "no task was worked on, so there is nothing to compare"
    many, one = summary.makespan_s, summary.work_s
    longest = max(one, many)
    rows = [
        ("one executor", f"{bar(one, longest)}, computed from this run's own tasks, not run"),
        ("in parallel", f"{bar(many, longest)}, measured"),
        ("speedup", f"{one / many:.2f}"),
    ]
    return table(rows)


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
    speed: Annotated[
        float | None,
        typer.Option(min=0.01, help="Recorded latencies are divided by this. [10; with --compare 50]"),
    ] = None,
    *,
    fresh: Annotated[bool, typer.Option("--fresh", help="Build again what is finished; it is moved aside.")] = False,
) -> None:
    """Build a demonstration project from its recording, or compare one executor with many."""
    if scenario is not None and scenario not in SCENARIOS:
        near = difflib.get_close_matches(scenario, SCENARIOS, 1)
        meant = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(SCENARIOS)}"
        raise UsageError(f"there is no demonstration {scenario!r}; {meant}")
    if compare_all or (yes and scenario is None):
        good = compare_each([scenario] if scenario else SCENARIOS, speed or COMPARE_SPEED)
    elif scenario:
        good = one_of_them(scenario, speed, fresh=fresh)
    else:
        good = choose(speed, fresh=fresh)
    raise typer.Exit(0 if good else 1)


def one_of_them(name: str, speed: float | None, *, fresh: bool = False) -> bool:
    """Build a recorded scenario; whether it went well."""
    settings = {} if speed is None else {"speed": speed}
    options = recorded(name, f"demo-{name}", **settings)
    options.fresh = fresh
    return build(options).summary.succeeded()


def choose(speed: float | None, *, fresh: bool = False) -> bool:
    """Ask what to do, and do it."""
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on; choose with --scenario simple|medium|complex or --compare")
    typer.echo(MENU)
    while (choice := typer.prompt("Your choice", type=int, default=2)) not in range(1, 6):
        typer.echo("Choose a number from 1 to 5.")
    if choice == 4:
        return of_your_own()
    if choice == 5:
        return compare_each(SCENARIOS, speed or COMPARE_SPEED)
    return one_of_them(SCENARIOS[choice - 1], speed, fresh=fresh)


def of_your_own() -> bool:
    """Ask for a requirement and build it with a live model; whether it went well."""
    try:
        paying = credential_from(os.environ)  # before anything is typed
    except UsageError as error:
        raise UsageError(NEEDED) from error
    requirement = understood(typer.prompt("What shall be built"))
    cap = typer.prompt("At most how many USD may it cost", type=float, default=USUAL_CAP_USD)
    if paying:
        typer.echo(f"{paying.describe()} pays.")
    built = build(Options(requirement, settings={"max_cost_usd": cap}))
    typer.echo(computed(built))
    return built.summary.succeeded()


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(cls=CliCommand)(demo)
    run_app(app)
