"""Scenario files: `defaults:` and `scenarios:` in YAML, each scenario one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from parallel_orchestrator.config.options import SHIPPED, Options
from parallel_orchestrator.records.errors import UsageError
from parallel_orchestrator.records.scenario import Profile, SandboxMode


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlannerSection(_Section):
    """Which model plans, and what it is told besides."""

    model: str | None = None
    instructions: Path | None = None
    """A text file that adapts planning to a domain; relative to the scenario file."""


class ExecutorSection(_Section):
    """Which model executes."""

    model: str | None = None


class LimitsSection(_Section):
    """What a run, and one task of it, may use."""

    cost: float | None = Field(default=None, ge=0)
    """USD for the whole run."""
    task_cost: float | None = Field(default=None, ge=0)
    """USD for one task."""
    turns: int | None = Field(default=None, ge=1)
    """Model answers per attempt."""
    minutes: float | None = Field(default=None, gt=0)
    """A task's own time."""


class ScenarioDefaults(_Section):
    """Everything but the requirement; also what `defaults:` may hold."""

    max_executors: int | None = Field(default=None, ge=1)
    planner: PlannerSection = PlannerSection()
    executor: ExecutorSection = ExecutorSection()
    limits: LimitsSection = LimitsSection()
    sandbox: SandboxMode | None = None
    endpoint_profile: Profile | None = None
    replay: str | None = None
    """A recording file, relative to the scenario file, or the name of a shipped one."""
    speed: float | None = Field(default=None, gt=0)
    verify: list[str] | None = None
    allow_install: bool | None = None
    prices: Path | None = None


class ScenarioEntry(ScenarioDefaults):
    """One scenario."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    requirements: str = Field(min_length=1)
    output_dir: Path | None = None


class ScenarioFile(_Section):
    """A whole file."""

    defaults: ScenarioDefaults = ScenarioDefaults()
    scenarios: list[ScenarioEntry] = Field(min_length=1)

    @field_validator("scenarios")
    @classmethod
    def _names_differ(cls, entries: list[ScenarioEntry]) -> list[ScenarioEntry]:
        names = [entry.name for entry in entries]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the name {name!r} is used twice")
        return entries


def find_config(name: str) -> Path:
    """The scenario file called `name`: a path, or the one that comes with the package."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = SHIPPED / path.name
    if path.name == name and shipped.suffix == ".yaml" and shipped.is_file():
        return shipped
    raise UsageError(f"there is no scenario file {name}")


def load_options(path: Path, only: str | None) -> Options:
    """The options of one scenario: the one named `only`, or the file's single one. Raises UsageError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        entries = _with_defaults(content if isinstance(content, dict) else {})
        file = ScenarioFile.model_validate({**(content or {}), "scenarios": entries})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    except (ValidationError, TypeError) as error:
        raise UsageError(f"{path} is not a scenario file:\n{_faults(error)}") from error
    names = [entry.name for entry in file.scenarios]
    if only is None and len(names) == 1:
        only = names[0]
    if only not in names:
        raise UsageError(f"{path} has the scenarios {', '.join(names)}: choose one with --only NAME")
    return _options(file.scenarios[names.index(only)], path.parent)


def _with_defaults(content: dict[str, Any]) -> Any:
    """The scenarios with the file's defaults below each of them, sections merged key by key."""
    defaults, entries = content.get("defaults") or {}, content.get("scenarios")
    if not isinstance(entries, list) or not isinstance(defaults, dict):
        return entries
    return [_merge(defaults, entry) if isinstance(entry, dict) else entry for entry in entries]


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for key, value in below.items():
        if isinstance(value, dict) and isinstance(above.get(key), dict):
            merged[key] = {**value, **above[key]}
    return merged


def _options(entry: ScenarioEntry, folder: Path) -> Options:
    settings = {
        "max_executors": entry.max_executors,
        "planner_model": entry.planner.model,
        "planner_instructions": _text(folder, entry.planner.instructions),
        "executor_model": entry.executor.model,
        "max_cost_usd": entry.limits.cost,
        "task_max_cost_usd": entry.limits.task_cost,
        "max_turns": entry.limits.turns,
        "task_timeout_min": entry.limits.minutes,
        "sandbox": entry.sandbox,
        "endpoint_profile": entry.endpoint_profile,
        "speed": entry.speed,
        "verify": entry.verify,
        "allow_install": entry.allow_install,
        "prices": str(folder / entry.prices) if entry.prices else None,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    replay = entry.replay
    if replay and (folder / replay).is_file():
        replay = str(folder / replay)
    return Options(entry.requirements, entry.output_dir or Path("outputs") / entry.name, None, replay, given)


def _text(folder: Path, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return (folder / path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the planner's instructions {folder / path}: {error}") from error


def _faults(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return f"  {error}"
    return "\n".join(f"  {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
