"""The simplest matching engine that follows the fill rules: a list of orders, read from the oldest at every event.

It is what `brokers.matching` is judged against, so it shares nothing with it. No index, no cache, no shortcut: prices,
volumes and basis points are exact fractions of the decimals they were written as, and how much of an order may fill is
worked out anew from what has been filled. It is slow and it is meant to be.
"""

import math
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from tests.brokers.judge_orders import Orders
from tests.brokers.judge_terms import BPS, Book, Candle, Execution, Offer, Order, Report, exact, whole_down, whole_up

SETTLE = timedelta(microseconds=1)  # decisions on several symbols take that long to settle


class Judge(Orders):
    """One symbol's orders and the market that fills them."""

    def on_bar(
        self,
        open_: float,
        high: float,
        low: float,
        close: float,
        volume_lots: float,
        open_time: datetime,
        now: datetime,
    ) -> list[Report]:
        self.begin(open_time)
        self.end_expired(open_time)
        # Some sources give an open or a close outside the range.
        high, low = max(open_, high, close), min(open_, low, close)
        bar = Candle(exact(open_), exact(high), exact(low), exact(close))
        volume = exact(volume_lots)
        pool = Offer(bar.open, math.inf if self.model.participation_max is None else self.capacity(volume), volume)
        eligible = [order for order in self.orders.values() if order.sent - SETTLE <= open_time]
        had: set[tuple[int, int]] = set()
        while True:
            turns = [
                (phase, order.sequence, order)
                for order in eligible
                for phase in (1, 2, 3)
                if order.order_id in self.orders
                and (phase, order.sequence) not in had
                and self.has_part(order, bar, phase)
            ]
            if not turns:
                break
            phase, sequence, order = min(turns, key=lambda turn: turn[:2])
            had.add((phase, sequence))
            self.how = ("open", "stop", "inside")[phase - 1]
            (self.at_open, self.inside_stop, self.inside_limit)[phase - 1](order, bar, pool)
        for order in eligible:
            order.seen = order.seen or self.awake(order) > 0 or any(sequence == order.sequence for _, sequence in had)
        self.end_expired(now)
        return self.reports

    def on_trade(self, price: float, size_lots: float, time: datetime) -> list[Report]:
        self.begin(time)
        value, size = exact(price), exact(size_lots)
        pool = Offer(value, self.capacity(size), size)
        for order in list(self.orders.values()):
            live = self.live(order)
            if order.order_id not in self.orders or live == 0:
                continue
            if self.quoted and not (order.kind == "limit" and order.seen):
                continue  # it waits for the next quote
            if order.kind == "market":
                self.take(order, live, [pool])
            elif order.kind == "limit":
                self.limit_on_trade(order, live, value, pool)
            else:
                if self.reached(order, value):
                    self.trigger(order)
                continue  # a triggered order fills from the next event on, its first
            order.seen = True
            self.end_immediate(order)
        return self.reports

    def on_quote(self, bid: float, ask: float, bid_lots: float, ask_lots: float, time: datetime) -> list[Report]:
        self.quote = self.levels({}, [(bid, bid_lots)], -1), self.levels({}, [(ask, ask_lots)], 1)
        return self.on_shown(self.quote, time, (set(), set()), best_only=True)

    def on_depth(self, bids: Any, asks: Any, snapshot: bool, time: datetime) -> list[Report]:
        old = ({}, {}) if snapshot else tuple({offer.price: offer for offer in side} for side in self.depth)
        self.depth = self.levels(old[0], bids, -1), self.levels(old[1], asks, 1)
        deleted = tuple({exact(price) for price, size in side if size <= 0.0} for side in (bids, asks))
        return self.on_shown(self.depth, time, deleted, best_only=False)

    # One event of each kind, for one order.

    def at_open(self, order: Order, bar: Candle, pool: Offer) -> None:
        """Phase 1 of a bar: what happens at the open."""
        live = self.live_in_bar(order, bar, 1)
        if order.kind == "market":
            self.take(order, live, [pool])
        elif order.kind == "limit":
            if (bar.open - self.price(order.limit)) * order.sign < 0:
                if order.seen:
                    rounded = self.against(order, bar.open)
                    self.make(order, live, [pool], rounded)
                else:
                    self.take(order, live, [pool])
        elif self.reached(order, bar.open):
            self.trigger(order)
            if order.limit is None or (bar.open - self.price(order.limit)) * order.sign <= 0:
                self.take(order, live, [pool])
            order.seen, order.set_off = True, "open"
        if order.kind in ("market", "limit"):
            self.end_immediate(order)

    def inside_stop(self, order: Order, bar: Candle, pool: Offer) -> None:
        """Phase 2 of a bar: stops, stop-limits and trailing stops inside it."""
        far = bar.low if order.sign < 0 else bar.high
        if order.set_off == "open":  # the whole bar came after that
            self.rest_in_bar(order, bar.low if order.sign > 0 else bar.high, pool)
            return
        entry = self.entry_inside(order)
        if order.trails and entry is not None:
            order.best = entry
        stop = self.stop_of(order)
        if (far - self.price(stop)) * order.sign < 0:
            if not order.trails:
                return
            assert order.best is not None
            # The best price came before the close; of a position entered inside the bar that is not known.
            last = bar.close if entry is not None else bar.high if order.sign < 0 else bar.low
            order.best = max(order.best, last) if order.sign < 0 else min(order.best, last)
            stop = self.stop_of(order)
            if entry is not None or (bar.close - self.price(stop)) * order.sign < 0:
                return
        at = self.price(stop)
        if entry is not None and not order.trails:  # a stop on the wrong side of its entry earns nothing by it
            at = min(at, entry) if order.sign < 0 else max(at, entry)
        self.trigger(order)
        order.seen, order.set_off = True, "inside"
        if order.limit is None or (at - self.price(order.limit)) * order.sign <= 0:
            self.take(order, self.awake(order), [pool], at=at)
        elif not order.immediate:
            self.rest_in_bar(order, bar.close, pool)
        self.end_immediate(order)

    def rest_in_bar(self, order: Order, far: Fraction, pool: Offer) -> None:
        if (far - self.price(order.limit)) * order.sign < 0:
            self.make(order, self.awake(order), [pool], order.limit)

    def inside_limit(self, order: Order, bar: Candle, pool: Offer) -> None:
        """Phase 3 of a bar: limits and touches inside it."""
        live = self.live_in_bar(order, bar, 3)
        far = bar.low if order.sign > 0 else bar.high
        if order.kind == "touch":
            trigger = self.price(order.stop)
            if live and (far - trigger) * order.sign <= 0:
                self.trigger(order)
                self.take(order, live, [pool], at=trigger)
                self.end_immediate(order)
            return
        if (far - self.price(order.limit)) * order.sign < 0 and not order.immediate:
            self.make(order, live, [pool], order.limit)
        self.end_immediate(order)

    def limit_on_trade(self, order: Order, live: int, price: Fraction, pool: Offer) -> None:
        beyond = (price - self.price(order.limit)) * order.sign
        if beyond < 0:
            order.queue = Fraction(0)
            if order.seen:
                self.make(order, live, [pool], order.limit)
            else:
                self.take(order, live, [pool])
        elif beyond == 0 and self.model.queue and order.queue is not None:
            size = pool.volume - pool.taken
            reaches = max(0, whole_down(size - order.queue))
            order.queue = max(Fraction(0), order.queue - size)
            self.make(order, min(live, reaches), [pool], order.limit)

    def on_shown(self, book: Book, time: datetime, deleted: tuple[set[Fraction], ...], best_only: bool) -> list[Report]:
        self.begin(time)
        self.shown, self.quoted = book, True
        for order in list(self.orders.values()):
            live = self.live(order)
            side = book[order.sign > 0]  # a buyer takes what is asked
            if order.order_id not in self.orders or live == 0:
                continue
            if order.kind not in ("market", "limit"):
                if not side or not self.reached(order, side[0].price):
                    continue
                self.trigger(order)
            if order.kind == "market":
                self.take(order, live, side, book=book)
            elif order.seen:
                self.make(order, live, self.crossing(order, book), order.limit)
            else:
                self.take(order, live, self.crossing(order, book), book=book)
            self.end_immediate(order)
            if order.kind == "limit" and self.model.queue:
                self.queue_up(order, book[order.sign < 0], deleted[order.sign < 0], best_only)
            order.seen = True
        return self.reports

    def queue_up(self, order: Order, own: list[Offer], deleted: set[Fraction], best_only: bool) -> None:
        """How much is shown ahead of `order` at its price; it can only become less."""
        limit = self.price(order.limit)
        shown: Fraction | None = None  # out of sight
        if own and (limit - own[0].price) * order.sign > 0:
            shown = Fraction(0)
        for offer in own[:1] if best_only else own:
            if offer.price == limit:
                shown = offer.volume
        if shown is None and limit in deleted:
            shown = Fraction(0)
        if shown is not None:
            order.queue = shown if order.queue is None else min(order.queue, shown)

    # What they share.

    def live_in_bar(self, order: Order, bar: Candle, phase: int) -> int:
        """Lots that may fill in one phase of a bar. Of those that woke in this bar only the ones whose fill must have
        come after their parent's; but a stop is taken to be hit also when nobody knows."""
        if phase == 2:
            return self.awake(order)
        if phase == 1:
            stops = (order.stop is not None or order.trails) and not order.touch and order.kind != "limit"
            return self.awake_for(order, lambda lots, how, price: stops and how == "open")
        target = self.price(order.stop if order.kind == "touch" else order.limit)
        beyond = (bar.close - target) * order.sign
        sure = beyond <= 0 if order.kind == "touch" else beyond < 0
        parent = self.known.get(order.parent)
        opposite = parent is not None and parent.sign != order.sign

        def counts(lots: int, how: str, price: Fraction) -> bool:
            onward = opposite and (target - price) * order.sign < 0
            return how == "open" or (how == "stop" and onward) or sure

        return self.awake_for(order, counts)

    def entry_inside(self, order: Order) -> Fraction | None:
        """At what `order`'s parent filled inside this bar, where all its awake lots are of that; else None."""
        if not order.parent or self.live(order) > 0:
            return None
        fills = self.known[order.parent].in_event
        return fills[-1][2] if fills and fills[-1][1] != "open" else None

    def has_part(self, order: Order, bar: Candle, phase: int) -> bool:
        """Whether `order` has something to do in `phase` of a bar."""
        if phase == 1:
            return self.live_in_bar(order, bar, phase) > 0
        stops = order.kind in ("stop", "stop_limit", "trailing") or (order.kind == "limit" and order.set_off == "open")
        limits = order.kind in ("limit", "touch") and not order.set_off
        return (stops if phase == 2 else limits) and self.awake(order) > 0

    def against(self, order: Order, price: Fraction) -> int:
        """`price` in ticks, rounded against `order`, never worse than its limit."""
        ticks = whole_up(price / self.tick) if order.sign > 0 else whole_down(price / self.tick)
        ticks = max(1, ticks)
        if order.limit is not None:
            ticks = min(ticks, order.limit) if order.sign > 0 else max(ticks, order.limit)
        return ticks

    def capacity(self, volume: Fraction) -> int:
        share = self.model.participation_max
        return whole_down((Fraction(1) if share is None else exact(share)) * volume)

    def stop_of(self, order: Order) -> int:
        if not order.trails:
            assert order.stop is not None
            return order.stop
        assert order.best is not None
        best = order.best / self.tick
        ticks = whole_down(best) if order.sign < 0 else whole_up(best)
        distance = order.trail if order.trail is not None else whole_up(ticks * exact(order.trail_bps) * BPS)
        return ticks + order.sign * max(1, distance)

    def reached(self, order: Order, price: Fraction) -> bool:
        """Whether a market at `price` triggers `order`; if not, a trailing stop follows it."""
        if order.trails and order.best is None:
            order.best = price
            return False
        beyond = (price - self.price(self.stop_of(order))) * order.sign
        if beyond <= 0 if order.touch else beyond >= 0:
            return True
        if order.trails:
            assert order.best is not None
            order.best = max(order.best, price) if order.sign < 0 else min(order.best, price)
        return False

    def levels(self, old: dict[Fraction, Offer], changes: Any, sign: int) -> list[Offer]:
        """One side of the market after `changes`, the best level first."""
        for price, size in changes:
            if not (math.isfinite(price) and price > 0.0):
                continue
            value = exact(price)
            old.pop(value, None)
            if size > 0.0:
                old[value] = Offer(value, self.capacity(exact(size)), exact(size))
        return sorted(old.values(), key=lambda offer: sign * offer.price)

    def make(self, order: Order, live: int, offers: list[Offer], ticks: int | None) -> None:
        price = self.price(ticks)
        assert ticks is not None
        self.execute(order, live, offers, lambda lots, offer: Execution(lots, ticks, True, float(price), 0.0))

    def take(self, order: Order, live: int, offers: list[Offer], at: Any = None, book: Any = None) -> None:
        """Fill as a taker: at what is `book`ed, or around the price `at` with spread and slippage."""
        if order.post_only and offers:
            self.end(order, "expired", "post_only")
            return

        def modelled(lots: int, offer: Offer) -> Execution:
            price = offer.price if at is None else at
            share = min(Fraction(1), lots / offer.volume) if offer.volume else Fraction(0)
            half = price * exact(self.model.spread_bps) / 2 * BPS
            slip = price * (exact(self.model.slippage_bps) + exact(self.model.impact_bps) * share**2) * BPS
            ticks = self.against(order, price + order.sign * (half + slip))
            half = min(half, abs(self.price(ticks) - price))
            return Execution(lots, ticks, False, float(price), float(half))

        def shown(lots: int, offer: Offer) -> Execution:
            best = book[order.sign > 0][0].price
            middle = (book[0][0].price + book[1][0].price) / 2 if book[0] and book[1] else best
            return Execution(lots, self.against(order, offer.price), False, float(middle), float(abs(best - middle)))

        self.execute(order, live, offers, modelled if book is None else shown)

    def execute(self, order: Order, live: int, offers: list[Offer], at: Any) -> None:
        lots = int(min(live, sum(offer.left for offer in offers)))
        if lots and order.reduce_only:
            lots = min(lots, self.reducible(order))
            if lots == 0:
                self.end(order, "cancelled", "reduce_only")
        if order.whole and lots < order.lots:
            return
        before = order.filled
        for offer in offers:
            if order.order_id not in self.orders:
                return
            part = int(min(lots, offer.left, order.lots))
            if part > 0:
                offer.left -= part
                offer.taken += part
                lots -= part
                self.fill(order, at(part, offer))
        if order.reduce_only and order.filled > before and order.order_id in self.orders and self.reducible(order) == 0:
            self.end(order, "cancelled", "reduce_only")
