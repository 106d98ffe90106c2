"""Append-only JSON lines with a sequence number and a checksum per record.

A line is one JSON object that starts with "seq" (1, 2, 3, … without gaps) and ends
with "sum", the CRC-32 of all bytes before `,"sum"`:

    {"seq":7,"task":"task_2",...,"sum":"8c1f0d3a"}

What a kill can leave is a torn tail: the beginning of the next record, without its
newline, and zeros where blocks never reached the disk. The next writer cuts it off on
disk before it appends, and says so in the log, so no record ever follows garbage.
Everything else is damage, at the end of the file too: a line that ends with a newline
was written whole, and somebody may have acted on it. It is reported with line and
offset, and never skipped; `repair` is for that.

Writers of one journal must exclude each other (queue.lock, or being its only writer).
"""

from __future__ import annotations

import contextlib
import logging
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.records.journals.record import JournalRecord
from parallel_orchestrator.store.paths import repair_hint
from parallel_orchestrator.system import json_codec, redact
from parallel_orchestrator.system.files import disk_error, sync_directory, write_all
from parallel_orchestrator.system.terminal_text import escape_json

log = logging.getLogger(__name__)

Record = dict[str, Any]
"""A record of whichever journal, as JSON's own types: for what repairs journals, or shows them."""
R = TypeVar("R", bound=JournalRecord)
T = TypeVar("T")

_SUM = b',"sum":"%08x"}'
_SUM_LENGTH = len(_SUM % 0)
_EMPTY = JournalRecord()
_FIRST_PIECE = 2**16
_NEXT_PIECE = 2**20
"""Bytes that one read asks for. It may give fewer, and the kernel never gives more than 0x7ffff000."""


def misfit(path: Path, record: JournalRecord, why: object, before: str = "those before it") -> DamagedState:
    """Returns the error for a whole record of the journal `path` that contradicts the records before it."""
    return DamagedState(
        f"{path}, line {record.seq}: the record does not fit {before} ({why}). Nothing was changed. {repair_hint(path)}"
    )


def encode(seq: int, record: JournalRecord | Record) -> bytes:
    """One record as its line, newline included."""
    if isinstance(record, dict):
        record = {name: value for name, value in record.items() if name != "seq"}
    body = escape_json(f'{{"seq":{seq},{json_codec.text(record)[1:-1]}').encode()
    return body + _SUM % zlib.crc32(body) + b"\n"


def body_of(line: bytes) -> bytes | None:
    """The JSON of a whole line without its newline, or None when the checksum is not that of the line."""
    body = line[:-_SUM_LENGTH]
    return body + b"}" if line[-_SUM_LENGTH:] == _SUM % zlib.crc32(body) else None


def decode(line: bytes) -> Record | None:
    """The fields of a whole line without its newline, or None when it is not a record."""
    body = body_of(line)
    if body is None:
        return None
    try:
        fields = json_codec.loads(body)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) and isinstance(fields.get("seq"), int) else None


def is_torn(tail: bytes, seq: int) -> bool:
    """Whether `tail`, bytes without a newline, is what a killed append of record `seq` leaves."""
    begun, head = tail.partition(b"\0")[0], b'{"seq":%d,' % seq
    # A whole record in front of a last byte that is no newline was not torn: that byte was altered.
    return (head.startswith(begun) or begun.startswith(head)) and body_of(tail[:-1]) is None


class Line(NamedTuple):
    """One line of a file, or what stands behind the last one."""

    text: bytes
    """Without its newline. Of a line with zeros in it perhaps the beginning alone: no record holds any."""
    size: int
    """Bytes that it has in the file, its newline included."""
    ended: bool = True
    """Whether a newline ends it."""


def lines_of(descriptor: int, place: int, piece: bytes = b"") -> Iterator[Line]:
    """The lines of an open file from `place` to its end, read piece by piece. `piece`: the first, where it is known.

    Holds one line at a time. A file that grows meanwhile is read to the end that it has then.
    """
    begun: list[bytes] = []
    size = 0
    while piece := piece or _piece(descriptor, place):
        place += len(piece)
        *lines, rest = piece.split(b"\n") if b"\n" in piece else (piece,)  # split is slow on a piece without a line end
        if lines:
            first = Line(b"".join((*begun, lines[0])), size + len(lines[0]) + 1)
            begun, size = [], 0
            yield first
            for text in lines[1:]:
                yield Line(text, len(text) + 1)
        if rest:
            size += len(rest)
            if not begun or b"\0" not in begun[-1][:-1]:
                begun.append(rest)
        piece = b""
    if size:
        yield Line(b"".join(begun), size, ended=False)


def _piece(descriptor: int, place: int) -> bytes:
    """Returns bytes at `place`, empty at the end of the file. A short read does not mean the end."""
    return os.pread(descriptor, _NEXT_PIECE, place) if os.fstat(descriptor).st_size > place else b""


class Journal(Generic[R]):
    """One journal file: read what is new, cut a torn tail, append. `parse` makes each line its typed record, once.

    The instance remembers how far it has read, so that following a journal costs
    what was added and not what is there.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], R]) -> None:
        self.path = path
        self._parse = parse
        self.next_seq = 1
        self.offset = 0
        """Bytes of whole records read or written so far."""
        self._read_to = 0
        """Where the last reading that found something ended."""
        self._descriptor = -1
        self._refused: OSError | None = None
        """Why the descriptor is for reading alone."""
        self._failed: OSError | None = None
        """What the disk refused once."""

    def read_new(self) -> list[R]:
        """Whole records since the last call. A torn tail is left for the next writer.

        Damage raises DamagedState; the descriptor is given back then.
        """
        return list(self.each_new())

    def each_new(self) -> Iterator[R]:
        """The same, one record at a time: no more than one is held. Those that are not taken are new next time."""
        return self._new(self._parse)

    def pass_over(self) -> None:
        """Check whole records since the last call, and parse none."""
        deque(self._new(unparsed), maxlen=0)

    def _new(self, parse: Callable[[bytes], T]) -> Iterator[T]:
        descriptor = self._open(create=False)
        # Most often nothing is new: that costs one call of the system, and no generator.
        piece = os.pread(descriptor, _FIRST_PIECE, self.offset) if descriptor >= 0 else b""
        return self._records(descriptor, piece, parse) if piece else iter(())

    def _records(self, descriptor: int, piece: bytes, parse: Callable[[bytes], T]) -> Iterator[T]:
        self._read_to = self.offset
        for text, size, ended in lines_of(descriptor, self.offset, piece):
            self._read_to += size
            if not ended:
                if not is_torn(text, self.next_seq):
                    raise self._damage("bytes that are not the beginning of it")
                return
            body = body_of(text)
            if body is None or not body.startswith(b'{"seq":%d,' % self.next_seq):
                record = decode(text)
                raise self._damage(f"record {record['seq']}" if record else "bytes that are not a record")
            try:
                parsed = parse(body)
            except (ValueError, RecursionError) as error:
                raise self._misfit(error) from error
            self.next_seq += 1
            self.offset += size
            yield parsed

    def repair_tail(self) -> int:
        """Cut what follows the last whole record off the file; the number of bytes cut. Call it as the writer only.

        Raises CannotGoOn when the file cannot be read to its end: what was not read is not cut off.
        """
        descriptor = self._open(create=True)
        self.pass_over()
        size = os.fstat(descriptor).st_size
        if size != self._read_to:
            raise disk_error(self.path, OSError(f"only {self._read_to} of its {size} bytes can be read"))
        torn = size - self.offset
        if torn:
            try:
                os.ftruncate(descriptor, self.offset)
                os.fsync(descriptor)
            except OSError as error:
                self._failed = error
                raise disk_error(self.path, error) from error
            log.warning("%s: cut off %d bytes of a half-written record %d", self.path, torn, self.next_seq)
        return torn

    def append(self, record: R, *, durable: bool) -> R:
        """Add one record after all that are there, without known secrets; the record as it was written.

        With `durable`, it is on disk when this returns.
        Raises CannotGoOn when the disk refuses. From then on this instance refuses to write: a page that
        failed to reach the disk once may be gone although a second fsync says otherwise.
        """
        self.require_trust()
        descriptor = self._open(create=True)
        if os.fstat(descriptor).st_size != self.offset:
            self.repair_tail()
        record = redact.known(record)
        line = encode(self.next_seq, record)
        try:
            write_all(descriptor, line)
            if durable:
                os.fdatasync(descriptor)
        except OSError as error:
            self._failed = error
            raise disk_error(self.path, error) from error
        record.seq = self.next_seq
        self.offset += len(line)
        self.next_seq += 1
        return record

    def sync(self) -> None:
        """Make everything appended so far durable; for writers that sync outside their lock, or in another thread."""
        self.require_trust()
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._failed = error
            raise disk_error(self.path, error) from error

    def close(self) -> None:
        """Close the file. The next use of the instance opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor, self._refused = -1, None

    def require_trust(self) -> None:
        """Raise CannotGoOn when the disk has refused something once."""
        if self._failed:
            why = self._failed.strerror or self._failed
            raise disk_error(self.path, OSError(f"an earlier write to it failed: {why}"))

    def _open(self, *, create: bool) -> int:
        if self._descriptor < 0:
            flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
            try:
                if create and not self.path.exists():
                    self._descriptor = os.open(self.path, flags | os.O_CREAT, 0o600)
                    sync_directory(self.path.parent)
                else:
                    self._descriptor = os.open(self.path, flags)
            except FileNotFoundError as error:
                if create:
                    raise disk_error(self.path, error) from error
            except OSError as error:
                # A reader of somebody else's run, or of one on a read-only disk, cannot write and need not.
                with contextlib.suppress(OSError):
                    self._descriptor, self._refused = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC), error
                if self._descriptor < 0:
                    raise disk_error(self.path, error) from error
        if create and self._refused:
            raise disk_error(self.path, self._refused) from self._refused
        return self._descriptor

    def _damage(self, found: str) -> DamagedState:
        self.close()  # the caller gets no reader that it could close
        return DamagedState(
            f"{self.path} is damaged at line {self.next_seq}, byte {self.offset}: expected record {self.next_seq}, "
            f"found {found}. Nothing was changed. {repair_hint(self.path)}"
        )

    def _misfit(self, error: Exception) -> DamagedState:
        self.close()
        return DamagedState(
            f"{self.path}, line {self.next_seq}: the record cannot be understood ({error}). Nothing was changed. "
            f"{repair_hint(self.path)}"
        )


def unparsed(body: bytes) -> JournalRecord:
    """Returns an empty record: for callers that check whether lines are whole, not what they hold."""
    return _EMPTY


def read_all(path: Path, parse: Callable[[bytes], R]) -> list[R]:
    """Every whole record of a journal, without changing it. An absent file has none."""
    return list(read_each(path, parse))


def read_each(path: Path, parse: Callable[[bytes], R]) -> Iterator[R]:
    """The same, one record at a time. Raises DamagedState at the first that is damaged."""
    with contextlib.closing(Journal(path, parse)) as journal:
        yield from journal.each_new()
