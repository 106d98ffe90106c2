"""The commands that a person types. Each turns its options into a run's options and starts it; nothing more."""

from __future__ import annotations

import importlib.metadata
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.default_command import DefaultRun
from parallel_orchestrator.records.errors import CannotGoOn, OrchestratorError, UsageError
from parallel_orchestrator.store.logfile import printable

if TYPE_CHECKING:
    from parallel_orchestrator.config.options import Options, Settled
    from parallel_orchestrator.records.plan import Plan

# Other modules are imported by the commands that need them: --help and completion must not wait for them.


class Story(Protocol):
    """A run that can be told; orchestrator.Run."""

    settled: Settled

    def go(self) -> dict[str, Any]:
        """Run it to its end; the summary."""

    def only_plan(self) -> Plan:
        """Run it until there is a plan."""


class Start(Protocol):
    """Makes a run of options; orchestrator.start."""

    def __call__(self, options: Options, *, retry: Sequence[str] | None = None) -> Story:
        """The run, checked as far as that goes without a directory."""


def make_app(start: Start, export: Callable[[Path, Path], int]) -> typer.Typer:
    """The command line. `export(directory, file)` writes a run's recording; the number of its answers."""
    app = typer.Typer(
        cls=DefaultRun,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog='A requirement alone is a run: orchestrator.py "Build a contact form with validation".',
    )
    app.callback()(_group)
    commands = _Commands(start, export)
    app.command(epilog='Example: orchestrator.py "Build a contact form with validation" --max-cost 5')(commands.run)
    app.command(epilog='Then edit the file that it names, and: run "…" --plan FILE')(commands.plan)
    app.command()(commands.resume)
    app.command()(commands.retry)
    app.command()(commands.export)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(importlib.metadata.version("parallel-orchestrator"))
        raise typer.Exit


def _group(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From a requirement to a tested, merged project, built by several LLM agents in parallel."""


class _Commands:
    """One method a command; its docstring is its help."""

    def __init__(self, start: Start, export: Callable[[Path, Path], int]) -> None:
        self._start = start
        self._export = export

    def run(
        self,
        requirement: Annotated[str | None, typer.Argument(help="What to build, in a sentence or more.")] = None,
        *,
        config: Annotated[Path | None, typer.Option(help="Run a scenario of this YAML file instead.")] = None,
        only: Annotated[str | None, typer.Option(help="With --config: the scenario's name.")] = None,
        max_executors: p.MaxExecutors = None,
        output_dir: p.OutputDir = None,
        model: p.Model = None,
        max_cost: p.MaxCost = None,
        max_turns: p.MaxTurns = None,
        task_timeout: p.TaskTimeout = None,
        sandbox: p.Sandbox = None,
        endpoint_profile: p.EndpointProfile = None,
        replay: p.Replay = None,
        speed: p.Speed = None,
        plan: p.PlanFile = None,
        prices: p.Prices = None,
        allow_install: p.AllowInstall = False,
        debug: p.Debug = False,
    ) -> None:
        """Build a requirement, or go on with a run in the same directory."""
        from parallel_orchestrator.config.options import Options
        from parallel_orchestrator.config.scenarios import find_config, load_options

        if (requirement is None) == (config is None):
            raise UsageError("give either a requirement or --config FILE")
        options = load_options(find_config(str(config)), only) if config else Options(str(requirement))
        options.settings |= _given(
            max_executors=max_executors,
            planner_model=model,
            executor_model=model,
            max_cost_usd=max_cost,
            max_turns=max_turns,
            task_timeout_min=task_timeout,
            sandbox=sandbox,
            endpoint_profile=endpoint_profile,
            speed=speed,
            prices=str(prices) if prices else None,
            allow_install=allow_install or None,
        )
        options.output_dir = output_dir or options.output_dir
        options.replay = replay or options.replay
        options.plan = plan
        self._run_and_report(options)

    def plan(
        self,
        requirement: p.Requirement,
        *,
        output_dir: p.OutputDir = None,
        model: p.Model = None,
        max_cost: p.MaxCost = None,
        endpoint_profile: p.EndpointProfile = None,
        replay: p.Replay = None,
        speed: p.Speed = None,
        max_executors: p.MaxExecutors = None,
        debug: p.Debug = False,
    ) -> None:
        """Plan a requirement and show the plan; build nothing."""
        from parallel_orchestrator.config.options import Options
        from parallel_orchestrator.report.account import plan_account

        settings = _given(
            max_executors=max_executors,
            planner_model=model,
            executor_model=model,
            max_cost_usd=max_cost,
            endpoint_profile=endpoint_profile,
            speed=speed,
        )
        planned = self._start(Options(requirement, output_dir, None, replay, settings))
        typer.echo(plan_account(planned.only_plan(), planned.settled.directory, planned.settled.scenario.max_executors))

    def resume(
        self,
        directory: p.Directory,
        *,
        max_cost: p.MaxCost = None,
        max_executors: p.MaxExecutors = None,
        max_turns: p.MaxTurns = None,
        task_timeout: p.TaskTimeout = None,
        sandbox: p.Sandbox = None,
        speed: p.Speed = None,
        debug: p.Debug = False,
    ) -> None:
        """Go on with an interrupted run. Finished tasks are not run again, answers received are not bought again."""
        from parallel_orchestrator.config.options import resume_options

        overrides = _given(
            max_cost_usd=max_cost,
            max_executors=max_executors,
            max_turns=max_turns,
            task_timeout_min=task_timeout,
            sandbox=sandbox,
            speed=speed,
        )
        self._run_and_report(resume_options(directory, overrides))

    def retry(
        self,
        directory: p.Directory,
        tasks: Annotated[
            list[str] | None, typer.Argument(help="Failed tasks to try again. [all]", metavar="TASK")
        ] = None,
        *,
        max_cost: p.MaxCost = None,
        max_turns: p.MaxTurns = None,
        task_timeout: p.TaskTimeout = None,
        debug: p.Debug = False,
    ) -> None:
        """Begin another attempt at failed tasks; those that they blocked wait for them again."""
        from parallel_orchestrator.config.options import resume_options

        overrides = _given(max_cost_usd=max_cost, max_turns=max_turns, task_timeout_min=task_timeout)
        self._run_and_report(resume_options(directory, overrides), retry=tasks or [])

    def export(
        self,
        directory: p.Directory,
        recording: Annotated[Path, typer.Option(help="The file to write.")],
        *,
        debug: p.Debug = False,
    ) -> None:
        """Write a run's model answers as a recording, which --replay plays again without a key."""
        typer.echo(f"{self._export(directory, recording)} answers written to {recording}")

    def _run_and_report(self, options: Options, retry: Sequence[str] | None = None) -> None:
        from parallel_orchestrator.report.account import closing_account
        from parallel_orchestrator.report.summary import succeeded

        story = self._start(options, retry=retry)
        try:
            summary = story.go()
        except (CannotGoOn, KeyboardInterrupt):
            typer.echo(f"to go on: parallel-orchestrator resume {shlex.quote(str(story.settled.directory))}", err=True)
            raise
        typer.echo(closing_account(summary, story.settled.directory))
        if not succeeded(summary):
            raise typer.Exit(1)


def _given(**settings: Any) -> dict[str, Any]:
    """The settings that were given; absent options must not overwrite what a file says."""
    return {name: value for name, value in settings.items() if value is not None}


def run_app(app: typer.Typer) -> None:
    """Run the command line and exit: every foreseen error becomes one message and its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        app()
    except OrchestratorError as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(printable(f"error: {error}"), err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
