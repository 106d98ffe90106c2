"""An endpoint that refuses, limits, fails or is away: no task is to blame, nothing is bought twice, one can go on."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.end_to_end import harness, scripted
from tests.fake_api import KEY, Answer, Block, Body, FakeApi, Fault, Wrong
from tests.gateway.support import gateway
from tests.journals import read_all

REQUIREMENT = "Build a project of many parts"


def _build(body: Body) -> Answer | list[Block]:
    """A part in two turns."""
    if scripted.answers_before(body):
        return scripted.build_part(body, 4)
    return [*scripted.build_part(body, 1), *scripted.build_part(body, 2)]


def _api(tasks: int, **options: Any) -> FakeApi:
    planned = scripted.plan([scripted.task(n, []) for n in range(1, tasks + 1)])
    return FakeApi(scripted.model(planned, options.pop("build", _build)), task_of=scripted.task_of, **options)


def _assert_done(directory: Path, tasks: int) -> None:
    found = harness.summary(directory)
    assert (found["status"], found["completed"], found["failed"]) == ("done", tasks, 0)
    assert found["bought_again"] == found["changed_bodies"] == 0


def _failed(directory: Path) -> list[dict[str, Any]]:
    return [move for move in harness.moves(directory) if move["state"] == "failed"]


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        (Fault.KEY_REFUSED, 2, "the endpoint refused the credential (HTTP 401)"),
        pytest.param(Fault.CREDIT, 3, "the endpoint refused for lack of credit", marks=pytest.mark.thorough),
    ],
)
def test_a_refused_credential_costs_a_call_of_each_executor_at_most(
    fault: Fault, code: int, told: str, tmp_path: Path
) -> None:
    executors, refusing = 4, threading.Event()
    refusing.set()
    with _api(6, latency_s=0.2, faults=lambda n: fault if n > 2 and refusing.is_set() else None) as api:
        options = ("--max-executors", str(executors), "--output-dir", str(tmp_path / "out"))
        output = harness.run(REQUIREMENT, *options, api=api, code=code)
        assert f"error: {told}" in output
        assert "resume" in output.partition("error: ")[2]
        assert 1 <= sum(bool(request.fault) for request in api.requests) <= executors
        assert _failed(tmp_path / "out") == []
        refusing.clear()
        harness.run("resume", str(tmp_path / "out"), api=api)
        assert api.answered_twice() == []
    _assert_done(tmp_path / "out", 6)


class RateLimit:
    """So many requests in so many seconds; the others get a 429 that says when there is room again."""

    def __init__(self, requests: int, seconds: float) -> None:
        self._requests, self._seconds = requests, seconds
        self._admitted: deque[float] = deque()
        self._room_at = 0.0
        self._told_at = 0.0
        self.refused = 0
        self.hasty = 0
        """Requests that came although one had been told to wait, more than a second before: others were on the way."""

    def __call__(self, number: int) -> Wrong | None:
        now = time.monotonic()
        self.hasty += self._told_at + 1 < now < self._room_at - 0.05
        while self._admitted and self._admitted[0] <= now - self._seconds:
            self._admitted.popleft()
        if len(self._admitted) < self._requests:
            self._admitted.append(now)
            return None
        self.refused += 1
        if now >= self._room_at:
            self._told_at, self._room_at = now, self._admitted[0] + self._seconds
        return Wrong(Fault.RATE_LIMIT, retry_after=f"{self._admitted[0] + self._seconds - now:.3f}")


def test_eight_callers_keep_a_limit_of_30_requests_in_a_while(tmp_path: Path) -> None:
    limit, callers, turns = RateLimit(30, 6.0), 8, 10
    with FakeApi(faults=limit, latency_s=0.05) as api, gateway(tmp_path, api) as gw:
        gw.open()
        answers: list[httpx2.Response] = []

        def ask(task: str) -> None:
            client = gw.client(gw.token(task), timeout=120)
            answers.extend(gw.ask(turn, client=client) for turn in range(1, turns + 1))

        threads = [threading.Thread(target=ask, args=(f"task_{n}",)) for n in range(1, callers + 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200] * callers * turns
        assert limit.refused > 0
        assert limit.hasty == 0
        # What is in flight when the limit is met is refused with it; beyond that hardly anything.
        assert limit.refused <= callers * turns / 2, limit.refused


def test_a_run_of_eight_executors_under_a_rate_limit_fails_no_task(tmp_path: Path) -> None:
    limit = RateLimit(8, 4.0)
    with _api(8, faults=limit) as api:
        harness.run(REQUIREMENT, "--max-executors", "8", "--output-dir", str(tmp_path / "out"), api=api)
        assert limit.refused > 0
        assert limit.hasty == 0
        assert api.answered_twice() == []
    _assert_done(tmp_path / "out", 8)


TRANSIENT: list[Fault | Wrong] = [
    *(Wrong(Fault.STATUS, status=n) for n in (408, 409, 425, 500, 503, 520, 521, 522, 523, 524, 529)),
    *(Fault.RATE_LIMIT, Fault.RESET, Fault.RESET_AT_ONCE, Fault.EARLY_END, Fault.SSE_ERROR, Fault.SSE_OVERLOADED),
    *(Fault.GARBAGE, Fault.HTML, Fault.EMPTY, Fault.CUT_JSON, Fault.UNSTREAMED, Fault.TRICKLE),
]


def test_every_passing_fault_in_one_run_fails_no_task(tmp_path: Path) -> None:
    def faults(number: int) -> Wrong | None:
        place, sound = divmod(number, 2)
        if sound or place >= len(TRANSIENT):
            return None
        fault = TRANSIENT[place]
        wrong = fault if isinstance(fault, Wrong) else Wrong(fault)
        return replace(wrong, retry_after="0")

    with _api(6, faults=faults, build=scripted.build_part) as api:
        options = ("--model", "a-local-model", "--output-dir", str(tmp_path / "out"))
        output = harness.run(REQUIREMENT, *options, api=api)
        assert {request.fault for request in api.requests} >= {
            (fault.fault if isinstance(fault, Wrong) else fault).value for fault in TRANSIENT
        }
        assert api.answered_twice() == []
    _assert_done(tmp_path / "out", 6)
    summary = harness.summary(tmp_path / "out")
    assert summary["retries"] == len(TRANSIENT) - 2  # a trickle is an answer, and so is one that does not stream
    kinds = {record["fault"] for record in read_all(tmp_path / "out" / "ledger.jsonl") if record["kind"] == "fault"}
    assert kinds >= {"408", "409", "425", "429", "503", "524", "529", "reset", "truncated", "sse_error", "garbage"}
    # Nobody knows what such a model costs.
    assert f"cost:     ≥ $0.00 ({summary['model_calls']} turns unpriced)" in output


@pytest.mark.thorough
def test_an_endpoint_that_is_away_or_useless_ends_the_run_and_a_resume_goes_on(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    with _api(2) as api:
        harness.run("plan", REQUIREMENT, "--output-dir", str(directory), api=api)
        nobody = {"ANTHROPIC_BASE_URL": api.url, "ANTHROPIC_API_KEY": KEY}
    goes_on = f"to go on: {harness.typed('resume', directory)}"
    _set_patience(directory, 1.0)
    gone = harness.run("resume", str(directory), variables=nobody, code=3)
    assert "error: the endpoint has sent nothing for 1 s (the last try: connect, " in gone
    assert goes_on in gone
    port = int(nobody["ANTHROPIC_BASE_URL"].rpartition(":")[2])
    with _api(2, port=port, faults=lambda number: Fault.SERVER_ERROR) as api:
        useless = harness.run("resume", str(directory), api=api, code=3)
        assert "error: the endpoint has given no whole answer for 3 s (the last try: 500, Internal server" in useless
        assert goes_on in useless
        assert len(api.requests) > 1
    assert _failed(directory) == []
    _set_patience(directory, 600.0)
    with _api(2, port=port) as api:
        harness.run("resume", str(directory), api=api)
    _assert_done(directory, 2)


def _set_patience(directory: Path, seconds: float) -> None:
    path = directory / "scenario.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "endpoint_patience": seconds}))
