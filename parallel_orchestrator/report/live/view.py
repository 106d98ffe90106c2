"""The interface that a run talks to while it works. `console.make_view` returns the one for the terminal."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from parallel_orchestrator.report.live.snapshot import Snapshot

_TICK_S = 0.25


class View:
    """Shows a run or a batch to a person. This one shows nothing."""

    def say(self, text: str) -> None:
        """Print a line that stays."""

    def show(self, snapshot: Snapshot) -> None:
        """Show the present state; called several times a second."""

    def wait(self, what: str, seconds: float) -> None:
        """Show that `what` has been under way for so long; an empty `what` ends that."""

    def close(self) -> None:
        """Nothing more will be shown."""


@dataclass
class ScenarioView(View):
    """What one scenario of a batch may print: lines under its name. The batch's view shows the rest."""

    view: View
    scenario: str

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.view.say(f"{self.scenario}: {text}")


@contextlib.contextmanager
def waiting(view: View, what: str, trouble: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Have the view show `what` as under way while the block runs. `trouble` returns what fails."""
    over, began = threading.Event(), time.monotonic()

    def tick() -> None:
        while not over.wait(_TICK_S):
            failing = trouble()
            view.wait(f"{what}: {failing}" if failing else what, time.monotonic() - began)

    ticking = threading.Thread(target=tick, name=what, daemon=True)
    ticking.start()
    try:
        yield
    finally:
        over.set()
        ticking.join()
        view.wait("", 0.0)
