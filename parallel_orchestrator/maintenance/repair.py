"""`repair DIR`: put a damaged run together again, as far as its files prove what there was.

    repair
      own          the directory, as for a run
      plan         from the planner's answer in the ledger
      trunk        small files, objects, branch, index
      transcripts  from the ledger's answers
      ledger       from the transcripts' answers
      queue        from the trunk and the transcripts
      evidence     from the queue
  product      from the trunk, where the run has ended
  summary      from the other files; moved aside where the whole has to be tested again

Each file is copied to `repair-N/` in the run directory before it changes, and replaced by rename, so a repair that is
killed is begun again. A run in which nothing is wrong is left as it is.
"""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from parallel_orchestrator.agent.prompt import build_request, opening
from parallel_orchestrator.agent.transcript import fold
from parallel_orchestrator.gateway.calls.messages import body_hash
from parallel_orchestrator.maintenance import trunk
from parallel_orchestrator.maintenance.check import check
from parallel_orchestrator.maintenance.findings import Report
from parallel_orchestrator.maintenance.guesses import known_commits
from parallel_orchestrator.maintenance.ledger import (
    Rebuilder,
    answered_plan,
    fitted,
    key_of,
    misfits,
    open_intents,
)
from parallel_orchestrator.maintenance.queue import Begun, Landed, Rebuilt
from parallel_orchestrator.maintenance.reading import (
    Reading,
    conversation_fault,
    read_run,
    read_summary,
    unknown_attempts,
)
from parallel_orchestrator.maintenance.transcript import Mending, NotProvable
from parallel_orchestrator.records.errors import CannotGoOn, DamagedState
from parallel_orchestrator.records.fix import FIX_ID, fix_task, fixes_in
from parallel_orchestrator.records.lifecycle import SETTLED, TaskState
from parallel_orchestrator.records.plan import Plan, Task
from parallel_orchestrator.report.facts.summary import ended_summary, finished_summary, summary_text
from parallel_orchestrator.store.journal import Record
from parallel_orchestrator.store.paths import AttemptFile, RunDirectory
from parallel_orchestrator.store.run_lock import RunLock
from parallel_orchestrator.store.salvage import salvage, write_anew
from parallel_orchestrator.system.files import sync_directory, write_whole
from parallel_orchestrator.system.logfile import log_to, stop_logging
from parallel_orchestrator.system.terminal_text import json_text
from parallel_orchestrator.trunk.evidence import evidence_faults, read_evidence, restore_evidence

log = logging.getLogger(__name__)


def repair(directory: Path, say: Callable[[str], None]) -> Report:
    """Repair what can be repaired, say each step, and return the check made afterwards.

    Raises UsageError when no run is there, DirectoryHeld while it runs, DamagedState where nothing can be repaired.
    """
    reading = read_run(directory)
    if reading.scenario is None:
        raise DamagedState(
            f"{reading.run.scenario}: {reading.faults[reading.run.scenario]}. It stores your original request and "
            "cannot be rebuilt. Restore it from a backup, or start over with another --output-dir"
        )
    lock = RunLock.acquire(reading.run.run_lock, say=say)
    handler = log_to(reading.run.log)
    try:
        work = _Repair(read_run(directory), say)
        work.all()
    finally:
        stop_logging(handler)
        lock.release()
    report = check(directory)
    if not work.changed:
        say(f"nothing was changed in {directory}")
    elif not report.findings:
        say(f"{directory} is whole again; what was changed is kept in {work.backup.name}/. To go on: resume")
    return report


@dataclass
class _Repair:
    reading: Reading
    tell: Callable[[str], None]
    changed: set[Path] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)
    """Commits of the trunk that were made again under another name, old to new."""

    @property
    def run(self) -> RunDirectory:
        return self.reading.run

    @cached_property
    def backup(self) -> Path:
        """Where the files of this repair are kept; made when it is first needed."""
        taken = [path.name.removeprefix("repair-") for path in self.run.root.glob("repair-*")]
        number = max((int(name) for name in taken if name.isdecimal()), default=0) + 1
        folder = self.run.root / f"repair-{number}"
        folder.mkdir(mode=0o700)
        return folder

    def say(self, text: str) -> None:
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
        self._plan()
        self._trunk()
        for found in self.reading.transcripts:
            self._transcript(found)
        self._ledger()
        self._queue()
        self._evidence()
        self._product()
        self._summary()

    def _plan(self) -> None:
        if self.run.plan not in self.reading.faults:
            return
        scenario = self.reading.scenario
        plan = None if scenario and scenario.plan_sha256 else answered_plan(self.reading.ledger.records)
        if plan is None:
            self.say("execution_plan.json cannot be rebuilt: put back the plan file that the run was started from")
            return
        self.keep(self.run.plan)
        write_whole(self.run.plan, json_text(plan.model_dump()))
        self.say("execution_plan.json was rebuilt from the planner's answer in the ledger")
        self.reading = read_run(self.run.root)  # what depends on it can be looked at now

    def _trunk(self) -> None:
        found = trunk.examine(self.run)
        if not self.run.git.exists() or not (found.faults or trunk.is_behind(found, self.reading.replica)):
            return
        known = known_commits(self.reading.queue.records, self.reading.plan)
        for step in trunk.mend(self.run, known, self.keep, self.renamed):
            self.say(step)

    def _transcript(self, found: AttemptFile) -> None:
        content = self.reading.transcripts[found]
        if not content.damage and conversation_fault(content.records) is None:
            self._tree(found, content.records)
            return
        name = found.path.relative_to(self.run.root)
        self.keep(found.path)
        answers = {
            record["turn"]: record
            for record in self.reading.ledger.records
            if record.get("kind") == "answer" and (record["task"], record["attempt"]) == (found.task, found.attempt)
        }
        mending = Mending(answers, lambda tree: trunk.base_under(self.run, self._workspace(found), tree))
        try:
            mending.take(content.records, self._start(found, answers))
        except (NotProvable, KeyError, ValueError, TypeError) as error:
            found.path.unlink()
            content.records = []
            self.say(f"{name}: too little is left ({error}); the attempt begins again, its answers are bought again")
        else:
            content.records = [{**record, "seq": seq} for seq, record in enumerate(mending.records, 1)]
            write_anew(found.path, content.records)
            self.say(f"{name}: put together again, {len(content.records)} records; {'; '.join(mending.steps)}")
        content.damage = []

    def _tree(self, found: AttemptFile, records: Iterable[Record]) -> None:
        """Keep the workspace as it is where the tree that a resume would restore is lost."""
        conversation = fold(records)
        tree = conversation.tree
        task = self.reading.replica.tasks.get(found.task) if self.reading.replica else None
        over = task is None or task.state in SETTLED or task.attempt != found.attempt
        if over:
            return
        self._base(found, conversation.base)
        records = self.reading.transcripts[found].records
        if not tree or trunk.has_tree(self.run, tree):
            return
        self.keep(found.path)
        left = [record for record in records if not (record["kind"] == "tree" and record["tree"] == tree)]
        kept = [{**record, "tree": None} if record.get("tree") == tree else record for record in left]
        write_anew(found.path, kept)
        self.reading.transcripts[found].records = kept
        name = found.path.relative_to(self.run.root)
        self.say(f"{name}: the workspace before its last tools is lost; the attempt continues from what is there")

    def _base(self, found: AttemptFile, base: str) -> None:
        """Where the commit that an attempt started from is lost, have it start from one that can be merged from."""
        if base not in self.renamed and trunk.has_tree(self.run, f"{base}^{{tree}}"):
            return
        new = self.renamed.get(base) or trunk.base_under(self.run, self._workspace(found), None)
        self.keep(found.path)
        records = self.reading.transcripts[found].records
        self.reading.transcripts[found].records = rebased = [
            {**record, "base": new} if record.get("base") == base else record for record in records
        ]
        write_anew(found.path, rebased)
        name = found.path.relative_to(self.run.root)
        self.say(f"{name}: the commit that it started from is lost; it now starts from {new}, which has the same files")

    def _start(self, found: AttemptFile, answers: dict[int, Record]) -> Record | None:
        """The rebuilt first record of a transcript, if the ledger's first answer proves it to be the same."""
        plan, scenario = self.reading.plan, self.reading.scenario
        task = self._task(found.task)
        if plan is None or scenario is None or task is None:
            return None
        begun = opening(
            requirement=scenario.requirements,
            plan=plan,
            task=task,
            model=scenario.executor_model,
            profile=scenario.endpoint_profile,
        )
        trees = (r["tree"] for r in self.reading.transcripts[found].records if r["kind"] == "tree")
        base = trunk.base_under(self.run, self._workspace(found), next(trees, None))
        record: Record = {"kind": "start", **begun, "base": base, "run": scenario.run}
        record |= {"task_id": found.task, "attempt": found.attempt}
        proven = 1 in answers and body_hash(build_request(fold([record]))) == answers[1]["hash"]
        return record if base and proven else None

    def _task(self, name: str) -> Task | None:
        """A task of the plan, or a fix task from the queue's whole records."""
        plan = self.reading.plan
        if plan is None:
            return None
        fixes = fixes_in(self.reading.queue.records)
        known = {task.id: task for task in plan.tasks}
        return fix_task(name, fixes[name], plan) if name in fixes else known.get(name)

    def _workspace(self, found: AttemptFile) -> Path:
        return self.run.workspace(found.executor, found.task, found.attempt)

    def _ledger(self) -> None:
        content, scenario = self.reading.ledger, self.reading.scenario
        if not content.damage and not any(misfits(content.records)) and not self._lacks_answers():
            return
        records = [r for r in content.records if {"kind", "call", "task", "attempt", "turn", "at"} <= r.keys()]
        rebuilt = fitted(records)
        rebuilder = Rebuilder(scenario) if scenario else None
        lost = [
            key
            for said in self.reading.transcripts.values()
            if rebuilder and said.records
            for key in rebuilder.add_lost(rebuilt, said.records)
        ]
        self.keep(self.run.ledger)
        write_anew(self.run.ledger, rebuilt)
        self.reading.ledger = salvage(self.run.ledger)
        result = f"{len(records)} whole records kept, {len(content.missing)} lost"
        if lost:
            result += f"; answers put back from the transcripts: {', '.join(map(_named, lost))}"
        self.say(f"ledger.jsonl: {result}")
        for intent in open_intents(rebuilt):
            bound = "an unknown sum" if intent["bound_usd"] is None else f"up to ${intent['bound_usd']:.2f}"
            self.say(f"ledger.jsonl: {_named(key_of(intent))} has no outcome: it counts at its bound, {bound}")
        if content.missing and not lost:
            self.say("ledger.jsonl: an answer that no transcript took over is bought again when it is needed")

    def _lacks_answers(self) -> bool:
        """Whether a transcript holds an answer that the ledger does not."""
        answered = {key_of(record) for record in self.reading.ledger.records if record.get("kind") == "answer"}
        return any(
            record["kind"] == "answer" and (found.task, found.attempt, record["turn"]) not in answered
            for found, said in self.reading.transcripts.items()
            for record in said.records
        )

    def _queue(self) -> None:
        plan = self.reading.plan
        landed = self._landed()
        if plan is None or landed is None:
            if self.run.queue in self.reading.faults:
                self.say("queue.jsonl needs plan and trunk to be whole first; `repair` again once they are")
            return
        on_trunk = {work.task for work in landed}
        tasks = self.reading.replica.tasks if self.reading.replica else {}
        unproven = [t for t, s in tasks.items() if s.state is TaskState.MERGED and t not in on_trunk]
        begun = self._begun()
        replica = self.reading.replica
        unknown = list(unknown_attempts(replica, self.reading.transcripts)) if replica else []
        unplanned = [task for task in on_trunk if FIX_ID.fullmatch(task) and task not in tasks]
        if self.run.queue not in self.reading.faults and not unproven and not unknown and not unplanned:
            return
        self.keep(self.run.queue)
        rebuilt = Rebuilt(plan.graph())
        rebuilt.keep(self.reading.queue.unbroken, on_trunk, {(a.task, a.attempt): a.executor for a in unknown})
        kept = len(rebuilt.records)
        rebuilt.plan_fixes({work.task for work in landed} | {attempt.task for attempt in self.reading.transcripts})
        rebuilt.complete([work for work in landed if work.task in rebuilt.replica.tasks], begun)
        write_anew(self.run.queue, rebuilt.records)
        self.reading.queue = salvage(self.run.queue)
        counts = ", ".join(f"{number} {state}" for state, number in rebuilt.replica.count().items() if number)
        self.say(
            f"queue.jsonl: {kept} records kept, the rest rebuilt from trunk and transcripts: {counts}. "
            "When and how long the tasks were worked on after that record is lost"
        )

    def _landed(self) -> list[Landed] | None:
        try:
            found = trunk.commits(self.run)
        except CannotGoOn:
            return None
        commits = [commit for commit in found if "Task" in commit.trailers]
        return [Landed(c.trailers["Task"], c.number("Attempt"), read_evidence(self.run, c)) for c in commits]

    def _begun(self) -> dict[str, Begun]:
        begun: dict[str, Begun] = {}
        for found, content in sorted(self.reading.transcripts.items(), key=lambda item: item[0].attempt):
            if _in(self.reading.plan, found.task) or FIX_ID.fullmatch(found.task):
                for last in deque(content.records, maxlen=1):
                    begun[found.task] = Begun(found.task, found.attempt, found.executor, last)
        return begun

    def _evidence(self) -> None:
        """Restore lost evidence files of merges from the queue."""
        if not self.run.git.exists():
            return
        proven = (r for r in self.reading.queue.records if r.get("state") == TaskState.MERGED and r.get("evidence"))
        for task, attempt, evidence in ((r["task"], r["attempt"], r["evidence"]) for r in proven):
            for path, what in evidence_faults(self.run, task, attempt):
                if path.suffix == ".json":
                    self.keep(path)
                    restore_evidence(self.run, task, attempt, evidence)
                    self.say(f"{path.relative_to(self.run.root)}: {what}; it was written again from the queue")

    def _product(self) -> None:
        """Restore the trunk's files in an ended run's directory; in others, the next resume does that."""
        found = trunk.examine(self.run)
        if found.differences and finished_summary(self.run):
            for step in trunk.restore(self.run, self.keep):
                self.say(step)

    def _summary(self) -> None:
        summary, right = read_summary(self.run), ended_summary(self.run)
        replica = read_run(self.run.root).replica
        if right is not None and replica and replica.finals:
            if summary != right:
                self.keep(self.run.summary)
                write_whole(self.run.summary, summary_text(right))
                self.say("execution_summary.json was written again from the run's other files")
            return
        if summary is None or not (self.changed or check(self.run.root).concerns(self.run.summary.name)):
            return
        self.keep(self.run.summary)
        self.run.summary.unlink()
        self.say("execution_summary.json was moved aside; `resume` writes it again")


def _in(plan: Plan | None, task: str) -> bool:
    return plan is not None and any(task == planned.id for planned in plan.tasks)


def _named(key: tuple[str, int, int]) -> str:
    return f"{key[0]} attempt {key[1]} turn {key[2]}"
