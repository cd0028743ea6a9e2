"""Market data of any kind as the trades of one symbol: arrays of time, price, size and side.

A bar becomes four trades: its open, then the extreme on the side that it turned back from, the other extreme, and its
close, a quarter of its length apart, which share its volume (four lots at least).
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from brokers.local_exchange.amounts import ATOMS, exact
from brokers.local_exchange.config import Listing
from feeds import synthetic
from feeds.errors import DataError
from feeds.files import Reader, Source
from feeds.synthetic import SyntheticConfig

_MS = 1_000_000  # nanoseconds

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Tape:
    """The trades of one symbol.

    Shapes: all (N,), N >= 1; times never fall.
    """

    time_ms: Ints  # from the first trade on, wall clock
    price: Ints  # 1e-8 of the quote currency, multiples of the tick
    size: Ints  # 1e-8 base units, multiples of the lot
    buyer_maker: Flags  # a seller has taken the buyer's order

    def __len__(self) -> int:
        return len(self.time_ms)


def tape(
    listing: Listing,
    time_s: Sequence[float] | Floats,
    price: Sequence[float] | Floats,
    size: Sequence[float] | Floats,
) -> Tape:
    """A tape from trades at hand.

    Args:
        listing: tick and lot, and the pace: `speed` or `trades_per_s`.
        time_s: seconds of data, never falling.
        price: quote currency. A trade takes the side to which the price has moved; the first one buys.
        size: base units.

    Raises:
        ValueError: lengths that differ, no trade, times that fall, or what is no positive number.
    """
    times, prices, sizes = (np.asarray(values, dtype=np.float64) for values in (time_s, price, size))
    if not len(times) == len(prices) == len(sizes) > 0:
        raise ValueError(f"want as many times, prices and sizes, was {len(times)}, {len(prices)} and {len(sizes)}")
    if not np.isfinite(times).all() or (np.diff(times) < 0.0).any():
        raise ValueError(f"the times of {listing.symbol} must be finite and never fall")
    for name, values in (("prices", prices), ("sizes", sizes)):
        if not (np.isfinite(values).all() and (values > 0.0).all()):
            raise ValueError(f"the {name} of {listing.symbol} must be positive and finite")
    ticks = _steps(prices, listing.tick)
    return Tape(
        time_ms=_paced(listing, np.rint((times - times[0]) * 1e9).astype(np.int64)),
        price=ticks,
        size=_steps(sizes, listing.lot),
        buyer_maker=_sold(ticks),
    )


def read(listing: Listing, seed: int) -> Tape:
    """The tape of a listing: its file, or an invented market.

    Raises:
        DataError: the file cannot be used.
        ValueError: no market can be invented on these steps.
    """
    parts = list(_invented(listing, seed) if not listing.data else _from_file(listing))
    if not parts:
        raise DataError(f"{listing.data} has no rows")
    time_ns, price, size = (np.concatenate(column) for column in zip(*parts, strict=True))
    return tape(listing, (time_ns - time_ns[0]) * 1e-9, price, size)


def _paced(listing: Listing, time_ns: Ints) -> Ints:
    """Nanoseconds of data as milliseconds of the wall clock."""
    if listing.trades_per_s is not None:
        return (np.arange(len(time_ns)) * (1000.0 / listing.trades_per_s)).astype(np.int64)
    if listing.gap_max_s is not None:
        time_ns = np.cumsum(np.minimum(np.diff(time_ns, prepend=time_ns[0]), int(listing.gap_max_s * 1e9)))
    return (time_ns / (listing.speed * _MS)).astype(np.int64)


def _steps(values: Floats, step: str) -> Ints:
    """The nearest multiples of a step, one at least, in 1e-8."""
    atoms = exact(step)
    steps = np.maximum(np.rint(values * (ATOMS / atoms)), 1.0)
    if steps.max() * atoms > 2**62:
        raise ValueError(f"want numbers below {2**62 / ATOMS:.0f}, was {values.max():g}")
    counted: Ints = steps.astype(np.int64) * atoms
    return counted


def _sold(price: Ints) -> Flags:
    """Which trades a seller began: those at a lower price than the last different one. Source: the tick rule, Lee &
    Ready, Journal of Finance 46(2), 1991."""
    moved = np.sign(np.diff(price, prepend=price[0]))
    last = np.maximum.accumulate(np.where(moved != 0, np.arange(len(price)), 0))
    sold: Flags = moved[last] < 0
    return sold


def _from_file(listing: Listing) -> Iterator[tuple[Ints, Floats, Floats]]:
    source = Source(
        path=listing.data, kind=listing.kind, bar=listing.bar, stamp=listing.stamp, time_zone="UTC", symbol=listing.id
    )
    reader = Reader(source)
    if reader.kind == "macro":
        raise DataError(f"{listing.data} holds a macro series; an exchange wants trades or bars")
    left = listing.rows
    for table in reader.tables():
        table = table.slice(0, left)
        left -= table.num_rows
        yield _of_bars(table, listing.lot) if reader.kind == "bars" else _of_trades(table)
        if left == 0:
            return


def _of_trades(table: pa.Table) -> tuple[Ints, Floats, Floats]:
    price, size = (table[name].to_numpy().astype(np.float64) for name in ("price", "size"))
    return _ns(table, "time"), price, size


def _of_bars(table: pa.Table, lot: str) -> tuple[Ints, Floats, Floats]:
    opened, known = _ns(table, "open_time"), _ns(table, "time")
    open_, high, low, close, volume = (
        table[name].to_numpy().astype(np.float64) for name in ("open", "high", "low", "close", "volume")
    )
    rose = close >= open_
    price = np.stack([open_, np.where(rose, low, high), np.where(rose, high, low), close], axis=1)  # (N, 4)
    time = opened[:, None] + (known - opened)[:, None] // 4 * np.arange(4)  # (N, 4)
    step = exact(lot) / ATOMS
    lots = np.maximum(np.rint(volume / step), 4.0)
    share = np.floor(lots / 4)
    size = np.stack([share, share, share, lots - 3 * share], axis=1) * step  # (N, 4)
    return time.reshape(-1), price.reshape(-1), size.reshape(-1)


def _ns(table: pa.Table, name: str) -> Ints:
    times: Ints = table[name].cast(pa.int64()).to_numpy()
    return times


def _invented(listing: Listing, seed: int) -> Iterator[tuple[Ints, Floats, Floats]]:
    config = SyntheticConfig(
        seed=seed + zlib.crc32(listing.symbol.encode()),
        rows=listing.rows,
        symbol=listing.id,
        gap_mean_s=listing.gap_mean_s if listing.trades_per_s is None else 1.0 / listing.trades_per_s,
        price=listing.price,
        volatility_year=listing.volatility_year,
        tick=listing.tick,
        lot=listing.lot,
        spread_ticks=float(listing.spread_ticks),
        size_mean=listing.size_mean,
    )
    for table in synthetic.trade_tables(config):
        yield _of_trades(table)
