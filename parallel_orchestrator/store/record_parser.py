"""From the JSON of a journal's line to its typed record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from parallel_orchestrator.records.journals import transcript
from parallel_orchestrator.records.journals.batch import BatchRecord, BatchSession, ScenarioMove
from parallel_orchestrator.records.journals.ledger import LedgerRecord
from parallel_orchestrator.records.journals.queue import FinalTests, FixPlanned, Move, QueueRecord, SessionStart
from parallel_orchestrator.records.journals.record import JournalRecord
from parallel_orchestrator.records.journals.transcript import ConversationEnded, TranscriptRecord
from parallel_orchestrator.system import json_codec

R = TypeVar("R", bound=JournalRecord)


class RecordParser(Generic[R]):
    """Parses the records of one journal. Raises ValueError, or RecursionError, for what is none of them."""

    def __init__(self, usual: Any, other: Callable[[Mapping[str, Any]], Any] = lambda fields: None) -> None:
        """`usual`: a type or a tagged union, tried first. `other`: the type of fields that are none of it, or None."""
        self._usual = usual
        self._other = other
        self._decode = msgspec.json.Decoder(usual).decode

    def __call__(self, data: bytes) -> R:
        """Returns the record that `data` holds."""
        try:
            record: R = self._decode(data)
        except ValueError:
            # Another kind, or what msgspec takes from no file: NaN, numbers beyond a float, lone surrogates.
            return self.of(json_codec.loads(data))
        return record

    def of(self, fields: Any) -> R:
        """Returns the record of these fields, as JSON's own types."""
        record: R = msgspec.convert(fields, self._other(fields) or self._usual)
        return record


def _rare_queue_record(fields: Mapping[str, Any]) -> Any:
    kinds = {"session": SessionStart, "fix": FixPlanned, "final": FinalTests}
    return next((kind for name, kind in kinds.items() if name in fields), None)


def _ending(fields: Mapping[str, Any]) -> Any:
    return None if fields.get("kind") in transcript.KINDS else ConversationEnded


def _batch_session(fields: Mapping[str, Any]) -> Any:
    return BatchSession if "session" in fields else None


QUEUE = RecordParser[QueueRecord](Move, _rare_queue_record)
LEDGER = RecordParser[LedgerRecord](LedgerRecord)
TRANSCRIPT = RecordParser[TranscriptRecord](transcript.Said, _ending)
BATCH = RecordParser[BatchRecord](ScenarioMove, _batch_session)
