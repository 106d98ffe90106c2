"""A scenario: everything that decides what a run does, defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from parallel_orchestrator.records.command import SandboxMode
from parallel_orchestrator.records.duration import seconds_of

DEFAULT_MODEL = "claude-opus-5-5"

Backend = Literal["api", "claude-code"]
ClaudeSettings = Literal["none", "host"]
Profile = Literal["anthropic", "compatible"]
Duration = Annotated[
    float,
    BeforeValidator(seconds_of),
    Field(gt=0, allow_inf_nan=False),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}),
]
"""Seconds, as a number or as a text: 90s, 10m, 8h, 1h30m."""


class Scenario(BaseModel):
    """The effective configuration of one run; `scenario.json` is this model as JSON.

    Never holds a credential. Fields of `IDENTITY` must match when a directory is used again;
    the others may change between resumes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    run: str
    """Random id of this run; part of every ledger key."""
    requirements: str = Field(min_length=1)
    planner_model: str = DEFAULT_MODEL
    executor_model: str = DEFAULT_MODEL
    planner_backend: Backend = "api"
    backend: Backend = "api"
    """What the executors act through: the Messages API's own tools, or Claude Code."""
    claude_settings: ClaudeSettings = "none"
    """Whose settings Claude Code has: nobody's, or those of the person who starts it."""
    endpoint: str
    """Base URL of the live endpoint, or `recording:NAME:SHA256` for a replay."""
    plan_sha256: str | None = None
    """Of the plan file that the run was started from, when the plan did not come from the planner."""
    verify: list[str] = []
    """Commands of the user's own that prove the whole, after those of the plan."""

    endpoint_profile: Profile = "anthropic"
    replay: str | None = None
    """Recording file, or the name of a shipped one."""
    speed: float = Field(default=1.0, gt=0)
    """A replay's latencies are divided by this."""
    planner_instructions: str | None = None
    max_executors: int = Field(default=5, ge=1, le=500)
    max_cost_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    task_max_cost_usd: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    yes: bool = False
    """The person agreed to a live run without a cap."""
    max_turns: int = Field(default=60, ge=1)
    """Model answers in one conversation about a task."""
    task_timeout_min: float = Field(default=30.0, gt=0)
    """Minutes of a task's own time; waiting for a rate limit or the gateway does not count."""
    repair_rounds: int = Field(default=2, ge=0)
    fix_rounds: int = Field(default=2, ge=0)
    """Fix tasks that are planned, one after the other, while everything is merged and the whole is red."""
    sandbox: SandboxMode = "auto"
    allow_install: bool = False
    prices: str | None = None
    """A JSON file of prices that goes before the built-in table."""
    variables: dict[str, str] = {}
    """Names of environment variables that stand for ours, as MY_KEY for ANTHROPIC_API_KEY; never their values."""
    endpoint_patience: Duration = 600.0
    """Seconds; the run ends with 3 when the endpoint sends nothing for this long. Also given as 90s, 10m or 8h."""

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, fields: Any) -> Any:
        """Fields of runs that an earlier version wrote, under the names of today."""
        if isinstance(fields, dict) and "endpoint_patience_s" in fields:
            renamed = {name: value for name, value in fields.items() if name != "endpoint_patience_s"}
            return {"endpoint_patience": fields["endpoint_patience_s"], **renamed}
        return fields


@dataclass(frozen=True)
class ExecutionEnv:
    """Where the commands of agents, and the tests, run."""

    sandbox: SandboxMode
    """`auto` settled: `required` or `off`."""
    venv: Path | None = None
    """The run's own Python environment, when its plan has packages that were not there."""


IDENTITY = (
    "requirements",
    "plan_sha256",
    "planner_model",
    "executor_model",
    "planner_backend",
    "backend",
    "claude_settings",
    "endpoint",
    "planner_instructions",
    "verify",
)
"""Fields that make a run what it is."""

_NEW_ON_RESUME = ("planner_model", "executor_model", "endpoint")
"""Those of them that `resume` and `retry` may change: for attempts that have not begun."""


def identity_difference(old: Scenario, new: dict[str, Any], *, resumed: bool = False) -> str | None:
    """The first identity field in which `new` differs from the run's scenario, or None.

    `resumed`: models may differ, and so may the endpoint, unless one of them is a recording.
    """
    live = not old.replay and not new["replay"]
    free = {name for name in _NEW_ON_RESUME if name != "endpoint" or live} if resumed else set()
    return next((name for name in IDENTITY if name not in free and getattr(old, name) != new[name]), None)
