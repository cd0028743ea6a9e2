"""Where orders wait for the market: filed by price, so that an event costs what it touches, however many rest."""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from brokers.working import LIMIT, MARKET, STOP, STOP_LIMIT, TRAILING, Order

_MANY = 64  # prices without an order, before it is worth cleaning


class Pile:
    """Orders that want to see every event, in the order in which they came."""

    __slots__ = ("_orders",)

    def __init__(self) -> None:
        self._orders: dict[int, Order] = {}

    def add(self, order: Order) -> None:
        self._orders[order.sequence] = order
        order.home = self

    def drop(self, order: Order) -> None:
        del self._orders[order.sequence]
        order.home = None

    def take(self) -> list[Order]:
        """All of them; the pile is empty after it."""
        if not self._orders:
            return []
        taken = list(self._orders.values())
        self._orders.clear()
        for order in taken:
            order.home = None
        return taken


class PriceShelf:
    """Orders by a price, the one first that the market reaches first.

    Args:
        falling: a falling market reaches them, the highest price first; else a rising one, the lowest first.
    """

    __slots__ = ("_empty", "_orders", "_sign", "keys")

    def __init__(self, *, falling: bool) -> None:
        self._sign = -1 if falling else 1
        self._orders: dict[int, dict[int, Order]] = {}  # by key, which is the price times the sign
        self.keys: list[int] = []  # a heap of them
        self._empty = 0  # of the keys

    def add(self, order: Order, ticks: int) -> None:
        key = order.filed = self._sign * ticks
        order.home = self
        orders = self._orders.get(key)
        if orders is None:
            self._orders[key] = {order.sequence: order}
            heappush(self.keys, key)
        else:
            if not orders:
                self._empty -= 1
            orders[order.sequence] = order

    def drop(self, order: Order) -> None:
        order.home = None
        orders = self._orders[order.filed]
        del orders[order.sequence]
        if not orders:
            self._empty += 1
            if self._empty > _MANY and 2 * self._empty > len(self.keys):
                self._orders = {key: orders for key, orders in self._orders.items() if orders}
                self.keys = list(self._orders)
                heapify(self.keys)
                self._empty = 0

    def take(self, ticks: int, taken: list[Order]) -> None:
        """Move the orders that a market at `ticks` reaches from here to `taken`."""
        keys, reached = self.keys, self._sign * ticks
        while keys and keys[0] <= reached:
            orders = self._orders.pop(heappop(keys))
            if not orders:
                self._empty -= 1
            for order in orders.values():
                order.home = None
                taken.append(order)

    def at(self, ticks: int) -> list[Order]:
        """The orders at one price."""
        return list(self._orders.get(self._sign * ticks, {}).values())

    def before(self, ticks: int) -> Iterator[Order]:
        """The orders that the market reaches before it is at `ticks`."""
        keys, bound, places = self.keys, self._sign * ticks, [0]
        while places:
            place = places.pop()
            if place < len(keys) and keys[place] < bound:
                yield from self._orders[keys[place]].values()
                places += (2 * place + 1, 2 * place + 2)


class Shelves:
    """All the orders of a symbol that have lots awake, each in one place."""

    __slots__ = ("_stops", "_touches", "every", "limits", "new", "priced")

    def __init__(self) -> None:
        self.new = Pile()  # whose first event is still to come
        self.every = Pile()  # market orders not yet filled, and trailing stops
        # Each for buys and for sales.
        self.limits = PriceShelf(falling=True), PriceShelf(falling=False)
        self._stops = PriceShelf(falling=False), PriceShelf(falling=True)
        self._touches = PriceShelf(falling=True), PriceShelf(falling=False)
        self.priced = False  # something may be filed by price

    def put(self, order: Order) -> None:
        """File `order` where its next event finds it."""
        kind = order.kind
        if not order.seen:
            self.new.add(order)
        elif kind is MARKET or kind is TRAILING:
            self.every.add(order)
        else:
            self.priced = True
            side = order.sign < 0
            if kind is LIMIT:
                assert order.limit is not None
                self.limits[side].add(order, order.limit)
            else:
                assert order.stop is not None
                shelf = self._stops if kind is STOP or kind is STOP_LIMIT else self._touches
                shelf[side].add(order, order.stop)

    def take_limits(self, taken: list[Order], buy: int, sale: int) -> None:
        """Move the limits of buyers at or above the tick `buy`, and of sellers at or below `sale`, to `taken`."""
        self.limits[0].take(buy, taken)
        self.limits[1].take(sale, taken)

    def take_stops(self, taken: list[Order], buy: int, sale: int) -> None:
        """Move the stops of buyers at or below the tick `buy`, and of sellers at or above `sale`, to `taken`."""
        self._stops[0].take(buy, taken)
        self._stops[1].take(sale, taken)

    def take_touches(self, taken: list[Order], buy: int, sale: int) -> None:
        """Move the touches of buyers at or above the tick `buy`, and of sellers at or below `sale`, to `taken`."""
        self._touches[0].take(buy, taken)
        self._touches[1].take(sale, taken)

    def settle(self) -> None:
        """Note whether anything is still filed by price."""
        limits, stops, touches = self.limits, self._stops, self._touches
        self.priced = bool(
            limits[0].keys or limits[1].keys or stops[0].keys or stops[1].keys or touches[0].keys or touches[1].keys
        )
