from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.gateway.endpoints.prices import PriceTable
from parallel_orchestrator.records.errors import UsageError

TABLE = PriceTable.load()

PUBLISHED = """
fable-5-2, mythos-5-2 | 8 | 40 | 0.20 | 10 | 16
fable-5-1 | 10 | 50 | 0.25 | 12.5 | 20
opus-5-5 | 4 | 20 | 0.20 | 5 | 8
opus-5, opus-4-8, opus-4-7, opus-4-6, opus-4-5 | 5 | 25 | 0.50 | 6.25 | 10
sonnet-5-5 | 2 | 10 | 0.10 | 2.5 | 4
sonnet-5 | 2 | 10 | 0.20 | 2.5 | 4
sonnet-4-6, sonnet-4-5 | 3 | 15 | 0.30 | 3.75 | 6
haiku-4-5 | 1 | 5 | 0.10 | 1.25 | 2
"""
ROWS = [
    (f"claude-{model.strip()}", [float(price) for price in prices])
    for models, *prices in (line.split("|") for line in PUBLISHED.strip().splitlines())
    for model in models.split(",")
]
MILLION = 1_000_000


@pytest.mark.parametrize(("model", "prices"), ROWS)
def test_the_table_is_the_published_one(model: str, prices: list[float]) -> None:
    usages: list[dict[str, Any]] = [
        {"input_tokens": MILLION, "output_tokens": 0},
        {"input_tokens": 0, "output_tokens": MILLION},
        {"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": MILLION},
        {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": MILLION},
        {
            "input_tokens": 0,
            "output_tokens": 0,
            "cache_creation_input_tokens": MILLION,
            "cache_creation": {"ephemeral_1h_input_tokens": MILLION, "ephemeral_5m_input_tokens": 0},
        },
    ]
    found = [TABLE.cost(model, usage) for usage in usages]
    assert found == pytest.approx(prices)


def test_haiku_has_a_price_for_long_prompts_cached_tokens_included() -> None:
    short = {"input_tokens": 60_000, "cache_read_input_tokens": 40_000, "output_tokens": 1000}
    long = {**short, "cache_read_input_tokens": 40_001}
    assert TABLE.cost("claude-haiku-5-5", short) == pytest.approx((60_000 * 0.1 + 40_000 * 0.01 + 1000 * 0.5) / 1e6)
    assert TABLE.cost("claude-haiku-5-5", long) == pytest.approx((60_000 * 0.5 + 40_001 * 0.05 + 1000 * 2.5) / 1e6)


def test_null_cache_figures_are_nothing_and_missing_ones_unknown() -> None:
    nulls = {"input_tokens": 10, "output_tokens": 10, "cache_read_input_tokens": None, "cache_creation": None}
    assert TABLE.cost("claude-opus-5-5", nulls) == pytest.approx((40 + 200) / 1e6)
    assert TABLE.cost("claude-opus-5-5", {}) is None
    assert TABLE.cost("claude-opus-5-5", {"input_tokens": None, "output_tokens": 5}) is None


def test_an_unknown_model_has_no_price() -> None:
    assert TABLE.cost("gpt-9", {"input_tokens": 1, "output_tokens": 1}) is None
    assert TABLE.bound("gpt-9", 1000, 1000) is None
    assert not TABLE.knows("gpt-9")


def test_a_date_in_the_name_is_left_off() -> None:
    usage = {"input_tokens": 1000, "output_tokens": 1000}
    assert TABLE.cost("claude-haiku-4-5-20251001", usage) == TABLE.cost("claude-haiku-4-5", usage)


def test_a_region_costs_more() -> None:
    usage = {"input_tokens": 1000, "output_tokens": 0}
    plain, american = (
        TABLE.cost("claude-opus-5-5", usage),
        TABLE.cost("claude-opus-5-5", {**usage, "inference_geo": "us"}),
    )
    assert plain is not None
    assert american == pytest.approx(plain * 1.1)


@pytest.mark.parametrize("model", [model for model, _ in ROWS] + ["claude-haiku-5-5"])
def test_the_bound_is_above_the_dearest_way_to_use_the_prompt(model: str) -> None:
    body_bytes, max_tokens = 300_000, 5000
    tokens = body_bytes // 3
    dearest = {
        "input_tokens": 0,
        "cache_creation_input_tokens": tokens,
        "cache_creation": {"ephemeral_1h_input_tokens": tokens},
        "output_tokens": max_tokens,
        "inference_geo": "us",
    }
    bound, cost = TABLE.bound(model, body_bytes, max_tokens), TABLE.cost(model, dearest)
    assert bound is not None
    assert cost is not None
    assert bound >= cost or math.isclose(bound, cost)


def test_the_users_file_goes_first(tmp_path: Path) -> None:
    own = tmp_path / "prices.json"
    own.write_text('{"models": {"local": {"input": 1, "output": 2}, "claude-opus-5-5": {"input": 9, "output": 9}}}')
    table = PriceTable.load(own)
    usage = {"input_tokens": MILLION, "output_tokens": MILLION, "cache_read_input_tokens": MILLION}
    assert table.cost("local", usage) == pytest.approx(1 + 2 + 1)
    assert table.cost("claude-opus-5-5", usage) == pytest.approx(27)
    assert table.knows("claude-sonnet-5")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"models": {"a": {"input": 1}}}',
        '{"models": {"a": {"input": -1, "output": 1}}}',
        '{"models": {"a": 3}}',
        '{"models": {"a": {"input": NaN, "output": 1}}}',
        '{"models": {"a": {"input": 1, "output": Infinity}}}',
        '{"models": {"a": {"input": 1, "output": "1"}}}',
        '{"models": {"a": {"input": 1, "output": 1, "cache": 1}}}',
        '{"models": []}',
        '{"models": {"a": {"input": 1, "output": %s}}}' % ("9" * 400),
        '{"models": {"a": {"input": 1, "output": 1, "up_to": 1e300}}}',
        "[" * 100_000,
        '{"models": ' * 50_000,
        '{"models": {"a": {"input": 1, "output": 2}, "a": {"input": 3, "output": 4}}}',
        f'{{"models": {{"a": {{"input": {"9" * 400}, "output": 1}}}}}}',
        f'{{"models": {{"a": {{"input": {"9" * 5_000}, "output": 1}}}}}}',
        '{"models": {"a": {"input": 1e999, "output": 1}}}',
        '{"models": {}, "x": "\x01"}',
        "\ufeff{}",
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, content: str) -> None:
    own = tmp_path / "prices.json"
    own.write_text(content)
    with pytest.raises(
        UsageError,
        match=r"prices\.json cannot be used: (it is not JSON|its 'mod|a needs|\w+ of a is|.* in one|.*not a number)",
    ):
        PriceTable.load(own)


@pytest.mark.parametrize(
    "content",
    [
        '{"models": {"a": {"input": 1, "output": 1}, "a": {"input": 9, "output": 9}}}',
        '{"models": {"b": {"input": 1, "input": 2, "output": 1}}}',
        '{"models": {"b": {"input": 1, "output": 1}}, "models": {}}',
    ],
)
def test_a_name_that_stands_in_an_object_twice_is_refused(tmp_path: Path, content: str) -> None:
    own = tmp_path / "prices.json"
    own.write_text(content)
    with pytest.raises(UsageError, match=r"prices\.json cannot be used: (a|input|models) stands in it 2 times"):
        PriceTable.load(own)


def test_a_file_without_an_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_bytes(b" " * 1_000_001)
    for path in (tmp_path / "pipe", tmp_path / "long", Path("/dev/zero")):
        with pytest.raises(UsageError, match=f"the price file {path} cannot be used: it (is not a regular|has more)"):
            PriceTable.load(path)


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 0, "output_tokens": 0},
        {"input_tokens": -1, "output_tokens": MILLION},
        {"input_tokens": MILLION, "output_tokens": -1},
        {"input_tokens": "many", "output_tokens": 5},
        {"input_tokens": None, "output_tokens": 5},
        {"input_tokens": True, "output_tokens": 5},
        {"input_tokens": 10**400, "output_tokens": 5},
        {"input_tokens": 5.0, "output_tokens": 5},
        {"input_tokens": 1000, "output_tokens": 10, "cache_read_input_tokens": -1},
        {"input_tokens": 1000, "output_tokens": 10, "cache_creation_input_tokens": "9"},
        {"input_tokens": 1000, "output_tokens": 10, "cache_creation": "x"},
        {"input_tokens": 1000, "output_tokens": 10, "cache_creation": {"ephemeral_1h_input_tokens": [1]}},
        [],
    ],
)
def test_a_usage_that_cannot_be_true_has_no_price(usage: Any) -> None:
    assert PriceTable.load().cost("claude-opus-5-5", usage) is None


def test_a_place_that_is_no_name_changes_no_price() -> None:
    usage = {"input_tokens": 1000, "output_tokens": 10}
    places: list[Any] = [[], {}, 10**400, None]
    for place in places:
        assert TABLE.cost("claude-opus-5-5", {**usage, "inference_geo": place}) == TABLE.cost("claude-opus-5-5", usage)
