"""The shared beginning of prompts is bought by one call; the others wait until it is cached, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from parallel_orchestrator.gateway.pacing.prompt_cache import PromptCache
from tests.fake_api import Answer, FakeApi, Fault, text
from tests.gateway.support import Setup, body, gateway

CACHED = {"message": {"usage": {"cache_creation_input_tokens": 5000}}}
UNCACHED = {"message": {"usage": {"input_tokens": 300}}}


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 30))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Calls:
    """Calls that are under way, each until it is told to begin its answer or to end."""

    def __init__(self, cache: PromptCache) -> None:
        self._cache = cache
        self.out: list[int] = []
        self._ends: dict[int, asyncio.Event] = {}
        self._begun: dict[int, Callable[[dict[str, Any]], None]] = {}

    async def start(self, number: int, prefix: str = "shared") -> asyncio.Task[None]:
        task = asyncio.create_task(self._call(number, prefix))
        await settle()
        return task

    async def begin(self, number: int, event: dict[str, Any]) -> None:
        self._begun[number](event)
        await settle()

    async def end(self, number: int) -> None:
        self._ends[number].set()
        await settle()

    async def _call(self, number: int, prefix: str) -> None:
        self._ends[number] = asyncio.Event()
        async with self._cache.turn(prefix) as self._begun[number]:
            self.out.append(number)
            await self._ends[number].wait()


def test_one_call_leads_and_the_others_follow_when_its_answer_begins() -> None:
    async def story() -> None:
        calls = Calls(PromptCache())
        for number in (1, 2, 3):
            await calls.start(number)
        assert calls.out == [1]
        await calls.begin(1, CACHED)
        assert calls.out == [1, 2, 3]
        await calls.start(4)
        assert calls.out == [1, 2, 3, 4]

    run(story)


def test_after_a_call_that_fails_the_next_one_leads() -> None:
    async def story() -> None:
        calls = Calls(PromptCache())
        for number in (1, 2, 3):
            await calls.start(number)
        await calls.end(1)
        assert calls.out == [1, 2]
        await calls.begin(2, CACHED)
        assert calls.out == [1, 2, 3]

    run(story)


def test_a_cancelled_leader_leaves_the_lead_and_a_cancelled_follower_nothing() -> None:
    async def story() -> None:
        calls = Calls(PromptCache())
        leader, follower, _ = [await calls.start(number) for number in (1, 2, 3)]
        follower.cancel()
        leader.cancel()
        await settle()
        assert calls.out == [1, 3]

    run(story)


def test_nobody_waits_for_a_prefix_that_is_not_cached_nor_without_one() -> None:
    async def story() -> None:
        calls = Calls(PromptCache())
        await calls.start(1)
        await calls.begin(1, UNCACHED)
        for number in (2, 3):
            await calls.start(number)
        for number in (4, 5):
            await calls.start(number, prefix="")
        await calls.start(6, prefix="another")
        assert calls.out == [1, 2, 3, 4, 5, 6]

    run(story)


def test_a_prefix_is_bought_anew_when_its_time_is_over_and_nobody_waits_for_ever() -> None:
    async def story() -> None:
        calls = Calls(PromptCache(lifetime_s=0.0, longest_wait_s=0.2))
        await calls.start(1)
        await calls.begin(1, CACHED)
        await asyncio.sleep(0.01)
        await calls.start(2)
        waiting = await calls.start(3)
        assert calls.out == [1, 2]
        await asyncio.wait({waiting}, timeout=1)  # it never ends by itself, only goes out
        assert calls.out == [1, 2, 3]

    run(story)


def _shared(words: str) -> dict[str, Any]:
    marked = {"type": "text", "text": "What all share.", "cache_control": {"type": "ephemeral"}}
    return body(words, system=[marked])


def _all_at_once(gw: Setup, *bodies: dict[str, Any]) -> list[int]:
    """ModelRequest all of it at once; the statuses."""
    results: list[Any] = []
    threads = [
        gw.ask_in_thread(results, 1, client=gw.client(gw.token(f"task_{number}")), json=asked)
        for number, asked in enumerate(bodies)
    ]
    for thread in threads:
        thread.join()
    return [result.status_code for result in results]


def test_through_the_gateway_one_request_is_out_before_the_prefix_is_cached(tmp_path: Path) -> None:
    usage = {"input_tokens": 10, "cache_creation_input_tokens": 5000, "output_tokens": 5}
    with (
        FakeApi(lambda asked: Answer([text("hello")], usage=usage), latency_s=0.3) as api,
        gateway(tmp_path, api) as gw,
    ):
        gw.open()
        assert _all_at_once(gw, *(_shared(f"task {n}") for n in range(4))) == [200] * 4
        assert [request.concurrent for request in api.requests][:2] == [1, 1]
        assert max(request.concurrent for request in api.requests) > 1
        assert len(api.requests) == 4


def test_through_the_gateway_a_leader_that_fails_holds_up_nobody(tmp_path: Path) -> None:
    with FakeApi(latency_s=0.1, faults=[Fault.OVERLOADED, Fault.RESET_AT_ONCE]) as api, gateway(tmp_path, api) as gw:
        gw.open()
        assert _all_at_once(gw, *(_shared(f"task {n}") for n in range(3))) == [200] * 3
