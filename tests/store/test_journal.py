"""The journal: what a kill, a bad disk or a stranger's edit leaves, and what it is taken for."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_orchestrator.records.errors import CannotGoOn, DamagedState
from parallel_orchestrator.store.journal import Journal, decode, encode, read_all
from tests.journals import ITEMS, Item

FIELDS: list[dict[str, Any]] = [
    {"task": "task_1", "n": n, "text": f"ünïcode {n}, \u2028 and a \n newline"} for n in range(1, 6)
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of five records."""
    journal = Journal(tmp_path / "j.jsonl", ITEMS)
    for fields in FIELDS:
        journal.append(Item(**fields), durable=True)
    journal.close()
    return journal.path


def _numbers(path: Path) -> list[int]:
    return [record.n for record in read_all(path, ITEMS)]


def test_records_come_back_as_they_went_in(path: Path) -> None:
    assert read_all(path, ITEMS) == [Item(seq=n, **fields) for n, fields in enumerate(FIELDS, 1)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().count(b"\n") == 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc\n,\"':", max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(json_values, st.integers(1, 10**9))
def test_any_value_survives_a_line(value: Any, seq: int) -> None:
    line = encode(seq, {"value": value})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line[:-1]) == {"seq": seq, "value": value}


def test_an_absent_file_has_no_records_and_is_not_made_by_reading(tmp_path: Path) -> None:
    assert read_all(tmp_path / "none.jsonl", ITEMS) == []
    assert list(tmp_path.iterdir()) == []


def test_a_follower_gets_each_record_once(path: Path) -> None:
    follower, writer = Journal(path, ITEMS), Journal(path, ITEMS)
    assert [record.n for record in follower.read_new()] == [1, 2, 3, 4, 5]
    assert follower.read_new() == []
    writer.read_new()
    writer.append(Item(n=6), durable=False)
    writer.append(Item(n=7), durable=False)
    assert [record.n for record in follower.read_new()] == [6, 7]
    follower.close()
    writer.close()


def test_a_tail_torn_at_any_byte_of_the_last_two_records_is_cut_off_and_no_more(path: Path) -> None:
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(ends[2], len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends)
        assert _numbers(path) == list(range(1, kept + 1))
        assert path.read_bytes() == whole[:cut]  # reading changes nothing
        journal = Journal(path, ITEMS)
        assert journal.repair_tail() == cut - ends[kept - 1]
        assert journal.append(Item(n=kept + 1), durable=False).seq == kept + 1
        journal.close()
        assert _numbers(path) == list(range(1, kept + 2))


@pytest.mark.parametrize("tail", [b"\0" * 4096, b"\0", b'{"seq":6,"n":6\0\0\0', b'{"seq":6,"n\0\0text"', b'{"se', b"{"])
def test_the_beginning_of_a_record_and_zeros_are_cut_off_by_the_next_append(
    path: Path, tail: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    assert _numbers(path) == [1, 2, 3, 4, 5]
    assert caplog.messages == []
    journal = Journal(path, ITEMS)
    journal.read_new()
    journal.append(Item(n=6), durable=True)
    journal.close()
    assert path.read_bytes() == whole + encode(6, {"n": 6})
    assert caplog.messages == [f"{path}: cut off {len(tail)} bytes of a half-written record 6"]


NOT_TORN = {
    "a line": b"garbage\n",
    "an empty line": b"\n",
    "zeros and a newline": b"\0" * 100 + b"\n",
    "JSON without a sum": b'{"seq":6,"n":6}\n',
    "an empty object": b"{}\n",
    "zeros within a line": encode(6, {"n": 6}).replace(b'"n"', b"\0\0\0"),
    "text of no record": b"garbage",
    "the beginning of another record": b'{"seq":7,"n":',
    "a record whose newline was altered": encode(6, {"n": 6})[:-1] + b"\x0b",
    "a record with another's number": encode(7, {"n": 6}),
    "a sum over something that is no JSON": b'{"n":"sum":"%08x"}\n',
}


@pytest.mark.parametrize("name", NOT_TORN)
def test_what_no_kill_can_have_left_at_the_end_is_damage_and_is_kept(path: Path, name: str) -> None:
    whole = path.read_bytes() + NOT_TORN[name]
    path.write_bytes(whole)
    journal = Journal(path, ITEMS)
    for attempt in (journal.read_new, journal.repair_tail, lambda: journal.append(Item(n=6), durable=True)):
        with pytest.raises(DamagedState, match=r"line 6, byte \d+: expected record 6, found .*repair "):
            attempt()
    journal.close()
    assert path.read_bytes() == whole


def test_any_altered_bit_of_the_last_record_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for place in range(last, len(whole)):
        for bit in (1, 8, 128):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with pytest.raises(DamagedState, match="line 5, byte"):
                read_all(path, ITEMS)


def test_a_tail_that_grows_into_a_record_is_read_when_whole(path: Path) -> None:
    line, reader = encode(6, {"n": 6}), Journal(path, ITEMS)
    reader.read_new()
    for part in (line[:10], line[10:-1]):
        with path.open("ab") as file:
            file.write(part)
        assert reader.read_new() == []
    with path.open("ab") as file:
        file.write(line[-1:])
    assert [record.n for record in reader.read_new()] == [6]
    reader.close()


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


Change = Callable[[list[bytes]], list[bytes]]
CHANGES: dict[str, tuple[Change, int, str]] = {
    "a byte altered": (
        lambda ls: [ls[0], ls[1].replace(b"task_1", b"task_2"), *ls[2:]],
        2,
        "bytes that are not a record",
    ),
    "a byte lost": (lambda ls: [*ls[:2], ls[2][5:], *ls[3:]], 3, "bytes that are not a record"),
    "zeros": (lambda ls: [*ls[:2], b"\0" * len(ls[2]), *ls[3:]], 3, "bytes that are not a record"),
    "a line lost": (lambda ls: [*ls[:2], *ls[3:]], 3, "record 4"),
    "a line twice": (lambda ls: [*ls[:3], *ls[2:]], 4, "record 3"),
    "two lines swapped": (lambda ls: [ls[0], ls[2], ls[1], *ls[3:]], 2, "record 3"),
    "the last line twice": (lambda ls: [*ls, ls[-1]], 6, "record 5"),
    "the first line lost": (lambda ls: ls[1:], 1, "record 2"),
    "an empty line": (lambda ls: [*ls[:4], b"\n", ls[4]], 5, "bytes that are not a record"),
    "another journal's line": (lambda ls: [*ls[:4], encode(9, {"n": 9}), ls[4]], 5, "record 9"),
}


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("name", CHANGES)
def test_damage_before_the_end_stops_everything_and_is_located(name: str, path: Path) -> None:
    change, line, found = CHANGES[name]
    changed = change(_lines(path))
    path.write_bytes(b"".join(changed))
    damaged, offset = path.read_bytes(), sum(map(len, changed[: line - 1]))
    told = rf"damaged at line {line}, byte {offset}: expected record {line}, found {found}\. Nothing was changed"
    journal, opened = Journal(path, ITEMS), _open_files()
    for attempt in (lambda: read_all(path, ITEMS), journal.read_new, journal.repair_tail):
        with pytest.raises(DamagedState, match=told):
            attempt()
    with pytest.raises(DamagedState, match=told):
        journal.append(Item(n=6), durable=True)
    assert _open_files() == opened  # a constructor that this stops is closed by nobody
    assert path.read_bytes() == damaged


def test_damage_is_found_by_who_had_read_past_its_beginning(path: Path) -> None:
    reader = Journal(path, ITEMS)
    reader.read_new()
    with path.open("ab") as file:
        file.write(b"garbage\n" + encode(6, {"n": 6}))
    with pytest.raises(DamagedState, match=r"line 6, byte \d+"):
        reader.read_new()
    reader.close()


# A disk that refuses


def test_a_refused_write_is_told_and_never_trusted_again() -> None:
    journal = Journal(Path("/dev/full"), ITEMS)
    with pytest.raises(CannotGoOn, match=r"cannot write /dev/full: No space left.*[Mm]ake room .* then resume"):
        journal.append(Item(n=1), durable=False)
    with pytest.raises(CannotGoOn, match="an earlier write to it failed: No space left"):
        journal.append(Item(n=1), durable=False)
    journal.close()


def _append_and_sync(journal: Journal[Item], durable: bool) -> None:
    journal.append(Item(n=1), durable=durable)
    journal.sync()


def test_after_a_failed_sync_nothing_more_is_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # takes writes, refuses to sync
    for durable in (True, False):
        journal = Journal(tmp_path / "pipe", ITEMS)
        with pytest.raises(CannotGoOn, match=r"cannot write .*pipe"):
            _append_and_sync(journal, durable)
        with pytest.raises(CannotGoOn, match="an earlier write to it failed"):
            journal.append(Item(n=2), durable=False)
        journal.close()


FILL = """
import resource, sys
from pathlib import Path
from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.store.journal import Journal
from tests.journals import ITEMS, Item
path, limit = Path(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
journal = Journal(path, ITEMS)
journal.read_new()
written = 0
try:
    while True:
        journal.append(Item(n=journal.next_seq), durable=True)
        written += 1
except CannotGoOn as error:
    assert "File too large" in str(error), error
for _ in range(2):
    try:
        journal.append(Item(n=0), durable=False)
        sys.exit("it wrote again")
    except CannotGoOn:
        pass
print(written)
"""


def _output_of(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_that_cannot_grow_keeps_its_whole_records_and_goes_on_later(path: Path) -> None:
    limit = path.stat().st_size + 200
    written = int(_output_of(FILL, path, limit))
    assert written >= 2
    assert path.stat().st_size == limit  # the last line is torn
    assert _numbers(path) == list(range(1, 6 + written))
    journal = Journal(path, ITEMS)
    assert journal.repair_tail() > 0
    journal.append(Item(n=6 + written), durable=True)
    journal.close()
    assert _numbers(path) == list(range(1, 7 + written))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY  # only the child was limited


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotGoOn, match="No such file"):
        Journal(tmp_path / "none" / "j.jsonl", ITEMS).append(Item(n=1), durable=True)
    with pytest.raises(CannotGoOn, match="Is a directory"):
        Journal(tmp_path, ITEMS).append(Item(n=1), durable=True)


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from parallel_orchestrator.records.errors import CannotGoOn
from parallel_orchestrator.store.journal import Journal
from tests.journals import ITEMS, Item
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
journal = Journal(Path(sys.argv[1]), ITEMS)
print(len(journal.read_new()))
try:
    journal.append(Item(n=6), durable=True)
except CannotGoOn as error:
    print(error)
"""


def test_who_may_only_read_reads(path: Path) -> None:
    with tempfile.TemporaryDirectory() as open_folder:  # pytest's own are closed to the user that the reader becomes
        Path(open_folder).chmod(0o755)
        shared = Path(open_folder) / "j.jsonl"
        shared.write_bytes(path.read_bytes())
        shared.chmod(0o444)
        count, told = _output_of(UNPRIVILEGED, shared).splitlines()
        assert count == "5"
        assert told.startswith(f"cannot write {shared}: Permission denied")
        assert len(_lines(shared)) == 5
