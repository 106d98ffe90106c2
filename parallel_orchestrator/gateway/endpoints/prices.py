"""Prices model calls by a dated table (`prices.json`) and the user's own file, which takes precedence.

The user's file has the form of the table, and needs only the field `models`:

    {"models": {"my-model": {"input": 1, "output": 5}}}

Figures are USD per million tokens. A missing cache rate is the input rate: an endpoint without a cache bills all input
alike. A list of such objects has prices by prompt size. The first applies whose `up_to` (tokens, cached ones included)
holds the prompt. A model in neither table has no price, which never counts as 0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.records.usage import dollars, token_count
from parallel_orchestrator.system.user_file import Unusable, parse_json, read_user_file

if TYPE_CHECKING:
    from parallel_orchestrator.records.scenario import Scenario

_DATE = re.compile(r"-20[0-9]{6}$")
_BYTES_PER_TOKEN = 3
"""Fewer bytes than a token of text or JSON has, so that `bound` is an upper bound."""
_LARGEST = 1e12
"""Limit for a price or a number of tokens in a price file: far above any, and small enough to calculate with."""


@dataclass(frozen=True)
class Rates:
    """USD per million tokens, for prompts of at most `up_to` tokens."""

    input: float
    output: float
    cache_read: float
    cache_write_5m: float
    cache_write_1h: float
    up_to: float = float("inf")

    def dearest_input(self) -> float:
        """Returns the most that a token of the prompt can cost."""
        return max(self.input, self.cache_read, self.cache_write_5m, self.cache_write_1h)


class PriceTable:
    """Prices by model name. If the full name is not in the table, a date at its end (-20251001) is ignored."""

    def __init__(self, models: Mapping[str, tuple[Rates, ...]], regions: Mapping[str, float]) -> None:
        self._models = models
        self._regions = regions

    @classmethod
    def of(cls, scenario: Scenario) -> PriceTable:
        """Returns a scenario's table. Raises UsageError."""
        return cls.load(Path(scenario.prices) if scenario.prices else None)

    @classmethod
    def load(cls, override: Path | None = None) -> PriceTable:
        """Returns the built-in table, with the models of `override` in place of its own. Raises UsageError."""
        built_in = json.loads(files(__package__).joinpath("prices.json").read_text(encoding="utf-8"))
        models, regions = _read_models(built_in), built_in["regions"]
        if override:
            models.update(_read_file(override))
        return cls(models, regions)

    def knows(self, model: str) -> bool:
        """Whether the model has a price."""
        return bool(self._tiers(model))

    def require(self, models: Iterable[str]) -> None:
        """Raise UsageError unless each of these models has a price: without one a budget cannot hold."""
        unknown = [model for model in dict.fromkeys(models) if not self.knows(model)]
        if unknown:
            raise UsageError(
                f"a budget is set, but the price of {', '.join(unknown)} is unknown. "
                'Name it in a file for --prices, in USD per million tokens: {"models": {"NAME": {"input": 1, '
                '"output": 5}}}; or run without a budget.'
            )

    def cost(self, model: str, usage: Mapping[str, Any]) -> float | None:
        """Returns the USD for one answer with that `usage`. Missing and null cache figures count as 0.

        Returns None for an unknown model, and for a figure that cannot be true. So it does when input or output tokens
        are missing or both 0. Never raises, whatever `usage` holds.
        """
        tokens = _tokens(usage)
        if tokens is None:
            return None
        prompt = tokens.input + tokens.written + tokens.read
        rates = next((r for r in self._tiers(model) if prompt <= r.up_to), None)
        if rates is None or not prompt + tokens.output:
            return None
        figure = (
            tokens.input * rates.input
            + (tokens.written - tokens.long) * rates.cache_write_5m
            + tokens.long * rates.cache_write_1h
            + tokens.read * rates.cache_read
            + tokens.output * rates.output
        )
        place = usage.get("inference_geo")
        # The API bills some regions with a surcharge, and names the region in the usage alone.
        return dollars(figure * (self._regions.get(place, 1.0) if isinstance(place, str) else 1.0) / 1e6)

    def bound(self, model: str, body_bytes: int, max_tokens: int) -> float | None:
        """Returns the most USD that an answer to such a request can cost, or None for an unknown model."""
        tiers = self._tiers(model)
        if not tiers:
            return None
        # Every part at its most expensive: no later answer may cost more than the ledger's intent says.
        prompt = body_bytes / _BYTES_PER_TOKEN * max(rates.dearest_input() for rates in tiers)
        answer = max_tokens * max(rates.output for rates in tiers)
        return (prompt + answer) * max(1.0, *self._regions.values()) / 1e6

    def _tiers(self, model: str) -> tuple[Rates, ...]:
        return self._models.get(model) or self._models.get(_DATE.sub("", model)) or ()


@dataclass(frozen=True)
class _Tokens:
    """The tokens of an answer by kind."""

    input: int
    output: int
    written: int
    """To the cache, in total."""
    long: int
    """Of those, for an hour."""
    read: int


def _tokens(usage: Any) -> _Tokens | None:
    """Returns the tokens of a usage, or None when a figure of it cannot be true."""
    about = _object(usage)
    kept = about.get("cache_creation")
    figures = (
        token_count(about.get("input_tokens")),
        token_count(about.get("output_tokens")),
        token_count(about.get("cache_creation_input_tokens") or 0),
        token_count(_object(kept).get("ephemeral_1h_input_tokens") or 0),
        token_count(about.get("cache_read_input_tokens") or 0),
    )
    known = [figure for figure in figures if figure is not None]
    if len(known) < len(figures) or not isinstance(kept, Mapping | None):
        return None
    tokens = _Tokens(*known)
    # An endpoint that reports more hourly tokens than tokens in total must not lower the price of the others.
    return replace(tokens, long=min(tokens.long, tokens.written))


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _read_file(path: Path) -> dict[str, tuple[Rates, ...]]:
    try:
        return _read_models(parse_json(read_user_file(path)))
    except Unusable as error:
        raise UsageError(
            f"the price file {path} cannot be used: {error}. "
            'It is JSON of this form, in USD per million tokens: {"models": {"NAME": {"input": 1, "output": 5}}}'
        ) from error


def _read_models(table: Any) -> dict[str, tuple[Rates, ...]]:
    """Returns the models of a table. Raises Unusable, which says what is wrong with it."""
    if not isinstance(models := _object(table).get("models"), Mapping):
        raise Unusable("its 'models' is missing or no object")
    return {
        name: tuple(_read_rates(name, tier) for tier in (prices if isinstance(prices, list) else [prices]))
        for name, prices in models.items()
    }


def _read_rates(model: str, prices: Any) -> Rates:
    known = [field.name for field in fields(Rates)]
    if not isinstance(prices, Mapping) or not {"input", "output"} <= prices.keys() <= set(known):
        raise Unusable(f"{model} needs input and output, and may have {', '.join(known[2:])}")
    for name, price in prices.items():
        # Every comparison of a cap with NaN is false, so a price of NaN would lift the cap.
        if isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 <= price <= _LARGEST:
            raise Unusable(f"{name} of {model} is not a number from 0 to {_LARGEST:.0e}")
    caches = dict.fromkeys(("cache_read", "cache_write_5m", "cache_write_1h"), prices["input"])
    return Rates(**{name: float(price) for name, price in {**caches, **prices}.items()})


def require_prices(scenario: Scenario, *, capped: bool = False) -> None:
    """Raise UsageError if a budget cannot be kept, and for an invalid price file.

    `capped`: there is a cap in addition to the scenario's own.
    """
    prices = PriceTable.of(scenario)
    capped = capped or scenario.max_cost_usd is not None or scenario.task_max_cost_usd is not None
    if capped and not scenario.replay:
        prices.require([scenario.planner_model, scenario.executor_model])
