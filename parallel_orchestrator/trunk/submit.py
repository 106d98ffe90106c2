"""The merge queue: how a task's work gets onto the trunk.

    submit
    ├─ collect      what the workspace changed, and whether it may      -> Rejected
    ├─ under merge.lock:
    │  ├─ adopt     the work is on the trunk already, only the note of it was lost
    │  ├─ merge     onto the head                                       -> Conflict
    │  ├─ test      the merged tree
    │  └─ land      when nothing broke                                  -> Merged
    └─ without it, when something broke:
       └─ attribute_failure  is this change to blame?                   -> TestsFailed
          └─ if not, all of it once more, judged under merge.lock

A test result holds for one head only, so submissions land one after the other however
they are tested. Testing under the lock runs each tree's tests once; testing ahead of it
would run most of them again whenever somebody else lands first. Finding out who is to
blame takes more runs and happens outside.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from parallel_orchestrator.records.fix import FixTask
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.trunk.changes import rules
from parallel_orchestrator.trunk.changes.change import Change, collect
from parallel_orchestrator.trunk.changes.merge import merge
from parallel_orchestrator.trunk.evidence import describe, keep_evidence, read_evidence
from parallel_orchestrator.trunk.git.edits import check_out
from parallel_orchestrator.trunk.git.objects import Tree
from parallel_orchestrator.trunk.git.repository import Commit, Repository, commit_subject
from parallel_orchestrator.trunk.results import Conflict, Evidence, Hold, Merged, Rejected, Submission, TestsFailed
from parallel_orchestrator.trunk.testing.test_inventory import own_files
from parallel_orchestrator.trunk.testing.testbench import TestBench
from parallel_orchestrator.trunk.testing.verdict import MergeAttempt, Verdict, attribute_failure, quick_verdict
from parallel_orchestrator.trunk.whole import judge_whole, read_corrections, refused_corrections

logger = logging.getLogger(__name__)

_LONGEST_IN_TESTS = 4
"""The merged tests, their repetition, the trunk's own; and as long again for git and disk."""


@dataclass(frozen=True)
class _Green:
    """A change merged onto `head`, whose tests passed."""

    change: Change
    head: str
    tree: Tree
    verdict: Verdict
    more: Evidence = field(default_factory=dict)


@dataclass(frozen=True)
class MergeQueue:
    """Takes submissions, one call each, from any number of processes at once."""

    run: RunDirectory
    repository: Repository
    bench: TestBench

    def submit(self, submission: Submission, hold: Hold) -> Merged | Conflict | TestsFailed | Rejected:
        """Bring a submission onto the trunk, or say why not. StaleClaim passes through, and the trunk has not moved."""
        started = time.monotonic()
        change = collect(self.repository, submission, rules.LARGEST_FILE)
        faults = rules.broken_rules(change, submission.task, submission.plan)
        if isinstance(submission.task, FixTask):
            return Rejected(faults) if faults else self._submit_fix(submission, hold, change, started)
        nothing = not rules.has_work(change, submission.task)
        if faults or (nothing and submission.ended_early):
            return Rejected(faults, nothing)
        cleared = None
        for last_try in (False, True):
            with self._turn(hold):
                # Under the lock: a git of a killed submitter has ended before anybody gets it.
                if not last_try and (adopted := self._adopt(submission, hold)):
                    return adopted
                attempt = self._merge_and_test(change, submission)
                if isinstance(attempt, Conflict):
                    return attempt
                verdict = attribute_failure(attempt) if last_try else quick_verdict(attempt)
                if verdict and not verdict.facts:
                    accepted = verdict.after(cleared) if cleared else verdict
                    return self._land(submission, hold, _Green(change, attempt.head, attempt.tree, accepted), started)
            verdict = verdict or attribute_failure(attempt)
            if verdict.facts:
                return TestsFailed(verdict.facts, self._workspace(change, attempt.tree), attempt.head)
            cleared = verdict
            logger.info("%s: what failed is not its doing; merging again", submission.task.id)
        raise AssertionError("the last verdict is either red or has landed")

    def _submit_fix(
        self, submission: Submission, hold: Hold, change: Change, started: float
    ) -> Merged | Conflict | TestsFailed | Rejected:
        """The same for a fix task, whose merged tree is judged as the whole: by all tests and verify commands."""
        commands = len(submission.planned) + len(submission.own)
        hold.report("checking corrections", _LONGEST_IN_TESTS * (1 + commands) * self.bench.timeout_s)
        corrections, fault = read_corrections(submission.folder, submission.task.id)
        if facts := [fault] if fault else refused_corrections(corrections, submission, self.bench):
            return Rejected(tuple(facts))
        with self._turn(hold, commands):
            if adopted := self._adopt(submission, hold):
                return adopted
            attempt = self._merge_and_test(change, submission)
            if isinstance(attempt, Conflict):
                return attempt
            found = judge_whole(attempt, submission, corrections, changed=attempt.tree != attempt.trunk)
            if not found.verdict.facts:
                green = _Green(change, attempt.head, attempt.tree, found.verdict, found.evidence)
                return self._land(submission, hold, green, started)
        return TestsFailed(found.verdict.facts, self._workspace(change, attempt.tree), attempt.head)

    @contextmanager
    def _turn(self, hold: Hold, commands: int = 0) -> Iterator[None]:
        """Hold merge.lock to run the tests and `commands` commands. The wait has no limit, as its holder has one."""
        hold.report("waiting to merge")
        with self.repository.alone():
            hold.report("testing and merging", (_LONGEST_IN_TESTS + commands) * self.bench.timeout_s)
            yield

    def _adopt(self, submission: Submission, hold: Hold) -> Merged | None:
        """A submitter was killed after the trunk had moved and before that was recorded: record it now."""
        landed = self._landed(submission)
        if landed is None:
            return None
        evidence = read_evidence(self.run, landed)
        hold.check()
        hold.merged(evidence)
        check_out(self.repository)
        return Merged(landed.id, evidence)

    def _landed(self, submission: Submission) -> Commit | None:
        wanted = {"Task": submission.task.id, "Attempt": str(submission.attempt)}
        since = self.repository.log(self.repository.head(), since=submission.base)
        return next((commit for commit in since if wanted.items() <= commit.trailers.items()), None)

    def _merge_and_test(self, change: Change, submission: Submission) -> Conflict | MergeAttempt:
        """Merge onto the head as it is now, and run the tests of the result once."""
        head = self.repository.head()
        merged = merge(self.repository, change.tree, submission.base, head)
        conflicts = merged.conflicts or _collisions(merged.tree)
        if conflicts:
            return Conflict(conflicts, self._workspace(change, merged.tree), head)
        passed_before = self.repository.about(head).number("Tests-Passed")
        trunk = self.repository.tree(head)
        own = own_files(submission.task, trunk, merged.tree)
        with ThreadPoolExecutor(1) as beside:
            stored = beside.submit(self._store, change, merged.tree)
            report = self.bench.test(merged.tree, own if submission.task.owns_source() else None)
            stored.result()
        return MergeAttempt(self.bench, head, trunk, merged.tree, passed_before, submission.task, own, report)

    def _store(self, change: Change, merged: Tree) -> None:
        """Have on disk what the trunk would stand on. While the tests run: the disk has nothing else to do."""
        self.repository.objects.sync(change.project[path].id for path in change.written)
        self.repository.objects.write_tree(merged, durable=True)

    def _land(self, submission: Submission, hold: Hold, green: _Green, started: float) -> Merged:
        """Move the trunk. merge.lock is held, and the head is still the one that was merged onto."""
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
        evidence = {"commit": commit, **describe(green.change, verdict, task), **green.more, "seconds": seconds}
        if submission.ended_early:
            evidence["ended_early"] = submission.ended_early
        hold.check()
        with ThreadPoolExecutor(1) as beside:
            stored = beside.submit(self.repository.objects.sync, [commit])
            keep_evidence(self.run, task.id, attempt, evidence, verdict.report.junit)
            stored.result()
        self.repository.move(green.head, commit)
        # A kill from here on loses nothing: the commit names task and attempt, and is adopted.
        hold.merged(evidence)
        check_out(self.repository, green.head)
        return Merged(commit, evidence)

    def _workspace(self, change: Change, merged: Tree) -> str:
        """The merge together with the workspace's own scratch files, so that going on from it loses nothing."""
        return self.repository.objects.write_tree(change.others | merged)


def _collisions(tree: Tree) -> tuple[str, ...]:
    return tuple(rules.collision_fact(first, second) for first, second in rules.case_collisions(tree))
