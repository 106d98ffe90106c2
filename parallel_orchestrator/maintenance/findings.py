"""What a check of a run directory comes to."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from parallel_orchestrator.system.terminal_text import counted, one_line

VERSION = 1


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it has to be, and what mends it."""

    file: str
    """Relative to the run directory."""
    what: str
    fix: str

    def __str__(self) -> str:
        return one_line(f"{self.file}: {self.what}. Fix: {self.fix}")


@dataclass
class Report:
    """All that was found in one run directory."""

    directory: Path
    state: str = "interrupted"
    """running, finished, interrupted or planned; of a batch's own files: running, or `a batch`."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    """What a kill leaves and the next `resume` finishes by itself; or what is being written this moment."""

    def concerns(self, file: str) -> bool:
        """Whether something was found in that file."""
        return any(finding.file == file for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The report as one document."""
        return {
            "version": VERSION,
            "directory": str(self.directory),
            "state": self.state,
            "clean": not self.findings,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": [asdict(note) for note in self.notes],
        }

    def as_text(self) -> str:
        """The report for a person: a line each."""
        lines = [str(finding) for finding in self.findings]
        lines += [f"(no fault) {note.file}: {one_line(note.what)}" for note in self.notes]
        count = len(self.findings)
        end = "clean" if not count else counted(count, "finding")
        return "\n".join([*lines, f"{self.directory} ({self.state}): {end}"])
