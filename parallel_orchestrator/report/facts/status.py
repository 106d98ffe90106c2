"""How a run stands, from its files alone, while it works and at any time after. Nothing is written or locked."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from parallel_orchestrator.records.lifecycle import SETTLED, TaskState
from parallel_orchestrator.records.plan import Task
from parallel_orchestrator.report.facts.spending import Spending, read_ledger
from parallel_orchestrator.report.facts.summary import RunState, ended, read_state
from parallel_orchestrator.report.pages.transcript_page import call_text
from parallel_orchestrator.store.journal import decode
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.plan_file import read_plan
from parallel_orchestrator.store.queue.queue_state import Claim, TaskStatus
from parallel_orchestrator.store.run_directory import require_scenario
from parallel_orchestrator.store.run_lock import Owner, read_owner
from parallel_orchestrator.system.invocation import command
from parallel_orchestrator.system.tail import Tail

_TASK_NUMBERS = ("total", "merged", "claimed", "ready", "waiting", "failed", "blocked")


def run_status(run: RunDirectory) -> dict[str, Any]:
    """The run as a dict; `state` is planning, planned, running, interrupted, failed or done.

    Raises UsageError where no run is, DamagedState when a file cannot be understood.
    """
    scenario = require_scenario(run)
    owner = read_owner(run.run_lock)
    alive = bool(owner and owner.alive())
    planned = run.plan.exists()
    state = read_state(run, scenario, read_plan(run.plan)) if planned else None
    ledger = state.ledger if state else read_ledger(run.ledger)
    spent = ledger.total()
    summary = ended(state) if state else None
    trouble = ledger.trouble if alive else None
    word = _word(summary, alive, planned, begun=bool(state and state.moves))
    tasks = _tasks(state, alive, state.plan.tasks) if state else []
    fixes = _tasks(state, alive, state.fixes()) if state else []
    return {
        "kind": "run",
        "directory": str(run.root),
        "state": word,
        "requirements": scenario.requirements,
        "owner": {**asdict(owner), "alive": alive} if owner else None,
        "tasks": _numbers(tasks),
        "tests": _tests(state, summary),
        "verify": _verify(summary),
        "facts": ((summary or {}).get("tests") or {}).get("facts", []),
        **_money(spent),
        "max_cost_usd": scenario.max_cost_usd,
        "endpoint_trouble": trouble.as_json(time.time()) if trouble and trouble.text(time.time()) else None,
        "elapsed_s": _elapsed(state, working=word == "running"),
        "task_list": tasks,
        "fix_list": fixes,
        "corrections": (summary or {}).get("corrections", []),
        "next": next_command(word, run.root),
    }


def _word(summary: dict[str, Any] | None, alive: bool, planned: bool, *, begun: bool) -> str:
    if summary:
        return str(summary["status"])
    if alive:
        return "running" if planned else "planning"
    return "planned" if planned and not begun else "interrupted"


def _verify(summary: dict[str, Any] | None) -> list[dict[str, Any]]:
    """How the verify commands ended; of those that failed also the end of their output."""
    found = (summary or {}).get("verify") or []
    shown = ("command", "code", "output")
    return [{name: one[name] for name in (shown if one["code"] else shown[:2])} for one in found]


def next_command(state: str, directory: Path) -> str:
    """What to type after a look."""
    if state in ("running", "planning"):
        return f"{command('status', directory)} --follow"
    if state == "done":
        return f"cd {shlex.quote(str(directory))} && python -m pytest"
    return command("retry" if state == "failed" else "resume", directory)


def _tasks(state: RunState, alive: bool, nodes: Sequence[Task]) -> list[dict[str, Any]]:
    seconds: dict[str, float] = {}
    for hold in state.timing.holds:
        seconds[hold.task] = seconds.get(hold.task, 0.0) + hold.seconds
    return [_task(state, task, seconds.get(task.id, 0.0), alive) for task in nodes]


def _task(state: RunState, node: Task, seconds: float, alive: bool) -> dict[str, Any]:
    task, status = node.id, state.replica.tasks[node.id]
    claim = status.claim if alive else None
    open_ = status.folder and status.state not in SETTLED
    turns = state.ledger.turns(task, status.attempt) if open_ else 0
    return {
        "id": task,
        "name": node.name,
        "state": _task_word(status, alive),
        "why": status.why,
        "attempt": status.attempt,
        "executor": claim.executor if claim else None,
        "turns": turns,
        "doing": doing(state.run, claim, turns) if claim else "",
        "seconds": round(seconds + (held_s(status) if claim else 0.0), 1),
        "cost_usd": round(state.ledger.of(task).usd, 6),
    }


def _task_word(status: TaskStatus, alive: bool) -> str:
    if status.state is TaskState.CLAIMED and not alive:
        return "interrupted"
    if status.state in (TaskState.QUEUED, TaskState.REPAIR):
        return "waiting" if status.waiting_for else "ready"
    return status.state.value


def held_s(status: TaskStatus) -> float:
    """Seconds since a task was claimed; 0 where the machine was started again since."""
    return max(0.0, time.monotonic() - status.claimed_at)


def doing(run: RunDirectory, claim: Claim, turns: int) -> str:
    """What the executor of a claim does, as its transcript tells."""
    path = run.transcript(claim.folder, claim.task, claim.attempt)
    for line in reversed(list(Tail(path, 2).read_new())):
        record = decode(line) or {}
        if record.get("kind") == "answer":
            calls = [block for block in record["content"] if block["type"] == "tool_use"]
            return f"turn {turns}: {call_text(calls[0])}" if calls else "finishing"
        if record.get("kind") in ("finished", "submitted"):
            return "testing and merging"
        if record.get("kind") != "tree":  # which stands between an answer and its tools
            break
    return f"asking the model (turn {turns + 1})"


def _numbers(tasks: list[dict[str, Any]]) -> dict[str, int]:
    states = [task["state"] for task in tasks]
    counts = {name: states.count(name) for name in _TASK_NUMBERS}
    return {**counts, "total": len(tasks), "claimed": counts["claimed"] + states.count("interrupted")}


def _tests(state: RunState | None, summary: dict[str, Any] | None) -> dict[str, int] | None:
    """Of the finished whole, or as they were when something was merged last."""
    counts = summary.get("tests") if summary else None
    if counts is None and state is not None:
        told = (move.evidence.get("tests") for move in state.merges())
        counts = next(filter(None, told), None)
    return {name: counts[name] for name in ("passed", "failed", "skipped")} if counts else None


def _money(spent: Spending) -> dict[str, Any]:
    wanted = ("cost_usd", "uncertain_cost_usd", "recorded_cost_usd", "unpriced_calls", "model_calls")
    return {name: value for name, value in spent.as_json().items() if name in wanted}


def _elapsed(state: RunState | None, *, working: bool) -> float:
    if state is None or not state.replica.sessions:
        return 0.0
    since = time.monotonic() - state.replica.sessions[-1].last if working else 0.0
    return round(state.timing.makespan + max(0.0, since), 1)


def owner_text(owner: dict[str, Any] | Owner | None) -> str:
    """Who has the directory, for a person."""
    if owner is None:
        return "nobody"
    fields = owner if isinstance(owner, dict) else {**asdict(owner), "alive": owner.alive()}
    ended = "" if fields["alive"] else ", which has ended"
    return f"process {fields['pid']} on {fields['host']}, started {fields['started']}{ended}"
