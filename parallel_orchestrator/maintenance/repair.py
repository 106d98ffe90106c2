"""`repair DIR`: repair a damaged run as far as its files prove what there was.

    repair
      own          lock the directory, as a run does
      plan         from the planner's answer in the ledger
      trunk        small files, objects, branch, index
      queue        from the trunk and the transcripts
      transcripts  cut to what an attempt can resume from; what that costs is said first
      ledger       every whole record is kept; what the others cost is said first
      evidence     from the queue
      product      from the trunk, if the run has ended
      summary      from the other files; moved aside if the whole has to be tested again

Each file is copied to `repair-N/` in the run directory before it changes, and replaced by rename. A repair that was
killed can be started again. A run without damage is not changed.
"""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from parallel_orchestrator.maintenance import trunk
from parallel_orchestrator.maintenance.check import CheckReport, check
from parallel_orchestrator.maintenance.cuts import answered_plan, fitted, ledger_losses, lost_base, misfits, planned_cut
from parallel_orchestrator.maintenance.lost_commit import known_commits
from parallel_orchestrator.maintenance.queue import LastAttempt, MergedTask, QueueRebuilder
from parallel_orchestrator.maintenance.reading import RunFiles, parsed, read_run, read_summary
from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.records.fix import FIX_ID
from parallel_orchestrator.records.journals.queue import Move
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.report.facts.summary import ended_summary, finished_summary
from parallel_orchestrator.store.journal import Record
from parallel_orchestrator.store.paths import AttemptFile, RunDirectory
from parallel_orchestrator.store.record_parser import QUEUE
from parallel_orchestrator.store.run_lock import RunLock
from parallel_orchestrator.store.salvage import rewrite_journal, salvage
from parallel_orchestrator.system.files import sync_directory, write_whole
from parallel_orchestrator.system.invocation import command
from parallel_orchestrator.system.logfile import log_to, stop_logging
from parallel_orchestrator.system.terminal_text import json_text
from parallel_orchestrator.trunk.evidence import evidence_faults, read_evidence, restore_evidence
from parallel_orchestrator.trunk.git.repository import Commit

log = logging.getLogger(__name__)


def repair(directory: Path, say: Callable[[str], None]) -> CheckReport:
    """Repair what can be repaired, say each step, and return the check made afterwards.

    Raises UsageError when the directory holds no run, DirectoryHeld while the run is active, and DamagedState when
    nothing can be repaired.
    """
    files = read_run(directory)
    if files.scenario is None:
        raise DamagedState(
            f"{files.run.scenario}: {files.faults[files.run.scenario]}. It stores your original request and "
            "cannot be rebuilt. Restore it from a backup, or start over with another --output-dir"
        )
    lock = RunLock.acquire(files.run.run_lock, say=say)
    handler = log_to(files.run.log)
    try:
        work = RunRepair(read_run(directory), say)
        work.all()
    finally:
        stop_logging(handler)
        lock.release()
    report = check(directory)
    if not work.changed:
        say(f"nothing was changed in {directory}")
    elif not report.findings:
        kept = f"what was changed is kept in {work.backup.name}/"
        say(f"{directory} is repaired; {kept}. Next: {command('resume', directory)}")
    return report


@dataclass
class RunRepair:
    """One repair of one run, for the owner of its lock."""

    files: RunFiles
    tell: Callable[[str], None]
    changed: set[Path] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)
    """Commits of the trunk that were written again under another name, old to new."""

    @property
    def run(self) -> RunDirectory:
        """The run's directory."""
        return self.files.run

    @cached_property
    def backup(self) -> Path:
        """The folder for the files that this repair changes, made at its first use."""
        taken = [path.name.removeprefix("repair-") for path in self.run.root.glob("repair-*")]
        number = max((int(name) for name in taken if name.isdecimal()), default=0) + 1
        folder = self.run.root / f"repair-{number}"
        folder.mkdir(mode=0o700)
        return folder

    def say(self, text: str) -> None:
        """Log a step and tell the person."""
        log.warning("repair: %s", text)
        self.tell(text)

    def keep(self, path: Path) -> None:
        """Copy a file into the backup before it changes."""
        self.changed.add(path)
        target = self.backup / path.relative_to(self.run.root)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            sync_directory(target.parent)

    def all(self) -> None:
        """Every step, in the order of the module's docstring."""
        self._plan()
        self._trunk()
        self._queue()
        for attempt in self.files.transcripts:
            self._transcript(attempt)
            self._base(attempt)
        self._ledger()
        self._evidence()
        self._product()
        self._summary()

    def _rewrite(self, path: Path, records: Iterable[Record]) -> None:
        self.keep(path)
        rewrite_journal(path, records)

    def _plan(self) -> None:
        if self.run.plan not in self.files.faults:
            return
        scenario = self.files.scenario
        plan = None if scenario and scenario.plan_sha256 else answered_plan(self.files.ledger.records)
        if plan is None:
            self.say("execution_plan.json cannot be rebuilt: put back the plan file that the run was started from")
            return
        self.keep(self.run.plan)
        write_whole(self.run.plan, json_text(plan.model_dump()))
        self.say("execution_plan.json was rebuilt from the planner's answer in the ledger")
        self.files = read_run(self.run.root)  # with the plan, the queue can be read

    def _trunk(self) -> None:
        state, queue_state = trunk.examine(self.run), self.files.queue_state
        on_trunk = {commit.trailers.get("Task") for commit in state.commits or ()}
        merged = (
            {task for task, s in queue_state.tasks.items() if s.state is TaskState.MERGED} if queue_state else set()
        )
        if not self.run.git.exists() or not (state.faults or merged - on_trunk):
            return
        known = known_commits(parsed(QUEUE, self.files.queue.records), self.files.plan)
        for step in trunk.repair_trunk(self.run, known, self.keep, self.renamed):
            self.say(step)

    def _queue(self) -> None:
        commits = trunk.examine(self.run).commits
        damaged = self.run.queue in self.files.faults
        if self.files.plan is None or commits is None:
            if damaged:
                self.say("queue.jsonl cannot be rebuilt before plan and trunk are whole; then `repair` again")
            return
        merged = [self._merged(commit) for commit in commits if "Task" in commit.trailers]
        on_trunk = {work.task for work in merged}
        tasks = self.files.queue_state.tasks if self.files.queue_state else {}
        unproven = [t for t, s in tasks.items() if s.state is TaskState.MERGED and t not in on_trunk]
        unplanned = [task for task in on_trunk if FIX_ID.fullmatch(task) and task not in tasks]
        unknown = self.files.unknown_attempts()
        if not (damaged or unproven or unplanned or unknown):
            return
        rebuilder = QueueRebuilder(self.files.plan.graph())
        rebuilder.keep(self.files.queue.unbroken, on_trunk, {(a.task, a.attempt): a.executor for a in unknown})
        kept = len(rebuilder.records)
        rebuilder.plan_fixes(on_trunk | {attempt.task for attempt in self.files.transcripts})
        known = rebuilder.queue_state.tasks
        rebuilder.complete([work for work in merged if work.task in known], self._attempts(known))
        self._rewrite(self.run.queue, rebuilder.records)
        self.files.queue, self.files.queue_state = salvage(self.run.queue), rebuilder.queue_state
        counts = ", ".join(f"{number} {state}" for state, number in rebuilder.queue_state.count().items() if number)
        self.say(
            f"queue.jsonl: {kept} records kept, the rest rebuilt from trunk and transcripts: {counts}. "
            "The times of later work are lost"
        )

    def _merged(self, commit: Commit) -> MergedTask:
        return MergedTask(commit.trailers["Task"], commit.number("Attempt"), read_evidence(self.run, commit))

    def _attempts(self, known: Iterable[str]) -> dict[str, LastAttempt]:
        """Returns the last attempt at each known task that has a whole record in its transcript."""
        attempts: dict[str, LastAttempt] = {}
        for found, content in sorted(self.files.transcripts.items(), key=lambda item: item[0].attempt):
            for last in deque(content.records, maxlen=1):
                if found.task in known:
                    attempts[found.task] = LastAttempt(found.task, found.attempt, found.executor, last)
        return attempts

    def _transcript(self, attempt: AttemptFile) -> None:
        cut = planned_cut(self.files, attempt)
        if cut is None:
            return
        self.say(f"{attempt.path.relative_to(self.run.root)}: {cut.cause}; {cut.loss}")
        self._rewrite(attempt.path, cut.kept)
        if not cut.kept:
            attempt.path.unlink()
        self.files.transcripts[attempt] = salvage(attempt.path)

    def _base(self, attempt: AttemptFile) -> None:
        """Let an attempt whose base commit is lost start from one with the same files."""
        records = self.files.transcripts[attempt].records
        base = lost_base(self.files, attempt, self.renamed)
        if not base:
            return
        workspace = self.run.workspace(attempt.executor, attempt.task, attempt.attempt)
        new = self.renamed.get(base) or trunk.base_for(self.run, workspace)
        rebased = [{**record, "base": new} if record.get("base") == base else record for record in records]
        self._rewrite(attempt.path, rebased)
        self.files.transcripts[attempt] = salvage(attempt.path)
        name = attempt.path.relative_to(self.run.root)
        self.say(f"{name}: the commit that it started from is lost; it now starts from {new}, which has the same files")

    def _ledger(self) -> None:
        content = self.files.ledger
        if not content.damage and not any(misfits(content.records)):
            return
        for loss in ledger_losses(self.files):
            self.say(f"ledger.jsonl: {loss}")
        self._rewrite(self.run.ledger, fitted(content.records))
        self.say(f"ledger.jsonl: {len(content.records)} whole records kept")
        self.files.ledger = salvage(self.run.ledger)

    def _evidence(self) -> None:
        """Restore lost evidence files of merges from the queue."""
        if not self.run.git.exists():
            return
        for move in parsed(QUEUE, self.files.queue.records):
            if not isinstance(move, Move) or move.evidence is None:
                continue
            for path, what in evidence_faults(self.run, move.task, move.attempt):
                if path.suffix == ".json":
                    self.keep(path)
                    restore_evidence(self.run, move.task, move.attempt, move.evidence)
                    self.say(f"{path.relative_to(self.run.root)}: {what}; it was written again from the queue")

    def _product(self) -> None:
        """Restore the trunk's files in an ended run's directory. In others, the next resume does that."""
        if trunk.examine(self.run).differences and finished_summary(self.run):
            for step in trunk.check_out_again(self.run, self.keep):
                self.say(step)

    def _summary(self) -> None:
        summary, right = read_summary(self.run), ended_summary(self.run)
        if right is not None and self.files.queue_state and self.files.queue_state.finals:
            if summary != right.as_json():
                self.keep(self.run.summary)
                write_whole(self.run.summary, right.text())
                self.say("execution_summary.json was written again from the run's other files")
        elif summary is not None and (self.changed or check(self.run.root).concerns(self.run.summary.name)):
            self.keep(self.run.summary)
            self.run.summary.unlink()
            self.say("execution_summary.json was moved aside; `resume` writes it again")
