"""What several tests of this room begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.records.plans import plan, task
from tests.report.runs import NASTY, Story


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    """Four tasks: the second and the third wait for the first, the fourth, of a nasty name, for the third."""
    told = Story(tmp_path, plan(task(1), task(2, (1,)), task(3, (1,)), task(4, (3,), name=NASTY)))
    yield told
    told.close()
