"""How orders fill on what happens one by one: trades, quotes and depth. The oldest order comes first.

Once a quote or depth has been shown, a trade is news for resting limit orders alone: who takes, takes what is shown.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter

import numpy as np

from brokers.costs import FillModel, TakerPrices
from brokers.ladder import Ladder
from brokers.lifecycle import Orders
from brokers.units import Steps
from brokers.working import (
    LIMIT,
    MARKET,
    TOUCH,
    TRAILING,
    Execution,
    Near,
    Order,
    beyond,
    known,
    near,
    stopped,
    trail,
    trail_stop,
    within,
)

Levels = Iterable[Sequence[float]] | np.ndarray  # (price, size in lots)

_NO_BID, _NO_ASK = Near(0, 1 << 62), Near(0, 1 << 62)  # out of the reach of every order
_by_sequence = attrgetter("sequence")


class TapeMatcher:
    """Matches the orders of one symbol against its trades, quotes and depth."""

    __slots__ = (
        "_deep",
        "_model",
        "_named",
        "_offered",
        "_orders",
        "_price",
        "_prices",
        "_quoted",
        "_size",
        "_steps",
        "_ticks",
        "asks",
        "bids",
        "showing",
    )

    def __init__(self, orders: Orders, steps: Steps, prices: TakerPrices, model: FillModel, *, quoted: bool) -> None:
        self._orders, self._steps, self._prices, self._model = orders, steps, prices, model
        self._quoted = Ladder(-1, steps, model), Ladder(1, steps, model)
        self._deep = Ladder(-1, steps, model), Ladder(1, steps, model)
        self.bids, self.asks = self._quoted  # those shown last
        self.showing = quoted  # there are quotes or depth
        self._named: list[list[Near]] = [[], []]  # prices of bids and asks that the running event is about
        # Of the running trade:
        self._price = self._size = 0.0
        self._ticks = Near(0, 0)
        self._offered = 0  # lots of it that own orders may take

    def crosses(self, order: Order) -> bool:
        """Whether a limit order would take of what is shown now."""
        other = (self.asks if order.sign > 0 else self.bids).best
        return order.kind is LIMIT and other is not None and within(order.sign, other.ticks, known(order.limit))

    # --- trades

    def on_trade(self, price: float, size_lots: float, time: datetime) -> None:
        """One trade. What happens goes to `Orders.reports`."""
        orders = self._orders
        shelves = orders.shelves
        self._begin(time)
        met = [] if self.showing else shelves.every.take() + shelves.new.take()
        if not (met or shelves.priced):
            return
        if not 0.0 < price < math.inf:
            raise ValueError(f"want a trade at a finite positive price, was {price} at {time}")
        self._price, self._size = price, size_lots
        self._ticks = ticks = near(self._steps, price)
        queued: list[Order] = []
        if shelves.priced:
            shelves.take_limits(met, ticks.down + 1, ticks.up - 1)
            if not self.showing:
                shelves.take_stops(met, ticks.down, ticks.up)
                shelves.take_touches(met, ticks.up, ticks.down)
            shelves.settle()
            if self._model.queue and ticks.down == ticks.up:
                queued = [order for shelf in shelves.limits for order in shelf.at(ticks.down)]
        orders.room = self._offered = self._model.shown_lots(size_lots)
        for order in sorted(met + queued, key=_by_sequence):
            if order.lots > order.asleep:
                self._meet_trade(order)
        self._file(met)
        self._wake()

    def _meet_trade(self, order: Order) -> None:
        kind = order.kind
        if kind is MARKET:
            self._take_trade(order)
        elif kind is LIMIT:
            self._limit_on_trade(order)
        else:
            order.seen = not self._set_off(order, self._ticks)  # what it has become sees the next trade first
            return
        order.seen = True

    def _limit_on_trade(self, order: Order) -> None:
        limit = known(order.limit)
        if beyond(order.sign, self._ticks, limit):
            order.queue = 0.0
            if order.seen:
                self._make(order, limit, self._orders.room)
            else:
                self._take_trade(order)
        elif self._model.queue and order.queue < math.inf and within(order.sign, self._ticks, limit):
            size = self._size - (self._offered - self._orders.room)  # what own orders took has not passed the queue
            reaches = math.floor(size - order.queue + 1e-6)
            order.queue = max(0.0, order.queue - size)
            self._make(order, limit, min(self._orders.room, reaches))
        if order.immediate:
            self._orders.end_unfilled(order)

    def _take_trade(self, order: Order) -> None:
        orders = self._orders
        lots = orders.allowed(order, orders.room, taker=True)
        if lots:
            ticks, half_spread = self._prices.price(order.sign, order.limit, self._price, lots, self._size)
            orders.fill(order, Execution(lots, ticks, False, self._price, half_spread))
        if order.immediate:
            orders.end_unfilled(order)

    def _make(self, order: Order, limit: int, room: float) -> None:
        lots = self._orders.allowed(order, room, taker=False)
        if lots:
            self._orders.fill(order, Execution(lots, limit, True, self._steps.value(limit), 0.0))

    # --- quotes and depth

    def on_quote(self, bid: float, ask: float, bid_lots: float, ask_lots: float, time: datetime) -> None:
        """The best bid and ask; of the prices behind them nothing is known."""
        bids, asks = self._quoted
        bids.quote(bid, bid_lots)
        asks.quote(ask, ask_lots)
        self._show(self._quoted, None, time)

    def on_depth(self, bids: Levels, asks: Levels, time: datetime, *, snapshot: bool) -> None:
        """The new size of each level named; a snapshot replaces the whole book."""
        shown = self._deep
        named = [
            side.update(_rows(levels), snapshot=snapshot) for side, levels in zip(shown, (bids, asks), strict=True)
        ]
        self._show(shown, named, time)

    def _show(self, shown: tuple[Ladder, Ladder], named: list[list[Near]] | None, time: datetime) -> None:
        """Match what waits for it. `named` are the levels that changed, None: the best ones."""
        self.bids, self.asks = shown
        self.showing = True
        if not self._orders.orders:
            return
        self._begin(time)
        if named is None:
            named = [[level.ticks] if level is not None else [] for level in (self.bids.best, self.asks.best)]
        self._named = named
        shelves = self._orders.shelves
        met = shelves.every.take() + shelves.new.take()
        if shelves.priced:
            bid, ask = self.bids.best, self.asks.best
            sale = bid.ticks if bid is not None else _NO_BID
            buy = ask.ticks if ask is not None else _NO_ASK
            shelves.take_limits(met, buy.up, sale.down)
            shelves.take_stops(met, buy.down, sale.up)
            shelves.take_touches(met, buy.up, sale.down)
            shelves.settle()
        if met:
            met.sort(key=_by_sequence)
            for order in met:
                if order.lots > order.asleep:
                    self._meet_shown(order)
            self._file(met)
        if self._model.queue and shelves.priced:
            self._shorten_queues()
        self._wake()

    def _meet_shown(self, order: Order) -> None:
        if order.kind is not MARKET and order.kind is not LIMIT:
            other = (self.asks if order.sign > 0 else self.bids).best
            order.seen = True
            if other is None or not self._set_off(order, other.ticks):
                return
            order.seen = False  # it goes on as new
        self._walk(order)
        if order.immediate:
            self._orders.end_unfilled(order)
        order.seen = True
        if self._model.queue and order.kind is LIMIT:
            self._join_queue(order)

    def _walk(self, order: Order) -> None:
        """Take the levels of the other side as far as the order goes; a limit that has rested has them come to it."""
        orders, limit, buys = self._orders, order.limit, order.sign > 0
        other = self.asks if buys else self.bids
        levels = other.crossed(limit, order.lots)
        if not levels:
            return
        maker = order.kind is LIMIT and order.seen
        lots = orders.allowed(order, sum(level.left for level in levels), taker=not maker)
        if not lots:
            return
        if maker:
            market, half_spread = self._steps.value(known(limit)), 0.0
        else:
            best = levels[0].price
            market = self.mid or best
            half_spread = abs(best - market)
        for level in levels:
            part = min(lots, level.left, order.lots)
            if part > 0:
                level.left -= part
                lots -= part
                ticks = known(limit) if maker else max(1, level.ticks.up if buys else level.ticks.down)
                orders.fill(order, Execution(part, ticks, maker, market, half_spread))

    @property
    def mid(self) -> float:
        """The middle of the best bid and ask; 0.0 where one of them is not shown."""
        bid, ask = self.bids.best, self.asks.best
        return 0.5 * (bid.price + ask.price) if bid is not None and ask is not None else 0.0

    def _join_queue(self, order: Order) -> None:
        """Note what is shown ahead of `order`, whose price this event need not have named."""
        limit, buys = known(order.limit), order.sign > 0
        own = self.bids if buys else self.asks
        best, level = own.best, own.at(limit)
        ahead = best is not None and (limit > best.ticks.down if buys else limit < best.ticks.up)
        if level is not None:
            order.queue = min(order.queue, level.size)
        elif ahead or Near(limit, limit) in self._named[not buys]:  # better than all others, or deleted just now
            order.queue = 0.0

    def _shorten_queues(self) -> None:
        """Hold the queues ahead of resting limits against what this event shows."""
        for side, own in enumerate((self.bids, self.asks)):
            shelf, best = self._orders.shelves.limits[side], own.best
            if best is not None:  # whoever was ahead at a better price than that has gone
                for order in shelf.before(best.ticks.up if side else best.ticks.down):
                    _shorten(order, 0.0)
            for ticks in self._named[side]:
                if ticks.down == ticks.up:
                    level = own.at(ticks.down)
                    for order in shelf.at(ticks.down):
                        _shorten(order, level.size if level is not None else 0.0)

    # --- all of them

    def _begin(self, time: datetime) -> None:
        self._orders.time = time
        if self._orders.expiries:
            self._orders.expire(time)

    def _set_off(self, order: Order, price: Near) -> bool:
        """Trigger `order` if `price` reaches it; a trailing stop follows the price."""
        kind, sign = order.kind, order.sign
        if kind is TRAILING:
            reached = order.trailed is not None and stopped(sign, price, trail_stop(order))
            if not reached:
                trail(order, price)
        elif kind is TOUCH:
            reached = within(sign, price, known(order.stop))
        else:
            reached = stopped(sign, price, known(order.stop))
        if reached:
            self._orders.trigger(order)
        return reached

    def _file(self, met: list[Order]) -> None:
        shelves = self._orders.shelves
        for order in met:
            if order.lots > order.asleep:
                shelves.put(order)

    def _wake(self) -> None:
        """Lots that woke in this event take part from the next on."""
        orders = self._orders
        if orders.stirred:
            for child in orders.stirred:
                if child.lots:
                    orders.wake(child)
                    if child.home is None and child.lots > child.asleep:
                        orders.shelves.put(child)
            orders.stirred.clear()


def _shorten(order: Order, lots: float) -> None:
    """At most `lots` are ahead of `order`, if it has some awake to stand there."""
    if order.lots > order.asleep and lots < order.queue:
        order.queue = lots


def _rows(levels: Levels) -> Iterable[Sequence[float]]:
    return levels.tolist() if isinstance(levels, np.ndarray) else levels
