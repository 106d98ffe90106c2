"""How a model acts: ask it, run its tools, send it the results, until it is done.

    take_turns
      └─ until ended:
           tool calls without results?  -> use them, one after the other, and record the results
           the last answer ends it?     -> StopResult
           a refusal or the task's cap  -> recorded, StopResult
           otherwise                    -> ask, and record the answer

The transcript is the only state. Each pass reads where the conversation stands and does the next thing,
so calling this again resumes after a kill anywhere: an answer is on disk before its tools run, and the
workspace's tree before they touch it.
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
"""Turns in a row in which no file changed and no result was new. Honest work has far fewer: running the tests
again follows a change, and looking around shows something new."""

_TO_BE_CONTINUED = frozenset({None, "max_tokens", "pause_turn"})
"""Stop reasons after which the model is asked again. None: a message was added since its last answer."""
_DONE = frozenset({"end_turn", "stop_sequence", "tool_use"})

_log = logging.getLogger(__name__)


class StopKind(Enum):
    """How a conversation can end."""

    FINISHED = "finished"
    """The model says that its work is done."""
    STOPPED = "stopped"
    """A limit, a refusal or a loop ended it."""


@dataclass(frozen=True)
class StopResult:
    """The end of a conversation: the model's closing report, or why it was stopped."""

    kind: StopKind
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
    """The task's own time, without waiting for a rate limit or for the gateway."""


class Ask(Protocol):
    """Asks the model; `ModelClient.ask`."""

    def __call__(self, request: dict[str, Any], /, *, turn: int, phase: str, phase_turn: int) -> Answer:
        """Returns the answer to `request`, the attempt's turn number `turn`."""
        ...


class Tools(Protocol):
    """Carries out tool calls; `ToolBox`, or Claude Code."""

    def run_all(self, calls: Sequence[ToolCall], progress: Callable[[str], None]) -> list[ToolResult]:
        """Returns the results of an answer's calls in their order, those of failed calls included."""
        ...

    def mutates(self, name: str, arguments: object) -> bool:
        """Whether the call can change files."""
        ...


@dataclass(frozen=True)
class AgentContext:
    """What a conversation needs besides its transcript."""

    ask: Ask
    tools: Tools
    snapshot: Callable[[], str]
    """Stores the workspace as a git tree; returns the tree's id."""
    restore: Callable[[str], None]
    """Resets the workspace to a tree."""
    progress: Callable[[str], None] = lambda doing: None
    """Is called with what the agent is doing, for the live view."""


def take_turns(transcript: Transcript, context: AgentContext, limits: Limits) -> StopResult:
    """Continue a conversation to its end.

    Errors that no task causes (BudgetReached, CannotGoOn, KeyRefused, …) pass through. The conversation
    stays where it is, and calling this again continues it.
    """
    now = transcript.conversation
    if now.stopped is not None:
        return StopResult(StopKind.STOPPED, now.stopped.reason, restartable=now.stopped.restartable)
    if now.tree is not None:
        # A killed process may have run tools whose results are lost, or a phase begins: start from the stored tree.
        context.restore(now.tree)
    try:
        while True:
            if now.calls:
                _use_tools(transcript, context)
            elif (ended := should_stop(now, limits)) is not None:
                return ended
            else:
                _ask(transcript, context)
    except (TaskLimit, RequestRefused) as error:
        restartable = isinstance(error, ContextFull | TurnLimit)
        transcript.stopped(str(error), restartable=restartable)
        return StopResult(StopKind.STOPPED, str(error), restartable=restartable)


def _ask(transcript: Transcript, context: AgentContext) -> None:
    now = transcript.conversation
    context.progress(f"asking the model (turn {now.turns + 1})")
    answer = context.ask(build_request(now), turn=now.turns + 1, phase=now.phase, phase_turn=now.phase_turn)
    kept = kept_of(answer.content, answer.stop_reason, now)
    transcript.answer(answer, kept.content, discarded=kept.discarded, faults=kept.faults)


def _use_tools(transcript: Transcript, context: AgentContext) -> None:
    calls = transcript.conversation.calls
    usable = [call for call in calls if not call.fault]
    changing = any(context.tools.mutates(call.name, call.arguments) for call in usable)
    if changing and transcript.conversation.tree is None:
        transcript.tree(context.snapshot())
    started = time.monotonic()
    done = iter(_run_all(usable, context, transcript.conversation.tree) if usable else ())
    results = [ToolResult(f"Error: {call.fault}", is_error=True) if call.fault else next(done) for call in calls]
    transcript.results(results, round(time.monotonic() - started, 3))


def _run_all(calls: Sequence[ToolCall], context: AgentContext, tree: str | None) -> list[ToolResult]:
    """Run an answer's calls. When memory runs out, restore the tree and run all of them again, alone.

    Raises OutOfMemory when it runs out a second time.
    """
    try:
        return context.tools.run_all(calls, context.progress)
    except OutOfMemory:
        _log.warning("memory ran out; the turn's commands are repeated with nothing else running")
    with ROOM.alone():
        if tree is not None:
            context.restore(tree)
        return context.tools.run_all(calls, context.progress)


def should_stop(now: Conversation, limits: Limits) -> StopResult | None:
    """Returns how the conversation ended; None when the model has to be asked again."""
    return _stop_by_answer(now) or _stop_by_limits(now, limits)


def _stop_by_answer(now: Conversation) -> StopResult | None:
    reason = _failure(now)
    if reason is not None:
        return StopResult(StopKind.STOPPED, reason, restartable=now.stop_reason == "model_context_window_exceeded")
    if now.stop_reason in _TO_BE_CONTINUED:
        return None
    if now.stop_reason in _DONE:
        return StopResult(StopKind.FINISHED, text=now.text)
    _log.warning("the model stopped for an unknown reason, %r; taken as the end of its work", now.stop_reason)
    return StopResult(StopKind.FINISHED, reason=f"unknown stop reason {now.stop_reason!r}", text=now.text)


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


def _stop_by_limits(now: Conversation, limits: Limits) -> StopResult | None:
    if loop := _loop(now):
        return StopResult(StopKind.STOPPED, loop)
    if now.turns - now.earlier_turns >= limits.turns:
        return StopResult(StopKind.STOPPED, f"reached its limit of {limits.turns} turns", restartable=True)
    if now.seconds >= limits.seconds:
        return StopResult(StopKind.STOPPED, f"reached its limit of {limits.seconds / 60:g} minutes")
    return None


def _loop(now: Conversation) -> str | None:
    if now.error_turns >= MAX_ERROR_TURNS:
        return f"all tool calls of {now.error_turns} turns in a row failed"
    if now.repeats >= MAX_REPEATS:
        return f"loops on one call: the same call gave the same result {now.repeats} times in a row"
    if now.stale_turns > MAX_STALE_TURNS:  # what the last turn changed shows in the next one's workspace
        return f"makes no progress: no file changed and no result was new in {MAX_STALE_TURNS} turns in a row"
    return None
