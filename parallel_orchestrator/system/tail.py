"""Reads the last lines of a file that may be large, and then the lines that are added."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from parallel_orchestrator.records.errors import CannotGoOn

_BLOCK = 1 << 16
_LONGEST_LINE = 1 << 23
"""Bytes. Longer lines, which this program never writes, are yielded in pieces."""


class Tail:
    """The complete lines of `path` from the last `count` on; all of them with None.

    It reads blocks from the end, so opening a large file costs no more than a small one.
    """

    def __init__(self, path: Path, count: int | None) -> None:
        self._path = path
        self._count = count
        self._offset = -1

    def read_new(self) -> Iterator[bytes]:
        """Yield the lines since the last call, without newlines. An incomplete line waits for its end."""
        try:
            with self._path.open("rb") as file:
                descriptor = file.fileno()
                size = os.fstat(descriptor).st_size
                if not 0 <= self._offset <= size:  # the first call, or another file took the name
                    self._offset = 0 if self._count is None else _start_of_last(descriptor, size, self._count)
                yield from self._lines(descriptor, size)
        except FileNotFoundError:
            return
        except OSError as error:
            raise CannotGoOn(f"cannot read {self._path}: {error.strerror}") from error

    def _lines(self, descriptor: int, size: int) -> Iterator[bytes]:
        rest = b""
        place = self._offset
        while place < size and (data := os.pread(descriptor, min(_BLOCK, size - place), place)):
            place += len(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._offset += len(line) + 1
                yield line
            if len(rest) > _LONGEST_LINE:
                self._offset += len(rest)
                yield rest
                rest = b""


def _start_of_last(descriptor: int, size: int, count: int) -> int:
    """Return where the last `count` complete lines begin."""
    wanted = count + 1
    """The newline that ends the line before the first of them."""
    end = size
    while end > 0:
        start = max(0, end - _BLOCK)
        block = os.pread(descriptor, end - start, start)
        here = block.count(b"\n")
        if here >= wanted:
            for _ in range(wanted):
                end = start + block.rindex(b"\n", 0, end - start)
            return end + 1
        wanted -= here
        end = start
    return 0
