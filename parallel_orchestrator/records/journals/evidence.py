"""What code has checked about a merge: kept beside the objects, in the queue, and in the summary."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType, to_builtins

from parallel_orchestrator.records.journals.red_whole import Correction


class PathList(Struct):
    """How many paths there are, and the first of them."""

    count: int
    paths: list[str]


class MergedFiles(Struct):
    """The files that a merge touched."""

    created: PathList
    changed: PathList
    deleted: PathList


class MergedTests(Struct):
    """Tests of the merged tree by how they ended. `added`: how many more passed than before."""

    passed: int
    failed: int
    skipped: int
    added: int


class LinesRun(Struct):
    """How much of a file the task's own tests ran."""

    lines: int
    """Statements that importing the file does not run."""
    run: int


class OwnCoverageFound(Struct):
    """What the task's own tests ran of its source files, by path."""

    files: dict[str, LinesRun]
    doubt: str
    """Why they may run more; empty when they do not."""


class VerifyOutcome(Struct):
    """How a verify command ended."""

    command: str
    code: int


class MergeEvidence(Struct, omit_defaults=True, kw_only=True):
    """The evidence of one merge. Of one whose evidence was lost, the commit alone is known."""

    commit: str = ""
    files: MergedFiles | None = None
    tests: MergedTests | None = None
    own_coverage: OwnCoverageFound | UnsetType | None = UNSET
    """None: the task owns no source. Earlier versions did not measure it."""
    tested: str = ""
    left_out: list[str] | None = None
    unplanned: list[str] | None = None
    also_changed: list[str] | None = None
    not_checked: list[str] | None = None
    flaky: list[str] | None = None
    red_before: list[str] | None = None
    corrections: list[Correction] | None = None
    """Of a fix task, as are the next two."""
    verify: list[VerifyOutcome] | None = None
    whole: str = ""
    """`green` or `red`."""
    seconds: float = 0.0
    ended_early: str = ""
    """Why the conversation stopped before the model said that it had finished."""

    def as_json(self) -> dict[str, Any]:
        """Returns it as JSON's own types."""
        fields: dict[str, Any] = to_builtins(self)
        return fields
