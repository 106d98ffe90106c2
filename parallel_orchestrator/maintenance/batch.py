"""`check` and `repair` of a run, or of a batch: of the batch's own files and of each of its runs.

The batch's journal proves nothing that its runs do not prove: a damaged one is moved aside, and the next session starts
a new one. Only batch.json holds the list of scenarios; the `batch` command writes it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

from parallel_orchestrator.maintenance.check import CheckReport, Finding, check
from parallel_orchestrator.maintenance.repair import repair
from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.paths import BatchDirectory
from parallel_orchestrator.store.record_parser import BATCH
from parallel_orchestrator.store.run_lock import RunLock, is_held
from parallel_orchestrator.system.invocation import command


def check_all(directory: Path) -> list[CheckReport]:
    """Check the run in `directory`, or the batch and then each of its runs. UsageError when it holds neither."""
    batch = BatchDirectory(directory.absolute())
    if not batch.config.exists():
        return [check(directory)]
    return [_own_files(batch, directory), *map(check, _runs(batch, directory))]


def repair_all(directory: Path, say: Callable[[str], None]) -> list[CheckReport]:
    """Repair what can be repaired, say each step, and return the checks made afterwards. Raises as `repair` does."""
    batch = BatchDirectory(directory.absolute())
    if not batch.config.exists():
        return [repair(directory, say)]
    _move_damaged_journal(batch, say)
    return [_own_files(batch, directory), *(repair(run, say) for run in _runs(batch, directory))]


def _runs(batch: BatchDirectory, directory: Path) -> list[Path]:
    """Returns the runs' folders, relative in the way that the batch was named."""
    return [directory / path.parent.name for path in sorted(batch.root.glob("*/scenario.json"))]


def _own_files(batch: BatchDirectory, directory: Path) -> CheckReport:
    report = CheckReport(directory, "running" if is_held(batch.run_lock) else "a batch")
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
        Journal(batch.journal, BATCH).pass_over()
    except DamagedState as error:
        return str(error).removeprefix(f"{batch.journal} ").partition(". Nothing")[0]
    return ""


def _move_damaged_journal(batch: BatchDirectory, say: Callable[[str], None]) -> None:
    lock = RunLock.acquire(batch.run_lock, say=say)
    try:
        if _journal_fault(batch):
            kept = next(path for number in count(1) if not (path := batch.root / f"batch.jsonl.{number}").exists())
            batch.journal.rename(kept)
            say(f"batch.jsonl was damaged and is kept as {kept.name}; the next session starts a new one")
    finally:
        lock.release()
