"""How a model acts: it is asked, its tools run, it is told what came of them, until it is done.

    take_turns
      └─ until ended:
           tool calls without results?  -> use them, one after the other, and record the results
           the last answer ends it?     -> Ended
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

from parallel_orchestrator.agent.client import Answer
from parallel_orchestrator.agent.prompt import build_request
from parallel_orchestrator.agent.results import ToolResult
from parallel_orchestrator.agent.transcript import NEVER_ACTED_ON, Conversation, ToolCall, Transcript

MAX_RETRIES = 2
"""How often an answer that was cut off, or that said nothing, is asked for again."""
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
    FAILED = "failed"


@dataclass(frozen=True)
class Ended:
    """The end of a conversation: the model's closing report, or why it failed."""

    kind: End
    reason: str = ""
    text: str = ""


@dataclass(frozen=True)
class Limits:
    """What one attempt may use."""

    turns: int
    """Answers of the model."""
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

    What is nobody's fault here (BudgetReached, CannotGoOn, KeyRefused, …) is passed on: the
    conversation then stands where it is, and calling this again goes on with it.
    """
    conversation = transcript.conversation
    if conversation.tree is not None:
        # Tools ran that nothing is known of, or a repair begins: either way the workspace starts from that tree.
        means.restore(conversation.tree)
    while True:
        if conversation.calls:
            _use_tools(transcript, means)
        elif (ended := verdict(conversation, limits)) is not None:
            return ended
        else:
            _ask(transcript, means)


def _ask(transcript: Transcript, means: Means) -> None:
    now = transcript.conversation
    means.progress(f"asking the model (turn {now.turns + 1})")
    answer = means.ask(build_request(now), turn=now.turns + 1, phase=now.phase, phase_turn=now.phase_turn)
    content, discarded = kept_of(answer.content, answer.stop_reason)
    transcript.answer(answer, content, discarded=discarded)


def kept_of(content: list[dict[str, Any]], stop_reason: str | None) -> tuple[list[dict[str, Any]], bool]:
    """What a transcript keeps of an answer's blocks, and whether the answer can only be asked for again."""
    kept = _sendable(content)
    return kept, _is_useless(stop_reason, kept)


def _use_tools(transcript: Transcript, means: Means) -> None:
    calls = transcript.conversation.calls
    changing = any(means.tools.mutates(call.name, call.arguments) for call in calls)
    if changing and transcript.conversation.tree is None:
        transcript.tree(means.snapshot())
    started = time.monotonic()
    results = means.tools.run_all(calls, means.progress)
    transcript.results(results, round(time.monotonic() - started, 3))


def verdict(now: Conversation, limits: Limits) -> Ended | None:
    """Whether the conversation has ended, and how; None when the model is to be asked (again)."""
    return _verdict_on_answer(now) or _verdict_on_limits(now, limits)


def _verdict_on_answer(now: Conversation) -> Ended | None:
    reason = _failure(now)
    if reason is not None:
        return _failed(reason)
    if now.empties or now.stop_reason in _TO_BE_CONTINUED:
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
    if now.error_turns >= MAX_ERROR_TURNS:
        return _failed(f"all tool calls of {now.error_turns} turns in a row failed")
    if now.repeats >= MAX_REPEATS:
        return _failed(f"loops on one call: the same call gave the same result {now.repeats} times in a row")
    if now.stale_turns > MAX_STALE_TURNS:  # what the last turn changed shows in the next one's workspace
        return _failed(f"makes no progress: no file changed and no result was new in {MAX_STALE_TURNS} turns in a row")
    if now.turns >= limits.turns:
        return _failed(f"reached its limit of {limits.turns} turns")
    if now.seconds >= limits.seconds:
        return _failed(f"reached its limit of {limits.seconds / 60:g} minutes")
    return None


def _failed(reason: str) -> Ended:
    return Ended(End.FAILED, reason=reason)


def _sendable(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answer's blocks as the API takes them back: no blank text, no id of a tool call twice."""
    ids: set[str] = set()
    return [_with_new_id(block, ids) for block in content if block["type"] != "text" or block["text"].strip()]


def _with_new_id(block: dict[str, Any], ids: set[str]) -> dict[str, Any]:
    if block["type"] != "tool_use":
        return block
    own = block["id"]
    new = next(name for name in (own, *(f"{own}_{n}" for n in range(2, len(ids) + 3))) if name not in ids)
    ids.add(new)
    return {**block, "id": new}


def _is_useless(stop_reason: str | None, content: list[dict[str, Any]]) -> bool:
    """Whether an answer can only be asked for again.

    One cut off inside a tool call is: the call would run with half its arguments.
    """
    if stop_reason == "max_tokens":
        return not content or content[-1]["type"] != "text"
    if stop_reason in NEVER_ACTED_ON:
        return False
    return all(block["type"] in ("thinking", "redacted_thinking") for block in content)
