"""Any exchange that ccxt knows, live: trades, best bid and ask, order book and bars, and how each of them is doing.

feed = crypto_feed(CryptoConfig(symbols=("BTC/USDT",), streams=("trades", "quotes")), since=None)
feed.edge("trades")  # ts[Trade]; "quotes" ts[Quote], "depth" ts[Depth], "bars" ts[Bar], "status" ts[FeedStatus]
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

import ccxt.pro

from feeds.crypto_bars import Bars, bars_before
from feeds.crypto_link import CryptoConfig, Link
from feeds.crypto_recent import RecentTrades
from feeds.crypto_tops import Depths, Quotes
from feeds.crypto_trades import CountedTrades, counted
from feeds.errors import FeedError
from feeds.events import Bar, Depth, FeedStatus, Quote, Trade
from feeds.exchange import connect, disconnect, instrument, market
from feeds.instruments import Instrument
from feeds.loop import LoopAdapter, Push

__all__ = ["CryptoConfig", "CryptoFeed", "crypto_feed", "describe", "warmup"]

_TYPES: Mapping[str, type] = {"trades": Trade, "quotes": Quote, "depth": Depth, "bars": Bar}
_WANTS: Mapping[str, tuple[str, ...]] = {  # one of these, of what ccxt says that an exchange has
    "trades": ("watchTrades",),
    "quotes": ("watchBidsAsks", "watchTicker"),
    "depth": ("watchOrderBook",),
    "bars": ("fetchOHLCV",),
}

T = TypeVar("T")


class CryptoFeed:
    """The service behind `crypto_feed`.

    Args:
        since: the close of the last bar that warmed a symbol up: its trades from then on are fetched before the first
            live one, and its bars from then on are sent. Symbols without one begin with what comes live.
    """

    def __init__(self, config: CryptoConfig, since: Mapping[str, datetime] | None = None) -> None:
        self._config, self._since = config, dict(since or {})

    async def run(self, push: Push) -> None:
        """Work until cancelled; close everything on the way out.

        Raises:
            UnknownSymbolError: the exchange does not trade one of the symbols.
        """
        exchange = connect(self._config.at)
        link = Link(exchange, self._config, push)
        streams = [_stream(link, kind, symbol, self._since.get(symbol)) for kind, symbol in self._wanted()]
        exchange.on_bad = lambda url, detail: _blame(streams, url, detail)
        try:
            await _load_markets(link, streams)
            await _together(stream.run() for stream in streams)
        finally:
            await disconnect(exchange)

    def take(self, name: str, value: Any) -> None:
        """Nothing is sent to it."""
        raise ValueError(f"a feed takes nothing, was given {name}")

    def _wanted(self) -> list[tuple[str, str]]:
        return [(kind, symbol) for kind in self._config.streams for symbol in self._config.symbols]


def crypto_feed(config: CryptoConfig, since: Mapping[str, datetime] | None = None) -> LoopAdapter:
    """The streams of `config` as edges of a realtime graph, and "status" beside them.

    Args:
        since: the close of the last bar that warmed a symbol up: its trades from then on are fetched before the first
            live one, and its bars from then on are sent. Symbols without one begin with what comes live.

    Ticks:
        trades: each once, in the order of the exchange; all symbols in one stream.
        quotes: on each change that arrives; of several at once the latest.
        depth: the best `depth_levels` as a snapshot, when they have changed.
        bars: closed ones, after their close.
        status: when the state of a stream of a symbol changes; feed is such as "binance trades".

    Raises:
        FeedError: the exchange does not offer one of the streams.
    """
    has, timeframes = _offers(config.at.exchange)
    for stream in config.streams:
        if not any(has.get(name) for name in _WANTS[stream]):
            raise FeedError(f"{config.at.exchange} offers no {stream} that ccxt can read; leave them out of `streams`")
    if "bars" in config.streams and config.bar not in timeframes:
        raise FeedError(f"{config.at.exchange} has bars of {', '.join(timeframes)}, `bar` was {config.bar!r}")
    outputs = {stream: _TYPES[stream] for stream in config.streams}
    return LoopAdapter("crypto", CryptoFeed(config, since), {**outputs, "status": FeedStatus})


def warmup(config: CryptoConfig, timeframe: str, count: int) -> dict[str, list[Bar]]:
    """The latest `count` closed bars of each symbol, oldest first; fewer where a market has fewer.

    Raises:
        FeedError: or its case that fits; an OfflineError or RateLimitError is worth another try.
    """

    async def bars(link: Link) -> dict[str, list[Bar]]:
        return {
            symbol: await bars_before(link, symbol, timeframe, count, link.health("bars", symbol))
            for symbol in config.symbols
        }

    return _ask_once(config, bars)


def describe(config: CryptoConfig) -> tuple[Instrument, ...]:
    """Tick, lot, fees and least order of each symbol, as the exchange tells them.

    Raises:
        UnknownSymbolError: it does not trade one of them.
        FeedError: or its case that fits; an OfflineError or RateLimitError is worth another try.
    """

    async def instruments(link: Link) -> tuple[Instrument, ...]:
        return tuple(instrument(link.exchange, market(link.exchange, symbol)) for symbol in config.symbols)

    return _ask_once(config, instruments)


@cache
def _offers(name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    exchange = getattr(ccxt.pro, name)()
    return exchange.has, exchange.timeframes or {}


def _stream(link: Link, kind: str, symbol: str, since: datetime | None) -> Any:
    if kind == "trades":
        return (CountedTrades if counted(link.exchange.id) else RecentTrades)(link, symbol, since)
    if kind == "bars":
        return Bars(link, symbol, since)
    return (Quotes if kind == "quotes" else Depths)(link, symbol)


def _blame(streams: Iterable[Any], url: str, detail: str) -> None:
    """Tell of a message that could not be read as what is wrong with the streams that come from there."""
    for stream in streams:
        if url in stream.urls():
            stream.health.bad(f"a message that cannot be read ({detail})")


async def _load_markets(link: Link, streams: Iterable[Any]) -> None:
    """Learn what the exchange trades, however long that takes."""
    backoff = link.backoff()
    while True:
        try:
            await link.ask(link.exchange.load_markets)
        except FeedError as error:
            for stream in streams:
                stream.health.stale(f"{error}; trying again")
            await asyncio.sleep(backoff.next_s())
        else:
            break
    for symbol in link.config.symbols:
        market(link.exchange, symbol)


async def _together(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all until one fails, and raise that failure."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(work)
    except BaseExceptionGroup as group:
        failure: BaseException = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        raise failure from None


def _ask_once(config: CryptoConfig, work: Callable[[Link], Awaitable[T]]) -> T:
    """Connect, load the markets, do the work, close."""

    async def run() -> T:
        exchange = connect(config.at)
        try:
            link = Link(exchange, config, lambda output, value: None)
            await link.ask(exchange.load_markets)
            for symbol in config.symbols:
                market(exchange, symbol)
            return await work(link)
        finally:
            await disconnect(exchange)

    return asyncio.run(run())
