"""Whether a merged tree is at least as good as the trunk that it would replace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from parallel_orchestrator.records.plan import Task
from parallel_orchestrator.trunk.git.objects import Tree
from parallel_orchestrator.trunk.testing.junit import CaseEnding
from parallel_orchestrator.trunk.testing.proof import OwnCoverage, own_coverage, unproven
from parallel_orchestrator.trunk.testing.test_inventory import OwnFiles, new_tests
from parallel_orchestrator.trunk.testing.testbench import PytestReport, TestBench

_ONCE = (
    "failed once and passed when repeated. A test must pass every time: make it independent of time, order, chance "
    "and earlier runs"
)


@dataclass(frozen=True)
class Baseline:
    """The trunk's test results without the change."""

    passed: int
    red: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """The last run of the merged tree's tests, and what follows from it."""

    report: PytestReport
    facts: tuple[str, ...]
    """Why the tree is red; empty when it is green."""
    added: int
    """How many more tests pass than on the trunk."""
    flaky: tuple[str, ...] = ()
    """Tests that failed once and passed when repeated."""
    red_before: tuple[str, ...] = ()
    """Tests that also fail on the trunk without the change."""
    coverage: OwnCoverage | None = None
    """What the task's own tests run of its own files; None if it owns no source, or the tree is red anyway."""

    def after(self, cleared: Verdict) -> Verdict:
        """Return this verdict with what an earlier one found not to be the change's fault."""
        return replace(
            self,
            flaky=tuple(sorted({*self.flaky, *cleared.flaky})),
            red_before=tuple(sorted({*self.red_before, *cleared.red_before})),
        )


@dataclass(frozen=True)
class MergeAttempt:
    """A tree merged onto a head, its tests run once."""

    bench: TestBench
    head: str
    trunk: Tree
    """The head's tree, without the change."""
    tree: Tree
    """With it."""
    passed_before: int
    """Tests that pass on the head."""
    task: Task
    own: OwnFiles
    first: PytestReport


def quick_verdict(attempt: MergeAttempt) -> Verdict | None:
    """Return the verdict if the first run shows that nothing broke. None: `attribute_failure` has to find it."""
    known = Baseline(attempt.passed_before)
    return None if regressions(attempt.first, known) else _verdict(attempt, attempt.first, known)


def attribute_failure(attempt: MergeAttempt) -> Verdict:
    """Find whether the change broke the tests: repeat the run, then run the head without the change."""
    verdict = quick_verdict(attempt)
    if verdict:
        return verdict
    known = Baseline(attempt.passed_before)
    # Three runs at most: the merged tree (done), the merged tree again, the trunk without the change. What fails both
    # times and not on the trunk is the change's fault.
    again = attempt.bench.test(attempt.tree, attempt.own)
    unsteady = _unsteady(attempt, again)
    # It failed once and passes now: accepted, unless the tests that failed are the task's own new ones.
    if not regressions(again, known):
        return _verdict(attempt, again, known, flaky=attempt.first.red, unsteady=unsteady)
    without = attempt.bench.test(attempt.trunk)
    measured = Baseline(without.counts.passed, without.red)
    return _verdict(attempt, again, measured, red_before=again.red & without.red, unsteady=unsteady)


def _unsteady(attempt: MergeAttempt, again: PytestReport) -> list[str]:
    """Return facts on the task's new tests that failed in the first run and passed in the second.

    Empty when another test failed only once, too: that one can have made them fail.
    """
    once = attempt.first.red - again.red
    brought = new_tests(once, attempt.own, attempt.bench.objects, attempt.trunk, attempt.tree)
    return attempt.first.messages(known=attempt.first.red - brought, how=_ONCE) if brought == once else []


def regressions(report: PytestReport, baseline: Baseline) -> list[str]:
    """Return what is worse than the baseline; empty when nothing is."""
    if report.red - baseline.red:
        return report.messages(known=baseline.red)
    passed = report.counts.passed
    if passed < baseline.passed:
        return [f"Passing tests with your work: {passed}; without it: {baseline.passed}. No passing test may be lost."]
    return []


def missing_proof(report: PytestReport, baseline: Baseline, task: Task) -> list[str]:
    """Return which tests a task that breaks nothing still owes; empty when it owes none."""
    counts = report.counts
    if counts.skipped and not counts.passed:
        return [f"All tests are skipped ({counts.skipped}), so they prove nothing. Make them run."]
    if task.owns_source() and counts.passed <= baseline.passed and not report.ended_in(task.files, CaseEnding.PASSED):
        if skipped := report.ended_in(task.files, CaseEnding.SKIPPED):
            return [f"All tests of your task are skipped ({skipped}), so they prove nothing. Make them run."]
        return ["No passing test was added. Under tests/, add a test of your code that passes."]
    return []


def _verdict(
    attempt: MergeAttempt,
    report: PytestReport,
    baseline: Baseline,
    *,
    flaky: frozenset[str] = frozenset(),
    red_before: frozenset[str] = frozenset(),
    unsteady: Sequence[str] = (),
) -> Verdict:
    facts = [*regressions(report, baseline), *unsteady] or missing_proof(report, baseline, attempt.task)
    coverage = None
    if attempt.task.owns_source() and not facts:
        coverage = own_coverage(report.ran, attempt.own, attempt.bench.objects, attempt.tree)
        facts = unproven(coverage)
    added = report.counts.passed - baseline.passed
    return Verdict(report, tuple(facts), added, tuple(sorted(flaky)), tuple(sorted(red_before)), coverage)
