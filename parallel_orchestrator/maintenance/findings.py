"""The result of a check: its findings, as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from parallel_orchestrator.system.terminal_text import counted, one_line

VERSION = 1


@dataclass(frozen=True)
class Finding:
    """One fault in a run directory, and how to fix it."""

    file: str
    """Relative to the run directory."""
    what: str
    fix: str

    def __str__(self) -> str:
        return one_line(f"{self.file}: {self.what}. Fix: {self.fix}")


@dataclass
class CheckReport:
    """Everything found in one run directory."""

    directory: Path
    state: str = "interrupted"
    """running, finished, interrupted or planned; for a batch's own files: running or `a batch`."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    """Not faults: what the next `resume` finishes by itself, what is being written now, what the ledger lost."""

    def concerns(self, file: str) -> bool:
        """Returns whether a finding is about that file."""
        return any(finding.file == file for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Returns the report as one JSON document."""
        return {
            "version": VERSION,
            "directory": str(self.directory),
            "state": self.state,
            "clean": not self.findings,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": [asdict(note) for note in self.notes],
        }

    def as_text(self) -> str:
        """Returns the report for a person, one line for each finding and note."""
        lines = [str(finding) for finding in self.findings]
        lines += [f"note: {note.file}: {one_line(note.what)}" for note in self.notes]
        count = len(self.findings)
        end = "clean" if not count else counted(count, "finding")
        return "\n".join([*lines, f"{self.directory} ({self.state}): {end}"])
