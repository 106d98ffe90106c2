"""What a person sees while a run works: a live table on a terminal, plain lines elsewhere.

Both are given the same snapshots. Where there is no terminal, one line is printed for each change, and a sign of
life when there was none for a while.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from parallel_orchestrator.report.live.snapshot import (
    Item,
    Row,
    Snapshot,
    Standing,
    change_text,
    clock,
    cost_text,
    counts_text,
    time_text,
    traffic_text,
)
from parallel_orchestrator.report.pages.wrapping import folded
from parallel_orchestrator.system.terminal_text import indented, one_line

__all__ = ["Changes", "PlainView", "QuietView", "Row", "Snapshot", "View", "make_view"]

HEARTBEAT_S = 10.0
_TICK_S = 0.25
_SIGNS = "✓…·━"
_COLOURS = {Standing.DONE: "32", Standing.FAILED: "31", Standing.BLOCKED: "33"}
"""SGR codes."""


class View(Protocol):
    """Shows a run to a person."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def show(self, snapshot: Snapshot) -> None:
        """The state of things, called several times a second."""

    def wait(self, what: str, seconds: float) -> None:
        """That something goes on of which there is nothing else to show, for so long by now; empty when it is over."""

    def close(self) -> None:
        """Nothing more will be shown."""


@contextlib.contextmanager
def waiting(view: View, what: str, trouble: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Have the view show `what` as running while the block runs. `trouble` returns what fails."""
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


def make_view(quiet: bool = False) -> View:
    """The view that fits standard error: live on a terminal that can, plain lines otherwise.

    NO_COLOR takes the colours and leaves the live view; TERM=dumb means plain lines without any escape sequence;
    FORCE_COLOR adds colour to plain lines.
    """
    if quiet:
        return QuietView()
    if not plain_because(os.environ):
        from parallel_orchestrator.report.live.table import LiveView

        return LiveView()
    forced = os.environ.get("FORCE_COLOR", "").lower() not in ("", "0", "false")
    return PlainView(colour=forced and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def plain_because(environment: Mapping[str, str]) -> str:
    """Why standard error is shown plain lines; empty where there is a live table."""
    if sys.stderr is None or not sys.stderr.isatty():
        return "standard error is no terminal"
    kind = environment.get("TERM", "dumb")
    if kind in ("dumb", "unknown", ""):
        return f"TERM is {kind or 'empty'}"
    return "" if holds_signs(sys.stderr.encoding) else f"its encoding is {sys.stderr.encoding}"


def holds_signs(encoding: str) -> bool:
    """Whether the signs of a live table have that encoding; escaped, each would be wider than its place."""
    try:
        _SIGNS.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


class Changes:
    """Which items came to stand differently from one snapshot to the next."""

    def __init__(self, *unsaid: Standing) -> None:
        self._known: dict[str, str] = {}
        self._unsaid = unsaid

    def of(self, snapshot: Snapshot) -> Iterator[tuple[str, Item]]:
        """The changed ones. One that only waits, or was done before, is news when it was something else before."""
        for key, item in snapshot.items.items():
            known = self._known.get(key)
            self._known[key] = item.word
            begins = known is None and item.standing in (Standing.READY, Standing.WAITING, Standing.DONE)
            if known != item.word and not begins and item.standing not in self._unsaid:
                yield key, item


class QuietView:
    """Shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def show(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def wait(self, what: str, seconds: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class PlainView:
    """One line on standard error for each change. No escape sequences, but colours where `colour` asks for them."""

    def __init__(self, *, colour: bool = False) -> None:
        self._colour = colour
        self._changes = Changes()
        self._printed = time.monotonic()

    def say(self, text: str) -> None:
        """A line, each of its own."""
        self._print(text, "")

    def show(self, snapshot: Snapshot) -> None:
        """A line for each change; after ten seconds without any line, one on how far it is."""
        for key, item in self._changes.of(snapshot):
            self._print(one_line(change_text(snapshot, key, item)), _COLOURS.get(item.standing, ""))
        if time.monotonic() - self._printed >= HEARTBEAT_S:
            self.say(heartbeat(snapshot))

    def wait(self, what: str, seconds: float) -> None:
        """After ten seconds without any line, one on how long it has been."""
        if what and time.monotonic() - self._printed >= HEARTBEAT_S:
            self.say(f"{what}: {clock(seconds)} so far")

    def close(self) -> None:
        """Nothing to end."""

    def _print(self, text: str, colour: str) -> None:
        self._printed = time.monotonic()
        before, after = (f"\x1b[{colour}m", "\x1b[0m") if self._colour and colour else ("", "")
        with contextlib.suppress(OSError, ValueError):  # whoever reads it may be gone; the log has it, too
            print(before + folded(indented(text), sys.stderr) + after, file=sys.stderr, flush=True)


def heartbeat(snapshot: Snapshot) -> str:
    """How far it is, on one line."""
    parts = [
        counts_text(snapshot),
        cost_text(snapshot),
        traffic_text(snapshot.traffic),
        time_text(snapshot),
        snapshot.trouble,
    ]
    return f"[{snapshot.done()}/{len(snapshot.items)}] {'; '.join(part for part in parts if part)}"
