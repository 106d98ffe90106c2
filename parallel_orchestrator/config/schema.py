"""What a scenario file may hold, as models; the JSON Schema of it for editors, and the file that `init` writes."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from parallel_orchestrator.records.command import SandboxMode
from parallel_orchestrator.records.scenario import Backend, ClaudeSettings, Duration, Profile

TEMPLATE = """\
# yaml-language-server: $schema=scenarios.schema.json
# Scenarios for parallel-orchestrator. This one replays a recording: it needs no key and costs nothing.
#
#     {program} run --config {file}            build it
#     {program} batch {file}                   build all scenarios of the file at once
#
# Editors complete and check the file with scenarios.schema.json, which lies next to it; `schema` prints it.

defaults:
  max_executors: 5 # the most agents that work at once; the plan may need fewer
  # planner: {{model: claude-opus-5-5, instructions: how-we-plan.txt}}
  # executor: {{model: claude-opus-5-5}}
  # limits:
  #   cost: 5      # USD for a whole run, which stops there and can be resumed
  #   turns: 40    # model answers per task
  #   minutes: 20  # of a task's own time
  # sandbox: required          # auto | required | off
  # api_key_env: MY_KEY        # the variable that holds the key; keys themselves are never written here
  # verify: ["python -m pytest -q"]   # your own proof of the whole; it decides the exit code

scenarios:
  - name: todo-list # names its folder
    requirements: Build a simple todo list application with add, delete, and mark complete features
    replay: medium # take this line and the next away to ask a model
    speed: 10 # ten times as fast as it was recorded
    output_dir: outputs/todo-list

  # - name: my-project
  #   requirements_file: what-i-want.txt   # or `requirements:` with a text
  #   max_executors: 8
"""
"""The scenario file that `init` writes."""


def _name_of_a_variable(value: str) -> str:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
        # Not quoted back: it may be the key itself.
        raise ValueError("name an environment variable here (capital letters, digits and _), never the key itself")
    return value


Variable = Annotated[str, AfterValidator(_name_of_a_variable)]


class Section(BaseModel):
    """Part of a scenario file: unknown keys are faults, and no type is turned into another."""

    # The texts below the fields are their descriptions in the JSON Schema.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class PlannerSection(Section):
    """Which model plans, through which back end, and with which instructions."""

    model: str | None = Field(default=None, min_length=1)
    """The model's name."""
    backend: Backend | None = None
    """What it acts through: the Messages API, or Claude Code."""
    instructions: str | None = None
    """A text file that adapts planning to a domain, relative to the scenario file."""


class ExecutorSection(Section):
    """Which model executes, and by what."""

    model: str | None = Field(default=None, min_length=1)
    """The model's name."""
    backend: Backend | None = None
    """What it acts through: the Messages API's own tools, or Claude Code."""


class LimitsSection(Section):
    """What a run, and one task of it, may use."""

    cost: float | None = Field(default=None, ge=0)
    """USD for the whole run."""
    task_cost: float | None = Field(default=None, ge=0)
    """USD for one task."""
    turns: int | None = Field(default=None, ge=1)
    """Model answers in one conversation about a task."""
    minutes: float | None = Field(default=None, gt=0)
    """A task's own time."""


class ScenarioDefaults(Section):
    """Everything but the requirement; also what `defaults:` may hold."""

    max_executors: int | None = Field(default=None, ge=1, le=500)
    """The most executors that may work on it at once."""
    model: str | None = Field(default=None, min_length=1)
    """Model of planner and executors, unless one of them names its own."""
    backend: Backend | None = None
    """What planner and executors act through, unless one of them names its own: the Messages API, or Claude Code."""
    max_cost: float | None = Field(default=None, ge=0)
    """USD for the whole run, which stops there and can be resumed; the same as limits.cost."""
    task_max_cost: float | None = Field(default=None, ge=0)
    """USD for one task, which fails there; the same as limits.task_cost."""
    max_turns: int | None = Field(default=None, ge=1)
    """Model answers per attempt at a task; the same as limits.turns."""
    task_timeout: float | None = Field(default=None, gt=0)
    """Minutes of a task's own time; the same as limits.minutes."""
    planner: PlannerSection = PlannerSection()
    """Which model plans, and by what."""
    executor: ExecutorSection = ExecutorSection()
    """The model that executes, and what it acts through."""
    limits: LimitsSection = LimitsSection()
    """What a run, and one task of it, may use: cost, turns, minutes."""
    yes: bool | None = None
    """Agree to a live run without a cap, as --yes does."""
    claude_settings: ClaudeSettings | None = None
    """Whose settings, CLAUDE.md and MCP servers Claude Code has: nobody's, or yours."""
    sandbox: SandboxMode | None = None
    """Where agents' commands run: in bubblewrap (required), wherever it works (auto), or as you (off)."""
    endpoint_profile: Profile | None = None
    """How much of the Messages API the endpoint understands; by its address, unless said."""
    endpoint_patience: Duration | None = None
    """How long the endpoint may send nothing until the run stops: 90s, 10m, 8h."""
    api_key_env: Variable | None = None
    """The environment variable that holds the key, when it is not ANTHROPIC_API_KEY."""
    base_url_env: Variable | None = None
    """The environment variable that holds the endpoint's URL, when it is not ANTHROPIC_BASE_URL."""
    replay: str | None = Field(default=None, min_length=1)
    """A recording file, relative to the scenario file, or the name of a shipped one."""
    speed: float | None = Field(default=None, gt=0)
    """A replay's latencies are divided by this."""
    repair_rounds: int | None = Field(default=None, ge=0)
    """How often red tests or a conflict go back to the conversation that wrote the change."""
    fix_rounds: int | None = Field(default=None, ge=0)
    """How many fix tasks may correct a whole that is red when everything is merged."""
    verify: list[str] | None = None
    """Commands that prove the whole; run at the end, they decide the exit code."""
    allow_install: bool | None = None
    """Install packages that the plan names and that are not there."""
    prices: str | None = None
    """A JSON file of prices, relative to the scenario file."""


class ScenarioEntry(ScenarioDefaults):
    """One scenario: `requirements` or `requirements_file`, and what differs from the defaults."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
    """Names its folder, too."""
    requirements: str | None = Field(default=None, min_length=1)
    """What to build."""
    requirements_file: str | None = Field(default=None, min_length=1)
    """A text file that says what to build, relative to the scenario file."""
    output_dir: str | None = Field(default=None, min_length=1)
    """Where `run --config` builds it. In a batch it is NAME in the batch's folder."""


class ScenarioFile(Section):
    """A whole file."""

    defaults: ScenarioDefaults = ScenarioDefaults()
    """What holds for each scenario that does not say otherwise."""
    scenarios: list[ScenarioEntry] = Field(min_length=1)
    """What is to be built: each a run of its own."""


SAME = {
    "max_cost": ("limits", "cost"),
    "task_max_cost": ("limits", "task_cost"),
    "max_turns": ("limits", "turns"),
    "task_timeout": ("limits", "minutes"),
}
"""Settings that may also be given in a section, under a shorter name."""

SCHEMA_NAME = "scenarios.schema.json"
"""The file that the first line of a scenario file names to editors. It lies beside it."""


def json_schema() -> dict[str, Any]:
    """The JSON Schema of scenario files, for editors."""
    schema = ScenarioFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Scenario file", **schema}


def schema_text() -> str:
    """The schema as a file holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
