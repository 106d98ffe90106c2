"""The runs that the gateway serves: opened, closed when their last call has landed, and counted together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping

from parallel_orchestrator.gateway.calls.run import Purchase, ServedRun
from parallel_orchestrator.gateway.http import errors

_LANDING_S = 600.0
"""Most seconds that calls in flight may take when a run closes, whatever the endpoint patience.

A person who stops a run should not wait as long as that."""
_OPENING_S = 10.0
"""After a restart callers may come before their run is open again; they wait this long for it."""


class Runs:
    """All runs by id. A closed one is remembered by what it spent."""

    def __init__(self, patience_s: float, spent_before_usd: Mapping[str, float] | None = None) -> None:
        self.stopping = False
        self._spent_before = dict(spent_before_usd or {})
        """By runs that were not opened yet."""
        self._patience_s = patience_s
        self._open: dict[str, ServedRun] = {}
        self._spent_by_closed: dict[str, float] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[ServedRun]:
        return iter(list(self._open.values()))

    def open(self, run: ServedRun) -> None:
        """Take asks for `run` from now on."""
        self._spent_by_closed.pop(run.id, None)
        self._spent_before.pop(run.id, None)
        self._open[run.id] = run

    def is_open(self, run_id: str) -> bool:
        """Whether asks for that run are taken."""
        return run_id in self._open

    async def opened(self, run_id: str) -> ServedRun:
        """The open run of that id, which may take a moment to come. Raises GatewayError."""
        deadline = time.monotonic() + _OPENING_S
        while run_id not in self._open:
            if self.stopping:
                raise errors.stopping()
            if run_id in self._spent_by_closed or time.monotonic() > deadline:
                raise errors.unknown_run(run_id)
            await asyncio.sleep(0.02)
        return self._open[run_id]

    def close(self, run_id: str) -> None:
        """Take no more asks for a run. Calls at the endpoint still land in its ledger; `closed` waits for them."""
        run = self._open.pop(run_id)
        run.halted = errors.stopping()
        run.end_waiting(run.halted)
        self._spent_by_closed[run_id] = run.spent_usd()
        self._closing[run_id] = asyncio.create_task(self._close_when_landed(run))

    async def closed(self, run_id: str) -> None:
        """Return when the last call of a closed run has landed, at once when there is no such run."""
        if run_id in self._closing:
            await self._closing[run_id]

    async def close_all(self) -> None:
        """Buy nothing more, and land what is at the endpoint, for as long as patience lasts."""
        self.stopping = True
        for run_id in list(self._open):
            self.close(run_id)
        await asyncio.gather(*self._closing.values())

    def spent_usd(self) -> float:
        """Of all runs together, closed ones and those of before included."""
        earlier = sum(self._spent_before.values()) + sum(self._spent_by_closed.values())
        return earlier + sum(run.spent_usd() for run in self)

    def live_purchases(self) -> list[Purchase]:
        """Calls under way that a live endpoint has to answer."""
        return [p for run in self if not run.endpoint.free for p in run.purchases.values()]

    async def _close_when_landed(self, run: ServedRun) -> None:
        await run.landed(min(self._patience_s, _LANDING_S))
        self._spent_by_closed[run.id] = run.spent_usd()
        run.ledger.close()
        del self._closing[run.id]
