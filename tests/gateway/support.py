"""A gateway process with a run, and callers that reach it as executors do: for the tests of this room."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from parallel_orchestrator.gateway.config import OpenedRun, RunConfig, StartConfig, new_socket_directory
from parallel_orchestrator.gateway.handle import GatewayProcess
from parallel_orchestrator.records.attempt_token import Caller, mint
from parallel_orchestrator.records.credential import Credential
from tests.fake_api import KEY, FakeApi
from tests.journals import Record, read_all

MODEL = "claude-opus-5-5"
RUN = "run1"


def body(words: str = "hello", **fields: Any) -> dict[str, Any]:
    """A request body; another text is another request."""
    return {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": words}], **fields}


def events_of(text: str) -> list[dict[str, Any]]:
    """The data of every event in an SSE text."""
    return [json.loads(line[5:]) for line in text.split("\n") if line.startswith("data:")]


def words_of(text: str) -> str:
    """The text that a stream's deltas add up to."""
    deltas = [event["delta"] for event in events_of(text) if event["type"] == "content_block_delta"]
    return "".join(delta.get("text", "") for delta in deltas)


def wait_until(happened: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return when it has happened; AssertionError when it does not."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@dataclass
class Setup:
    """One gateway process, its socket and its ledger folder."""

    process: GatewayProcess
    folder: Path
    clients: list[httpx2.Client] = field(default_factory=list)

    def open(self, run: str = RUN, **fields: Any) -> OpenedRun:
        return self.process.open_run(RunConfig(run, self.ledger(run), **{"models": (MODEL,), **fields}))

    def ledger(self, run: str = RUN) -> Path:
        return self.folder / f"{run}.jsonl"

    def records(self, kind: str | None = None, run: str = RUN) -> list[Record]:
        return [record for record in read_all(self.ledger(run)) if kind in (None, record["kind"])]

    def token(self, task: str = "task_1", attempt: int = 1, run: str = RUN) -> str:
        return mint(self.process.config.secret, Caller(run, task, attempt))

    def client(self, token: str | None = None, timeout: float = 30.0) -> httpx2.Client:
        transport = httpx2.HTTPTransport(uds=str(self.process.config.socket), verify=False)  # builds no TLS context
        headers = {"authorization": f"Bearer {token or self.token()}", "anthropic-version": "2026-10-21"}
        client = httpx2.Client(transport=transport, base_url="http://gateway", headers=headers, timeout=timeout)
        self.clients.append(client)
        return client

    def ask(self, turn: int | None = 1, *, client: httpx2.Client | None = None, **options: Any) -> httpx2.Response:
        """One streamed ask. Options: `json` (the body), `phase`, `phase_turn`, `stream`."""
        headers = {"x-orchestrator-turn": str(turn)} if turn else {}
        if phase := options.get("phase"):
            headers |= {"x-orchestrator-phase": phase, "x-orchestrator-phase-turn": str(options["phase_turn"])}
        asked = {**options.get("json", body()), "stream": options.get("stream", True)}
        return (client or self.client()).post("/v1/messages", json=asked, headers=headers)

    def ask_in_thread(self, results: list[httpx2.Response], *args: Any, **options: Any) -> threading.Thread:
        def run() -> None:
            results.append(self.ask(*args, **options))

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def error(self, response: httpx2.Response) -> str:
        """The error type in a response, whether it came as a status or as an event."""
        if response.headers["content-type"].startswith("application/json"):
            return str(response.json()["error"]["type"])
        return str(events_of(response.text)[-1]["error"]["type"])


@contextmanager
def gateway(folder: Path, api: FakeApi | None = None, **start: Any) -> Iterator[Setup]:
    """A started gateway for `api`; whatever happens, it is gone at the end."""
    sockets = new_socket_directory()
    defaults: dict[str, Any] = {"socket": sockets / "gw", "secret": secrets.token_hex(16)}
    if api:
        defaults |= {"credential": Credential("api_key", KEY), "base_url": api.url}
    with (folder / "gateway.log").open("wb") as log:
        setup = Setup(GatewayProcess(StartConfig(**{**defaults, **start}), stderr=log), folder)
        try:
            setup.process.start()
            yield setup
        finally:
            for client in setup.clients:
                client.close()
            setup.process.stop(timeout=10)
            assert not sockets.exists()
