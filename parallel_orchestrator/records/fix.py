"""A fix task: what code plans when every task of a plan is merged and the whole is red.

It is one more task, which depends on all others and may change every file of the project. Its facts stand in the
queue, in the record that plans it.
"""

from __future__ import annotations

import re

from pydantic import ConfigDict, Field

from parallel_orchestrator.records.journals.red_whole import RedWhole
from parallel_orchestrator.records.plan import Plan, Task

FIX_ID = re.compile(r"fix_[1-9][0-9]{0,3}")
FIX_NAME = "Correct the whole"
FIX_WEIGHT = 4.0
"""Its relative duration: that of a task of high effort."""

CORRECTIONS = "verify-corrections.json"
"""The file in a fix task's workspace that corrects verify commands of the plan. It is never merged."""


class FixTask(Task):
    """The task that a fix is worked on as. It owns all files that the plan names."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    red: RedWhole = Field(default_factory=RedWhole)


def fix_task(fix: str, red: RedWhole, plan: Plan) -> FixTask:
    """The task of that id."""
    return FixTask(
        id=fix,
        name=FIX_NAME,
        description="Every part is merged, and the whole is red. Correct it.",
        priority=1,
        estimated_effort="high",
        dependencies=[task.id for task in plan.tasks],
        files=sorted({path for task in plan.tasks for path in task.files}),
        acceptance=["all tests pass", "every verify command ends with exit code 0"],
        integration_notes="",
        red=red,
    )
