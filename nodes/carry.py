"""What holding a position costs or earns while nothing trades: funding of perpetuals, borrow of short sales.

The flows are for `portfolio(flow=...)`. Positions come back from there by feedback, so in the cycle of a fill they are
those before it.
"""

import math
from datetime import datetime, timedelta
from fractions import Fraction

import csp
from csp import ts

from brokers.events import CashFlow
from brokers.ledger import Contract
from brokers.units import exactly
from feeds.instruments import Instrument
from feeds.streams import SETTLE
from nodes.events import PositionUpdate

_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)
_YEAR = 365 * _DAY // _MICROSECOND  # of actual/365
_BPS_MAX = 1_000_000.0  # 10,000 % a year: dearer shares cannot be borrowed


def market_value(contract: Contract, units: int, price: float) -> Fraction:
    """Value of `units` at `price`, quanta, signed like `units`. The price may lie off the tick."""
    return units * (exactly(price) / contract.ticks.step) * contract.value_per_tick_unit


def funding_payment(contract: Contract, units: int, price: float, rate: float) -> int:
    """What a perpetual's position receives at one funding time, quanta: -value × rate, rounded half up to the
    currency's unit. At a positive rate longs pay.

    Args:
        units: held, signed.
        price: the mark price, quote currency.
        rate: of this interval, a fraction.

    Source: BitMEX, Perpetual Contracts Guide: funding amount = mark value × funding rate; where it is positive the long
        pays and the short receives.
    """
    return contract.denomination.rounded(-market_value(contract, units, price) * exactly(rate))


def borrow_cost(contract: Contract, units: int, price: float, borrow_bps: float, held: timedelta) -> Fraction:
    """What it costs to have been short for so long, quanta, not rounded: value × bps / 10,000 × held / 365 days.
    Nothing for a long position.

    Args:
        units: held, signed.
        price: quote currency.
        borrow_bps: a year.

    Source: actual/365 (fixed), ISDA Definitions 2006, section 4.16(d).
    """
    if units >= 0:
        return Fraction(0)
    value = -market_value(contract, units, price)
    return value * exactly(borrow_bps) * (held // _MICROSECOND) / (10_000 * _YEAR)


def midnight_from(now: datetime) -> datetime:
    """The first UTC midnight that is not before `now`."""
    day = datetime(now.year, now.month, now.day)
    return day if day == now else day + _DAY


@csp.node
def funding(rate: ts[float], position: ts[PositionUpdate], close: ts[float], instrument: Instrument) -> ts[CashFlow]:
    """Pay or receive the funding of a perpetual.

    Args:
        rate: funding rate of the interval that ends, a fraction; it ticks at the funding time.
        position: of this symbol; passive.
        close: last mark or close, quote currency; passive. Before the first one the position counts at what it cost.

    Ticks:
        "funding" with each rate that moves money.

    Raises:
        ValueError: a rate or price that is not finite.
    """
    with csp.state():
        s_contract = Contract(instrument)
    with csp.start():
        csp.make_passive(position)
        csp.make_passive(close)

    if csp.ticked(rate):
        if not -math.inf < rate < math.inf:
            raise ValueError(f"funding rate of {instrument.symbol} must be finite, was {rate} at {csp.now()}")
        if csp.valid(position) and position.quantity:
            price = close if csp.valid(close) else position.average_price
            received = funding_payment(s_contract, s_contract.units.exact(position.quantity), price, rate)
            if received:
                return CashFlow(symbol=instrument.symbol, amount=s_contract.money(received), kind="funding")


@csp.node
def borrow(position: ts[PositionUpdate], close: ts[float], borrow_bps: float, instrument: Instrument) -> ts[CashFlow]:
    """Pay for the shares that a short position has borrowed.

    The cost accrues over each interval in which the position stayed the same, at the price at its end. It is charged
    at midnight UTC: what has accrued by then in all, rounded half up to the currency's unit, less what was charged
    before; so cents are not lost a day at a time. The midnight is armed by a new short position, and after it by the
    next price: where prices pause, over a weekend, the days are charged together at the next midnight.

    Args:
        position: of this symbol.
        close: last price, quote currency; wakes the node once a day. Before the first one the position counts at what
            it cost.
        borrow_bps: a year, of the market value that is short.

    Ticks:
        "borrow", a microsecond after a midnight when a price of that instant is in, unless it comes to nothing. What
        has accrued since the last midnight is not charged when a run ends.

    Raises:
        ValueError: `borrow_bps` lies outside [0, 1000000], or a price is not finite.
    """
    with csp.alarms():
        a_midnight = csp.alarm(datetime)
    with csp.state():
        s_contract = Contract(instrument)
        s_units = 0
        s_price = 0.0  # what the units cost
        s_since = datetime.min  # noqa: DTZ901 - of the interval that runs
        s_due = Fraction(0)  # quanta, accrued and not charged
        s_armed = False
    with csp.start():
        if not 0.0 <= borrow_bps <= _BPS_MAX:
            raise ValueError(f"borrow_bps of {instrument.symbol} must lie in [0, {_BPS_MAX:.0f}], was {borrow_bps}")
        csp.make_passive(close)

    if csp.ticked(a_midnight):
        price = close if csp.valid(close) else s_price
        s_due += borrow_cost(s_contract, s_units, price, borrow_bps, a_midnight - s_since)
        s_since = a_midnight
        s_armed = False
        charged = -s_contract.denomination.rounded(-s_due)
        s_due -= charged
        if s_units < 0:
            csp.make_active(close)
        if charged:
            csp.output(CashFlow(symbol=instrument.symbol, amount=-s_contract.money(charged), kind="borrow"))
    if csp.ticked(position):
        price = close if csp.valid(close) else s_price
        s_due += borrow_cost(s_contract, s_units, price, borrow_bps, csp.now() - s_since)
        s_since = csp.now()
        s_units = s_contract.units.exact(position.quantity)
        s_price = position.average_price
        if s_units >= 0:
            csp.make_passive(close)
    # A position that was closed today may still owe for today.
    if (s_units < 0 or s_due) and not s_armed and csp.ticked(position, close):
        s_armed = True
        csp.make_passive(close)
        midnight = midnight_from(csp.now())
        csp.schedule_alarm(a_midnight, midnight + SETTLE, midnight)
