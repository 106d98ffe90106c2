"""What is wrong with a file that a person wrote: a message for each fault, its place, its line and a caret below it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from parallel_orchestrator.config.credentials import misplaced
from parallel_orchestrator.config.schema import (
    ExecutorSection,
    LimitsSection,
    PlannerSection,
    ScenarioDefaults,
    ScenarioEntry,
    ScenarioFile,
)
from parallel_orchestrator.records.errors import as_predicate, did_you_mean
from parallel_orchestrator.system import redact
from parallel_orchestrator.system.terminal_text import counted
from parallel_orchestrator.system.yaml_document import Fault, KeyPath, Place

MOST_FAULTS = 50
"""Faults of one file that are shown."""
LONGEST_LINE = 200
"""Characters of a line that are shown."""
_LONGEST_MESSAGE = 1000
_CREDENTIAL = re.compile(r"((?:key|token|secret|passw|credential)\w{0,40}[\"']?\s{0,9}:\s{0,9})\S.*", re.IGNORECASE)
"""A value that may be a credential of whatever form: the name says so."""
_LONGEST_KEY = 60

_MODELS: dict[str, type[BaseModel]] = {
    "planner": PlannerSection,
    "executor": ExecutorSection,
    "limits": LimitsSection,
    "defaults": ScenarioDefaults,
}


def validation_message(error: dict[str, Any]) -> str:
    """What one of pydantic's errors says to the person who wrote the file."""
    path: KeyPath = error["loc"]
    if error["type"] == "extra_forbidden":
        return _unknown_key(path)
    return f"{path[-1]!r} is missing here" if error["type"] == "missing" else _wrong_value(path, error)


def _unknown_key(path: KeyPath) -> str:
    within = [part for part in path[:-1] if isinstance(part, str)]
    return _not_known(str(path[-1]), within[-1] if within else "")


@cache
def _not_known(key: str, section: str) -> str:
    """The message for a key that the section lacks; cached, as a file may hold the key thousands of times."""
    shown = repr(key if len(key) <= _LONGEST_KEY else key[: _LONGEST_KEY - 1] + "…")
    if reason := misplaced(key):
        return f"{shown} {reason}"
    model = _MODELS.get(section, ScenarioEntry) if section else ScenarioFile
    hint = did_you_mean(key, model.model_fields)
    elsewhere = next((f"{name}.{key}" for name, other in _MODELS.items() if key in other.model_fields), None)
    if not hint and elsewhere and section != "defaults":
        hint = f"; did you mean {elsewhere}?"
    return f"unknown key {shown}{hint or '; known here: ' + ', '.join(model.model_fields)}"


def _wrong_value(path: KeyPath, error: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in path if isinstance(part, str)) or "the file"
    message = as_predicate(str(error["msg"]))
    if error["type"] in ("model_type", "dict_type", "model_attributes_type"):
        message = "has to be a mapping of keys to values"
    got = error.get("input")
    shown = f", not {got!r}" if isinstance(got, (int, float, bool)) or got is None else ""
    hint = ""
    if error["type"] == "literal_error" and isinstance(got, str):
        allowed = [word.strip(" '") for word in str(error["ctx"]["expected"]).replace(" or ", ",").split(",")]
        hint = did_you_mean(got, allowed)
    return f"{name}: {message}{shown}{hint}"


def format_faults(path: Path, text: str, faults: Sequence[Fault]) -> str:
    """The first faults of the file, in its order, and how many more there are."""
    lines = text.splitlines()
    ordered = sorted(dict.fromkeys(faults), key=lambda fault: (fault.place.line, fault.place.column))
    page = [f"{path}: {counted(len(ordered), 'fault')}; nothing was started"]

    @cache
    def cleaned(number: int) -> str:
        # Before the line is cut: half a credential matches no pattern. Cached: one line may be the whole file.
        line = lines[number - 1].replace("\t", " ")
        return _CREDENTIAL.sub(r"\1…", redact.foreign(line))

    for fault in ordered[:MOST_FAULTS]:
        page.append(f"{path}:{fault.place.line}:{fault.place.column}: {_cut(fault.message)}")
        page += _excerpt(cleaned(fault.place.line), fault.place) if fault.place.line <= len(lines) else []
    more = len(ordered) - MOST_FAULTS
    return "\n".join([*page, f"… and {more} more"] if more > 0 else page)


def _cut(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"


def _excerpt(line: str, place: Place) -> list[str]:
    start = max(0, place.column - 1 - LONGEST_LINE // 2)
    shown = line[start : start + LONGEST_LINE]
    column = place.column - 1 - start
    caret = " " * column + "^" * min(place.length, max(1, len(shown) - column))
    return [f"{place.line:5} | {shown}", f"      | {caret}"]
