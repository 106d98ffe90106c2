from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

from parallel_orchestrator.gateway.pacing.limiter import MAX_BACKOFF_S, START_LIMIT, Limiter, Unlimited, backoff


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 30))


async def hold(limiter: Limiter, until: asyncio.Event, order: list[int] | None = None, name: int = 0) -> None:
    async with limiter.turn():
        if order is not None:
            order.append(name)
        await until.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_as_many_calls_as_the_limit_are_in_flight_and_others_follow_in_order() -> None:
    async def story() -> None:
        limiter, end, order = Limiter(), asyncio.Event(), list[int]()
        calls = [asyncio.create_task(hold(limiter, end, order, n)) for n in range(START_LIMIT + 4)]
        await settle()
        assert (limiter.in_flight, limiter.waiting) == (START_LIMIT, 4)
        end.set()
        await asyncio.gather(*calls)
        assert order == list(range(START_LIMIT + 4))
        assert limiter.in_flight == 0

    run(story)


def test_a_retry_goes_before_new_calls() -> None:
    async def story() -> None:
        limiter, end = Limiter(), asyncio.Event()
        limiter.limit = 1
        order: list[str] = []

        async def call(name: str, retry: bool) -> None:
            async with limiter.turn(retry=retry):
                order.append(name)

        first = asyncio.create_task(hold(limiter, end))
        await settle()
        calls = [asyncio.create_task(call("new", False))]
        await settle()
        calls.append(asyncio.create_task(call("retry", True)))
        await settle()
        end.set()
        await asyncio.gather(first, *calls)
        assert order == ["retry", "new"]

    run(story)


def test_the_limit_doubles_a_round_then_halves_once_and_grows_slowly() -> None:
    async def story() -> None:
        limiter = Limiter()
        for _ in range(START_LIMIT):
            limiter.succeeded()
        assert limiter.limit == 2 * START_LIMIT
        started = time.monotonic()
        for _ in range(10):
            limiter.overloaded(started)
        assert limiter.limit == START_LIMIT
        for _ in range(START_LIMIT):
            limiter.succeeded()
        assert START_LIMIT + 0.5 < limiter.limit <= START_LIMIT + 1
        for _ in range(20):
            limiter.overloaded(time.monotonic())
        assert limiter.limit == 1

    run(story)


def test_the_gate_holds_all_and_opens_with_space_between_calls() -> None:
    async def story() -> None:
        limiter = Limiter()
        assert limiter.hold_back(time.monotonic(), 0.3) > 0.29
        opened = limiter.held_until
        starts: list[float] = []

        async def call() -> None:
            async with limiter.turn() as started:
                starts.append(started)

        await asyncio.gather(*[call() for _ in range(3)])
        assert min(starts) >= opened
        assert min(later - earlier for earlier, later in itertools.pairwise(starts)) >= 0.24
        for _ in range(10):
            limiter.succeeded()
        before = len(starts)
        await asyncio.gather(*[call() for _ in range(5)])
        assert len(starts) == before + 5

    run(story)


def test_an_unbelievable_retry_after_is_capped_and_none_grows() -> None:
    async def story() -> None:
        assert Limiter().hold_back(time.monotonic(), 4e6) <= 120
        limiter = Limiter()
        waits = []
        for _ in range(8):
            limiter.held_until = 0.0
            waits.append(limiter.hold_back(time.monotonic(), None))
        assert waits[0] <= 1
        assert MAX_BACKOFF_S / 2 <= waits[-1] <= MAX_BACKOFF_S

    run(story)


def test_cancelled_callers_leave_no_hole() -> None:
    async def story() -> None:
        limiter, end = Limiter(), asyncio.Event()
        limiter.limit = 2
        calls = [asyncio.create_task(hold(limiter, end)) for _ in range(6)]
        await settle()
        calls[3].cancel()  # it waits
        calls[0].cancel()  # it is in flight, which lets call 2 through
        await asyncio.sleep(0)
        calls[2].cancel()  # in the instant between being let through and running, or just after
        await settle()
        assert (limiter.in_flight, limiter.waiting) == (2, 1)
        end.set()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (limiter.in_flight, limiter.waiting) == (0, 0)

    run(story)


def test_a_replay_waits_for_nobody() -> None:
    async def story() -> None:
        limiter, end = Unlimited(), asyncio.Event()
        calls = [asyncio.create_task(hold(limiter, end)) for _ in range(1000)]
        await settle()
        assert limiter.in_flight == 1000
        limiter.succeeded()
        end.set()
        await asyncio.gather(*calls)

    run(story)


def test_backoff_is_jittered_and_capped() -> None:
    assert all(0 <= backoff(n) <= min(MAX_BACKOFF_S, 0.5 * 2 ** (n - 1)) for n in range(1, 50) for _ in range(20))
