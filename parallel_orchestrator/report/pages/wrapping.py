"""Breaks long sentences between words where a person reads them on a terminal."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

_NARROWEST = 40
_ELSEWHERE = 120
_LABEL = re.compile(r" *(?:\w+: {2,})?")
_IN_PIECES = re.compile(r"\S {2,}|[│├└]|^\d* *\||^(?:/|cd |(?=\S*python)\S+ |parallel-orchestrator )")
"""What is not wrapped: columns, trees, lines of a file, paths, commands."""


def folded(text: str, stream: TextIO | None) -> str:
    """Return the text for that stream: on a terminal, long sentences are broken between words.

    Tables stay as they are. So do paths and commands, which a person may copy.
    """
    width = _columns(stream)
    return fold(text, width) if width else text


def fold(text: str, width: int) -> str:
    """Return the text with its long sentences broken for so many columns."""
    width = max(_NARROWEST, width)
    return "\n".join(_folded(line, width) if len(line) > width else line for line in text.split("\n"))


def aligned(rows: Iterable[Sequence[str]], width: int = 0, *, right: Sequence[int] = ()) -> list[str]:
    """Return rows as lines with aligned columns: `tables.table_lines`."""
    # rich takes longer to import than `--help` and `status --json` last, which print no table.
    from parallel_orchestrator.report.pages.tables import table_lines

    return table_lines(rows, width, right)


def output_columns() -> int:
    """Return the width of the terminal that standard output is, or one that suits files."""
    return _columns(sys.stdout) or _ELSEWHERE


def _columns(stream: TextIO | None) -> int:
    """The width of the terminal that the stream is; 0 where it is none."""
    if stream is None or not stream.isatty():
        return 0
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


def _folded(line: str, width: int) -> str:
    found = _LABEL.match(line)
    label = found[0] if found else ""
    said = line.removeprefix(label)
    if _IN_PIECES.search(said):
        return line
    indent = " " * len(label)
    return textwrap.fill(
        said, width - 1, initial_indent=label, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
