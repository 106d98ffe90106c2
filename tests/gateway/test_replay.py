from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import JsonValue

from parallel_orchestrator.gateway.endpoints.recording import RecordedAnswer, Recording, dump
from tests.fake_api import Block, text, tool_use
from tests.gateway.support import MODEL, RUN, events_of, gateway

USAGE: dict[str, JsonValue] = {"input_tokens": 1000, "output_tokens": 100, "cache_read_input_tokens": 0}
CONTENT = [text("größe\u2028" + "x" * 5000), tool_use("toolu_1", "bash", command="echo 'ä' | cat")]
THOUGHT = {"type": "thinking", "thinking": "hm"}


def recording(folder: Path, latency_s: float = 0.0, turns: int = 2, content: list[Block] = CONTENT) -> Path:
    answers = [
        RecordedAnswer(
            task="task_1",
            phase=phase,
            turn=turn,
            latency_s=latency_s,
            stop_reason="tool_use",
            usage=USAGE,
            content=content,
        )
        for phase in ("work", "repair 1")
        for turn in range(1, turns + 1)
    ]
    path = folder / "small.yaml"
    path.write_text(
        dump(Recording(name="small", origin="written", requirement="A thing", model=MODEL, answers=answers))
    )
    return path


def test_answers_come_by_task_phase_and_turn_whatever_is_asked(tmp_path: Path) -> None:
    with gateway(tmp_path) as gw:
        gw.open(recording=recording(tmp_path))
        assert gw.ask(1, stream=False).json()["content"] == CONTENT
        repaired = gw.ask(7, phase="repair 1", phase_turn=2, stream=False).json()
        assert (repaired["content"], repaired["usage"], repaired["model"]) == (CONTENT, USAGE, MODEL)
        streamed = events_of(gw.ask(2).text)
        assert [event["type"] for event in streamed[:2]] == ["message_start", "content_block_start"]
        assert streamed[-2]["delta"]["stop_reason"] == "tool_use"


def test_an_answer_is_the_same_from_memory_and_from_the_ledger(tmp_path: Path) -> None:
    secret = "very-secret-value-42"
    with gateway(tmp_path, secrets=(secret,)) as gw:
        gw.open(recording=recording(tmp_path, content=[THOUGHT, *CONTENT, text(f"key {secret} here")]))
        first, again = (gw.ask(1, stream=False).json() for _ in range(2))
        assert first == again
        assert first["content"][-1] == text("key [credential] here")
        assert len(gw.records("answer")) == 1


def test_a_replay_costs_nothing_and_says_what_it_once_cost(tmp_path: Path) -> None:
    with gateway(tmp_path) as gw:
        gw.open(recording=recording(tmp_path), max_cost_usd=0.0, models=("unheard-of",))
        gw.ask(1)
        (answer,) = gw.records("answer")
        assert answer["usd"] == 0
        assert answer["recorded_usd"] == pytest.approx((1000 * 4 + 100 * 20) / 1e6)
        status = gw.process.status()["runs"][RUN]
        assert (status["spent_usd"], status["unpriced"]) == (0, 0)
        assert status["recorded_usd"] == answer["recorded_usd"]


def test_a_missing_answer_is_an_error_that_names_it(tmp_path: Path) -> None:
    with gateway(tmp_path) as gw:
        gw.open(recording=recording(tmp_path))
        response = gw.ask(4)
        assert (response.status_code, gw.error(response)) == (404, "recording_exhausted")
        assert "task_1, phase work, turn 4" in response.json()["error"]["message"]
        assert gw.ask(1).status_code == 200


def test_latencies_are_divided_by_the_speed(tmp_path: Path) -> None:
    with gateway(tmp_path) as gw:
        gw.open(recording=recording(tmp_path, latency_s=20.0), speed=100.0)
        times = gw.ask(1, stream=False).json()["orchestrator"]
        assert 0.2 <= times["endpoint_s"] < 20
