"""What a person sees while a run works: a live table on a terminal, plain lines elsewhere.

Both are given the same snapshots. Where there is no terminal, one line is printed for each change.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.report.spending import Spending
from parallel_orchestrator.store.logfile import one_line

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One executor, now."""

    executor: int
    task: str | None
    name: str
    doing: str
    seconds: float
    """Since it began to do that."""


@dataclass(frozen=True)
class Snapshot:
    """A run, now."""

    rows: Sequence[Row]
    states: dict[str, tuple[TaskState, str]]
    """State of each task and why."""
    holders: dict[str, int]
    """The executor of each claimed task."""
    names: dict[str, str]
    spent: Spending
    max_cost_usd: float | None

    def done(self) -> int:
        """Tasks on the trunk."""
        return sum(state is TaskState.MERGED for state, _ in self.states.values())


class View(Protocol):
    """Shows a run to a person."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def show(self, snapshot: Snapshot) -> None:
        """The state of things, called several times a second."""

    def close(self) -> None:
        """Nothing more will be shown."""


def make_view(quiet: bool = False) -> View:
    """The view that fits standard error: live on a terminal that can, plain lines otherwise."""
    if quiet:
        return QuietView()
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveView()
    return PlainView()


class QuietView:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def show(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class PlainView:
    """One line on standard error for each change of a task's state. No escape sequences."""

    def __init__(self) -> None:
        self._known: dict[str, TaskState] = {}

    def say(self, text: str) -> None:
        """A line, each of its own."""
        for line in text.splitlines():
            print(one_line(line), file=sys.stderr, flush=True)

    def show(self, snapshot: Snapshot) -> None:
        """A line for each task whose state changed."""
        for task, (state, why) in snapshot.states.items():
            if self._known.get(task, TaskState.QUEUED) is not state:
                self.say(_change(snapshot, task, state, why))
            self._known[task] = state

    def close(self) -> None:
        """Nothing to end."""


class LiveView:
    """A table that is drawn anew in place: a row per executor, a bar for the whole."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=8, transient=True)
        self._known: dict[str, TaskState] = {}
        self._started = time.monotonic()
        self._open = False

    def say(self, text: str) -> None:
        """A line above the table."""
        for line in text.splitlines():
            self._console.print(one_line(line), markup=False, highlight=False)

    def show(self, snapshot: Snapshot) -> None:
        """Draw the table; say which tasks ended."""
        if not self._open:
            self._live.start()
            self._open = True
        for task, (state, why) in snapshot.states.items():
            old = self._known.get(task, TaskState.QUEUED)
            if old is not state and state not in (TaskState.QUEUED, TaskState.CLAIMED):
                self.say(_change(snapshot, task, state, why))
            self._known[task] = state
        self._live.update(self._table(snapshot))

    def close(self) -> None:
        """Take the table off the screen."""
        if self._open:
            self._live.stop()
            self._open = False

    def _table(self, snapshot: Snapshot) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(no_wrap=True, justify="right")
        for row in snapshot.rows:
            name = f"{row.task} {row.name}" if row.task else "–"
            cells = (f"executor {row.executor}", one_line(name), one_line(row.doing), f"{row.seconds:.0f} s")
            table.add_row(*(Text(cell, style="" if row.task else "dim") for cell in cells))
        done, total = snapshot.done(), len(snapshot.states)
        bar = ProgressBar(total=total, completed=done)
        table.add_row(Text(f"{done}/{total} tasks"), bar, Text(_cost(snapshot)), Text(_clock(self._started)))
        return table


def _change(snapshot: Snapshot, task: str, state: TaskState, why: str) -> str:
    who = f" by executor {snapshot.holders[task]}" if task in snapshot.holders else ""
    mark = {TaskState.MERGED: "✓", TaskState.FAILED: "✗", TaskState.BLOCKED: "–"}.get(state, "·")
    text = f"{mark} {task} {snapshot.names[task]}: {state}{who if state is TaskState.CLAIMED else ''}"
    if why and state is not TaskState.MERGED:
        text += f" ({why})"
    return one_line(f"[{snapshot.done()}/{len(snapshot.states)}] {text}")


def _cost(snapshot: Snapshot) -> str:
    spent = snapshot.spent
    if spent.recorded_usd and not spent.usd:
        return f"${spent.usd:.2f} (recorded ${spent.recorded_usd:.2f})"
    cap = f" of ${snapshot.max_cost_usd:.2f}" if snapshot.max_cost_usd is not None else ""
    more = f" (≥, {spent.unpriced} unpriced)" if spent.unpriced else ""
    return f"${spent.usd:.2f}{cap}{more}"


def _clock(started: float) -> str:
    seconds = int(time.monotonic() - started)
    return f"{seconds // 60}:{seconds % 60:02}"
