"""Journals as tests read them: each record as the JSON that the file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parallel_orchestrator.records.journals.record import JournalRecord
from parallel_orchestrator.store.journal import decode
from parallel_orchestrator.store.record_parser import RecordParser

Record = dict[str, Any]


def read_all(path: Path) -> list[Record]:
    """Returns every whole record, none for an absent file. A torn tail is left out; damage fails the test."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    records = [decode(line) for line in lines]
    assert None not in records
    return [record for record in records if record]


class Item(JournalRecord, omit_defaults=True, kw_only=True):
    """A record of journals that tests make."""

    n: int = 0
    task: str = ""
    text: str = ""
    value: Any = None


ITEMS = RecordParser[Item](Item)
