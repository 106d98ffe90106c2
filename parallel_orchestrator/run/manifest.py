"""The scenarios of a batch: which folder each has, and which of them are finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec import structs

from parallel_orchestrator.config.options import Options, ResolvedRun, is_file
from parallel_orchestrator.records.errors import DamagedState, OrchestratorError, UsageError
from parallel_orchestrator.records.journals.batch import ScenarioMove
from parallel_orchestrator.records.lifecycle import TaskState
from parallel_orchestrator.records.scenario import IDENTITY, Scenario, identity_difference
from parallel_orchestrator.report.facts.batch_status import fold
from parallel_orchestrator.report.facts.batch_summary import ScenarioEnding, ScenarioSummary, kept
from parallel_orchestrator.report.facts.spending import MONEY, call_fields, spending_of
from parallel_orchestrator.report.facts.summary import (
    ended_summary,
    finished_summary,
    incomplete_summary,
    last_summary,
    may_be_red,
)
from parallel_orchestrator.run.run import Run
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.plan_file import plan_of
from parallel_orchestrator.store.queue.queue import TaskQueue
from parallel_orchestrator.store.run_directory import read_scenario, require_scenario
from parallel_orchestrator.system.files import write_json


def located(batch: BatchDirectory, name: str, resolved: ResolvedRun) -> ResolvedRun:
    """The run of a scenario, with its directory in the batch's folder."""
    folder = folder_of(batch, name, resolved.scenario, resumed=resolved.resumed)
    return replace(resolved, directory=batch.root / folder)


def finished_ending(run: Run) -> ScenarioEnding | None:
    """How a scenario ended that is finished.

    None where it is not, where its failed tasks are to be tried again, and where its run is damaged.
    """
    directory = run.directory
    finished = finished_summary(directory) if run.retry is None and not _is_damaged(directory) else None
    return ScenarioEnding(run.name, run.folder, kept(finished)) if finished else None


def unfinished_ending(run: Run) -> ScenarioEnding:
    """How a scenario stands that something stopped before its end."""
    return ScenarioEnding(run.name, run.folder, current_summary(run.directory))


def folder_of(batch: BatchDirectory, name: str, scenario: Scenario, *, resumed: bool = False) -> str:
    """The scenario's folder: NAME, or NAME-HASH6 where NAME holds the run of an earlier text of it.

    Raises UsageError when it would run anew for no other reason than that another endpoint is asked now.
    """
    own = f"{name}-{_identity_hash(scenario)}"
    if _is_damaged(RunDirectory(batch.root / name)):
        return own if (batch.root / own).exists() else name
    if _may_use(batch.root / name, scenario, resumed=resumed):
        return name
    if resumed:  # the run of a text that differs from NAME's: its models may have changed, and its hash with them
        begun = [path for path in batch.root.glob(f"{name}-{_HASH}") if not _is_damaged(RunDirectory(path))]
        if found := next((path for path in sorted(begun) if _may_use(path, scenario, resumed=True)), None):
            return found.name
    if not (batch.root / own).exists() and not scenario.replay:
        _require_same_endpoint([batch.root / name, *batch.root.glob(f"{name}-{_HASH}")], scenario)
    return own


def _require_same_endpoint(directories: Iterable[Path], scenario: Scenario) -> None:
    for run in map(RunDirectory, directories):
        old = None if _is_damaged(run) else read_scenario(run)
        if old and identity_difference(old, {**scenario.model_dump(), "endpoint": old.endpoint}) is None:
            raise UsageError(
                f"{run.root} was begun at {old.endpoint}, and now {scenario.endpoint} is asked: all of it would be "
                "bought again. Set ANTHROPIC_BASE_URL as it was, or choose another --output-dir"
            )


def _is_damaged(run: RunDirectory) -> bool:
    """Whether nobody can tell any more which run it is."""
    try:
        read_scenario(run)
    except DamagedState:
        return True
    return False


def _may_use(directory: Path, scenario: Scenario, *, resumed: bool) -> bool:
    """Whether that directory is free, or holds this very run."""
    old = read_scenario(RunDirectory(directory))
    return old is None or identity_difference(old, scenario.model_dump(), resumed=resumed) is None


_HASH = "[0-9a-f]" * 6
"""What any `_identity_hash` looks like, for a search."""


def _identity_hash(scenario: Scenario) -> str:
    identity = scenario.model_dump(include=set(IDENTITY))
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:6]


def save(batch: BatchDirectory, executors: int, max_cost_usd: float | None, options: Mapping[str, Options]) -> None:
    """Write down what `resume` needs to go on with the batch by its folder alone."""
    scenarios = [
        {
            "name": name,
            "requirements": one.requirements,
            "replay": _wherever(one.replay) if one.replay else None,
            "settings": one.settings | {name: _wherever(one.settings[name]) for name in _FILES & one.settings.keys()},
            "variables": one.variables,
        }
        for name, one in options.items()
    ]
    fields = {"version": 1, "max_executors": executors, "max_cost_usd": max_cost_usd, "scenarios": scenarios}
    write_json(batch.config, fields)


_FILES = {"prices"}
"""Settings that name a file."""


def _wherever(name: str) -> str:
    """The name of a file as it is found from every folder. That of a shipped recording stays a name."""
    return str(Path(name).absolute()) if is_file(Path(name)) else name


@dataclass(frozen=True)
class Manifest:
    """A batch as it was given last."""

    max_executors: int
    max_cost_usd: float | None
    options: dict[str, Options]


def load(batch: BatchDirectory) -> Manifest:
    """The inverse of `save`. Raises UsageError where no batch is, DamagedState where the file is none any more."""
    try:
        fields = json.loads(batch.config.read_bytes())
        options = {
            one["name"]: Options(
                one["requirements"], None, None, one["replay"], one["settings"], variables=one.get("variables", {})
            )
            for one in fields["scenarios"]
        }
        return Manifest(fields["max_executors"], fields["max_cost_usd"], options)
    except FileNotFoundError as error:
        raise UsageError(f"{batch.root} holds no batch (there is no batch.json in it)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedState(f"{batch.config} is damaged ({error}); start the batch again from its YAML file") from error


def failed_tasks(batch: BatchDirectory, tasks: Sequence[str]) -> dict[str, list[str]]:
    """By scenario the failed tasks to try again: those named as SCENARIO/TASK; with none, all that failed anywhere.

    Raises UsageError for what is not named so, and where nothing failed.
    """
    scenarios = load(batch).options
    folders = {folder: name for name, folder in fold(batch)[0].items() if name in scenarios}
    found: dict[str, list[str]] = {}
    for task in tasks:
        folder, _, name = task.rpartition("/")
        if folder not in folders:
            raise UsageError(f"{batch.root} is a batch: name the task as SCENARIO/TASK, not {task!r}")
        found.setdefault(folders[folder], []).append(name)
    if not tasks:
        found = {name: [] for folder, name in folders.items() if _some_failed(RunDirectory(batch.root / folder))}
    if not found:
        raise UsageError(f"no task failed in {batch.root}, so there is nothing to retry")
    return found


def _some_failed(run: RunDirectory) -> bool:
    """Whether tasks have failed or the whole is red, by its queue: a session that was killed has left no summary."""
    try:
        with closing(TaskQueue(run, plan_of(run).graph())) as queue:
            queue_state = queue.refresh()
            failed = any(status.state is TaskState.FAILED for status in queue_state.tasks.values())
            return failed or (not queue_state.unsettled and may_be_red(run))
    except FileNotFoundError:  # it has no plan
        return False
    except OrchestratorError:  # it is damaged, which stops no retry of another
        return bool((summary := last_summary(run)) and summary.failed)


def untouched(batch: BatchDirectory, names: Iterable[str]) -> dict[str, ScenarioEnding]:
    """How scenarios stand that this session is not about."""
    folders, moves = fold(batch)
    return {name: _ending(batch, name, folders.get(name, name), moves.get(name)) for name in names}


def _ending(batch: BatchDirectory, name: str, folder: str, last: ScenarioMove | None) -> ScenarioEnding:
    ending = ScenarioEnding(name, folder, current_summary(RunDirectory(batch.root / folder)))
    if ending.status == "stopped" and last and last.why:
        return replace(ending, error=OrchestratorError(last.why))
    return ending


def current_summary(run: RunDirectory) -> ScenarioSummary:
    """What a batch keeps of how that run stands: by its summary, or by its other files where it has none."""
    try:
        if (summary := ended_summary(run)) is None:
            summary = structs.replace(incomplete_summary(run, require_scenario(run), plan_of(run)), status="incomplete")
        return kept(summary)
    except Exception:  # noqa: BLE001 - it has no plan yet; or they cannot be read, which who goes on with it tells
        return ScenarioSummary(**call_fields(spending_of(run), *MONEY))


def require_place(batch: BatchDirectory) -> None:
    """Refuse a folder that holds something else. Raises UsageError."""
    if RunDirectory(batch.root).scenario.exists():
        raise UsageError(f"{batch.root} holds a single run: choose another --output-dir for the batch")
    if batch.root.exists() and not batch.root.is_dir():
        raise UsageError(f"{batch.root} is not a directory")
