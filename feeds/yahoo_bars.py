"""Yahoo's rows as bars: when each one opened, when it was known, and which are no bars at all.

- **Prices are adjusted for splits, not for dividends**: what yfinance calls `auto_adjust=False`. A dividend-adjusted
  price was never traded, so a fill at it would be fiction. Volume is adjusted for splits as well.
- **`time` is the close**, when the bar was known; `open_time` is its start. An intraday bar that the end of its session
  cuts short closes with the session. A daily bar of a US stock runs from the session's open to its close; elsewhere,
  where the closing auction or the fixing comes at an hour of its own, it runs from midnight to the next midnight of the
  exchange, which is late and never early. Weekly and monthly bars close at midnight after their last day, a 5d bar when
  the next one opens.
- **Only finished bars are kept**: those that closed half an hour ago, because some exchanges' quotes come late. A live
  feed wants them sooner, and takes those that Yahoo has a later price of. Rows without prices (null, or the 0 that
  Yahoo writes instead) are dropped and counted; high and low are widened where rounding left the open or the close
  outside. Zero volume is kept.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandas_market_calendars
import pyarrow as pa
import pyarrow.compute as pc

from feeds.errors import FeedError
from feeds.windows import Window
from feeds.yahoo_client import (
    CALENDAR,
    CHUNK_DAYS,
    DELAY,
    MINUTES,
    REACH_DAYS,
    Answer,
    ask,
    client,
    plain_session,
)

_MARGIN = timedelta(minutes=5)  # by which a window stays inside Yahoo's reach
_HISTORY = timedelta(days=50 * 365)  # more than Yahoo has of most symbols
_SESSION_MINUTES = 390.0  # of a US stock: the shortest session that is counted on

_TIME = pa.timestamp("ns", "UTC")
SCHEMA = pa.schema(
    [("time", _TIME), ("symbol", pa.string()), ("open_time", _TIME)]
    + [(name, pa.float64()) for name in ("open", "high", "low", "close", "volume")]
)
US_STOCKS = frozenset(["ASE", "BTS", "NCM", "NGM", "NMS", "NYQ", "OEM", "OQB", "OQX", "PCX", "PNK"])  # Yahoo's names


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The finished bars of one window, and what came with them."""

    bars: pa.Table  # of `SCHEMA`, in order
    market: Mapping[str, str]  # as of `Answer`; empty where Yahoo had no rows
    quoted: datetime  # of the last price that Yahoo has, naive UTC
    hours: Window | None  # the regular session of the running day, or of the next, naive UTC
    split_at: datetime | None  # the last split that the rows tell of, naive UTC
    dropped: int  # rows without prices
    widened: int  # rows whose high or low did not contain the open and the close


def read(
    symbol: str,
    interval: str,
    window: Window,
    *,
    now: datetime,
    session: Any,
    timeout_s: float,
    delay: timedelta = DELAY,
) -> Reading:
    """Yahoo's finished bars of a window, in as many requests as it wants; inside `client`.

    Args:
        window: naive UTC; it selects by open, bars of a day and longer by their date at the exchange.
        now, delay: as of `bars_of`.
        session, timeout_s: as of `ask`, whose errors it raises.
    """
    tables, dropped, widened = [SCHEMA.empty_table()], 0, 0
    market: Mapping[str, str] = {}
    answer, split_at = Answer(), None
    for chunk in _chunks(window, interval):
        answer = ask(symbol, interval, chunk, session, timeout_s)
        if answer.rows is None:
            continue
        market = answer.market
        bars, without, wider = bars_of(answer, symbol, interval, now, delay)
        tables.append(bars.filter(inside(bars, chunk, interval, market)))
        dropped, widened = dropped + without, widened + wider
        splits = answer.rows.index[answer.rows["Stock Splits"] != 0.0]
        if len(splits):
            split_at = splits[-1].tz_convert("UTC").tz_localize(None).to_pydatetime()
    return Reading(
        bars=pa.concat_tables(tables),
        market=market,
        quoted=answer.quoted,
        hours=answer.hours,
        split_at=split_at,
        dropped=dropped,
        widened=widened,
    )


class LiveBars:
    """Bars of one length up to the present, sooner than half an hour after their close. Its calls block.

    Args:
        bar: one of `MINUTES`, or "1d".
        delay_s: from the close of a bar until it is taken, if Yahoo has a later price then.
        cache_dir: for the client's own databases.
        timeout_s: for one answer.
        session: a curl_cffi session; None is a plain one.
    """

    def __init__(self, bar: str, *, delay_s: float, cache_dir: str, timeout_s: float, session: Any) -> None:
        self.bar, self._delay, self._timeout_s = bar, timedelta(seconds=delay_s), timeout_s
        self._folder, self._session = Path(cache_dir) / "client", session
        # So far a window reaches back behind the last bar known; a day's bar is selected by its date at the exchange.
        self._overlap = timedelta(minutes=MINUTES[bar]) if bar in MINUTES else timedelta(days=7)
        days = REACH_DAYS.get(bar)
        self._reach = _HISTORY if days is None else timedelta(days=days) - _MARGIN

    def since(self, symbol: str, known: datetime, now: datetime) -> Reading:
        """What is finished at `now`, from before the close of a bar that is known.

        Raises:
            FeedError: as `ask`; also where Yahoo does not reach back so far.
        """
        start = known - self._overlap
        if now - start > self._reach:
            raise FeedError(
                f"{symbol}: Yahoo serves {self.bar} bars of the last {self._reach.days} days, and the last one known is"
                f" of {known}: start anew"
            )
        return self._read(symbol, start, now)

    def last(self, symbol: str, count: int, now: datetime) -> pa.Table:
        """The last bars that are finished at `now`, up to `count`.

        Raises:
            FeedError: as `ask`; also where there is none.
        """
        days = count * MINUTES[self.bar] / _SESSION_MINUTES if self.bar in MINUTES else float(count)
        span = min(timedelta(days=math.ceil(days * 7.0 / 5.0) + 4), self._reach)
        bars = self._read(symbol, now - span, now).bars
        while len(bars) < count and span < self._reach:
            span = min(2 * span, self._reach)
            bars = self._read(symbol, now - span, now).bars
        if len(bars) == 0:
            raise FeedError(f"{symbol}: Yahoo has no finished {self.bar} bars in the {span.days} days up to {now}")
        return bars.slice(max(0, len(bars) - count))

    def present(self, symbol: str, now: datetime) -> tuple[datetime, bool]:
        """When Yahoo's last price is from, naive UTC, and whether the regular session is open at `now`."""
        found = self._read(symbol, now - self._overlap, now)
        return found.quoted, found.hours is not None and found.hours[0] <= now < found.hours[1]

    def _read(self, symbol: str, start: datetime, now: datetime) -> Reading:
        # The end lies ahead: Yahoo leaves out the row of the end itself, and yfinance remembers ends that are past.
        window = (start, now + timedelta(days=2 if self.bar in CALENDAR else 0, minutes=1))
        session = self._session or plain_session()
        with client(self._folder, 0):
            return read(
                symbol, self.bar, window, now=now, session=session, timeout_s=self._timeout_s, delay=self._delay
            )


def inside(bars: pa.Table, window: Window, interval: str, market: Mapping[str, str]) -> pa.Array:
    """Which bars the window selects: by their open, or by their date at the exchange."""
    opens = bars["open_time"]
    if interval in CALENDAR and len(bars):
        opens = pc.local_timestamp(opens.cast(pa.timestamp("ns", market["timezone"])))
        opens = pc.floor_temporal(opens, unit="day")
    stamps = opens.cast(pa.int64()).to_numpy()
    start, end = (pd.Timestamp(edge).as_unit("ns").value for edge in window)
    return pa.array((start <= stamps) & (stamps < end))


def bars_of(
    answer: Answer, symbol: str, interval: str, now: datetime, delay: timedelta = DELAY
) -> tuple[pa.Table, int, int]:
    """Finished bars of `SCHEMA` from Yahoo's rows.

    Args:
        answer: rows, market and periods, as `ask` returns them.
        now: naive UTC.
        delay: a bar that closed less than this ago is left out; so is one that closed less than half an hour ago, if
            Yahoo has no price from after it: where quotes come late, that bar is still growing.

    Returns:
        The bars, the number of rows dropped for want of prices, and of bars whose high or low was widened.
    """
    rows = answer.rows
    if interval in MINUTES:
        rows = rows[rows.index.second == 0]  # Yahoo adds the running quote as a row of its own
    prices = rows[["Open", "High", "Low", "Close"]].astype("float64")
    volume = rows["Volume"].to_numpy(dtype="float64")
    usable = (np.isfinite(prices) & (prices != 0.0)).to_numpy().all(axis=1) & np.isfinite(volume) & (volume >= 0.0)
    opens, closes = _times(rows.index, interval, answer)
    finished = min(now - delay, max(now - DELAY, answer.quoted))
    keep = usable & np.asarray(closes <= pd.Timestamp(finished, tz="UTC"))  # NaT is not
    kept = prices[keep]
    high, low = kept.max(axis=1), kept.min(axis=1)
    columns = {
        "time": closes[keep].as_unit("ns"),
        "symbol": [symbol] * len(kept),
        "open_time": opens[keep].as_unit("ns"),
        "open": kept["Open"],
        "high": high,
        "low": low,
        "close": kept["Close"],
        "volume": volume[keep],
    }
    arrays = [pa.array(columns[name], type=SCHEMA.field(name).type) for name in SCHEMA.names]
    widened = int(((high > kept["High"]) | (low < kept["Low"])).sum())
    return pa.Table.from_arrays(arrays, schema=SCHEMA), int((~usable).sum()), widened


def _chunks(window: Window, interval: str) -> Iterator[Window]:
    start, end = window
    step = timedelta(days=CHUNK_DAYS[interval]) if interval in CHUNK_DAYS else end - start
    while start < end:
        yield start, min(start + step, end)
        start += step


def _times(stamps: Any, interval: str, answer: Answer) -> tuple[Any, Any]:
    """Open and close of each row, UTC; NaT where the close is not known yet."""
    if interval in MINUTES:
        closes = stamps + pd.Timedelta(minutes=MINUTES[interval])
        # A market that never closes has periods that end at 23:59: those cut nothing.
        days = answer.periods[answer.periods["end"] - answer.periods["start"] < pd.Timedelta(hours=23.5)]
        ends = pd.DatetimeIndex(days["end"].groupby(level=0).max().reindex(stamps.normalize()))
        closes = closes.where(~((stamps < ends) & (ends < closes)), ends)
        return stamps.tz_convert("UTC"), closes.tz_convert("UTC")
    dates = stamps.tz_localize(None).normalize()
    opens = _midnight(dates, answer.market)
    if interval == "5d":  # nobody promises where it ends, except that the next one follows
        return opens, opens[1:].append(pd.DatetimeIndex([pd.NaT], tz="UTC"))
    closes = _midnight(dates + pd.DateOffset(**CALENDAR[interval]), answer.market)
    if interval == "1d" and answer.market["exchange"] in US_STOCKS:
        sessions = _us_sessions(dates[0].year, dates[-1].year).reindex(dates)
        unknown = sessions["market_open"].isna().to_numpy()
        opens = opens.where(unknown, pd.DatetimeIndex(sessions["market_open"]))
        closes = closes.where(unknown, pd.DatetimeIndex(sessions["market_close"]))
    return opens, closes


def _midnight(dates: Any, market: Mapping[str, str]) -> Any:
    # Where a clock change makes midnight happen twice or never, the later reading: late, never early.
    twice = np.zeros(len(dates), dtype=bool)
    return dates.tz_localize(market["timezone"], ambiguous=twice, nonexistent="shift_forward").tz_convert("UTC")


@cache
def _us_sessions(first_year: int, last_year: int) -> Any:
    calendar = pandas_market_calendars.get_calendar("NYSE")
    return calendar.schedule(f"{first_year}-01-01", f"{last_year}-12-31")
