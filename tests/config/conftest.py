"""What several tests of this room begin with."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "how.txt").write_text("Use no classes.")
    (tmp_path / "blank.txt").write_text(" \n")
    return tmp_path
