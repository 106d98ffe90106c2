"""Taking possession of a run directory: whose it is, whether it is the same run, and nobody else's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from parallel_orchestrator.records.errors import DamagedState, UsageError
from parallel_orchestrator.records.scenario import Scenario, identity_difference
from parallel_orchestrator.store.files import disk_error, write_json
from parallel_orchestrator.store.paths import RunDirectory
from parallel_orchestrator.store.runlock import RunLock

_BEFORE_SCENARIO = {"run.lock", "orchestrator.log"}
"""What a run killed before it fixed its scenario leaves behind."""


@dataclass(frozen=True)
class OwnedRun:
    """A run directory that this process owns until the lock is released."""

    run: RunDirectory
    scenario: Scenario
    lock: RunLock
    resumed: bool


def own(directory: Path, scenario: Scenario, say: Callable[[str], None]) -> OwnedRun:
    """Own `directory` for `scenario`: a new run, or the same one again.

    Raises DirectoryHeld when another orchestrator has it, and UsageError when it holds something else: files
    that no run made, or a run whose identity differs, naming the field.
    """
    run = RunDirectory(directory)
    old = read_scenario(run)
    if old is None:
        _require_empty(directory)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {directory}: {error.strerror}") from error
    lock = RunLock.acquire(run.run_lock, say=say)
    try:
        old = read_scenario(run)  # again: it may have been fixed while we waited for the lock
        if old is None:
            write_json(run.scenario, scenario.model_dump())
            return OwnedRun(run, scenario, lock, resumed=False)
        return OwnedRun(run, _same_run(run, old, scenario, say), lock, resumed=True)
    except BaseException:
        lock.release()
        raise


def read_scenario(run: RunDirectory) -> Scenario | None:
    """The scenario of a run, None where there is none yet. Raises DamagedState when it cannot be understood."""
    try:
        text = run.scenario.read_bytes()
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise UsageError(f"{run.root} is not a directory") from error
    except OSError as error:
        raise disk_error(run.scenario, error) from error
    try:
        fields = json.loads(text)
        if isinstance(fields, dict) and fields.get("version", 1) != 1:
            raise UsageError(f"{run.scenario} has version {fields['version']}; this program reads version 1")
        return Scenario.model_validate(fields)
    except (ValueError, ValidationError) as error:
        raise DamagedState(f"{run.scenario} is damaged: {error}") from error


def _require_empty(directory: Path) -> None:
    try:
        names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    except OSError as error:
        raise UsageError(f"cannot read {directory}: {error.strerror}") from error
    foreign = sorted(name for name in names - _BEFORE_SCENARIO if not name.startswith(".scenario.json."))
    if foreign:
        raise UsageError(
            f"{directory} holds files that no run made ({', '.join(foreign[:3])}, …): choose another --output-dir"
        )


def _same_run(run: RunDirectory, old: Scenario, new: Scenario, say: Callable[[str], None]) -> Scenario:
    """The scenario to go on with: the new caps and limits under the old identity."""
    # Until work begins on it, a plan may still be replaced by an edited one.
    planned_only = new.plan_sha256 is not None and not run.queue.exists()
    same_plan = old.model_copy(update={"plan_sha256": new.plan_sha256}) if planned_only else old
    field = identity_difference(same_plan, new.model_dump())
    if field:
        raise UsageError(
            f"{run.root} belongs to another run: its {field} is {_short(getattr(old, field))}, "
            f"not {_short(getattr(new, field))}. Choose another --output-dir, or `resume {run.root}` as it is."
        )
    effective = new.model_copy(update={"run": old.run})
    for name, value in effective.model_dump().items():
        if getattr(old, name) != value:
            say(f"{name}: {_short(getattr(old, name))} -> {_short(value)}")
    if effective != old:
        write_json(run.scenario, effective.model_dump())
    return effective


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
