"""The ledger: whether its records fit each other, and a damaged one put together again.

What a transcript holds of an answer is enough to make its ledger record anew: the request follows from the
conversation before it, so even the hash is the same, and nothing that was bought is bought again.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from parallel_orchestrator.agent.prompt import build_request
from parallel_orchestrator.agent.transcript import Conversation
from parallel_orchestrator.gateway.calls.messages import body_hash
from parallel_orchestrator.gateway.endpoints.prices import PriceTable
from parallel_orchestrator.messages_api import sse
from parallel_orchestrator.records.plan import Plan, plan_faults
from parallel_orchestrator.records.scenario import Scenario
from parallel_orchestrator.store.journal import Record

Key = tuple[str, int, int]
"""Task, attempt, turn."""

_COPIED = ("call", "task", "attempt", "turn", "phase", "phase_turn")


def key_of(record: Record) -> Key:
    """Whose turn a record of the ledger is about."""
    return record["task"], record["attempt"], record["turn"]


def misfits(records: Iterable[Record]) -> Iterator[str]:
    """Each record that does not fit those before it: a try begun twice, an outcome of nothing."""
    open_calls: set[int] = set()
    for record in records:
        call = record.get("call")
        if not isinstance(call, int) or not {"kind", "task", "attempt", "turn"} <= record.keys():
            yield f"record {record['seq']} is no record of a ledger"
        elif record["kind"] == "intent":
            if call in open_calls:
                yield f"record {record['seq']} begins call {call}, whose last try has no outcome"
            open_calls.add(call)
        elif call in open_calls:
            open_calls.discard(call)
        else:
            yield f"record {record['seq']} is the outcome of call {call}, which was not begun"


def fitted(records: Iterable[Record]) -> list[Record]:
    """The same records with what lost ones must have said put between them."""
    made: list[Record] = []
    open_calls: dict[int, Record] = {}
    for record in records:
        call = record["call"]
        if record["kind"] == "intent":
            if call in open_calls:
                made.append(_lost_outcome(open_calls[call]))
            open_calls[call] = record
        elif open_calls.pop(call, None) is None:
            made.append(_lost_intent(record))
        made.append(record)
    return made


def _lost_outcome(intent: Record) -> Record:
    told = {"fault": "garbage", "ambiguous": True, "detail": "its outcome was lost with a damaged ledger"}
    return {"kind": "fault", **_head(intent), **told, "at": intent["at"]}


def _lost_intent(outcome: Record) -> Record:
    told = {"hash": outcome.get("hash", "lost"), "model": outcome.get("model", "lost"), "try": 1}
    return {"kind": "intent", **_head(outcome), **told, "bound_usd": 0.0, "changed": False, "at": outcome["at"]}


def _head(record: Record) -> Record:
    return {name: record[name] for name in _COPIED}


@dataclass(frozen=True)
class Rebuilder:
    """Makes ledger records of answers that a transcript holds."""

    scenario: Scenario

    def add_lost(self, records: list[Record], transcript: Iterable[Record]) -> list[Key]:
        """Append to `records` those answers of one transcript that it lacks; their keys."""
        answered = {key_of(record) for record in records if record["kind"] == "answer"}
        conversation, added = Conversation(), list[Key]()
        for said in transcript:
            if said["kind"] == "answer":
                key = (conversation.start["task_id"], conversation.start["attempt"], said["turn"])
                if key not in answered:
                    records += self._call(records, key, said, body_hash(build_request(conversation)))
                    added.append(key)
            conversation.apply(said)
        return added

    def _call(self, records: list[Record], key: Key, said: Record, request_hash: str) -> list[Record]:
        """Intent and answer; the answer alone when its intent is there and waits for it."""
        waiting = _waiting(records, key, request_hash)
        call = waiting["call"] if waiting else max((record["call"] for record in records), default=0) + 1
        where = {"task": key[0], "attempt": key[1], "turn": key[2]}
        answer = {
            "kind": "answer",
            "call": call,
            **where,
            "phase": said["phase"],
            "phase_turn": said["phase_turn"],
            "hash": request_hash,
            "model": self.scenario.executor_model,
            "stop_reason": said["stop_reason"],
            "usage": said["usage"],
            **self._price(said["usage"]),
            "endpoint_s": said["endpoint_s"],
            "waited_s": 0.0,
            "request_id": None,
            "at": round(time.time(), 3),
            "events": sse.stream_of(self._message(key, said)),
        }
        return [answer] if waiting else [_lost_intent(answer), answer]

    def _price(self, usage: dict[str, Any]) -> Record:
        price = PriceTable.of(self.scenario).cost(self.scenario.executor_model, usage)
        return {"usd": 0.0, "recorded_usd": price} if self.scenario.replay else {"usd": price, "recorded_usd": None}

    def _message(self, key: Key, said: Record) -> dict[str, Any]:
        return {
            "id": "msg_rebuilt_" + "_".join(map(str, key)),
            "type": "message",
            "role": "assistant",
            "model": self.scenario.executor_model,
            "content": said["content"],
            "stop_reason": said["stop_reason"],
            "stop_sequence": None,
            "usage": said["usage"],
        }


def _waiting(records: list[Record], key: Key, request_hash: str) -> Record | None:
    """The intent of that very request that has no outcome yet."""
    waiting = open_intents(records)
    return next((intent for intent in waiting if key_of(intent) == key and intent["hash"] == request_hash), None)


def open_intents(records: Iterable[Record]) -> list[Record]:
    """The intents without outcome."""
    waiting: dict[int, Record] = {}
    for record in records:
        if record["kind"] == "intent":
            waiting[record["call"]] = record
        else:
            waiting.pop(record["call"], None)
    return list(waiting.values())


def answered_plan(records: Iterable[Record]) -> Plan | None:
    """The plan that the planner answered last, if the ledger has one that can be run."""
    found = None
    for record in records:
        if record.get("kind") == "answer" and record["task"] == "plan":
            content = sse.assemble(sse.parse(record["events"]))["content"]
            text = "".join(block["text"] for block in content if block["type"] == "text")
            with contextlib.suppress(ValueError):
                plan = Plan.model_validate(json.JSONDecoder().raw_decode(text[text.index("{") :])[0])
                found = found if plan_faults(plan, new=False) else plan
    return found
