"""The command line: its commands, in the order of its help, and their examples."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from parallel_orchestrator.cli.answer import Answer, answering, run_app
from parallel_orchestrator.cli.default_command import DefaultRun
from parallel_orchestrator.cli.grouped_help import GroupedCommand
from parallel_orchestrator.cli.looking import Looking
from parallel_orchestrator.cli.maintenance import MaintenanceCommands
from parallel_orchestrator.cli.running import Running
from parallel_orchestrator.cli.starting import Starting
from parallel_orchestrator.cli.starts import Start, StartBatch

__all__ = ["make_app", "run_app"]

# Other modules are imported by the commands that need them: --help and completion must not wait for them.

_EXAMPLES = {
    "run": """
        parallel-orchestrator "Build a contact form with validation" --max-cost 5
        parallel-orchestrator run --config configs/demo.yaml --only medium
        parallel-orchestrator run "Create a hello world function" --replay simple
        parallel-orchestrator prd.md --max-cost 5
        """,
    "plan": """
        parallel-orchestrator plan "Build a shop"
        parallel-orchestrator run "Build a shop" --plan FILE    after editing it
        """,
    "batch": """
        parallel-orchestrator batch configs/batch.yaml --max-executors 8
        parallel-orchestrator batch configs/live.yaml --only simple --max-cost 5
        """,
    "resume": """
        parallel-orchestrator resume outputs/todo-list
        parallel-orchestrator resume outputs/todo-list --max-cost 10
        """,
    "retry": """
        parallel-orchestrator retry outputs/todo-list
        parallel-orchestrator retry outputs/todo-list task_2 task_5 --max-turns 90
        parallel-orchestrator retry outputs/batch complex-3/task_2
        """,
    "status": """
        parallel-orchestrator status outputs/todo-list
        parallel-orchestrator status outputs/batch --follow
        parallel-orchestrator status outputs/todo-list --json | jq .result.tasks
        """,
    "logs": """
        parallel-orchestrator logs outputs/todo-list --follow
        parallel-orchestrator logs outputs/todo-list task_2 --tail 20
        parallel-orchestrator logs outputs/batch complex-3/task_2
        """,
    "init": """
        parallel-orchestrator init scenarios.yaml
        parallel-orchestrator run --config scenarios.yaml
        """,
    "doctor": """
        parallel-orchestrator doctor
        parallel-orchestrator doctor --model my-model --prices prices.json
        """,
    "schema": """
        parallel-orchestrator schema > scenarios.schema.json
        """,
    "check": """
        parallel-orchestrator check outputs/todo-list
        """,
    "repair": """
        parallel-orchestrator repair outputs/todo-list
        """,
    "export": """
        parallel-orchestrator export outputs/todo-list --recording todo.yaml
        parallel-orchestrator run "Build a todo list" --replay todo.yaml
        """,
}


def make_app(start: Start, start_batch: StartBatch) -> typer.Typer:
    """The command line."""
    app = typer.Typer(
        cls=DefaultRun,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        # As wide as the terminal; the library's own help ends at 80 columns.
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": sys.maxsize},
        epilog=_lines(
            "A requirement alone is a run:",
            '  parallel-orchestrator "Build a contact form with validation" --max-cost 5',
            "Exit codes: 0 done, 1 a task or test failed, 2 usage, 3 try again later,",
            "  4 budget reached, 5 in use by another, 130 interrupted",
        ),
    )
    app.callback()(_group)
    running, looking, starting = Running(start, start_batch), Looking(), Starting()
    maintenance = MaintenanceCommands()
    for command in (
        *(running.run, running.plan, running.batch, running.resume, running.retry),
        *(looking.status, looking.logs, starting.init, starting.doctor, looking.schema, looking.export),
        *(maintenance.check, maintenance.repair),
    ):
        _add(app, command)
    return app


def _add(app: typer.Typer, command: Callable[..., Answer]) -> None:
    examples = [line.strip() for line in _EXAMPLES[command.__name__].strip().splitlines()]
    title = "Examples:" if len(examples) > 1 else "Example:"
    app.command(cls=GroupedCommand, epilog=_lines(title, *(f"  {example}" for example in examples)))(answering(command))


def _lines(*lines: str) -> str:
    """A text whose lines the help keeps as they are: so the library's mark for it."""
    return "\b\n" + "\n".join(lines)


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        typer.echo(importlib.metadata.version("parallel-orchestrator"))
        raise typer.Exit


def _group(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From a requirement to a tested, merged project, built by several LLM agents in parallel."""
