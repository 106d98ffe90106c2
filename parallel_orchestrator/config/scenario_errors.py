"""Messages for the errors that pydantic finds in a scenario file."""

from __future__ import annotations

import difflib
from functools import cache
from typing import Any

from pydantic import BaseModel

from parallel_orchestrator.config.credentials import misplaced
from parallel_orchestrator.config.options import has_to_be
from parallel_orchestrator.config.schema import (
    ExecutorSection,
    LimitsSection,
    PlannerSection,
    ScenarioDefaults,
    ScenarioEntry,
    ScenarioFile,
)

Path_ = tuple[str | int, ...]

_LONGEST_KEY = 60

_MODELS: dict[str, type[BaseModel]] = {
    "planner": PlannerSection,
    "executor": ExecutorSection,
    "limits": LimitsSection,
    "defaults": ScenarioDefaults,
}


def validation_message(error: dict[str, Any]) -> str:
    """What one of pydantic's errors says to the person who wrote the file."""
    path: Path_ = error["loc"]
    if error["type"] == "extra_forbidden":
        return _unknown_key(path)
    return f"{path[-1]!r} is missing here" if error["type"] == "missing" else _wrong_value(path, error)


def _unknown_key(path: Path_) -> str:
    within = [part for part in path[:-1] if isinstance(part, str)]
    return _not_known(str(path[-1]), within[-1] if within else "")


@cache
def _not_known(key: str, section: str) -> str:
    """The message for a key that the section lacks; cached, as a file may hold the key thousands of times."""
    shown = repr(key if len(key) <= _LONGEST_KEY else key[: _LONGEST_KEY - 1] + "…")
    if reason := misplaced(key):
        return f"{shown} {reason}"
    model = _MODELS.get(section, ScenarioEntry) if section else ScenarioFile
    near = difflib.get_close_matches(key[:_LONGEST_KEY], model.model_fields, 1)
    elsewhere = next((f"{name}.{key}" for name, other in _MODELS.items() if key in other.model_fields), None)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if not near and elsewhere and section != "defaults":
        hint = f"; did you mean {elsewhere}?"
    return f"unknown key {shown}{hint or '; known here: ' + ', '.join(model.model_fields)}"


def _wrong_value(path: Path_, error: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in path if isinstance(part, str)) or "the file"
    message = has_to_be(str(error["msg"]))
    if error["type"] in ("model_type", "dict_type", "model_attributes_type"):
        message = "has to be a mapping of keys to values"
    got = error.get("input")
    shown = f", not {got!r}" if isinstance(got, (int, float, bool)) or got is None else ""
    hint = ""
    if error["type"] == "literal_error" and isinstance(got, str):
        allowed = [word.strip(" '") for word in str(error["ctx"]["expected"]).replace(" or ", ",").split(",")]
        near = difflib.get_close_matches(got, allowed, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{name}: {message}{shown}{hint}"
