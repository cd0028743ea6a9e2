"""The market of one symbol: what has traded, and what may be read from it.

One array of trades is past and future: those before `emitted` have happened, the others will, at their times. Trades
by id, bars, the book and the day's figures are all read from it, so that they agree with what the streams said.

The book is invented around the last trade: the best price on the side that was hit is the trade's, the other lies
`spread_ticks` away, and the levels behind are a tick apart. Their sizes follow from the seed, the price and the number
of trades so far.
"""

from typing import NamedTuple

import numpy as np

from brokers.local_exchange.amounts import exact
from brokers.local_exchange.config import Listing
from brokers.local_exchange.tape import Ints, Tape

AGGREGATE_OFFSET = 1_000_000  # of the ids of aggregate trades, which are other ids than those of trades
LEVELS = 20  # a side
INTERVALS_MS = {
    "1s": 1_000,
    "1m": 60_000,
    "3m": 180_000,
    "5m": 300_000,
    "15m": 900_000,
    "30m": 1_800_000,
    "1h": 3_600_000,
    "2h": 7_200_000,
    "4h": 14_400_000,
    "6h": 21_600_000,
    "8h": 28_800_000,
    "12h": 43_200_000,
    "1d": 86_400_000,
}
DAY_MS = 86_400_000

_MASK = 2**64 - 1
_CALM = 5  # a level keeps its size for 2**5 trades
_LOW = 2**32 - 1


class Traded(NamedTuple):
    """One trade; money and quantity in 1e-8."""

    id: int  # from 1
    price: int
    size: int
    time_ms: int
    buyer_maker: bool


class Quote(NamedTuple):
    """The best bid and ask, in 1e-8, after `version` trades."""

    bid: int
    bid_size: int
    ask: int
    ask_size: int
    version: int


class Depth(NamedTuple):
    """Levels as (price, size) in 1e-8, the best first, after `version` trades."""

    bids: tuple[tuple[int, int], ...]
    asks: tuple[tuple[int, int], ...]
    version: int


class Kline(NamedTuple):
    """One bar, in 1e-8; `quote_volume` in 1e-16."""

    open_ms: int
    close_ms: int  # its last millisecond
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote_volume: int
    first_id: int  # -1 where nothing traded
    last_id: int
    trades: int
    buy_volume: int  # of what buyers took
    buy_quote_volume: int


class Market:
    """One symbol.

    Args:
        now_ms: the wall clock at the start; what the tape has before it has already happened.
    """

    def __init__(self, listing: Listing, tape: Tape, seed: int, now_ms: int) -> None:
        self.listing = listing
        self.id = listing.id
        self._tape = tape
        self._time: Ints = tape.time_ms + (now_ms - round(listing.history_s * 1000))
        self._price, self._size, self._buyer_maker = tape.price, tape.size, tape.buyer_maker
        self._seed = seed
        self._tick, self._lot = exact(listing.tick), exact(listing.lot)
        self._level_lots = max(1, round(float(tape.size.mean()) / self._lot * listing.level_trades))
        self.emitted = 0  # how many trades have happened
        if listing.loop:
            self._repeat(max(0, now_ms - int(self._time[-1])) // self._period_ms + 1)
        self.emitted = int(np.searchsorted(self._time, now_ms, "left"))

    @property
    def next_ms(self) -> int | None:
        """When the next trade is due, wall clock; None: the tape has ended."""
        return int(self._time[self.emitted]) if self._ensure(1) else None

    @property
    def last_price(self) -> int:
        """Of the last trade, in 1e-8; before the first, its price."""
        return int(self._price[max(self.emitted - 1, 0)])

    def emit(self) -> Traded:
        """Let the next trade happen. Raises IndexError where the tape has ended."""
        if not self._ensure(1):
            raise IndexError(f"the tape of {self.id} has ended after {self.emitted} trades")
        self.emitted += 1
        return self.trade(self.emitted)

    def pull(self, count: int, now_ms: int) -> int:
        """Make the next `count` trades due at once, and those after them as much earlier; return how many there are."""
        count = self._ensure(count)
        if count == 0:
            return 0
        first, after = self.emitted, self.emitted + count
        early = int(self._time[after - 1]) - now_ms
        if early > 0:
            self._time[after:] -= early
            self._time[first:after] = max(now_ms, int(self._time[first - 1]) if first else now_ms)
        return count

    def trade(self, trade_id: int) -> Traded:
        """A trade that has happened, by its id."""
        i = trade_id - 1
        return Traded(trade_id, int(self._price[i]), int(self._size[i]), int(self._time[i]), bool(self._buyer_maker[i]))

    def trades(self, first_id: int, limit: int) -> list[Traded]:
        """Trades that have happened, from `first_id` on."""
        first_id = max(first_id, 1)
        return [self.trade(i) for i in range(first_id, min(first_id + limit, self.emitted + 1))]

    def first_id_at(self, time_ms: int) -> int:
        """The id of the first trade at or after a time; the next to come where there is none."""
        return int(np.searchsorted(self._time[: self.emitted], time_ms, "left")) + 1

    def quote(self) -> Quote:
        """The best bid and ask now."""
        bid, ask = self._inside()
        return Quote(bid, self._level(bid, 0), ask, self._level(ask, 1), self.emitted)

    def depth(self, levels: int = LEVELS) -> Depth:
        """The book now, at most 20 levels a side."""
        bid, ask = self._inside()
        count = min(levels, LEVELS)
        down = range(bid, 0, -self._tick)[:count]
        up = range(ask, ask + count * self._tick, self._tick)
        return Depth(
            tuple((price, self._level(price, 0)) for price in down),
            tuple((price, self._level(price, 1)) for price in up),
            self.emitted,
        )

    def klines(self, interval: str, start_ms: int | None, end_ms: int | None, limit: int, now_ms: int) -> list[Kline]:
        """Bars that have opened, the last one perhaps unfinished; where nothing traded, the last price.

        Args:
            start_ms, end_ms: of the opening times, both included; without a start the latest bars.
        """
        length = INTERVALS_MS[interval]
        if self.emitted == 0:
            return []
        first = int(self._time[0]) // length
        last = min(now_ms, now_ms if end_ms is None else end_ms) // length
        if start_ms is None:
            first = max(first, last - limit + 1)
        else:
            first = max(first, -(-start_ms // length))
            last = min(last, first + limit - 1)
        return self._bars(first, last, length) if last >= first else []

    def day(self, now_ms: int) -> Kline:
        """The last 24 hours as one bar. Wants a trade to have happened."""
        opened = now_ms - DAY_MS
        first = int(np.searchsorted(self._time[: self.emitted], opened, "left"))
        return self._bar(opened, now_ms, first, self.emitted)

    def _ensure(self, count: int) -> int:
        """How many of the next `count` trades there are; a tape that repeats has them all."""
        missing = self.emitted + count - len(self._time)
        if missing > 0 and self.listing.loop:
            self._repeat(-(-missing // len(self._tape)))
        return min(count, len(self._time) - self.emitted)

    @property
    def _period_ms(self) -> int:
        """How long the tape is, with as much silence at its end as between its trades in the mean."""
        span = int(self._tape.time_ms[-1])
        return span + (max(1, span // (len(self._tape) - 1)) if span else 1000)

    def _repeat(self, times: int) -> None:
        tape, period = self._tape, self._period_ms
        start = int(self._time[-1]) - int(tape.time_ms[-1]) + period
        self._time = np.concatenate([self._time, *(tape.time_ms + start + k * period for k in range(times))])
        self._price = np.concatenate([self._price, np.tile(tape.price, times)])
        self._size = np.concatenate([self._size, np.tile(tape.size, times)])
        self._buyer_maker = np.concatenate([self._buyer_maker, np.tile(tape.buyer_maker, times)])

    def _inside(self) -> tuple[int, int]:
        """The best bid and ask; before the first trade, around its price."""
        i = max(self.emitted - 1, 0)
        price, spread = int(self._price[i]), self.listing.spread_ticks * self._tick
        if self._buyer_maker[i] or price <= spread:
            return price, price + spread
        return price - spread, price

    def _level(self, price: int, side: int) -> int:
        drawn = _mixed(self._seed ^ (price * 2 + side))
        drawn = _mixed(drawn ^ ((self.emitted + drawn % 2**_CALM) >> _CALM))
        return (1 + drawn % (2 * self._level_lots)) * self._lot

    def _bars(self, first: int, last: int, length: int) -> list[Kline]:
        edges = np.arange(first, last + 2) * length
        cuts = np.searchsorted(self._time[: self.emitted], edges, "left").tolist()
        return [
            self._bar(opened, opened + length - 1, low, high)
            for opened, low, high in zip(edges[:-1].tolist(), cuts[:-1], cuts[1:], strict=True)
        ]

    def _bar(self, open_ms: int, close_ms: int, low: int, high: int) -> Kline:
        """The trades [low, high) as a bar."""
        if low == high:
            price = int(self._price[max(low - 1, 0)])
            return Kline(open_ms, close_ms, price, price, price, price, 0, 0, -1, -1, 0, 0, 0)
        prices, sizes = self._price[low:high], self._size[low:high]
        bought = ~self._buyer_maker[low:high]
        return Kline(
            open_ms,
            close_ms,
            int(prices[0]),
            int(prices.max()),
            int(prices.min()),
            int(prices[-1]),
            _sum(sizes),
            _sum_of_products(prices, sizes),
            low + 1,
            high,
            high - low,
            _sum(sizes[bought]),
            _sum_of_products(prices[bought], sizes[bought]),
        )


def _mixed(value: int) -> int:
    """A number of 64 bits that looks drawn at random. Source: splitmix64 (Steele, Lea & Flood, OOPSLA 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _sum(values: Ints) -> int:
    """Exactly, also beyond 63 bits."""
    return (int((values >> 32).sum()) << 32) + int((values & _LOW).sum())


def _sum_of_products(left: Ints, right: Ints) -> int:
    """Exactly: products of two numbers below 2**62 do not fit 64 bits."""
    high, low = left >> 32, left & _LOW
    upper, lower = right >> 32, right & _LOW
    return (
        (_sum_wide(high, upper) << 64)
        + ((_sum_wide(high, lower) + _sum_wide(low, upper)) << 32)
        + _sum_wide(low, lower)
    )


def _sum_wide(left: Ints, right: Ints) -> int:
    products = left.astype(np.uint64) * right.astype(np.uint64)
    return (int((products >> np.uint64(32)).sum()) << 32) + int((products & np.uint64(_LOW)).sum())
