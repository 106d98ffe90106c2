from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from parallel_orchestrator.agent.model_client import Answer, ModelClient
from parallel_orchestrator.records import errors
from tests.agent.conftest import Gateway

HELLO = {"content": [{"type": "text", "text": "hello"}]}
REQUEST = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def client(gateway: Gateway) -> Iterator[ModelClient]:
    made = ModelClient(gateway.socket, "po1.token", patience_s=20)
    yield made
    made.close()


def ask(client: ModelClient, turn: int = 1, **more: Any) -> Answer:
    return client.ask({**REQUEST, **more}, turn=turn, phase="repair 1", phase_turn=3)


def test_an_answer(gateway: Gateway, client: ModelClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "not this one")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    call = {"type": "tool_use", "id": "a", "name": "bash", "input": {"command": "ls"}}
    gateway.will_reply({2: [{"content": [{"type": "text", "text": "größe"}, call], "stop_reason": "tool_use"}]})
    gateway.start()
    answer = ask(client, 2, cache_control={"type": "ephemeral"})
    assert answer.content == [{"type": "text", "text": "größe"}, call]
    assert (answer.stop_reason, answer.model, answer.endpoint_s, answer.waited_s) == ("tool_use", "m", 2.0, 0.25)
    assert (answer.usage["input_tokens"], answer.usage["output_tokens"]) == (10, 5)
    request = gateway.asked()[0]
    assert request["headers"]["authorization"] == "Bearer po1.token"
    assert request["headers"]["x-orchestrator-phase"] == "repair 1"
    assert request["headers"]["x-orchestrator-phase-turn"] == "3"
    assert request["body"] == {**REQUEST, "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    "fault",
    [
        {**HELLO, "break": "eof"},
        {**HELLO, "break": "reset"},
        {**HELLO, "break": "garbage"},
        {"status": 503, "error": "starting"},
        {"error": "overloaded_error"},
        {"error": "api_error"},
    ],
    ids=["early end", "reset", "garbage", "503", "overloaded after a sign of life", "api error after a sign of life"],
)
def test_passing_faults_are_asked_again(gateway: Gateway, client: ModelClient, fault: dict[str, Any]) -> None:
    gateway.will_reply({1: [fault, fault, HELLO]})
    gateway.start()
    assert ask(client).content == HELLO["content"]
    assert len(gateway.asked()) == 3
    assert gateway.asked()[0]["body"] == gateway.asked()[2]["body"]


# A connection that is refused: httpcore leaves its socket to the garbage collector.
refused_connections = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@refused_connections
def test_a_gateway_that_dies_and_comes_again(gateway: Gateway, client: ModelClient) -> None:
    gateway.will_reply({1: [HELLO], 2: [{**HELLO, "break": "death"}, HELLO]})
    gateway.start()
    ask(client)
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(ask(client, 2)))
    asking.start()
    assert gateway.process is not None
    gateway.process.wait()
    gateway.stop()
    time.sleep(0.2)
    gateway.start()
    asking.join()
    gc.collect()
    assert answers[0].content == HELLO["content"]


@refused_connections
def test_a_gateway_that_stays_away(gateway: Gateway) -> None:
    client = ModelClient(gateway.socket, "t", patience_s=0.3)
    with pytest.raises(errors.CannotGoOn, match="resume"):
        ask(client)
    client.close()
    gc.collect()


def test_answers_that_break_off_for_ever(gateway: Gateway, client: ModelClient) -> None:
    gateway.will_reply({1: [{**HELLO, "break": "eof"}]})
    gateway.start()
    with pytest.raises(errors.CannotGoOn, match=r"gives no whole answer .*peer closed connection"):
        ask(client)
    assert len(gateway.asked()) == 5


def test_what_cannot_be_written_as_json_is_refused_at_once(gateway: Gateway, client: ModelClient) -> None:
    gateway.will_reply({1: [HELLO]})
    gateway.start()
    for content in (float("inf"), "\ud800"):
        with pytest.raises(errors.RequestRefused, match="cannot be written as JSON"):
            ask(client, messages=[{"role": "user", "content": content}])
    assert ask(client).content == HELLO["content"]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("kind", "status", "expected"),
    [
        ("budget_reached", 402, errors.BudgetReached),
        ("task_budget_reached", 402, errors.TaskLimit),
        ("credit_exhausted", 402, errors.EndpointUnavailable),
        ("key_refused", 401, errors.KeyRefused),
        ("unknown_token", 401, errors.CannotGoOn),
        ("endpoint_silent", 503, errors.EndpointUnavailable),
        ("gateway_stopping", 503, errors.CannotGoOn),
        ("cannot_write", 503, errors.CannotGoOn),
        ("recording_exhausted", 404, errors.RecordingExhausted),
        ("invalid_request_error", 400, errors.RequestRefused),
        ("not_found_error", 404, errors.RequestRefused),
        ("request_too_large", 413, errors.ContextFull),
    ],
)
def test_errors_of_the_gateway(
    gateway: Gateway, client: ModelClient, kind: str, status: int, expected: type[Exception], late: bool
) -> None:
    gateway.will_reply({1: [{"error": kind} if late else {"error": kind, "status": status}]})
    gateway.start()
    with pytest.raises(expected, match="as told") as caught:
        ask(client)
    assert type(caught.value) is expected
    assert len(gateway.asked()) == 1


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    "message",
    [
        "prompt is too long: 208310 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 195000 + 16000 > 200000",
        "This model's maximum context length is 32768 tokens. However, you requested 40000 tokens",
        "the request exceeds the available context size (4096 tokens), try increasing it",
    ],
)
def test_a_refusal_of_too_long_a_conversation(gateway: Gateway, client: ModelClient, message: str, late: bool) -> None:
    refused = {"error": "invalid_request_error", "message": message}
    gateway.will_reply({1: [refused if late else {**refused, "status": 400}]})
    gateway.start()
    with pytest.raises(errors.ContextFull):
        ask(client)


def test_the_sdk_is_imported_by_the_first_call_alone() -> None:
    rooms = "agent.model_client, agent.prompt, agent.tools.editor, agent.transcript, agent.turns, sandbox.runner"
    modules = ", ".join(f"parallel_orchestrator.{room}" for room in rooms.split(", "))
    code = f"import sys, {modules}; print('anthropic' in sys.modules)"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True, cwd=_root()).stdout == "False\n"


def test_preload_needs_no_key() -> None:
    # httpcore leaves the socket of a refused connection to the garbage collector.
    strict = ["-W", "error", "-W", "ignore:unclosed <socket:ResourceWarning"]
    run = [sys.executable, *strict, "-c", "import parallel_orchestrator.agent.preload"]
    subprocess.run(run, check=True, cwd=_root(), env={})


def _root() -> Path:
    return Path(__file__).parents[2]
