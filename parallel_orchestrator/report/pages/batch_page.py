"""What became of a batch, for people: a table on the terminal, batch_summary.md."""

from __future__ import annotations

from collections.abc import Sequence

from parallel_orchestrator.report.facts.batch_summary import BatchSummary
from parallel_orchestrator.report.facts.spending import least_text, spent_text
from parallel_orchestrator.report.pages.wrapping import aligned
from parallel_orchestrator.system.terminal_text import one_line

_HEAD = ("scenario", "status", "tasks", "tests", "cost", "time", "speedup")


def _rows(summary: BatchSummary) -> list[tuple[str, ...]]:
    """The table's cells, a row a scenario."""
    return [
        (
            one.name if one.name == one.folder else one.folder,
            one.status,
            f"{one.completed}/{one.total_tasks}",
            f"{one.tests_passed}" + (f" ({one.tests_failed} failed)" if one.tests_failed else ""),
            least_text(one),
            f"{one.makespan_s:.1f} s",
            f"{one.speedup:.2f}" if one.speedup else "–",
        )
        for one in summary.scenarios
    ]


def batch_text(summary: BatchSummary) -> str:
    """The table as plain text, and the totals."""
    lines = aligned([_HEAD, *_rows(summary)])
    lines += [f"{one.name}: {one.why}" for one in summary.scenarios if one.why]
    return "\n".join(map(one_line, [*lines, totals(summary)]))


def totals(summary: BatchSummary) -> str:
    """The batch in one line."""
    return (
        f"{summary.done} of {summary.scenarios_total} scenarios done, "
        f"{summary.completed} of {summary.total_tasks} tasks merged, {spent_text(summary)}; "
        f"this session took {summary.elapsed_s:.1f} s with {summary.executors} executors"
    )


def batch_page(summary: BatchSummary) -> str:
    """The summary as Markdown."""
    stopped = [f"Stopped: {one_line(summary.why)}.", ""] if summary.why else []
    lines = ["# Batch", "", totals(summary) + ".", "", *stopped, _cells(_HEAD), _cells(["---"] * len(_HEAD))]
    lines += [_cells(row) for row in _rows(summary)]
    whys = [f"- {one.name}: {one_line(one.why)}" for one in summary.scenarios if one.why]
    return "\n".join([*lines, *(["", *whys] if whys else [])]) + "\n"


def _cells(row: Sequence[str]) -> str:
    return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in row) + " |"
