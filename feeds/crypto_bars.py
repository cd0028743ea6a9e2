"""Closed bars of one symbol, each once and in order, asked for by REST when they are over.

The stream of bars that exchanges send changes to the last trade and loses its end in ccxt, which drops the word that a
bar is closed. So a bar is asked for once it is over, and believed when a later one has begun. Where none comes, the
trades tell a market at rest from an exchange that has stopped to serve its bars.

Source: ccxt 4.5.90, `pro/binance.py` (`handle_ohlcv`).
"""

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta

from feeds.clock import utc_now
from feeds.crypto_link import Link
from feeds.crypto_parse import BadItemError, bar, milliseconds, moment
from feeds.errors import FeedError
from feeds.events import Bar
from feeds.health import Health
from feeds.times import bar_length

_PAGE = 1000
_AFTER_CLOSE_S = 0.1  # for the exchange to close its books
_AGAIN_S = 2.0  # at most, while the bar that is over is not served as closed
_SETTLED = timedelta(seconds=5)  # after its close a bar is final, although no later one has begun


async def closed_bars(link: Link, symbol: str, timeframe: str, start: datetime, health: Health) -> list[Bar]:
    """The closed bars that open at `start` or later, oldest first.

    Raises:
        FeedError: or its case that fits.
    """
    exchange, length = link.exchange, bar_length(timeframe)
    since_ms, bars = milliseconds(start), list[Bar]()
    while True:
        asked_ms = since_ms
        rows = await link.ask(lambda: exchange.fetch_ohlcv(symbol, timeframe, asked_ms, _PAGE))  # noqa: B023 # awaited
        received, fresh = utc_now(), 0
        for row in rows:
            try:
                item = bar(row, length, symbol, received)
            except BadItemError as error:
                health.bad(str(error))
                continue
            if milliseconds(item.open_time) >= since_ms:
                bars.append(item)
                since_ms = milliseconds(item.event_time)
                fresh += 1
        if not fresh or bars[-1].event_time > received:
            break
    if bars and bars[-1].event_time > utc_now() - _SETTLED:
        bars.pop()  # no later one has begun
    return bars


async def bars_before(link: Link, symbol: str, timeframe: str, count: int, health: Health) -> list[Bar]:
    """The latest `count` closed bars, oldest first; fewer where the market has fewer.

    Raises:
        FeedError: or its case that fits.
    """
    if count < 1:
        return []
    start = utc_now() - (count + 2) * bar_length(timeframe)
    return (await closed_bars(link, symbol, timeframe, start, health))[-count:]


class Bars:
    """The bars of one symbol as they close.

    Args:
        since: the opening of the first one wanted; None: the one that is open now.
    """

    def __init__(self, link: Link, symbol: str, since: datetime | None) -> None:
        self._link, self._symbol, self._next = link, symbol, since
        self._length = bar_length(link.config.bar)
        self.health = link.health("bars", symbol)

    def urls(self) -> Collection[str]:
        """The sockets that it listens to: none."""
        return ()

    async def run(self) -> None:
        """Work until cancelled."""
        backoff = self._link.backoff()
        while True:
            try:
                await self._step()
            except FeedError as error:
                self.health.stale(str(error))
                await asyncio.sleep(backoff.next_s())
            else:
                backoff.reset()

    async def _step(self) -> None:
        """Wait for a bar to be over and let all that are leave."""
        if self._next is None or not self.health.sound:
            now_open = await self._open_now()
            self._next = self._next or now_open
        opened = self._next
        over_s = (opened + self._length - utc_now()).total_seconds() + _AFTER_CLOSE_S
        if over_s > 0.0:
            self.health.well("connected")
            await asyncio.sleep(over_s)
        link, again_s = self._link, _AFTER_CLOSE_S
        patience = max(_SETTLED, timedelta(seconds=link.config.stale_after_s))
        ask_at, traded = opened + self._length + patience, None
        while not (bars := await closed_bars(link, self._symbol, link.config.bar, opened, self.health)):
            if utc_now() >= ask_at:
                traded = traded or await self._traded_since(opened)
                if traded is not None and utc_now() >= traded + self._length + patience:
                    silent_s = (utc_now() - opened - self._length).total_seconds()
                    self.health.stale(f"no bar since {opened}, although there was a trade at {traded}", silent_s)
                ask_at = utc_now() + patience
            await asyncio.sleep(again_s)
            again_s = min(2.0 * again_s, _AGAIN_S)
        for item in bars:
            link.push("bars", item)
        self._next = bars[-1].event_time
        self.health.well(f"{len(bars)} bars fetched", len(bars))

    async def _traded_since(self, start: datetime) -> datetime | None:
        """When the latest trade was; None where the market has been at rest since `start`, or nobody can tell."""
        exchange = self._link.exchange
        if not exchange.has.get("fetchTrades"):
            return None
        latest = await self._link.ask(lambda: exchange.fetch_trades(self._symbol, None, 1))
        try:
            last = moment(latest[-1].get("timestamp"))
        except (BadItemError, IndexError, AttributeError):
            return None
        return last if last >= start else None

    async def _open_now(self) -> datetime:
        """When the bar opened that is open now."""
        exchange, timeframe = self._link.exchange, self._link.config.bar
        rows = await self._link.ask(lambda: exchange.fetch_ohlcv(self._symbol, timeframe, None, 2))
        try:
            return moment(rows[-1][0])
        except (BadItemError, IndexError):
            raise FeedError(f"{self._symbol}: {self._link.config.at.name} serves no bar of {timeframe}") from None
