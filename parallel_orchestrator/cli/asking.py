"""Questions to the person, where there is a terminal to ask on."""

from __future__ import annotations

import sys
from collections.abc import Callable

from parallel_orchestrator.report.pages.wrapping import folded
from parallel_orchestrator.system.terminal_text import indented


def on_terminal() -> Callable[[str], bool] | None:
    """Asks a question and returns whether the answer is yes; None where standard input or error is not a terminal."""
    return _ask if sys.stdin and sys.stdin.isatty() and sys.stderr.isatty() else None


def _ask(question: str) -> bool:
    """Whether the person answers yes; anything else, the end of the input included, is a no."""
    print(folded(indented(f"{question} [y/N]"), sys.stderr), end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
