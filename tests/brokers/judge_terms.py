"""What the judge speaks of: orders, reports, and exact numbers."""

import math
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction

BPS = Fraction(1, 10_000)
HAIR = Fraction(1, 1_000_000)  # of a step: nearer to a whole number than that is meant as it


@dataclass(slots=True, eq=False)
class Order:
    order_id: str
    sign: int
    lots: int  # still open
    limit: int | None = None
    stop: int | None = None
    touch: bool = False
    trail: int | None = None
    trail_bps: float = 0.0
    immediate: bool = False
    whole: bool = False
    post_only: bool = False
    reduce_only: bool = False
    expires: datetime | None = None
    group: str = ""
    parent: str = ""
    replaces: str = ""
    sent: datetime = datetime.min  # noqa: DTZ901 - before every market
    decision: float = 0.0
    # What the engine knows about it.
    sequence: int = 0
    quantity: int = 0  # as asked for
    filled: int = 0  # with what the orders filled that it replaced
    taken: int = 0  # lots that its group took off it
    seen: bool = False  # it has been through a market event
    triggered: bool = False
    set_off: str = ""  # where in the running bar it was triggered: "open" or "inside"
    best: Fraction | None = None  # of a trailing stop
    queue: Fraction | None = None  # lots ahead of it; None: unknown, so endless
    in_event: list[tuple[int, str, Fraction]] = field(default_factory=list)  # its (lots, how, price) of this event
    owed: Fraction = Fraction(0)  # fee so far, before rounding
    charged: int = 0  # fee so far, in units
    owed_base: Fraction = Fraction(0)
    charged_base: int = 0

    @property
    def trails(self) -> bool:
        return self.trail is not None or self.trail_bps > 0.0

    @property
    def kind(self) -> str:
        """What it is now: a triggered order is a market or a limit order."""
        if self.triggered or (self.stop is None and not self.trails):
            return "market" if self.limit is None else "limit"
        if self.trails:
            return "trailing"
        if self.touch:
            return "touch"
        return "stop" if self.limit is None else "stop_limit"


@dataclass(frozen=True, slots=True)
class Execution:
    lots: int
    ticks: int
    maker: bool
    market: float
    half_spread: float


@dataclass(frozen=True, slots=True)
class Report:
    order: Order
    what: str
    execution: Execution | None
    code: str
    reason: str
    market_time: datetime | None
    lots: int  # left open


@dataclass(slots=True, eq=False)
class Offer:
    """Volume to be had at one price; `left` lots of it are left."""

    price: Fraction
    left: float
    volume: Fraction  # that it is a part of
    taken: int = 0


Book = tuple[list[Offer], list[Offer]]  # bids and asks, the best first


@dataclass(frozen=True, slots=True)
class Candle:
    open: Fraction
    high: Fraction
    low: Fraction
    close: Fraction


def exact(value: float) -> Fraction:
    """The decimal that `value` was written as."""
    return Fraction(repr(float(value)))


def whole_down(value: Fraction) -> int:
    nearest = round(value)
    return nearest if abs(value - nearest) < HAIR else math.floor(value)


def whole_up(value: Fraction) -> int:
    return -whole_down(-value)
