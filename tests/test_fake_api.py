"""The fake refuses what the API refuses. What it answers is tested by everybody who uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.fake_api import KEY, FakeApi, Fault, seeded_faults, text, tool_use

USER: dict[str, Any] = {"role": "user", "content": "hi"}
CALL = {"role": "assistant", "content": [tool_use("toolu_1", "bash", command="ls")]}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}
TOOL = {"name": "bash", "input_schema": {"type": "object"}}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx2.Client]:
    headers = {"x-api-key": KEY, "anthropic-version": "2026-10-21"}
    with FakeApi(models=frozenset({"m"})) as api, httpx2.Client(base_url=api.url, headers=headers) as client:
        yield client


def ask(client: httpx2.Client, **fields: Any) -> httpx2.Response:
    body = {"model": "m", "max_tokens": 10, "messages": [USER], **fields}
    return client.post("/v1/messages", json={name: value for name, value in body.items() if value is not None})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": [USER, USER]},
        {"messages": [USER, CALL, {"role": "user", "content": [RESULT, text("and?")]}]},
        {"messages": [USER, CALL, {"role": "user", "content": [RESULT]}, USER]},
        {"messages": [USER, {"role": "assistant", "content": "so"}]},
        {"messages": [USER, {"role": "system", "content": "be brief"}]},
        {"tools": [TOOL, {"type": "bash_20250124", "name": "other"}]},
        {"system": [{**text("s"), "cache_control": {"type": "ephemeral"}}] * 4},
    ],
)
def test_what_the_api_takes(client: httpx2.Client, fields: dict[str, Any]) -> None:
    assert ask(client, **fields).status_code == 200


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 0.5}, "temperature"),
        ({"top_p": 0.5}, "top_p"),
        ({"top_k": 5}, "top_k"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "first message"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "role"),
        ({"messages": [{"role": "user", "content": ""}]}, "non-empty"),
        ({"messages": [{"role": "user", "content": [text("")]}]}, "non-empty"),
        ({"messages": [USER, {"role": "assistant", "content": "so "}]}, "trailing whitespace"),
        ({"messages": [USER, CALL]}, "toolu_1"),
        ({"messages": [USER, CALL, USER]}, "toolu_1"),
        ({"messages": [USER, {"role": "user", "content": [RESULT]}]}, "unexpected"),
        (
            {"messages": [USER, CALL, {"role": "user", "content": [RESULT, {**RESULT, "tool_use_id": "b"}]}]},
            "unexpected",
        ),
        ({"messages": [USER, CALL, {"role": "user", "content": [RESULT, RESULT]}]}, "unexpected"),
        ({"messages": [USER, {"role": "assistant", "content": [tool_use("a b", "bash")]}, USER]}, "pattern|toolu|a b"),
        ({"tools": [TOOL, TOOL]}, "unique"),
        ({"tools": [{**TOOL, "name": "a b"}]}, "pattern"),
        ({"tools": [{"name": "bash"}]}, "input_schema"),
        ({"system": [{**text("s"), "cache_control": {"type": "ephemeral"}}] * 5}, "cache_control"),
    ],
)
def test_what_the_api_refuses(client: httpx2.Client, fields: dict[str, Any], says: str) -> None:
    response = ask(client, **fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert any(part in error["message"] for part in says.split("|"))


def test_credentials_versions_and_models(client: httpx2.Client) -> None:
    def status(**headers: str) -> int:
        body = {"model": "m", "max_tokens": 10, "messages": [USER]}
        return httpx2.post(f"{client.base_url}/v1/messages", json=body, headers=headers).status_code

    assert status(**{"anthropic-version": "1"}) == 401
    assert status(**{"anthropic-version": "1", "x-api-key": "wrong"}) == 401
    assert status(**{"anthropic-version": "1", "authorization": f"Bearer {KEY}"}) == 200
    assert status(**{"x-api-key": KEY}) == 400
    assert ask(client, model="n").status_code == 404


def test_seeded_faults_are_the_same_for_the_same_seed() -> None:
    def faults(seed: int) -> list[Any]:
        return [seeded_faults(seed, {Fault.RESET: 0.3, Fault.RATE_LIMIT: 0.3})(number) for number in range(200)]

    assert faults(1) == faults(1)
    assert faults(1) != faults(2)
    assert 20 < faults(1).count(Fault.RESET) < 100


def test_it_runs_as_a_process_and_logs(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    command = [sys.executable, "-m", "tests.fake_api", "--log", str(log), "--fault", "SERVER_ERROR=1.0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        body = {"model": "m", "max_tokens": 10, "messages": [USER]}
        headers = {"x-api-key": KEY, "anthropic-version": "1"}
        assert httpx2.post(f"{url}/v1/messages", json=body, headers=headers).status_code == 500
    logged = json.loads(log.read_text())
    assert (logged["status"], logged["fault"], logged["turn"], logged["whole"]) == (500, "500", 1, False)
