"""The status of a batch, by its files alone. Writes and locks nothing."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from typing import Literal

from parallel_orchestrator.records.errors import DamagedState, OrchestratorError, UsageError
from parallel_orchestrator.records.journals.batch import BatchSession, ScenarioMove, ScenarioState
from parallel_orchestrator.report.facts.documents import JsonDocument, TestTotals
from parallel_orchestrator.report.facts.spending import STATUS_MONEY
from parallel_orchestrator.report.facts.status import OwnerStatus, next_command, owner_status, run_status
from parallel_orchestrator.store.journal import read_each
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.record_parser import BATCH

_WORDS = {
    ScenarioState.WAITING: "waiting",
    ScenarioState.PLANNED: "planned",
    ScenarioState.OPEN: "running",
    ScenarioState.CLOSED: "stopped",
    None: "interrupted",
}


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
    folders, moves = fold(batch)
    lines = [_scenario(batch, name, folders.get(name, name), moves.get(name, _waiting(name)), alive) for name in names]
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


def fold(batch: BatchDirectory) -> tuple[dict[str, str], dict[str, ScenarioMove | None]]:
    """Return the folder that each scenario was given last, and the last move of each that the present session knows.

    None: the scenario is not part of the session, and did not come to its end before.
    """
    folders: dict[str, str] = {}
    moves: dict[str, ScenarioMove | None] = {}
    for record in read_each(batch.journal, BATCH):
        if isinstance(record, BatchSession):
            folders.update(record.scenarios)
            moves = {name: move if _is_closed(move) else None for name, move in moves.items()}
            moves |= {name: _waiting(name) for name in record.scenarios}
        else:
            moves[record.scenario] = record
    return folders, moves


def _scenario(
    batch: BatchDirectory, name: str, folder: str, move: ScenarioMove | None, alive: bool
) -> ScenarioStatusLine:
    """One scenario: what its own run says, under the name of the batch."""
    why = (move.why if move else "") or ""
    word = _WORDS[move.state if move else None] if alive or _is_closed(move) else "interrupted"
    run = RunDirectory(batch.root / folder)
    if not run.scenario.exists():
        return ScenarioStatusLine(name=name, folder=folder, state=word, why=why)
    try:
        status = run_status(run)
    except OrchestratorError as error:  # one damaged run hides none of the others
        return ScenarioStatusLine(name=name, folder=folder, state="damaged", why=str(error))
    ended = status.state in ("done", "failed")
    resumed_alone = ended and not (move and move.ending == status.state)
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


def _waiting(name: str) -> ScenarioMove:
    return ScenarioMove(scenario=name, state=ScenarioState.WAITING)


def _is_closed(move: ScenarioMove | None) -> bool:
    return move is not None and move.state is ScenarioState.CLOSED


def _word(counts: Counter[str], total: int, alive: bool) -> str:
    if counts["done"] == total:
        return "done"
    if alive:
        return "running"
    return "failed" if counts["done"] + counts["failed"] == total else "interrupted"
