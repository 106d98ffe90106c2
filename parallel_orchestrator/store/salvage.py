"""Reads past the damage in a journal, and replaces a journal by repaired records."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.store.journal import Record, decode, encode, is_torn, lines_of
from parallel_orchestrator.system.files import read_at, write_pieces


@dataclass(frozen=True)
class Damage:
    """One fault in a journal, with its place."""

    line: int
    offset: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}, byte {self.offset}: {self.what}"


class StoredRecords(Collection[Record]):
    """The whole records of a journal, once each, in the order of their numbers.

    They stay in the file: each iteration reads them there. It raises DamagedState if the file has changed since.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[int, tuple[int, int]] = {}
        """Offset and bytes of each record, by its number."""

    def add(self, seq: int, offset: int, size: int) -> None:
        """Note that record `seq` starts at `offset` and has `size` bytes without its newline."""
        self._places[seq] = (offset, size)

    @property
    def numbers(self) -> Collection[int]:
        """The numbers of the records."""
        return self._places.keys()

    def __contains__(self, record: object) -> bool:
        return any(record == one for one in self)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Record]:
        if self._places:
            with self._path.open("rb") as file:
                for seq in sorted(self._places):
                    yield self._read(file.fileno(), seq)

    def _read(self, descriptor: int, seq: int) -> Record:
        offset, size = self._places[seq]
        record = decode(read_at(descriptor, size, offset))
        if record is None or record["seq"] != seq:
            raise DamagedState(f"{self._path} was changed at byte {offset} while it was read. Try again.")
        return record


@dataclass
class Salvage:
    """What is in a journal: its whole records, damage, and a half-written record at its end."""

    records: Collection[Record] = ()
    damage: list[Damage] = field(default_factory=list)
    torn_bytes: int = 0
    """Of a half-written record at the end, which a kill leaves. No damage."""
    missing: list[int] = field(default_factory=list)
    """Numbers below that of the last whole record that no whole record has."""

    @property
    def unbroken(self) -> Iterator[Record]:
        """Yields the records before the first missing one."""
        return (record for place, record in enumerate(self.records, 1) if record["seq"] == place)


def salvage(path: Path) -> Salvage:
    """Read a journal past its damage, without changing it. An absent file is an empty journal."""
    if not path.exists():
        return Salvage()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _salvage(path, descriptor)
    finally:
        os.close(descriptor)


def _salvage(path: Path, descriptor: int) -> Salvage:
    stored, damage, torn, offset, last = StoredRecords(path), list[Damage](), 0, 0, 0
    for number, (text, size, ended) in enumerate(lines_of(descriptor, 0), 1):
        record = decode(text) if ended else None
        if record is not None:
            seq = record["seq"]
            if seq in stored.numbers:
                damage.append(Damage(number, offset, f"record {seq} a second time"))
            else:
                if seq != last + 1:
                    damage.append(Damage(number, offset, f"record {seq} out of its place"))
                stored.add(seq, offset, size - 1)
                last = max(last, seq)
        elif ended:
            damage.append(Damage(number, offset, "bytes that are not a record"))
        elif is_torn(text, last + 1):
            torn = size
        else:
            damage.append(Damage(number, offset, "bytes that do not begin a record"))
        offset += size
    missing = [seq for seq in range(1, last) if seq not in stored.numbers]
    return Salvage(stored, damage, torn, missing)


def rewrite_journal(path: Path, records: Iterable[Record]) -> None:
    """Replace a journal, by rename, with one of these records, numbered from 1."""
    bodies = ({name: value for name, value in record.items() if name not in ("seq", "sum")} for record in records)
    write_pieces(path, (encode(seq, body) for seq, body in enumerate(bodies, 1)))
