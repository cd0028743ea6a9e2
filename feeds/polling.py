"""Asking a source again and again: in turn, politely, and noticing when it has gone silent."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from feeds.backoff import Backoff
from feeds.clock import utc_now
from feeds.errors import FeedError, OfflineError, RateLimitError
from feeds.health import Health
from feeds.tasks import all_of

_FIRST_S, _OFFLINE_MAX_S = 1.0, 30.0  # pauses while the source cannot be reached: it costs nobody anything to try
_REFUSED_FIRST_S = 30.0  # and while it refuses: a few seconds would only make it worse


class Clock(Protocol):
    """The wall clock as a poller sees it; tests have one that they move by hand."""

    def now(self) -> datetime:
        """Naive UTC."""

    async def sleep_until(self, when: datetime | None, wake: asyncio.Event | None = None) -> None:
        """Return at `when` (None: never), or as soon as `wake` is set."""


class WallClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return utc_now()

    async def sleep_until(self, when: datetime | None, wake: asyncio.Event | None = None) -> None:
        wait_s = None if when is None else max(0.0, (when - utc_now()).total_seconds())
        try:
            async with asyncio.timeout(wait_s):
                await (wake or asyncio.Event()).wait()
        except TimeoutError:
            pass


class AskedToWaitError(RateLimitError):
    """The source named the time after which it may be asked again."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What follows from one answer about one key."""

    again_at: datetime  # when to ask next
    stale_at: datetime  # the feed of this key is stale from then on, unless another answer moves this
    heard_at: datetime  # since when there is nothing new
    silence: str  # what to say then


class Poller:
    """Asks about its keys, each when it is due, one at a time, for ever.

    An unreachable source and one that refuses for now are left alone altogether until a back-off is over; any other
    `FeedError` concerns its key alone.

    Args:
        ask: one question; it pushes what is new, tells the key's health that it delivered, and may raise a `FeedError`.
            None ends the questions about that key.
        health: of each key, in the order of the first round; told when that has been silent for too long.
        stale_after_s: seconds without any answer.
        backoff_max_s: the longest pause after refusals and senseless answers.
        seed: of the pauses' jitter.
        clock: the machine's, unless a test moves its own.
    """

    def __init__(
        self,
        ask: Callable[[str], Awaitable[Turn | None]],
        health: Mapping[str, Health],
        *,
        stale_after_s: float,
        backoff_max_s: float,
        seed: int,
        clock: Clock,
    ) -> None:
        source = random.Random(seed)
        self._ask, self._health, self._clock = ask, health, clock
        self._stale_after = timedelta(seconds=stale_after_s)
        first_s = min(_FIRST_S, backoff_max_s)
        self._offline = Backoff(first_s, min(_OFFLINE_MAX_S, backoff_max_s), source)
        self._refused = Backoff(min(_REFUSED_FIRST_S, backoff_max_s), backoff_max_s, source)
        self._backoffs = {key: Backoff(first_s, backoff_max_s, source) for key in health}
        self._resume_at = datetime(1970, 1, 1)
        self._due: dict[str, datetime] = {}
        self._stale_at: dict[str, datetime] = {}
        self._heard_at: dict[str, datetime] = {}
        self._silence = dict.fromkeys(health, "has not answered yet")
        self._turned = asyncio.Event()

    async def run(self) -> None:
        """Ask and watch, until cancelled."""
        now = self._clock.now()
        self._due = dict.fromkeys(self._silence, now)
        self._heard_at = dict.fromkeys(self._silence, now)
        self._stale_at = dict.fromkeys(self._silence, now + self._stale_after)
        await all_of(self._turns(), self._watch())

    async def _turns(self) -> None:
        while self._due:
            await self._turn()

    async def _turn(self) -> None:
        key = min(self._due, key=self._due.__getitem__)
        await self._clock.sleep_until(max(self._due[key], self._resume_at))
        try:
            turn = await self._ask(key)
        except (OfflineError, RateLimitError) as error:
            backoff = self._offline if isinstance(error, OfflineError) else self._refused
            wait_s = backoff.next_s(error.wait_s if isinstance(error, AskedToWaitError) else 0.0)
            self._resume_at = self._clock.now() + timedelta(seconds=wait_s)
            self._silence |= dict.fromkeys(self._due, str(error))
            return
        except FeedError as error:
            self._due[key] = self._clock.now() + timedelta(seconds=self._backoffs[key].next_s())
            self._silence[key] = str(error)
            return
        for backoff in (self._offline, self._refused, self._backoffs[key]):
            backoff.reset()
        if turn is None:
            del self._due[key]
            self._stale_at.pop(key, None)
            return
        self._due[key], self._stale_at[key] = turn.again_at, turn.stale_at
        self._heard_at[key], self._silence[key] = turn.heard_at, turn.silence
        self._turned.set()

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep_until(min(self._stale_at.values(), default=None), self._turned)
            self._turned.clear()
            now = self._clock.now()
            for key in [key for key, stale_at in self._stale_at.items() if stale_at <= now]:
                del self._stale_at[key]  # told once; the next answer arms it again
                self._health[key].stale(self._silence[key], (now - self._heard_at[key]).total_seconds())
