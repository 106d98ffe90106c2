"""The merge queue: how a task's work gets onto the trunk.

    submit
    ├─ collect      what the workspace changed, and whether it may      -> Rejected
    ├─ under merge.lock:
    │  ├─ _adopt    the work is on the trunk already, but not recorded  -> Merged
    │  ├─ merge     onto the head                                       -> Conflict
    │  ├─ test      the merged tree
    │  └─ _land     when nothing broke                                  -> Merged
    │     ├─ hold.check    the claim still stands; else StaleClaim, and the trunk does not move
    │     ├─ keep_evidence
    │     ├─ move          the trunk
    │     ├─ hold.merged   the queue's record, and the worker's next claim
    │     └─ check_out     the files in the output directory
    └─ without it, when something broke:
       └─ attribute_failure  is this change to blame?                   -> TestsFailed
          └─ if not, all of it once more, judged under merge.lock

A test result holds for one head only, so submissions land one after the other however they are tested. Testing under
the lock runs each tree's tests once. Testing before it would repeat most of them, whenever a peer lands first.
Attributing a failure takes more runs and happens outside.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from parallel_orchestrator.records.fix import FixTask
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.trunk.changes import rules
from parallel_orchestrator.trunk.changes.change import Change, collect
from parallel_orchestrator.trunk.changes.merge import merge
from parallel_orchestrator.trunk.evidence import describe, keep_evidence, read_evidence
from parallel_orchestrator.trunk.git.edits import check_out
from parallel_orchestrator.trunk.git.objects import Tree
from parallel_orchestrator.trunk.git.repository import Repository, commit_subject
from parallel_orchestrator.trunk.results import (
    Conflict,
    Merged,
    Rejected,
    Submission,
    SubmitterClaim,
    TestsFailed,
)
from parallel_orchestrator.trunk.testing.test_inventory import own_files
from parallel_orchestrator.trunk.testing.testbench import TestBench
from parallel_orchestrator.trunk.testing.verdict import MergeAttempt, Verdict, attribute_failure, quick_verdict
from parallel_orchestrator.trunk.whole import WholeVerdict, read_corrections, refused_corrections, whole_verdict

logger = logging.getLogger(__name__)

SubmitResult = Merged | Conflict | TestsFailed | Rejected

_LONGEST_IN_TESTS = 4
"""Time limits of tests in one turn: the merged tests, their repetition, the trunk's own, and one for git and disk."""


@dataclass(frozen=True)
class _Green:
    """A change merged onto `head`, whose tests passed."""

    change: Change
    head: str
    tree: Tree
    verdict: Verdict
    whole: WholeVerdict | None = None
    """Of a fix task."""


@dataclass(frozen=True)
class MergeQueue:
    """Takes submissions from any number of processes at once."""

    run: RunDirectory
    repository: Repository
    bench: TestBench

    def submit(self, submission: Submission, claim: SubmitterClaim) -> SubmitResult:
        """Bring a submission onto the trunk, or return why not. On StaleClaim the trunk has not moved."""
        started = time.monotonic()
        change = collect(self.repository, submission, rules.LARGEST_FILE)
        faults = rules.broken_rules(change, submission.task, submission.plan)
        if isinstance(submission.task, FixTask):
            return Rejected(faults) if faults else self._submit_fix(submission, claim, change, started)
        nothing = not rules.has_work(change, submission.task)
        if faults or (nothing and submission.ended_early):
            return Rejected(faults, nothing)
        cleared = None
        for last_try in (False, True):
            with self._turn(claim):
                # Only under the lock is the head final: a git that a killed submitter started holds the lock's
                # descriptor, so that submitter's move has happened or never will.
                if not last_try and (adopted := self._adopt(submission, claim)):
                    return adopted
                attempt = self._merge_and_test(change, submission)
                if isinstance(attempt, Conflict):
                    return attempt
                verdict = attribute_failure(attempt) if last_try else quick_verdict(attempt)
                if verdict and not verdict.facts:
                    accepted = verdict.after(cleared) if cleared else verdict
                    return self._land(submission, claim, _Green(change, attempt.head, attempt.tree, accepted), started)
            # Without the lock, peers land meanwhile. So a change that is not to blame is merged onto the new head and
            # tested again, and that verdict is found under the lock.
            verdict = verdict or attribute_failure(attempt)
            if verdict.facts:
                return self._tests_failed(verdict, change, attempt)
            cleared = verdict
            logger.info("%s: what failed is not its doing; merging again", submission.task.id)
        raise AssertionError("the last verdict is either red or has landed")

    def _submit_fix(
        self, submission: Submission, claim: SubmitterClaim, change: Change, started: float
    ) -> SubmitResult:
        """Submit a fix task. All tests and verify commands judge its merged tree as the whole."""
        commands = len(submission.planned) + len(submission.own)
        claim.report("checking corrections", _LONGEST_IN_TESTS * (1 + commands) * self.bench.timeout_s)
        corrections, fault = read_corrections(submission.folder, submission.task.id)
        if facts := [fault] if fault else refused_corrections(corrections, submission, self.bench):
            return Rejected(tuple(facts))
        with self._turn(claim, commands):
            if adopted := self._adopt(submission, claim):
                return adopted
            attempt = self._merge_and_test(change, submission)
            if isinstance(attempt, Conflict):
                return attempt
            whole = whole_verdict(attempt, submission, corrections, changed=attempt.tree != attempt.trunk)
            if not whole.verdict.facts:
                green = _Green(change, attempt.head, attempt.tree, whole.verdict, whole)
                return self._land(submission, claim, green, started)
        return self._tests_failed(whole.verdict, change, attempt)

    def _tests_failed(self, verdict: Verdict, change: Change, attempt: MergeAttempt) -> TestsFailed:
        return TestsFailed(verdict.facts, self._workspace(change, attempt.tree), attempt.head)

    @contextmanager
    def _turn(self, claim: SubmitterClaim, commands: int = 0) -> Iterator[None]:
        """Hold merge.lock for the tests and `commands` commands. The wait has no time limit; its holder has one."""
        claim.report("waiting to merge")
        with self.repository.alone():
            claim.report("testing and merging", (_LONGEST_IN_TESTS + commands) * self.bench.timeout_s)
            yield

    def _adopt(self, submission: Submission, claim: SubmitterClaim) -> Merged | None:
        """Record a merge whose submitter was killed after it moved the trunk and before it recorded that."""
        wanted = {"Task": submission.task.id, "Attempt": str(submission.attempt)}
        since = self.repository.log(self.repository.head(), since=submission.base)
        landed = next((commit for commit in since if wanted.items() <= commit.trailers.items()), None)
        if landed is None:
            return None
        evidence = read_evidence(self.run, landed)
        claim.check()
        claim.record_merge_and_claim_next(evidence)
        check_out(self.repository)
        return Merged(landed.id, evidence)

    def _merge_and_test(self, change: Change, submission: Submission) -> Conflict | MergeAttempt:
        """Merge onto the head as it is now, and run the tests of the result once."""
        # Under merge.lock: no peer moves the head between this line and `_land`.
        head = self.repository.head()
        merged = merge(self.repository, change.tree, submission.base, head)
        collisions = rules.case_collisions(merged.tree)
        conflicts = merged.conflicts or tuple(rules.collision_fact(first, second) for first, second in collisions)
        if conflicts:
            return Conflict(conflicts, self._workspace(change, merged.tree), head)
        passed_before = self.repository.about(head).number("Tests-Passed")
        trunk = self.repository.tree(head)
        own = own_files(submission.task, trunk, merged.tree)
        with ThreadPoolExecutor(1) as background:
            stored = background.submit(self._store, change, merged.tree)
            report = self.bench.test(merged.tree, own if submission.task.owns_source() else None)
            stored.result()
        return MergeAttempt(self.bench, head, trunk, merged.tree, passed_before, submission.task, own, report)

    def _store(self, change: Change, merged: Tree) -> None:
        """Sync the objects that the trunk would refer to. While the tests run, the disk is idle."""
        self.repository.objects.sync(change.project[path].id for path in change.written)
        self.repository.objects.write_tree(merged, durable=True)

    def _land(self, submission: Submission, claim: SubmitterClaim, green: _Green, started: float) -> Merged:
        """Move the trunk. Under merge.lock the head is still the one that was merged onto.

        The order survives a kill at any line: objects, evidence, trunk, queue, checkout. Each step only refers to what
        the steps before it stored, and the next owner of the lock repeats what is missing (`_adopt`, `check_out`).
        """
        task, attempt, verdict = submission.task, submission.attempt, green.verdict
        tree = self.repository.objects.write_tree(green.tree)
        trailers = {
            "Task": task.id,
            "Attempt": attempt,
            "Claim": submission.claim,
            "Tests-Passed": verdict.report.counts.passed,
        }
        subject = f"{task.id}: {commit_subject(submission.title)}"
        commit = self.repository.commit(tree, green.head, subject, trailers)
        seconds = round(time.monotonic() - started, 3)
        evidence = describe(green.change, verdict, task)
        evidence.commit, evidence.seconds, evidence.ended_early = commit, seconds, submission.ended_early
        if (whole := green.whole) is not None:
            evidence.corrections, evidence.verify = list(whole.corrections), list(whole.verify)
            evidence.whole = whole.whole
        # As late as possible before the move. If a peer has the task by now, this raises, and the trunk does not move.
        # A peer that takes the task over later waits for merge.lock, and adopts this commit instead of merging again.
        claim.check()
        with ThreadPoolExecutor(1) as background:
            stored = background.submit(self.repository.objects.sync, [commit])
            keep_evidence(self.run, task.id, attempt, evidence, verdict.report.junit)
            stored.result()
        self.repository.move(green.head, commit)
        # From here on a kill loses nothing: the commit names task and attempt, and `_adopt` finds it. The worker claims
        # its next task here, before the checkout: the queue's lock is held for the record anyway, and no peer waits.
        claim.record_merge_and_claim_next(evidence)
        check_out(self.repository, green.head)
        return Merged(commit, evidence)

    def _workspace(self, change: Change, merged: Tree) -> str:
        """Store the merge together with the workspace's scratch files, from which the conversation continues."""
        return self.repository.objects.write_tree(change.others | merged)
