"""Commands for runs and batches whose files a bad disk or an edit has spoilt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.answer import Answer
from parallel_orchestrator.system.terminal_text import counted

if TYPE_CHECKING:
    from parallel_orchestrator.maintenance.findings import Report


class Mending:
    """One method a command; its docstring is its help."""

    def check(self, directory: p.RunOrBatch) -> Answer:
        """Look whether the files of a run or batch fit each other.

        Changes nothing; the run may be going on. Exit code 0: nothing is wrong; 1: something is, each with its fix.
        """
        from parallel_orchestrator.maintenance.batch import check_all

        reports = check_all(directory)
        return _answer(reports, [report.as_text() for report in reports])

    def repair(self, directory: p.RunOrBatch) -> Answer:
        """Mend what a bad disk or an edit did to a run or batch.

        What it replaces is kept as a backup. A healthy run is left as it is.
        """
        from parallel_orchestrator.maintenance.batch import repair_all

        told: list[str] = []
        reports = repair_all(directory, told.append)
        lines = told + [report.as_text() for report in reports if report.findings]
        return _answer(reports, lines, "left", done=told)


def _answer(reports: Sequence[Report], lines: Sequence[str], still: str = "", **more: Any) -> Answer:
    """The report on a run; for a batch that on its own files, with those on its runs in it."""
    first, *runs = reports
    result = first.as_json() | more
    if runs:
        result["runs"] = [report.as_json() for report in runs]
    count = sum(len(report.findings) for report in reports)
    return Answer("\n".join(lines), result, int(bool(count)), f"{counted(count, 'finding')} {still}".rstrip())
