"""check, repair, export and doctor: the files of runs and batches, and what a run needs of the machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from parallel_orchestrator.cli import parameters as p
from parallel_orchestrator.cli.output import CliResult
from parallel_orchestrator.config.credentials import credential_from, endpoint_from, holds_key, is_anthropics
from parallel_orchestrator.maintenance import doctor as checks_of
from parallel_orchestrator.maintenance.batch import check_all, repair_all
from parallel_orchestrator.maintenance.check import CheckReport
from parallel_orchestrator.maintenance.doctor import DoctorCheck
from parallel_orchestrator.maintenance.export import export_recording
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.records.scenario import DEFAULT_MODEL
from parallel_orchestrator.system.terminal_text import counted


def check(directory: p.RunOrBatch) -> CliResult:
    """Verify every state file of a run or batch.

    Changes nothing; the run may be active. Exit code 0: no findings, 1: findings, each with its fix and, where
    answers would have to be bought again, their price.
    """
    reports = check_all(directory)
    return _result(reports, [report.as_text() for report in reports])


def repair(directory: p.RunOrBatch) -> CliResult:
    """Repair a run or batch that a bad disk or an edit damaged.

    Keeps a copy of every file that it changes. A healthy run is not changed. `check` says what a repair costs.
    """
    steps: list[str] = []
    reports = repair_all(directory, steps.append)
    lines = steps + [report.as_text() for report in reports if report.findings]
    return _result(reports, lines, "left", done=steps)


def export(
    directory: p.Directory,
    recording: Annotated[Path, typer.Option(help="The file to write.")],
) -> CliResult:
    """Write a run's model answers as a recording.

    --replay plays them again, without a key.
    """
    count = export_recording(directory, recording)
    return CliResult(
        f"{counted(count, 'answer')} written to {recording}", {"answers": count, "recording": str(recording)}
    )


def doctor(
    *,
    model: p.Model = None,
    output_dir: Annotated[Path, typer.Option(help="Where runs are to lie.")] = Path("outputs"),
    prices: p.Prices = None,
) -> CliResult:
    """Look whether all is there that a run needs.

    Each fault comes with its fix. Asks no model and costs nothing. Exit code 0, or 2 when something is missing.
    """
    checks = [checks_of.python(), checks_of.git_program(), checks_of.sandbox(), checks_of.claude_code()]
    try:
        checks.append(checks_of.key(_paying()))
    except UsageError as error:
        checks.append(DoctorCheck("key", "fault", str(error), "set it again, or unset it; recordings need none"))
    try:
        checks.append(checks_of.endpoint(endpoint_from(os.environ)))
    except UsageError as error:
        checks.append(DoctorCheck("endpoint", "fault", str(error), "set ANTHROPIC_BASE_URL again, or unset it"))
    checks += [checks_of.price(model or DEFAULT_MODEL, prices)]
    checks += [checks_of.disk(output_dir), checks_of.locks(output_dir), checks_of.terminal(os.environ)]
    faults = [check.name for check in checks if check.level == "fault"]
    result = {"checks": [asdict(check) for check in checks]}
    return CliResult(checks_of.page(checks), result, 2 if faults else 0, f"not as needed: {', '.join(faults)}")


def _paying() -> str | None:
    """Returns who would pay for a run; None where no credential is found. Raises UsageError."""
    if not holds_key(os.environ) and is_anthropics(endpoint_from(os.environ)):
        return None
    credential = credential_from(os.environ)
    return f"{credential.describe()} would pay" if credential else "none is set: the endpoint is asked without one"


def _result(reports: Sequence[CheckReport], lines: Sequence[str], still: str = "", **more: Any) -> CliResult:
    """Returns the report on a run; for a batch, the report on its own files with those on its runs in it."""
    first, *runs = reports
    result = first.as_json() | more
    if runs:
        result["runs"] = [report.as_json() for report in runs]
    count = sum(len(report.findings) for report in reports)
    return CliResult("\n".join(lines), result, int(bool(count)), f"{counted(count, 'finding')} {still}".rstrip())
