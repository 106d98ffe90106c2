"""`orchestrator "Build …"` means `orchestrator run "Build …"`, but a mistyped command never becomes a paid run."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence

import typer.core
from typer._click.core import Context, Parameter  # typer brings its own click, and names its types nowhere else

from parallel_orchestrator.config.requirement import looks_like_a_file
from parallel_orchestrator.records.errors import UsageError

_OF_THE_GROUP = ("--help", "-h", "--version", "--install-completion", "--show-completion")


class DefaultRun(typer.core.TyperGroup):
    """A command group whose default command is `run`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Put `run` in front of what begins with neither a command nor an option of the group."""
        if args and args[0] not in self.commands and args[0] not in _OF_THE_GROUP:
            word = _first_argument(args, self.commands["run"].params)
            if word is not None and " " not in word.strip() and not looks_like_a_file(word):
                raise UsageError(_not_a_run(word, args[: args.index(word)], list(self.commands)))
            args = ["run", *args]
        return super().parse_args(ctx, args)


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
