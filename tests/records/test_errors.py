"""The tree of errors: pickling and exit codes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from parallel_orchestrator.records import errors, lifecycle


def _tree(root: type[errors.OrchestratorError]) -> Iterator[type[errors.OrchestratorError]]:
    """The errors of `records`; other rooms add their own below them."""
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("parallel_orchestrator.records"):
            yield from _tree(child)


@pytest.mark.parametrize("kind", [*_tree(errors.OrchestratorError)])
def test_errors_cross_a_process_boundary_unchanged(kind: type[errors.OrchestratorError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what, where, what next")))
    assert type(error) is kind
    assert str(error) == "what, where, what next"
    assert error.exit_code == kind.exit_code


def test_the_exit_codes() -> None:
    assert lifecycle.IllegalMove in _tree(errors.OrchestratorError)
    codes = {kind.__name__: kind.exit_code for kind in _tree(errors.OrchestratorError)}
    other = {
        "UsageError": 2,
        "KeyRefused": 2,
        "ModelUnknown": 2,
        "EndpointUnusable": 2,
        "RecordingExhausted": 2,
        "CannotGoOn": 3,
        "EndpointUnavailable": 3,
        "OutOfMemory": 3,
        "BudgetReached": 4,
        "BatchBudgetReached": 4,
        "DirectoryHeld": 5,
        "Interrupted": 130,
    }
    assert {name: code for name, code in codes.items() if code != 1} == other
