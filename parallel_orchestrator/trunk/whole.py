"""Judges a fix task: is the whole green with its work, and if not, is anything worse than on the trunk?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_orchestrator.records.fix import CORRECTIONS, FixTask
from parallel_orchestrator.records.journals.evidence import VerifyOutcome
from parallel_orchestrator.records.journals.red_whole import Correction, corrected, how_it_failed
from parallel_orchestrator.trunk.changes.folder import read_plain
from parallel_orchestrator.trunk.results import Submission, VerifyResult
from parallel_orchestrator.trunk.testing.junit import CaseEnding
from parallel_orchestrator.trunk.testing.testbench import PytestReport, TestBench
from parallel_orchestrator.trunk.testing.verdict import MergeAttempt, Verdict

_LARGEST = 100_000
_MOST_LOST = 20
_TAIL = 4_000
_LOST = "{test} passed on the trunk and does not run now. Put it back: no passing test may get lost."
_REMOVED = "{test} fails on the trunk and does not run now. Correct it; it may not be removed or skipped."
_FORM = (
    f"{CORRECTIONS} must be a JSON list of objects with the texts `command`, `replacement` and `reason`, none of "
    "them empty. Write it again, or remove it."
)


@dataclass(frozen=True)
class WholeVerdict:
    """A verdict on a merged tree as the whole, and more evidence for it."""

    verdict: Verdict
    corrections: tuple[Correction, ...]
    verify: tuple[VerifyOutcome, ...]
    whole: str
    """`green` or `red`."""


def read_corrections(folder: Path, fix: str) -> tuple[list[Correction], str]:
    """Return the corrections in a fix task's workspace, and what is wrong with their file (empty: nothing)."""
    content = read_plain(folder / CORRECTIONS, _LARGEST)
    if content is None:
        return [], f"{CORRECTIONS} is not a plain file of at most {_LARGEST} bytes." if _is_there(folder) else ""
    try:
        read: Any = json.loads(content)
        entries = [read] if isinstance(read, dict) else list(read)
        return [_correction(entry, fix) for entry in entries], ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return [], _FORM


def _is_there(folder: Path) -> bool:
    return (folder / CORRECTIONS).is_symlink() or (folder / CORRECTIONS).exists()


def _correction(entry: Any, fix: str) -> Correction:
    command, replacement, reason = (_text(entry[name]) for name in ("command", "replacement", "reason"))
    return Correction(command, replacement, reason, fix)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("no text")
    return value.strip()


def refused_corrections(corrections: Sequence[Correction], submission: Submission, bench: TestBench) -> list[str]:
    """Return why corrections are refused, a sentence for each."""
    return [fact for correction in corrections if (fact := _refused(correction, submission, bench))]


def _refused(correction: Correction, submission: Submission, bench: TestBench) -> str:
    task = submission.task
    failed = task.red.verify if isinstance(task, FixTask) else []
    allowed = [command.command for command in failed if command.correctable]
    begin = f"{CORRECTIONS}: `{correction.command}` cannot be corrected: "
    if correction.command in submission.own and correction.command not in submission.planned:
        return f"{begin}it is the command of the person who asked for the project. Have the project meet it."
    if correction.command not in allowed:
        listed = "; ".join(f"`{command}`" for command in allowed) or "none"
        return f"{begin}only a command of the plan that cannot work may be. Here these are: {listed}."
    if all(result.passed for result in bench.verify({}, [correction.replacement])):
        return (
            f"{CORRECTIONS}: `{correction.replacement}` also passes where there is no project, so it proves nothing. "
            "Write a replacement that proves what the command was meant to prove."
        )
    return ""


def whole_verdict(
    attempt: MergeAttempt, submission: Submission, corrections: Sequence[Correction], *, changed: bool
) -> WholeVerdict:
    """Judge a fix task's merged tree; the facts say why it is refused. `changed`: it differs from the trunk's tree."""
    # Under merge.lock, so the trunk cannot change between the two runs that are compared.
    before = attempt.bench.test(attempt.trunk) if changed else attempt.first
    report, flaky = attempt.first, frozenset[str]()
    if report.why_red() or _lost(report, before):
        report = attempt.bench.test(attempt.tree)
        flaky = attempt.first.red - report.red
    commands = [*corrected(submission.planned, corrections), *submission.own]
    results = attempt.bench.verify(attempt.tree, commands)
    worse = [*_lost(report, before), *_newly_failed(results, submission.task, corrections)]
    left = [*report.why_red(), *(_fact(result) for result in results if not result.passed)]
    idle = not changed and not corrections
    facts = _facts(worse, left, idle=idle, taken_red=submission.last and not idle)
    added = report.counts.passed - before.counts.passed
    verdict = Verdict(report, tuple(facts), added, tuple(sorted(flaky)), tuple(sorted(report.red & before.red)))
    proven = [VerifyOutcome(result.command, result.code) for result in results]
    return WholeVerdict(verdict, tuple(corrections), tuple(proven), "red" if left else "green")


def _facts(worse: list[str], left: list[str], *, idle: bool, taken_red: bool) -> list[str]:
    """Return why a tree is refused; empty when it is accepted."""
    if not worse and (not left or taken_red):
        return []
    nothing = ["Nothing was changed: no file differs from the trunk, and no command was corrected."] if idle else []
    return list(dict.fromkeys([*nothing, *worse, *left]))


def _lost(report: PytestReport, before: PytestReport) -> list[str]:
    """Return the trunk's tests that are lost: they passed and do not now, or they failed and are gone."""
    passed, passed_before = _ids(report, CaseEnding.PASSED), _ids(before, CaseEnding.PASSED)
    gone = (test for test in before.red if "::" in test and test not in passed | report.red)
    facts = [
        *(_LOST.format(test=test) for test in sorted(passed_before - passed - report.red)),
        *(_REMOVED.format(test=test) for test in sorted(gone)),
        *(f"{test} passed on the trunk and fails now." for test in sorted(passed_before & report.red)),
    ]
    more = len(facts) - _MOST_LOST
    return [*facts[:_MOST_LOST], f"… and {more} more."] if more > 0 else facts


def _ids(report: PytestReport, ending: CaseEnding) -> frozenset[str]:
    return frozenset(case.id for case in report.cases if case.ending is ending)


def _newly_failed(results: Sequence[VerifyResult], task: object, corrections: Sequence[Correction]) -> list[str]:
    """Return the commands that fail now and did not before."""
    red = {failed.command for failed in task.red.verify} if isinstance(task, FixTask) else set()
    known = red | {correction.replacement for correction in corrections}
    failed = [result.command for result in results if not result.passed and result.command not in known]
    return [f"`{command}` passed on the trunk and fails now." for command in failed]


def _fact(result: VerifyResult) -> str:
    end = result.output[-_TAIL:].strip()
    return f"`{result.command}` {how_it_failed(result.code, result.timed_out)}. The end of its output:\n{end}"
