"""How orders fill on bars, whose inside is unknown: the path that is worst for the order is taken.

A bar is matched in three phases: what happens at the open, what is set off inside the bar, and the limits and touches
inside it. In each phase the oldest order comes first. An order woken by its parent's execution joins the running bar.
"""

import math
from bisect import insort
from collections.abc import Callable
from datetime import datetime, timedelta

from brokers.costs import FillModel, TakerPrices
from brokers.lifecycle import Orders
from brokers.units import Steps
from brokers.working import (
    LIMIT,
    MARKET,
    TOUCH,
    TRAILING,
    Entry,
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

# What is decided at a close on several symbols is sent this much later (feeds.streams.SETTLE), and still is in time for
# the bar that opens then.
_SETTLE = timedelta(microseconds=1)

_AT_OPEN, _TRIGGERED, _LIMITS = 1, 2, 3  # phases


class BarMatcher:
    """Matches the orders of one symbol against its bars."""

    __slots__ = (
        "_close",
        "_high",
        "_latest",
        "_low",
        "_model",
        "_next",
        "_open",
        "_orders",
        "_prices",
        "_raw",
        "_read",
        "_steps",
        "_turns",
        "_volume",
    )

    def __init__(self, orders: Orders, steps: Steps, prices: TakerPrices, model: FillModel) -> None:
        self._orders, self._steps, self._prices, self._model = orders, steps, prices, model
        # Of the running bar:
        self._raw = 0.0, 0.0, 0.0, 0.0  # open, high, low, close
        self._open = self._high = self._low = self._close = Near(0, 0)
        self._read = False  # those four are of this bar
        self._volume = 0.0
        self._latest = datetime.min  # noqa: DTZ901 - an order that was sent later has not seen the open
        self._turns: list[tuple[int, int, Order]] = []  # phase, sequence
        self._next = 0  # of the turns

    def on_bar(
        self,
        open_: float,
        high: float,
        low: float,
        close: float,
        volume_lots: float,
        open_time: datetime,
        now: datetime,
    ) -> None:
        """One bar, known at `now`, its close. What happens goes to `Orders.reports`."""
        orders = self._orders
        orders.time = open_time
        if orders.expiries:
            orders.expire(open_time)
        self._latest = open_time + _SETTLE
        self._raw = open_, high, low, close
        self._read = False
        self._volume = volume_lots
        alone = self._alone()
        if alone is None:
            self._enter_all()
        if alone is not None or self._turns:
            if not 0.0 < open_ < math.inf:
                raise ValueError(f"want a bar that opens at a finite positive price, was {open_} at {open_time}")
            orders.room = self._model.bar_lots(volume_lots)
        if alone is not None:
            self._take(alone, open_)
            alone.seen = True
        elif self._turns:
            self._match_all()
        if orders.expiries:
            orders.expire(now)

    def _alone(self) -> Order | None:
        """The only order there is, where it takes the open: a bar is seldom more than that."""
        working = self._orders.orders
        if len(working) == 1:
            (order,) = working.values()
            if order.kind is MARKET and not order.touch and not order.asleep and order.sent <= self._latest:
                return order
        return None

    def _match_all(self) -> None:
        """Give every order its turns."""
        orders, turns = self._orders, self._turns
        self._next = 0
        turns.sort()
        while self._next < len(turns):
            phase, _, order = turns[self._next]
            self._next += 1
            if order.lots > order.asleep:
                self._turn(order, phase)
                if orders.stirred:
                    self._wake(order, phase)
            else:  # its group has left it nothing to fill; if its parent wakes more, its turn is still to come
                order.turns ^= 1 << phase
        self._leave_all()

    # --- who takes part

    def _enter_all(self) -> None:
        """Give a turn to every order that this bar may concern."""
        shelves, turns = self._orders.shelves, self._turns
        entered = shelves.every.take()
        priced = shelves.priced
        for order in entered:
            if order.kind is not MARKET:
                priced = True
        for order in shelves.new.take():
            if order.sent > self._latest:
                shelves.new.add(order)
                continue
            entered.append(order)
            if order.kind is not MARKET:
                priced = True
        if priced:
            self._read_prices()
            shelves.take_limits(entered, self._low.down + 1, self._high.up - 1)
            shelves.take_stops(entered, self._high.down, self._low.up)
            shelves.take_touches(entered, self._low.up, self._high.down)
            shelves.settle()
        for order in entered:
            if order.lots > order.asleep:
                phase = self._first_phase(order) if priced else _AT_OPEN
                order.turns = 1 << phase
                turns.append((phase, order.sequence, order))

    def _read_prices(self) -> None:
        """Put the prices of the bar into ticks; where all orders take the open nobody asks for them."""
        steps, (open_, high, low, close) = self._steps, self._raw
        for price in self._raw:
            if not 0.0 < price < math.inf:
                raise ValueError(f"want a bar of finite positive prices, was {self._raw} at {self._orders.time}")
        # Some sources give an open or a close outside the range. It was traded, so the range is the wider one.
        low, high = min(low, open_, close), max(high, open_, close)
        self._open, self._close = near(steps, open_), near(steps, close)
        self._high, self._low = near(steps, high), near(steps, low)
        self._read = True

    def _first_phase(self, order: Order) -> int:
        kind, sign = order.kind, order.sign
        if kind is MARKET or kind is TRAILING:
            return _AT_OPEN
        if kind is LIMIT:
            return _AT_OPEN if order.immediate or beyond(sign, self._open, known(order.limit)) else _LIMITS
        if kind is TOUCH:
            return _AT_OPEN if within(sign, self._open, known(order.stop)) else _LIMITS
        return _AT_OPEN if stopped(sign, self._open, known(order.stop)) else _TRIGGERED

    def _give_turn(self, order: Order, phase: int) -> None:
        """Let `order` have its turn in `phase`, now if it would have been earlier; it has but one in each."""
        if not order.turns >> phase & 1:
            order.turns |= 1 << phase
            insort(self._turns, (phase, order.sequence, order), lo=self._next)

    def _wake(self, parent: Order, phase: int) -> None:
        """Let the children of `parent`, which has just filled, join."""
        orders, last = self._orders, self._orders.last
        assert last is not None
        if not self._read:
            self._read_prices()
        by_stop = phase == _TRIGGERED and parent.stop is not None and not last.maker
        for child in orders.stirred:
            older = child.lots > child.asleep
            woken = orders.wake(child)
            if not woken:
                continue
            kind = child.kind
            if child.sent > self._latest or (kind is MARKET and (phase != _AT_OPEN or child.touch)):
                if child.turns:
                    child.fresh = woken
                elif child.home is None:
                    orders.shelves.put(child)
            elif not older or child.turns:  # else the bar does not reach its price
                child.fresh = woken
                child.entry = Entry(parent.sign, last.market, phase == _AT_OPEN, by_stop, older)
                if kind is LIMIT or kind is TOUCH:
                    self._give_turn(child, _LIMITS)
                else:
                    self._give_turn(child, _AT_OPEN if phase == _AT_OPEN else _TRIGGERED)
        orders.stirred.clear()

    def _leave_all(self) -> None:
        shelves = self._orders.shelves
        for _, _, order in self._turns:
            if order.turns:
                order.turns = order.fresh = 0
                order.entry = None
                order.seen = True
            if order.home is None and order.lots > order.asleep:
                shelves.put(order)
        self._turns.clear()

    # --- a turn

    def _turn(self, order: Order, phase: int) -> None:
        kind = order.kind
        if kind is MARKET:
            self._take(order, self._raw[0], _older_lots(order) if order.touch else None)
        elif kind is LIMIT:
            self._limit(order, phase)
        elif kind is TOUCH:
            self._touch(order, phase)
        elif kind is TRAILING:
            self._trailing(order, phase)
        else:
            self._stop(order, phase)

    def _limit(self, order: Order, phase: int) -> None:
        limit = known(order.limit)
        if phase != _AT_OPEN:
            if not order.immediate:  # else it has joined inside the bar, and the open is the past
                self._make(order, limit, self._inside_lots(order, limit, beyond))
        elif beyond(order.sign, self._open, limit):
            if order.seen:
                self._make(order, self._open.up if order.sign > 0 else self._open.down, _older_lots(order))
            else:
                self._take(order, self._raw[0], _older_lots(order))
        if order.immediate:
            self._orders.end_unfilled(order)

    def _touch(self, order: Order, phase: int) -> None:
        trigger = known(order.stop)
        if phase == _AT_OPEN:
            price, lots = self._raw[0], _older_lots(order)
        else:
            price, lots = self._steps.value(trigger), self._inside_lots(order, trigger, within)
        if lots:
            self._orders.trigger(order)
            self._take(order, price, lots)

    def _stop(self, order: Order, phase: int) -> None:
        stop = known(order.stop)
        if phase == _AT_OPEN:
            if stopped(order.sign, self._open, stop):
                self._set_off(order, self._raw[0], self._open, phase)
            else:
                self._give_turn(order, _TRIGGERED)
        elif stopped(order.sign, self._against(order), stop):
            price = self._after_entry(order, stop)
            self._set_off(order, price, near(self._steps, price), phase)

    def _set_off(self, order: Order, price: float, ticks: Near, phase: int) -> None:
        """A stop or stop-limit is reached at `price`."""
        self._orders.trigger(order)
        limit, sign = order.limit, order.sign
        if limit is None or within(sign, ticks, limit):
            self._take(order, price)
        elif order.immediate:
            self._orders.end_unfilled(order)
        elif phase == _AT_OPEN:
            self._give_turn(order, _TRIGGERED)  # the whole bar is still to come
        elif beyond(sign, self._close, limit):  # of the inside, only the close is known to come after
            self._make(order, limit)

    def _trailing(self, order: Order, phase: int) -> None:
        sign, entry = order.sign, order.entry
        if phase == _AT_OPEN:
            if order.trailed is not None and stopped(sign, self._open, trail_stop(order)):
                self._orders.trigger(order)
                self._take(order, self._raw[0])
            else:
                trail(order, self._open)
                self._give_turn(order, _TRIGGERED)
            return
        joined = entry is not None and not entry.at_open and not entry.older
        if joined:
            assert entry is not None
            order.trailed = None
            trail(order, near(self._steps, entry.market))
        stop = trail_stop(order)
        if not stopped(sign, self._against(order), stop):
            if joined:  # the best price of the bar may have been before it
                trail(order, self._close)
                return
            trail(order, self._low if sign > 0 else self._high)
            stop = trail_stop(order)
            if not stopped(sign, self._close, stop):
                return
        self._orders.trigger(order)
        self._take(order, self._after_entry(order, stop))

    # --- prices and quantities

    def _against(self, order: Order) -> Near:
        """The price of the bar that is worst for a holder who waits with the stop `order`."""
        return self._high if order.sign > 0 else self._low

    def _after_entry(self, order: Order, stop: int) -> float:
        """The price of a stop inside the bar; of one that joined inside it never better than its entry."""
        price, entry = self._steps.value(stop), order.entry
        if entry is None or entry.at_open or entry.older:
            return price
        return max(price, entry.market) if order.sign > 0 else min(price, entry.market)

    def _inside_lots(self, order: Order, ticks: int, reached: Callable[[int, Near, int], bool]) -> int:
        """How many lots of a limit or touch may fill at `ticks` inside the bar, where `reached` tells whether a price
        is good enough. Lots that joined inside the bar may only where the price came after they did."""
        sign, entry = order.sign, order.entry
        if not reached(sign, self._low if sign > 0 else self._high, ticks):
            return 0
        if entry is None or entry.at_open or reached(sign, self._close, ticks):
            return order.lots - order.asleep
        if entry.by_stop and entry.sign != sign and (self._steps.value(ticks) - entry.market) * entry.sign > 0.0:
            return order.lots - order.asleep
        return _older_lots(order)

    def _take(self, order: Order, price: float, most: int | None = None) -> None:
        orders = self._orders
        lots = orders.allowed(order, orders.room, taker=True, most=most)
        if lots:
            ticks, half_spread = self._prices.price(order.sign, order.limit, price, lots, self._volume)
            orders.fill(order, Execution(lots, ticks, False, price, half_spread))
        if order.immediate:
            orders.end_unfilled(order)

    def _make(self, order: Order, ticks: int, most: int | None = None) -> None:
        orders = self._orders
        lots = orders.allowed(order, orders.room, taker=False, most=most)
        if lots:
            orders.fill(order, Execution(lots, ticks, True, self._steps.value(ticks), 0.0))


def _older_lots(order: Order) -> int:
    """The lots that have been awake since before the bar."""
    return max(0, order.lots - order.asleep - order.fresh)
