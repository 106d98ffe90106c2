"""The command line: its commands, in the order of its help, each loaded when it is typed.

app          Commands: finds the command, or `run`; --help lists them from the table here
  CliCommand one of them (cmd_*.py), with the options that every command has
output.py    shows what a command returns, as text or as one JSON document
"""

from __future__ import annotations

import difflib
import importlib
import shlex
import signal
import sys
from collections.abc import Sequence
from itertools import takewhile
from types import ModuleType
from typing import Annotated, Any, cast

import typer
import typer.core
from typer._click.core import Context, Parameter  # typer brings its own click, and names its types nowhere else
from typer._click.exceptions import NoArgsIsHelpError
from typer._click.formatting import HelpFormatter

from parallel_orchestrator.cli.output import LIKE_CTRL_C, CliOutput, run_app
from parallel_orchestrator.config.requirement import looks_like_a_file
from parallel_orchestrator.records.errors import Interrupted, UsageError

__all__ = ["CliCommand", "load_command", "make_app", "run_app"]


COMMANDS = {
    "run": "Build a requirement.",
    "plan": "Plan a requirement and show the plan; build nothing.",
    "batch": "Build all scenarios of a file at once.",
    "resume": "Go on with an interrupted run or batch.",
    "retry": "Begin another attempt at failed tasks.",
    "status": "Show how a run or a batch stands.",
    "logs": "Show a run's log, or a task's conversation.",
    "init": "Write a scenario file to begin with.",
    "doctor": "Look whether all is there that a run needs.",
    "schema": "Print the JSON Schema of scenario files.",
    "export": "Write a run's model answers as a recording.",
    "check": "Verify every state file of a run or batch.",
    "repair": "Repair a run or batch that a bad disk or an edit damaged.",
}
"""By name, the first line of their help."""

_BESIDE = {
    "retry": "cmd_resume",
    "doctor": "cmd_check",
    "schema": "cmd_init",
    "export": "cmd_check",
    "repair": "cmd_check",
}
"""Commands that stand in the file of another."""

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
    "export": """
        parallel-orchestrator export outputs/todo-list --recording todo.yaml
        parallel-orchestrator run "Build a todo list" --replay todo.yaml
        """,
    "check": """
        parallel-orchestrator check outputs/todo-list
        """,
    "repair": """
        parallel-orchestrator repair outputs/todo-list
        """,
}


def make_app() -> typer.Typer:
    """The command line."""
    app = typer.Typer(
        cls=Commands,
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
    return app


def load_command(name: str) -> CliCommand:
    """The command of that name. Its module is imported now: --help of the program waits for none of them."""
    examples = [line.strip() for line in _EXAMPLES[name].strip().splitlines()]
    title = "Examples:" if len(examples) > 1 else "Example:"
    one = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    function = getattr(_imported(f"{__package__}.{_BESIDE.get(name, 'cmd_' + name)}"), name)
    one.command(cls=CliCommand, epilog=_lines(title, *(f"  {example}" for example in examples)))(function)
    return cast(CliCommand, typer.main.get_command(one))


def _imported(module: str) -> ModuleType:
    """The module. Ctrl-C waits until it is imported: in a callback of the import system it would be lost."""
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, LIKE_CTRL_C)
        try:
            return importlib.import_module(module)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, LIKE_CTRL_C)
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted") from error


class CliCommand(typer.core.TyperCommand):
    """A command with the options of all commands, and with its options in groups (`rich_help_panel`)."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.params += _common_options()

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Begin the output, unless the group of commands has."""
        if ctx.parent is None:
            _begin_output(ctx, args, None)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Context) -> Any:
        """Run it. Ctrl-C becomes an error like others."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted") from error

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write the arguments, then each group of options."""
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in _ORDER}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            is_argument = param.param_type_name == "argument"
            own = param.name in ("help", "as_json", "debug")
            name = _ARGUMENTS if is_argument else _LAST if own else getattr(param, "rich_help_panel", None) or _FIRST
            groups[name].append(record)
        if not any(groups[name] for name in _ORDER[2:-1]):  # few options need no groups
            groups[_FIRST] += groups.pop(_LAST)
        for name, records in groups.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)


_ARGUMENTS, _FIRST, _LAST = "Arguments", "Options", "Other"
_ORDER = (_ARGUMENTS, _FIRST, "Model", "Limits", "Output", "Safety", _LAST)

_COMMON = ("--json", "--debug")
_OF_THE_GROUP = ("--help", "-h", "--version", "--install-completion", "--show-completion")


class Commands(typer.core.TyperGroup):
    """All commands. The default is `run`, but a mistyped command never becomes a paid run."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.params += _common_options(hidden=True)
        self.commands = {
            name: typer.core.TyperCommand(name, help=line, rich_markup_mode=None) for name, line in COMMANDS.items()
        }

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Put `run` in front of what begins with neither a command nor an option of the group."""
        first = next((word for word in args if word not in _COMMON), None)
        is_run = first is not None and first not in self.commands and first not in _OF_THE_GROUP
        _begin_output(ctx, args, "run" if is_run else first if first in self.commands else None)
        if first is None and not ctx.resilient_parsing:
            raise NoArgsIsHelpError(ctx)
        if is_run:
            word = _first_argument(args, load_command("run").params)
            if word is not None and " " not in word.strip() and not looks_like_a_file(word):
                raise UsageError(_not_a_run(word, args[: args.index(word)], list(self.commands)))
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that was typed, loaded."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else listed, rest


def _common(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print exactly one JSON document on standard output, also on failure.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")] = False,
) -> None:
    """Options of every command. `_begin_output` reads them: they count also where the rest is not understood."""


def _common_options(*, hidden: bool = False) -> list[Parameter]:
    one = typer.Typer(add_completion=False)
    one.command()(_common)
    options = cast(list[typer.core.TyperOption], typer.main.get_command(one).params)
    for option in options:
        option.expose_value, option.hidden = False, hidden
    return [*options]


def _begin_output(ctx: Context, args: Sequence[str], command: str | None) -> None:
    output, words = ctx.find_object(CliOutput), list(takewhile(lambda word: word != "--", args))
    if output:
        output.begin(command, as_json="--json" in words, debug="--debug" in words)


def _first_argument(args: list[str], params: Sequence[Parameter]) -> str | None:
    """The first of `args` that is neither an option nor an option's value, as `5` in `--max-executors 5`."""
    with_value = {
        name for p in params if p.param_type_name == "option" and not getattr(p, "is_flag", False) for name in p.opts
    }
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            return next(rest, None)
        if not arg.startswith("-"):
            return arg
        if arg in with_value:
            next(rest, None)
    return None


def _not_a_run(word: str, before: list[str], commands: list[str]) -> str:
    """Why what was typed is no run: `word` is its first argument, with nothing but options before it."""
    build = f"To build a requirement, put it in quotes; one of a single word goes after run: run {shlex.quote(word)}"
    if word not in commands:
        close = difflib.get_close_matches(word, commands, n=1)
        meant = f" Did you mean `{close[0]}`?" if close else ""
        return f"there is no command {word!r}.{meant} {build}"
    if "--" in before:
        return f"{word!r} after -- is a requirement, not the command. {build}"
    return f"options stand after the command's name: begin with `{word}`. {build}"


def _lines(*lines: str) -> str:
    """A text whose lines the help keeps as they are: so the library's mark for it."""
    return "\b\n" + "\n".join(lines)


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata  # here, so that nothing else waits for it

        typer.echo(importlib.metadata.version("parallel-orchestrator"))
        raise typer.Exit


def _group(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """From a requirement to a tested, merged project, built by several LLM agents in parallel."""
