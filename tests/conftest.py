"""What tests of every room use."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def pit(tmp_path: Path) -> Iterator[Path]:
    """A temporary folder for what may be bottomless: left so, pytest itself would stop at it when it clears away."""
    yield tmp_path
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)
