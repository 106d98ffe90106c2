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


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests marked `long` first: started last, one of them would run alone while all other processes wait.

    xdist's worksteal first gives each process an equal share of the list, so each share begins with some of them.
    """
    processes = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    long = [item for item in items if item.get_closest_marker("long")]
    short = [item for item in items if not item.get_closest_marker("long")]
    ordered: list[pytest.Item] = []
    for number in range(processes):
        first = long[number::processes]
        more = max(0, (len(items) - len(ordered)) // (processes - number) - len(first))
        ordered += first + short[:more]
        del short[:more]
    items[:] = ordered + short
