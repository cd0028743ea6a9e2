"""Asking in turn, backing off, and noticing silence."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from feeds.clock import utc_now
from feeds.errors import FeedError, OfflineError, RateLimitError
from feeds.health import Health
from feeds.polling import AskedToWaitError, Poller, Turn, WallClock
from tests.feeds.hand_clock import HandClock, Live, living

START = datetime(2024, 7, 2, 15, 0)


class Asking:
    """A service that is a poller and no more; `ask` is given the key and the clock."""

    def __init__(self, ask: Callable[[str], Awaitable[Turn | None]], clock: HandClock, *keys: str) -> None:
        self._ask, self._clock, self._keys = ask, clock, keys

    async def run(self, push: Any) -> None:
        health = {key: Health("test", key, 1.0, lambda status: push("status", status)) for key in self._keys}
        poller = Poller(self._ask, health, stale_after_s=60.0, backoff_max_s=40.0, seed=1, clock=self._clock)
        await poller.run()


def after(clock: HandClock, again_s: float, stale_s: float = 1000.0) -> Turn:
    now = clock.now()
    return Turn(
        again_at=now + timedelta(seconds=again_s),
        stale_at=now + timedelta(seconds=stale_s),
        heard_at=now,
        silence="nothing new",
    )


def ran(answer: Callable[[str, HandClock], Turn | None], until_s: float, *keys: str, sleepers: int = 2) -> Any:
    """Who was asked when, in seconds after the start, and what was told."""
    asked: list[tuple[str, float]] = []

    async def work() -> Live:
        clock = HandClock(START, lambda now: None)

        async def ask(key: str) -> Turn | None:
            asked.append((key, (clock.now() - START).total_seconds()))
            return answer(key, clock)

        async with living(Asking(ask, clock, *keys), clock, sleepers) as live:
            await live.until(START + timedelta(seconds=until_s))
        return live

    live = asyncio.run(work())
    return asked, [(status.symbol, status.state.name, status.detail, status.value) for status in live.of("status")]


def test_each_key_is_asked_when_it_is_due() -> None:
    asked, told = ran(lambda key, clock: after(clock, 10.0 if key == "A" else 15.0), 31.0, "A", "B")

    assert asked == [("A", 0.0), ("B", 0.0), ("A", 10.0), ("B", 15.0), ("A", 20.0), ("A", 30.0), ("B", 30.0)]
    assert told == []


def test_silence_is_told_once_when_it_lasts_too_long() -> None:
    _, told = ran(lambda key, clock: after(clock, 500.0, 100.0 if key == "A" else 1000.0), 499.0, "A", "B")

    assert told == [("A", "STALE", "nothing new", 100.0)]


def test_a_source_out_of_reach_is_left_alone_for_every_key_and_is_stale() -> None:
    def answer(key: str, clock: HandClock) -> Turn:
        raise OfflineError("no way there")

    asked, told = ran(answer, 600.0, "A", "B")

    assert told == [("A", "STALE", "no way there", 60.0), ("B", "STALE", "no way there", 60.0)]
    waits = [later - before for (_, before), (_, later) in pairwise(asked)]
    assert all(0.0 < wait <= 30.0 for wait in waits)
    assert max(waits) > 10.0
    assert waits[0] <= 1.0


def test_a_refusal_is_waited_out_as_long_as_the_source_asks() -> None:
    refusals = [AskedToWaitError("later", 300.0), RateLimitError("again")]

    def answer(key: str, clock: HandClock) -> Turn:
        if refusals:
            raise refusals.pop(0)
        return after(clock, 1000.0)

    asked, _ = ran(answer, 500.0, "A")

    assert asked[1] == ("A", 300.0)
    assert 300.0 < asked[2][1] <= 340.0
    assert len(asked) == 3


def test_another_error_concerns_its_key_alone() -> None:
    def answer(key: str, clock: HandClock) -> Turn:
        if key == "A":
            raise FeedError("not this one")
        return after(clock, 10.0)

    asked, told = ran(answer, 200.0, "A", "B")

    assert [when for key, when in asked if key == "B"] == [10.0 * i for i in range(21)]
    assert told == [("A", "STALE", "not this one", 60.0)]
    assert len([key for key, _ in asked if key == "A"]) < 30


def test_a_key_without_a_next_turn_is_asked_no_more() -> None:
    asked, told = ran(lambda key, clock: None if key == "A" else after(clock, 10.0), 100.0, "A", "B")

    assert [key for key, _ in asked].count("A") == 1
    assert [key for key, _ in asked].count("B") == 11
    assert told == []


def test_a_bug_in_the_question_comes_out() -> None:
    async def work() -> None:
        async def ask(key: str) -> Turn | None:
            raise ZeroDivisionError("a bug")

        await Asking(ask, HandClock(START, lambda now: None), "A").run(lambda output, value: None)

    with pytest.raises(ZeroDivisionError, match="a bug"):
        asyncio.run(work())


def test_the_wall_clock_wakes_at_its_time_at_once_or_when_it_is_woken() -> None:
    async def work() -> None:
        clock, wake, started = WallClock(), asyncio.Event(), utc_now()
        await clock.sleep_until(started + timedelta(seconds=0.05))
        assert utc_now() - started >= timedelta(seconds=0.05)
        await clock.sleep_until(started)
        asyncio.get_running_loop().call_soon(wake.set)
        async with asyncio.timeout(30.0):
            await clock.sleep_until(None, wake)
        wake.clear()
        asyncio.get_running_loop().call_soon(wake.set)
        async with asyncio.timeout(30.0):
            await clock.sleep_until(started + timedelta(days=1), wake)

    asyncio.run(work())
