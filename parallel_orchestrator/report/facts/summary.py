"""execution_summary.json: what a run did, folded from its files alone.

Claimed, executed, verified and merged are four facts; a model's word is none of them. `verified` means
that our own test run over the merged tree passed with this task's tests in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import structs

from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.records.fix import FIX_NAME, FixTask, fix_task
from parallel_orchestrator.records.journals.evidence import MergeEvidence
from parallel_orchestrator.records.journals.queue import Move, QueueRecord, corrections_in, fixes_in
from parallel_orchestrator.records.journals.transcript import ConversationEnded
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.plan import Plan, Task
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.report.facts.documents import CorrectionNote, Final, PlanningSummary, Summary, TaskSummary
from parallel_orchestrator.report.facts.spending import FollowedLedger, call_fields, read_ledger
from parallel_orchestrator.report.facts.timing import Timing, fold_timing
from parallel_orchestrator.store.branch import branch_head
from parallel_orchestrator.store.journal import read_all, read_each
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.plan_file import plan_of
from parallel_orchestrator.store.queue.queue_state import QueueState, TaskStatus, follow
from parallel_orchestrator.store.record_parser import QUEUE, TRANSCRIPT
from parallel_orchestrator.store.run_directory import require_scenario

VERSION = 1


@dataclass(frozen=True)
class RunState:
    """Everything that the files of a run say, folded once."""

    run: RunDirectory
    scenario: Scenario
    plan: Plan
    queue_state: QueueState
    moves: list[QueueRecord]
    timing: Timing
    ledger: FollowedLedger

    def fixes(self) -> list[FixTask]:
        """The fix tasks that were planned, in order, with their facts."""
        return [fix_task(fix, red, self.plan) for fix, red in fixes_in(self.moves).items()]

    def name(self, task: str) -> str:
        """The name of a task or fix task."""
        return FIX_NAME if task in self.queue_state.fixes else self.plan.task(task).name

    def evidence(self, task: str) -> MergeEvidence:
        """What was checked when the task was last handed in; empty before that."""
        return next((found for move_task, found in self.merges() if move_task == task), MergeEvidence())

    def merges(self) -> Iterator[tuple[str, MergeEvidence]]:
        """Tasks and their evidence, the last one first."""
        moves = (move for move in reversed(self.moves) if isinstance(move, Move))
        return ((move.task, move.evidence) for move in moves if move.evidence)


def read_state(run: RunDirectory, scenario: Scenario, plan: Plan) -> RunState:
    """Return the fold of queue and ledger. Changes neither."""
    moves = read_all(run.queue, QUEUE)
    queue_state = QueueState(plan.graph())
    follow(queue_state, moves, run.queue)
    return RunState(run, scenario, plan, queue_state, moves, fold_timing(moves), read_ledger(run.ledger))


def summarize(state: RunState, final: dict[str, Any] | None) -> Summary:
    """Return the summary. `final`: what the tests of the whole said; None when they were not run."""
    tested = msgspec.convert(final or {}, Final)
    counts = state.queue_state.count()
    tasks = [_task_summary(state, task) for task in state.plan.tasks]
    fixes = [structs.replace(_task_summary(state, fix), red=fix.red.reasons()) for fix in state.fixes()]
    total = len(tasks)
    return Summary(
        run=state.scenario.run,
        requirements=state.scenario.requirements,
        status=_status(state, tested),
        total_tasks=total,
        completed=counts[TaskState.MERGED],
        failed=counts[TaskState.FAILED],
        blocked=counts[TaskState.BLOCKED],
        success_rate=counts[TaskState.MERGED] / total,
        total_files_created=sum(task.files_created for task in [*tasks, *fixes]),
        **{name: getattr(tested, name) for name in Final.__struct_fields__ if name != "head"},
        **_parallelism(state),
        **call_fields(state.ledger.total()),
        planning=_planning(state),
        tasks=tasks,
        fixes=fixes,
        corrections=[CorrectionNote(**one.as_json()) for one in corrections_in(state.moves)],
    )


def incomplete_summary(run: RunDirectory, scenario: Scenario, plan: Plan) -> Summary:
    """Return the summary of a run that stopped: where its last tests are recorded already, the summary of its end."""
    state = read_state(run, scenario, plan)
    return ended(state) or summarize(state, None)


def last_summary(run: RunDirectory) -> Summary | None:
    """Return the summary on disk; None where there is none, or where it was altered: it is derived, and made again."""
    try:
        return msgspec.json.decode(run.summary.read_bytes(), type=Summary)
    except (FileNotFoundError, ValueError):
        return None


def ended_summary(run: RunDirectory) -> Summary | None:
    """The summary of a run that has come to its end, else None; also where its files cannot be read.

    Folded from queue and ledger, so an edit of execution_summary.json has no effect on it.
    """
    try:
        return ended(read_state(run, require_scenario(run), plan_of(run)))
    except (OrchestratorError, OSError):
        return None  # the commands that resume the run say what is wrong


def ended(state: RunState) -> Summary | None:
    """`ended_summary` of what is read already."""
    if state.queue_state.unsettled:
        return None
    final = state.queue_state.final
    if final is None:
        return _ended_before_records(state)
    if final.get("head") != branch_head(state.run.git):
        return None  # a commit came since: the whole has to be tested again
    return summarize(state, final)


def _ended_before_records(state: RunState) -> Summary | None:
    """Of a run that ended under a version that recorded no final tests: its own summary, where the queue agrees."""
    summary = last_summary(state.run)
    merged = state.queue_state.count()[TaskState.MERGED] == len(state.plan.tasks)
    if summary is None or state.queue_state.finals or summary.status not in ("done", "failed"):
        return None
    return summary if merged or summary.status == "failed" else None


def finished_summary(run: RunDirectory) -> Summary | None:
    """The summary of a run that has come to its end and has nothing left to do, else None."""
    summary = ended_summary(run)
    if summary is None or summary.succeeded():
        return summary
    # Everything is merged and only the last tests were red: there is something to do.
    return summary if summary.failed or summary.blocked else None


def may_be_red(run: RunDirectory) -> bool:
    """Whether a run with everything merged may have a red whole: its last tests were red or are unknown."""
    summary = ended_summary(run)
    return summary is None or not summary.succeeded()


def _status(state: RunState, final: Final) -> Literal["done", "failed", "incomplete"]:
    if state.queue_state.unsettled:
        return "incomplete"
    merged = state.queue_state.count()[TaskState.MERGED] == len(state.plan.tasks)
    return "done" if merged and final.green is True else "failed"


def _parallelism(state: RunState) -> dict[str, Any]:
    timing, sessions = state.timing, state.queue_state.sessions
    utilisation = timing.utilisation()
    return {
        "executors_used": len(utilisation),
        "executors_started": max((session.executors for session in sessions), default=0),
        "executors_budget": state.scenario.max_executors,
        "sessions": len(sessions),
        "makespan_s": round(timing.makespan, 3),
        "work_s": round(timing.work, 3),
        "critical_path_s": round(timing.critical_path(state.queue_state.graph), 3),
        "speedup": round(timing.work / timing.makespan, 3) if timing.makespan else None,
        "utilisation": {f"executor_{k}": round(share, 3) for k, share in utilisation.items()},
    }


def _planning(state: RunState) -> PlanningSummary:
    spending = state.ledger.of("plan")
    level = state.plan.complexity.level
    return PlanningSummary(complexity=level, endpoint_s=round(spending.endpoint_s, 3), **call_fields(spending))


def _task_summary(state: RunState, task: Task) -> TaskSummary:
    status, holds = state.queue_state.tasks[task.id], state.timing.of(task.id)
    evidence = state.evidence(task.id)
    return TaskSummary(
        id=task.id,
        name=task.name,
        state=status.state.value,
        reason=status.why,
        claimed=bool(holds),
        executed=_handed_in(state.run, task.id, status),
        verified=evidence.tested == "merged and tested",
        merged=status.state is TaskState.MERGED,
        executor=f"executor_{status.folder}" if status.folder else None,
        attempt=status.attempt,
        deaths=status.deaths,
        started_s=round(holds[0].start, 3) if holds else None,
        ended_s=round(holds[-1].end, 3) if holds else None,
        duration_s=round(sum(hold.seconds for hold in holds), 3),
        files_created=evidence.files.created.count if evidence.files else 0,
        **call_fields(state.ledger.of(task.id)),
        evidence=evidence.as_json(),
    )


def _handed_in(run: RunDirectory, task: str, status: TaskStatus) -> bool:
    """Whether the present attempt's conversation came to an end and its work was handed in."""
    if not status.folder:
        return False
    records = read_each(run.transcript(status.folder, task, status.attempt), TRANSCRIPT)
    return any(isinstance(record, ConversationEnded) and record.kind == "submitted" for record in records)
