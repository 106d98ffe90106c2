"""The whole-stack, gateway and cost benchmarks work, at tiny sizes; their bounds and counts are right."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import cost, cost_meter, gateway, stack, stack_model
from benchmarks.cost_meter import Cache

FOUR_CHARACTERS = 4


def test_the_bound_of_a_chain_is_its_length_and_of_independent_tasks_a_balanced_schedule() -> None:
    chain = stack_model.chain(3, executors=4, mean_s=1.0)
    assert stack_model.bound([1.0, 2.0, 3.0], chain) == (6.0, 6.0)
    alone = stack_model.Shape("alone", 2, 1.0, ((), (), ()))
    assert stack_model.bound([2.0, 2.0, 3.0], alone) == (4.0, 3.5)


def test_a_bound_waits_for_dependencies_and_takes_the_longest_path_first() -> None:
    shape = stack_model.Shape("fork", 2, 1.0, ((), (), (), (2,)))
    assert stack_model.bound([1.0, 1.0, 1.0, 5.0], shape) == (6.0, 6.0)


def test_latencies_are_the_same_for_everybody_and_have_the_mean_that_is_asked_for() -> None:
    shape = stack_model.layered(4, 6, executors=4, mean_s=1.0)
    drawn = [shape.latency(number, turn) for number in range(1, 1001) for turn in (1, 2, 3, 4)]
    assert drawn[:2] == [shape.latency(1, 1), shape.latency(1, 2)]
    assert sum(drawn) / len(drawn) == pytest.approx(1.0, rel=0.05)
    assert stack_model.Shape.of_json(shape.to_json()) == shape


@pytest.mark.long
def test_a_shape_is_built_to_its_end() -> None:
    results = stack.run(quick=True, repeat=1)
    assert results["layered"]["ratio"][0] > 1.0
    assert results["layered"]["parts_ms"]["tests of the merged tree"] > 0
    assert "makespan / bound" in stack.table(results)


def test_the_gateway_is_measured_beside_the_same_calls_straight_to_the_server() -> None:
    results = gateway.run(quick=True, repeat=1)
    (sample,) = results["2 x 4000"]
    assert sample["errors"] == 0
    assert len(sample["direct_ms"]) == len(sample["gateway_ms"]) == 4
    assert sample["ledger_kb"] > 0
    assert gateway.table(results).count("\n") == 2


def test_what_the_cache_saves_is_counted_over_the_products_own_calls() -> None:
    results = cost.run(quick=True, repeat=1)
    (sample,) = results["2"]
    assert sample["calls"] == 8
    small = sample["by_minimum"]["512"]
    assert small["bought"] == 1
    assert small["usd"] < small["uncached_usd"]
    assert 0 < small["read"] < small["input"]
    assert "cost over uncached" in cost.table(results)


def _body(*texts: str, system: str = "x" * 4 * 1000, ttl: str = "5m") -> dict[str, Any]:
    mark = {"type": "ephemeral", "ttl": ttl}
    return {
        "model": "m",
        "system": [{"type": "text", "text": system, "cache_control": mark}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}],
        "cache_control": mark,
    }


def _read(cache: Cache, body: dict[str, Any], now: float) -> int:
    return int(cache.count(body, now, now + 1)["cache_read_input_tokens"])


def test_a_prefix_is_read_once_its_answer_has_begun_and_until_its_lifetime_is_over() -> None:
    cache = Cache(minimum=512)
    assert _read(cache, _body("a"), 0.0) == 0
    assert _read(cache, _body("b"), 0.5) == 0  # the first answer has not begun
    assert _read(cache, _body("c"), 2.0) > 1000
    assert _read(cache, _body("d"), 301.0) > 1000  # the last use keeps it
    assert _read(cache, _body("e"), 602.0) == 0
    hour = Cache(minimum=512)
    hour.count(_body("a", ttl="1h"), 0.0, 1.0)
    assert _read(hour, _body("b", ttl="1h"), 3000.0) > 1000


def test_a_short_prefix_is_not_cached_and_a_longer_conversation_is_read_up_to_where_it_was() -> None:
    cache = Cache(minimum=2000)
    assert cache.count(_body("a"), 0.0, 1.0)["cache_creation_input_tokens"] == 0
    long = "y" * FOUR_CHARACTERS * 1500
    first = cache.count(_body(long), 2.0, 3.0)
    assert first["cache_creation_input_tokens"] > 2500
    second = cache.count(_body(long, "more"), 4.0, 5.0)
    assert second["cache_read_input_tokens"] == first["cache_creation_input_tokens"]
    assert 0 < second["cache_creation_input_tokens"] < 30
    assert cost_meter.tokens(5) == 2


def test_what_a_request_pays_for_adds_up_to_its_input() -> None:
    cache = Cache(minimum=512)
    for now, texts in enumerate((("a",), ("a", "b"), ("c",)), start=1):
        usage = cache.count(_body(*texts), 10.0 * now, 10.0 * now + 1)
        parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        plain = Cache(minimum=10**9).count(_body(*texts), 0.0, 0.0)["input_tokens"]
        assert sum(usage[part] for part in parts) == plain
