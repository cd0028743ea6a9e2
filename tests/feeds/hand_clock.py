"""A wall clock that a test moves by hand, and a live feed that runs by it: minutes of market pass in milliseconds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

DEADLINE_S = 60.0  # generous: the machine may be busy


class HandClock:
    """Satisfies `feeds.polling.Clock`. `moved` is told each new time, so that a server can live at it."""

    def __init__(self, start: datetime, moved: Callable[[datetime], None]) -> None:
        self._now, self._moved = start, moved
        self._asleep: list[tuple[datetime | None, asyncio.Event, asyncio.Event | None]] = []

    def now(self) -> datetime:
        return self._now

    async def sleep_until(self, when: datetime | None, wake: asyncio.Event | None = None) -> None:
        if when is not None and when <= self._now:
            return
        due = asyncio.Event()
        sleeper = (when, due, wake)
        self._asleep.append(sleeper)
        waits = [asyncio.ensure_future(event.wait()) for event in (due, wake) if event is not None]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            with suppress(ValueError):
                self._asleep.remove(sleeper)

    def set(self, now: datetime) -> None:
        """Move the clock and wake whoever is due."""
        self._now = now
        self._moved(now)
        due = [sleeper for sleeper in self._asleep if sleeper[0] is not None and sleeper[0] <= now]
        self._asleep = [sleeper for sleeper in self._asleep if sleeper not in due]
        for sleeper in due:
            sleeper[1].set()

    def next_due(self) -> datetime:
        """When the first sleeper wants to be woken."""
        return min(when for when, _, _ in self._asleep if when is not None)

    def resting(self) -> int:
        """How many sleep, with nothing that woke them already."""
        return sum(wake is None or not wake.is_set() for _, _, wake in self._asleep)


class Live:
    """A feed that runs, and what it has pushed."""

    def __init__(self, feed: Any, clock: HandClock, sleepers: int) -> None:
        self.clock, self.sleepers = clock, sleepers
        self.ticks: list[tuple[str, Any]] = []
        self.task = asyncio.create_task(feed.run(lambda output, value: self.ticks.append((output, value))))

    def of(self, output: str) -> list[Any]:
        return [value for name, value in self.ticks if name == output]

    def states(self, symbol: str | None = None) -> list[str]:
        return [tick.state.name for tick in self.of("status") if symbol in (None, tick.symbol)]

    async def settle(self) -> None:
        """Wait until the feed has nothing to do before the clock moves."""
        async with asyncio.timeout(DEADLINE_S):
            while self.clock.resting() < self.sleepers:
                assert not self.task.done(), self.task
                await asyncio.sleep(0.001)

    async def until(self, now: datetime) -> None:
        """Let time pass, so that each sleeper wakes when it wanted to."""
        await self.settle()
        while (due := self.clock.next_due()) <= now:
            self.clock.set(max(due, self.clock.now()))
            await self.settle()
        self.clock.set(now)
        await self.settle()


@asynccontextmanager
async def living(feed: Any, clock: HandClock, sleepers: int = 2) -> AsyncIterator[Live]:
    """Run a service until the block ends.

    Args:
        sleepers: how many of its loops sleep on the clock when it is at rest; a poller has two.
    """
    live = Live(feed, clock, sleepers)
    try:
        await live.settle()
        yield live
    finally:
        live.task.cancel()
        with suppress(asyncio.CancelledError):
            await live.task
