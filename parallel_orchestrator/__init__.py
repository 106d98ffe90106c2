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
    from parallel_orchestrator.records.errors import BatchBudgetReached as BatchBudgetReached
    from parallel_orchestrator.records.errors import BudgetReached as BudgetReached
    from parallel_orchestrator.records.errors import CannotGoOn as CannotGoOn
    from parallel_orchestrator.records.errors import DamagedState as DamagedState
    from parallel_orchestrator.records.errors import DirectoryHeld as DirectoryHeld
    from parallel_orchestrator.records.errors import EndpointUnavailable as EndpointUnavailable
    from parallel_orchestrator.records.errors import Interrupted as Interrupted
    from parallel_orchestrator.records.errors import KeyRefused as KeyRefused
    from parallel_orchestrator.records.errors import OrchestratorError as OrchestratorError
    from parallel_orchestrator.records.errors import PlanRefused as PlanRefused
    from parallel_orchestrator.records.errors import RecordingExhausted as RecordingExhausted
    from parallel_orchestrator.records.errors import RequestRefused as RequestRefused
    from parallel_orchestrator.records.errors import UsageError as UsageError
    from parallel_orchestrator.report.progress import Progress as Progress

_ELSEWHERE = {
    "ParallelOrchestrator": "orchestrator",
    "Progress": "parallel_orchestrator.report.progress",
    "UnknownSetting": "parallel_orchestrator.config.settings",
}
_ERRORS = (
    "BatchBudgetReached",
    "BudgetReached",
    "CannotGoOn",
    "DamagedState",
    "DirectoryHeld",
    "EndpointUnavailable",
    "Interrupted",
    "KeyRefused",
    "OrchestratorError",
    "PlanRefused",
    "RecordingExhausted",
    "RequestRefused",
    "UsageError",
)
_HOME = {**_ELSEWHERE, **dict.fromkeys(_ERRORS, "parallel_orchestrator.records.errors")}

__all__ = [*_HOME]  # noqa: PLE0604 - names of strings


def __getattr__(name: str) -> Any:
    """A public name, imported now."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names as well as what is loaded."""
    return sorted({*globals(), *__all__})
