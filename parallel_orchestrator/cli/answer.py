"""What a command answers, and the one place where that is shown: as text, or as one JSON document.

    {"version": 1, "command": "status", "ok": true, "result": {…}}
    {"version": 1, "command": "resume", "ok": false, "error": {"kind": "usage", "message": "…", "exit_code": 2}}

With --json exactly one of them is on standard output, whatever happens; all else goes to standard error. A command
that came to its end and has failures to report has both, `result` and `error`, and so has a batch that was stopped.
`error.next` says how to go on, where that is known.
"""

from __future__ import annotations

import errno
import functools
import inspect
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NoReturn

import typer
from typer._click.exceptions import (
    ClickException,
    NoArgsIsHelpError,
)  # typer brings its own click, and names it nowhere else

from parallel_orchestrator.records.errors import CannotGoOn, Interrupted, OrchestratorError, UsageError
from parallel_orchestrator.report.pages.wrapping import folded
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.environment import secret_values
from parallel_orchestrator.system.files import OF_THE_DISK, disk_error
from parallel_orchestrator.system.invocation import NAME, help_command
from parallel_orchestrator.system.terminal_text import indented, json_text, printable

_LIKE_CTRL_C = (signal.SIGTERM, signal.SIGHUP)

_LONGEST_NAME = 1000
"""Characters of a name that no file can have which are shown."""

VERSION = 1
"""Of the document; it grows when a field changes its meaning or goes away."""

_EVERYWHERE = {
    "as_json": Annotated[
        bool, typer.Option("--json", help="Print exactly one JSON document on standard output, also on failure.")
    ],
    "debug": Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")],
}
"""Options of every command. `run_app` looks for them itself: they count also where the rest is not understood."""


@dataclass(frozen=True)
class Answer:
    """What a command has to say at its end."""

    text: str
    """For a person."""
    result: dict[str, Any]
    """The same for a program."""
    exit_code: int = 0
    failure: str = ""
    """In a sentence, why the exit code is not 0."""
    error: OrchestratorError | None = None
    """What stopped the command, which has this to say all the same."""


def answering(function: Callable[..., Answer | None]) -> Callable[..., Answer | None]:
    """The command with the options that every command has. Ctrl-C in it becomes an error like others."""

    @functools.wraps(function)
    def command(**arguments: Any) -> Answer | None:
        own = {name: value for name, value in arguments.items() if name not in _EVERYWHERE}
        try:
            return function(**own)
        except KeyboardInterrupt as error:
            raise Interrupted("interrupted") from error

    signature = inspect.signature(function, eval_str=True)
    hints = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in _EVERYWHERE.items()
    ]
    command.__annotations__ = {**hints, **_EVERYWHERE}
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *common]
    )
    return command


def run_app(app: typer.Typer) -> NoReturn:
    """Run the command line and exit: every error becomes one message, or one document, and its exit code."""
    _open_standard_streams()
    for number in _LIKE_CTRL_C:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, _interrupt)
    redact.know(*secret_values(os.environ))
    sys.excepthook = _show_traceback
    before, dashes, after = _divided(sys.argv[1:])
    arguments = [*(word for word in before if word not in ("--json", "--debug")), *dashes, *after]
    shown = _Document(_command(app, arguments)) if "--json" in before else _Text()
    # Completion is for the command that people type, however this process was started.
    completing = any(word in ("--install-completion", "--show-completion") for word in before)
    try:
        answer = app(arguments, standalone_mode=False, prog_name=NAME if completing else None)
    except ClickException as error:
        shown.misunderstood(error)
        code = error.exit_code
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - the last place to tell it
        if "--debug" in before:
            _show_traceback(type(error), error, error.__traceback__)
        told = _foreseen(error)
        shown.failed(told)
        code = told.exit_code
    else:
        if "--debug" in before and isinstance(answer, Answer) and answer.error:
            _show_traceback(type(answer.error), answer.error, answer.error.__traceback__)
        code = answer.exit_code if isinstance(answer, Answer) else answer if isinstance(answer, int) else 0
        code = shown.answered(answer if isinstance(answer, Answer) else None, code)
    for number in (signal.SIGINT, *_LIKE_CTRL_C):
        # All is done and told. A signal while Python takes itself down would end it in place of the code.
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def _divided(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The words before `--`, that itself, and those after it."""
    place = words.index("--") if "--" in words else len(words)
    return list(words[:place]), list(words[place : place + 1]), list(words[place + 1 :])


def _command(app: typer.Typer, arguments: Sequence[str]) -> str | None:
    """The command that is meant; None where an option of the program itself is."""
    first = arguments[0] if arguments else "--help"
    names = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    if first in names:
        return first
    return None if first in ("--help", "-h", "--version", "--install-completion", "--show-completion") else "run"


def _foreseen(error: BaseException) -> OrchestratorError:
    if isinstance(error, OrchestratorError):
        return error
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return Interrupted("interrupted")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # of what is ours, nothing has such a name
        name = str(error.filename)
        return UsageError(
            f"no file can have this name, which is too long: {name[:_LONGEST_NAME]}{name[_LONGEST_NAME:] and '…'}"
        )
    what = f"{type(error).__name__}: {error}. What was recorded is kept; --debug shows where it happened."
    if isinstance(error, OSError) and error.errno in OF_THE_DISK:
        if isinstance(error.filename, str):
            return disk_error(Path(error.filename), error)
        return CannotGoOn(f"{what} Mend that, then resume.")
    return OrchestratorError(f"unexpected {what}")


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    typer.echo(printable("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)


def _open_standard_streams() -> None:
    """Fill in closed ones, and let what their encoding lacks be escaped.

    A file of ours under such a number would be written into by whoever prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for the whole life of the process
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


class _Text:
    """Answers for a person: on standard output, what went wrong on standard error."""

    def answered(self, answer: Answer | None, code: int) -> int:
        """Show a command's answer; the exit code."""
        if answer is not None:
            try:
                print(folded(printable(answer.text), sys.stdout), flush=True)
            except OSError as error:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                code = _not_shown(error, code)
            if answer.error:
                self.failed(answer.error)
        return code

    def misunderstood(self, error: ClickException) -> None:
        """Show what is wrong with the command line, and where its help is."""
        context = getattr(error, "ctx", None)
        if isinstance(error, NoArgsIsHelpError):
            error.show()
            return
        self.failed(_usage_error(error, context.command_path if context else ""))

    def failed(self, error: OrchestratorError) -> None:
        """Show an error, and how to go on after it."""
        plain = type(error) is Interrupted
        for line in (str(error) if plain else f"error: {error}", *getattr(error, "__notes__", ())):
            print(folded(indented(line), sys.stderr), file=sys.stderr, flush=True)


def _usage_error(error: ClickException, command: str) -> UsageError:
    """The library's error about the command line, in the style of all others."""
    message = error.format_message().rstrip(".")
    if message[:1].isupper() and not message[1:2].isupper():
        message = message[0].lower() + message[1:]
    ours = UsageError(message)
    if command:
        ours.add_note(f"help: {help_command(command)}")
    return ours


class _Document:
    """Answers for a program. From its beginning on, what anybody prints goes to standard error."""

    def __init__(self, command: str | None) -> None:
        self._command = command
        sys.stdout.flush()
        # The descriptor, not sys.stdout alone: processes that we start print, too.
        self._output = os.dup(1)
        os.dup2(2, 1)

    def answered(self, answer: Answer | None, code: int) -> int:
        """Write a command's answer; the exit code."""
        fields: dict[str, Any] = {"result": answer.result} if answer else {}
        if answer and answer.error:
            fields["error"] = _error_fields(answer.error)
        elif code:
            message = answer.failure if answer else f"ended with {code}"
            fields["error"] = {"kind": "unsuccessful", "message": message, "exit_code": code}
        return self._write(code, **fields)

    def misunderstood(self, error: ClickException) -> None:
        """Write what is wrong with the command line."""
        message = str(_usage_error(error, ""))
        if isinstance(error, NoArgsIsHelpError):  # nothing was typed at all, for which people are shown the help
            message = "a command is missing; --help lists them"
        fields = {"kind": "usage", "message": message, "exit_code": error.exit_code}
        self._write(error.exit_code, error=fields)

    def failed(self, error: OrchestratorError) -> None:
        """Write an error."""
        self._write(error.exit_code, error=_error_fields(error))

    def _write(self, code: int, **fields: Any) -> int:
        document = {"version": VERSION, "command": self._command, "ok": code == 0, **fields}
        try:
            with os.fdopen(self._output, "w", encoding="utf-8", errors="surrogateescape") as file:
                # Not the encoded text: there the n of an escaped newline looks like the beginning of what follows it.
                file.write(json_text(redact.foreign(document)))
        except OSError as error:
            return _not_shown(error, code)
        return code


def _not_shown(error: OSError, code: int) -> int:
    """Say that standard output refused an answer; the exit code: `code`, or in place of 0 another."""
    if isinstance(error, BrokenPipeError):  # as in `… | head`: nobody reads the rest
        return code
    _Text().failed(CannotGoOn(f"standard output cannot be written: {error.strerror}. What was done is kept."))
    return code or CannotGoOn.exit_code


def _error_fields(error: OrchestratorError) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": _kind(error), "message": str(error), "exit_code": error.exit_code}
    if notes := getattr(error, "__notes__", ()):
        fields["next"] = list(notes)
    return fields


def _kind(error: OrchestratorError) -> str:
    """The error's class as a word: UsageError is `usage`, BudgetReached `budget_reached`."""
    name = type(error).__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
