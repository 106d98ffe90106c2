"""`check DIR`: look at a run directory without changing anything, while it runs or afterwards.

check
  files        can each be read, are the journals whole
  plan         is it the one that the run was started from
  queue        does it fit the plan, and the trunk, both ways
  answers      is each that a transcript has in the ledger
  spending     does the summary say what the ledger says
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from parallel_orchestrator.agent.transcript import fold
from parallel_orchestrator.records.lifecycle import SETTLED, TaskState
from parallel_orchestrator.report.spending import Ledger
from parallel_orchestrator.report.summary import VERSION, finished_summary
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.plan_file import plan_digest
from parallel_orchestrator.store.program import command
from parallel_orchestrator.store.runlock import is_held
from parallel_orchestrator.upkeep.findings import Finding, Report
from parallel_orchestrator.upkeep.ledger import key_of, misfits
from parallel_orchestrator.upkeep.reading import (
    Reading,
    conversation_fault,
    read_run,
    read_summary,
    unknown_attempts,
)
from parallel_orchestrator.upkeep.trunk import Trunk, examine, has_tree


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
            tree = fold(content.records).tree
            if tree and not has_tree(self.run, tree):
                self._find(found.path, f"the workspace's tree {tree} cannot be read from .git", self._repair)

    def summary(self) -> None:
        """The summary, where the run has ended, says what the other files say."""
        summary = read_summary(self.run)
        if summary is None:
            return
        if summary.get("version") != VERSION:
            told = f"it has version {summary['version']}" if "version" in summary else "it is no summary"
            self._find(self.run.summary, f"{told}; this program writes version {VERSION}", self._resume)
        elif summary.get("status") != "incomplete" and not self._running:
            for told in self._differences(summary):
                self._find(self.run.summary, told, f"remove it, then {self._resume}")

    def _differences(self, summary: dict[str, object]) -> Iterator[str]:
        if not self.reading.ledger.damage and not list(misfits(self.reading.ledger.records)):
            for name, figure in Ledger(self.reading.ledger.records).total().as_json().items():
                if summary.get(name) != figure:
                    yield f"{name} is {summary.get(name)}, by the ledger {figure}"
        if self.reading.replica:
            counts = self.reading.replica.count()
            states = {"completed": TaskState.MERGED, "failed": TaskState.FAILED, "blocked": TaskState.BLOCKED}
            for name, state in states.items():
                if summary.get(name) != counts[state]:
                    yield f"{name} is {summary.get(name)}, by the queue {counts[state]}"

    def _find(self, path: Path, what: str, fix: str) -> None:
        self._report.findings.append(Finding(str(path.relative_to(self.run.root)), what, fix))

    def _note(self, path: Path, what: str) -> None:
        self._report.notes.append(Finding(str(path.relative_to(self.run.root)), what, ""))
