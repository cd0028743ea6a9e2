"""An order at the simulated venue, what becomes of it, and whether a price is one that it waits for."""

import math
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import NamedTuple, Protocol

from brokers.units import Steps


class Kind(Enum):
    """What an order acts as. What triggers becomes a MARKET or a LIMIT."""

    MARKET = 1
    LIMIT = 2
    STOP = 3
    STOP_LIMIT = 4
    TRAILING = 5
    TOUCH = 6


MARKET, LIMIT, STOP, STOP_LIMIT, TRAILING, TOUCH = Kind


class Home(Protocol):
    """Where an order waits for its next event."""

    def drop(self, order: "Order") -> None:
        """`order` leaves before its event comes."""


@dataclass(slots=True, eq=False, kw_only=True)
class Order:
    """An order at the venue. Prices in ticks, quantities in lots."""

    order_id: str
    sign: int  # +1 buys, -1 sells
    lots: int  # still open; 0 when the order has ended
    sent: datetime  # engine time at the strategy
    limit: int | None = None
    stop: int | None = None  # trigger
    touch: bool = False  # the trigger is that of a market-if-touched order
    trail: int | None = None  # distance of a trailing stop
    trail_bps: float = 0.0  # the same as a part of the best price
    immediate: bool = False  # IOC or FOK
    whole: bool = False  # FOK
    post_only: bool = False
    reduce_only: bool = False
    expires: datetime | None = None
    group: str = ""
    parent: str = ""
    replaces: str = ""
    decision: float = 0.0  # the last price when it was sent, quote currency

    # The rest belongs to the book.
    sequence: int = field(default=0, init=False, repr=False)
    kind: Kind = field(default=MARKET, init=False, repr=False)
    quantity: int = field(default=0, init=False, repr=False)  # as submitted; of a child at most what its parent filled
    filled: int = field(default=0, init=False, repr=False)  # and by what it replaces
    woken: int = field(default=0, init=False, repr=False)  # filled by the parent
    asleep: int = field(default=0, init=False, repr=False)  # of `lots`: may not fill yet
    seen: bool = field(default=False, init=False, repr=False)  # has had its first market event
    trailed: int | None = field(default=None, init=False, repr=False)  # best price so far of a trailing stop
    queue: float = field(default=math.inf, init=False, repr=False)  # lots ahead of it at its price
    home: "Home | None" = field(default=None, init=False, repr=False)
    filed: int = field(default=0, init=False, repr=False)  # under which key, at home
    turns: int = field(default=0, init=False, repr=False)  # bits of the phases of this bar it has a turn in
    fresh: int = field(default=0, init=False, repr=False)  # lots woken in this bar
    entry: "Entry | None" = field(default=None, init=False, repr=False)  # how they were woken
    fee_total: int = field(default=0, init=False, repr=False)
    fee_paid: int = field(default=0, init=False, repr=False)


class Entry(NamedTuple):
    """The execution of a parent that woke lots of a child inside a bar."""

    sign: int
    market: float  # price, quote currency
    at_open: bool
    by_stop: bool  # a taker at its stop, so what lies beyond came after it
    older: bool  # the child had lots awake before


class Execution(NamedTuple):
    """What an order got at once."""

    lots: int
    ticks: int
    maker: bool
    market: float  # price before spread and slippage, quote currency
    half_spread: float  # quote currency a unit, what a taker paid of it


class Report(NamedTuple):
    """What has become of an order.

    `what` is accepted, filled, triggered, reduced, cancelled, expired or rejected. `code` is stable, `reason` a
    sentence; both are "" where there is nothing to explain.
    """

    order: Order
    what: str
    execution: Execution | None = None
    code: str = ""
    reason: str = ""
    market_time: datetime | None = None  # of a fill and of a trigger: when the market was there
    lots: int = 0  # of the order still open after this; 0 when it has ended


class Near(NamedTuple):
    """A price between ticks: the one not above it and the one not below it; both the same on a tick."""

    down: int
    up: int


def known(ticks: int | None) -> int:
    """A price that an order of its kind has."""
    assert ticks is not None
    return ticks


def near(steps: Steps, price: float) -> Near:
    """`price` in ticks; within a millionth of a tick it counts as on it."""
    down = steps.down(price)
    return Near(down, down if steps.value(down) == price else steps.up(price))


def beyond(sign: int, price: Near, limit: int) -> bool:
    """Whether `price` is strictly better than the limit of an order of `sign`: the market has traded through it."""
    return price.down < limit if sign > 0 else price.up > limit


def within(sign: int, price: Near, limit: int) -> bool:
    """Whether `price` is at or better than the limit; or at or through the trigger of a market-if-touched order."""
    return price.up <= limit if sign > 0 else price.down >= limit


def stopped(sign: int, price: Near, stop: int) -> bool:
    """Whether `price` is at or through a stop."""
    return price.down >= stop if sign > 0 else price.up <= stop


def trail_stop(order: Order) -> int:
    """Where a trailing stop stands. Its best price is known."""
    best = order.trailed
    assert best is not None
    distance = order.trail
    if distance is None:  # a hair above a whole number of ticks counts as it
        distance = math.ceil(best * order.trail_bps / 10_000 - 1e-6)
    distance = max(1, distance)
    return best + order.sign * distance


def trail(order: Order, price: Near) -> None:
    """Let a trailing stop know of a price."""
    if order.sign > 0:
        order.trailed = price.up if order.trailed is None else min(order.trailed, price.up)
    else:
        order.trailed = price.down if order.trailed is None else max(order.trailed, price.down)
