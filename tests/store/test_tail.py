"""The end of a file: as many whole lines as were asked for, whatever the size, and then what is added."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from parallel_orchestrator.system.tail import Tail


@pytest.mark.parametrize("lines", [0, 1, 5, 20_000])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 19_999, 20_001, None])
def test_the_last_lines(lines: int, count: int | None, tmp_path: Path) -> None:
    file = tmp_path / "log"
    whole = [b"line %d" % number for number in range(lines)]
    file.write_bytes(b"".join(line + b"\n" for line in whole) + b"half")
    expected = whole if count is None else whole[max(0, lines - count) :]
    assert list(Tail(file, count).read_new()) == expected


def test_what_is_added_comes_once_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "log"
    tail = Tail(file, 1)
    assert list(tail.read_new()) == []  # it is not there yet
    file.write_bytes(b"a\nb\nhal")
    assert list(tail.read_new()) == [b"b"]
    with file.open("ab") as more:
        more.write(b"f\nc\nd")
    assert list(tail.read_new()) == [b"half", b"c"]
    assert list(tail.read_new()) == []
    file.write_bytes(b"new\n")  # made anew, and shorter
    assert list(tail.read_new()) == [b"new"]


def test_a_large_file_is_opened_by_its_end(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("wb") as large:
        large.truncate(500 << 20)  # a hole: it takes no room
        large.seek(0, os.SEEK_END)
        large.write(b"\n" + b"".join(b"line %d\n" % number for number in range(1000)))
    tracemalloc.start()
    try:
        assert list(Tail(file, 2).read_new()) == [b"line 998", b"line 999"]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_line_without_end_comes_in_pieces(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"x" * (20 << 20) + b"\nlast\n")
    pieces = list(Tail(file, None).read_new())
    assert len(pieces) > 2
    assert b"".join(pieces[:-1]) == b"x" * (20 << 20)
    assert pieces[-1] == b"last"
