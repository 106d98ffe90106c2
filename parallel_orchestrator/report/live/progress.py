"""The progress of a run, for a program that started it: the console's lines as events."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from parallel_orchestrator.report.live.snapshot import Changes, Snapshot, change_text
from parallel_orchestrator.report.live.view import View

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """One event of a run: a line of text, or a task whose state changed."""

    text: str
    """What the console says of it, in one line or more."""
    task: str | None = None
    """The task's id; None for a line that is about no single task."""
    state: str | None = None
    """The task's state now: `ready`, `waiting`, `running`, `done`, `failed` or `blocked`."""
    done: int = 0
    """Tasks that are merged by now."""
    total: int = 0
    """Tasks of the plan; 0 before there is one."""
    cost_usd: float = 0.0
    """What is spent by now. Of a replay nothing is."""
    elapsed_s: float = 0.0
    """Seconds since executors began in this session."""


class ReportingView(View):
    """Shows a run in another view, and calls back with each event.

    The callback runs in the thread of the run, which waits for it. An exception that it raises is logged; the run
    continues, and the callback is not called again.
    """

    def __init__(self, view: View, callback: Callable[[Progress], None]) -> None:
        self._view = view
        self._callback: Callable[[Progress], None] | None = callback
        self._changes = Changes()
        self._last = Progress("")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._view.say(text)
        self._call(text, None, None)

    def show(self, snapshot: Snapshot) -> None:
        """The state of things; an event for each task that changed."""
        self._view.show(snapshot)
        changed = list(self._changes.of(snapshot))
        spent = snapshot.spent.usd
        self._last = Progress("", None, None, snapshot.done(), len(snapshot.items), spent, snapshot.elapsed_s)
        for key, item in changed:
            self._call(change_text(snapshot, key, item), key, item.standing.value)

    def wait(self, what: str, seconds: float) -> None:
        """Show what is waited for; sends no event."""
        self._view.wait(what, seconds)

    def close(self) -> None:
        """Nothing more will be shown."""
        self._view.close()

    def _call(self, text: str, task: str | None, state: str | None) -> None:
        if self._callback is None:
            return
        last = self._last
        try:
            self._callback(Progress(text, task, state, last.done, last.total, last.cost_usd, last.elapsed_s))
        except Exception:
            self._callback = None
            log.exception("on_progress raised an exception; it is not called again")
