"""The live table: a row per executor, a bar for the whole, drawn anew in place.

Drawn by hand upon rich's rendering, as the terminal may change its size at any time. What it makes then of lines that
are there already differs from one to the other, and it may do so before it tells of the new size: after such a change
the whole screen is drawn anew, with the last of the lines that stay.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from parallel_orchestrator.report.live.console import Changes
from parallel_orchestrator.report.live.snapshot import (
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
from parallel_orchestrator.report.pages.wrapping import fold
from parallel_orchestrator.system.terminal_text import indented, one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_DRAW_S = 0.1
_NARROW = 76
_WIDEST = 130
"""Columns; a row that is wider is hard to follow with the eye."""
_KEPT_LINES = 200
"""Of those that stay, for a screen that is drawn anew."""
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

        self._console = Console(stderr=True, highlight=False)  # NO_COLOR takes its colours
        self._changes = Changes(Standing.RUNNING, Standing.READY, Standing.WAITING)
        self._snapshot: Snapshot | None = None
        self._waiting = ""
        """What goes on besides, as a line."""
        self._kept: deque[str] = deque(maxlen=_KEPT_LINES)
        self._size: tuple[int, int] | None = None
        """Of the terminal, when it was drawn on last."""
        self._height = 0
        """Of the table on the screen, in lines."""
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

    def wait(self, what: str, seconds: float) -> None:
        """A line below the table, or in its place."""
        with self._mutex:
            self._waiting = f"{what} … {clock(seconds)}" if what else ""
            self._draw([])

    def close(self) -> None:
        """Take the table off the screen."""
        with self._mutex:
            self._snapshot, self._waiting = None, ""
            self._draw([])

    def _draw(self, said: Sequence[str]) -> None:
        """Over what is there: the lines that stay, and the table below them."""
        width, height = size = self._console.size
        table = self._table(width, height)[: max(1, height - 1)]
        self._kept.extend(said)
        resized = self._size not in (None, size) and (self._height or table)
        kept = self._last_kept(width, height - len(table) - 1) if resized else self._folded(said)
        upward = f"\x1b[{self._height}A" if self._height else ""
        begin = "\x1b[H\x1b[J" if resized else f"{upward}\r"
        self._size, self._height, self._drawn = size, len(table), time.monotonic()
        lines = "".join(f"{line}\x1b[K\n" for line in (*kept, *table))
        with contextlib.suppress(OSError, ValueError):  # whoever looks at it may be gone; the log has it, too
            self._console.file.write(begin + lines + "\x1b[J")
            self._console.file.flush()

    def _table(self, width: int, height: int) -> list[str]:
        """What is drawn anew each time."""
        lines = []
        if self._snapshot:
            room = height - bool(self._waiting)
            lines = self._rendered(table_of(self._snapshot, width, room), min(width, _WIDEST) - 1)
        return [*lines, self._waiting[: width - 1]] if self._waiting else lines

    def _folded(self, said: Sequence[str]) -> list[str]:
        """Lines that stay, with their colours; what is to be copied the terminal itself folds."""
        from rich.text import Text

        width = self._console.size.width
        return [line for text in said for line in self._rendered(Text(fold(text, width), _style_of(text)), None)]

    def _last_kept(self, width: int, room: int) -> list[str]:
        """The last of the lines that stay, as many as so many lines of the screen can hold."""
        from rich.text import Text

        lines: list[str] = []
        for text in reversed(self._kept):
            folded = self._folded([text])
            room -= sum(max(1, -(-Text.from_ansi(line).cell_len // width)) for line in folded)
            if room < 0:
                break
            lines[:0] = folded
        return lines

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

    width = min(width, _WIDEST)
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
    parts += [Text(one_line(snapshot.trouble), style="bold yellow")]
    lines: list[Text] = []
    for part in filter(len, parts):
        if lines and lines[-1].cell_len + 3 + part.cell_len < width:
            lines[-1] = Text("   ").join([lines[-1], part])
        else:
            lines.append(part)
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines
