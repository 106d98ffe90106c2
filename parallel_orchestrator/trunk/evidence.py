"""What is kept about each merge, beside the objects: for the summary, and for whoever adopts it after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec import convert, structs

from parallel_orchestrator.records.journals.evidence import MergedFiles, MergedTests, MergeEvidence, PathList
from parallel_orchestrator.records.plan import Task
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.system import json_codec
from parallel_orchestrator.system.files import write_whole, write_whole_all
from parallel_orchestrator.system.terminal_text import json_text
from parallel_orchestrator.trunk.changes import rules
from parallel_orchestrator.trunk.changes.change import Change, shown
from parallel_orchestrator.trunk.changes.syntax import is_checked
from parallel_orchestrator.trunk.git.repository import Commit
from parallel_orchestrator.trunk.testing.junit import CaseEnding
from parallel_orchestrator.trunk.testing.verdict import Verdict

_LISTED = 200
"""Paths per list."""


def describe(change: Change, verdict: Verdict, task: Task) -> MergeEvidence:
    """What was checked about a change that is about to land."""
    counts = verdict.report.counts
    tested = counts.passed > 0 and (verdict.added > 0 or verdict.report.ended_in(task.files, CaseEnding.PASSED) > 0)
    return MergeEvidence(
        files=MergedFiles(_listed(change.created), _listed(change.changed), _listed(change.deleted)),
        tests=MergedTests(counts.passed, counts.failed, counts.skipped, verdict.added),
        own_coverage=verdict.coverage.as_evidence() if verdict.coverage else None,
        tested="merged and tested" if tested else "merged, not tested",
        left_out=_paths(change.left_out),
        unplanned=_paths(rules.unplanned(change, task)),
        also_changed=_paths(rules.also_changed(change, task)),
        not_checked=_paths([path for path in change.written if not is_checked(path)]),
        flaky=list(verdict.flaky),
        red_before=list(verdict.red_before),
    )


def keep_evidence(run: RunDirectory, task: str, attempt: int, evidence: MergeEvidence, junit: bytes) -> None:
    """Write it down before the trunk moves, so that a merge is never without its evidence."""
    write_whole_all(
        {
            _file(run, task, attempt, "junit.xml"): junit,
            _file(run, task, attempt, "json"): json_text(evidence.as_json()),
        }
    )


def read_evidence(run: RunDirectory, commit: Commit) -> MergeEvidence:
    """What was recorded when a commit landed; at least which commit it is."""
    path = _file(run, commit.trailers["Task"], commit.number("Attempt"), "json")
    evidence = _read(path)
    return evidence if evidence and evidence.commit == commit.id else MergeEvidence(commit=commit.id)


def rename_evidence(run: RunDirectory, old: str, new: Commit) -> None:
    """Have the evidence of a merge name the commit `new`, where it names `old`."""
    task, attempt = new.trailers.get("Task"), new.number("Attempt")
    evidence = _read(_file(run, task, attempt, "json")) if task else None
    if task and evidence and evidence.commit == old:
        restore_evidence(run, task, attempt, structs.replace(evidence, commit=new.id))


def evidence_faults(run: RunDirectory, task: str, attempt: int) -> Iterator[tuple[Path, str]]:
    """Each file of a merge's evidence that is gone or cannot be read, and what is wrong with it."""
    about = _file(run, task, attempt, "json")
    if not about.exists():
        yield about, "it is gone"
    elif not (evidence := _read(about)) or not evidence.commit:
        yield about, "it holds no evidence"
    report = _file(run, task, attempt, "junit.xml")
    if not report.exists() or not report.stat().st_size:
        yield report, "it is empty" if report.exists() else "it is gone"


def restore_evidence(run: RunDirectory, task: str, attempt: int, evidence: MergeEvidence) -> None:
    """Write down again what is recorded about a merge elsewhere."""
    write_whole(_file(run, task, attempt, "json"), json_text(evidence.as_json()))


def _read(path: Path) -> MergeEvidence | None:
    try:
        return convert(json_codec.loads(path.read_bytes()), MergeEvidence)
    except (OSError, ValueError):
        return None


def _listed(paths: list[str]) -> PathList:
    return PathList(len(paths), _paths(paths))


def _paths(paths: list[str]) -> list[str]:
    more = [f"… and {len(paths) - _LISTED} more"] if len(paths) > _LISTED else []
    return [shown(path) for path in paths[:_LISTED]] + more


def _file(run: RunDirectory, task: str, attempt: int, suffix: str) -> Path:
    return run.evidence / f"{task}.{attempt}.{suffix}"
