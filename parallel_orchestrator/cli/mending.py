"""Commands for a run whose files a bad disk or an edit has spoilt."""

from __future__ import annotations

from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.answer import Answer


class Mending:
    """One method a command; its docstring is its help."""

    def check(self, directory: p.Directory) -> Answer:
        """Look whether a run's files are whole and fit each other.

        Changes nothing; the run may be going on. Exit code 0: nothing is wrong; 1: something is, each with its fix.
        """
        from parallel_orchestrator.upkeep.check import check

        report = check(directory)
        return Answer(
            report.as_text(), report.as_json(), int(bool(report.findings)), f"{len(report.findings)} findings"
        )

    def repair(self, directory: p.Directory) -> Answer:
        """Mend what a bad disk or an edit did to a run's files.

        What it replaces is kept as a backup. A healthy run is left as it is.
        """
        from parallel_orchestrator.upkeep.repair import repair

        told: list[str] = []
        report = repair(directory, told.append)
        text = "\n".join([*told, *([report.as_text()] if report.findings else [])])
        result = {**report.as_json(), "done": told}
        return Answer(text, result, int(bool(report.findings)), f"{len(report.findings)} findings are left")
