"""The status of a batch, by its files alone. Writes and locks nothing."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from typing import Any, Literal

from parallel_orchestrator.records.errors import DamagedState, OrchestratorError, UsageError
from parallel_orchestrator.report.facts.documents import JsonDocument, TestTotals
from parallel_orchestrator.report.facts.spending import STATUS_MONEY
from parallel_orchestrator.report.facts.status import OwnerStatus, next_command, owner_status, run_status
from parallel_orchestrator.store.journal import read_each
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.system import json_codec

_WORDS = {"waiting": "waiting", "planned": "planned", "open": "running", "closed": "stopped", "left": "interrupted"}
_LEFT = {"state": "left"}
"""Of an unfinished scenario that is not in the present session."""


class BatchTaskCounts(JsonDocument, frozen=True, kw_only=True):
    """Tasks of a batch's scenario, or of all of them."""

    total: int = 0
    merged: int = 0
    claimed: int = 0
    failed: int = 0


class ScenarioStatusLine(JsonDocument, frozen=True, kw_only=True):
    """One scenario of a batch's status."""

    name: str
    folder: str
    state: str
    why: str
    tasks: BatchTaskCounts = BatchTaskCounts()
    tests: TestTotals | None = None
    elapsed_s: float = 0.0
    cost_usd: float = 0.0
    uncertain_cost_usd: float = 0.0
    recorded_cost_usd: float = 0.0
    unpriced_calls: float = 0.0
    model_calls: float = 0.0


class BatchStatus(JsonDocument, frozen=True, kw_only=True):
    """`status --json` of a batch."""

    kind: Literal["batch"] = "batch"
    directory: str
    state: str
    owner: OwnerStatus | None
    scenarios: dict[str, int]
    """`total`, and the scenarios in each state."""
    tasks: BatchTaskCounts
    cost_usd: float
    uncertain_cost_usd: float
    recorded_cost_usd: float
    unpriced_calls: float
    model_calls: float
    scenario_list: list[ScenarioStatusLine]
    next: str


def batch_status(batch: BatchDirectory) -> BatchStatus:
    """Return the status, with a line for each scenario. Raises UsageError where no batch is, and DamagedState."""
    owner = owner_status(batch.run_lock)
    alive = bool(owner and owner.alive)
    names = _names(batch)
    folders, states = fold(batch)
    lines = [_scenario(batch, name, folders.get(name, name), states.get(name, {}), alive) for name in names]
    counts = Counter(sorted(line.state for line in lines))
    word = _word(counts, len(lines), alive)
    totals = {name: sum(getattr(line.tasks, name) for line in lines) for name in BatchTaskCounts.__struct_fields__}
    return BatchStatus(
        directory=str(batch.root),
        state=word,
        owner=owner,
        scenarios={"total": len(lines), **counts},
        tasks=BatchTaskCounts(**totals),
        **{name: round(sum(getattr(line, name) for line in lines), 6) for name in STATUS_MONEY},
        scenario_list=lines,
        next=_next(batch, word),
    )


def _next(batch: BatchDirectory, word: str) -> str:
    if word == "done":
        return f"cat {shlex.quote(str(batch.page))}"
    return next_command(word, batch.root)


def _names(batch: BatchDirectory) -> list[str]:
    try:
        return [str(one["name"]) for one in json.loads(batch.config.read_bytes())["scenarios"]]
    except FileNotFoundError as error:
        raise UsageError(f"{batch.root} holds neither a run nor a batch") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedState(f"{batch.config} is damaged ({error}); start the batch again from its file") from error


def fold(batch: BatchDirectory) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Return the last folder and the last record of each scenario: of the present session where it is in that."""
    folders: dict[str, str] = {}
    states: dict[str, dict[str, Any]] = {}
    for record in read_each(batch.journal, json_codec.loads):
        if "session" in record:
            folders.update(record["scenarios"])
            states = {name: state if state["state"] == "closed" else _LEFT for name, state in states.items()}
            states |= {name: {"state": "waiting"} for name in record["scenarios"]}
        else:
            states[record["scenario"]] = record
    return folders, states


def _scenario(batch: BatchDirectory, name: str, folder: str, record: dict[str, Any], alive: bool) -> ScenarioStatusLine:
    """One scenario: what its own run says, under the name of the batch."""
    state, why = record.get("state", ""), record.get("why", "")
    word = _WORDS.get(state, "waiting") if alive or state == "closed" else "interrupted"
    run = RunDirectory(batch.root / folder)
    if not run.scenario.exists():
        return ScenarioStatusLine(name=name, folder=folder, state=word, why=why)
    try:
        status = run_status(run)
    except OrchestratorError as error:  # one damaged run hides none of the others
        return ScenarioStatusLine(name=name, folder=folder, state="damaged", why=str(error))
    ended = status.state in ("done", "failed")
    resumed_alone = ended and record.get("ending") != status.state
    counts = {key: getattr(status.tasks, key) for key in BatchTaskCounts.__struct_fields__}
    return ScenarioStatusLine(
        name=name,
        folder=folder,
        state=status.state if ended else word,
        why="" if resumed_alone else why,
        tasks=BatchTaskCounts(**counts),
        tests=status.tests,
        elapsed_s=status.elapsed_s,
        **{key: getattr(status, key) for key in STATUS_MONEY},
    )


def _word(counts: Counter[str], total: int, alive: bool) -> str:
    if counts["done"] == total:
        return "done"
    if alive:
        return "running"
    return "failed" if counts["done"] + counts["failed"] == total else "interrupted"
