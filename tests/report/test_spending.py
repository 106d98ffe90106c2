"""What the ledger says was bought, held against the gateway that wrote it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.records.usage import TOKEN_KINDS, Spending
from parallel_orchestrator.report.facts.spending import FollowedLedger, read_ledger
from parallel_orchestrator.store.journal import encode
from tests.report.runs import Calls


@pytest.fixture
def calls(tmp_path: Path) -> Iterator[Calls]:
    made = Calls(tmp_path / "ledger.jsonl")
    yield made
    made.ledger.close()


def _fold(calls: Calls) -> FollowedLedger:
    return read_ledger(calls.ledger._journal.path)


def _agrees(calls: Calls) -> bool:
    """Whether the report counts what the gateway's cap is compared with, after it was opened anew."""
    calls.reopen()
    theirs, ours = calls.ledger.fold.settled, _fold(calls).total()
    return (ours.usd, ours.uncertain_usd, ours.recorded_usd) == pytest.approx(
        (theirs.usd, theirs.uncertain_usd, theirs.recorded_usd)
    )


def test_an_empty_ledger_is_nothing(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "none").total() == Spending()
    assert Spending().as_json()["tokens"] == dict.fromkeys(TOKEN_KINDS, 0)


@pytest.mark.parametrize("record", [{"kind": "answer", "task": "t", "call": 1}, {"task": "t"}, {"task": []}])
def test_a_record_that_cannot_be_understood_is_named(record: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(encode(1, record))
    with pytest.raises(DamagedState, match=r"ledger\.jsonl, line 1: .*Nothing was changed.* repair "):
        read_ledger(path)


def test_answers_are_summed_by_task_and_in_all(calls: Calls) -> None:
    calls.buy("plan", 1)
    calls.buy("task_1", 1, 2, 3)
    ledger = _fold(calls)
    assert (ledger.of("task_1").calls, ledger.of("task_1").usd) == (3, 1.5)
    assert ledger.of("task_1").endpoint_s == 6.0
    assert ledger.of("task_9") == Spending()
    total = ledger.total().as_json()
    assert total["model_calls"] == 4
    assert total["tokens"] == {"input": 40, "cache_write": 0, "cache_read": 400, "output": 20}
    assert total["cost_usd"] == 2.0
    assert [total[name] for name in ("retries", "bought_again", "changed_bodies", "open_calls")] == [0, 0, 0, 0]
    assert _agrees(calls)


def test_a_retry_is_no_second_call_and_costs_only_what_may_have_been_billed(calls: Calls) -> None:
    first = calls.begin("task_1", 1, bound=3.0)
    calls.failed(first, ambiguous=False)
    second = calls.again(first, 2)
    calls.failed(second, ambiguous=True)
    calls.answered(calls.again(first, 3))
    total = _fold(calls).total()
    assert (total.calls, total.retries, total.uncertain_usd, total.open_calls, total.bought_again) == (1, 2, 3.0, 0, 0)
    assert _agrees(calls)


def test_a_call_of_unknown_end_counts_at_its_bound(calls: Calls) -> None:
    calls.buy("task_1", 1)
    calls.begin("task_1", 2, bound=3.0)
    calls.begin("task_2", 1, bound=None)
    calls.reopen()  # its gateway died
    calls.buy("task_1", 2)
    ledger = _fold(calls)
    assert (ledger.of("task_1").open_calls, ledger.of("task_1").uncertain_usd) == (1, 3.0)
    assert (ledger.of("task_2").open_calls, ledger.of("task_2").uncertain_usd) == (1, 0.0)
    total = ledger.total()
    assert (total.calls, total.open_calls, total.uncertain_usd, total.bought_again) == (2, 2, 3.0, 0)
    assert ledger.total() == total  # asking changes nothing
    assert _agrees(calls)


def test_a_turn_bought_again_is_counted_and_so_is_a_changed_body(calls: Calls) -> None:
    calls.buy("task_1", 1, 2)
    calls.buy("task_1", 2, body="another")
    calls.buy("task_1", 1, attempt=2)  # another attempt's turn is its own
    ledger = _fold(calls)
    assert (ledger.of("task_1").bought_again, ledger.of("task_1").changed) == (1, 1)
    assert (ledger.turns("task_1", 1), ledger.turns("task_1", 2), ledger.turns("task_1", 3)) == (2, 1, 0)


def test_an_unknown_price_is_not_nothing(calls: Calls) -> None:
    calls.answered(calls.begin("task_1", 1, bound=None), usd=None)
    calls.buy("task_1", 2)
    total = _fold(calls).total().as_json()
    assert (total["cost_usd"], total["unpriced_calls"], total["model_calls"]) == (0.5, 1, 2)


def test_an_unknown_price_counts_at_its_bound_and_figures_that_are_none_do_not(calls: Calls) -> None:
    calls.answered(calls.begin("task_1", 1, bound=2.0), usd=None)
    assert _fold(calls).total().uncertain_usd == 2.0
    assert _agrees(calls)
    before = _fold(calls).total().as_json()["tokens"]
    usage = {"input_tokens": -5, "output_tokens": "many", "cache_read_input_tokens": [1]}
    for number, figures in enumerate((usage, None, [1]), 2):
        calls.answered(calls.begin("task_1", number), usage=figures)
    assert _fold(calls).total().as_json()["tokens"] == before


def test_a_replay_costs_nothing_and_says_what_it_cost_then(calls: Calls) -> None:
    calls.answered(calls.begin("task_1", 1), usd=0.0, recorded=0.75)
    total = _fold(calls).total().as_json()
    assert (total["cost_usd"], total["recorded_cost_usd"]) == (0.0, 0.75)
    assert _agrees(calls)


def test_what_goes_on_at_the_endpoint_is_in_the_file(calls: Calls) -> None:
    calls.begin("task_1", 1)
    assert (_fold(calls).in_flight(), _fold(calls).limited_at) == (1, None)
    calls.reopen()  # its gateway died, and another asks again
    limited = calls.begin("task_1", 1)
    other = calls.begin("task_2", 1)
    calls.failed(limited, ambiguous=False, kind="429")
    assert time.time() - (_fold(calls).limited_at or 0) < 60
    calls.answered(other)
    assert _fold(calls).limited_at
    again = calls.again(limited, 2)  # the gate let it through
    assert _fold(calls).limited_at is None
    calls.answered(again)
    assert _fold(calls).in_flight() == 0
    calls.begin("task_1", 2)
    calls.begin("task_1", 1, attempt=2)
    assert _fold(calls).in_flight() == 1
