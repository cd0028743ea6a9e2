"""Yahoo Finance live: bars by asking again and again, prices from its stream, and how both are doing.

Bars are those of `feeds.yahoo_bars`: adjusted for splits, stamped at their close, regular sessions only. A bar is taken
once it closed `delay_s` ago and Yahoo has a later price, or half an hour after its close. Each comes once and in order;
what was missed while Yahoo could not be reached comes with the next answer. What Yahoo corrects later is not told: live
bars may differ from those that `feeds.yahoo` fetches afterwards, most of all in the volume of their first minutes.

In an open session a symbol without a new bar is STALE although Yahoo answers: a market at rest, a lunch break and an
answer that has frozen look the same. A symbol that splits during the run is STALE to its end: the next start warms up
on the new scale.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa

from feeds.clock import utc_now
from feeds.events import Bar, FeedStatus, Trade
from feeds.health import Health
from feeds.loop import LoopAdapter, Push
from feeds.polling import Clock, Poller, Turn, WallClock
from feeds.tasks import all_of, in_thread
from feeds.yahoo_bars import LiveBars, Reading
from feeds.yahoo_client import DELAY, MINUTES, refuse_strange
from feeds.yahoo_stream import Stream, StreamConfig

OUTPUTS: Mapping[str, type] = {"bars": Bar, "trades": Trade, "status": FeedStatus}

_STREAMS = ("bars", "trades")
_BARS = (*MINUTES, "1d")


@dataclass(frozen=True, slots=True, kw_only=True)
class YahooLiveConfig:
    """What is wanted of Yahoo Finance, and how patiently."""

    symbols: tuple[str, ...]  # as Yahoo spells them: AAPL BRK-B VOD.L BTC-USD ^VIX ES=F EURUSD=X
    streams: tuple[str, ...] = _STREAMS  # of bars, trades
    bar: str = "1m"  # 1m 2m 5m 15m 30m 60m 90m 1h 1d
    poll_s: float = 15.0  # between questions about a bar that is due
    closed_poll_s: float = 60.0  # between questions about a closed market
    delay_s: float = 5.0  # from the close of a bar to the first question about it
    stale_after_s: float = 60.0  # of silence, beyond when something was due
    lag_max_s: float = 30.0  # of a bar, beyond delay_s and poll_s; of a price
    extended_hours: bool = False  # prices before and after the regular session too; bars have none
    stream_url: str = "wss://streamer.finance.yahoo.com/?version=2"
    cache_dir: str = ".cache/yahoo"  # for yfinance's own small databases
    timeout_s: float = 10.0  # for one answer
    backoff_max_s: float = 900.0  # between attempts while Yahoo refuses
    seed: int = 0  # of the jitter of the pauses between attempts

    def __post_init__(self) -> None:
        refuse_strange(self.symbols)
        if len({symbol.upper() for symbol in self.symbols}) < len(self.symbols):
            raise ValueError(f"want each of the symbols once, was {self.symbols}")
        if not self.streams or any(stream not in _STREAMS for stream in self.streams):
            raise ValueError(f"streams must be one or more of {', '.join(_STREAMS)}, was {self.streams}")
        if self.bar not in _BARS:
            raise ValueError(f"bar must be one of {' '.join(_BARS)}, was {self.bar!r}")
        for name in ("poll_s", "closed_poll_s", "stale_after_s", "lag_max_s", "timeout_s", "backoff_max_s"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {getattr(self, name)}")
        if not 0.0 <= self.delay_s <= DELAY.total_seconds():
            raise ValueError(f"delay_s must lie in [0, {DELAY.total_seconds():.0f}], was {self.delay_s}")
        if not self.stream_url.startswith(("ws://", "wss://")):
            raise ValueError(f"stream_url must begin with ws:// or wss://, was {self.stream_url!r}")


def yahoo_feed(config: YahooLiveConfig, since: Mapping[str, datetime] | None = None) -> LoopAdapter:
    """The adapter of a graph that runs in realtime; its outputs are those of `OUTPUTS`.

    Args:
        since: close of the last bar that is known already, by symbol, naive UTC; what closed after it comes first.
            Absent: bars that close after the start.
    """
    return LoopAdapter("yahoo", YahooFeed(config, since), OUTPUTS)


def warmup(
    config: YahooLiveConfig, bar: str, count: int, *, session: Any = None, now: datetime | None = None
) -> dict[str, list[Bar]]:
    """The last finished bars of each symbol, up to `count`, oldest first; fewer where Yahoo has no more.

    Args:
        bar: their length, which may differ from the live one.
        session: a curl_cffi session; None is a plain one.
        now: naive UTC; None reads the clock.

    Raises:
        ValueError: a bar that `YahooLiveConfig` refuses, or a count below one.
        FeedError: Yahoo cannot be reached (OfflineError), refuses, or has no bars of a symbol.
    """
    if bar not in _BARS:
        raise ValueError(f"bar must be one of {' '.join(_BARS)}, was {bar!r}")
    if count < 1:
        raise ValueError(f"count must be at least one, was {count}")
    now = now or utc_now()
    source = _source(config, bar, session)
    return {symbol.upper(): bars_from(source.last(symbol.upper(), count, now)) for symbol in config.symbols}


def bars_from(table: pa.Table) -> list[Bar]:
    """The rows of a table of `feeds.yahoo_bars.SCHEMA` as events."""
    naive = [pa.field(f.name, pa.timestamp("us") if pa.types.is_timestamp(f.type) else f.type) for f in table.schema]
    table = table.cast(pa.schema(naive)).rename_columns({"time": "event_time"})
    return [Bar(**row) for row in table.to_pylist()]


class YahooFeed:
    """The service behind `yahoo_feed`.

    Args:
        config, since: as of `yahoo_feed`.
        session: a curl_cffi session, for a proxy or a local server; None is a plain one.
        clock: that bars are judged by; tests move their own.
    """

    def __init__(
        self,
        config: YahooLiveConfig,
        since: Mapping[str, datetime] | None = None,
        *,
        session: Any = None,
        clock: Clock | None = None,
    ) -> None:
        self._config, self._session, self._clock = config, session, clock or WallClock()
        self._since = {symbol.upper(): when for symbol, when in (since or {}).items()}

    async def run(self, push: Push) -> None:
        """Deliver until cancelled."""
        config = self._config
        works = []
        if "bars" in config.streams:
            works.append(_Bars(config, self._since, self._session, self._clock, push).run())
        if "trades" in config.streams:
            source = _source(config, "1m", self._session)
            stream = StreamConfig(
                symbols=tuple(symbol.upper() for symbol in config.symbols),
                url=config.stream_url,
                stale_after_s=config.stale_after_s,
                lag_max_s=config.lag_max_s,
                extended_hours=config.extended_hours,
                timeout_s=config.timeout_s,
                seed=config.seed,
            )
            works.append(Stream(stream, source.present, push).run())
        await all_of(*works)

    def take(self, name: str, value: Any) -> None:
        """Nothing is sent to Yahoo."""


def _source(config: YahooLiveConfig, bar: str, session: Any) -> LiveBars:
    return LiveBars(
        bar, delay_s=config.delay_s, cache_dir=config.cache_dir, timeout_s=config.timeout_s, session=session
    )


class _Bars:
    """The polled half."""

    def __init__(
        self, config: YahooLiveConfig, since: Mapping[str, datetime], session: Any, clock: Clock, push: Push
    ) -> None:
        self._config, self._clock, self._push = config, clock, push
        self._source = _source(config, config.bar, session)
        self._started = clock.now()
        symbols = [symbol.upper() for symbol in config.symbols]
        self._known = {symbol: since.get(symbol, self._started) for symbol in symbols}  # close of the last bar
        self._came_at = dict.fromkeys(symbols, self._started)  # when it came
        tell = partial(push, "status")
        lag_max_s = config.lag_max_s + config.delay_s + max(config.poll_s, config.closed_poll_s)
        self._health = {symbol: Health("yahoo bars", symbol, lag_max_s, tell) for symbol in symbols}

    async def run(self) -> None:
        config = self._config
        poller = Poller(
            self._ask,
            self._health,
            stale_after_s=config.stale_after_s,
            backoff_max_s=config.backoff_max_s,
            seed=config.seed,
            clock=self._clock,
        )
        await poller.run()

    async def _ask(self, symbol: str) -> Turn | None:
        known, now = self._known[symbol], self._clock.now()
        found = await in_thread(partial(self._source.since, symbol, known, now))
        health = self._health[symbol]
        if found.split_at is not None and found.split_at > self._started:
            health.stale(f"split on {found.split_at:%Y-%m-%d}: what came before is on another scale, start anew", 0.0)
            return None
        received = utc_now()
        fetched = 0
        for bar in bars_from(found.bars):
            if bar.event_time <= self._known[symbol]:
                continue
            self._known[symbol] = bar.event_time
            if not 0.0 < bar.low <= bar.high < math.inf:  # yields may be negative; what is traded here may not
                health.bad(f"bar that closed at {bar.event_time}: low {bar.low}, high {bar.high}")
                continue
            bar.received = received
            self._push("bars", bar)
            fetched += 1
        if fetched:
            self._came_at[symbol] = now
        turn = self._next(symbol, found, self._clock.now())
        if fetched or now < turn.stale_at:
            health.well(f"Yahoo answers, with {fetched} new bars", fetched)
        if fetched and self._config.bar in MINUTES:  # when a day's bar should come, nobody can tell
            health.lag((now - self._known[symbol]).total_seconds())
        return turn

    def _next(self, symbol: str, found: Reading, now: datetime) -> Turn:
        """When the next bar is due, and when its absence is silence."""
        config, known = self._config, self._known[symbol]
        poll, stale_after = timedelta(seconds=config.poll_s), timedelta(seconds=config.stale_after_s)
        delay = timedelta(seconds=config.delay_s)
        answered = f"Yahoo has not answered since {now}"
        if found.hours is None or config.bar not in MINUTES:
            again_at = now + max(poll, timedelta(seconds=config.closed_poll_s))
            return Turn(again_at=again_at, stale_at=again_at + stale_after, heard_at=now, silence=answered)
        opens, closes = found.hours
        length = timedelta(minutes=MINUTES[config.bar])
        bars = (max(known, opens) - opens) // length  # of this session; the start of the run lies inside one
        due = min(opens + (bars + 1) * length, max(known, closes)) + delay
        if opens <= now < closes:
            silence = f"the session is open and Yahoo answers, without a bar since the one that closed at {known}"
            came_at = self._came_at[symbol]
            stale_at = max(due, came_at + length) + poll + stale_after  # the latter where quotes come late
            return Turn(again_at=max(due, now + poll), stale_at=stale_at, heard_at=max(came_at, opens), silence=silence)
        again_at = now + timedelta(seconds=config.closed_poll_s)
        if closes <= now < closes + DELAY and known < closes:  # the session's last bar may come late
            again_at = now + poll
        elif now < opens:
            again_at = min(again_at, opens + length + delay)
        return Turn(again_at=again_at, stale_at=again_at + stale_after, heard_at=now, silence=answered)
