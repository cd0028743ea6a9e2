"""What a finished run leaves behind to be judged, checked once on entry."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DAYS_PER_YEAR = (252, 365)  # sessions of an exchange, days of a market that never closes


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDescription:
    """Which data were run, precisely enough to find them again."""

    path: str
    sha256: str
    rows: int
    start: datetime  # naive UTC, first row
    end: datetime  # naive UTC, last row

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise ValueError(f"rows must not be negative, was {self.rows}")
        if self.end < self.start:
            raise ValueError(f"the data must end at or after {self.start}, ended at {self.end}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Market:
    """One symbol of the run and what its price did.

    `closes` holds the last price of regular intervals, an hour or a day: buy-and-hold is judged on it. A series
    thinned to its extremes would invent volatility that nobody could trade.
    """

    symbol: str
    times: npt.NDArray[Any]  # (P,) int64 or datetime64[ns], UTC, not decreasing
    closes: npt.NDArray[Any]  # (P,) quote currency, positive
    first_price: float  # quote currency; what a buyer at the start would have paid, before costs
    last_price: float  # quote currency
    multiplier: float = 1.0  # quote currency per point and unit
    tick: float = 1e-8  # quote currency
    lot: float = 1e-8  # base units or contracts
    taker_bps: float = 0.0  # of notional
    slippage: float = 0.0  # quote currency a unit; what a market buy pays above the price

    def __post_init__(self) -> None:
        for name in ("first_price", "last_price", "multiplier", "tick", "lot"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} of {self.symbol} must be positive and finite, was {value}")
        if not -100.0 <= self.taker_bps <= 1000.0:
            raise ValueError(f"taker_bps of {self.symbol} must lie in [-100, 1000], was {self.taker_bps}")
        if not 0.0 <= self.slippage < math.inf:
            raise ValueError(f"slippage of {self.symbol} must not be negative, was {self.slippage}")
        times = np.asarray(self.times).astype("datetime64[ns]").astype(np.int64)  # (P,)
        closes = np.asarray(self.closes, dtype=np.float64)  # (P,)
        if times.ndim != 1 or times.shape != closes.shape or times.size == 0:
            shapes = f"{times.shape} and {closes.shape}"
            raise ValueError(f"times and closes of {self.symbol} must be of one length, at least 1, were {shapes}")
        _refuse_disorder(times, f"times of {self.symbol}")
        if not (np.isfinite(closes) & (closes > 0.0)).all():
            raise ValueError(f"closes of {self.symbol} must be positive and finite")
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "closes", closes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunRecord:
    """A finished run: tables, markets, and the words that a report needs. One quote currency throughout."""

    title: str
    data: DataDescription
    costs: tuple[str, ...]  # a line each: fees, slippage, latency
    initial_cash: float  # quote currency
    equity: pa.Table  # time, equity, cash, position_value, optionally gross_exposure; one row a mark
    fills: pa.Table  # time, market_time, symbol, side, quantity, price, fee, order_id, liquidity
    markets: tuple[Market, ...]
    days_per_year: int  # 365 for markets that never close, 252 otherwise
    partial: bool = False  # the run ended before its planned end
    currency: str = "USD"
    sample: str = "Not stated."  # what was fitted on which data, and what is out of sample
    trials: int = 1  # variants tried before this one; the Sharpe ratio is deflated for them
    facts: tuple[tuple[str, str], ...] = ()  # further (name, value) lines: config, code version, run id

    def __post_init__(self) -> None:
        if not 0.0 < self.initial_cash < math.inf:
            raise ValueError(f"initial_cash must be positive and finite, was {self.initial_cash}")
        if self.days_per_year not in DAYS_PER_YEAR:
            raise ValueError(f"days_per_year must be one of {DAYS_PER_YEAR}, was {self.days_per_year}")
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1, was {self.trials}")
        if not self.markets:
            raise ValueError("markets must name at least one symbol, was empty")
        symbols = [market.symbol for market in self.markets]
        if len(set(symbols)) != len(symbols):
            raise ValueError(f"markets must name each symbol once, was {symbols}")


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """The account through time. A mark holds until the next one."""

    times: Ints  # (N,) ns
    equity: Floats  # (N,)
    position_value: Floats  # (N,) signed
    gross: Floats | None  # (N,) sum of |position value|; None where it was not recorded


@dataclass(frozen=True, slots=True, eq=False)
class Fills:
    """The fills, columns side by side."""

    times: Ints  # (F,) ns, engine
    market_times: Ints  # (F,) ns, where the market traded
    symbols: list[str]
    buys: npt.NDArray[np.bool_]  # (F,)
    quantities: Floats  # (F,) positive
    prices: Floats  # (F,)
    fees: Floats  # (F,) negative for a rebate


def read_marks(record: RunRecord) -> Marks:
    """The marks, completed to the window of the run.

    An account that does not move is not marked; so cash is added at the first price and the last mark repeated at the
    last price, or quiet months at either end would be missing from every average.

    Raises:
        ValueError: a column is missing or holds nulls or NaN, times decrease, or there is no row.
    """
    table = record.equity
    times = _times(table, "time")
    equity, position = (_finite(table, name) for name in ("equity", "position_value"))
    if times.size == 0:
        raise ValueError("equity must hold at least one mark, was empty")
    if "gross_exposure" in table.column_names:
        gross: Floats | None = _finite(table, "gross_exposure")
    else:
        gross = np.abs(position) if len(record.markets) == 1 else None
    start = min(int(market.times[0]) for market in record.markets)
    end = max(int(market.times[-1]) for market in record.markets)
    head, tail = int(start < times[0]), int(end > times[-1])
    return Marks(
        np.concatenate([[start][:head], times, [end][:tail]]).astype(np.int64),
        np.concatenate([[record.initial_cash][:head], equity, equity[-1:][:tail]]),
        np.concatenate([[0.0][:head], position, position[-1:][:tail]]),
        None if gross is None else np.concatenate([[0.0][:head], gross, gross[-1:][:tail]]),
    )


def read_fills(record: RunRecord) -> Fills:
    """The fills as arrays.

    Raises:
        ValueError: a column is missing or holds nulls or NaN, times decrease, a quantity or price is not positive, a
            side is neither BUY nor SELL, or a symbol is none of the markets.
    """
    table = record.fills
    times = _times(table, "time")
    symbols, sides = (_column(table, name).to_pylist() for name in ("symbol", "side"))
    if unknown := sorted(set(symbols) - {market.symbol for market in record.markets}):
        raise ValueError(f"fills must be of the markets of the run, were also of {unknown}")
    if wrong := sorted({str(side) for side in sides} - {"BUY", "SELL"}):
        raise ValueError(f"side of a fill must be BUY or SELL, was {wrong}")
    quantities, prices = (_finite(table, name) for name in ("quantity", "price"))
    for name, values in (("quantity", quantities), ("price", prices)):
        if (values <= 0.0).any():
            raise ValueError(f"{name} of a fill must be positive, was {values.min()}")
    return Fills(
        times,
        _times(table, "market_time", ordered=False),
        symbols,
        np.array([side == "BUY" for side in sides], dtype=np.bool_),
        quantities,
        prices,
        _finite(table, "fee"),
    )


def moment(time_ns: int) -> datetime:
    """Nanoseconds since 1970 as a naive UTC datetime, cut to microseconds."""
    instant: datetime = np.datetime64(int(time_ns), "ns").astype("datetime64[us]").item()
    return instant


def _column(table: pa.Table, name: str) -> Any:
    if name not in table.column_names:
        raise ValueError(f"wanted a column {name!r}, was {table.column_names}")
    column = table[name]
    if column.null_count:
        raise ValueError(f"column {name!r} must not hold nulls, held {column.null_count}")
    return column


def _times(table: pa.Table, name: str, *, ordered: bool = True) -> Ints:
    times: Ints = _column(table, name).cast(pa.timestamp("ns")).cast(pa.int64()).to_numpy()
    if ordered:
        _refuse_disorder(times, f"column {name!r}")
    return times


def _finite(table: pa.Table, name: str) -> Floats:
    values: Floats = _column(table, name).cast(pa.float64()).to_numpy()
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"column {name!r} must be finite, was {values[row]} in row {row}")
    return values


def _refuse_disorder(times: Ints, what: str) -> None:
    if (np.diff(times) < 0).any():
        row = int(np.flatnonzero(np.diff(times) < 0)[0]) + 1
        raise ValueError(f"{what} must not decrease, does in row {row}")
