"""The commands that verify and repair the files of runs and batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.answer import Answer
from parallel_orchestrator.system.terminal_text import counted

if TYPE_CHECKING:
    from parallel_orchestrator.maintenance.check import CheckReport


class MaintenanceCommands:
    """One method for each command. Its docstring is its help."""

    def check(self, directory: p.RunOrBatch) -> Answer:
        """Verify every state file of a run or batch.

        Changes nothing; the run may be active. Exit code 0: no findings, 1: findings, each with its fix and, where
        answers would have to be bought again, their price.
        """
        from parallel_orchestrator.maintenance.batch import check_all

        reports = check_all(directory)
        return _answer(reports, [report.as_text() for report in reports])

    def repair(self, directory: p.RunOrBatch) -> Answer:
        """Repair a run or batch that a bad disk or an edit damaged.

        Keeps a copy of every file that it changes. A healthy run is not changed. `check` says what a repair costs.
        """
        from parallel_orchestrator.maintenance.batch import repair_all

        steps: list[str] = []
        reports = repair_all(directory, steps.append)
        lines = steps + [report.as_text() for report in reports if report.findings]
        return _answer(reports, lines, "left", done=steps)


def _answer(reports: Sequence[CheckReport], lines: Sequence[str], still: str = "", **more: Any) -> Answer:
    """Returns the report on a run; for a batch, the report on its own files with those on its runs in it."""
    first, *runs = reports
    result = first.as_json() | more
    if runs:
        result["runs"] = [report.as_json() for report in runs]
    count = sum(len(report.findings) for report in reports)
    return Answer("\n".join(lines), result, int(bool(count)), f"{counted(count, 'finding')} {still}".rstrip())
