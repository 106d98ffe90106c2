"""A ledger that fails while calls are under way."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from pathlib import Path

import pytest

from parallel_orchestrator.gateway.calls.ledger import Ledger
from parallel_orchestrator.gateway.calls.messages import ModelRequest, TurnKey
from parallel_orchestrator.gateway.calls.run import ServedRun
from parallel_orchestrator.gateway.calls.service import Service
from parallel_orchestrator.gateway.endpoints.live import LiveEndpoint
from parallel_orchestrator.gateway.endpoints.prices import PriceTable
from parallel_orchestrator.gateway.http.errors import GatewayError
from parallel_orchestrator.gateway.pacing.limiter import Limiter
from parallel_orchestrator.records.credential import Credential
from tests.fake_api import FakeApi
from tests.gateway.support import MODEL, RUN, body
from tests.journals import read_all


def _ask(turn: int) -> ModelRequest:
    data = json.dumps(body(stream=True)).encode()
    return ModelRequest(TurnKey("task_1", 1, turn), "work", 1, MODEL, 100, data, f"hash{turn}")


def _service(path: Path, api: FakeApi) -> tuple[Service, LiveEndpoint]:
    service = Service(limiter=Limiter(), patience_s=600)
    endpoint = LiveEndpoint(api.url, Credential("api_key", api.key), service.inactivity)
    service.runs.open(ServedRun(RUN, Ledger(path / "ledger.jsonl"), endpoint, service.limiter, PriceTable.load()))
    return service, endpoint


@pytest.fixture
def _slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fdatasync

    def slow(descriptor: int) -> None:
        time.sleep(0.5)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)


@pytest.mark.usefixtures("_slow_disk")
def test_no_call_goes_out_after_the_ledger_failed_though_its_intent_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(descriptor: int, data: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def story(api: FakeApi) -> None:
        service, endpoint = _service(tmp_path, api)
        first = asyncio.create_task(service.ask(RUN, _ask(1)))
        await asyncio.sleep(0.2)  # its intent is written, and on the way to the disk
        monkeypatch.setattr("parallel_orchestrator.store.journal.write_all", refused)
        for ask in (service.ask(RUN, _ask(2)), first):
            with pytest.raises(GatewayError, match="Input/output error"):
                await ask
        await service.runs.close_all()
        await endpoint.close()

    with FakeApi() as api:
        asyncio.run(story(api))
        assert api.requests == []


@pytest.mark.usefixtures("_slow_disk")
def test_a_call_that_is_announced_lands_though_its_run_is_closed_meanwhile(tmp_path: Path) -> None:
    async def story(api: FakeApi) -> None:
        service, endpoint = _service(tmp_path, api)
        first = asyncio.create_task(service.ask(RUN, _ask(1)))
        await asyncio.sleep(0.2)
        await service.runs.close_all()
        assert (await first).message["stop_reason"] == "end_turn"
        await endpoint.close()

    with FakeApi() as api:
        asyncio.run(story(api))
        assert len(api.requests) == 1
    assert [record["kind"] for record in read_all(tmp_path / "ledger.jsonl")] == ["intent", "answer"]
