"""The orders of one symbol from submission to their end: refusals, groups, brackets, replacements and expiry.

It knows no market: a matcher files the orders, decides what fills and calls `fill`, `trigger` and `end`.
"""

from collections import deque
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from heapq import heapify, heappop, heappush

from brokers.shelves import Shelves
from brokers.working import LIMIT, MARKET, STOP, STOP_LIMIT, TOUCH, TRAILING, Execution, Kind, Order, Report

_REMEMBERED = 4096  # ended orders, and groups without a working order
_MANY = 64  # expiries of ended orders, before it is worth cleaning

Refusal = tuple[str, str]  # a stable code and a sentence
SPLIT: Refusal = ("split", "a split has changed what its quantity and prices mean")


def _kind(order: Order) -> Kind:
    if order.stop is not None:
        if order.touch:
            return TOUCH
        return STOP if order.limit is None else STOP_LIMIT
    if order.trail is not None or order.trail_bps > 0.0:
        return TRAILING
    return MARKET if order.limit is None else LIMIT


class _Group:
    """Orders of which one cancels the others."""

    __slots__ = ("filled", "members")

    def __init__(self) -> None:
        self.filled = 0  # lots, by all of them
        self.members: dict[int, Order] = {}  # working, by sequence


class Orders:
    """See the module."""

    __slots__ = (
        "_children",
        "_ended",
        "_ended_ids",
        "_expiries_gone",
        "_groups",
        "_idle_groups",
        "_sequence",
        "expiries",
        "last",
        "orders",
        "position",
        "reports",
        "room",
        "shelves",
        "stirred",
        "time",
    )

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.position = 0  # lots, signed
        self.shelves = Shelves()
        self.expiries: list[tuple[datetime, int, Order]] = []  # a heap
        # Of the running event:
        self.reports: list[Report] = []
        self.time: datetime | None = None  # market time
        self.room: float = 0  # lots that all orders together may still take
        self.stirred: list[Order] = []  # children whose parent has filled
        self.last: Execution | None = None
        self._sequence = 0
        self._ended: dict[str, int] = {}  # filled lots by order id, of the last to end
        self._ended_ids: deque[str] = deque()
        self._expiries_gone = 0
        self._groups: dict[str, _Group] = {}
        self._idle_groups: deque[str] = deque()
        self._children: dict[str, list[Order]] = {}

    # --- in and out

    def submit(self, order: Order, crosses: Callable[[Order], bool]) -> list[Report]:
        """Take an order, or refuse it.

        Args:
            crosses: whether a limit order would take of what the market shows now; asked of post-only orders.
        """
        reports = self.reports = []
        order_id = order.order_id
        if order_id in self.orders or order_id in self._ended:
            return [_refused(order, "duplicate_order_id", f"the order id {order_id} is working or has been used")]
        order.quantity = order.lots
        order.kind = _kind(order)
        old = None
        if order.replaces or order.parent or order.reduce_only or order.post_only:
            old = self.orders.get(order.replaces)
            refusal = self._linked(order, old, crosses)
            if refusal is not None:
                order.filled = 0
                self._remember(order)
                reports.append(_refused(order, *refusal))
                return reports
        self._sequence += 1
        order.sequence = self._sequence
        if old is not None:
            self._take_place(order, old)
        self.orders[order_id] = order
        if order.expires is not None:
            heappush(self.expiries, (order.expires, order.sequence, order))
        if order.lots > order.asleep:
            self.shelves.new.add(order)
        reports.append(Report(order, "accepted", lots=order.lots))
        if order.group:
            self._join(order)
        if order.parent:
            self._follow(order)
        return reports

    def cancel(self, order_id: str) -> list[Report]:
        self.reports = []
        order = self.orders.get(order_id)
        if order is not None:
            self.end(order, "cancelled")
        return self.reports

    def split(self, ratio: Fraction) -> list[Report]:
        """Each unit has become `ratio` units: end every order, as its quantity and prices are of the old ones.

        The position becomes whole lots, towards zero. Nothing wakes any more by what was filled before.
        """
        reports = self.reports = []
        self.position = int(self.position * ratio)
        self._children.clear()  # they end as everything does, not because of their parents
        self._ended = dict.fromkeys(self._ended, 0)
        for order in list(self.orders.values()):
            self.end(order, "cancelled", *SPLIT)
        return reports

    def expire(self, now: datetime) -> None:
        """End what expires at or before `now`, as part of the running event."""
        expiries = self.expiries
        due = []
        while expiries and expiries[0][0] <= now:
            due.append(heappop(expiries)[2])
        self._expiries_gone -= len(due)  # each has gone, or goes now
        due.sort(key=_by_sequence)
        for order in due:
            if order.lots:  # else it ended before, or with its parent just now
                self.end(order, "expired", "time_in_force", "its time has run out")

    @property
    def next_expiry(self) -> datetime | None:
        expiries = self.expiries
        while expiries and not expiries[0][2].lots:
            heappop(expiries)
            self._expiries_gone -= 1
        return expiries[0][0] if expiries else None

    # --- what a matcher does to an order

    def allowed(self, order: Order, room: float, *, taker: bool, most: int | None = None) -> int:
        """How many lots `order` may have of `room` now, at most `most`. 0 also where it has ended over the question:
        what would take and may only rest, what may only reduce and cannot, and what wants all or nothing."""
        if taker and order.post_only:
            self.end(order, "expired", "post_only", "it would have taken liquidity")
            return 0
        lots = order.lots - order.asleep
        if most is not None and lots > most:
            lots = most
        if lots > room:
            lots = int(room)
        if lots <= 0:
            return 0
        if order.reduce_only:
            reducible = -order.sign * self.position
            if reducible <= 0:
                self.end(order, "cancelled", "reduce_only", "there is no position left to reduce")
                return 0
            lots = min(lots, reducible)
        if order.whole and lots < order.lots:
            self.end_unfilled(order)
            return 0
        return lots

    def fill(self, order: Order, execution: Execution) -> None:
        """Book what `allowed` let pass, with all that follows from it."""
        lots = execution.lots
        self.last = execution
        self.room -= lots
        self.position += lots * order.sign
        order.lots = left = order.lots - lots
        order.filled += lots
        self.reports.append(Report(order, "filled", execution, "", "", self.time, left))
        if order.group:
            self._cut_group(order, lots)
        children = self._children.get(order.order_id) if self._children else None
        if children is not None:
            for child in children:
                child.woken = order.filled
            self.stirred += children
        if not left:
            self._gone(order)
        elif order.reduce_only and order.lots and order.sign * self.position >= 0:
            self.end(order, "cancelled", "reduce_only", "there is no position left to reduce")

    def trigger(self, order: Order) -> None:
        """Tell that `order` has been set off; it waits for a price no longer."""
        if order.home is not None:
            order.home.drop(order)
        order.kind = MARKET if order.limit is None else LIMIT
        self.reports.append(Report(order, "triggered", None, "", "", self.time, order.lots))

    def end_unfilled(self, order: Order) -> None:
        """End what is left of an immediate order after its first market event."""
        if not order.lots:
            return
        if order.whole:
            self.end(order, "expired", "fok_unfilled", "the market did not have all of it at once")
        else:
            self.end(order, "expired", "ioc_unfilled", "the market did not have the rest at once")

    def end(self, order: Order, what: str, code: str = "", reason: str = "") -> None:
        order.lots = 0
        self.reports.append(Report(order, what, None, code, reason))
        self._gone(order)

    def wake(self, child: Order) -> int:
        """Let the lots of `child` that its parent has filled take part; return how many are new."""
        was, child.asleep = child.asleep, max(0, child.quantity - child.woken)
        return max(0, min(was, child.lots) - child.asleep)

    # --- links

    def _linked(self, order: Order, old: Order | None, crosses: Callable[[Order], bool]) -> Refusal | None:
        """Settle what `order` belongs to; or why it is refused."""
        if order.replaces:
            if old is None:
                return "replaced_gone", f"the order {order.replaces} that it would replace is not working"
            order.group, order.parent, order.woken = old.group, old.parent, old.woken
            order.filled = old.filled
            order.lots = order.quantity - old.filled
        elif order.parent:
            parent = self.orders.get(order.parent)
            order.woken = parent.filled if parent is not None else self._ended.get(order.parent, 0)
            if parent is None and not order.woken:
                return "no_parent", f"the parent {order.parent} is unknown, or ended without a fill"
        if order.parent:
            if order.kind is MARKET:
                return "child_type", "an order with a parent must wait for a price, a market order does not"
            order.asleep = max(0, order.quantity - order.woken)
        if order.lots <= 0:
            assert old is not None
            reason = f"of {order.quantity} lots {old.filled} had filled"
            self.end(old, "cancelled", "replaced", f"the order {order.order_id} replaced it")
            order.lots = 0
            return "nothing_left", reason
        if order.lots > order.asleep:
            if order.reduce_only and order.sign * self.position >= 0:
                return "reduce_only", "there is no position to reduce"
            if order.post_only and crosses(order):
                return "post_only", "it would have taken liquidity"
        return None

    def _take_place(self, order: Order, old: Order) -> None:
        """Put `order` where `old` is."""
        children = self._children.pop(old.order_id, None)
        self.end(old, "cancelled", "replaced", f"the order {order.order_id} replaced it")
        if children is not None:
            self._children[order.order_id] = children
            for child in children:
                child.parent = order.order_id

    def _join(self, order: Order) -> None:
        group = self._groups.get(order.group)
        if group is None:
            group = self._groups[order.group] = _Group()
        group.members[order.sequence] = order
        others = group.filled - order.filled if order.replaces else group.filled
        if others:
            self._cut(order, others, "oco", "its group had filled")

    def _cut_group(self, order: Order, lots: int) -> None:
        """Take what `order` filled off the other members of its group."""
        group = self._groups[order.group]
        group.filled += lots
        if len(group.members) > 1:
            for mate in list(group.members.values()):
                if mate is not order and mate.lots:
                    self._cut(mate, lots, "oco", f"the order {order.order_id} of its group has filled")

    def _follow(self, child: Order) -> None:
        """Tie `child`, of a parent that has ended or is working."""
        if child.parent in self.orders:
            self._children.setdefault(child.parent, []).append(child)
        else:
            self._orphan(child)

    def _orphan(self, child: Order) -> None:
        """What the parent of `child` has not filled will never wake."""
        never = child.quantity - child.woken
        if never > 0 and child.lots:
            child.quantity -= never
            child.asleep -= never
            self._cut(child, never, "parent_ended", f"its parent {child.parent} has ended")

    def _cut(self, order: Order, lots: int, code: str, reason: str) -> None:
        if lots < order.lots:
            order.lots -= lots
            self.reports.append(Report(order, "reduced", None, code, reason, lots=order.lots))
        else:
            self.end(order, "cancelled", code, reason)

    def _gone(self, order: Order) -> None:
        """Take an order that has ended out of everything."""
        del self.orders[order.order_id]
        if order.home is not None:
            order.home.drop(order)
        if order.expires is not None:
            self._expiries_gone += 1
            self._clean_expiries()
        if order.group:
            self._leave(order)
        self._remember(order)
        if order.parent:
            siblings = self._children.get(order.parent)
            if siblings is not None and order in siblings:
                siblings.remove(order)
        children = self._children.pop(order.order_id, None) if self._children else None
        if children is not None:
            for child in list(children):
                self._orphan(child)

    def _leave(self, order: Order) -> None:
        group = self._groups[order.group]
        del group.members[order.sequence]
        if not group.members:
            self._idle_groups.append(order.group)
            if len(self._idle_groups) > _REMEMBERED:
                name = self._idle_groups.popleft()
                oldest = self._groups.get(name)
                if oldest is not None and not oldest.members:
                    del self._groups[name]

    def _clean_expiries(self) -> None:
        if self._expiries_gone > _MANY and 2 * self._expiries_gone > len(self.expiries):
            self.expiries = [entry for entry in self.expiries if entry[2].lots]
            heapify(self.expiries)
            self._expiries_gone = 0

    def _remember(self, order: Order) -> None:
        self._ended[order.order_id] = order.filled
        self._ended_ids.append(order.order_id)
        if len(self._ended_ids) > _REMEMBERED:
            del self._ended[self._ended_ids.popleft()]


def _by_sequence(order: Order) -> int:
    return order.sequence


def _refused(order: Order, code: str, reason: str) -> Report:
    return Report(order, "rejected", None, code, reason)
