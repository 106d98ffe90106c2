"""What the trunk receives and returns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.journals.red_whole import FailedCommand, RedWhole
from parallel_orchestrator.records.plan import Plan, Task

_CANNOT_START = frozenset({126, 127})
"""Exit codes of a shell: found and not executable, and not found."""
_MODULE = "no module named"
_MISSING = ("no such file or directory", "file or directory not found", "can't open file", "cannot access")
_WORD = re.compile(r"[\w.\-]+")
_PROGRAMS = frozenset(
    {"python", "python3", "bash", "sh", "pytest", "env", "cd", "test", "file", "or", "no", "such", "not", "found"}
)


@dataclass(frozen=True)
class Submission:
    """One attempt's work, offered to the trunk."""

    task: Task
    plan: Plan
    attempt: int
    claim: int
    base: str
    """The commit that the work started from or was last merged onto."""
    folder: Path
    """The workspace."""
    title: str
    ended_early: str = ""
    """Why the conversation ended before the model finished; empty when it finished."""
    planned: tuple[str, ...] = ()
    """Of a fix task: the plan's verify commands, as corrected so far."""
    own: tuple[str, ...] = ()
    """Of a fix task: the user's verify commands."""
    last: bool = False
    """Of a fix task: this is its last round. Work that made nothing worse is then accepted, even if red."""


class SubmitterClaim(Protocol):
    """The submitter's claim on its task. All but `report` are called while merge.lock is held."""

    def report(self, doing: str, within_s: float | None = None) -> None:
        """Report the present step, and within how many seconds the next report comes. May raise to stop."""

    def check(self) -> None:
        """Raise StaleClaim when the task has another claim by now. Called right before the trunk moves."""

    def record_merge_and_claim_next(self, evidence: MergeEvidence) -> None:
        """Record that the work is on the trunk, and claim the next task. Called right after the trunk moved."""


@dataclass(frozen=True)
class Merged:
    """The work is on the trunk."""

    commit: str
    evidence: MergeEvidence


@dataclass(frozen=True)
class Conflict:
    """The work and the trunk changed the same lines."""

    facts: tuple[str, ...]
    tree: str
    """The merge with conflict markers and the workspace's other files, from which the workspace continues."""
    head: str
    """The commit that it was merged onto: the base of the next submission."""


@dataclass(frozen=True)
class TestsFailed:
    """The work merges, and the merged tests do not pass because of it."""

    __test__ = False

    facts: tuple[str, ...]
    tree: str
    """The merge and the workspace's other files, from which the workspace continues."""
    head: str
    """The commit that it was merged onto: the base of the next submission."""


@dataclass(frozen=True)
class Rejected:
    """The work cannot be merged; each fact says what to change. The workspace stays unchanged."""

    facts: tuple[str, ...]
    nothing: bool = False
    """Whether the work changes none of the task's own files."""


@dataclass(frozen=True)
class MergedCommit:
    """A commit of the trunk that brought a task's work."""

    commit: str
    task: str
    attempt: int
    claim: int
    evidence: MergeEvidence = field(default_factory=MergeEvidence)


@dataclass(frozen=True)
class TestCounts:
    """Tests by how they ended. A test with an error in its set-up or clean-up counts as failed."""

    __test__ = False

    passed: int = 0
    failed: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class Coverage:
    """Lines of src/ that the tests ran."""

    covered: int
    statements: int

    @property
    def percent(self) -> float:
        """0 to 100; 100 when there is nothing to cover."""
        return 100.0 * self.covered / self.statements if self.statements else 100.0


@dataclass(frozen=True)
class VerifyResult:
    """How one of the plan's verify commands ended."""

    command: str
    code: int
    output: str
    timed_out: bool
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether it succeeded in time."""
        return self.code == 0 and not self.timed_out

    def cannot_work(self) -> bool:
        """Whether the command itself is wrong: it does not start, or names a missing file or module."""
        if self.timed_out or self.code == 0:
            return False
        if self.code in _CANNOT_START:
            return True
        named = _names(self.command)
        return any(named & _names(_complaint(line)) for line in self.output.splitlines())


def _complaint(line: str) -> str:
    """Return what a line of output reports as missing; empty when it reports nothing."""
    small = line.casefold()
    if _MODULE in small:
        return " ".join(_WORD.findall(small.partition(_MODULE)[2])[:1])
    return line if any(phrase in small for phrase in _MISSING) else ""


def _names(text: str) -> set[str]:
    """Return the names in a command or a complaint, except those that nearly every command has."""
    words = {word.strip(".").casefold() for word in _WORD.findall(text)}
    return {word for word in words if word and word not in _PROGRAMS}


@dataclass(frozen=True)
class FinalReport:
    """What was checked on a copy of the final trunk."""

    commit: str
    tests: TestCounts
    facts: tuple[str, ...]
    """Why the tests are not green; empty when they are."""
    coverage: Coverage | None
    """None when it could not be measured."""
    verify: tuple[VerifyResult, ...]
    lines: dict[str, int]
    """Non-blank lines of text under "src", "tests" and "docs"."""
    seconds: float

    @property
    def green(self) -> bool:
        """Whether the tests and every verify command passed."""
        return not self.facts and all(result.passed for result in self.verify)

    def red(self, planned: Sequence[str]) -> RedWhole:
        """Return why it is not green, for a fix task. `planned`: which of the verify commands are the plan's."""
        failed = [
            FailedCommand(
                command=result.command,
                code=result.code,
                output=result.output,
                timed_out=result.timed_out,
                correctable=result.command in planned and result.cannot_work(),
            )
            for result in self.verify
            if not result.passed
        ]
        return RedWhole.of(self.commit, self.facts, failed)

    def as_json(self) -> dict[str, Any]:
        """Return the summary's part on the final trunk."""
        tests = self.tests
        return {
            "green": self.green,
            "commit": self.commit,
            "lines_of_code": self.lines,
            "tests": {
                "total": tests.passed + tests.failed + tests.skipped,
                "passed": tests.passed,
                "failed": tests.failed,
                "skipped": tests.skipped,
                "facts": list(self.facts),
            },
            "coverage_percent": round(self.coverage.percent, 2) if self.coverage else None,
            "verify": [{"command": v.command, "code": v.code, "output": v.output[-2000:]} for v in self.verify],
        }
