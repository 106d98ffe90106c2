"""How a model acts: it is asked, its tools run, it is told what came of them, until it is done.

    take_turns
      └─ until ended:
           tool calls without results?  -> use them, one after the other, and record the results
           the last answer ends it?     -> Ended
           a refusal or the task's cap  -> recorded, Ended
           otherwise                    -> ask, and record the answer

There is no other state than the transcript. Each pass looks at where the conversation stands and
does the next thing, so a process that was killed anywhere is gone on with by calling this again:
an answer is on disk before its tools run, and the workspace's tree before they touch it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from parallel_orchestrator.agent.answers import kept_of
from parallel_orchestrator.agent.model_client import Answer
from parallel_orchestrator.agent.prompt import build_request
from parallel_orchestrator.agent.transcript import Conversation, Transcript
from parallel_orchestrator.messages_api.tool_calls import ToolCall, ToolResult
from parallel_orchestrator.records.errors import (
    ContextFull,
    OutOfMemory,
    RequestRefused,
    TaskLimit,
    TurnLimit,
)
from parallel_orchestrator.system.memory import ROOM

MAX_RETRIES = 2
"""How often the model is asked for another answer after one that was cut off, or that said nothing."""
MAX_ERROR_TURNS = 5
"""Turns in a row in which every tool call fails."""
MAX_REPEATS = 4
"""Times in a row that one call is made with the same result."""
MAX_STALE_TURNS = 10
"""Turns in a row in which no file changed and no result was a new one. Far more than honest work has: who runs
the tests again has changed something, and whoever looks around sees something new."""

_TO_BE_CONTINUED = frozenset({None, "max_tokens", "pause_turn"})
"""None: something was said to the model since its last answer."""
_DONE = frozenset({"end_turn", "stop_sequence", "tool_use"})

_log = logging.getLogger(__name__)


class End(Enum):
    """How a conversation can end."""

    FINISHED = "finished"
    """The model says that its work is done."""
    STOPPED = "stopped"
    """A limit, a refusal or a loop ended it."""


@dataclass(frozen=True)
class Ended:
    """The end of a conversation: the model's closing report, or why it was stopped."""

    kind: End
    reason: str = ""
    text: str = ""
    restartable: bool = False
    """Whether a new conversation could finish the work: this one ran out of context or turns."""


@dataclass(frozen=True)
class Limits:
    """What one attempt may use."""

    turns: int
    """Answers of the model in one conversation."""
    seconds: float
    """The task's own time; waiting for a rate limit or for the gateway is none of it."""


class Ask(Protocol):
    """Asks the model; `ModelClient.ask`."""

    def __call__(self, request: dict[str, Any], /, *, turn: int, phase: str, phase_turn: int) -> Answer:
        """The answer to `request`, which is the attempt's `turn`-th."""
        ...


class Tools(Protocol):
    """Carries out tool calls; `ToolBox`, or Claude Code."""

    def run_all(self, calls: Sequence[ToolCall], progress: Callable[[str], None]) -> list[ToolResult]:
        """The results of an answer's calls in their order, also of those that went wrong."""
        ...

    def mutates(self, name: str, arguments: object) -> bool:
        """Whether the call can change files."""
        ...


@dataclass(frozen=True)
class Means:
    """What it takes to act."""

    ask: Ask
    tools: Tools
    snapshot: Callable[[], str]
    """Keeps the workspace as it is; the id of its tree."""
    restore: Callable[[str], None]
    """Makes the workspace that tree again."""
    progress: Callable[[str], None] = lambda doing: None
    """Told what is being done, for a person who watches."""


def take_turns(transcript: Transcript, means: Means, limits: Limits) -> Ended:
    """Go on with a conversation to its end.

    What no task is to blame for (BudgetReached, CannotGoOn, KeyRefused, …) is passed on: the
    conversation then stands where it is, and calling this again goes on with it.
    """
    now = transcript.conversation
    if now.stopped is not None:
        return Ended(End.STOPPED, now.stopped.reason, restartable=now.stopped.restartable)
    if now.tree is not None:
        # Tools ran that nothing is known of, or a phase begins: either way the workspace starts from that tree.
        means.restore(now.tree)
    try:
        while True:
            if now.calls:
                _use_tools(transcript, means)
            elif (ended := verdict(now, limits)) is not None:
                return ended
            else:
                _ask(transcript, means)
    except (TaskLimit, RequestRefused) as error:
        restartable = isinstance(error, ContextFull | TurnLimit)
        transcript.stopped(str(error), restartable=restartable)
        return Ended(End.STOPPED, str(error), restartable=restartable)


def _ask(transcript: Transcript, means: Means) -> None:
    now = transcript.conversation
    means.progress(f"asking the model (turn {now.turns + 1})")
    answer = means.ask(build_request(now), turn=now.turns + 1, phase=now.phase, phase_turn=now.phase_turn)
    kept = kept_of(answer.content, answer.stop_reason, now)
    transcript.answer(answer, kept.content, discarded=kept.discarded, faults=kept.faults)


def _use_tools(transcript: Transcript, means: Means) -> None:
    calls = transcript.conversation.calls
    usable = [call for call in calls if not call.fault]
    changing = any(means.tools.mutates(call.name, call.arguments) for call in usable)
    if changing and transcript.conversation.tree is None:
        transcript.tree(means.snapshot())
    started = time.monotonic()
    done = iter(_run_all(usable, means, transcript.conversation.tree) if usable else ())
    results = [ToolResult(f"Error: {call.fault}", is_error=True) if call.fault else next(done) for call in calls]
    transcript.results(results, round(time.monotonic() - started, 3))


def _run_all(calls: Sequence[ToolCall], means: Means, tree: str | None) -> list[ToolResult]:
    """Carry out an answer's calls; all of them again, on the same tree and alone, when memory ran out.

    Raises OutOfMemory when it runs out then, too.
    """
    try:
        return means.tools.run_all(calls, means.progress)
    except OutOfMemory:
        _log.warning("memory ran out; the turn's commands are repeated with nothing else running")
    with ROOM.alone():
        if tree is not None:
            means.restore(tree)
        return means.tools.run_all(calls, means.progress)


def verdict(now: Conversation, limits: Limits) -> Ended | None:
    """Whether the conversation has ended, and how; None when the model is to be asked (again)."""
    return _verdict_on_answer(now) or _verdict_on_limits(now, limits)


def _verdict_on_answer(now: Conversation) -> Ended | None:
    reason = _failure(now)
    if reason is not None:
        return Ended(End.STOPPED, reason, restartable=now.stop_reason == "model_context_window_exceeded")
    if now.stop_reason in _TO_BE_CONTINUED:
        return None
    if now.stop_reason in _DONE:
        return Ended(End.FINISHED, text=now.text)
    _log.warning("the model stopped for an unknown reason, %r; taken as the end of its work", now.stop_reason)
    return Ended(End.FINISHED, reason=f"unknown stop reason {now.stop_reason!r}", text=now.text)


def _failure(now: Conversation) -> str | None:
    if now.stop_reason == "refusal":
        return f"refused: {now.text or 'the model gave no reason'}"
    if now.stop_reason == "model_context_window_exceeded":
        return "the conversation no longer fits into the model's context window"
    if now.cuts > MAX_RETRIES:
        return f"output too long: {now.cuts} answers in a row were cut off at the output limit"
    if now.empties > MAX_RETRIES:
        return f"{now.empties} answers in a row said nothing"
    return None


def _verdict_on_limits(now: Conversation, limits: Limits) -> Ended | None:
    if loop := _loop(now):
        return Ended(End.STOPPED, loop)
    if now.turns - now.earlier_turns >= limits.turns:
        return Ended(End.STOPPED, f"reached its limit of {limits.turns} turns", restartable=True)
    if now.seconds >= limits.seconds:
        return Ended(End.STOPPED, f"reached its limit of {limits.seconds / 60:g} minutes")
    return None


def _loop(now: Conversation) -> str | None:
    if now.error_turns >= MAX_ERROR_TURNS:
        return f"all tool calls of {now.error_turns} turns in a row failed"
    if now.repeats >= MAX_REPEATS:
        return f"loops on one call: the same call gave the same result {now.repeats} times in a row"
    if now.stale_turns > MAX_STALE_TURNS:  # what the last turn changed shows in the next one's workspace
        return f"makes no progress: no file changed and no result was new in {MAX_STALE_TURNS} turns in a row"
    return None
