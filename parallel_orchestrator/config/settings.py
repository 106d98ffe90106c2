"""The names of a run's settings: the same on the command line, in Python and in scenario files.

A scenario (records/scenario.py) keeps some of them under longer names, with the unit, or under one for each role.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parallel_orchestrator.records.errors import UsageError, did_you_mean

_FIELDS = {
    "model": ("planner_model", "executor_model"),
    "backend": ("planner_backend", "backend"),
    "executor_backend": ("backend",),
    "max_cost": ("max_cost_usd",),
    "task_max_cost": ("task_max_cost_usd",),
    "task_timeout": ("task_timeout_min",),
}
"""The scenario's fields that a setting stands for, where they have another name. The general ones come first."""

SETTING_OF = {
    "max_cost_usd": "max_cost",
    "task_max_cost_usd": "task_max_cost",
    "task_timeout_min": "task_timeout",
    "endpoint_patience_s": "endpoint_patience",
}
"""By the field, of this version's scenario or of an earlier one's: what a person calls it."""


class UnknownSetting(UsageError, TypeError):
    """An unknown setting, or one that is given twice."""


def fields_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The scenario's fields that these settings give. Absent ones (None) leave a field as it is."""
    fields: dict[str, Any] = {}
    given = {name: value for name, value in settings.items() if value is not None}
    for name in (*(name for name in _FIELDS if name in given), *(name for name in given if name not in _FIELDS)):
        value = str(Path(given[name]).absolute()) if name == "prices" else given[name]
        fields |= dict.fromkeys(_FIELDS.get(name, (name,)), value)
    return fields


def renamed(old: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under the names that they had in earlier versions, by their present names, each with a warning.

    `given`: all settings by their present names. Raises UnknownSetting for a name that never was one.
    """
    found: dict[str, Any] = {}
    for name, value in old.items():
        now = SETTING_OF.get(name)
        if now is None:
            hint = did_you_mean(name, given) or f"; there are {', '.join(sorted(given))}"
            raise UnknownSetting(f"there is no setting {name}{hint}")
        if given.get(now) is not None:
            raise UnknownSetting(f"{name} is the old name of {now}, which is given, too: keep {now}")
        warnings.warn(f"{name} is called {now} now; the old name will go away", DeprecationWarning, stacklevel=3)
        found[now] = value
    return found
