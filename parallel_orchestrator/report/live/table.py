"""The live table: a row per executor and a bar for the whole, below the lines that stay.

rich's Live redraws it in place. Terminals differ in what they make of drawn lines when their size changes, so
the screen is then cleared and drawn again, with the last of the lines that stay.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from parallel_orchestrator.report.live.snapshot import (
    Changes,
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
from parallel_orchestrator.report.live.view import View
from parallel_orchestrator.report.pages.wrapping import fold
from parallel_orchestrator.system.terminal_text import indented, one_line

_DRAW_S = 0.1
_NARROW = 76
_WIDEST = 130
"""Columns; the eye loses its row in a wider table."""
_KEPT_LINES = 200
"""Of those that stay, for a screen that is drawn again."""
_CLEAR = "\x1b[H\x1b[J"
"""Empties the screen, without a copy of it in the terminal's history as rich's own way leaves in some."""
_STYLES = {
    Standing.DONE: "green",
    Standing.RUNNING: "cyan",
    Standing.FAILED: "bold red",
    Standing.BLOCKED: "yellow",
}


class LiveView(View):
    """Draws on standard error, which is a terminal. Methods may be called from several threads."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, force_terminal=True)  # NO_COLOR removes the colours
        self._live: Live | None = None
        """While a table is on the screen."""
        self._changes = Changes(Standing.RUNNING, Standing.READY, Standing.WAITING)
        self._snapshot: Snapshot | None = None
        self._waiting = ""
        """What else is under way, as a line."""
        self._kept: deque[str] = deque(maxlen=_KEPT_LINES)
        self._size: tuple[int, int] | None = None
        """Of the terminal, when it was last drawn on."""
        self._drawn = 0.0
        self._mutex = threading.Lock()

    def say(self, text: str) -> None:
        """Print a line above the table."""
        with self._mutex:
            self._draw([indented(text)])

    def show(self, snapshot: Snapshot) -> None:
        """Print what ended, and draw the table, at most ten times a second."""
        with self._mutex:
            said = [one_line(change_text(snapshot, key, item)) for key, item in self._changes.of(snapshot)]
            self._snapshot = snapshot
            if said or time.monotonic() - self._drawn >= _DRAW_S:
                self._draw(said)

    def wait(self, what: str, seconds: float) -> None:
        """Show a line below the table, or in its place."""
        with self._mutex:
            self._waiting = f"{what} … {clock(seconds)}" if what else ""
            self._draw()

    def close(self) -> None:
        """Take the table off the screen."""
        with self._mutex:
            self._snapshot, self._waiting = None, ""
            self._draw()

    def _draw(self, said: Sequence[str] = ()) -> None:
        """Print the lines that stay, and the table below them, in one write."""
        console, size = self._console, self._console.size
        resized = self._size not in (None, size) and self._live is not None
        self._size, self._drawn = size, time.monotonic()
        self._kept.extend(said)
        if resized:
            self._end_table()  # unseen: Live counts the lines to erase as they were at the former size
            said = self._last_kept()
        with console.capture() as drawn:
            if self._live is None and self._is_drawn():
                self._live = self._begin_table()
            if said:
                console.print(*map(self._line, said), sep="\n", soft_wrap=True)  # and the table, if there is one
            elif self._live:
                self._live.refresh()
        erased = self._end_table() if not self._is_drawn() else ""
        with contextlib.suppress(OSError, ValueError):  # the terminal may be gone; the log has every line, too
            console.file.write((_CLEAR if resized else "") + drawn.get() + erased)
            console.file.flush()

    def _is_drawn(self) -> bool:
        return self._snapshot is not None or bool(self._waiting)

    def _begin_table(self) -> Live:
        live = Live(
            self,
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        live.start()
        self._console.show_cursor(show=True)  # Live hides it, and a killed process cannot show it again
        return live

    def _end_table(self) -> str:
        """Forget the table; return what erases it."""
        with self._console.capture() as erased:
            if self._live:
                self._live.stop()
        self._live = None
        return erased.get()

    def __rich__(self) -> RenderableType:
        """What is redrawn each time. Its last line is empty, for the cursor."""
        width, height = self._console.size
        parts: list[RenderableType] = []
        if self._snapshot:
            parts.append(table_of(self._snapshot, width, height - bool(self._waiting)))
        if self._waiting:
            parts.append(Text(one_line(self._waiting), no_wrap=True, overflow="ellipsis"))
        return Constrain(Group(*parts, Text("")), min(width, _WIDEST) - 1)

    def _line(self, text: str) -> Text:
        """A line that stays. Only sentences are wrapped: the terminal itself folds what is to be copied."""
        return Text(fold(text, self._console.width), _style_of(text))

    def _last_kept(self) -> list[str]:
        """The last of the lines that stay, as many as fit above the table."""
        width, height = self._console.size
        room = height - len(self._console.render_lines(self))
        lines: list[str] = []
        for text in reversed(self._kept):
            room -= sum(max(1, -(-cell_len(line) // width)) for line in self._line(text).plain.split("\n"))
            if room < 0:
                break
            lines.insert(0, text)
        return lines


def _style_of(line: str) -> str:
    """The colour of a line that stays, by its mark."""
    mark = line.partition("] ")[2][:1] if line.startswith("[") else ""
    return {"✓": "green", "✗": "red", "–": "yellow"}.get(mark, "")


def table_of(snapshot: Snapshot, width: int, height: int) -> RenderableType:
    """The whole table, for a screen of that size."""
    width = min(width, _WIDEST)
    foot: list[RenderableType] = [_bar(snapshot), *_foot(snapshot, width)]
    return Group(_executors(snapshot.rows, width, max(1, height - len(foot) - 2)), *foot)


def _executors(rows: Sequence[Row], width: int, room: int) -> Table:
    """A row an executor; where the screen has too few lines, those that work come first."""
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
        table.add_row(*(Text(cell, style="" if row.task else "dim") for cell in _cells(row, wide)))
    if len(shown) < len(rows):
        table.add_row(Text("…"), Text(f"and {len(rows) - len(shown)} more", style="dim"))
    return table


def _cells(row: Row, wide: bool) -> list[str]:
    """One executor's cells, without characters that steer the terminal."""
    name = " ".join(part for part in (row.task or "–", row.name) if part)
    who = f"executor {row.executor}" if wide else str(row.executor)
    cells = [who, one_line(name), one_line(row.doing)]
    if wide:
        cells += [f"turn {row.turns}" if row.turns else "", f"{short_count(row.tokens)} tok" if row.tokens else ""]
    return [*cells, clock(row.seconds)]


def _bar(snapshot: Snapshot) -> Table:
    done, total = snapshot.done(), len(snapshot.items)
    bar = Table.grid(padding=(0, 1), expand=True)
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True)
    label = Text(f"{done}/{total} {snapshot.noun}", style="bold")
    bar.add_row(label, ProgressBar(max(1, total), done), Text(time_text(snapshot)))
    return bar


def _foot(snapshot: Snapshot, width: int) -> list[Text]:
    """Counts, money and calls, on two lines where they do not fit on one; then what fails."""
    counted = [(standing, f"{count} {label}", count) for standing, label, count in snapshot.counts()]
    if sum(len(text) + 3 for _, text, _ in counted) > width:
        counted = [one for one in counted if one[2]]
    counts = Text(" · ").join(
        Text(text, style=_STYLES.get(standing, "") if count else "dim") for standing, text, count in counted
    )
    parts = [counts, Text(cost_text(snapshot)), Text(traffic_text(snapshot.traffic), style="yellow")]
    lines = [Text("   ").join(filter(len, parts))]
    if lines[0].cell_len >= width:
        lines = [counts, Text("   ").join(filter(len, parts[1:]))]
    if snapshot.trouble:
        lines.append(Text(one_line(snapshot.trouble), style="bold yellow"))
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines
