"""Patience with an endpoint that is away, silent, or sends without ever answering."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx2
import pytest

from parallel_orchestrator.gateway.pacing.inactivity import InactivityTimeout
from tests.fake_api import FakeApi, Fault, Wrong
from tests.gateway.support import gateway


@pytest.mark.parametrize(
    "fault", [Fault.SERVER_ERROR, Fault.EARLY_END, Fault.DRIP, Fault.PINGS, Wrong(Fault.RATE_LIMIT, "0.1")]
)
def test_an_endpoint_that_sends_but_never_answers_ends_all_calls(tmp_path: Path, fault: Fault | Wrong) -> None:
    with FakeApi(faults=lambda n: fault) as api, gateway(tmp_path, api, patience_s=0.6) as gw:
        gw.open()
        refused = gw.ask(1)
        assert gw.error(refused) == "endpoint_silent"
        assert "no whole answer for 1.8 s" in refused.text
        assert gw.records("fault")


def test_a_try_that_drips_beside_others_that_are_answered_is_made_again(tmp_path: Path) -> None:
    with FakeApi(faults=[Fault.DRIP], latency_s=0.3) as api, gateway(tmp_path, api, patience_s=2.0) as gw:
        gw.open()
        results: list[httpx2.Response] = []
        dripping, turn = gw.ask_in_thread(results, 1), 1
        api.wait_for_requests(1)
        while dripping.is_alive():
            turn += 1
            assert gw.ask(turn).status_code == 200
            assert turn < 60
        dripping.join()
        assert results[0].status_code == 200
        assert [record["fault"] for record in gw.records("fault")] == ["stalled"]
        assert turn > 4


def test_parts_of_answers_are_progress_until_three_tries_have_failed() -> None:
    async def story() -> None:
        timeout = InactivityTimeout(0.1, lambda: 0.0)

        async def sends(seconds: float) -> None:
            end = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < end:
                timeout.on_bytes()
                timeout.on_progress()
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(timeout.wait())
        for _ in range(2):
            await sends(0.4)
            timeout.on_failure()
        await sends(0.4)
        assert not watching.done()
        timeout.on_failure()
        timeout.on_answer()
        await sends(0.4)
        assert not watching.done()
        for _ in range(3):
            timeout.on_failure()
        await sends(0.4)
        assert "no whole answer for 0.3 s" in watching.result()

    asyncio.run(story())


def test_a_silent_endpoint_ends_all_calls_after_the_patience(tmp_path: Path) -> None:
    with FakeApi(faults=lambda n: Fault.HANG) as api, gateway(tmp_path, api, patience_s=1.0) as gw:
        gw.open()
        results: list[httpx2.Response] = []
        threads = [gw.ask_in_thread(results, turn) for turn in (1, 2, 3)]
        for thread in threads:
            thread.join()
        assert [gw.error(response) for response in results] == ["endpoint_silent"] * 3
        intents = gw.records("intent")
        faults = gw.records("fault")
        assert len(intents) == len(faults) == len(api.requests)
        assert all(record["ambiguous"] for record in faults)


@pytest.mark.parametrize("why", ["refused", "no such name"])
def test_an_endpoint_that_is_not_there_is_silent_and_costs_nothing(tmp_path: Path, why: str) -> None:
    with socket.socket() as never_listens:
        never_listens.bind(("127.0.0.1", 0))  # kept: nobody else gets the port
        urls = {
            "refused": "http://{}:{}".format(*never_listens.getsockname()),
            "no such name": "http://no-such-host.invalid",
        }
        with gateway(tmp_path, patience_s=3.0, base_url=urls[why]) as gw:
            gw.open()
            refused = gw.ask(1)
            assert gw.error(refused) == "endpoint_silent"
            assert "the endpoint has sent nothing for 3 s (the last try: connect, " in refused.text
            assert {record["fault"] for record in gw.records("fault")} == {"connect"}
            assert gw.process.status()["spent_usd"] == 0


def test_an_endpoint_that_keeps_complaining_is_not_silent(tmp_path: Path) -> None:
    faults = [Wrong(Fault.RATE_LIMIT, retry_after="1.8"), Wrong(Fault.OVERLOADED, retry_after="1.8")]
    with FakeApi(faults=faults) as api, gateway(tmp_path, api, patience_s=1.5) as gw:
        gw.open()
        assert gw.ask(1).status_code == 200
        assert len(api.requests) == 3
