"""One side of the order book as the market shows it, and the lots that own orders have left of it."""

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

from brokers.costs import FillModel
from brokers.units import Steps
from brokers.working import Near, near, within


class Level:
    """What is shown at one price."""

    __slots__ = ("left", "price", "size", "ticks")

    def __init__(self, price: float, ticks: Near, size: float, left: int) -> None:
        self.price = price
        self.ticks = ticks
        self.size = size  # lots
        self.left = left  # lots that own orders may still take


class Ladder:
    """The levels of one side, the best first. A level with no size, or a price that is no positive number, is none.

    Args:
        sign: +1 the asks, which buyers take; -1 the bids.
    """

    __slots__ = ("_keys", "_levels", "_model", "_sign", "_steps")

    def __init__(self, sign: int, steps: Steps, model: FillModel) -> None:
        self._sign, self._steps, self._model = sign, steps, model
        self._levels: dict[float, Level] = {}  # by key, which is the price times the sign
        self._keys: list[float] = []  # ascending

    def quote(self, price: float, size_lots: float) -> None:
        """The one level that is known."""
        keys = self._keys
        if len(keys) == 1 and size_lots > 0.0:
            level = self._levels[keys[0]]
            if level.price == price:
                level.size, level.left = size_lots, self._model.shown_lots(size_lots)
                return
        self.update(((price, size_lots),), snapshot=True)

    def update(self, changes: Iterable[Sequence[float]], *, snapshot: bool) -> list[Near]:
        """Set the size of each level named, which renews what is left of it; a snapshot forgets the others.

        Args:
            changes: (price, size in lots); a size of 0.0 deletes the level.

        Returns:
            The prices named.
        """
        if snapshot:
            self._keys.clear()
            self._levels.clear()
        return [self._set(price, size) for price, size in changes if 0.0 < price < math.inf]

    def _set(self, price: float, size_lots: float) -> Near:
        ticks = near(self._steps, price)
        if ticks.down == ticks.up:
            price = self._steps.value(ticks.down)  # a hair off the tick is no other level
        key = self._sign * price
        if size_lots > 0.0:
            if key not in self._levels:
                insort(self._keys, key)
            self._levels[key] = Level(price, ticks, size_lots, self._model.shown_lots(size_lots))
        elif key in self._levels:
            del self._levels[key], self._keys[bisect_left(self._keys, key)]
        return ticks

    @property
    def best(self) -> Level | None:
        return self._levels[self._keys[0]] if self._keys else None

    def at(self, ticks: int) -> Level | None:
        """The level at a tick."""
        return self._levels.get(self._sign * self._steps.value(ticks))

    def crossed(self, limit: int | None, lots: int) -> list[Level]:
        """The levels that are at `limit` or better for who takes them, as far as `lots` go; of all without a limit."""
        levels = []
        for key in self._keys:
            level = self._levels[key]
            if limit is not None and not within(self._sign, level.ticks, limit):
                break
            levels.append(level)
            lots -= level.left
            if lots <= 0:
                break
        return levels
