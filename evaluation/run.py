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

PRICE_COLUMNS = ("decision_price", "market_price", "half_spread")
FORECAST_COLUMNS = ("mean", "volatility", "q05", "q25", "q75", "q95", "entropy")
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
    currency: str = ""  # what it is quoted in; "": the currency of the account
    rate: float = 1.0  # last price of one unit of it in the currency of the account; all its money is converted at it
    # (time in ns, new units for one old) and (time in ns, quote currency a unit before a split of that time), in order:
    # what trades or is priced at that time still knows the old units, what comes after it the new ones.
    splits: tuple[tuple[int, float], ...] = ()
    dividends: tuple[tuple[int, float], ...] = ()  # for buy and hold; those of the strategy are flows

    def __post_init__(self) -> None:
        for name in ("first_price", "last_price", "multiplier", "tick", "lot", "rate"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} of {self.symbol} must be positive and finite, was {value}")
        if not -100.0 <= self.taker_bps <= 1000.0:
            raise ValueError(f"taker_bps of {self.symbol} must lie in [-100, 1000], was {self.taker_bps}")
        if not 0.0 <= self.slippage < math.inf:
            raise ValueError(f"slippage of {self.symbol} must not be negative, was {self.slippage}")
        for name, positive in (("splits", True), ("dividends", False)):
            rows = getattr(self, name)
            if any(not math.isfinite(value) or (positive and value <= 0.0) for _, value in rows):
                raise ValueError(f"{name} of {self.symbol} must be {'positive and ' * positive}finite, were {rows}")
            _refuse_disorder(np.array([time for time, _ in rows], dtype=np.int64), f"{name} of {self.symbol}")
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

    def units(self, times: Ints) -> Floats:
        """How many units one unit of the start has become before each of `times`. (N,) -> (N,)"""
        ratios = np.array([1.0, *(ratio for _, ratio in self.splits)])  # (S + 1,)
        done = np.searchsorted(np.array([time for time, _ in self.splits], dtype=np.int64), times, side="left")
        return np.cumprod(ratios)[done]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A price model that spoke in the run, and what it had seen before. Times are naive UTC."""

    name: str
    digest: str
    start: datetime | None  # close of the first bar that it was trained on; None: not known
    end: datetime | None  # of the last one; None: not known, and start neither
    guard_end: datetime | None  # the last moment that counts as in sample, embargo included

    def __post_init__(self) -> None:
        start, end, guard_end = (time is not None for time in (self.start, self.end, self.guard_end))
        if end != guard_end or (start and not end):
            raise ValueError(f"want the training window of {self.name} whole, its end alone, or none of it")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PriceModel:
    """The price models of a run, what they said, and what came."""

    checkpoints: tuple[Checkpoint, ...]
    halflife_bars: float  # of the lagged volatility that the models measure returns by
    # time, symbol, asof (close of the last bar seen), mean, volatility, q05, q25, q75, q95, entropy, surprise (NaN
    # where there is none); None: nothing was said
    forecasts: pa.Table | None
    closes: dict[str, tuple[Ints, Floats]]  # of each symbol's bars: when they closed, ns UTC, rising, and at what


@dataclass(frozen=True, slots=True, kw_only=True)
class VolatilityTarget:
    """What a strategy that sizes by volatility aims at."""

    strategy: str
    target: float  # annual standard deviation of what is allotted to it, at a full position in one symbol
    allocation: float  # of the account's equity
    by: str  # which volatility positions were sized by: "forecast" or "realised"


NEVER = datetime.min  # noqa: DTZ901 - before any time, and no time of the engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisor:
    """Who read the news of a run, and what it may have known already."""

    backend: str
    model_id: str
    learnt_until: datetime | None  # naive UTC; None: nobody says; NEVER: it has learnt nothing


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunRecord:
    """A finished run: tables, markets, and the words that a report needs.

    The equity table is in the currency of the account, fills are in that of their market.
    """

    title: str
    data: DataDescription
    costs: tuple[str, ...]  # a line each: fees, slippage, latency
    initial_cash: float  # currency of the account
    equity: pa.Table  # time, equity, cash, position_value, optionally gross_exposure; one row a mark
    # time, market_time, symbol, side, quantity, price, fee, order_id, liquidity, and where the venue tells what a
    # fill cost: base_fee (base units), decision_price, market_price, half_spread (quote currency a unit)
    fills: pa.Table
    markets: tuple[Market, ...]
    days_per_year: int  # 365 for markets that never close, 252 otherwise
    partial: bool = False  # the run ended before its planned end
    currency: str = "USD"  # of the account
    sample: str = "Not stated."  # what was fitted on which data, and what is out of sample
    trials: int = 1  # variants tried before this one; the Sharpe ratio is deflated for them
    facts: tuple[tuple[str, str], ...] = ()  # further (name, value) lines: config, code version, run id
    # time, strategy, symbol, side, quantity, price, fee, base_fee, order_id; None: one strategy did everything
    strategy_fills: pa.Table | None = None
    # time, symbol, amount (currency of the market, positive when received), kind: funding, borrow, interest, dividends
    flows: pa.Table | None = None
    model: PriceModel | None = None  # None: no price model spoke
    # Parts of the run that a price model was trained on, from and to, naive UTC, in order and apart.
    in_sample: tuple[tuple[datetime, datetime], ...] = ()
    targets: tuple[VolatilityTarget, ...] = ()  # of the strategies that size by volatility
    advisor: Advisor | None = None  # None: nobody read news

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
        instants = [time for part in self.in_sample for time in part]
        if instants != sorted(instants):
            raise ValueError(f"the parts in sample must be in order and apart, were {self.in_sample}")


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """The account through time. A mark holds until the next one."""

    times: Ints  # (N,) ns
    equity: Floats  # (N,)
    position_value: Floats  # (N,) signed
    gross: Floats | None  # (N,) sum of |position value|; None where it was not recorded


@dataclass(frozen=True, slots=True, eq=False)
class Flows:
    """Money that came or went without a trade, columns side by side."""

    times: Ints  # (C,) ns, engine
    places: Ints  # (C,) which of the record's markets
    amounts: Floats  # (C,) quote currency, positive when received

    def of(self, place: int) -> "Flows":
        """Those of one market."""
        own = self.places == place
        return Flows(self.times[own], self.places[own], self.amounts[own])


@dataclass(frozen=True, slots=True, eq=False)
class Fills:
    """The fills, columns side by side. Of which market and of whom are numbers: 200,000 names take a second."""

    times: Ints  # (F,) ns, engine
    market_times: Ints  # (F,) ns, where the market traded
    places: Ints  # (F,) which of the record's markets
    owners: Ints  # (F,) which of the names
    names: tuple[str | None, ...]  # of strategies; None: the account
    buys: npt.NDArray[np.bool_]  # (F,)
    quantities: Floats  # (F,) positive
    moved: Floats  # (F,) positive; what the position changed by: a fee in base units is taken out of it
    prices: Floats  # (F,)
    fees: Floats  # (F,) quote currency, fees in base units at the price of their fill; negative for a rebate
    decision_prices: Floats | None  # (F,) 0.0 where there was none; None: not recorded
    market_prices: Floats | None  # (F,) likewise
    half_spreads: Floats | None  # (F,) quote currency a unit

    def __len__(self) -> int:
        return len(self.times)

    @property
    def signs(self) -> Floats:
        """(F,) 1.0 for a buy, -1.0 for a sale."""
        return np.where(self.buys, 1.0, -1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Forecasts:
    """What the price models said of the next bar, columns side by side."""

    times: Ints  # (K,) ns, when it was said
    asof: Ints  # (K,) ns, close of the last bar seen
    rows: dict[str, Ints]  # those of each symbol
    mean: Floats  # (K,) log return
    volatility: Floats  # (K,) its standard deviation
    q05: Floats  # (K,) quantiles of the log return
    q25: Floats
    q75: Floats
    q95: Floats
    entropy: Floats  # (K,) bits, of the next bar's token
    surprise: Floats  # (K,) bits, of the last bar's token; NaN where it was not expected


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
        # Of int64 throughout: a list that is empty would make all of them floats, which are 128 ns apart today.
        np.concatenate([np.array([start][:head], np.int64), times, np.array([end][:tail], np.int64)]),
        np.concatenate([[record.initial_cash][:head], equity, equity[-1:][:tail]]),
        np.concatenate([[0.0][:head], position, position[-1:][:tail]]),
        None if gross is None else np.concatenate([[0.0][:head], gross, gross[-1:][:tail]]),
    )


def read_fills(record: RunRecord) -> Fills:
    """The fills of the account as arrays.

    Raises:
        ValueError: a column is missing or holds nulls or NaN, times decrease, a quantity or price is not positive, a
            side is neither BUY nor SELL, a symbol is none of the markets, or a fee takes more than was bought.
    """
    table = record.fills
    recorded = {name: _finite(table, name) for name in PRICE_COLUMNS if name in table.column_names}
    for name, values in recorded.items():
        if (values < 0.0).any():
            raise ValueError(f"{name} of a fill must not be negative, was {values.min()}")
    nobody = np.zeros(table.num_rows, dtype=np.int64)  # (F,)
    return _fills(record, table, _times(table, "market_time", ordered=False), nobody, (None,), recorded)


def read_strategy_fills(record: RunRecord) -> Fills | None:
    """The fills of the strategies as arrays; None where they are not told apart. Raises as `read_fills`."""
    table = record.strategy_fills
    if table is None:
        return None
    owners, names = _coded(table, "strategy")
    return _fills(record, table, _times(table, "time"), owners, tuple(names), {})


def read_flows(record: RunRecord) -> Flows | None:
    """The cash flows as arrays; None where they are not recorded.

    Raises:
        ValueError: a column is missing or holds nulls or NaN, times decrease, or a symbol is none of the markets.
    """
    table = record.flows
    if table is None:
        return None
    places = _places(record, *_coded(table, "symbol"), what="flows")
    return Flows(_times(table, "time"), places, _finite(table, "amount"))


def read_forecasts(model: PriceModel) -> Forecasts | None:
    """What the models said as arrays; None where they said nothing.

    Raises:
        ValueError: a column is missing or holds nulls or, but for surprise, NaN; times decrease; a volatility is
            negative.
    """
    table = model.forecasts
    if table is None or not table.num_rows:
        return None
    rows, symbols = _coded(table, "symbol")
    columns = {name: _finite(table, name) for name in FORECAST_COLUMNS}
    if (columns["volatility"] < 0.0).any():
        raise ValueError(f"volatility of a forecast must not be negative, was {columns['volatility'].min()}")
    surprise: Floats = _column(table, "surprise").cast(pa.float64()).to_numpy()
    return Forecasts(
        times=_times(table, "time"),
        asof=_times(table, "asof", ordered=False),
        rows={symbol: np.flatnonzero(rows == place) for place, symbol in enumerate(symbols)},
        surprise=surprise,
        **columns,
    )


def point_values(record: RunRecord) -> Floats:
    """What one unit of each market earns when its price rises by one, in the currency of the account. (M,)"""
    return np.array([market.multiplier * market.rate for market in record.markets])


def rates(record: RunRecord) -> Floats:
    """The currency of each market in that of the account. (M,)"""
    return np.array([market.rate for market in record.markets])


def _fills(
    record: RunRecord,
    table: pa.Table,
    market_times: Ints,
    owners: Ints,
    names: tuple[str | None, ...],
    recorded: dict[str, Floats],
) -> Fills:
    times = _times(table, "time")
    (symbol_rows, symbols), (side_rows, sides) = (_coded(table, name) for name in ("symbol", "side"))
    places = _places(record, symbol_rows, symbols, what="fills")
    if wrong := sorted(set(sides) - {"BUY", "SELL"}):
        raise ValueError(f"side of a fill must be BUY or SELL, was {wrong}")
    quantities, prices = (_finite(table, name) for name in ("quantity", "price"))
    for name, values in (("quantity", quantities), ("price", prices)):
        if (values <= 0.0).any():
            raise ValueError(f"{name} of a fill must be positive, was {values.min()}")
    buys = np.array([side == "BUY" for side in sides], dtype=np.bool_)[side_rows]  # (F,)
    fees, moved = _finite(table, "fee"), quantities
    if "base_fee" in table.column_names:
        base = _finite(table, "base_fee")
        multipliers = np.array([market.multiplier for market in record.markets])[places]  # (F,)
        fees = fees + base * prices * multipliers
        moved = np.where(buys, quantities - base, quantities + base)
        if (moved <= 0.0).any():
            raise ValueError(f"base_fee of a fill must leave some of it, was {base[moved <= 0.0][0]}")
    return Fills(
        times,
        market_times,
        places,
        owners,
        names,
        buys,
        quantities,
        moved,
        prices,
        fees,
        *(recorded.get(name) for name in PRICE_COLUMNS),
    )


def moment(time_ns: int) -> datetime:
    """Nanoseconds since 1970 as a naive UTC datetime, cut to microseconds."""
    instant: datetime = np.datetime64(int(time_ns), "ns").astype("datetime64[us]").item()
    return instant


def _places(record: RunRecord, rows: Ints, symbols: list[str], *, what: str) -> Ints:
    """Which of the markets each row is of. (F,) -> (F,)"""
    place = {market.symbol: row for row, market in enumerate(record.markets)}
    if unknown := sorted(set(symbols) - set(place)):
        raise ValueError(f"{what} must be of the markets of the run, were also of {unknown}")
    return np.array([place[symbol] for symbol in symbols], dtype=np.int64)[rows]


def _column(table: pa.Table, name: str) -> Any:
    if name not in table.column_names:
        raise ValueError(f"wanted a column {name!r}, was {table.column_names}")
    column = table[name]
    if column.null_count:
        raise ValueError(f"column {name!r} must not hold nulls, held {column.null_count}")
    return column


def _coded(table: pa.Table, name: str) -> tuple[Ints, list[str]]:
    """A column of words as row numbers of its different words, (F,), and these."""
    column = _column(table, name).cast(pa.string()).combine_chunks().dictionary_encode()
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.indices.to_numpy().astype(np.int64), column.dictionary.to_pylist()


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
