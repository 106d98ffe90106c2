"""`check DIR`: look at a run directory without changing anything, while it runs or afterwards.

check
  files        can each be read, are the journals whole
  plan         is it the one that the run was started from
  queue        does it fit the plan, and the trunk, both ways
  answers      is each that a transcript has in the ledger
  merged       has each merged task its conversation and its evidence
  product      are the files in the output directory those of the trunk
  summary      does it say what queue, ledger and the record of the last tests say
"""

from __future__ import annotations

from pathlib import Path

from parallel_orchestrator.agent.transcript import fold
from parallel_orchestrator.maintenance.findings import Finding, Report
from parallel_orchestrator.maintenance.ledger import key_of, misfits
from parallel_orchestrator.maintenance.reading import (
    Reading,
    conversation_fault,
    read_run,
    read_summary,
    unknown_attempts,
)
from parallel_orchestrator.maintenance.summary import contradictions, folded
from parallel_orchestrator.maintenance.trunk import Trunk, examine, has_tree
from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.records.fix import FIX_ID
from parallel_orchestrator.records.lifecycle import SETTLED, TaskState
from parallel_orchestrator.report.facts.summary import VERSION, RunState, ended, finished_summary, read_state
from parallel_orchestrator.store.branch import branch_head
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.plan_file import plan_digest
from parallel_orchestrator.store.run_lock import is_held
from parallel_orchestrator.system.invocation import command
from parallel_orchestrator.trunk.evidence import evidence_faults

LOST = "put it back from a backup; nothing else holds what it says, and the project is whole without it"


def check(directory: Path) -> Report:
    """Everything that is wrong in a run directory, each with its fix. UsageError when it holds no run."""
    running = is_held(RunDirectory(directory.absolute()).run_lock)
    reading = read_run(directory)
    report = Report(directory, _state(reading, running=running))
    look = _Look(reading, report, running=running)
    look.files()
    trunk = examine(reading.run)
    look.trunk(trunk)
    if trunk.commits is not None:
        look.merges({commit.trailers["Task"]: commit.id for commit in trunk.commits if "Task" in commit.trailers})
    look.attempts()
    look.answers()
    look.workspaces()
    look.merged()
    look.product(trunk)
    look.summary()
    return report


def _state(reading: Reading, *, running: bool) -> str:
    if running:
        return "running"
    if finished_summary(reading.run):
        return "finished"
    return "interrupted" if reading.run.queue.exists() or not reading.run.plan.exists() else "planned"


class _Look:
    """The parts of a check, each adding to the report."""

    def __init__(self, reading: Reading, report: Report, *, running: bool) -> None:
        self.reading = reading
        self.run = reading.run
        self._report = report
        self._running = running
        self._repair = command("repair", report.directory)
        self._resume = command("resume", report.directory)

    def files(self) -> None:
        """What cannot be read, and torn tails."""
        for path, fault in self.reading.faults.items():
            lost = "put it back from a backup; nothing else holds what it says"
            self._find(path, fault, lost if path == self.run.scenario else self._repair)
        scenario, plan = self.reading.scenario, self.reading.plan
        if scenario and plan and scenario.plan_sha256 and plan_digest(plan) != scenario.plan_sha256:
            self._find(self.run.plan, "it is not the plan that the run was started from", "put that one back")
        journals = {self.run.queue: self.reading.queue, self.run.ledger: self.reading.ledger}
        journals |= {found.path: content for found, content in self.reading.transcripts.items()}
        for path, content in journals.items():
            if content.torn_bytes and not self._running:
                told = f"{content.torn_bytes} bytes of a half-written record at its end; the next resume cuts them off"
                self._note(path, told)

    def trunk(self, trunk: Trunk) -> None:
        """What git finds wrong."""
        for fault in trunk.faults:
            self._find(self.run.git, fault, self._repair)
        if not self.run.git.exists() and self.reading.queue.records:
            self._find(self.run.git, "the trunk is not there", "put .git back from a backup")

    def merges(self, on_trunk: dict[str, str]) -> None:
        """Each merged task has its commit, and each commit its task."""
        if self.reading.replica is None:
            return
        merged = {task for task, s in self.reading.replica.tasks.items() if s.state is TaskState.MERGED}
        for task in sorted(merged - on_trunk.keys()):
            self._find(self.run.queue, f"{task} is merged here, but no commit of the trunk brings it", self._repair)
        for task in sorted(on_trunk.keys() - self.reading.replica.tasks.keys()):
            if FIX_ID.fullmatch(task):
                self._find(self.run.queue, f"{task} is on the trunk, and no record here plans it", self._repair)
            else:
                self._find(self.run.plan, f"{task} is on the trunk and not in the plan", "put the run's own plan back")
        for task in sorted(on_trunk.keys() & self.reading.replica.tasks.keys() - merged):
            if not self._running:
                self._note(self.run.queue, f"{task} is on the trunk; the next resume records that")

    def attempts(self) -> None:
        """Each transcript is of an attempt that the queue knows, in the folder that it names."""
        if self.reading.replica is None:
            return
        for begun in unknown_attempts(self.reading.replica, self.reading.transcripts):
            told = f"it knows nothing of attempt {begun.attempt} at {begun.task} in executor_{begun.executor}"
            self._find(self.run.queue, told, self._repair)

    def answers(self) -> None:
        """The ledger fits itself, and holds what the transcripts say was answered."""
        if self.reading.ledger.damage:
            return
        for misfit in misfits(self.reading.ledger.records):
            self._find(self.run.ledger, misfit, self._repair)
        answered = {key_of(r) for r in self.reading.ledger.records if r.get("kind") == "answer"}
        for found, content in self.reading.transcripts.items():
            turns = [record["turn"] for record in content.records if record["kind"] == "answer"]
            lost = [turn for turn in turns if (found.task, found.attempt, turn) not in answered]
            if lost:
                self._find(found.path, f"answers of turns {lost} are not in the ledger", self._repair)

    def workspaces(self) -> None:
        """The tree that a resume would begin with is there."""
        tasks = self.reading.replica.tasks if self.reading.replica else {}
        for found, content in self.reading.transcripts.items():
            status = tasks.get(found.task)
            going_on = status and status.state not in SETTLED and status.attempt == found.attempt
            if self._running or not going_on or conversation_fault(content.records):
                continue
            conversation = fold(content.records)
            tree, base = conversation.tree, conversation.base
            if base and not has_tree(self.run, f"{base}^{{tree}}"):
                self._find(found.path, f"the commit {base} that it started from cannot be read", self._repair)
            if tree and not has_tree(self.run, tree):
                self._find(found.path, f"the workspace's tree {tree} cannot be read from .git", self._repair)

    def merged(self) -> None:
        """Check the evidence of merged tasks. Most of it cannot be rebuilt once lost."""
        tasks = self.reading.replica.tasks if self.reading.replica else {}
        conversations = {(found.task, found.attempt): content for found, content in self.reading.transcripts.items()}
        for task, status in tasks.items():
            if status.state is not TaskState.MERGED:
                continue
            content = conversations.get((task, status.attempt))
            kinds = {record["kind"] for record in content.records} if content else set()
            if "submitted" not in kinds:
                path = self.run.transcript(status.folder, task, status.attempt)
                what = "it ends before the work was handed in" if kinds else "it is empty" if content else "it is gone"
                self._find(path, f"{what}, and {task} is merged", LOST)
            for path, what in evidence_faults(self.run, task, status.attempt):
                self._find(path, f"{what}, and {task} is merged", LOST if path.suffix == ".xml" else self._repair)

    def product(self, trunk: Trunk) -> None:
        """Check that the output directory holds the trunk's files. What a person added is not damage."""
        for wrong in [] if self._running else trunk.differences:
            what = "it is on the trunk and not here" if wrong.missing else "it is not as on the trunk"
            if self._report.state != "finished":
                self._note(self.run.root / wrong.path, f"{what}; the next resume checks it out")
            elif wrong.missing:
                self._find(self.run.root / wrong.path, what, self._resume)
            else:
                fix = f"commit it, or {self._repair}, which keeps a copy of it and brings back the trunk's"
                self._find(self.run.root / wrong.path, what, fix)

    def summary(self) -> None:
        """The summary, where the run has ended, says what the other files say."""
        summary = read_summary(self.run)
        state = self._folded_state()
        if summary is None:
            if state and state.replica.finals and ended(state):
                self._find(self.run.summary, "it is not there, and the run has ended", self._resume)
            return
        if summary.get("version") != VERSION:
            told = f"it has version {summary['version']}" if "version" in summary else "it is no summary"
            self._find(self.run.summary, f"{told}; this program writes version {VERSION}", self._resume)
        elif state and not self._running and (right := folded(state, summary)) is not None:
            fix = self._resume if state.replica.finals else f"remove it, then {self._resume}"
            for contradiction in contradictions(summary, right):
                self._find(self.run.summary, contradiction, fix)
        elif state and state.replica.final and state.replica.final["head"] != branch_head(self.run.git):
            self._note(self.run.summary, "the trunk has moved since the whole was tested; the next resume tests again")

    def _folded_state(self) -> RunState | None:
        """What the files say together, where each of them can be read."""
        reading, ledger = self.reading, self.reading.ledger
        if self._running or reading.replica is None or reading.scenario is None or reading.plan is None:
            return None
        if ledger.damage or any(misfits(ledger.records)):
            return None
        try:
            return read_state(self.run, reading.scenario, reading.plan)
        except DamagedState:
            return None

    def _find(self, path: Path, what: str, fix: str) -> None:
        self._report.findings.append(Finding(str(path.relative_to(self.run.root)), what, fix))

    def _note(self, path: Path, what: str) -> None:
        self._report.notes.append(Finding(str(path.relative_to(self.run.root)), what, ""))
