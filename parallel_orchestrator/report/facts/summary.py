"""execution_summary.json: what a run did, folded from its files alone.

Claimed, executed, verified and merged are told apart: a model's word is none of them. `verified` means
that our own test run over the merged tree passed with this task's tests in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.records.fix import FIX_NAME, FixTask, fix_task
from parallel_orchestrator.records.journals.queue import Move, QueueRecord, corrections_in, fixes_in
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.plan import Plan, Task
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.report.facts.spending import Ledger, read_ledger
from parallel_orchestrator.report.facts.timing import Timing, fold_timing
from parallel_orchestrator.store.branch import branch_head
from parallel_orchestrator.store.journal import read_all, read_each
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.plan_file import plan_of
from parallel_orchestrator.store.queue.queue_state import Replica, TaskStatus, follow
from parallel_orchestrator.store.record_parser import QUEUE
from parallel_orchestrator.store.run_directory import require_scenario
from parallel_orchestrator.system import json_codec
from parallel_orchestrator.system.terminal_text import json_text

VERSION = 1
_TOLD = {"status", "tests", "verify", "lines_of_code", "coverage_percent", "tokens", "cost_usd", "tasks"}
"""Some of what a summary has to hold before it is shown to anybody."""


@dataclass(frozen=True)
class RunState:
    """Everything that the files of a run say, folded once."""

    run: RunDirectory
    scenario: Scenario
    plan: Plan
    replica: Replica
    moves: list[QueueRecord]
    timing: Timing
    ledger: Ledger

    def fixes(self) -> list[FixTask]:
        """The fix tasks that were planned, in their order, with their facts."""
        return [fix_task(fix, red, self.plan) for fix, red in fixes_in(self.moves).items()]

    def name(self, task: str) -> str:
        """A task's name, also that of a fix task."""
        return FIX_NAME if task in self.replica.fixes else self.plan.task(task).name

    def evidence(self, task: str) -> dict[str, Any]:
        """What was checked when the task was last handed in; empty before that."""
        return next((move.evidence for move in self.merges() if move.task == task), {})

    def merges(self) -> Iterator[Move]:
        """The moves that came with evidence, the last one first."""
        return (move for move in reversed(self.moves) if isinstance(move, Move) and move.evidence)


def read_state(run: RunDirectory, scenario: Scenario, plan: Plan) -> RunState:
    """Fold queue and ledger, without changing either."""
    moves = read_all(run.queue, QUEUE)
    replica = Replica(plan.graph())
    follow(replica, moves, run.queue)
    return RunState(run, scenario, plan, replica, moves, fold_timing(moves), read_ledger(run.ledger))


def summarize(state: RunState, final: dict[str, Any] | None) -> dict[str, Any]:
    """The summary as a dict. `final`: tests, coverage and lines of the final trunk, None when they were not run."""
    counts = state.replica.count()
    tasks = [_task_summary(state, task) for task in state.plan.tasks]
    fixes = [{**_task_summary(state, fix), "red": fix.red.reasons()} for fix in state.fixes()]
    total = len(tasks)
    return {
        "version": VERSION,
        "run": state.scenario.run,
        "requirements": state.scenario.requirements,
        "status": _status(state, final),
        "total_tasks": total,
        "completed": counts[TaskState.MERGED],
        "failed": counts[TaskState.FAILED],
        "blocked": counts[TaskState.BLOCKED],
        "success_rate": counts[TaskState.MERGED] / total,
        "total_files_created": sum(task["files_created"] for task in [*tasks, *fixes]),
        **(final or {"lines_of_code": None, "tests": None, "coverage_percent": None, "verify": None}),
        **_parallelism(state),
        **state.ledger.total().as_json(),
        "planning": _planning(state),
        "tasks": tasks,
        "fixes": fixes,
        "corrections": [one.as_json() for one in corrections_in(state.moves)],
    }


def incomplete_summary(run: RunDirectory, scenario: Scenario, plan: Plan) -> dict[str, Any]:
    """Returns the summary of a run that stopped: where its last tests are recorded already, the summary of its end."""
    state = read_state(run, scenario, plan)
    return ended(state) or summarize(state, None)


def last_summary(run: RunDirectory) -> dict[str, Any] | None:
    """The summary that a run has, else None."""
    try:
        summary: dict[str, Any] = json.loads(run.summary.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return None  # derived: made again from the other files
    if not isinstance(summary, dict) or summary.get("version") != VERSION or not summary.keys() >= _TOLD:
        return None  # altered, or another version's: made again as well
    return summary


def ended_summary(run: RunDirectory) -> dict[str, Any] | None:
    """The summary of a run that has come to its end, else None; also where its files cannot be read.

    Folded from queue and ledger, so an edit of execution_summary.json has no effect on it.
    """
    try:
        return ended(read_state(run, require_scenario(run), plan_of(run)))
    except (OrchestratorError, OSError):
        return None  # the commands that resume the run say what is wrong


def ended(state: RunState) -> dict[str, Any] | None:
    """`ended_summary` of what is read already."""
    if state.replica.unsettled:
        return None
    final = state.replica.final
    if final is None:
        return _ended_before_records(state)
    if final["head"] != branch_head(state.run.git):
        return None  # a commit came since: the whole has to be tested again
    return summarize(state, {name: value for name, value in final.items() if name != "head"})


def _ended_before_records(state: RunState) -> dict[str, Any] | None:
    """Of a run that ended under a version that recorded no final tests: its own summary, where the queue agrees."""
    summary = last_summary(state.run)
    merged = state.replica.count()[TaskState.MERGED] == len(state.plan.tasks)
    if summary is None or state.replica.finals or summary["status"] not in ("done", "failed"):
        return None
    return summary if merged or summary["status"] == "failed" else None


def finished_summary(run: RunDirectory) -> dict[str, Any] | None:
    """The summary of a run that has come to its end and has nothing left to do, else None."""
    summary = ended_summary(run)
    if summary is None or summary["status"] == "done":
        return summary
    # Everything is merged and only the last tests were red: there is something to do.
    return summary if summary["failed"] or summary["blocked"] else None


def may_be_red(run: RunDirectory) -> bool:
    """Whether a run with everything merged may have a red whole: its last tests were red or are unknown."""
    summary = ended_summary(run)
    return summary is None or summary["status"] != "done"


def summary_text(summary: dict[str, Any]) -> str:
    """The summary as the JSON that the file holds."""
    return json_text(summary)


def succeeded(summary: dict[str, Any]) -> bool:
    """Whether everything is done and green."""
    return bool(summary["status"] == "done")


def _status(state: RunState, final: dict[str, Any] | None) -> str:
    if state.replica.unsettled:
        return "incomplete"
    merged = state.replica.count()[TaskState.MERGED] == len(state.plan.tasks)
    return "done" if merged and final and final.get("green") else "failed"


def _parallelism(state: RunState) -> dict[str, Any]:
    timing, sessions = state.timing, state.replica.sessions
    utilisation = timing.utilisation()
    return {
        "executors_used": len(utilisation),
        "executors_started": max((session.executors for session in sessions), default=0),
        "executors_budget": state.scenario.max_executors,
        "sessions": len(sessions),
        "makespan_s": round(timing.makespan, 3),
        "work_s": round(timing.work, 3),
        "critical_path_s": round(timing.critical_path(state.replica.graph), 3),
        "speedup": round(timing.work / timing.makespan, 3) if timing.makespan else None,
        "utilisation": {f"executor_{k}": round(share, 3) for k, share in utilisation.items()},
    }


def _planning(state: RunState) -> dict[str, Any]:
    spending = state.ledger.of("plan")
    return {
        "complexity": state.plan.complexity.level,
        "endpoint_s": round(spending.endpoint_s, 3),
        **spending.as_json(),
    }


def _task_summary(state: RunState, task: Task) -> dict[str, Any]:
    status, holds = state.replica.tasks[task.id], state.timing.of(task.id)
    evidence = state.evidence(task.id)
    return {
        "id": task.id,
        "name": task.name,
        "state": status.state.value,
        "reason": status.why,
        "claimed": bool(holds),
        "executed": _handed_in(state.run, task.id, status),
        "verified": evidence.get("tested") == "merged and tested",
        "merged": status.state is TaskState.MERGED,
        "executor": f"executor_{status.folder}" if status.folder else None,
        "attempt": status.attempt,
        "deaths": status.deaths,
        "started_s": round(holds[0].start, 3) if holds else None,
        "ended_s": round(holds[-1].end, 3) if holds else None,
        "duration_s": round(sum(hold.seconds for hold in holds), 3),
        "files_created": evidence["files"]["created"]["count"] if "files" in evidence else 0,
        **state.ledger.of(task.id).as_json(),
        "evidence": evidence,
    }


def _handed_in(run: RunDirectory, task: str, status: TaskStatus) -> bool:
    """Whether the present attempt's conversation came to an end and its work was handed in."""
    if not status.folder:
        return False
    records = read_each(run.transcript(status.folder, task, status.attempt), json_codec.loads)
    return any(record.get("kind") == "submitted" for record in records)
