from __future__ import annotations

import asyncio
import errno
import gc
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.gateway.calls.ledger import Ledger
from parallel_orchestrator.gateway.calls.messages import Answered, CallFault, ModelRequest, Refusal, TurnKey
from parallel_orchestrator.records.errors import DamagedState

ASK = ModelRequest(TurnKey("task_1", 1, 1), "work", 1, "claude-opus-5-5", 100, b"{}", "hash1")
EVENTS = "event: ping\ndata: {}\n\n\u2028ä"
ANSWER = Answered(EVENTS, {}, "claude-opus-5-5", "end_turn", {"output_tokens": 1}, "req_1", 1.5)


def buy(ledger: Ledger, ask: ModelRequest, usd: float = 1.0) -> None:
    intent = ledger.write_intent(ledger.new_call(), ask, 1, 3.0)
    ledger.write_answer(intent, ANSWER, usd, None, 0.25)


def test_what_was_written_is_found_again_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    buy(ledger, ASK)
    buy(ledger, replace(ASK, key=TurnKey("task_2", 1, 1)))
    for found in (ledger, Ledger(path)):
        stored = found.find(ASK.key, ASK.hash)
        assert stored is not None
        assert found.events(stored) == ANSWER.events
        assert (stored.endpoint_s, stored.waited_s, stored.request_id) == (1.5, 0.25, "req_1")
        assert found.find(ASK.key, "other") is None
        assert found.find(TurnKey("task_3", 1, 1), ASK.hash) is None
        assert found.answered_otherwise(ASK.key, "other")
        assert not found.answered_otherwise(ASK.key, ASK.hash)
        assert found.fold.settled.calls == 2
        assert found.new_call() == 3


def test_spending_is_what_can_have_been_billed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    buy(ledger, ASK, usd=1.0)
    other = replace(ASK, key=TurnKey("task_2", 1, 1))
    clean = ledger.write_intent(2, other, 1, 3.0)
    ledger.write_fault(clean, CallFault("429", ambiguous=False, detail="slow down"))
    doubtful = ledger.write_intent(2, other, 2, 3.0)
    ledger.write_fault(doubtful, CallFault("reset", ambiguous=True, detail="gone"))
    refused = ledger.write_intent(3, other, 1, 3.0)
    ledger.write_refusal(refused, Refusal(400, "invalid_request_error", "no"))
    ledger.write_intent(4, other, 1, 5.0)
    assert (ledger.fold.settled.usd, ledger.fold.settled.uncertain_usd) == (1.0, 3.0)
    again = Ledger(path)
    assert (again.fold.settled.usd, again.fold.settled.uncertain_usd, again.dead_calls) == (1.0, 8.0, 1)
    assert [again.fold.spent_usd(task) for task in ("task_1", "task_2", "x")] == [1.0, 8.0, 0.0]


def test_a_turn_that_is_asked_in_another_way_is_counted_as_changed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    buy(ledger, ASK)
    intent = ledger.write_intent(ledger.new_call(), replace(ASK, hash="hash2"), 1, None)
    ledger.write_answer(intent, ANSWER, None, None, 0.0)
    assert ledger.fold.settled.changed == 1
    assert ledger.fold.settled.unpriced == 1


def test_a_file_that_is_changed_under_way_is_not_delivered(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    buy(ledger, ASK)
    stored = ledger.find(ASK.key, ASK.hash)
    assert stored is not None
    path.write_bytes(path.read_bytes().replace(b"ping", b"pong"))
    with pytest.raises(DamagedState, match="was changed"):
        ledger.events(stored)


def test_every_cut_of_the_file_opens_and_keeps_what_was_whole(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for turn in (1, 2):
        buy(ledger, replace(ASK, key=TurnKey("task_1", 1, turn)))
    data = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(data) if byte == ord("\n")]
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        cut = Ledger(path)
        whole = sum(end <= size for end in ends)
        assert (cut.fold.settled.calls, cut.dead_calls) == (whole // 2, whole % 2)
        assert path.stat().st_size == max([end for end in ends if end <= size], default=0)
        cut.close()


def test_a_ledger_that_is_closed_under_a_sync_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, complaints = os.fdatasync, list[dict[str, Any]]()

    def slow(descriptor: int) -> None:
        time.sleep(0.3)
        real(descriptor)

    async def closed_under_it() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        ledger = Ledger(tmp_path / "ledger.jsonl")
        buy(ledger, ASK)
        monkeypatch.setattr(os, "fdatasync", slow)
        asker = asyncio.create_task(ledger.on_disk())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asker.cancel()
        ledger.close()
        await asyncio.wait([asker])
        await asyncio.sleep(0.6)
        del ledger, asker
        gc.collect()  # when a future goes whose exception nobody took, the loop is told

    asyncio.run(closed_under_it())
    assert complaints == []
    assert Ledger(tmp_path / "ledger.jsonl").fold.settled.calls == 1


def test_a_sync_that_fails_when_nobody_waits_any_more_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints = list[dict[str, Any]]()

    def refused(descriptor: int) -> None:
        time.sleep(0.2)
        raise OSError(errno.EIO, "Input/output error")

    async def left_alone() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
        ledger = Ledger(tmp_path / "ledger.jsonl")
        ledger.write_intent(ledger.new_call(), ASK, 1, None)
        monkeypatch.setattr(os, "fdatasync", refused)
        asker = asyncio.create_task(ledger.on_disk())
        await asyncio.sleep(0.05)
        asker.cancel()
        await asyncio.wait([asker])
        await asyncio.sleep(0.4)
        ledger.close()
        del ledger, asker
        gc.collect()  # when a future goes whose exception nobody took, the loop is told

    asyncio.run(left_alone())
    assert complaints == []
