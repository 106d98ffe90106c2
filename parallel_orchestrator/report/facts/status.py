"""The status of a run, by its files alone, while it works and afterwards. Writes and locks nothing."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from msgspec import UNSET, structs

from parallel_orchestrator.records.lifecycle import SETTLED, TaskState
from parallel_orchestrator.records.plan import Task
from parallel_orchestrator.report.facts.documents import CorrectionNote, JsonDocument, Summary, TestTotals, VerifyCheck
from parallel_orchestrator.report.facts.spending import STATUS_MONEY, call_fields, read_ledger
from parallel_orchestrator.report.facts.summary import RunState, ended, read_state
from parallel_orchestrator.report.facts.trouble import Trouble
from parallel_orchestrator.report.pages.transcript_page import call_text
from parallel_orchestrator.store.journal import decode
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.plan_file import read_plan
from parallel_orchestrator.store.queue.queue_state import Claim, TaskStatus
from parallel_orchestrator.store.run_directory import require_scenario
from parallel_orchestrator.store.run_lock import read_owner
from parallel_orchestrator.system.invocation import command
from parallel_orchestrator.system.tail import Tail


class OwnerStatus(JsonDocument, frozen=True, kw_only=True):
    """The orchestrator that holds a directory."""

    pid: int
    host: str
    started: str
    birth: int
    pids: str
    alive: bool

    def __str__(self) -> str:
        """Name it for a person."""
        ended = "" if self.alive else ", which has ended"
        return f"process {self.pid} on {self.host}, started {self.started}{ended}"


class TroubleStatus(JsonDocument, frozen=True, kw_only=True):
    """What fails at the endpoint."""

    what: str
    tries: int
    next_s: float
    gives_up_s: float


class TaskCounts(JsonDocument, frozen=True, kw_only=True):
    """Tasks by state."""

    total: int = 0
    merged: int = 0
    claimed: int = 0
    ready: int = 0
    waiting: int = 0
    failed: int = 0
    blocked: int = 0


class TaskStatusLine(JsonDocument, frozen=True, kw_only=True):
    """One task of a run's status."""

    id: str
    name: str
    state: str
    why: str
    attempt: int
    executor: int | None
    turns: int
    doing: str
    seconds: float
    cost_usd: float


class RunStatus(JsonDocument, frozen=True, kw_only=True):
    """`status --json` of a run."""

    kind: Literal["run"] = "run"
    directory: str
    state: str
    requirements: str
    owner: OwnerStatus | None
    tasks: TaskCounts
    tests: TestTotals | None
    verify: list[VerifyCheck]
    facts: list[str]
    cost_usd: float
    uncertain_cost_usd: float
    recorded_cost_usd: float
    unpriced_calls: float
    model_calls: int
    max_cost_usd: float | None
    endpoint_trouble: TroubleStatus | None
    elapsed_s: float
    task_list: list[TaskStatusLine]
    fix_list: list[TaskStatusLine]
    corrections: list[CorrectionNote]
    next: str


def run_status(run: RunDirectory) -> RunStatus:
    """Return the status; `state` is planning, planned, running, interrupted, failed or done.

    Raises UsageError where no run is, DamagedState when a file cannot be understood.
    """
    scenario = require_scenario(run)
    owner = owner_status(run.run_lock)
    alive = bool(owner and owner.alive)
    planned = run.plan.exists()
    state = read_state(run, scenario, read_plan(run.plan)) if planned else None
    ledger = state.ledger if state else read_ledger(run.ledger)
    summary = ended(state) if state else None
    word = _word(summary, alive, planned, begun=bool(state and state.moves))
    tasks = _tasks(state, alive, state.plan.tasks) if state else []
    return RunStatus(
        directory=str(run.root),
        state=word,
        requirements=scenario.requirements,
        owner=owner,
        tasks=_counts(tasks),
        tests=_tests(state, summary),
        verify=_verify(summary),
        facts=summary.tests.facts if summary and summary.tests else [],
        **call_fields(ledger.total(), *STATUS_MONEY),
        max_cost_usd=scenario.max_cost_usd,
        endpoint_trouble=_trouble(ledger.trouble) if alive else None,
        elapsed_s=_elapsed(state, working=word == "running"),
        task_list=tasks,
        fix_list=_tasks(state, alive, state.fixes()) if state else [],
        corrections=summary.corrections if summary else [],
        next=next_command(word, run.root),
    )


def owner_status(lock: Path) -> OwnerStatus | None:
    """Return the process that holds the directory, or held it last; None where there was none."""
    owner = read_owner(lock)
    return OwnerStatus(**asdict(owner), alive=owner.alive()) if owner else None


def _word(summary: Summary | None, alive: bool, planned: bool, *, begun: bool) -> str:
    if summary:
        return summary.status
    if alive:
        return "running" if planned else "planning"
    return "planned" if planned and not begun else "interrupted"


def _verify(summary: Summary | None) -> list[VerifyCheck]:
    """How the verify commands ended, with the output of those that failed."""
    checks = (summary.verify if summary else None) or []
    return [check if check.code else structs.replace(check, output=UNSET) for check in checks]


def _trouble(trouble: Trouble | None) -> TroubleStatus | None:
    now = time.time()
    if not (trouble and trouble.text(now)):
        return None
    return TroubleStatus(
        what=trouble.what,
        tries=trouble.tries,
        next_s=round(max(0.0, trouble.next_at - now), 1),
        gives_up_s=round(max(0.0, trouble.gives_up_at - now), 1),
    )


def next_command(state: str, directory: Path) -> str:
    """Return the command to type next."""
    if state in ("running", "planning"):
        return f"{command('status', directory)} --follow"
    if state == "done":
        return f"cd {shlex.quote(str(directory))} && python -m pytest"
    return command("retry" if state == "failed" else "resume", directory)


def _tasks(state: RunState, alive: bool, nodes: Sequence[Task]) -> list[TaskStatusLine]:
    seconds: dict[str, float] = {}
    for hold in state.timing.holds:
        seconds[hold.task] = seconds.get(hold.task, 0.0) + hold.seconds
    return [_task(state, task, seconds.get(task.id, 0.0), alive) for task in nodes]


def _task(state: RunState, node: Task, seconds: float, alive: bool) -> TaskStatusLine:
    task, status = node.id, state.queue_state.tasks[node.id]
    claim = status.claim if alive else None
    is_open = status.folder and status.state not in SETTLED
    turns = state.ledger.turns(task, status.attempt) if is_open else 0
    return TaskStatusLine(
        id=task,
        name=node.name,
        state=_task_word(status, alive),
        why=status.why,
        attempt=status.attempt,
        executor=claim.executor if claim else None,
        turns=turns,
        doing=doing(state.run, claim, turns) if claim else "",
        seconds=round(seconds + (held_s(status) if claim else 0.0), 1),
        cost_usd=round(state.ledger.of(task).usd, 6),
    )


def _task_word(status: TaskStatus, alive: bool) -> str:
    if status.state is TaskState.CLAIMED and not alive:
        return "interrupted"
    if status.state in (TaskState.QUEUED, TaskState.REPAIR):
        return "waiting" if status.waiting_for else "ready"
    return status.state.value


def held_s(status: TaskStatus) -> float:
    """Seconds since a task was claimed; 0 where the machine has rebooted since."""
    return max(0.0, time.monotonic() - status.claimed_at)


def doing(run: RunDirectory, claim: Claim, turns: int) -> str:
    """What the executor of a claim does, by its transcript."""
    path = run.transcript(claim.folder, claim.task, claim.attempt)
    for line in reversed(list(Tail(path, 2).read_new())):
        record = decode(line) or {}
        if record.get("kind") == "answer":
            calls = [block for block in record["content"] if block["type"] == "tool_use"]
            return f"turn {turns}: {call_text(calls[0])}" if calls else "finishing"
        if record.get("kind") in ("finished", "submitted"):
            return "testing and merging"
        if record.get("kind") != "tree":  # a tree comes between an answer and its tools
            break
    return f"asking the model (turn {turns + 1})"


def _counts(tasks: list[TaskStatusLine]) -> TaskCounts:
    states = Counter("claimed" if task.state == "interrupted" else task.state for task in tasks)
    return TaskCounts(
        **{name: states[name] for name in TaskCounts.__struct_fields__ if name != "total"}, total=len(tasks)
    )


def _tests(state: RunState | None, summary: Summary | None) -> TestTotals | None:
    """Of the finished whole, or as they were at the last merge."""
    merged = (evidence.tests for _, evidence in (state.merges() if state else ()) if evidence.tests)
    tests = (summary.tests if summary else None) or next(merged, None)
    return TestTotals(passed=tests.passed, failed=tests.failed, skipped=tests.skipped) if tests else None


def _elapsed(state: RunState | None, *, working: bool) -> float:
    if state is None or not state.queue_state.sessions:
        return 0.0
    since = time.monotonic() - state.queue_state.sessions[-1].last if working else 0.0
    return round(state.timing.makespan + max(0.0, since), 1)
