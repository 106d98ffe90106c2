"""`orchestrator "Build …"` means `orchestrator run "Build …"`, but a mistyped command never becomes a paid run."""

from __future__ import annotations

import difflib

import typer.core
from typer._click.core import Context  # typer brings its own click, and names its types nowhere else

from parallel_orchestrator.records.errors import UsageError

_OF_THE_GROUP = ("--help", "--version", "--install-completion", "--show-completion")


class DefaultRun(typer.core.TyperGroup):
    """A command group whose default command is `run`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Put `run` in front of what begins with neither a command nor an option of the group."""
        if args and args[0] not in self.commands and args[0] not in _OF_THE_GROUP:
            words = [arg for arg in args if not arg.startswith("-")]
            if words and " " not in words[0].strip() and not _follows_option(args, words[0]):
                raise UsageError(_not_a_command(words[0], list(self.commands)))
            args = ["run", *args]
        return super().parse_args(ctx, args)


def _follows_option(args: list[str], word: str) -> bool:
    """Whether `word` is an option's value, as `5` in `--max-executors 5 "Build …"`."""
    place = args.index(word)
    return place > 0 and args[place - 1].startswith("-")


def _not_a_command(word: str, commands: list[str]) -> str:
    close = difflib.get_close_matches(word, commands, n=1)
    meant = f" Did you mean `{close[0]}`?" if close else ""
    return f"there is no command {word!r}.{meant} To build a requirement of one word: run {word!r}"
