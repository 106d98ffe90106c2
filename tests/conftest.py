"""What tests of every room use."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Hypothesis fails an example that takes more than 200 ms. No test asserts an absolute time: the machine may be busy.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def pit(tmp_path: Path) -> Iterator[Path]:
    """A temporary folder for what may be bottomless: left so, pytest itself would stop at it when it clears away."""
    yield tmp_path
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """The command line, run within a test, takes signals over: a process that is started later would ignore Ctrl-C."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
