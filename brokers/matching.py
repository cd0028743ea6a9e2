"""When and at what price a simulated order fills. Pure rules on integers of ticks and lots; the venue keeps the clock.

The rules, chosen so that a backtest errs on the side of the market:

- A market order takes the next price: the open of the next bar, or the next trade, plus slippage.
- A limit order fills only when the market trades *through* its price, not when it touches it. It fills at its limit,
  or at the open where the market gapped past it.
- Slippage in basis points is `slippage_bps + impact_bps * share**2`, where `share` is the part of the bar's or
  trade's volume that the order takes (the shape is that of the volume-share model of Zipline). It is then rounded
  to the tick against the order, and never makes a limit order worse than its limit.
- With `participation_max` set, all orders together take at most that share of the volume; the rest waits.
"""

import math
from dataclasses import dataclass
from datetime import datetime

from brokers.ledger import Contract

_BPS = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class FillModel:
    """What trading costs beyond the fee."""

    slippage_bps: float = 1.0  # always paid by a taker
    impact_bps: float = 0.0  # paid in addition, times the square of the volume share
    participation_max: float | None = None  # share of volume; None: any size fills, also where volume is unknown

    def __post_init__(self) -> None:
        for name in ("slippage_bps", "impact_bps"):
            if not 0.0 <= getattr(self, name) < 10_000.0:
                raise ValueError(f"{name} must lie in [0, 10000), was {getattr(self, name)}")
        if self.participation_max is not None and not 0.0 < self.participation_max <= 1.0:
            raise ValueError(f"participation_max must lie in (0, 1], was {self.participation_max}")


@dataclass(slots=True)
class RestingOrder:
    """An order at the venue."""

    order_id: str
    sign: int  # +1 buys, -1 sells
    lots: int  # still open, positive
    limit_ticks: int | None  # None: a market order
    sent: datetime  # engine time at which the strategy sent it
    seen_market: bool = False  # it has rested through at least one market event


@dataclass(frozen=True, slots=True)
class Execution:
    lots: int
    ticks: int
    maker: bool


def capacity(volume_lots: float, model: FillModel) -> float:
    """How many lots all orders together may take from `volume_lots`; may be infinite."""
    if model.participation_max is None:
        return math.inf
    return math.floor(model.participation_max * volume_lots)


def taker_ticks(
    price: float, order: RestingOrder, lots: int, volume_lots: float, contract: Contract, model: FillModel
) -> int:
    """The tick at which a taker fills around `price`, slipped and rounded against the order, kept within its limit."""
    share = min(1.0, lots / volume_lots) if volume_lots > 0.0 else 0.0
    slip = (model.slippage_bps + model.impact_bps * share * share) * _BPS
    if order.sign > 0:
        ticks = contract.ticks.up(price * (1.0 + slip))
        return ticks if order.limit_ticks is None else min(ticks, order.limit_ticks)
    ticks = max(1, contract.ticks.down(price * (1.0 - slip)))
    return ticks if order.limit_ticks is None else max(ticks, order.limit_ticks)


def match_bar(
    order: RestingOrder,
    open_: float,
    high: float,
    low: float,
    volume_lots: float,
    available_lots: float,
    contract: Contract,
    model: FillModel,
) -> Execution | None:
    """What `order` gets from one bar that opened no earlier than the order was sent.

    Args:
        volume_lots: the bar's volume; 0.0 where unknown, then the order's share of it counts as 0.
        available_lots: what the participation cap has left, see `capacity`.
    """
    lots = int(min(order.lots, available_lots))
    if lots <= 0:
        return None
    limit = order.limit_ticks
    if limit is None:
        return Execution(lots, taker_ticks(open_, order, lots, volume_lots, contract, model), maker=False)
    value = contract.ticks.value(limit)
    if (open_ - value) * order.sign < 0.0:
        if order.seen_market:  # it rested, and the market gapped over it: the open is its price
            ticks = contract.ticks.up(open_) if order.sign > 0 else contract.ticks.down(open_)
            return Execution(lots, ticks, maker=True)
        return Execution(lots, taker_ticks(open_, order, lots, volume_lots, contract, model), maker=False)
    if (low < value) if order.sign > 0 else (high > value):
        return Execution(lots, limit, maker=True)
    return None


def match_trade(
    order: RestingOrder, price: float, size_lots: float, available_lots: float, contract: Contract, model: FillModel
) -> Execution | None:
    """What `order` gets from one trade that came after the order arrived."""
    lots = int(min(order.lots, available_lots))
    if lots <= 0:
        return None
    if order.limit_ticks is not None:
        if (price - contract.ticks.value(order.limit_ticks)) * order.sign >= 0.0:
            return None
        if order.seen_market:
            return Execution(lots, order.limit_ticks, maker=True)
    return Execution(lots, taker_ticks(price, order, lots, size_lots, contract, model), maker=False)
