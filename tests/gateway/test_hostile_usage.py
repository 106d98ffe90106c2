"""An answer that was paid for is kept, whatever its endpoint says about tokens, and whatever fails after it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.gateway.calls.ledger import Ledger
from parallel_orchestrator.gateway.calls.messages import ModelRequest, TurnKey
from parallel_orchestrator.gateway.calls.run import Delivery, ServedRun
from parallel_orchestrator.gateway.calls.service import Service
from parallel_orchestrator.gateway.endpoints.live import LiveEndpoint
from parallel_orchestrator.gateway.endpoints.prices import PriceTable
from parallel_orchestrator.gateway.http import errors
from parallel_orchestrator.gateway.pacing.limiter import Limiter
from parallel_orchestrator.records.credential import Credential
from parallel_orchestrator.report.facts.spending import read_ledger
from tests.fake_api import Answer, FakeApi, text
from tests.gateway.support import MODEL, RUN, body, gateway
from tests.journals import read_all

FIGURES = [
    "1" * 400,
    "1" * 5000,
    "-" + "1" * 400,
    "1e999",
    "-5",
    "NaN",
    "Infinity",
    "1.5",
    '"many"',
    "true",
    "[1]",
    '{"a": 1}',
    "[" * 300 + "]" * 300,
]
"""JSON, or what some servers take for it."""
USAGES = ['{"input_tokens": 100, "output_tokens": %s}', '{"input_tokens": %s, "output_tokens": 5}']
OTHERS = ["null", "[]", '"free"', "7", "{}", '{"input_tokens": 100, "output_tokens": 5, "cache_read_input_tokens": %s}']


def _raw(usage: str) -> bytes:
    """A whole answer with this text as its usage, as a server that does not stream sends it."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [text("kept")]}
    told = json.dumps({**message, "stop_reason": "end_turn", "stop_sequence": None, "usage": "USAGE"})
    return told.replace('"USAGE"', usage).encode()


def _stream(usage: str) -> bytes:
    """The same as events."""
    start = {"id": "m", "type": "message", "role": "assistant", "model": MODEL, "content": [], "usage": "USAGE"}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": text("")},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "kept"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": "USAGE"},
        {"type": "message_stop"},
    ]
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).replace('"USAGE"', usage).encode()


ALL = [usage.replace("%s", figure) for usage in (*USAGES, OTHERS[-1]) for figure in FIGURES] + OTHERS[:-1]


@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer_with_any_usage_is_bought_once_and_counts_at_its_bound(tmp_path: Path, streamed: bool) -> None:
    def script(asked: dict[str, Any]) -> Answer:
        usage = ALL[int(asked["messages"][0]["content"])]
        return Answer([], page=("text/event-stream", _stream(usage)) if streamed else ("application/json", _raw(usage)))

    with FakeApi(script) as api, gateway(tmp_path, api, patience_s=5.0) as gw:
        for number, usage in enumerate(ALL):
            run = f"run{number}"
            gw.open(run, max_cost_usd=1e-12)
            client, asked = gw.client(gw.token(run=run)), body(str(number))
            assert "kept" in gw.ask(1, client=client, json=asked).text, usage
            assert gw.ask(1, client=client, json=asked, stream=False).json()["content"] == [text("kept")]
            assert len(api.requests) == number + 1, usage
            intent, answer = gw.records(run=run)
            status = gw.process.status()["runs"][run]
            assert (answer["usd"], status["unpriced"]) == (None, 1), usage
            assert status["unsure_usd"] == pytest.approx(intent["bound_usd"]), usage
            assert gw.error(gw.ask(2, client=client, json=asked)) == "budget_reached"
            money = read_ledger(gw.ledger(run)).total().as_json()
            assert (money["cost_usd"], money["unpriced_calls"]) == (0, 1)
            assert money["uncertain_cost_usd"] == pytest.approx(intent["bound_usd"], abs=1e-6)
            assert all(0 <= count <= 100 for count in money["tokens"].values()), usage
            _is_json_to_the_letter(gw.ledger(run))


def _is_json_to_the_letter(path: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} in {path}")

    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=refuse)


@pytest.mark.parametrize("most", ["1" * 400, "-1", "-" + "1" * 400])
def test_a_request_for_an_absurd_number_of_tokens_is_refused(tmp_path: Path, most: str) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open(max_cost_usd=1.0)
        refused = gw.ask(1, json=body(max_tokens=int(most)))
        assert (refused.status_code, gw.error(refused)) == (400, "invalid_request_error")
        assert "max_tokens" in refused.text
        client = gw.client()
        client.headers["x-orchestrator-turn"] = "1" * 5000
        assert client.post("/v1/messages", json=body()).status_code == 400
        assert api.requests == []


def _asked(folder: Path, api: FakeApi, *, spoil: Any) -> tuple[list[object], Service]:
    """What three asks for one turn give, the parts put together here and spoilt by `spoil(service, run)`."""
    ask = ModelRequest(TurnKey("task_1", 1, 1), "work", 1, MODEL, 100, json.dumps(body(stream=True)).encode(), "hash")

    async def story() -> tuple[list[object], Service]:
        service = Service(limiter=Limiter(), patience_s=600)
        endpoint = LiveEndpoint(api.url, Credential("api_key", api.key), service.inactivity)
        run = ServedRun(RUN, Ledger(folder / "ledger.jsonl"), endpoint, service.limiter, PriceTable.load())
        service.runs.open(run)
        spoil(service, run)
        told: list[object] = []
        for _ in range(3):
            try:
                told.append(await service.ask(RUN, ask))
            except errors.GatewayError as error:
                told.append(error.type)
        await service.runs.close_all()
        await endpoint.close()
        return told, service

    return asyncio.run(story())


def _fail(*_: Any, **__: Any) -> None:
    raise ZeroDivisionError("a fault of this program")


def test_a_fault_in_pricing_leaves_the_answer_unpriced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PriceTable, "cost", _fail)
    with FakeApi(lambda _: Answer([text("hi")])) as api:
        told, _ = _asked(tmp_path, api, spoil=lambda service, run: None)
        assert all(isinstance(one, Delivery) for one in told)
        assert len(api.requests) == 1
    assert [record["usd"] for record in read_all(tmp_path / "ledger.jsonl") if record["kind"] == "answer"] == [None]


@pytest.mark.parametrize("place", ["limiter", "note", "ledger"])
def test_a_fault_after_the_write_buys_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def spoil(service: Service, run: ServedRun) -> None:
        if place == "limiter":
            monkeypatch.setattr(run.limiter, "succeeded", _fail)
        elif place == "note":
            monkeypatch.setattr(service, "_note", _fail)
        else:
            monkeypatch.setattr("parallel_orchestrator.records.usage.Spending.add_answer", _fail)

    with FakeApi(lambda _: Answer([text("hi")])) as api:
        told, _ = _asked(tmp_path, api, spoil=spoil)
        assert all(isinstance(one, Delivery) for one in told)
        assert len(api.requests) == 1


def test_a_fault_before_the_write_is_recorded_and_bought_no_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(service: Service, run: ServedRun) -> None:
        real = run.endpoint.ask

        async def ask(*arguments: Any) -> Any:
            await real(*arguments)
            _fail()

        monkeypatch.setattr(run.endpoint, "ask", ask)

    with FakeApi(lambda _: Answer([text("hi")])) as api:
        told, _ = _asked(tmp_path, api, spoil=spoil)
        assert told == ["gateway_fault"] * 3
        assert len(api.requests) == 1
    fault = read_all(tmp_path / "ledger.jsonl")[-1]
    assert (fault["kind"], fault["ambiguous"]) == ("fault", True)
    assert "ZeroDivisionError" in fault["detail"]
