"""How a batch stands, from its files alone; nothing is written or locked."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import Any

from parallel_orchestrator.records.errors import DamagedState, OrchestratorError, UsageError
from parallel_orchestrator.report.facts.status import next_command, run_status
from parallel_orchestrator.store.journal import read_each
from parallel_orchestrator.store.paths import BatchDirectory, RunDirectory
from parallel_orchestrator.store.run_lock import read_owner
from parallel_orchestrator.system import json_codec

_SUMMED = ("cost_usd", "uncertain_cost_usd", "recorded_cost_usd", "unpriced_calls", "model_calls")
_WORDS = {"waiting": "waiting", "planned": "planned", "open": "running", "closed": "stopped", "left": "interrupted"}
_LEFT = {"state": "left"}
"""Of a scenario that the present session is not about, and that did not come to its end before."""


def batch_status(batch: BatchDirectory) -> dict[str, Any]:
    """The batch as a dict, a line for each scenario. Raises UsageError where none is, DamagedState."""
    owner = read_owner(batch.run_lock)
    alive = bool(owner and owner.alive())
    names = _names(batch)
    folders, states = fold(batch)
    scenarios = [_scenario(batch, name, folders.get(name, name), states.get(name, {}), alive) for name in names]
    words = [one["state"] for one in scenarios]
    counts = {word: words.count(word) for word in sorted(set(words))}
    word = _word(counts, len(words), alive)
    return {
        "kind": "batch",
        "directory": str(batch.root),
        "state": word,
        "owner": {**asdict(owner), "alive": alive} if owner else None,
        "scenarios": {"total": len(words), **counts},
        "tasks": {key: sum(one["tasks"][key] for one in scenarios) for key in ("total", "merged", "claimed", "failed")},
        **{key: round(sum(one[key] for one in scenarios), 6) for key in _SUMMED},
        "scenario_list": scenarios,
        "next": _next(batch, word),
    }


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
    """The folder that each scenario was given last, and what is said of it: by the present session, if it is in it."""
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


def _scenario(batch: BatchDirectory, name: str, folder: str, record: dict[str, Any], alive: bool) -> dict[str, Any]:
    """One scenario: what its own run says, under the name of the batch."""
    state = record.get("state", "")
    shown: dict[str, Any] = {
        "name": name,
        "folder": folder,
        "state": _WORDS.get(state, "waiting") if alive or state == "closed" else "interrupted",
        "why": record.get("why", ""),
        "tasks": dict.fromkeys(("total", "merged", "claimed", "failed"), 0),
        "tests": None,
        "elapsed_s": 0.0,
        **dict.fromkeys(_SUMMED, 0.0),
    }
    run = RunDirectory(batch.root / folder)
    if not run.scenario.exists():
        return shown
    try:
        status = run_status(run)
    except OrchestratorError as error:  # one damaged run hides none of the others
        return {**shown, "state": "damaged", "why": str(error)}
    ended = status["state"] in ("done", "failed")
    own = {"state": status["state"]} if ended else {}
    if ended and record.get("ending") != status["state"]:  # it has gone on alone since
        shown["why"] = ""
    return {**shown, **{key: status[key] for key in shown if key in status and key != "state"}, **own}


def _word(counts: dict[str, int], total: int, alive: bool) -> str:
    if counts.get("done", 0) == total:
        return "done"
    if alive:
        return "running"
    settled = counts.get("done", 0) + counts.get("failed", 0)
    return "failed" if settled == total else "interrupted"
