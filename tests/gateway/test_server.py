"""The HTTP side, and the real SDK as a caller."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from parallel_orchestrator.gateway.calls.ledger import Ledger
from parallel_orchestrator.gateway.calls.run import ServedRun
from parallel_orchestrator.gateway.calls.service import Service
from parallel_orchestrator.gateway.endpoints.live import LiveEndpoint
from parallel_orchestrator.gateway.endpoints.prices import PriceTable
from parallel_orchestrator.gateway.http.server import Application
from parallel_orchestrator.gateway.pacing.limiter import Limiter
from parallel_orchestrator.records.attempt_token import Caller, mint
from parallel_orchestrator.records.credential import Credential
from tests.fake_api import FakeApi, Fault, text, tool_use
from tests.gateway.support import body, events_of, gateway


def test_tokens_are_taken_from_either_header(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        shown = [
            {"authorization": f"Bearer {gw.token()}"},
            {"x-api-key": gw.token()},
            {"authorization": "Bearer something-else", "x-api-key": gw.token()},
        ]
        for headers in shown:
            client = gw.client()
            client.headers.pop("authorization")
            client.headers.update(headers)
            assert gw.ask(1, client=client).status_code == 200


def test_without_a_token_nothing_is_done(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        for token in ("", "x", gw.token()[:-1], api.key, gw.process.config.secret, "po1.a.b.1.deadbeef"):
            client = gw.client(token or "none")
            response = gw.ask(1, client=client)
            assert (response.status_code, gw.error(response)) == (401, "unknown_token")
        assert gw.client().get("/orchestrator/status").status_code == 401
        assert api.requests == []


def test_other_paths_are_not_found(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        client = gw.client()
        for method, path in [
            ("GET", "/v1/messages"),
            ("POST", "/v1/messages/count_tokens"),
            ("GET", "/v1/models"),
            ("GET", "/orchestrator/x"),
            ("GET", "/"),
            ("HEAD", "/api/hello"),
        ]:
            assert client.request(method, path).status_code == 404
        assert api.requests == []


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'"x"', b"{}", b'{"model": 3}', b"[" * 100_000, b'{"model":"\\ud800"}']
)
def test_a_body_that_is_no_request_is_refused_here(tmp_path: Path, data: bytes) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        response = gw.client().post("/v1/messages", content=data)
        assert (response.status_code, gw.error(response)) == (400, "invalid_request_error")
        assert api.requests == []


def test_odd_headers_and_sizes_are_refused_here(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        for turn in ("0", "-1", "x", "1.5"):
            response = gw.client().post("/v1/messages", json=body(), headers={"x-orchestrator-turn": turn})
            assert response.status_code == 400
        response = gw.client().post("/v1/messages", content=b"x" * (32 * 2**20 + 1))
        assert (response.status_code, gw.error(response)) == (413, "request_too_large")
        assert api.requests == []


def test_what_is_no_http_harms_nobody(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        for junk in (
            b"\x00\xff\r\n\r\n",
            b"GET / HTTP/1.1\r\n",
            b"POST /v1/messages HTTP/1.1\r\ncontent-length: 9\r\n\r\n{",
        ):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(gw.process.config.socket))
                raw.sendall(junk)
        assert gw.ask(1).status_code == 200


def test_the_real_sdk_streams_and_reads_over_the_socket(tmp_path: Path) -> None:
    import anthropic

    content = [text("I look."), tool_use("toolu_1", "bash", command="ls")]
    with FakeApi(lambda _: content, faults=[Fault.RESET, None, Fault.BAD_REQUEST]) as api, gateway(tmp_path, api) as gw:
        gw.open()
        transport = httpx2.HTTPTransport(uds=str(gw.process.config.socket))
        with anthropic.Anthropic(
            api_key=gw.token(),
            base_url="http://gateway",
            max_retries=0,
            http_client=anthropic.DefaultHttpxClient(transport=transport),
        ) as client:
            asked: Any = body()
            with client.messages.stream(**asked, extra_headers={"x-orchestrator-turn": "1"}) as stream:
                streamed = stream.get_final_message()
            whole = client.messages.create(**asked, extra_headers={"x-orchestrator-turn": "1"})
            for message in (streamed, whole):
                assert [
                    block.model_dump(exclude_none=True, exclude={"parsed_output"}) for block in message.content
                ] == content
                assert message.stop_reason == "tool_use"
            assert whole._request_id == "req_fake_1"
            assert len(api.requests) == 2
            with pytest.raises(anthropic.BadRequestError, match="something is wrong"):
                client.messages.create(**asked, extra_headers={"x-orchestrator-turn": "2"})


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(("fault", "status", "ping_s"), [(Fault.BAD_REQUEST, 400, 15.0), (Fault.HANG, 200, 0.1)])
def test_who_waits_long_gets_signs_of_life_and_the_error_after_them(
    tmp_path: Path, fault: Fault, status: int, ping_s: float, streams: bool
) -> None:
    """The parts of the process, put together here with pings that come early."""

    async def story(api: FakeApi) -> httpx2.Response:
        service = Service(limiter=Limiter(), patience_s=0.6)
        endpoint = LiveEndpoint(api.url, Credential("api_key", api.key), service.inactivity)
        service.runs.open(
            ServedRun("run1", Ledger(tmp_path / "ledger.jsonl"), endpoint, service.limiter, PriceTable.load())
        )
        watch = asyncio.create_task(service.watch_inactivity())
        transport = httpx2.ASGITransport(Application(service, "secret", ping_s))
        headers = {"x-api-key": mint("secret", Caller("run1", "task_1", 1)), "anthropic-version": "1"}
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
            response = await client.post("/v1/messages", json=body(stream=streams))
        watch.cancel()
        await service.runs.close_all()
        await endpoint.close()
        return response

    with FakeApi(faults=[fault]) as api:
        response = asyncio.run(story(api))
    assert response.status_code == status
    if status == 200:
        assert response.text.startswith('event: ping\ndata: {"type":"ping"}\n\n' if streams else "\n\n")
        error = events_of(response.text)[-1] if streams else response.json()
        assert (error["type"], error["error"]["type"]) == ("error", "endpoint_silent")


def test_neither_the_handle_nor_the_gateway_imports_what_is_slow() -> None:
    for module, without in [
        ("handle", ("anthropic", "httpx2", "uvicorn", "asyncio", "pydantic", "yaml")),
        ("control", ("anthropic", "pydantic", "yaml")),
    ]:
        code = f"import sys, parallel_orchestrator.gateway.{module}; print([m for m in {without} if m in sys.modules])"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "[]"
