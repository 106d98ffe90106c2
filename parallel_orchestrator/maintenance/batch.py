"""`check` and `repair` of a run, or of a batch: of the batch's own files and of every run in it.

The batch's own files prove nothing that its runs do not: a journal that is spoilt is moved aside, and the next session
begins another. What the scenarios are is in batch.json alone, which the `batch` command writes anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

from parallel_orchestrator.maintenance.check import check
from parallel_orchestrator.maintenance.findings import Finding, Report
from parallel_orchestrator.maintenance.repair import repair
from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.paths import BatchDirectory
from parallel_orchestrator.store.run_lock import RunLock, is_held
from parallel_orchestrator.system.invocation import command


def check_all(directory: Path) -> list[Report]:
    """The check of the run that lies there, or of the batch and then of each of its runs. UsageError for neither."""
    batch = BatchDirectory(directory.absolute())
    if not batch.config.exists():
        return [check(directory)]
    return [_own_files(batch, directory), *map(check, _runs(batch, directory))]


def repair_all(directory: Path, say: Callable[[str], None]) -> list[Report]:
    """Mend what can be mended, telling each step; the checks afterwards. Raises as `repair` does."""
    batch = BatchDirectory(directory.absolute())
    if not batch.config.exists():
        return [repair(directory, say)]
    _move_spoilt_journal(batch, say)
    return [_own_files(batch, directory), *(repair(run, say) for run in _runs(batch, directory))]


def _runs(batch: BatchDirectory, directory: Path) -> list[Path]:
    """As the person named the batch."""
    return [directory / path.parent.name for path in sorted(batch.root.glob("*/scenario.json"))]


def _own_files(batch: BatchDirectory, directory: Path) -> Report:
    report = Report(directory, "running" if is_held(batch.run_lock) else "a batch")
    if fault := _journal_fault(batch):
        report.findings.append(Finding(batch.journal.name, fault, command("repair", directory)))
    try:
        json.loads(batch.config.read_bytes())
    except (OSError, ValueError) as error:
        again = "start the batch again from its YAML file, with this --output-dir"
        report.findings.append(Finding(batch.config.name, f"cannot be read: {error}", again))
    return report


def _journal_fault(batch: BatchDirectory) -> str:
    try:
        Journal(batch.journal).pass_over()
    except DamagedState as error:
        return str(error).removeprefix(f"{batch.journal} ").partition(". Nothing")[0]
    return ""


def _move_spoilt_journal(batch: BatchDirectory, say: Callable[[str], None]) -> None:
    lock = RunLock.acquire(batch.run_lock, say=say)
    try:
        if _journal_fault(batch):
            kept = next(path for number in count(1) if not (path := batch.root / f"batch.jsonl.{number}").exists())
            batch.journal.rename(kept)
            say(f"batch.jsonl was damaged and is kept as {kept.name}; the next session begins another")
    finally:
        lock.release()
