"""`check DIR`: verify a run directory without changing anything, while the run is active or afterwards.

check
  files        can each be read, are the journals whole; what a damaged one costs
  plan         is it the one that the run was started from
  queue        does it fit the plan and the trunk
  ledger       does it fit itself, and has it the answers that the transcripts have
  attempts     can those that a resume continues be restored
  merged       has each merged task its conversation and its evidence
  product      are the files in the output directory those of the trunk
  summary      does it say what queue, ledger and the record of the last tests say
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from parallel_orchestrator.maintenance.cuts import ledger_losses, lost_answers, lost_base, misfits, planned_cut
from parallel_orchestrator.maintenance.reading import RunFiles, read_run, read_summary
from parallel_orchestrator.maintenance.trunk import TrunkState, examine
from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.records.fix import FIX_ID
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.usage import Spending
from parallel_orchestrator.report.facts.summary import (
    VERSION,
    RunState,
    ended,
    finished_summary,
    read_state,
    summarize,
)
from parallel_orchestrator.store.branch import branch_head
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.plan_file import plan_digest
from parallel_orchestrator.store.run_lock import is_held
from parallel_orchestrator.system.invocation import command
from parallel_orchestrator.system.terminal_text import counted, one_line
from parallel_orchestrator.trunk.evidence import evidence_faults

LOST = "put it back from a backup; no other file holds its content, and the project is whole without it"
REPORT_VERSION = 1
_TESTED = ("green", "commit", "lines_of_code", "tests", "coverage_percent", "verify")
"""Results of the tests of the whole."""
_LATER = ("fixes", "corrections")
"""Lists that summaries of versions without fix tasks lack."""
_BOUGHT = frozenset(Spending().as_json())
_SHOWN = 60
"""Characters of a value in a finding."""


@dataclass(frozen=True)
class Finding:
    """One fault in a run directory, and how to fix it."""

    file: str
    """Relative to the run directory."""
    what: str
    fix: str

    def __str__(self) -> str:
        return one_line(f"{self.file}: {self.what}. Fix: {self.fix}")


@dataclass
class CheckReport:
    """Everything found in one run directory."""

    directory: Path
    state: str = "interrupted"
    """running, finished, interrupted or planned; for a batch's own files: running or `a batch`."""
    findings: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    """Not faults: what the next `resume` finishes by itself, what is being written now, what the ledger lost."""

    def concerns(self, file: str) -> bool:
        """Returns whether a finding is about that file."""
        return any(finding.file == file for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Returns the report as one JSON document."""
        return {
            "version": REPORT_VERSION,
            "directory": str(self.directory),
            "state": self.state,
            "clean": not self.findings,
            "findings": [asdict(finding) for finding in self.findings],
            "notes": [asdict(note) for note in self.notes],
        }

    def as_text(self) -> str:
        """Returns the report for a person, one line for each finding and note."""
        lines = [str(finding) for finding in self.findings]
        lines += [f"note: {note.file}: {one_line(note.what)}" for note in self.notes]
        count = len(self.findings)
        end = "clean" if not count else counted(count, "finding")
        return "\n".join([*lines, f"{self.directory} ({self.state}): {end}"])


def check(directory: Path) -> CheckReport:
    """Returns everything that is wrong in a run directory, each with its fix. UsageError when it holds no run."""
    running = is_held(RunDirectory(directory.absolute()).run_lock)
    files = read_run(directory)
    report = CheckReport(directory, _state(files, running=running))
    state = examine(files.run)
    checking = RunCheck(files, report, running=running)
    checking.files()
    checking.trunk(state)
    checking.merges(state)
    checking.ledger()
    checking.attempts()
    checking.merged()
    checking.product(state)
    checking.summary()
    return report


def _state(files: RunFiles, *, running: bool) -> str:
    if running:
        return "running"
    if finished_summary(files.run):
        return "finished"
    return "interrupted" if files.run.queue.exists() or not files.run.plan.exists() else "planned"


class RunCheck:
    """The parts of a check. Each adds to the report."""

    def __init__(self, files: RunFiles, report: CheckReport, *, running: bool) -> None:
        self._files = files
        self._run = files.run
        self._report = report
        self._running = running
        self._repair = command("repair", report.directory)
        self._resume = command("resume", report.directory)

    def files(self) -> None:
        """Find what cannot be read, and note half-written records."""
        for path, fault in self._files.faults.items():
            lost = "put it back from a backup; no other file holds its content"
            fix = lost if path == self._run.scenario else self._repair
            self._find(path, "; ".join([fault, *self._losses(path)]), fix)
        scenario, plan = self._files.scenario, self._files.plan
        if scenario and plan and scenario.plan_sha256 and plan_digest(plan) != scenario.plan_sha256:
            self._find(self._run.plan, "it is not the plan that the run was started from", "put that one back")
        journals = {self._run.queue: self._files.queue, self._run.ledger: self._files.ledger}
        journals |= {attempt.path: content for attempt, content in self._files.transcripts.items()}
        for path, content in journals.items():
            if content.torn_bytes and not self._running:
                what = f"{content.torn_bytes} bytes of a half-written record at its end; the next resume cuts them off"
                self._note(path, what)

    def _losses(self, path: Path) -> list[str]:
        """Returns what the repair of a damaged journal cuts off, and its price."""
        if path == self._run.ledger:
            return ledger_losses(self._files)
        cuts = [planned_cut(self._files, attempt) for attempt in self._files.transcripts if attempt.path == path]
        return [cut.loss for cut in cuts if cut]

    def trunk(self, state: TrunkState) -> None:
        """Find what git finds wrong."""
        for fault in state.faults:
            self._find(self._run.git, fault, self._repair)
        if not self._run.git.exists() and self._files.queue.records:
            self._find(self._run.git, "the trunk is not there", "put .git back from a backup")

    def merges(self, state: TrunkState) -> None:
        """Compare the tasks that the queue says are merged with the trunk's commits."""
        if self._files.queue_state is None or state.commits is None:
            return
        tasks = self._files.queue_state.tasks
        on_trunk = {commit.trailers["Task"] for commit in state.commits if "Task" in commit.trailers}
        merged = {task for task, status in tasks.items() if status.state is TaskState.MERGED}
        for task in sorted(merged - on_trunk):
            self._find(self._run.queue, f"{task} is merged here, but no commit of the trunk brings it", self._repair)
        for task in sorted(on_trunk - tasks.keys()):
            if FIX_ID.fullmatch(task):
                self._find(self._run.queue, f"{task} is on the trunk, and no record here plans it", self._repair)
            else:
                self._find(self._run.plan, f"{task} is on the trunk and not in the plan", "put the run's own plan back")
        for task in sorted(on_trunk & tasks.keys() - merged):
            if not self._running:
                self._note(self._run.queue, f"{task} is on the trunk; the next resume records that")

    def ledger(self) -> None:
        """Find ledger records that do not fit each other, and answers that only transcripts still have."""
        if self._files.ledger.damage:
            return
        lost = lost_answers(self._files)
        if lost and not self._run.ledger.exists():
            fix = "put it back from a backup; without it a resume works, and what was spent before is not counted"
            self._find(self._run.ledger, "it is gone, and transcripts hold answers", fix)
            return
        for misfit in misfits(self._files.ledger.records):
            self._find(self._run.ledger, misfit, self._repair)
        for attempt, turns in lost.items():
            what = f"the answers to {attempt.task} attempt {attempt.attempt}, turns {turns}, are not here"
            self._note(self._run.ledger, f"{what}; the transcript has them, so they are not bought again")

    def attempts(self) -> None:
        """Find attempts that the queue does not know, and those whose conversation or workspace cannot be restored."""
        for attempt in self._files.unknown_attempts():
            what = f"it knows nothing of attempt {attempt.attempt} at {attempt.task} in executor_{attempt.executor}"
            self._find(self._run.queue, what, self._repair)
        for attempt in () if self._running else self._files.transcripts:
            if attempt.path in self._files.faults:
                continue
            if cut := planned_cut(self._files, attempt):
                self._find(attempt.path, f"{cut.cause}; {cut.loss}", self._repair)
            elif base := lost_base(self._files, attempt):
                self._find(attempt.path, f"the commit {base} that it started from cannot be read", self._repair)

    def merged(self) -> None:
        """Find lost evidence of merged tasks. Most of it cannot be rebuilt."""
        tasks = self._files.queue_state.tasks if self._files.queue_state else {}
        conversations = {(one.task, one.attempt): content for one, content in self._files.transcripts.items()}
        for task, status in tasks.items():
            if status.state is not TaskState.MERGED:
                continue
            content = conversations.get((task, status.attempt))
            kinds = {record["kind"] for record in content.records} if content else set()
            if "submitted" not in kinds:
                path = self._run.transcript(status.folder, task, status.attempt)
                what = "it ends before the work was handed in" if kinds else "it is empty" if content else "it is gone"
                self._find(path, f"{what}, and {task} is merged", LOST)
            for path, what in evidence_faults(self._run, task, status.attempt):
                self._find(path, f"{what}, and {task} is merged", LOST if path.suffix == ".xml" else self._repair)

    def product(self, state: TrunkState) -> None:
        """Find files of the trunk that the output directory lacks. What a person added is not damage."""
        for wrong in [] if self._running else state.differences:
            what = "it is on the trunk and not here" if wrong.missing else "it is not as on the trunk"
            if self._report.state != "finished":
                self._note(self._run.root / wrong.path, f"{what}; the next resume checks it out")
            elif wrong.missing:
                self._find(self._run.root / wrong.path, what, self._resume)
            else:
                fix = f"commit it, or {self._repair}, which keeps a copy of it and brings back the trunk's"
                self._find(self._run.root / wrong.path, what, fix)

    def summary(self) -> None:
        """Compare the summary with the other files."""
        summary = read_summary(self._run)
        state = self._folded_state()
        if summary is None:
            if state and state.queue_state.finals and ended(state):
                self._find(self._run.summary, "it is not there, and the run has ended", self._resume)
            return
        if summary.get("version") != VERSION:
            problem = f"it has version {summary['version']}" if "version" in summary else "it is no summary"
            self._find(self._run.summary, f"{problem}; this program writes version {VERSION}", self._resume)
        elif state and not self._running and (right := folded(state, summary)) is not None:
            fix = self._resume if state.queue_state.finals else f"remove it, then {self._resume}"
            for contradiction in contradictions(summary, right):
                self._find(self._run.summary, contradiction, fix)
        elif state and state.queue_state.final and state.queue_state.final["head"] != branch_head(self._run.git):
            self._note(self._run.summary, "the trunk has moved since the whole was tested; the next resume tests again")

    def _folded_state(self) -> RunState | None:
        """Returns what the files say together; None unless all of them can be read."""
        files, ledger = self._files, self._files.ledger
        if self._running or files.queue_state is None or files.scenario is None or files.plan is None:
            return None
        journals = {self._run.ledger, *(attempt.path for attempt in files.transcripts)}
        if journals & files.faults.keys() or any(misfits(ledger.records)):
            return None
        try:
            return read_state(self._run, files.scenario, files.plan)
        except DamagedState:
            return None

    def _find(self, path: Path, what: str, fix: str) -> None:
        self._report.findings.append(Finding(str(path.relative_to(self._run.root)), what, fix))

    def _note(self, path: Path, what: str) -> None:
        self._report.notes.append(Finding(str(path.relative_to(self._run.root)), what, ""))


def folded(state: RunState, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what `summary`, the one on disk, has to be; None where it need not be compared.

    Earlier versions kept the results of the last tests in the summary alone. They are taken from it.
    """
    if state.queue_state.finals or state.queue_state.unsettled:
        right = ended(state)
        if right is None and summary.get("status") != "incomplete" and state.queue_state.final is None:
            right = summarize(state, None)
        return right.as_json() if right else None
    if summary.get("status") not in ("done", "failed"):
        return None
    try:
        right = summarize(state, {name: summary[name] for name in _TESTED if name in summary})
    except msgspec.ValidationError:  # no tests can have ended so
        right = summarize(state, None)
    return {name: value for name, value in right.as_json().items() if value or name in summary or name not in _LATER}


def contradictions(summary: Any, right: Any, path: str = "", source: str = "the queue") -> Iterator[str]:
    """Yields each field of `summary` that differs from `right`, with the file that contradicts it."""
    if isinstance(right, dict) and isinstance(summary, dict):
        for name in [*right, *(name for name in summary if name not in right)]:
            by = _source(name, path, source)
            yield from contradictions(summary.get(name), right.get(name), f"{path}.{name}".lstrip("."), by)
    elif isinstance(right, list) and isinstance(summary, list) and len(right) == len(summary):
        for place, (left, other) in enumerate(zip(summary, right, strict=True)):
            named = other["id"] if isinstance(other, dict) and "id" in other else place
            yield from contradictions(left, other, f"{path}[{named}]", source)
    elif summary != right:
        yield f"{path} is {_short(summary)}, by {source} {_short(right)}"


def _source(name: str, path: str, source: str) -> str:
    if name in _BOUGHT:
        return "the ledger"
    if not path and name in _TESTED:
        return "the record of the last tests"
    return {"executed": "the transcript", "requirements": "the scenario", "planning": "the ledger"}.get(name, source)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
