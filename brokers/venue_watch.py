"""Listening to a venue: the user stream, which is fast and may lose anything, and polls, which are slow and complete.

A stream that is silent is mostly a stream with nothing to say. Two things tell a deaf one: a ping without an answer,
and a trade that a poll brought and the stream had not brought by the next poll.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

import structlog

from brokers.venue_errors import Trouble
from brokers.venue_link import Link, VenueError
from brokers.venue_messages import Execution
from brokers.venue_tracker import Tracked, Tracker
from feeds.backoff import Backoff

_BACK_MS = 60_000  # that a poll looks back beyond the last one: what it asks may lag behind the market

_log = structlog.get_logger()


class Listener(Protocol):
    """Who wants to know."""

    def hear(self, said: list[Any]) -> None:
        """Snapshots and executions."""

    def heed(self, what: Trouble) -> None:
        """A request failed."""

    def doubt(self, order: Tracked) -> None:
        """The venue speaks of executions of an order that it does not show."""

    def reached(self) -> None:
        """A poll got through."""

    def lost(self, reason: str) -> None:
        """Neither stream nor poll gets through."""


class Watch:
    """Brings everything that the venue says of our orders to a listener.

    Args:
        since_ms: the venue's time, by symbol, from which trades are asked for.
        poll_s: between polls, while an order works or the stream is down.
        backoff: makes a new one for each line.
    """

    def __init__(
        self,
        link: Link,
        tracker: Tracker,
        listener: Listener,
        since_ms: dict[str, int],
        poll_s: float,
        backoff: Callable[[], Backoff],
    ) -> None:
        self._link, self._tracker, self._listener = link, tracker, listener
        self._seen_ms = since_ms
        self._poll_s = poll_s
        self._backoff = backoff
        self._nudged = asyncio.Event()
        self._missed = True  # something, perhaps: only a poll can tell
        self._by_poll: set[str] = set()  # ids of trades that the stream has still to tell

    def nudge(self) -> None:
        """Poll now."""
        self.missed()
        self._nudged.set()

    def missed(self) -> None:
        """Poll at the next turn, whether or not an order works."""
        self._missed = True

    async def orders(self) -> None:
        """Listen to what the stream says of orders."""
        await self._listen(self._link.watch_orders)

    async def trades(self) -> None:
        """Listen to what the stream says of trades."""
        await self._listen(self._link.watch_trades)

    async def polls(self) -> None:
        """Poll for what the stream may have lost."""
        backoff = self._backoff()
        while True:
            self._nudged.clear()
            if self._missed or not self._link.listening or self._tracker.working():
                try:
                    await self._poll()
                except VenueError as error:
                    self._missed = True
                    self._listener.heed(error.trouble)
                    if not self._link.listening:
                        self._listener.lost(error.trouble.reason)
                    await asyncio.sleep(backoff.next_s(error.trouble.wait_s))
                    continue
                backoff.reset()
                self._listener.reached()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), self._poll_s)

    async def look_at(self, order: Tracked) -> None:
        """Ask for one order, and for its trades where there are more than were told. Raises VenueError."""
        found = await self._link.find(order.client_id, order.symbol)
        if found is not None:
            self._listener.hear([found])
        if order.venue_id and (order.short or (order.end and not order.working.ended)):
            self._listener.hear(list(await self._link.order_trades(order.venue_id, order.symbol)))
        self._listener.doubt(order)

    async def poll_symbol(self, symbol: str) -> None:
        """Ask for everything about one symbol that may have been missed. Raises VenueError."""
        tracker, open_ids = self._tracker, set[str]()
        if tracker.working(symbol):
            orders = await self._link.open_orders(symbol)
            open_ids = {order.venue_id for order in orders}
            self._listener.hear(list(orders))
        asked_ms = self._link.stamp_ms()
        trades = await self._link.trades(symbol, self._seen_ms[symbol] - _BACK_MS)
        self._by_poll |= {trade.trade_id for trade in trades if tracker.execution(trade)}
        self._seen_ms[symbol] = max(self._seen_ms[symbol], asked_ms)
        self._listener.hear([])
        for order in tracker.working(symbol):
            if order.venue_id and order.venue_id not in open_ids:
                await self.look_at(order)

    async def _poll(self) -> None:
        deaf = bool(self._by_poll) and self._link.listening
        whole = self._link.listening and not self._missed  # what this poll finds, the stream should bring
        self._missed = False
        self._by_poll.clear()
        for symbol in self._link.markets:
            await self.poll_symbol(symbol)
        if not whole:
            self._by_poll.clear()
        if deaf:
            _log.warning("user_stream_deaf")
            await self._link.hang_up()

    async def _listen(self, watch: Callable[[], Awaitable[list[Any]]]) -> None:
        backoff, told = self._backoff(), ""
        while True:
            try:
                said = await watch()
            except VenueError as error:
                if error.trouble.code != told:  # once a reason, not once a try
                    told = error.trouble.code
                    _log.info("user_stream", error=error.trouble.reason)
                self._listener.heed(error.trouble)
                self.nudge()
                await asyncio.sleep(backoff.next_s(error.trouble.wait_s))
                continue
            backoff.reset()
            told = ""
            self._by_poll -= {item.trade_id for item in said if isinstance(item, Execution)}
            self._listener.hear(said)
