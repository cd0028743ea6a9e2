"""Macro series live, point in time: a value is pushed when it can first be known, and never as of an earlier time.

Market series come from Yahoo as in `feeds.macro`: the close of each finished bar, `publication_delay_s` after it.

Published statistics come from FRED, the database of the Federal Reserve Bank of St. Louis, as the CSV of its charts,
which needs no key. What stands there at the start is history, of which only the newest value is pushed. From then on an
observation that is new, and one whose value was revised, are a point each at the moment that they are first seen.

A point's `event_time` is the end of the period that it speaks of. FRED dates a period by its first day, a week by its
last; days are counted in UTC.
"""

import csv
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import aiohttp
import pyarrow as pa

from feeds.errors import FeedError, UnknownSymbolError
from feeds.events import FeedStatus, MacroPoint
from feeds.fetch import fetch
from feeds.health import Health
from feeds.loop import LoopAdapter, Push
from feeds.macro import MARKET_SERIES
from feeds.polling import Clock, Poller, Turn, WallClock
from feeds.tasks import all_of, in_thread
from feeds.yahoo_bars import LiveBars
from feeds.yahoo_client import MINUTES, refuse_strange

OUTPUTS: Mapping[str, type] = {"points": MacroPoint, "status": FeedStatus}

_INTERVALS = (*MINUTES, "1d")
_MONTHS = {"1mo": 1, "3mo": 3, "1y": 12}
_PERIODS = ("1d", "1wk", *_MONTHS)
_FRED = re.compile(rf"([A-Z0-9_]{{1,64}}):({'|'.join(_PERIODS)})")
_LONGEST_PERIOD = timedelta(days=366)  # FRED selects by a period's first day

News = Callable[[str], Awaitable[list[tuple[datetime, float]]]]  # what is new of a series: end of the period, value


@dataclass(frozen=True, slots=True, kw_only=True)
class MacroLiveConfig:
    """Which series, and how often they are looked at."""

    series: tuple[str, ...] = MARKET_SERIES  # Yahoo's symbols
    interval: str = "1d"  # of their bars: 1m 2m 5m 15m 30m 60m 90m 1h 1d
    publication_delay_s: float = 900.0  # close of the bar -> known; free quotes are up to 15 minutes late
    poll_s: float = 60.0  # between questions about one of them
    fred: tuple[str, ...] = ()  # FRED's series, each with its period: "DGS10:1d", "ICSA:1wk", "UNRATE:1mo", "GDP:3mo"
    fred_poll_s: float = 3600.0
    fred_url: str = "https://fred.stlouisfed.org/graph/fredgraph.csv"
    revisions_days: float = 400.0  # how far back FRED's revisions are looked for
    stale_after_s: float = 3600.0  # without an answer about a series, beyond its poll
    cache_dir: str = ".cache/yahoo"  # for yfinance's own small databases
    timeout_s: float = 10.0  # for one answer
    backoff_max_s: float = 900.0  # between attempts while a source refuses
    seed: int = 0  # of the jitter of the pauses between attempts

    def __post_init__(self) -> None:
        if self.series:
            refuse_strange(self.series)
        elif not self.fred:
            raise ValueError("want at least one of series and fred, were both empty")
        for entry in self.fred:
            if not _FRED.fullmatch(entry):
                raise ValueError(f"fred wants SERIES:PERIOD, with a period of {' '.join(_PERIODS)}, was {entry!r}")
        names = [*(name.upper() for name in self.series), *(entry.split(":")[0] for entry in self.fred)]
        if len(set(names)) < len(names):
            raise ValueError(f"want each series once, was {' '.join(names)}")
        if self.interval not in _INTERVALS:
            raise ValueError(f"interval must be one of {' '.join(_INTERVALS)}, was {self.interval!r}")
        if not 0.0 <= self.publication_delay_s <= 366 * 86_400.0:
            raise ValueError(f"publication_delay_s must lie in [0, 31622400], was {self.publication_delay_s}")
        if not 1.0 <= self.revisions_days <= 36_600.0:
            raise ValueError(f"revisions_days must lie in [1, 36600], was {self.revisions_days}")
        for name in ("poll_s", "fred_poll_s", "stale_after_s", "timeout_s", "backoff_max_s"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {getattr(self, name)}")
        if not self.fred_url.startswith(("http://", "https://")):
            raise ValueError(f"fred_url must begin with http:// or https://, was {self.fred_url!r}")


def macro_feed(config: MacroLiveConfig, since: Mapping[str, datetime] | None = None) -> LoopAdapter:
    """The adapter of a graph that runs in realtime; its outputs are those of `OUTPUTS`.

    Args:
        since: `event_time` of the last point that is known already, by series, naive UTC; later ones come first.
            Absent: the newest one does.
    """
    return LoopAdapter("macro", MacroFeed(config, since), OUTPUTS)


def fred_points(text: str, series: str, period: str) -> dict[datetime, float]:
    """FRED's CSV as values by the end of their period, naive UTC, oldest first; missing values are left out.

    Raises:
        FeedError: anything else than two columns, a date and the series.
    """
    rows = list(csv.reader(text.splitlines()))
    if not rows or len(rows[0]) != 2 or rows[0][1].strip().upper() != series:
        raise FeedError(f"{series}: want a CSV with a date and {series}, was {text[:80]!r}")
    points: dict[datetime, float] = {}
    for line, row in enumerate(rows[1:], 2):
        try:
            observed, value = date.fromisoformat(row[0].strip()), row[1].strip()
            if len(row) > 2:
                raise ValueError(f"{len(row)} columns")
            if value not in ("", "."):
                points[_end_of(observed, period)] = _finite(value)
        except (ValueError, IndexError, OverflowError) as error:
            raise FeedError(f"{series}: line {line} of FRED's answer must be a date and a number ({error})") from error
    return dict(sorted(points.items()))


class Seen:
    """What is known of a series that is revised, so that each observation and each revision is told once.

    Args:
        since: the end of the last period that is known already; None: the newest of the first answer is told.
    """

    def __init__(self, since: datetime | None) -> None:
        self._since, self._first = since, True
        self._values: dict[datetime, float] = {}

    def new(self, points: Mapping[datetime, float], oldest: datetime) -> list[tuple[datetime, float]]:
        """Those of an answer that nobody was told of, oldest first; what is older than `oldest` is forgotten."""
        if not points:
            return []
        before, first = self._values, self._first
        self._first = False
        self._values = {when: value for when, value in (before | dict(points)).items() if when >= oldest}
        if first:
            newest = max(points)
            told = (when == newest if self._since is None else when > self._since for when in sorted(points))
            return [(when, points[when]) for when, tell in zip(sorted(points), told, strict=True) if tell]
        return [(when, points[when]) for when in sorted(points) if when >= oldest and before.get(when) != points[when]]


class MacroFeed:
    """The service behind `macro_feed`.

    Args:
        config, since: as of `macro_feed`.
        session: a curl_cffi session for Yahoo; None is a plain one.
        clock: that publication is judged by; tests move their own.
    """

    def __init__(
        self,
        config: MacroLiveConfig,
        since: Mapping[str, datetime] | None = None,
        *,
        session: Any = None,
        clock: Clock | None = None,
    ) -> None:
        self._config, self._clock = config, clock or WallClock()
        self._bars = LiveBars(
            config.interval,
            delay_s=config.publication_delay_s,
            cache_dir=config.cache_dir,
            timeout_s=config.timeout_s,
            session=session,
        )
        self._since = {series.upper(): when for series, when in (since or {}).items()}
        self._periods: dict[str, str] = dict(entry.split(":") for entry in config.fred)
        self._seen = {series: Seen(self._since.get(series)) for series in self._periods}

    async def run(self, push: Push) -> None:
        """Deliver until cancelled."""
        config = self._config
        async with aiohttp.ClientSession(trust_env=True) as http:
            works = []
            if config.series:
                names = [series.upper() for series in config.series]
                works.append(self._poll("yahoo", names, config.poll_s, self._from_yahoo, push))
            if config.fred:
                from_fred = partial(self._from_fred, http)
                works.append(self._poll("fred", list(self._periods), config.fred_poll_s, from_fred, push))
            await all_of(*works)

    def take(self, name: str, value: Any) -> None:
        """Nothing is sent to the sources."""

    async def _poll(self, source: str, names: Sequence[str], poll_s: float, news: News, push: Push) -> None:
        config, clock = self._config, self._clock
        health = {name: Health(f"{source} macro", name, math.inf, partial(push, "status")) for name in names}
        poll, stale_after = timedelta(seconds=poll_s), timedelta(seconds=config.stale_after_s)

        async def ask(name: str) -> Turn:
            points = await news(name)
            for when, value in points:
                push("points", MacroPoint(series=name, event_time=when, value=value))
            health[name].well(f"{source} answers, with {len(points)} new points", len(points))
            now = clock.now()
            again_at, silence = now + poll, f"{source} has not answered since {now}"
            return Turn(again_at=again_at, stale_at=again_at + stale_after, heard_at=now, silence=silence)

        poller = Poller(
            ask,
            health,
            stale_after_s=config.stale_after_s,
            backoff_max_s=config.backoff_max_s,
            seed=config.seed,
            clock=clock,
        )
        await poller.run()

    async def _from_yahoo(self, series: str) -> list[tuple[datetime, float]]:
        known, now = self._since.get(series), self._clock.now()
        if known is None:
            bars = await in_thread(partial(self._bars.last, series, 1, now))
        else:
            bars = (await in_thread(partial(self._bars.since, series, known, now))).bars
        closes = bars["time"].cast(pa.timestamp("us"), safe=False).to_pylist()
        points = zip(closes, bars["close"].to_pylist(), strict=True)
        fresh = [(when, value) for when, value in points if known is None or when > known]
        if fresh:
            self._since[series] = fresh[-1][0]
        return fresh

    async def _from_fred(self, http: aiohttp.ClientSession, series: str) -> list[tuple[datetime, float]]:
        config = self._config
        oldest = self._clock.now() - timedelta(days=config.revisions_days)
        start = min(oldest, self._since.get(series, oldest)) - _LONGEST_PERIOD
        text = await _fetch(http, config.fred_url, series, start.date(), config.timeout_s)
        return self._seen[series].new(fred_points(text, series, self._periods[series]), oldest)


async def _fetch(http: aiohttp.ClientSession, url: str, series: str, start: date, timeout_s: float) -> str:
    """One GET of a series from a date on."""
    who = f"{series}: FRED"
    answer = await fetch(http, url, who, timeout_s, params={"id": series, "cosd": start.isoformat()})
    if answer.status in (400, 404):
        raise UnknownSymbolError(f"{series}: FRED has no such series (HTTP {answer.status})")
    if answer.status != 200:
        raise FeedError(f"{who} answers HTTP {answer.status}")
    try:
        return answer.body.decode()
    except UnicodeDecodeError as error:
        raise FeedError(f"{series}: FRED's answer must be text in UTF-8 ({error})") from error


def _end_of(observed: date, period: str) -> datetime:
    if period not in _MONTHS:
        return datetime(observed.year, observed.month, observed.day) + timedelta(days=1)
    months = observed.year * 12 + observed.month - 1 + _MONTHS[period]
    return datetime(months // 12, months % 12 + 1, 1)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"want a finite number, was {text!r}")
    return value
