"""Rows of cells as lines with aligned columns, by rich. `wrapping.aligned` imports this module when it is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parallel_orchestrator.system.terminal_text import one_line

_UNLIMITED = 100_000


def table_lines(rows: Iterable[Sequence[str]], width: int, right: Sequence[int]) -> list[str]:
    """Return the rows as lines. Where `width` is too small, the last column is cut; 0 means no limit.

    `right`: columns whose cells stand at their right edge.
    """
    cells = [[Text(one_line(cell), no_wrap=True, overflow="ellipsis") for cell in row] for row in rows]
    table = Table.grid(padding=(0, 2, 0, 0))
    for column in range(len(cells[0])):
        is_last = column == len(cells[0]) - 1
        table.add_column(no_wrap=not is_last, justify="right" if column in right else "left")
    for row in cells:
        table.add_row(*row)
    console = Console(width=width or _UNLIMITED, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]
