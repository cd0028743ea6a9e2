"""The life of orders in the judge: from their arrival to their end, with their groups, parents and fees."""

import math
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from typing import Any

from feeds.instruments import Instrument
from tests.brokers.judge_terms import BPS, Book, Execution, Offer, Order, Report, exact


class Orders:
    """The orders of one symbol, and what is said about them."""

    def __init__(self, instrument: Instrument, model: Any, bars: bool, quoted: bool = False) -> None:
        self.instrument, self.model, self.bars = instrument, model, bars
        self.tick = Fraction(instrument.tick)
        self.position = 0
        self.orders: dict[str, Order] = {}  # working and sleeping
        self.known: dict[str, Order] = {}  # every order there was
        self.group_fills: dict[str, int] = {}
        self.quote: Book = ([], [])  # bids, asks, the best first
        self.depth: Book = ([], [])
        self.shown = self.quote  # the latest of the two
        self.quoted = quoted  # there are quotes or depth: trades are not the market any more
        self.reports: list[Report] = []
        self.time: datetime | None = None  # of the market event
        self.how = ""  # where in a bar: "open", "stop" or "inside"

    def submit(self, order: Order, now: datetime) -> list[Report]:
        self.reports, self.time = [], None
        if order.order_id in self.known:
            self.report(order, "rejected", "duplicate_order_id", lots=0)
            return self.reports
        self.known[order.order_id] = order
        order.sequence, order.quantity = len(self.known), order.lots
        replaced = self.orders.get(order.replaces) if order.replaces else None
        if replaced is not None:
            order.group, order.parent, order.filled = replaced.group, replaced.parent, replaced.filled
        order.lots = order.quantity - order.filled
        refused = self.refusal(order, replaced)
        if replaced is not None and refused in ("", "nothing_left"):
            if not refused:
                for child in self.orders.values():
                    if child.parent == replaced.order_id:
                        child.parent = order.order_id
            self.end(replaced, "cancelled", "replaced")
        if refused:
            order.filled = 0  # it took no place
            self.report(order, "rejected", refused, lots=0)
            return self.reports
        self.orders[order.order_id] = order
        self.report(order, "accepted", "")
        order.taken = self.group_fills.get(order.group, 0) - order.filled if order.group else 0
        if order.taken:
            self.shrink(order, order.lots - order.taken, "oco")
        self.after_parent(order)
        return self.reports

    def refusal(self, order: Order, replaced: Order | None) -> str:
        parent = self.known.get(order.parent)
        if order.replaces and replaced is None:
            return "replaced_gone"
        if order.parent:
            if parent is None or (parent.order_id not in self.orders and parent.filled == 0):
                return "no_parent"
            if order.kind == "market":
                return "child_type"
        if order.lots <= 0 and replaced is not None:
            return "nothing_left"
        if self.awake(order) > 0:
            if order.reduce_only and self.reducible(order) == 0:
                return "reduce_only"
            if order.post_only and order.kind == "limit" and self.crossing(order, self.shown):
                return "post_only"
        return ""

    def cancel(self, order_id: str, now: datetime) -> list[Report]:
        self.reports, self.time = [], None
        if order_id in self.orders:
            self.end(self.orders[order_id], "cancelled", "")
        return self.reports

    def expire(self, now: datetime) -> list[Report]:
        self.reports, self.time = [], None
        if not self.bars:
            self.end_expired(now)
        return self.reports

    @property
    def next_expiry(self) -> datetime | None:
        ends = [] if self.bars else [order.expires for order in self.orders.values() if order.expires is not None]
        return min(ends, default=None)

    def begin(self, time: datetime) -> None:
        self.reports, self.time, self.how = [], time, ""
        for order in self.known.values():
            order.in_event = []
            order.set_off = ""

    def awake(self, order: Order) -> int:
        """Lots that may fill: all, or of a child as many as its parent filled, less what is gone."""
        return self.awake_for(order, lambda lots, how, price: True)

    def live(self, order: Order) -> int:
        """Lots that may fill in an event in which lots that wake wait for the next."""
        return self.awake_for(order, lambda lots, how, price: False)

    def awake_for(self, order: Order, counts: Callable[[int, str, Fraction], bool]) -> int:
        if not order.parent:
            return order.lots
        parent = self.known[order.parent]
        filled = parent.filled - sum(fill[0] for fill in parent.in_event if not counts(*fill))
        return max(0, min(order.lots, min(order.quantity, filled) - order.filled - order.taken))

    def price(self, ticks: int | None) -> Fraction:
        assert ticks is not None
        return ticks * self.tick

    def crossing(self, order: Order, book: Book) -> list[Offer]:
        """What the other side shows at or better than the limit."""
        limit = self.price(order.limit)
        return [offer for offer in book[order.sign > 0] if (offer.price - limit) * order.sign <= 0]

    def reducible(self, order: Order) -> int:
        return abs(self.position) if self.position * order.sign < 0 else 0

    def trigger(self, order: Order) -> None:
        order.triggered = True
        self.report(order, "triggered", "")

    def fill(self, order: Order, execution: Execution) -> None:
        lots = execution.lots
        order.lots -= lots
        order.filled += lots
        sure = self.how != "stop" or not (execution.maker or order.trails)  # else it may have come after the extreme
        order.in_event.append((lots, self.how if sure else "inside", exact(execution.market)))
        self.position += order.sign * lots
        if order.lots == 0:
            self.drop(order)
        self.report(order, "filled", "", execution)
        if order.group:
            self.group_fills[order.group] = self.group_fills.get(order.group, 0) + lots
            for other in list(self.orders.values()):
                if other.group == order.group and other is not order and other.order_id in self.orders:
                    other.taken += lots
                    self.shrink(other, other.lots - lots, "oco")
        if order.lots == 0:
            self.after_end(order)

    def shrink(self, order: Order, lots: int, code: str) -> None:
        order.lots = max(0, lots)
        if order.lots == 0:
            self.end(order, "cancelled", code)
        else:
            self.report(order, "reduced", code)

    def drop(self, order: Order) -> None:
        del self.orders[order.order_id]

    def end(self, order: Order, what: str, code: str) -> None:
        self.drop(order)
        self.report(order, what, code, lots=0)
        self.after_end(order)

    def end_immediate(self, order: Order) -> None:
        if order.immediate and order.order_id in self.orders:
            self.end(order, "expired", "fok_unfilled" if order.whole else "ioc_unfilled")

    def end_expired(self, now: datetime) -> None:
        due = [order for order in self.orders.values() if order.expires is not None and order.expires <= now]
        for order in due:
            if order.order_id in self.orders:
                self.end(order, "expired", "time_in_force")

    def after_end(self, parent: Order) -> None:
        """A parent that has ended wakes no more of its children."""
        for child in list(self.orders.values()):
            if child.parent == parent.order_id and child.order_id in self.orders:
                self.after_parent(child)

    def after_parent(self, child: Order) -> None:
        if child.parent and child.parent not in self.orders and child.order_id in self.orders:
            lots = self.awake(child)
            if lots < child.lots:
                self.shrink(child, lots, "parent_ended")

    def report(
        self, order: Order, what: str, code: str, execution: Execution | None = None, lots: int | None = None
    ) -> None:
        left = order.lots if lots is None else lots
        self.reports.append(Report(order, what, execution, code, "", self.time, left))

    def fee(self, order: Order, execution: Execution) -> tuple[int, int]:
        """What the fee of `order` grew by: quanta of money and base units."""
        instrument = self.instrument
        base_unit = Fraction(instrument.base_unit or instrument.lot)
        tick_lot = self.tick * Fraction(instrument.lot) * Fraction(instrument.multiplier)
        tick_unit = self.tick * base_unit * Fraction(instrument.multiplier)
        unit = Fraction(instrument.currency_unit)
        quantum = Fraction(
            math.gcd(tick_unit.numerator * unit.denominator, unit.numerator * tick_unit.denominator),
            tick_unit.denominator * unit.denominator,
        )
        rate = exact(instrument.maker_bps if execution.maker else instrument.taker_bps) * BPS
        quantity = execution.lots * Fraction(instrument.lot)
        if instrument.fees_in == "received" and order.sign > 0:
            order.owed_base += quantity * rate
            total = math.floor(order.owed_base / base_unit + Fraction(1, 2))
            order.charged_base, before = total, order.charged_base
            return 0, total - before
        order.owed += execution.lots * execution.ticks * tick_lot * rate
        order.owed += quantity * Fraction(instrument.fee_per_unit)
        least = Fraction(instrument.fee_min)
        owed = max(order.owed, least) if least > 0 else order.owed
        total = math.floor(owed / unit + Fraction(1, 2))
        order.charged, before = total, order.charged
        return (total - before) * int(unit / quantum), 0
