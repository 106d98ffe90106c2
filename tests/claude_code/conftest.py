"""These tests run the real Claude Code against the gateway and the fake server; without it they are skipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from parallel_orchestrator.claude_code.binary import find
from parallel_orchestrator.records.errors import UsageError
from tests.reliability.conftest import pytest_terminal_summary, sound

__all__ = ["pytest_terminal_summary", "sound"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip those of this folder that need the program where there is none."""
    try:
        find()
    except UsageError as error:
        skip = pytest.mark.skip(reason=str(error))
        for item in items:
            if Path(item.fspath).parent == Path(__file__).parent and "without" not in item.keywords:
                item.add_marker(skip)


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes folders; a socket below them needs no short path."""
    return lambda: tmp_path_factory.mktemp("run")
