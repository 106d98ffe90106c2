"""Rows of cells as lines with aligned columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from parallel_orchestrator.system.terminal_text import one_line

if TYPE_CHECKING:
    from rich.table import Table

_UNLIMITED = 100_000


def aligned(rows: Iterable[Sequence[str]], width: int = 0, *, right: Sequence[int] = ()) -> list[str]:
    """Return the rows as lines. Where `width` is too small, the last column is cut.

    `right`: columns whose cells stand at their right edge.
    """
    # `--help` and `status --json` print no table, and rich takes longer to import than they last.
    import rich.table  # and with it rich.console and rich.text

    text = rich.text.Text
    cells = [[text(one_line(cell), no_wrap=True, overflow="ellipsis") for cell in row] for row in rows]
    table: Table = rich.table.Table.grid(padding=(0, 2, 0, 0))
    for column in range(len(cells[0])):
        is_last = column == len(cells[0]) - 1
        table.add_column(no_wrap=not is_last, justify="right" if column in right else "left")
    for row in cells:
        table.add_row(*row)
    console = rich.console.Console(width=width or _UNLIMITED, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]
