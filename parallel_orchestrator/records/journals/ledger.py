"""The records of ledger.jsonl: a call's tries and how each ended.

Each try begins with an intent and has at most one outcome. A retry is a new intent of the same call. An intent without
an outcome is of a gateway that died: the try may have been billed, and counts at its bound.
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from parallel_orchestrator.records.journals.record import JournalRecord


class _CallRecord(JournalRecord, tag_field="kind", kw_only=True):
    call: int
    task: str
    attempt: int
    turn: int | None
    """None for callers that count no turns."""
    phase: str
    phase_turn: int

    @property
    def turn_id(self) -> tuple[str, int, int | None]:
        """Returns the turn that the call is for."""
        return (self.task, self.attempt, self.turn)


class IntentRecord(_CallRecord, tag="intent", kw_only=True):
    """A try was announced. Only when this is on disk may anything go to the endpoint."""

    hash: str
    """Digest of what the request asks for."""
    model: str
    try_number: int = field(name="try")
    bound_usd: float | None
    """The most that the try can cost; None when its price is unknown."""
    changed: bool
    """Whether the turn has an answer already, to another request."""
    at: float = 0.0


class AnswerRecord(_CallRecord, tag="answer", kw_only=True):
    """A whole answer. Only when this is on disk may it be delivered."""

    hash: str
    model: str
    stop_reason: str
    usage: Any
    """As the endpoint gave it: any JSON value."""
    usd: float | None
    """None when the cost is unknown."""
    recorded_usd: float | None = None
    """What a replayed answer cost when it was recorded."""
    endpoint_s: float
    waited_s: float
    request_id: str | None
    at: float = 0.0
    events: str
    """The SSE text, verbatim."""


class FaultRecord(_CallRecord, tag="fault", omit_defaults=True, kw_only=True):
    """A try failed in a way that another try may not."""

    fault: str
    ambiguous: bool
    """Whether the endpoint may have billed it."""
    detail: str
    try_number: int = field(name="try", default=0)
    """0 when no other try follows."""
    next_s: float = 0.0
    """Seconds until the next try."""
    gives_up_s: float = 0.0
    """Seconds until no other try is made, unless the endpoint sends anything."""
    at: float = 0.0


class RefusalRecord(_CallRecord, tag="refused", kw_only=True):
    """The endpoint refused the call, and would refuse it again."""

    status: int
    error_type: str
    detail: str
    at: float = 0.0


LedgerRecord = IntentRecord | AnswerRecord | FaultRecord | RefusalRecord
