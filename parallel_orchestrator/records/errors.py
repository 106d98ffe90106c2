"""Every error that a person or another process can meet, in one tree.

Each message says what happened, where, and what to do next. `exit_code` is what
the command line ends with: 0 all done and green, 1 a task or the tests failed,
2 usage or configuration, 3 transient (resume later), 4 budget reached, 5 another
orchestrator holds the directory, 130 interrupted.

All of them are built from one string, so they cross a process boundary by pickle
unchanged.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

_LONGEST_WORD = 60
"""Characters of a wrong word that are compared: the time grows with their square."""


class OrchestratorError(Exception):
    """The root: catch this to catch everything that is foreseen."""

    exit_code = 1
    summary: Any = None
    """What became of the batch that it stopped, when it was summed up."""


class UsageError(OrchestratorError):
    """The command, a configuration file or the environment is not usable as it is."""

    exit_code = 2


class KeyRefused(UsageError):
    """The endpoint refused the credential: nothing goes on until the person mends it."""


class ModelUnknown(UsageError):
    """The endpoint does not know the model that it was asked for. `resume` and `retry` take another with --model."""


class EndpointUnusable(UsageError):
    """The endpoint can never answer as it is: another kind of server, an unknown host, a certificate not trusted."""


class RecordingExhausted(UsageError):
    """The recording holds no answer for the call that was made; the message names the call."""


class TaskLimit(OrchestratorError):
    """A task has spent what one task may. It fails, the others go on."""


class RequestRefused(OrchestratorError):
    """The endpoint refused a request for good, in its own words. The task fails that made it."""


class ContextFull(RequestRefused):
    """The endpoint refused a request because the conversation no longer fits the model's context window."""


class TurnLimit(TaskLimit):
    """A conversation has used up its turns."""


class PlanRefused(OrchestratorError):
    """No answer of the planner passed validation, though each was sent back with its faults."""


class DamagedState(OrchestratorError):
    """A state file is damaged before its end, where nothing may be guessed."""


class StaleClaim(OrchestratorError):
    """An executor acted under a claim that somebody else holds by now. Its work is kept, not merged."""


class CannotGoOn(OrchestratorError):
    """The run stops now, no task is to blame, and `resume` goes on later."""

    exit_code = 3


class OutOfMemory(CannotGoOn):
    """The kernel killed a command, tests or a process for lack of memory: that says nothing about a task."""


class BudgetReached(CannotGoOn):
    """Spending has reached the cap. `resume DIR --max-cost` goes on."""

    exit_code = 4


class BatchBudgetReached(BudgetReached):
    """All scenarios of a batch together have reached its cap."""


class EndpointUnavailable(CannotGoOn):
    """The endpoint or the gateway does not answer, or the account has no credit. No run can continue."""


class DirectoryHeld(OrchestratorError):
    """Another orchestrator owns the run directory."""

    exit_code = 5


class Interrupted(OrchestratorError):
    """The person asked to stop."""

    exit_code = 130


def internal_error(error: Exception) -> OrchestratorError:
    """Returns an unexpected exception as an error for people. The caller has logged the exception."""
    return OrchestratorError(f"internal error: {type(error).__name__}: {error}; the log has more")


def as_predicate(message: str) -> str:
    """Pydantic's message about a value, worded to follow the value's name: "has to be a valid integer"."""
    return re.sub(r"^\w+ should ", "has to ", message.removeprefix("Value error, "))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to end a message with: the known word that is spelled most like `word`; empty if none is close."""
    near = difflib.get_close_matches(word[:_LONGEST_WORD], list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""
