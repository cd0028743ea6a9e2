"""Bars as columns, and the clock they are read by. Plain numpy: files and feeds are turned into these elsewhere."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALWAYS_OPEN = "24/7"
HOURS_A_WEEK = 168
INSIDE = 1.0 - 1e-6  # an open or close this far outside [low, high] is rounding

_HOUR_NS = 3_600 * 10**9
_DAY_NS = 24 * _HOUR_NS
_THURSDAY = 72  # hour of the week of 1970-01-01 00:00
_YEARS_AHEAD = 3  # how far the future of a calendar is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class BarSeries:
    """The bars of one symbol, oldest first. Prices in quote currency, volume in units of the source."""

    symbol: str
    bar_s: float  # length of a bar
    close_time: Ints  # (n,) ns UTC, increasing: a bar is known at its close
    open: Floats  # (n,)
    high: Floats  # (n,)
    low: Floats  # (n,)
    close: Floats  # (n,)
    volume: Floats  # (n,) zero where the source has none

    def __post_init__(self) -> None:
        if not 0.0 < self.bar_s < np.inf:
            raise ValueError(f"bar_s of {self.symbol} must be positive and finite, was {self.bar_s}")
        if self.close_time.ndim != 1 or self.close_time.dtype != np.int64:
            raise ValueError(f"close_time of {self.symbol} must be int64 (n,), was {_shown(self.close_time)}")
        for name in ("open", "high", "low", "close", "volume"):
            column = getattr(self, name)
            if column.shape != self.close_time.shape or column.dtype != np.float64:
                wanted = f"float64 {self.close_time.shape}"
                raise ValueError(f"{name} of {self.symbol} must be {wanted}, was {_shown(column)}")
        late = np.flatnonzero(np.diff(self.close_time) <= 0)
        if len(late):
            before, after = (int(when) for when in self.close_time[late[0] : late[0] + 2])
            raise ValueError(f"close_time of {self.symbol} must increase, was {after} after {before} ns")
        wrong = np.flatnonzero(~possible(self.open, self.high, self.low, self.close, self.volume))
        if len(wrong):
            i = int(wrong[0])
            bar = tuple(float(column[i]) for column in (self.open, self.high, self.low, self.close, self.volume))
            raise ValueError(f"bar {i} of {self.symbol}: {impossible(bar)}")

    def __len__(self) -> int:
        return len(self.close_time)

    def slice(self, start_ns: int | None = None, end_ns: int | None = None) -> Self:
        """The bars that close in [start_ns, end_ns); None leaves that side open. Columns are views."""
        first = 0 if start_ns is None else int(np.searchsorted(self.close_time, start_ns, "left"))
        last = len(self) if end_ns is None else int(np.searchsorted(self.close_time, end_ns, "left"))
        rows = slice(first, max(first, last))
        return type(self)(
            symbol=self.symbol,
            bar_s=self.bar_s,
            close_time=self.close_time[rows],
            open=self.open[rows],
            high=self.high[rows],
            low=self.low[rows],
            close=self.close[rows],
            volume=self.volume[rows],
        )


def possible(
    open: Floats,  # noqa: A002 - the field is called so everywhere
    high: Floats,
    low: Floats,
    close: Floats,
    volume: Floats,
) -> npt.NDArray[np.bool_]:
    """Which bars can have happened: 0 < low <= open, close <= high, all finite, and no negative volume. (n,) -> (n,)"""
    top, bottom = np.maximum(open, close), np.minimum(open, close)  # (n,) NaN where either is
    inside = (bottom > 0.0) & (low > 0.0) & (low <= high) & (high >= top * INSIDE) & (low * INSIDE <= bottom)
    return inside & (high < np.inf) & (top < np.inf) & (volume >= 0.0) & (volume < np.inf)


def impossible(bar: tuple[float, ...]) -> str:
    """The sentence about a bar (open, high, low, close, volume) that cannot have happened."""
    opened, high, low, close, volume = bar
    wanted = "want finite numbers, 0 < low <= open and close <= high, and a volume of zero or more"
    return f"{wanted}; was open {opened:g}, high {high:g}, low {low:g}, close {close:g}, volume {volume:g}"


def hours_of_week(close_time: Ints) -> Ints:
    """The hour of the week at which each bar closes, UTC: Monday 00:00 is 0, Sunday 23:00 is 167. (n,) ns -> (n,)"""
    hours: Ints = (np.asarray(close_time, np.int64) // _HOUR_NS + _THURSDAY) % HOURS_A_WEEK
    return hours


def next_closes(last_close_ns: int, bar_s: float, calendar: str, count: int) -> Ints:
    """When the next `count` bars will close: on the grid of the last one, where the market is open in the bar.

    Bars keep their phase: the bar after one that closed at 15:30 closes at 16:30, also where the session ends at 16:00,
    as bars in files do. A bar of a day counts where the market is open for a part of it.

    Args:
        last_close_ns: close of the last known bar, ns UTC.
        bar_s: length of a bar.
        calendar: a name of pandas_market_calendars such as "NYSE", or "24/7".
        count: how many, at least 0.

    Returns:
        (count,) ns UTC, increasing, all after `last_close_ns`.

    Raises:
        ValueError: an impossible argument, an unknown calendar, or one that does not open within three years.
    """
    if not 0.0 < bar_s < np.inf:
        raise ValueError(f"bar_s must be positive and finite, was {bar_s}")
    if count < 0:
        raise ValueError(f"count must be at least 0, was {count}")
    bar_ns = round(bar_s * 1e9)
    if calendar == ALWAYS_OPEN:
        return last_close_ns + bar_ns * np.arange(1, count + 1, dtype=np.int64)
    found = np.empty(0, np.int64)
    year = _year_of(last_close_ns)
    for until in range(year, year + _YEARS_AHEAD + 1):
        opens, closes = _sessions(calendar, until)
        steps = [found]
        for opened, closed in zip(opens.tolist(), closes.tolist(), strict=True):
            if closed <= last_close_ns:
                continue
            # Bar k is (last + (k - 1) bar, last + k bar]: the first that ends after the open, the last begun before
            # the close.
            first = max(1, (opened - last_close_ns) // bar_ns + 1)
            last = -((last_close_ns - closed) // bar_ns)
            steps.append(last_close_ns + bar_ns * np.arange(first, last + 1, dtype=np.int64))
            if sum(map(len, steps)) >= 2 * count + 2:  # enough even where sessions share a bar
                break
        found = np.unique(np.concatenate(steps))
        if len(found) >= count:
            return found[:count]
    raise ValueError(f"the calendar {calendar} has {len(found)} bars within three years, wanted {count}")


def _year_of(time_ns: int) -> int:
    return int(np.datetime64(time_ns, "ns").astype("datetime64[Y]").astype(np.int64)) + 1970


@lru_cache(maxsize=32)
def _sessions(calendar: str, year: int) -> tuple[Ints, Ints]:
    """Opens and closes of the sessions of one year, ns UTC; a lunch break parts two sessions."""
    schedule = _calendar(calendar).schedule(f"{year}-01-01", f"{year}-12-31")
    columns = [_instants(schedule[name]) for name in ("market_open", "market_close")]
    if "break_start" in schedule.columns:
        pause, resume = (_instants(schedule[name]) for name in ("break_start", "break_end"))
        has = (pause != _NOT_A_TIME) & (resume != _NOT_A_TIME)
        columns = [np.sort(np.concatenate(pair)) for pair in ((columns[0], resume[has]), (pause[has], columns[1]))]
    return columns[0], columns[1]


_NOT_A_TIME = np.iinfo(np.int64).min


def _instants(column: Any) -> Ints:
    instants: Ints = column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[ns]").astype(np.int64)
    return instants


@lru_cache(maxsize=8)
def _calendar(name: str) -> Any:
    """The library's calendar. Imported here, because the import costs 0.8 s and pulls in pandas."""
    import pandas_market_calendars

    if name not in pandas_market_calendars.get_calendar_names():
        raise ValueError(f"calendar must be '{ALWAYS_OPEN}' or a name of pandas_market_calendars, was {name!r}")
    return pandas_market_calendars.get_calendar(name)


def _shown(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
