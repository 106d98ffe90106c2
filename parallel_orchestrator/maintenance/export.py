"""`export`: a run's answers as a recording, for a demonstration, a test or a bug report."""

from __future__ import annotations

from pathlib import Path

from parallel_orchestrator.gateway.endpoints.recording import dump, from_ledger
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.run_directory import require_scenario
from parallel_orchestrator.system.files import write_whole


def export_recording(directory: Path, file: Path) -> int:
    """Write a run's answers as a recording. Returns how many there are.

    Raises UsageError when the directory holds no run, when the file exists, or when its folder does not.
    """
    run = RunDirectory(directory.absolute())
    if not file.absolute().parent.is_dir():
        raise UsageError(f"cannot write {file}: there is no folder {file.parent}; make it first")
    if file.exists():
        raise UsageError(f"{file} is there already; remove it, or name another file")
    recording = from_ledger(run.ledger, require_scenario(run).requirements, file.stem)
    write_whole(file, dump(recording, "The answers of a run, exported from its ledger."))
    return len(recording.answers)
