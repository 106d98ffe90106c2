"""What a person is shown of an endpoint that keeps failing, by the ledger alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from parallel_orchestrator.records.errors import OrchestratorError
from parallel_orchestrator.records.journals.ledger import FaultRecord, IntentRecord, LedgerRecord
from parallel_orchestrator.store.journal import Journal
from parallel_orchestrator.store.record_parser import LEDGER

LONG_WAIT_S = 5.0
"""Seconds before the second try from which a person is told, as after a rate limit."""
_SAY_AGAIN_S = 60.0
_STALE_S = 60.0
"""Seconds after the time at which the gateway gives up. It is gone then."""


@dataclass(frozen=True)
class Trouble:
    """The last failed try at a call. Times are of the wall clock."""

    what: str
    tries: int
    next_at: float
    gives_up_at: float

    @classmethod
    def of(cls, fault: FaultRecord) -> Trouble | None:
        """From a fault of the ledger; None for a first try whose next comes soon, which a person need not see."""
        if not fault.try_number or (fault.try_number < 2 and fault.next_s < LONG_WAIT_S):
            return None
        what = "rate limit (429)" if fault.fault == "429" else f"{fault.fault}: {fault.detail}"
        return cls(what, fault.try_number, fault.at + fault.next_s, fault.at + fault.gives_up_s)

    def text(self, now: float) -> str:
        """What fails, the number of the try, when the next comes and when it gives up; empty where that is long ago."""
        if now > self.gives_up_at + _STALE_S:
            return ""
        coming = f"next in {_span(self.next_at - now)}" if self.next_at > now else "the next is under way"
        return (
            f"the endpoint fails ({self.what}): try {self.tries} failed, {coming}, "
            f"giving up in {_span(self.gives_up_at - now)}"
        )


def latest(troubles: Iterable[Trouble | None]) -> Trouble | None:
    """Return the trouble of the latest try, of several runs at one endpoint."""
    return max((one for one in troubles if one), key=lambda one: one.next_at, default=None)


class TroubleNews:
    """Says what fails when it starts, once a minute while it lasts, and when it is over."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: float | None = None

    def look(self, trouble: Trouble | None) -> str:
        """Say what changed, and return the line for a view; empty when nothing fails."""
        text, now = trouble.text(time.time()) if trouble else "", time.monotonic()
        if text and (self._said is None or now - self._said >= _SAY_AGAIN_S):
            self._said = now
            self._say(text)
        elif not text and self._said is not None:
            self._said = None
            self._say("the endpoint answers again")
        return text


class LedgerTrouble:
    """Follows one ledger for what fails, while the run has no plan yet."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._journal = Journal(path, LEDGER)
        self._news = TroubleNews(say)
        self._trouble: Trouble | None = None

    def __call__(self) -> str:
        """The line for a view, empty when nothing fails."""
        with suppress(OSError, OrchestratorError):  # the orchestrator of the run reports damaged files
            for record in self._journal.read_new():
                self._trouble = following(self._trouble, record)
        return self._news.look(self._trouble)

    def close(self) -> None:
        """Close the file."""
        self._journal.close()


def following(trouble: Trouble | None, record: LedgerRecord) -> Trouble | None:
    """Return what fails after the ledger's next record."""
    if isinstance(record, FaultRecord):
        return Trouble.of(record)
    return trouble if isinstance(record, IntentRecord) else None


def _span(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
