"""execution_plan.json: a run's plan as it was made; never rewritten once work began."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path

from pydantic import ValidationError

from parallel_orchestrator.records.errors import DamagedState, UsageError
from parallel_orchestrator.records.fix import FIX_ID, fix_task
from parallel_orchestrator.records.journals.queue import corrections_in, fixes_in
from parallel_orchestrator.records.journals.red_whole import corrected
from parallel_orchestrator.records.plan import Plan, Task, plan_faults
from parallel_orchestrator.store.journal import read_all
from parallel_orchestrator.store.paths import RunDirectory, repair_hint
from parallel_orchestrator.store.record_parser import QUEUE
from parallel_orchestrator.system.terminal_text import json_text


def read_plan(path: Path) -> Plan:
    """The plan of a run, as it was written. Raises DamagedState when the file was changed into no plan."""
    text = path.read_bytes()
    if newer := re.match(rb'\s*\{\s*"version":\s*(\d+)', text):
        raise UsageError(f"{path} has version {int(newer[1])}; this program reads plans without one, of version 1")
    try:
        plan = Plan.model_validate_json(text)
    except ValidationError as error:
        raise DamagedState(f"{path} is no plan any more: {error.errors()[0]['msg']}. {repair_hint(path)}") from error
    if faults := plan_faults(plan, new=False):
        raise DamagedState(f"{path} cannot be run any more: {faults[0]}. {repair_hint(path)}")
    return plan


def plan_of(run: RunDirectory) -> Plan:
    """The plan of a run. Raises DamagedState also when it is another than the one that work began on."""
    plan = read_plan(run.plan)
    if fault := plan_change(run, plan):
        raise DamagedState(f"{run.plan} is damaged: {fault}. {repair_hint(run.plan)}")
    return plan


def plan_change(run: RunDirectory, plan: Plan) -> str | None:
    """What is wrong with `plan` if work on the run began on another; None when it did not, or nothing tells."""
    begun = None
    with contextlib.suppress(OSError, ValueError, AttributeError), run.queue.open("rb") as queue:
        begun = json.loads(queue.readline()).get("plan")
    return "it is not the plan that work on this run began with" if begun not in (None, plan_digest(plan)) else None


def plan_digest(plan: Plan) -> str:
    """What tells one plan from another, however its file is laid out."""
    return hashlib.sha256(json.dumps(plan.model_dump(), sort_keys=True).encode()).hexdigest()


def plan_text(plan: Plan) -> str:
    """The plan as the JSON that execution_plan.json holds."""
    return json_text(plan.model_dump())


def task_of(run: RunDirectory, plan: Plan, task: str) -> Task:
    """A task of the plan, or a fix task with the facts that the queue has of it. Raises KeyError for an unknown id."""
    if not FIX_ID.fullmatch(task):
        return plan.task(task)
    return fix_task(task, fixes_in(read_all(run.queue, QUEUE))[task], plan)


def planned_verify(run: RunDirectory, plan: Plan) -> list[str]:
    """The plan's verify commands, as fix tasks have corrected them so far."""
    return corrected(plan.verify, corrections_in(read_all(run.queue, QUEUE)))
