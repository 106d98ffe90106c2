"""HTTP clients of one connection each, lent to one call at a time; the one that was given back last goes first.

One client for all calls would look at each of its connections, busy or idle, whenever a call begins or ends.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2


class Clients:
    """As many as there were calls at once. `options`: of each `httpx2.AsyncClient`."""

    def __init__(self, **options: Any) -> None:
        # Reading the authorities' certificates takes longest; all share them.
        self._options = {"verify": httpx2.create_ssl_context(), **options}
        self._idle: list[httpx2.AsyncClient] = []
        self._all: list[httpx2.AsyncClient] = []

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[httpx2.AsyncClient]:
        """A client that nobody else uses meanwhile."""
        if self._idle:
            client = self._idle.pop()
        else:
            client = httpx2.AsyncClient(**self._options)
            self._all.append(client)
        try:
            yield client
        finally:
            self._idle.append(client)

    async def close(self) -> None:
        """End all connections."""
        for client in self._all:
            await client.aclose()
