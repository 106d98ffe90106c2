"""The records of a transcript: the conversation of one attempt, in the order in which it happened.

Blocks of messages, tools and usage stay as the Messages API has them.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from parallel_orchestrator.records.journals.record import JournalRecord

Block = dict[str, Any]


class _TranscriptRecord(JournalRecord, tag_field="kind", kw_only=True):
    pass


class Opening(_TranscriptRecord, omit_defaults=True, kw_only=True):
    """What a conversation starts with."""

    model: str
    profile: str
    tools: list[Block]
    system: list[Block]
    task: list[Block]
    """Blocks of the first user message."""
    request: dict[str, Any] = field(default_factory=dict)
    """With Claude Code: the other fields of its first request."""
    betas: str = ""
    """With Claude Code: the beta features that its first request asked for."""
    backend: str = ""
    """`claude-code`, or empty."""
    model_wanted: str = ""
    """The model by the name that the person gave it, where another one is sent."""


class ConversationStart(Opening, tag="start", omit_defaults=True, kw_only=True):
    """The attempt's first record."""

    base: str
    """The commit that the work starts from."""
    run: str
    task_id: str
    attempt: int


class ModelChanged(_TranscriptRecord, tag="model", kw_only=True):
    """Another model is asked from now on: the first one has not answered."""

    model: str


class ModelAnswer(_TranscriptRecord, tag="answer", omit_defaults=True, kw_only=True):
    """The model answered."""

    turn: int
    phase: str
    phase_turn: int
    content: list[Block]
    stop_reason: str | None
    usage: Any
    """As the endpoint gave it: any JSON value."""
    endpoint_s: float
    discarded: bool
    """Whether nothing of the answer can be used."""
    faults: dict[str, str] = field(default_factory=dict)
    """Why tool calls cannot be carried out, by the call's id."""


class TreeSaved(_TranscriptRecord, tag="tree", kw_only=True):
    """The workspace before the turn's tools ran."""

    turn: int
    tree: str


class CallResult(Struct):
    """The result of one tool call."""

    tool_use_id: str
    content: str
    is_error: bool


class ToolsRan(_TranscriptRecord, tag="results", kw_only=True):
    """One result for each tool call of the last answer, in order."""

    turn: int
    results: list[CallResult]
    seconds: float


class _PhaseStart(_TranscriptRecord, kw_only=True):
    round: int
    text: str
    """The text that the model is sent."""
    base: str
    tree: str
    """The workspace begins again as this tree."""


class SentBack(_PhaseStart, tag="repair", kw_only=True):
    """The work was not merged; the conversation continues with the facts."""


class Restarted(_PhaseStart, tag="restart", kw_only=True):
    """A new conversation began: the start's task, then the facts."""


class ConversationStopped(_TranscriptRecord, tag="stopped", kw_only=True):
    """A refusal or a cap ended the conversation."""

    reason: str
    restartable: bool


class ConversationEnded(JournalRecord, kw_only=True):
    """How it ended. Its kinds are `finished`, `submitted`, `failed` and those of other versions."""

    kind: str
    reason: str = ""


Said = (
    ConversationStart | ModelChanged | ModelAnswer | TreeSaved | ToolsRan | SentBack | Restarted | ConversationStopped
)
"""What belongs to the conversation itself."""
TranscriptRecord = Said | ConversationEnded

KINDS = frozenset(str(kind.__struct_config__.tag) for kind in Said.__args__)
"""The kinds that are no ending."""
