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
from pathlib import Path
from typing import Any

from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.store import quick_json, redact
from parallel_orchestrator.store.files import disk_error, sync_directory, write_all
from parallel_orchestrator.store.paths import repair_hint
from parallel_orchestrator.store.plain import escape_json

log = logging.getLogger(__name__)

Record = dict[str, Any]

_SUM = b',"sum":"%08x"}'
_SUM_LENGTH = len(_SUM % 0)
_CHUNK = 65536
"""Bytes that are read at once where little is new, which spares asking how much there is."""


def encode(seq: int, fields: Record) -> bytes:
    """One record as its line, newline included."""
    body = escape_json(quick_json.text({"seq": seq, **fields})[:-1]).encode()
    return body + _SUM % zlib.crc32(body) + b"\n"


def decode(line: bytes) -> Record | None:
    """The record of a whole line without its newline, or None when it is not one."""
    body = line[:-_SUM_LENGTH]
    if line[-_SUM_LENGTH:] != _SUM % zlib.crc32(body):
        return None
    try:
        record = quick_json.loads(body + b"}")
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("seq"), int) else None


def is_torn(tail: bytes, seq: int) -> bool:
    """Whether `tail`, bytes without a newline, is what a killed append of record `seq` leaves."""
    begun, head = tail.partition(b"\0")[0], b'{"seq":%d,' % seq
    # A whole record in front of a last byte that is no newline was not torn: that byte was altered.
    return (head.startswith(begun) or begun.startswith(head)) and decode(tail[:-1]) is None


class Journal:
    """One journal file: read what is new, cut a torn tail, append.

    The instance remembers how far it has read, so that following a journal costs
    what was added and not what is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.next_seq = 1
        self.offset = 0
        """Bytes of whole records read or written so far."""
        self._descriptor = -1
        self._refused: OSError | None = None
        """Why the descriptor is for reading alone."""
        self._failed: OSError | None = None
        """What the disk refused once."""

    def read_new(self) -> list[Record]:
        """Whole records since the last call. A torn tail is left for the next writer.

        Damage raises DamagedState; the descriptor is given back then.
        """
        descriptor = self._open(create=False)
        if descriptor < 0:
            return []
        data = os.pread(descriptor, _CHUNK, self.offset)
        if not data:
            return []
        if len(data) == _CHUNK and (more := os.fstat(descriptor).st_size - self.offset - _CHUNK) > 0:
            data += os.pread(descriptor, more, self.offset + _CHUNK)
        *lines, tail = data.split(b"\n")
        records: list[Record] = []
        for line in lines:
            record = decode(line)
            if record is None or record["seq"] != self.next_seq:
                raise self._damage(f"record {record['seq']}" if record else "bytes that are no record")
            records.append(record)
            self.next_seq += 1
            self.offset += len(line) + 1
        if tail and not is_torn(tail, self.next_seq):
            raise self._damage("bytes that are not the beginning of it")
        return records

    def repair_tail(self) -> int:
        """Cut what follows the last whole record off the file; the number of bytes cut. Call it as the writer only."""
        descriptor = self._open(create=True)
        self.read_new()
        torn = os.fstat(descriptor).st_size - self.offset
        if torn:
            try:
                os.ftruncate(descriptor, self.offset)
                os.fsync(descriptor)
            except OSError as error:
                self._failed = error
                raise disk_error(self.path, error) from error
            log.warning("%s: cut off %d bytes of a half-written record %d", self.path, torn, self.next_seq)
        return torn

    def append(self, fields: Record, *, durable: bool) -> Record:
        """Add one record after all that are there, without known secrets; the record as it was written.

        With `durable`, it is on disk when this returns.
        Raises CannotGoOn when the disk refuses. From then on this instance refuses to write: a page that
        failed to reach the disk once may be gone although a second fsync says otherwise.
        """
        self.require_trust()
        descriptor = self._open(create=True)
        if os.fstat(descriptor).st_size != self.offset:
            self.repair_tail()
        fields = redact.known(fields)
        line = encode(self.next_seq, fields)
        try:
            write_all(descriptor, line)
            if durable:
                os.fdatasync(descriptor)
        except OSError as error:
            self._failed = error
            raise disk_error(self.path, error) from error
        record = {"seq": self.next_seq, **fields}
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
        """Give the descriptor back. The instance can be used again and opens the file anew."""
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
        self.close()  # whoever was making a reader out of this has none to close
        return DamagedState(
            f"{self.path} is damaged at line {self.next_seq}, byte {self.offset}: expected record {self.next_seq}, "
            f"found {found}. Nothing was changed. {repair_hint(self.path)}"
        )


def read_all(path: Path) -> list[Record]:
    """Every whole record of a journal, without changing it. An absent file has none."""
    journal = Journal(path)
    try:
        return journal.read_new()
    finally:
        journal.close()
