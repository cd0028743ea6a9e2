"""What each market stream says, and when.

Pulses come ten times a second; trades and quotes do not wait for them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from brokers.local_exchange import messages
from brokers.local_exchange.market import INTERVALS_MS, Depth, Market

if TYPE_CHECKING:
    from brokers.local_exchange.streams import Socket

_SECOND = 10  # pulses
_BAR = 3  # pulses between two updates of an unfinished bar

Levels = dict[int, int]  # price -> size; 0: gone


class Pulse(NamedTuple):
    """A moment to speak."""

    number: int
    wall_ms: int
    now_ms: int  # the exchange's clock
    book: Depth
    bids: Levels  # what has changed since the last pulse
    asks: Levels


class Channel:
    """One stream and who listens to it. This one speaks only when it is spoken through: trade, aggTrade, bookTicker."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.listeners: dict[Socket, None] = {}

    def tell(self, message: str) -> None:
        """One message to all."""
        for socket in self.listeners:
            socket.send(message)

    def pulse(self, pulse: Pulse) -> None:
        """Say what there is to say."""


class Bars(Channel):
    """kline_INTERVAL: the current bar now and then, each bar once when it is over."""

    def __init__(self, market: Market, interval: str) -> None:
        super().__init__(market)
        self._interval = interval
        self._open_ms: int | None = None
        self._told = -1

    def pulse(self, pulse: Pulse) -> None:
        length = INTERVALS_MS[self._interval]
        current = pulse.wall_ms // length * length
        if self._open_ms is None:
            self._open_ms = current
        if self._open_ms < current:
            for bar in self.market.klines(self._interval, self._open_ms, current - 1, 1000, pulse.wall_ms):
                self.tell(messages.kline(self.market, self._interval, bar, True, pulse.now_ms))
            self._open_ms, self._told = current, -1
        if pulse.number % _BAR == 0 and self._told != self.market.emitted:
            self._told = self.market.emitted
            for bar in self.market.klines(self._interval, current, None, 1, pulse.wall_ms):
                self.tell(messages.kline(self.market, self._interval, bar, False, pulse.now_ms))


class Changes(Channel):
    """depth: what has changed in the book, gathered over `every` pulses."""

    def __init__(self, market: Market, every: int, book: Depth) -> None:
        super().__init__(market)
        self._every = every
        self._told = book.version
        self._bids: Levels = {}
        self._asks: Levels = {}

    def pulse(self, pulse: Pulse) -> None:
        self._bids |= pulse.bids
        self._asks |= pulse.asks
        if pulse.number % self._every == 0 and (self._bids or self._asks):
            version = pulse.book.version
            self.tell(
                messages.depth_update(
                    self.market, self._told + 1, version, self._bids.items(), self._asks.items(), pulse.now_ms
                )
            )
            self._told = version
            self._bids, self._asks = {}, {}


class Top(Channel):
    """depth5, depth10, depth20: the first levels, whole."""

    def __init__(self, market: Market, levels: int, every: int) -> None:
        super().__init__(market)
        self._levels, self._every = levels, every
        self._told = -1

    def pulse(self, pulse: Pulse) -> None:
        if pulse.number % self._every == 0 and self._told != pulse.book.version:
            self._told = pulse.book.version
            self.tell(messages.dumped(messages.depth(pulse.book, self._levels)))


class Day(Channel):
    """ticker and miniTicker: the last 24 hours."""

    def __init__(self, market: Market, mini: bool) -> None:
        super().__init__(market)
        self._message = messages.mini_ticker if mini else messages.ticker
        self._told = -1

    def pulse(self, pulse: Pulse) -> None:
        if pulse.number % _SECOND == 0 and self.market.emitted != self._told and self.market.emitted:
            self._told = self.market.emitted
            self.tell(self._message(self.market, self.market.day(pulse.wall_ms), pulse.now_ms))


def channel(market: Market, stream: str, book: Depth) -> Channel:
    """The stream of a market by what follows its "@".

    Raises:
        ValueError: there is none of that name.
    """
    name, _, rate = stream.partition("@")
    if rate not in ("", "100ms", "1000ms") or (rate and not name.startswith("depth")):
        raise ValueError(f"Invalid request: invalid stream {stream}")
    every = 1 if rate == "100ms" else _SECOND
    if name in ("trade", "aggTrade", "bookTicker"):
        return Channel(market)
    if name.startswith("kline_") and name[6:] in INTERVALS_MS:
        return Bars(market, name[6:])
    if name == "depth":
        return Changes(market, every, book)
    if name in ("depth5", "depth10", "depth20"):
        return Top(market, int(name[5:]), every)
    if name in ("ticker", "miniTicker"):
        return Day(market, mini=name == "miniTicker")
    raise ValueError(f"Invalid request: invalid stream {stream}")


def changes(old: Depth, new: Depth) -> Iterator[Levels]:
    """Bids and asks that are not as they were; a level that has gone has a size of 0."""
    for before, after in ((dict(old.bids), dict(new.bids)), (dict(old.asks), dict(new.asks))):
        gone = {price: 0 for price in before if price not in after}
        yield gone | {price: size for price, size in after.items() if before.get(price) != size}
