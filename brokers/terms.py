"""What a venue makes of a request: ticks and lots, a trigger, an end; or a refusal with a code and a sentence."""

import math
from datetime import datetime

from brokers.events import NEVER, OrderRequest, OrderType, TimeInForce
from brokers.ledger import Contract
from brokers.matching import Order
from feeds.events import Side
from feeds.instruments import Instrument
from feeds.sessions import SessionClock

Refusal = tuple[str, str]  # a stable code and a sentence

_BUY = Side.BUY
_MARKET, _LIMIT, _STOP_LIMIT = OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_LIMIT
_TRAILING, _TOUCHED = OrderType.TRAILING_STOP, OrderType.MARKET_IF_TOUCHED
_GTC, _IOC, _FOK = TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK
_DAY, _GTD = TimeInForce.DAY, TimeInForce.GTD
_LIMITED = (_LIMIT, _STOP_LIMIT)
_TRIGGERED = (OrderType.STOP, _STOP_LIMIT, _TOUCHED)


class Translator:
    """Turns requests for one instrument into orders of the matching engine.

    Quantities are rounded down to the lot. Prices are rounded to the tick, never in the order's favour: a buyer's limit
    and touch price down and its stop up, a seller's the other way; a trailing distance up.
    """

    __slots__ = ("_clock", "_contract", "_instrument")

    def __init__(self, instrument: Instrument, contract: Contract) -> None:
        self._instrument, self._contract = instrument, contract
        self._clock = SessionClock(instrument.calendar)

    def order(self, request: OrderRequest, sent: datetime, arrived: datetime, decision: float) -> Order | Refusal:
        """The order, or why there is none.

        Args:
            sent, arrived: engine time at the strategy and at the venue.
            decision: the last price when it was sent, quote currency; 0.0 where there was none.
        """
        lots = self._contract.lots.down(request.quantity) if math.isfinite(request.quantity) else 0
        if lots < 1:
            lot = self._instrument.lot
            return "quantity_below_lot", f"the quantity {request.quantity} is not at least one lot of {lot}"
        buys = request.side is _BUY
        order = Order(
            order_id=request.order_id,
            sign=1 if buys else -1,
            lots=lots,
            sent=sent,
            decision=decision,
            reduce_only=request.reduce_only,
            group=request.group,
            parent=request.parent,
            replaces=request.replaces,
        )
        if request.order_type is _MARKET and request.time_in_force is _GTC and not request.post_only:
            return order  # most orders, by far
        return self._priced(order, request, buys) or self._timed(order, request, arrived) or order

    def _priced(self, order: Order, request: OrderRequest, buys: bool) -> Refusal | None:
        kind, ticks = request.order_type, self._contract.ticks
        down, up = (ticks.down, ticks.up) if buys else (ticks.up, ticks.down)
        if kind in _LIMITED:
            order.limit = down(request.limit_price) if math.isfinite(request.limit_price) else 0
            if order.limit < 1 or request.limit_price <= 0.0:
                return self._not_positive("limit", request.limit_price)
        if kind in _TRIGGERED:
            order.touch = kind is _TOUCHED
            order.stop = (down if order.touch else up)(request.stop_price) if math.isfinite(request.stop_price) else 0
            if order.stop < 1 or request.stop_price <= 0.0:
                return self._not_positive("stop", request.stop_price)
        if kind is _TRAILING:
            return self._trailing(order, request)
        return None

    def _trailing(self, order: Order, request: OrderRequest) -> Refusal | None:
        trail, bps = request.trail, request.trail_bps
        if not (0.0 <= trail < math.inf and 0.0 <= bps < 10_000.0 and (trail > 0.0) != (bps > 0.0)):
            return (
                "trail_not_positive",
                f"a trailing stop wants a positive trail or trail_bps below 10000, one of them, was {trail} and {bps}",
            )
        if trail > 0.0:
            order.trail = max(1, self._contract.ticks.up(trail))
        order.trail_bps = bps
        return None

    def _timed(self, order: Order, request: OrderRequest, arrived: datetime) -> Refusal | None:
        force = request.time_in_force
        order.immediate = force is _IOC or force is _FOK
        order.whole = force is _FOK
        order.post_only = request.post_only
        if request.post_only and (request.order_type is not _LIMIT or order.immediate):
            what = f"{request.order_type.name} {force.name}"
            return "post_only_not_resting", f"post-only is for limit orders that may rest, not for {what}"
        if force is _GTD and (request.expires >= NEVER or request.expires <= arrived):
            return "expiry_not_ahead", f"good till {request.expires} is no time after its arrival at {arrived}"
        if force is _GTD:
            order.expires = request.expires
        elif force is _DAY:
            order.expires = self._clock.day_end(arrived)
        return None

    def _not_positive(self, name: str, price: float) -> Refusal:
        return f"{name}_not_positive", f"the {name} price {price} is not at least one tick of {self._instrument.tick}"
