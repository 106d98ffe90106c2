"""What is kept of a damaged transcript or ledger, and what the rest costs to buy again.

An attempt resumes from a record that names its workspace's tree, so conversation and files agree. The ledger keeps
every whole record: the gateway replays each answer in it whose request comes out the same.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass

from parallel_orchestrator.agent.transcript import Conversation, fold
from parallel_orchestrator.maintenance.reading import RunFiles
from parallel_orchestrator.maintenance.trunk import has_tree
from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.records.plan import Plan, plan_faults
from parallel_orchestrator.store.journal import Record
from parallel_orchestrator.store.paths import AttemptFile, RunDirectory
from parallel_orchestrator.store.record_parser import TRANSCRIPT
from parallel_orchestrator.system.terminal_text import counted

TurnId = tuple[str, int, int]
"""Task, attempt, turn."""

_NEEDED = {"kind", "call", "task", "attempt", "turn"}
_COPIED = {"call", "task", "attempt", "turn", "phase", "phase_turn", "at"}


@dataclass(frozen=True)
class TranscriptCut:
    """What repair does to a transcript."""

    kept: list[Record]
    """Empty: the attempt begins again."""
    cause: str
    """Why the transcript cannot stay as it is."""
    loss: str
    """What is cut off, and its price."""


def planned_cut(files: RunFiles, attempt: AttemptFile) -> TranscriptCut | None:
    """Returns what has to be cut off a transcript; None when it can stay, or while the queue is damaged."""
    if files.queue_state is None:
        return None
    content = files.transcripts[attempt]
    fault = files.faults.get(attempt.path, "")
    if files.has_ended(attempt):
        kept = conversation_records(content.records, skip=True)
        loss = f"{len(kept)} of its records are kept; the attempt has ended, so nothing is bought again"
        return TranscriptCut(kept, fault, loss) if fault else None
    sound = conversation_records(content.unbroken)
    tree = fold(map(TRANSCRIPT.of, sound)).tree
    if not fault:
        if not tree or has_tree(files.run, tree):
            return None
        fault = f"the workspace's tree {tree} cannot be read from .git"
    kept = _up_to_a_tree(files.run, sound)
    return TranscriptCut(kept, fault, _loss(files, attempt, kept))


def lost_base(files: RunFiles, attempt: AttemptFile, renamed: Container[str] = ()) -> str:
    """Returns the commit that an unfinished attempt started from if it is lost or `renamed`; else empty."""
    if files.has_ended(attempt):
        return ""
    base = fold(map(TRANSCRIPT.of, files.transcripts[attempt].records)).base
    lost = base and (base in renamed or not has_tree(files.run, f"{base}^{{tree}}"))
    return base if lost else ""


def conversation_records(records: Iterable[Record], *, skip: bool = False) -> list[Record]:
    """Returns the records up to the first that does not fit those before it. `skip`: leave it out and continue."""
    conversation, fitting = Conversation(), list[Record]()
    for record in records:
        try:
            if not fitting and record["kind"] != "start":
                raise ValueError("a conversation begins with its start record")
            conversation.apply(TRANSCRIPT.of(record))
        except (KeyError, ValueError, TypeError):
            if not skip:
                break
        else:
            fitting.append(record)
    return fitting


def _up_to_a_tree(run: RunDirectory, records: list[Record]) -> list[Record]:
    """Returns the records up to the last one that names a tree which git still has."""
    for count in range(len(records), 0, -1):
        tree = records[count - 1].get("tree")
        if tree and has_tree(run, tree):
            return records[:count]
    return []


def _loss(files: RunFiles, attempt: AttemptFile, kept: list[Record]) -> str:
    """Returns what buying the answers after the kept records costs, if none of them can be replayed."""
    last = fold(map(TRANSCRIPT.of, kept)).turns
    prices = {record["turn"]: None for record in files.transcripts[attempt].records if record["kind"] == "answer"}
    prices |= {
        record["turn"]: record["usd"]
        for record in files.ledger.records
        if record.get("kind") == "answer" and (record["task"], record["attempt"]) == (attempt.task, attempt.attempt)
    }
    lost = [price for turn, price in prices.items() if turn > last]
    where = f"the attempt resumes after turn {last}" if kept else "the attempt begins again"
    if not lost:
        return f"{where}; no answer is lost"
    unknown = f" and {lost.count(None)} of unknown price" if None in lost else ""
    return (
        f"{where}; {counted(len(lost), 'later answer')} will be replayed where the request comes out the same, "
        f"and otherwise bought again for up to ${sum(filter(None, lost)):.2f}{unknown}"
    )


def turn_of(record: Record) -> TurnId:
    """Returns the turn that a record of the ledger belongs to."""
    return record["task"], record["attempt"], record["turn"]


def misfits(records: Collection[Record]) -> Iterator[str]:
    """Yields what keeps whole records from being a ledger: half a call, or fields that are missing."""
    numbered = 0
    for record in fitted(records):
        if "seq" in record:
            numbered += 1
        else:
            yield f"call {record['call']} has no record of its {'start' if record['kind'] == 'intent' else 'end'}"
    if numbered < len(records):
        yield f"{counted(len(records) - numbered, 'record')} without the fields of a ledger record"


def fitted(records: Iterable[Record]) -> Iterator[Record]:
    """Yields the records with a made-up one, without a number, for each start or end of a call that is lost."""
    open_calls: dict[int, Record] = {}
    for record in records:
        if not record.keys() >= _NEEDED:
            continue
        call = record["call"]
        if record["kind"] == "intent":
            if call in open_calls:
                fault = {"fault": "garbage", "ambiguous": True, "detail": "its outcome was lost with a damaged ledger"}
                yield {"kind": "fault", **_copied(open_calls[call]), **fault}
            open_calls[call] = record
        elif open_calls.pop(call, None) is None:
            request = {"hash": record.get("hash", "lost"), "model": record.get("model", "lost"), "try": 1}
            yield {"kind": "intent", **_copied(record), **request, "bound_usd": 0.0, "changed": False}
        yield record


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
