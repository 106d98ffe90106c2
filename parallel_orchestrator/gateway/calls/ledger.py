"""One run's ledger of model calls: intent before each call, outcome after it, both on disk before anything follows.

Writing a record is one thing and having it on disk another: `on_disk` waits for that, once for all that wait.

Its records are `IntentRecord`, `AnswerRecord`, `FaultRecord` and `RefusalRecord`.

An intent without an outcome, found at opening, is a call that died with an earlier gateway: it may have been
billed and counts at its bound. Answers stay on disk; memory holds where each one lies.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from parallel_orchestrator.gateway.calls.messages import Answered, CallFault, ModelRequest, Refusal, TurnKey
from parallel_orchestrator.records.errors import DamagedState
from parallel_orchestrator.records.journals.ledger import (
    AnswerRecord,
    FaultRecord,
    IntentRecord,
    LedgerRecord,
    RefusalRecord,
)
from parallel_orchestrator.records.usage import LedgerFold
from parallel_orchestrator.store.journal import Journal, body_of, misfit
from parallel_orchestrator.store.record_parser import LEDGER
from parallel_orchestrator.system.files import read_at

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """Where an answer lies in the ledger file, and what its task's clock wants to know."""

    offset: int
    length: int
    endpoint_s: float
    """Seconds that the successful try took."""
    waited_s: float
    """All other seconds from the request to the answer."""
    request_id: str | None


@dataclass(frozen=True)
class Intent:
    """A try that was announced in the ledger and has no outcome yet."""

    call: int
    request: ModelRequest
    bound_usd: float | None


@dataclass(frozen=True)
class Retry:
    """What follows a try that failed."""

    number: int
    """The failed try's, from 1."""
    next_s: float
    """Seconds until the next try."""
    gives_up_s: float
    """Seconds until no other try is made, when nothing comes from the endpoint."""


class Ledger:
    """The ledger of one run. Its only writer is this process; opening it repairs a torn tail.

    Every method that writes raises CannotGoOn when the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path, LEDGER)
        self._answers: dict[TurnKey, dict[str, Stored]] = defaultdict(dict)
        self.fold = LedgerFold()
        self.dead_calls = 0
        """Calls that died with an earlier gateway."""
        self.torn_bytes = 0
        """Cut off the file's end at opening: a record that was being written at a kill."""
        self._synced = 0
        """Bytes of the file that are on disk for certain."""
        self._syncing: asyncio.Future[int] | None = None
        self._load()

    def find(self, key: TurnKey, request_hash: str) -> Stored | None:
        """The answer to that very request, if it is there."""
        return self._answers[key].get(request_hash) if key in self._answers else None

    def answered_otherwise(self, key: TurnKey, request_hash: str) -> bool:
        """Whether the key's turn has an answer, but to another request."""
        return key.turn is not None and key in self._answers and request_hash not in self._answers[key]

    def count(self, task: str, attempt: int) -> int:
        """Answers in one attempt so far."""
        return sum(len(found) for key, found in self._answers.items() if (key.task, key.attempt) == (task, attempt))

    def events(self, stored: Stored) -> str:
        """The SSE text of an answer, read back from disk. Raises DamagedState."""
        with self._journal.path.open("rb") as file:
            line = read_at(file.fileno(), stored.length, stored.offset)
        body = body_of(line.removesuffix(b"\n"))
        record = LEDGER(body) if body else None
        if not isinstance(record, AnswerRecord):
            raise DamagedState(f"{self._journal.path} was changed at byte {stored.offset} while the gateway ran")
        return record.events

    async def on_disk(self, stored: Stored | None = None) -> None:
        """Return when that answer, or everything written so far, is on disk. Raises CannotGoOn when it cannot be had.

        All who wait at one time share a sync, and the event loop goes on meanwhile.
        """
        end = self._journal.offset if stored is None else stored.offset + stored.length
        while self._synced < end:
            if self._syncing is None:
                self._syncing = asyncio.ensure_future(asyncio.to_thread(self._sync))
                # The waiting calls may be gone when the sync fails; without this, asyncio reports an unread exception.
                self._syncing.add_done_callback(lambda sync: sync.cancelled() or sync.exception())
            syncing = self._syncing
            try:
                self._synced = max(self._synced, await asyncio.shield(syncing))
            finally:
                if self._syncing is syncing and syncing.done():
                    self._syncing = None

    def _sync(self) -> int:
        end = self._journal.offset
        self._journal.sync()
        return end

    def require_trust(self) -> None:
        """Raise CannotGoOn when the disk has refused a record once."""
        self._journal.require_trust()

    def new_call(self) -> int:
        """The number for a call that starts now; its tries share it."""
        self.fold.last_call += 1
        return self.fold.last_call

    def write_intent(self, call: int, request: ModelRequest, number: int, bound_usd: float | None) -> Intent:
        """Announce a try. Only when this is on disk may anything go to the endpoint."""
        changed = number == 1 and self.answered_otherwise(request.key, request.hash)
        record = IntentRecord(
            **_call_of(call, request),
            hash=request.hash,
            model=request.model,
            try_number=number,
            bound_usd=bound_usd,
            changed=changed,
            at=_now(),
        )
        self._write(record)
        return Intent(call, request, bound_usd)

    def write_answer(
        self, intent: Intent, answer: Answered, usd: float | None, recorded_usd: float | None, waited_s: float
    ) -> Stored:
        """Record a whole answer. Only when this is on disk may it be delivered."""
        record = AnswerRecord(
            **_call_of(intent.call, intent.request),
            hash=intent.request.hash,
            model=answer.model,
            stop_reason=answer.stop_reason,
            usage=answer.usage,
            usd=usd,
            recorded_usd=recorded_usd,
            endpoint_s=round(answer.endpoint_s, 3),
            waited_s=round(waited_s, 3),
            request_id=answer.request_id,
            at=_now(),
            events=answer.events,
        )
        self._write(record)
        return self._answers[intent.request.key][intent.request.hash]

    def write_fault(self, intent: Intent, fault: CallFault, retry: Retry | None = None) -> None:
        """Record that a try failed, and when the next comes; None: no other does."""
        record = FaultRecord(
            **_call_of(intent.call, intent.request),
            fault=fault.kind,
            ambiguous=fault.ambiguous,
            detail=fault.detail,
            try_number=retry.number if retry else 0,
            next_s=round(retry.next_s, 3) if retry else 0.0,
            gives_up_s=round(retry.gives_up_s, 3) if retry else 0.0,
            at=_now(),
        )
        self._write(record)

    def write_refusal(self, intent: Intent, refusal: Refusal) -> None:
        """Record that the endpoint said no."""
        record = RefusalRecord(
            **_call_of(intent.call, intent.request),
            status=refusal.status,
            error_type=refusal.type,
            detail=refusal.detail,
            at=_now(),
        )
        self._write(record)

    def close(self) -> None:
        """Give the file back, once a sync without waiting calls has ended."""
        if self._syncing is None or self._syncing.done():
            self._journal.close()
        else:
            self._syncing.add_done_callback(self._close_after)

    def _close_after(self, sync: asyncio.Future[int]) -> None:
        if not sync.cancelled() and (error := sync.exception()):
            log.warning("%s", error)
        self._journal.close()

    def _write(self, record: LedgerRecord) -> None:
        before = self._journal.offset
        record = self._journal.append(record, durable=False)
        self._take(record, before, self._journal.offset - before)

    def _load(self) -> None:
        before = 0
        for record in self._journal.each_new():
            try:
                self._take(record, before, self._journal.offset - before)
            except ValueError as error:
                raise misfit(self._journal.path, record, error) from error
            before = self._journal.offset
        self.torn_bytes = self._journal.repair_tail()
        self.dead_calls = self.fold.close_open()

    def _take(self, record: LedgerRecord, offset: int, length: int) -> None:
        """Take one record into account, whether just written or found at opening."""
        if isinstance(record, AnswerRecord):
            key = TurnKey(record.task, record.attempt, record.turn)
            # First of all: what can be found is not bought again, whatever goes wrong in counting it.
            self._answers[key][record.hash] = Stored(
                offset, length, record.endpoint_s, record.waited_s, record.request_id
            )
        self.fold.apply(record)


class _Call(TypedDict):
    call: int
    task: str
    attempt: int
    turn: int | None
    phase: str
    phase_turn: int


def _call_of(call: int, request: ModelRequest) -> _Call:
    """The fields that all records of a call have."""
    key = request.key
    return {
        "call": call,
        "task": key.task,
        "attempt": key.attempt,
        "turn": key.turn,
        "phase": request.phase,
        "phase_turn": request.phase_turn,
    }


def _now() -> float:
    return round(time.time(), 3)
