"""What can be read of a damaged journal, and putting a mended one in its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from parallel_orchestrator.store.files import write_whole
from parallel_orchestrator.store.journal import Record, decode, encode, is_torn


@dataclass(frozen=True)
class Damage:
    """Where a journal is not what it has to be."""

    line: int
    offset: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}, byte {self.offset}: {self.what}"


@dataclass
class Salvage:
    """Every whole record of a journal, once, by its number, and what else is in the file."""

    records: list[Record] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    torn_bytes: int = 0
    """At the end, as a kill leaves them: no damage."""

    @property
    def missing(self) -> list[int]:
        """Numbers between the first possible and the last whole record that no whole record has."""
        there = {record["seq"] for record in self.records}
        return [seq for seq in range(1, max(there, default=0)) if seq not in there]

    @property
    def unbroken(self) -> list[Record]:
        """The records before the first missing one."""
        return [record for place, record in enumerate(self.records, 1) if record["seq"] == place]


def salvage(path: Path) -> Salvage:
    """Read a journal past its damage, without changing it. An absent one is empty."""
    *lines, tail = path.read_bytes().split(b"\n") if path.exists() else [b""]
    found, by_seq, offset = Salvage(), dict[int, Record](), 0
    for number, line in enumerate(lines, 1):
        record = decode(line)
        if record is None:
            found.damage.append(Damage(number, offset, "bytes that are no record"))
        elif record["seq"] in by_seq:
            found.damage.append(Damage(number, offset, f"record {record['seq']} a second time"))
        else:
            if record["seq"] != max(by_seq, default=0) + 1:
                found.damage.append(Damage(number, offset, f"record {record['seq']} out of its place"))
            by_seq[record["seq"]] = record
        offset += len(line) + 1
    found.records = [by_seq[seq] for seq in sorted(by_seq)]
    if tail and is_torn(tail, max(by_seq, default=0) + 1):
        found.torn_bytes = len(tail)
    elif tail:
        found.damage.append(Damage(len(lines) + 1, offset, "bytes that are no beginning of a record"))
    return found


def write_anew(path: Path, records: Iterable[Record]) -> None:
    """Replace a journal by one of these records, numbered anew, by rename."""
    bodies = ({name: value for name, value in record.items() if name not in ("seq", "sum")} for record in records)
    write_whole(path, b"".join(encode(seq, body) for seq, body in enumerate(bodies, 1)))
