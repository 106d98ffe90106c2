"""Compares a run's summary, field by field, with one folded from its other files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from parallel_orchestrator.report.facts.spending import Spending
from parallel_orchestrator.report.facts.summary import RunState, ended, summarize

_TESTED = ("green", "commit", "lines_of_code", "tests", "coverage_percent", "verify")
"""Results of the tests of the whole."""
_LATER = ("fixes", "corrections")
"""Lists that summaries of versions without fix tasks lack."""
_BOUGHT = frozenset(Spending().as_json())
_SHOWN = 60
"""Characters of a value in a finding."""


def folded(state: RunState, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what `summary`, the one on disk, has to be; None where it need not be compared.

    Earlier versions kept the results of the last tests in the summary alone. They are taken from it.
    """
    if state.replica.finals or state.replica.unsettled:
        right = ended(state)
        if right is None and summary.get("status") != "incomplete" and state.replica.final is None:
            return summarize(state, None)
        return right
    if summary.get("status") not in ("done", "failed"):
        return None
    right = summarize(state, {name: summary[name] for name in _TESTED if name in summary})
    return {name: value for name, value in right.items() if value or name in summary or name not in _LATER}


def contradictions(summary: Any, right: Any, path: str = "", source: str = "the queue") -> Iterator[str]:
    """Yields each field of `summary` that differs from `right`, with the file that contradicts it."""
    if isinstance(right, dict) and isinstance(summary, dict):
        for name in [*right, *(name for name in summary if name not in right)]:
            by = _source(name, path, source)
            yield from contradictions(summary.get(name), right.get(name), f"{path}.{name}".lstrip("."), by)
    elif isinstance(right, list) and isinstance(summary, list) and len(right) == len(summary):
        for place, (left, other) in enumerate(zip(summary, right, strict=True)):
            named = other["id"] if isinstance(other, dict) and "id" in other else place
            yield from contradictions(left, other, f"{path}[{named}]", source)
    elif summary != right:
        yield f"{path} is {_short(summary)}, by {source} {_short(right)}"


def _source(name: str, path: str, source: str) -> str:
    if name in _BOUGHT:
        return "the ledger"
    if not path and name in _TESTED:
        return "the record of the last tests"
    return {"executed": "the transcript", "requirements": "the scenario", "planning": "the ledger"}.get(name, source)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
