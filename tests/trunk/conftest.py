"""A trunk in a temporary directory, real git, and commands that run without a sandbox."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.trunk.bench import Bench


@pytest.fixture(autouse=True)
def _scratch_below_tmp_path(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed processes leave their scratch copies behind; let pytest sweep them up."""
    scratch = str(tmp_path_factory.mktemp("scratch"))
    monkeypatch.setenv("TMPDIR", scratch)
    monkeypatch.setattr(tempfile, "tempdir", scratch)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A fresh trunk, created."""
    bench = Bench(tmp_path / "out")
    bench.trunk.create()
    return bench
