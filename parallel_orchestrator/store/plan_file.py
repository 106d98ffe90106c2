"""execution_plan.json: a run's plan as it was made; never rewritten once work began."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from parallel_orchestrator.records.errors import DamagedState, UsageError
from parallel_orchestrator.records.plan import Plan, plan_faults
from parallel_orchestrator.store.paths import repair_hint
from parallel_orchestrator.store.plain import json_text


def read_plan(path: Path) -> Plan:
    """The plan of a run, as it was written. Raises DamagedState when the file was changed into no plan."""
    text = path.read_bytes()
    if newer := re.match(rb'\s*\{\s*"version":\s*(\d+)', text):
        raise UsageError(f"{path} has version {int(newer[1])}; this program reads plans without one, of version 1")
    try:
        plan = Plan.model_validate_json(text)
    except ValidationError as error:
        raise DamagedState(f"{path} is no plan any more: {error.errors()[0]['msg']}. {repair_hint(path)}") from error
    if faults := plan_faults(plan):
        raise DamagedState(f"{path} cannot be run any more: {faults[0]}. {repair_hint(path)}")
    return plan


def plan_text(plan: Plan) -> str:
    """The plan as the JSON that execution_plan.json holds."""
    return json_text(plan.model_dump())
