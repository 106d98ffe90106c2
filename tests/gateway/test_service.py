"""The way of a call, over a real socket with a real gateway process."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import httpx2
import pytest

from parallel_orchestrator.gateway.calls.ledger import Ledger, Stored
from parallel_orchestrator.gateway.calls.messages import ModelRequest, TurnKey
from parallel_orchestrator.gateway.calls.run import ServedRun
from parallel_orchestrator.gateway.calls.service import Service
from parallel_orchestrator.gateway.endpoints.live import LiveEndpoint
from parallel_orchestrator.gateway.endpoints.prices import PriceTable
from parallel_orchestrator.gateway.pacing.limiter import Limiter
from parallel_orchestrator.records.credential import Credential
from tests.fake_api import Answer, FakeApi, Fault, Wrong, text, tool_use
from tests.gateway.support import MODEL, RUN, body, events_of, gateway, wait_until, words_of


def test_an_answer_is_bought_once_and_delivered_as_often_as_asked(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        first, second = gw.ask(1), gw.ask(1)
        assert first.status_code == 200
        assert first.text == second.text
        assert [event["type"] for event in events_of(first.text)][-1] == "message_stop"
        assert len(api.requests) == 1
        intent, answer = gw.records()
        assert (intent["kind"], answer["kind"]) == ("intent", "answer")
        assert (answer["task"], answer["attempt"], answer["turn"], answer["phase_turn"]) == ("task_1", 1, 1, 1)
        assert answer["usd"] > 0
        assert answer["recorded_usd"] is None
        assert first.headers["request-id"] == answer["request_id"]


def test_the_endpoint_gets_the_request_as_it_was_with_the_key_in_both_headers(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        client = gw.client()
        client.headers["anthropic-beta"] = "some-beta"
        asked = body("größe \u2028", system=[{"type": "text", "text": "be brief"}])
        client.post("/v1/messages?beta=true", json=asked, headers={"x-orchestrator-turn": "1"})
        (request,) = api.requests
        assert request.path == "/v1/messages?beta=true"
        assert request.body == {**asked, "stream": True}
        assert request.headers["authorization"] == f"Bearer {api.key}"
        assert request.headers["x-api-key"] == api.key
        assert request.headers["anthropic-beta"] == "some-beta"
        assert request.headers["anthropic-version"] == "2026-10-21"
        assert not any(name.startswith("x-orchestrator") for name in request.headers)


def test_a_caller_that_does_not_stream_gets_the_assembled_message(tmp_path: Path) -> None:
    content = [
        {"type": "thinking", "thinking": "let me see", "signature": "c2ln"},
        text("I write it."),
        tool_use("toolu_1", "bash", command="echo ä", n=[1, {"deep": True}]),
    ]
    with FakeApi(lambda _: content) as api, gateway(tmp_path, api) as gw:
        gw.open()
        message = gw.ask(1, stream=False).json()
        assert message["content"] == content
        assert message["stop_reason"] == "tool_use"
        assert message["usage"]["output_tokens"] > 1
        assert gw.ask(1, stream=True).status_code == 200
        assert len(api.requests) == 1


def test_a_changed_request_for_an_answered_turn_is_bought_and_counted(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        gw.ask(1, json=body("one"))
        other = gw.ask(1, json=body("two"))
        assert gw.ask(1, json=body("two")).text == other.text
        assert len(api.requests) == 2
        assert [record["changed"] for record in gw.records("intent")] == [False, True]
        assert gw.process.status()["runs"][RUN]["changed"] == 1


def test_tasks_attempts_and_runs_share_no_answers(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        gw.open("run2")
        for token in (gw.token(), gw.token("task_2"), gw.token(attempt=2), gw.token(run="run2")):
            assert gw.ask(1, client=gw.client(token)).status_code == 200
        assert len(api.requests) == 4
        assert len(gw.records("answer")) == 3
        assert len(gw.records("answer", run="run2")) == 1


def test_asks_for_a_call_under_way_join_it_also_after_a_disconnect(tmp_path: Path) -> None:
    with FakeApi(latency_s=0.6) as api, gateway(tmp_path, api) as gw:
        gw.open()
        with pytest.raises(httpx2.ReadTimeout):
            gw.ask(1, client=gw.client(timeout=0.2))
        results: list[httpx2.Response] = []
        threads = [gw.ask_in_thread(results, 1) for _ in range(3)]
        for thread in threads:
            thread.join()
        assert len({response.text for response in results}) == 1
        assert results[0].status_code == 200
        assert len(api.requests) == 1


def test_a_cancelled_asker_cancels_no_call(tmp_path: Path) -> None:
    """The parts of the process put together here, because the server itself never cancels a caller's task."""
    ask = ModelRequest(TurnKey("task_1", 1, 1), "work", 1, MODEL, 100, json.dumps(body(stream=True)).encode(), "hash")

    async def story(api: FakeApi) -> Stored:
        service = Service(limiter=Limiter(), patience_s=600)
        endpoint = LiveEndpoint(api.url, Credential("api_key", api.key), service.inactivity)
        service.runs.open(
            ServedRun(RUN, Ledger(tmp_path / "ledger.jsonl"), endpoint, service.limiter, PriceTable.load())
        )
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(service.ask(RUN, ask), 0.1)
        answer = await service.ask(RUN, ask)
        await service.runs.close_all()
        await endpoint.close()
        return answer.stored

    with FakeApi(latency_s=1.0) as api:
        assert asyncio.run(story(api)).endpoint_s >= 1.0
        assert len(api.requests) == 1


def test_a_connection_to_the_endpoint_serves_further_calls(tmp_path: Path) -> None:
    with FakeApi(latency_s=0.5) as api, gateway(tmp_path, api) as gw:
        gw.open()
        assert [gw.ask(turn).status_code for turn in (1, 2, 3)] == [200] * 3
        assert api.connections == 1
        for first in (4, 7):
            results: list[httpx2.Response] = []
            threads = [gw.ask_in_thread(results, turn) for turn in range(first, first + 3)]
            for thread in threads:
                thread.join()
            assert [result.status_code for result in results] == [200] * 3
        assert len(api.requests) == 9
        assert api.connections <= 3


def test_a_caller_without_turns_is_known_by_its_request(tmp_path: Path) -> None:
    billing = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1"}
    system = [billing, {"type": "text", "text": "You are Claude Code."}]
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open()
        first = gw.ask(None, json=body("one", system=system, metadata={"user_id": "a"}))
        varied = [{**billing, "text": billing["text"] + "2"}, system[1]]
        again = gw.ask(None, json=body("one", system=varied, metadata={"user_id": "b"}))
        assert again.text == first.text
        gw.ask(None, json=body("two", system=system))
        assert len(api.requests) == 2
        answers = gw.records("answer")
        assert [(a["turn"], a["phase"], a["phase_turn"]) for a in answers] == [(None, "work", 1), (None, "work", 2)]
        assert [intent["changed"] for intent in gw.records("intent")] == [False, False]


def test_phase_and_times_are_recorded(tmp_path: Path) -> None:
    with FakeApi(latency_s=0.2) as api, gateway(tmp_path, api) as gw:
        gw.open()
        times = gw.ask(5, phase="repair 1", phase_turn=2, stream=False).json()["orchestrator"]
        (answer,) = gw.records("answer")
        assert (answer["turn"], answer["phase"], answer["phase_turn"]) == (5, "repair 1", 2)
        assert times == {"endpoint_s": answer["endpoint_s"], "waited_s": answer["waited_s"]}
        assert times["endpoint_s"] >= 0.2
        assert times["waited_s"] >= 0


STATUSES = (408, 409, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
TRANSIENT: dict[Fault | Wrong, str] = {
    Fault.RATE_LIMIT: "429",
    Fault.OVERLOADED: "529",
    Fault.SERVER_ERROR: "500",
    Fault.RESET: "reset",
    Fault.RESET_AT_ONCE: "reset",
    Fault.EARLY_END: "truncated",
    Fault.SSE_ERROR: "sse_error",
    Fault.SSE_OVERLOADED: "sse_error",
    Fault.GARBAGE: "garbage",
    Fault.HTML: "garbage",
    Fault.EMPTY: "truncated",
    Fault.CUT_JSON: "garbage",
    **{Wrong(Fault.STATUS, retry_after="0", status=n): str(n) for n in STATUSES},
}
AMBIGUOUS = {"reset", "truncated"}


def test_every_transient_fault_is_tried_again_until_the_answer_is_whole(tmp_path: Path) -> None:
    faults = list(TRANSIENT)
    met: list[Wrong | None] = []
    with FakeApi(faults=lambda n: met[n] if n < len(met) else None) as api, gateway(tmp_path, api) as gw:
        gw.open()
        for turn, fault in enumerate(faults, start=1):
            met += [None] * (len(api.requests) - len(met)) + [
                fault if isinstance(fault, Wrong) else Wrong(fault, retry_after="0")
            ]
            assert words_of(gw.ask(turn).text).startswith("turn 1 of")
        found = {record["turn"]: record for record in gw.records("fault")}
        assert [found[turn]["fault"] for turn in range(1, len(faults) + 1)] == list(TRANSIENT.values())
        assert all(record["ambiguous"] for record in found.values() if record["fault"] in AMBIGUOUS)
        assert not any(found[turn]["ambiguous"] for turn in (1, 2, 3))
        assert api.answered_twice() == [("", 1, api.requests[0].hash)]  # one body for all turns
        calls = [(intent["call"], intent["try"]) for intent in gw.records("intent")]
        assert calls == [(n, k) for n in range(1, len(faults) + 1) for k in (1, 2)]
        unsure = gw.process.status()["runs"][RUN]["unsure_usd"]
        doubtful = {record["call"] for record in found.values() if record["ambiguous"]}
        bounds = [i["bound_usd"] for i in gw.records("intent") if i["try"] == 1 and i["call"] in doubtful]
        assert unsure == pytest.approx(sum(bounds))


def test_a_slow_trickle_is_an_answer(tmp_path: Path) -> None:
    with FakeApi(faults=[Fault.TRICKLE]) as api, gateway(tmp_path, api) as gw:
        gw.open()
        assert words_of(gw.ask(1).text).startswith("turn 1 of")
        assert len(api.requests) == 1


def test_an_endpoint_that_takes_no_notice_of_stream_is_understood(tmp_path: Path) -> None:
    content = [text("I write it."), tool_use("toolu_1", "bash", command="echo ä")]
    answers = [Answer(content), Answer(content, usage={})]
    with FakeApi(lambda _: answers.pop(0), faults=lambda _: Fault.UNSTREAMED) as api, gateway(tmp_path, api) as gw:
        gw.open()
        assert gw.ask(1, stream=False).json()["content"] == content
        assert events_of(gw.ask(1).text)[-1] == {"type": "message_stop"}
        assert gw.ask(2).status_code == 200
        assert len(api.requests) == 2
        priced, unpriced = gw.records("answer")
        assert priced["usd"] > 0
        assert unpriced["usd"] is None


def test_an_answer_without_usage_is_unpriced_and_not_free(tmp_path: Path) -> None:
    with FakeApi(lambda _: Answer([text("hi")], usage={})) as api, gateway(tmp_path, api) as gw:
        gw.open()
        assert gw.ask(1).status_code == 200
        (answer,) = gw.records("answer")
        assert answer["usd"] is None
        status = gw.process.status()["runs"][RUN]
        assert status["unpriced"] == 1
        assert status["unsure_usd"] == gw.records("intent")[0]["bound_usd"] > 0


def test_a_refusal_of_the_request_goes_to_its_caller_as_it_is(tmp_path: Path) -> None:
    with FakeApi(models=frozenset({MODEL})) as api, gateway(tmp_path, api) as gw:
        gw.open()
        response = gw.ask(1, json=body(temperature=1))
        assert response.status_code == 400
        assert "temperature" in response.json()["error"]["message"]
        missing = gw.ask(2, json=body(model="claude-nobody"))
        assert (missing.status_code, gw.error(missing)) == (404, "model_unknown")
        assert "claude-nobody" in missing.json()["error"]["message"]
        assert gw.error(gw.ask(4, json=body(model="claude-nobody"))) == "model_unknown"  # without another call
        assert [record["status"] for record in gw.records("refused")] == [400, 404]
        assert gw.ask(3).status_code == 200
        assert len(api.requests) == 3


@pytest.mark.parametrize(
    ("fault", "error", "status"),
    [
        (Fault.KEY_REFUSED, "key_refused", 401),
        (Fault.FORBIDDEN, "key_refused", 401),
        (Fault.CREDIT, "credit_exhausted", 402),
        (Fault.SPEND_LIMIT, "credit_exhausted", 402),
    ],
)
def test_a_refused_credential_stops_everything(tmp_path: Path, fault: Fault, error: str, status: int) -> None:
    with FakeApi(faults=[fault]) as api, gateway(tmp_path, api) as gw:
        gw.open()
        gw.open("run2")
        refused = gw.ask(1)
        assert (refused.status_code, gw.error(refused)) == (status, error)
        assert gw.error(gw.ask(2)) == error
        assert gw.error(gw.ask(1, client=gw.client(gw.token(run="run2")))) == error
        assert len(api.requests) == 1
        files = [path.read_text() for path in tmp_path.iterdir()]
        assert not any(api.key in content for content in files)
        assert api.key not in refused.text


def test_a_call_that_waits_ends_when_the_credential_is_refused(tmp_path: Path) -> None:
    faults = [Wrong(Fault.OVERLOADED, retry_after="60"), Wrong(Fault.KEY_REFUSED)]
    with FakeApi(faults=faults) as api, gateway(tmp_path, api) as gw:
        gw.open()
        results: list[httpx2.Response] = []
        waiting = gw.ask_in_thread(results, 1)
        wait_until(lambda: bool(gw.records("fault")))
        assert gw.error(gw.ask(2)) == "key_refused"
        waiting.join()
        assert gw.error(results[0]) == "key_refused"
        assert len(api.requests) == 2


def test_closing_a_run_ends_what_waits_and_lands_what_is_at_the_endpoint(tmp_path: Path) -> None:
    faults = [Wrong(Fault.OVERLOADED, retry_after="60")]
    with FakeApi(faults=faults, latency_s=0.5) as api, gateway(tmp_path, api) as gw:
        gw.open()
        waiting: list[httpx2.Response] = []
        landing: list[httpx2.Response] = []
        threads = [gw.ask_in_thread(waiting, 1)]
        wait_until(lambda: bool(gw.records("fault")))
        threads.append(gw.ask_in_thread(landing, 2))
        api.wait_for_requests(2)
        gw.process.close_run(RUN)
        assert gw.open().spent_usd > 0
        for thread in threads:
            thread.join()
        assert gw.error(waiting[0]) == "gateway_stopping"
        assert landing[0].status_code == 200
        assert len(api.requests) == 2


def test_a_rate_limit_holds_back_every_caller(tmp_path: Path) -> None:
    with FakeApi(faults=[Wrong(Fault.RATE_LIMIT, retry_after="1")]) as api, gateway(tmp_path, api) as gw:
        gw.open()
        results: list[httpx2.Response] = []
        threads = [gw.ask_in_thread(results, 1)]
        wait_until(lambda: bool(gw.records("fault")))
        assert gw.process.status()["held_until_s"] > 0
        threads += [gw.ask_in_thread(results, turn) for turn in range(2, 6)]
        for thread in threads:
            thread.join()
        assert [response.status_code for response in results] == [200] * 5
        limited, *others = [request.at for request in api.requests]
        assert min(others) - limited >= 0.9
        gaps = [later - earlier for earlier, later in itertools.pairwise(others)]
        assert max(gaps) > 0.02  # spaced, not in a burst
        assert gw.records("answer")[0]["waited_s"] >= 0.9


def test_a_budget_stops_the_run_and_its_answers_stay(tmp_path: Path) -> None:
    usage = {"input_tokens": 100_000, "output_tokens": 10_000}  # $0.60
    with FakeApi(lambda _: Answer([text("hi")], usage=usage)) as api, gateway(tmp_path, api) as gw:
        gw.open(max_cost_usd=1.0)
        assert [gw.ask(turn).status_code for turn in (1, 2, 3)] == [200, 200, 402]
        assert gw.error(gw.ask(3)) == "budget_reached"
        assert gw.ask(2).status_code == 200
        assert len(api.requests) == 2
        gw.process.close_run(RUN)
        assert gw.open(max_cost_usd=5.0).spent_usd == pytest.approx(1.2)
        assert gw.ask(3).status_code == 200


def test_a_task_has_a_cap_of_its_own_and_cannot_spend_as_another(tmp_path: Path) -> None:
    usage = {"input_tokens": 100_000, "output_tokens": 10_000}
    with FakeApi(lambda _: Answer([text("hi")], usage=usage)) as api, gateway(tmp_path, api) as gw:
        gw.open(task_max_cost_usd=0.5)
        assert gw.ask(1).status_code == 200
        refused = gw.ask(2)
        assert (refused.status_code, gw.error(refused)) == (402, "task_budget_reached")
        client = gw.client()
        for name in ("x-orchestrator-task", "x-task"):
            client.headers[name] = "task_2"
        assert gw.error(gw.ask(2, client=client)) == "task_budget_reached"
        forged = gw.token().replace("task_1", "task_2")
        assert gw.error(gw.ask(2, client=gw.client(forged))) == "unknown_token"
        assert gw.ask(1, client=gw.client(gw.token("task_2"))).status_code == 200
        assert len(api.requests) == 2


def test_a_cap_over_all_runs(tmp_path: Path) -> None:
    usage = {"input_tokens": 100_000, "output_tokens": 10_000}
    with FakeApi(lambda _: Answer([text("hi")], usage=usage)) as api, gateway(tmp_path, api, max_cost_usd=1.0) as gw:
        gw.open()
        gw.open("run2")
        other = gw.client(gw.token(run="run2"))
        assert gw.ask(1).status_code == 200
        gw.process.close_run(RUN)
        assert gw.ask(1, client=other).status_code == 200
        assert gw.error(gw.ask(2, client=other)) == "batch_budget_reached"
        assert gw.process.status()["spent_usd"] == pytest.approx(1.2)


def test_an_unpriced_model_is_refused_while_a_budget_is_set(tmp_path: Path) -> None:
    with FakeApi() as api, gateway(tmp_path, api) as gw:
        gw.open(max_cost_usd=1.0)
        refused = gw.ask(1, json=body(model="llama-9"))
        assert (refused.status_code, gw.error(refused)) == (400, "unpriced_model")
        assert api.requests == []
        gw.open("run2")
        assert gw.ask(1, json=body(model="llama-9"), client=gw.client(gw.token(run="run2"))).status_code == 200
        (answer,) = gw.records("answer", run="run2")
        assert answer["usd"] is None
