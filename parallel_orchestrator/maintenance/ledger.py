"""The ledger: whether its records fit each other, and what is kept of a damaged one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator

from parallel_orchestrator.maintenance.reading import RunFiles
from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.records.plan import Plan, plan_faults
from parallel_orchestrator.store.journal import Record
from parallel_orchestrator.store.paths import AttemptFile
from parallel_orchestrator.system.terminal_text import counted

TurnId = tuple[str, int, int]
"""Task, attempt, turn."""

_NEEDED = {"kind", "call", "task", "attempt", "turn"}
_COPIED = {"call", "task", "attempt", "turn", "phase", "phase_turn", "at"}


def turn_of(record: Record) -> TurnId:
    """Returns the turn that a record of the ledger belongs to."""
    return record["task"], record["attempt"], record["turn"]


def misfits(records: Iterable[Record]) -> Iterator[str]:
    """Yields each record that does not fit those before it: a call begun twice, an outcome without its intent."""
    open_calls: set[int] = set()
    for record in records:
        call = record.get("call")
        if not isinstance(call, int) or not record.keys() >= _NEEDED:
            yield f"record {record['seq']} is not a ledger record"
        elif record["kind"] == "intent":
            if call in open_calls:
                yield f"record {record['seq']} begins call {call} again, whose last try has no outcome"
            open_calls.add(call)
        elif call in open_calls:
            open_calls.discard(call)
        else:
            yield f"record {record['seq']} is the outcome of call {call}, which was not begun"


def fitted(records: Iterable[Record]) -> Iterator[Record]:
    """Yields the records that are whole, with a made-up intent or outcome where the real one is lost."""
    open_calls: dict[int, Record] = {}
    for record in records:
        if not record.keys() >= _NEEDED:
            continue
        call = record["call"]
        if record["kind"] == "intent":
            if call in open_calls:
                yield _lost_outcome(open_calls[call])
            open_calls[call] = record
        elif open_calls.pop(call, None) is None:
            yield _lost_intent(record)
        yield record


def _lost_outcome(intent: Record) -> Record:
    fault = {"fault": "garbage", "ambiguous": True, "detail": "its outcome was lost with a damaged ledger"}
    return {"kind": "fault", **_copied(intent), **fault}


def _lost_intent(outcome: Record) -> Record:
    request = {"hash": outcome.get("hash", "lost"), "model": outcome.get("model", "lost"), "try": 1}
    return {"kind": "intent", **_copied(outcome), **request, "bound_usd": 0.0, "changed": False}


def _copied(record: Record) -> Record:
    return {name: value for name, value in record.items() if name in _COPIED}


def open_intents(records: Iterable[Record]) -> list[Record]:
    """Returns the intents without an outcome."""
    waiting: dict[int, Record] = {}
    for record in records:
        if record["kind"] == "intent":
            waiting[record["call"]] = record
        else:
            waiting.pop(record["call"], None)
    return list(waiting.values())


def lost_answers(files: RunFiles) -> dict[AttemptFile, list[int]]:
    """Returns the turns whose answer a transcript holds and the ledger does not, by attempt."""
    held = {turn_of(record) for record in files.ledger.records if record.get("kind") == "answer"}
    lost = {
        attempt: [
            record["turn"]
            for record in content.records
            if record["kind"] == "answer" and (attempt.task, attempt.attempt, record["turn"]) not in held
        ]
        for attempt, content in files.transcripts.items()
    }
    return {attempt: turns for attempt, turns in lost.items() if turns}


def ledger_losses(files: RunFiles) -> list[str]:
    """Returns what a damaged ledger has lost and what that costs, a sentence each."""
    kept = {(attempt.task, attempt.attempt, turn) for attempt, turns in lost_answers(files).items() for turn in turns}
    missing = files.ledger.missing
    losses = [f"{counted(len(missing), 'record')} cannot be read and will be cut"] if missing else []
    for intent in open_intents(fitted(files.ledger.records)):
        task, attempt, turn = turn_of(intent)
        bound = "an unknown sum" if intent["bound_usd"] is None else f"up to ${intent['bound_usd']:.2f}"
        again = "the transcript has it" if (task, attempt, turn) in kept else "buying it again costs as much"
        losses.append(f"{task} attempt {attempt} turn {turn} has no answer here and counts as {bound}; {again}")
    return losses


def answered_plan(records: Iterable[Record]) -> Plan | None:
    """Returns the planner's last answer that is a valid plan, or None."""
    plan = None
    for record in records:
        if record.get("kind") == "answer" and record["task"] == "plan":
            content = sse.assemble(sse.parse(record["events"]))["content"]
            text = "".join(block["text"] for block in content if block["type"] == "text")
            with contextlib.suppress(ValueError):
                found = Plan.model_validate(json.JSONDecoder().raw_decode(text[text.index("{") :])[0])
                plan = plan if plan_faults(found, new=False) else found
    return plan
