"""The trunk of a run: one git repository in the output directory, and a merge queue in front of it.

What a kill can leave, and which call repairs it:

    recover                       the run's owner, before its workers start
      remove_leftovers            half-written objects, an unfinished `.git-new`
      check_out                   the branch moved, but its files were not (all) written
        advance                   quickly, when nothing was edited: read-tree of the difference
        keep_edits                else copy a person's edits aside, then write every file
      _merged                     the merges on the branch, for the queue to adopt
    MergeQueue._adopt             a submission of the task, when its earlier attempt moved the branch without a record
    Repository.move, check_out    remove stale lock files first: under merge.lock no git of ours can be using them
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from parallel_orchestrator.records.command import CommandRunner, Prewarm
from parallel_orchestrator.records.errors import DamagedState, TaskLimit
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.journals.queue import Move
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.store.journal import read_each
from parallel_orchestrator.store.paths import RunDirectory, repair_hint
from parallel_orchestrator.store.record_parser import QUEUE
from parallel_orchestrator.system.files import disk_faults_in
from parallel_orchestrator.system.terminal_text import listed
from parallel_orchestrator.trunk.changes import folder as folders
from parallel_orchestrator.trunk.changes.folder import read_folder, write_folder
from parallel_orchestrator.trunk.evidence import read_evidence
from parallel_orchestrator.trunk.final import FinalChecks
from parallel_orchestrator.trunk.git import git
from parallel_orchestrator.trunk.git.edits import Edits, check_out, find_edits, keep_edits
from parallel_orchestrator.trunk.git.objects import FILE, TreeEntry
from parallel_orchestrator.trunk.git.repository import Repository, commit_subject
from parallel_orchestrator.trunk.results import (
    Conflict,
    FinalReport,
    Merged,
    MergedCommit,
    Rejected,
    Submission,
    SubmitterClaim,
    TestsFailed,
)
from parallel_orchestrator.trunk.submit import MergeQueue
from parallel_orchestrator.trunk.testing.testbench import TestBench


class Trunk:
    """The trunk's interface. Each process and thread makes its own; merge.lock orders them."""

    def __init__(
        self,
        run: RunDirectory,
        runner: CommandRunner,
        test_timeout_s: float = 300,
        prewarm: Prewarm | None = None,
    ) -> None:
        self._run = run
        self._repository = Repository(run)
        self._bench = TestBench(self._repository.objects, runner, test_timeout_s, prewarm)
        self._queue = MergeQueue(run, self._repository, self._bench)
        self._final = FinalChecks(run, self._repository, self._bench)
        self._stored: Counter[Path] = Counter()

    def create(self) -> None:
        """Create the trunk unless it exists. UsageError: git is too old, or the directory holds another repository."""
        git.require()
        self._repository.refuse_foreign()
        self._run.root.mkdir(parents=True, exist_ok=True)
        with disk_faults_in(self._run.git, ours=True), self._repository.alone():
            self._repository.create()
            check_out(self._repository)

    def edits(self) -> Edits:
        """Return what a person changed in the output directory without a commit; empty before the trunk exists.

        Raises DamagedState when the branch is older than its checkout: newer files are not edits.
        """
        if not (self._run.git / "index").exists():
            return Edits([], [], [])
        self._repository.refuse_foreign()
        self._repository.ensure_safe_git_dir()
        edits = find_edits(self._repository)
        if edits.changed:
            self._require_merges()
        return edits

    def _require_merges(self) -> None:
        """Raise DamagedState when the queue has a merge that no commit of the trunk brings."""
        moves = (record for record in read_each(self._run.queue, QUEUE) if isinstance(record, Move))
        merged = {move.task for move in moves if move.state is TaskState.MERGED}
        on_trunk = {commit.trailers.get("Task") for commit in self._repository.log(self._repository.head())}
        if lost := sorted(merged - on_trunk):
            raise DamagedState(
                f"{self._run.git}: the branch main is older than its checkout, it lacks the merge of {listed(lost)}. "
                f"Nothing was changed. {repair_hint(self._run.queue)}"
            )

    def head(self) -> str:
        """Return the commit at the head of the trunk."""
        return self._repository.head()

    def recover(self) -> list[MergedCommit]:
        """Repair what a kill left. Returns every merge on the trunk, oldest first.

        Only the run's owner calls it, while no other process of the run lives.
        """
        with disk_faults_in(self._run.git, ours=True), self._repository.alone():
            # The order does not matter for the branch, which is the truth and moved by one rename. The checkout comes
            # before any worker starts, so that none of them finds old files.
            self._repository.remove_leftovers()
            check_out(self._repository)
        return self._merged()

    def landed(self, task: str) -> MergeEvidence | None:
        """Return the evidence of a task whose work is on the trunk; None when it is not there."""
        return next((commit.evidence for commit in self._merged() if commit.task == task), None)

    def open_workspace(self, folder: Path, commit: str) -> None:
        """Make `folder` hold exactly the files of `commit`, without a repository. Removes everything else in it."""
        with disk_faults_in(folder):
            write_folder(self._repository.objects, folder, self._repository.tree(commit))

    def snapshot(self, folder: Path) -> str:
        """Store everything in `folder` but caches, nested repositories and special files. Returns its tree's id.

        Raises TaskLimit when the folder, or all its snapshots together, are too large.
        """
        objects = self._repository.objects
        before = objects.stored
        with disk_faults_in(self._run.git):
            tree = objects.write_tree(read_folder(objects, folder).entries)
        self._stored[folder] += objects.stored - before
        if self._stored[folder] > folders.MOST_STORED:
            raise TaskLimit(f"the states of its workspace take more than {folders.MOST_STORED / 2**30:g} GiB on disk")
        return tree

    def restore(self, folder: Path, tree: str) -> None:
        """Make `folder` hold exactly the tree of one of its snapshots, of a Conflict or of a TestsFailed."""
        with disk_faults_in(folder):
            write_folder(self._repository.objects, folder, self._repository.tree(tree))

    def prepare(self) -> None:
        """Prewarm the tests of the next `submit`. `close` ends what was not used."""
        self._bench.prepare()

    def close(self) -> None:
        """End everything that still runs."""
        self._bench.close()

    def submit(self, submission: Submission, claim: SubmitterClaim) -> Merged | Conflict | TestsFailed | Rejected:
        """Bring one attempt's tested work onto the trunk, or return why not. Raises StaleClaim as `hold` does."""
        with disk_faults_in(self._run.git):
            return self._queue.submit(submission, claim)

    def publish(self, files: Mapping[str, bytes], message: str) -> str:
        """Commit this program's files (README.md, documents) to the trunk, untested. Returns the head.

        Makes no commit when nothing changes. Raises GitFailed when the output directory still differs from the trunk
        afterwards.
        """
        repository = self._repository
        with disk_faults_in(self._run.git, ours=True), repository.alone():
            head = self.head()
            before = repository.tree(head)
            ours = {
                path: TreeEntry(FILE, repository.objects.write("blob", data, durable=True))
                for path, data in files.items()
            }
            if before | ours != before:
                tree = repository.objects.write_tree(before | ours, durable=True)
                passed = repository.about(head).number("Tests-Passed")
                commit = repository.commit(tree, head, commit_subject(message), {"Tests-Passed": passed}, durable=True)
                repository.move(head, commit)
            # The README is rewritten at the end of each run. A person's edit of it is copied aside first.
            keep_edits(repository)
            repository.restore_checkout()
            return self.head()

    def final_checks(self, verify: Sequence[str]) -> FinalReport:
        """Test a copy of the head under coverage, run the verify commands in another, count lines."""
        with disk_faults_in(self._run.git):
            return self._final.check(verify)

    def _merged(self) -> list[MergedCommit]:
        return [
            MergedCommit(
                commit.id,
                commit.trailers["Task"],
                commit.number("Attempt"),
                commit.number("Claim"),
                read_evidence(self._run, commit),
            )
            for commit in self._repository.log(self.head())
            if "Task" in commit.trailers
        ]
