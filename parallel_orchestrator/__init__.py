"""Parallel Orchestrator as a library: the orchestrator, its progress events and every error, from one place.

    from parallel_orchestrator import BudgetReached, ParallelOrchestrator

Each name is imported when it is first used: `import parallel_orchestrator` alone loads nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator import ParallelOrchestrator as ParallelOrchestrator
    from parallel_orchestrator.config.settings import UnknownSetting as UnknownSetting
    from parallel_orchestrator.records.errors import *  # noqa: F403 - every error there is
    from parallel_orchestrator.report.live.progress import Progress as Progress

_HOME = {
    "ParallelOrchestrator": "orchestrator",
    "Progress": "parallel_orchestrator.report.live.progress",
    "UnknownSetting": "parallel_orchestrator.config.settings",
}
_ERRORS = "parallel_orchestrator.records.errors"


def __getattr__(name: str) -> Any:
    """A public name, imported now."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME.get(name, _ERRORS)), name, None)
    if name not in _HOME and not (isinstance(value, type) and issubclass(value, Exception)):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names as well as what is loaded."""
    errors = importlib.import_module(_ERRORS)
    known = (name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception))
    return sorted({*globals(), *_HOME, *known})
