"""Yahoo's rows as bars: when each one opened, when it was known, and which are no bars at all.

- **Prices are adjusted for splits, not for dividends**: what yfinance calls `auto_adjust=False`. A dividend-adjusted
  price was never traded, so a fill at it would be fiction. Volume is adjusted for splits as well.
- **`time` is the close**, when the bar was known; `open_time` is its start. An intraday bar that the end of its session
  cuts short closes with the session. A daily bar of a US stock runs from the session's open to its close; elsewhere,
  where the closing auction or the fixing comes at an hour of its own, it runs from midnight to the next midnight of the
  exchange, which is late and never early. Weekly and monthly bars close at midnight after their last day, a 5d bar when
  the next one opens.
- **Only finished bars are kept**: those that closed half an hour ago, because some exchanges' quotes come late. Rows
  without prices (null, or the 0 that Yahoo writes instead) are dropped and counted; high and low are widened where
  rounding left the open or the close outside. Zero volume is kept.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pandas_market_calendars
import pyarrow as pa

from feeds.yahoo_client import CALENDAR, DELAY, MINUTES, Answer

_TIME = pa.timestamp("ns", "UTC")
SCHEMA = pa.schema(
    [("time", _TIME), ("symbol", pa.string()), ("open_time", _TIME)]
    + [(name, pa.float64()) for name in ("open", "high", "low", "close", "volume")]
)
US_STOCKS = frozenset(["ASE", "BTS", "NCM", "NGM", "NMS", "NYQ", "OEM", "OQB", "OQX", "PCX", "PNK"])  # Yahoo's names


def bars_of(answer: Answer, symbol: str, interval: str, now: datetime) -> tuple[pa.Table, int, int]:
    """Finished bars of `SCHEMA` from Yahoo's rows.

    Args:
        answer: rows, market and periods, as `ask` returns them.
        now: naive UTC; a bar that closed less than half an hour ago is left out.

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
    keep = usable & np.asarray(closes <= pd.Timestamp(now - DELAY, tz="UTC"))  # NaT is not
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
