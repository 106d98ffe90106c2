"""From the JSON of a journal's line to its typed record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from parallel_orchestrator.records.journals.ledger import LedgerRecord
from parallel_orchestrator.records.journals.queue import FinalTests, FixPlanned, Move, QueueRecord, SessionStart
from parallel_orchestrator.records.journals.record import JournalRecord
from parallel_orchestrator.system import json_codec

R = TypeVar("R", bound=JournalRecord)


class RecordParser(Generic[R]):
    """Parses the records of one journal. Raises ValueError, or RecursionError, for what is none of them."""

    def __init__(self, usual: Any, others: Mapping[str, type[JournalRecord]] | None = None) -> None:
        """`usual`: a type or a tagged union, tried first. `others`: untagged types by the field that only they have."""
        self._usual = usual
        self._others = others or {}
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
        kind: Any = next((kind for name, kind in self._others.items() if name in fields), self._usual)
        record: R = msgspec.convert(fields, kind)
        return record


QUEUE = RecordParser[QueueRecord](Move, {"session": SessionStart, "fix": FixPlanned, "final": FinalTests})
LEDGER = RecordParser[LedgerRecord](LedgerRecord)
