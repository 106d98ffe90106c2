"""What a command returns, and the one place where it is shown: as text, or as one JSON document.

    {"version": 1, "command": "status", "ok": true, "result": {…}}
    {"version": 1, "command": "resume", "ok": false, "error": {"kind": "usage", "message": "…", "exit_code": 2}}

With --json exactly one of them is on standard output, whatever happens; all else goes to standard error. A command
that came to its end and has failures to report has both, `result` and `error`, and so has a batch that was stopped.
`error.next` says how to go on, where that is known.
"""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

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

LIKE_CTRL_C = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_LONGEST_NAME = 1000
"""Characters of a name that no file can have which are shown."""

VERSION = 1
"""Of the document; it grows when a field changes its meaning or goes away."""


@dataclass(frozen=True)
class CliResult:
    """What a command has to say at its end."""

    page: str | Callable[[], str]
    """For a person. A function where making it takes long: a program that asks for JSON need not wait for it."""
    result: dict[str, Any]
    """The same for a program."""
    exit_code: int = 0
    failure: str = ""
    """In a sentence, why the exit code is not 0."""
    error: OrchestratorError | None = None
    """What stopped the command, which has this to say all the same."""

    @property
    def text(self) -> str:
        """For a person."""
        return self.page if isinstance(self.page, str) else self.page()


class CliOutput:
    """Where the results of a command line are shown. It is the click context's object."""

    def __init__(self) -> None:
        self.debug = False
        self.shown: _Text | _Document = _Text()

    def begin(self, command: str | None, *, as_json: bool, debug: bool) -> None:
        """Choose the form, before anything can be printed. `command`: its name; None for the program itself."""
        self.debug = debug
        if as_json:
            self.shown = _Document(command)


def run_app(app: typer.Typer) -> NoReturn:
    """Run the command line and exit: every error becomes one message, or one document, and its exit code."""
    _open_standard_streams()
    for number in LIKE_CTRL_C[1:]:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, _interrupt)
    redact.know(*secret_values(os.environ))
    sys.excepthook = _show_traceback
    # Completion is for the command that people type, however this process was started.
    completing = any(word in ("--install-completion", "--show-completion") for word in sys.argv[1:])
    output = CliOutput()
    try:
        result = app(standalone_mode=False, prog_name=NAME if completing else None, obj=output)
    except ClickException as error:
        output.shown.misunderstood(error)
        code = error.exit_code
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - the last place to tell it
        code = _failed(output, error)
    else:
        finished = result if isinstance(result, CliResult) else None
        if output.debug and finished and finished.error:
            _show_traceback(type(finished.error), finished.error, finished.error.__traceback__)
        code = finished.exit_code if finished else result if isinstance(result, int) else 0
        code = output.shown.answered(finished, code)
    for number in LIKE_CTRL_C:
        # All is done and shown. A signal while Python takes itself down would end it in place of the code.
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


def _failed(output: CliOutput, error: BaseException) -> int:
    """Show an error; the exit code."""
    if output.debug:
        _show_traceback(type(error), error, error.__traceback__)
    foreseen = _foreseen(error)
    output.shown.failed(foreseen)
    return foreseen.exit_code


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

    A file opened under such a number would receive whatever is printed.
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

    def answered(self, result: CliResult | None, code: int) -> int:
        """Show a command's answer; the exit code."""
        if result is not None:
            try:
                print(folded(printable(result.text), sys.stdout), flush=True)
            except OSError as error:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                code = _not_shown(error, code)
            if result.error:
                self.failed(result.error)
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

    def answered(self, result: CliResult | None, code: int) -> int:
        """Write a command's answer; the exit code."""
        fields: dict[str, Any] = {"result": result.result} if result else {}
        if result and result.error:
            fields["error"] = _error_fields(result.error)
        elif code:
            message = result.failure if result else f"ended with {code}"
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
    if isinstance(error, BrokenPipeError):  # as in `… | head`: the rest has no reader
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
