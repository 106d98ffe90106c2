"""Journals larger than what one call of the system reads, or than memory should hold."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest

from parallel_orchestrator.records.errors import CannotGoOn, DamagedState
from parallel_orchestrator.store.journal import Journal, encode, read_all, read_each
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.run_directory import cut_torn_tails
from parallel_orchestrator.store.salvage import salvage
from tests.journals import ITEMS, Item

RECORDS = 300
BEYOND_ONE_READ = 0x7FFFF000 + 2**20
"""Bytes: the kernel ends each read at 0x7ffff000 of them."""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run whose queue is larger than a piece in which it is read."""
    run = RunDirectory(tmp_path)
    lines = (encode(n, {"n": n, "text": "ü" * (n % 7) * 100}) for n in range(1, RECORDS + 1))
    run.queue.write_bytes(b"".join(lines))
    assert run.queue.stat().st_size > 65536
    return run


@contextmanager
def _reads_of(most: int) -> Iterator[None]:
    """Every read gives so many bytes at most, as the kernel's do at 0x7ffff000."""
    whole = os.pread
    with mock.patch("os.pread", lambda descriptor, size, place: whole(descriptor, min(size, most), place)):
        yield


@pytest.mark.parametrize("most", [7, 1000, 65535])
def test_reads_that_end_early_lose_nothing(run: RunDirectory, most: int) -> None:
    before = run.queue.read_bytes()
    with _reads_of(most):
        assert [record.n for record in read_all(run.queue, ITEMS)] == list(range(1, RECORDS + 1))
        assert len(salvage(run.queue).records) == RECORDS
        said: list[str] = []
        cut_torn_tails(run, said.append)
        assert said == []
        assert run.queue.read_bytes() == before
        journal = Journal(run.queue, ITEMS)
        assert journal.append(Item(n=99), durable=False).seq == RECORDS + 1
        journal.close()
    assert run.queue.read_bytes() == before + encode(RECORDS + 1, {"n": 99})


def test_nothing_is_cut_off_that_was_not_read(run: RunDirectory) -> None:
    size = run.queue.stat().st_size
    whole = os.pread
    with mock.patch("os.pread", lambda file, many, place: whole(file, many, place) if place < 9000 else b""):
        journal = Journal(run.queue, ITEMS)
        with pytest.raises(CannotGoOn, match=r"cannot write .*queue\.jsonl: only \d+ of its \d+ bytes can be read"):
            journal.repair_tail()
        journal.close()
    assert run.queue.stat().st_size == size


def test_a_file_that_became_shorter_is_not_filled_with_zeros(run: RunDirectory) -> None:
    journal = Journal(run.queue, ITEMS)
    journal.read_new()
    os.truncate(run.queue, 5000)
    with pytest.raises(CannotGoOn, match="bytes can be read"):
        journal.append(Item(n=99), durable=False)
    journal.close()
    assert run.queue.stat().st_size == 5000


def test_a_file_that_grows_while_it_is_read_is_read_to_its_end(run: RunDirectory) -> None:
    more = [encode(RECORDS + n, {"n": RECORDS + n}) for n in (1, 2)]
    left = [more[0][:9], more[0][9:], more[1]]
    whole = os.pread

    def growing(descriptor: int, size: int, place: int) -> bytes:
        data = whole(descriptor, size, place)
        if left and place + len(data) == run.queue.stat().st_size:
            with run.queue.open("ab") as file:
                file.write(left.pop(0))
        return data

    with mock.patch("os.pread", growing):
        assert [record.n for record in read_all(run.queue, ITEMS)] == list(range(1, RECORDS + 3))


def test_zeros_beyond_what_one_read_takes_are_one_torn_tail(run: RunDirectory) -> None:
    size = run.queue.stat().st_size
    os.truncate(run.queue, size + BEYOND_ONE_READ)
    journal = Journal(run.queue, ITEMS)
    assert journal.repair_tail() == BEYOND_ONE_READ
    journal.close()
    assert run.queue.stat().st_size == size


def test_a_long_line_of_zeros_that_ends_is_damage_and_kept(run: RunDirectory) -> None:
    size = run.queue.stat().st_size
    os.truncate(run.queue, size + 3_000_000)
    with run.queue.open("ab") as file:
        file.write(b"\n")
    with _reads_of(2**20 - 1), pytest.raises(DamagedState, match=f"line {RECORDS + 1}, byte {size}: "):
        cut_torn_tails(run, list[str]().append)
    assert run.queue.stat().st_size == size + 3_000_001


def test_records_are_given_one_by_one_and_the_rest_stays_for_later(run: RunDirectory) -> None:
    journal = Journal(run.queue, ITEMS)
    some = journal.each_new()
    assert [next(some).n for _ in range(3)] == [1, 2, 3]
    some.close()  # type: ignore[attr-defined]
    assert [record.n for record in journal.read_new()] == list(range(4, RECORDS + 1))
    journal.close()
    assert [record.n for record in read_each(run.queue, ITEMS)] == list(range(1, RECORDS + 1))


MEMORY = """
import os, resource, sys
from pathlib import Path
from parallel_orchestrator.gateway.calls.ledger import Ledger
from parallel_orchestrator.report.facts.spending import read_ledger
from parallel_orchestrator.store.run_directory import cut_torn_tails
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.salvage import salvage
from parallel_orchestrator.maintenance.cuts import misfits
run = RunDirectory(Path(sys.argv[1]))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
began = peak()
cut_torn_tails(run, print)
opened = Ledger(run.ledger)
told = read_ledger(run.ledger).total()
found = salvage(run.ledger)
assert not list(misfits(found.records)) and not found.damage
print(opened.fold.settled.calls, told.calls, peak() - began)
"""


def test_reading_a_large_ledger_takes_the_memory_of_few_records(tmp_path: Path) -> None:
    run, calls, events = RunDirectory(tmp_path), 100, "x" * 1_200_000
    with run.ledger.open("wb") as file:
        for call in range(1, calls + 1):
            for kind in ("intent", "answer"):
                file.write(encode(2 * call - (kind == "intent"), _call(kind, call, events)))
    size_mib = run.ledger.stat().st_size >> 20
    assert size_mib > 100
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers, told, grown_mib = map(int, done.stdout.split())
    assert answers == told == calls
    assert grown_mib < size_mib / 4  # a record has 1 MiB; it is there as bytes, as text and as it was before it


def _call(kind: str, call: int, events: str) -> dict[str, object]:
    fields: dict[str, object] = {"kind": kind, "call": call, "task": "task_1", "attempt": 1, "turn": call, "hash": "h"}
    fields |= {"phase": "work", "phase_turn": call, "model": "m", "stop_reason": "end_turn"}
    if kind == "intent":
        return {**fields, "try": 1, "bound_usd": 0.1, "changed": False}
    spent = {"usage": {"input_tokens": 1}, "usd": 0.1, "recorded_usd": None, "endpoint_s": 1.0, "waited_s": 0.0}
    return {**fields, **spent, "request_id": None, "events": events}
