"""Chooses the view of a run: a live table on a terminal, plain lines elsewhere.

Both get the same snapshots. The plain view prints one line for each change, and a heartbeat after ten silent seconds.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping

from parallel_orchestrator.report.live.snapshot import (
    Changes,
    Snapshot,
    Standing,
    change_text,
    clock,
    cost_text,
    counts_text,
    time_text,
    traffic_text,
)
from parallel_orchestrator.report.live.view import View
from parallel_orchestrator.report.pages.wrapping import folded
from parallel_orchestrator.system.terminal_text import indented, one_line

HEARTBEAT_S = 10.0
_SIGNS = "✓…·━"
_COLOURS = {Standing.DONE: "32", Standing.FAILED: "31", Standing.BLOCKED: "33"}
"""SGR codes."""


def make_view(quiet: bool = False) -> View:
    """Return the view that fits standard error: a live table where the terminal can show one, else plain lines.

    NO_COLOR removes the colours of the live table. With TERM=dumb, plain lines have no escape sequences. FORCE_COLOR
    adds colours to plain lines.
    """
    if quiet:
        return View()
    if not plain_because(os.environ):
        # rich takes longer to import than most commands last.
        from parallel_orchestrator.report.live.table import LiveView

        return LiveView()
    forced = os.environ.get("FORCE_COLOR", "").lower() not in ("", "0", "false")
    return PlainView(colour=forced and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def plain_because(environment: Mapping[str, str]) -> str:
    """Return why standard error gets plain lines; empty where it gets a live table."""
    if sys.stderr is None or not sys.stderr.isatty():
        return "standard error is no terminal"
    kind = environment.get("TERM", "dumb")
    if kind in ("dumb", "unknown", ""):
        return f"TERM is {kind or 'empty'}"
    return "" if holds_signs(sys.stderr.encoding) else f"its encoding is {sys.stderr.encoding}"


def holds_signs(encoding: str) -> bool:
    """Whether that encoding has the live table's characters. Escaped, each would be wider than its column."""
    try:
        _SIGNS.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


class PlainView(View):
    """Prints one line on standard error for each change. With `colour`, its only escape sequences are colours."""

    def __init__(self, *, colour: bool = False) -> None:
        self._colour = colour
        self._changes = Changes()
        self._printed = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        self._print(text, "")

    def show(self, snapshot: Snapshot) -> None:
        """Print a line for each change; after ten seconds without a line, one on the progress."""
        for key, item in self._changes.of(snapshot):
            self._print(one_line(change_text(snapshot, key, item)), _COLOURS.get(item.standing, ""))
        if time.monotonic() - self._printed >= HEARTBEAT_S:
            self.say(heartbeat(snapshot))

    def wait(self, what: str, seconds: float) -> None:
        """After ten seconds without a line, print how long it has taken."""
        if what and time.monotonic() - self._printed >= HEARTBEAT_S:
            self.say(f"{what}: {clock(seconds)} so far")

    def _print(self, text: str, colour: str) -> None:
        self._printed = time.monotonic()
        before, after = (f"\x1b[{colour}m", "\x1b[0m") if self._colour and colour else ("", "")
        with contextlib.suppress(OSError, ValueError):  # the reader may be gone; the log has every line, too
            print(before + folded(indented(text), sys.stderr) + after, file=sys.stderr, flush=True)


def heartbeat(snapshot: Snapshot) -> str:
    """The progress on one line."""
    parts = [
        counts_text(snapshot),
        cost_text(snapshot),
        traffic_text(snapshot.traffic),
        time_text(snapshot),
        snapshot.trouble,
    ]
    return f"[{snapshot.done()}/{len(snapshot.items)}] {'; '.join(part for part in parts if part)}"
