"""The live table: a row per executor, a bar for the whole, drawn anew in place.

Drawn by hand upon rich's rendering, as the terminal may change its width at any time: a line that was drawn wide
takes several lines once the window is narrower, and as many have to be gone up.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from parallel_orchestrator.report.console import Changes
from parallel_orchestrator.report.snapshot import (
    Row,
    Snapshot,
    Standing,
    change_text,
    clock,
    cost_text,
    short_count,
    time_text,
    traffic_text,
)
from parallel_orchestrator.store.plain import indented, one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_DRAW_S = 0.1
_NARROW = 76
_STYLES = {
    Standing.DONE: "green",
    Standing.RUNNING: "cyan",
    Standing.FAILED: "bold red",
    Standing.BLOCKED: "yellow",
}


class LiveView:
    """Draws on standard error, which is a terminal. Methods may be called from several threads."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._changes = Changes(Standing.RUNNING, Standing.READY, Standing.WAITING)
        self._snapshot: Snapshot | None = None
        self._lines: list[int] = []
        """Cells of each line on the screen."""
        self._drawn = 0.0
        self._mutex = threading.Lock()

    def say(self, text: str) -> None:
        """A line above the table."""
        with self._mutex:
            self._draw([indented(text)])

    def show(self, snapshot: Snapshot) -> None:
        """Say what ended, and draw the table, some times a second."""
        with self._mutex:
            said = []
            for key, item in self._changes.of(snapshot):
                said.append(one_line(change_text(snapshot, key, item)))
            self._snapshot = snapshot
            if said or time.monotonic() - self._drawn >= _DRAW_S:
                self._draw(said)

    def close(self) -> None:
        """Take the table off the screen."""
        with self._mutex:
            self._snapshot = None
            self._draw([])

    def _draw(self, said: Sequence[str]) -> None:
        """Over what is there: the lines that stay, and the table below them."""
        from rich.text import Text

        width, height = self._console.size
        upward = sum(max(1, -(-cells // width)) for cells in self._lines)
        kept = [line for text in said for line in self._rendered(Text(text, _style_of(text)), None)]
        table = self._rendered(table_of(self._snapshot, width, height), width - 1) if self._snapshot else []
        table = table[: max(1, height - 1)]
        self._lines = [Text.from_ansi(line).cell_len for line in table]
        self._drawn = time.monotonic()
        lines = "".join(f"{line}\x1b[K\n" for line in (*kept, *table))
        with contextlib.suppress(OSError, ValueError):  # whoever looks at it may be gone; the log has it, too
            self._console.file.write((f"\x1b[{upward}A" if upward else "") + "\r" + lines + "\x1b[J")
            self._console.file.flush()

    def _rendered(self, what: RenderableType, width: int | None) -> list[str]:
        """Lines with their colours. Without a width the terminal itself folds them."""
        with self._console.capture() as captured:
            self._console.print(what, width=width, soft_wrap=width is None)
        return [line.rstrip() for line in captured.get().splitlines()]


def _style_of(line: str) -> str:
    """The colour of a line that stays, by its mark."""
    mark = line.partition("] ")[2][:1] if line.startswith("[") else ""
    return {"✓": "green", "✗": "red", "–": "yellow"}.get(mark, "")


def table_of(snapshot: Snapshot, width: int, height: int) -> RenderableType:
    """The whole of it, for a screen of that size."""
    from rich.console import Group

    foot: list[RenderableType] = [_bar(snapshot, width), *_foot(snapshot, width)]
    room = max(1, height - len(foot) - 2)
    return Group(_executors(snapshot.rows, width, room), *foot)


def _executors(rows: Sequence[Row], width: int, room: int) -> Table:
    """A row an executor; where they are more than the screen has lines, those that work come first."""
    from rich.table import Table
    from rich.text import Text

    wide = width >= _NARROW
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, ratio=2, overflow="ellipsis")
    table.add_column(no_wrap=True, ratio=3, overflow="ellipsis")
    for _ in range(3 if wide else 1):
        table.add_column(no_wrap=True, justify="right")
    shown = list(rows)
    if len(rows) > room:
        shown = sorted(sorted(rows, key=lambda row: row.task is None)[: room - 1], key=lambda row: row.executor)
    for row in shown:
        style = "" if row.task else "dim"
        table.add_row(*(Text(cell, style=style) for cell in _cells(row, wide)))
    if len(shown) < len(rows):
        table.add_row(Text("…"), Text(f"and {len(rows) - len(shown)} more", style="dim"))
    return table


def _cells(row: Row, wide: bool) -> list[str]:
    """One executor's cells, in which nothing steers the terminal."""
    name = " ".join(part for part in (row.task or "–", row.name) if part)
    who = f"executor {row.executor}" if wide else str(row.executor)
    cells = [who, one_line(name), one_line(row.doing)]
    if wide:
        cells += [f"turn {row.turns}" if row.turns else "", f"{short_count(row.tokens)} tok" if row.tokens else ""]
    return [*cells, clock(row.seconds)]


def _bar(snapshot: Snapshot, width: int) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    done, total = snapshot.done(), len(snapshot.items)
    label, times = f"{done}/{total} {snapshot.noun}", time_text(snapshot)
    room = max(4, width - 1 - len(label) - len(times) - 2)
    bar = Table.grid(padding=(0, 1))
    for _ in range(3):
        bar.add_column(no_wrap=True)
    bar.add_row(Text(label, style="bold"), ProgressBar(max(1, total), done, room), Text(times))
    return bar


def _foot(snapshot: Snapshot, width: int) -> list[Text]:
    """Counts, money and calls: on one line where they fit, else on two or three."""
    from rich.text import Text

    counted = [(standing, f"{count} {label}", count) for standing, label, count in snapshot.counts()]
    if sum(len(text) + 3 for _, text, _ in counted) > width:
        counted = [one for one in counted if one[2]]
    counts = Text(" · ").join(
        Text(text, style=_STYLES.get(standing, "") if count else "dim") for standing, text, count in counted
    )
    parts = [counts, Text(cost_text(snapshot)), Text(traffic_text(snapshot.traffic), style="yellow")]
    lines: list[Text] = []
    for part in filter(len, parts):
        if lines and lines[-1].cell_len + 3 + part.cell_len < width:
            lines[-1] = Text("   ").join([lines[-1], part])
        else:
            lines.append(part)
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines
