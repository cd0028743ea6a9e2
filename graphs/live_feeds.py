"""The live feeds of a config as edges of the graph: recorded on their way in, or replayed from a recording."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from csp import ts
from csp.impl.pushadapter import PushInputAdapter
from csp.impl.wiring import py_push_adapter_def

from feeds.crypto import CryptoConfig, crypto_feed
from feeds.events import Bar, Depth, FeedStatus, MacroPoint, NewsItem, Quote, Trade
from feeds.instruments import Instrument
from feeds.macro_live import macro_feed
from feeds.news_live import FollowConfig, RssConfig, YahooNewsConfig, news_feed
from feeds.record import Inputs
from feeds.replay import bars_in_memory
from feeds.streams import by_symbol, together
from feeds.tap import Tap
from feeds.times import bar_length
from feeds.yahoo_live import YahooLiveConfig, yahoo_feed
from graphs.edges import Feeds
from graphs.live_config import LiveConfig
from nodes.bars import bar_aggregator
from nodes.since import since_live

_KINDS: dict[str, type] = {"bars": Bar, "trades": Trade, "quotes": Quote, "depth": Depth}


class _LiveFromHere(PushInputAdapter):  # type: ignore[misc] # csp ships no types
    """One tick, which the engine delivers when history is over."""

    def start(self, starttime: datetime, endtime: datetime) -> None:
        self.push_tick(True)


_live_from_here = py_push_adapter_def("live_from_here", _LiveFromHere, ts[bool])


@dataclass(slots=True)
class _Heard:
    """What the market feeds of a config give, by stream and symbol."""

    streams: dict[str, dict[str, Any]] = field(default_factory=lambda: {name: {} for name in _KINDS})
    lengths: dict[str, timedelta] = field(default_factory=dict)
    status: list[ts[FeedStatus]] = field(default_factory=list)
    required: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, tap: Tap, source: str, symbols: Sequence[str], streams: Sequence[str], length: timedelta) -> None:
        """Every stream of one adapter, split by symbol."""
        for stream in streams:
            self.streams[stream] |= by_symbol(tap.edge(stream, _KINDS[stream]), list(symbols))
        for symbol in symbols:
            self.required[symbol] = tuple(f"{source} {stream}" for stream in streams)
            if "bars" in streams:
                self.lengths[symbol] = length
        self.status.append(tap.edge("status", FeedStatus))


def streamed(config: LiveConfig) -> list[str]:
    """Every symbol that a feed of the config brings, in its order, as its events name it."""
    return [s for crypto in config.crypto for s in crypto.symbols] + [
        s.upper() for y in config.yahoo for s in y.symbols
    ]


def timeframe(config: LiveConfig, source: CryptoConfig | YahooLiveConfig) -> str:
    """The bars of a source: its own, or those that are built from its trades."""
    return source.bar if "bars" in source.streams else config.bar


def live_feeds(
    config: LiveConfig,
    instruments: Sequence[Instrument],
    inputs: Inputs,
    warm: Sequence[Bar],
    more_status: Sequence[ts[FeedStatus]] = (),
) -> Feeds:
    """Wire every feed of a config.

    Args:
        instruments: what is traded; other symbols of the feeds are only listened to.
        inputs: records what comes in, or replays it.
        warm: bars from before the run, sorted by close; a feed of trades goes on where those of its symbol end.
        more_status: of what is no feed, such as the connection to a venue.
    """
    heard = _Heard()
    for n, crypto in enumerate(config.crypto):
        ends = _ends(warm, crypto.symbols)
        tap = Tap(f"crypto{n}", lambda c=crypto, e=ends: crypto_feed(c, e), inputs)  # type: ignore[misc]
        heard.add(tap, crypto.at.name, crypto.symbols, crypto.streams, bar_length(crypto.bar))
    for n, yahoo in enumerate(config.yahoo):
        names = [symbol.upper() for symbol in yahoo.symbols]
        ends = _ends(warm, names)
        tap = Tap(f"yahoo{n}", lambda c=yahoo, e=ends: yahoo_feed(c, e), inputs)  # type: ignore[misc]
        heard.add(tap, "yahoo", names, yahoo.streams, bar_length(yahoo.bar))
    news, points = _news(config, inputs, heard), _macro(config, inputs, heard)

    symbols = streamed(config)
    live = inputs.edge("live", bool, _live_from_here)
    history = by_symbol(inputs.edge("warmup", Bar, lambda: bars_in_memory(warm)), symbols)
    length = bar_length(config.bar)
    bars = {}
    for symbol in symbols:
        bar = heard.streams["bars"].get(symbol)
        if bar is None:
            trade = heard.streams["trades"][symbol]
            bar = bar_aggregator(trade.price, trade.size, symbol, length)
        bars[symbol] = together([history[symbol], bar])
    traded = [instrument.symbol for instrument in instruments]
    rates = {c.currency: bars[c.symbol].close for c in config.conversions if not c.inverse}
    rates |= {c.currency: 1.0 / bars[c.symbol].close for c in config.conversions if c.inverse}
    return Feeds(
        bars={symbol: bars[symbol] for symbol in traded},
        bar_lengths={symbol: heard.lengths.get(symbol, length) for symbol in traded},
        trades=_of(heard.streams["trades"], traded),
        quotes=_of(heard.streams["quotes"], traded),
        depth=_of(heard.streams["depth"], traded),
        news=news,
        macro=points,
        rates=rates,
        status=together([*heard.status, *more_status]),
        live=live,
        marks={symbol: since_live(bars[symbol].close, live) for symbol in traded},
        required=heard.required,
        inputs=inputs,
    )


def _ends(warm: Sequence[Bar], symbols: Sequence[str]) -> dict[str, datetime]:
    """When the history of each symbol ends: the close of its last bar."""
    return {bar.symbol: bar.event_time for bar in warm if bar.symbol in symbols}


def _of(edges: dict[str, Any], symbols: Sequence[str]) -> dict[str, Any]:
    return {symbol: edges[symbol] for symbol in symbols if symbol in edges}


def _news(config: LiveConfig, inputs: Inputs, heard: _Heard) -> ts[NewsItem] | None:
    sources: tuple[RssConfig | YahooNewsConfig | FollowConfig, ...] = (
        *config.rss,
        *config.yahoo_news,
        *config.follow,
    )
    if not sources:
        return None
    tap = Tap("news", lambda: news_feed(sources, config.universe), inputs)
    heard.status.append(tap.edge("status", FeedStatus))
    item: ts[NewsItem] = tap.edge("items", NewsItem)
    return item


def _macro(config: LiveConfig, inputs: Inputs, heard: _Heard) -> ts[MacroPoint] | None:
    points = []
    for n, source in enumerate(config.macro):
        tap = Tap(f"macro{n}", lambda c=source: macro_feed(c), inputs)  # type: ignore[misc]
        heard.status.append(tap.edge("status", FeedStatus))
        points.append(tap.edge("points", MacroPoint))
    return together(points) if points else None
