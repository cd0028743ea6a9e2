"""Every trade once and in its order, whatever the sockets and requests that bring them do. No I/O and no clock.

`Counted` is for exchanges whose ids count up by one, which shows each gap; `Recent` is for the others.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Counted(Generic[T]):
    """Releases trades by their ids, which count up by one. What comes too early is held until the rest has come.

    Args:
        hold_max: how many trades may be held; beyond it the missing ones are given up, because memory is finite.

    `duplicates` counts what came more than once, `late` what came live after a later id, `lost` ids that were given up.
    """

    def __init__(self, hold_max: int) -> None:
        if hold_max < 1:
            raise ValueError(f"hold_max must be positive, was {hold_max}")
        self._hold_max = hold_max
        self._held: dict[int, T] = {}
        self._newest = -1  # the highest id seen
        self.next_id: int | None = None  # the first one that was not released; None until `start`
        self.duplicates = self.late = self.lost = 0

    @property
    def held(self) -> int:
        """How many wait for an earlier one."""
        return len(self._held)

    def start(self, first_id: int) -> list[T]:
        """Begin with this id; what is held before it is dropped."""
        self.next_id = first_id
        for trade_id in [trade_id for trade_id in self._held if trade_id < first_id]:
            del self._held[trade_id]
        return self._release()

    def restart(self) -> None:
        """The exchange counts anew: forget where it was."""
        self._held.clear()
        self.next_id, self._newest = None, -1

    def offer(self, trades: Iterable[tuple[int, T]]) -> list[T]:
        """Take (id, trade) as they come live, in any order; return what may leave now, in order."""
        out: list[T] = []
        for trade_id, trade in trades:
            if trade_id == self.next_id and not self._held:  # nearly always
                out.append(trade)
                self.next_id = trade_id + 1
            elif self._hold(trade_id, trade) and trade_id < self._newest:
                self.late += 1
            self._newest = max(self._newest, trade_id)
        return out + self._settle() if self._held else out

    def fill(self, trades: Iterable[tuple[int, T]]) -> list[T]:
        """Take (id, trade) that a request fetched; return what may leave now, in order."""
        for trade_id, trade in trades:
            self._hold(trade_id, trade)
        return self._settle()

    def missing(self) -> tuple[int, int] | None:
        """The first gap, as the closed interval of its ids; None where there is none."""
        if self.next_id is None or not self._held:
            return None
        return self.next_id, min(self._held) - 1

    def first_held(self) -> int | None:
        """The lowest id that waits."""
        return min(self._held, default=None)

    def give_up(self, until: int) -> list[T]:
        """The exchange has no trades before id `until` but those that came: go on there."""
        if self.next_id is None or until <= self.next_id:
            return self._release()
        self.lost += until - self.next_id - sum(trade_id < until for trade_id in self._held)
        out = [self._held.pop(trade_id) for trade_id in sorted(self._held) if trade_id < until]
        self.next_id = until
        return out + self._release()

    def _hold(self, trade_id: int, trade: T) -> bool:
        if trade_id in self._held or (self.next_id is not None and trade_id < self.next_id):
            self.duplicates += 1
            return False
        self._held[trade_id] = trade
        return True

    def _settle(self) -> list[T]:
        out = self._release()
        while len(self._held) > self._hold_max:
            if self.next_id is None:
                self.next_id = min(self._held)
            out += self.give_up(min(self._held))
        return out

    def _release(self) -> list[T]:
        out: list[T] = []
        if self.next_id is None:
            return out
        while self.next_id in self._held:
            out.append(self._held.pop(self.next_id))
            self.next_id += 1
        return out


class Recent(Generic[T]):
    """Releases each trade once, by keys that only tell trades apart. Gaps show in nothing but a lost connection.

    After one, `pause` holds back what comes live; what requests fetch since the last one goes first; `resume` lets
    the rest follow.

    Args:
        window: how many of the latest keys are remembered.
        hold_max: how many trades a pause may hold back; beyond it, it ends by itself.

    `duplicates` counts what came more than once.
    """

    def __init__(self, window: int, hold_max: int) -> None:
        if window < 1 or hold_max < 1:
            raise ValueError(f"window and hold_max must be positive, were {window} and {hold_max}")
        self._window, self._hold_max = window, hold_max
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._held: dict[Hashable, T] = {}
        self._paused = False
        self.duplicates = 0

    @property
    def paused(self) -> bool:
        """Whether live trades are being held back."""
        return self._paused

    @property
    def held(self) -> int:
        """How many a pause holds back."""
        return len(self._held)

    def holds(self, key: Hashable) -> bool:
        """Whether this trade is held back."""
        return key in self._held

    def knows(self, key: Hashable) -> bool:
        """Whether this trade was released, as far as the window reaches."""
        return key in self._seen

    def pause(self) -> None:
        """Trades may have been missed: hold back what comes live."""
        self._paused = True

    def offer(self, trades: Iterable[tuple[Hashable, T]]) -> list[T]:
        """Take (key, trade) as they come live; return what may leave now, in order."""
        if not self._paused:
            return self._new(trades)
        for key, trade in trades:
            if key in self._held or key in self._seen:
                self.duplicates += 1
            else:
                self._held[key] = trade
        return self.resume() if len(self._held) > self._hold_max else []

    def fill(self, trades: Iterable[tuple[Hashable, T]]) -> list[T]:
        """Take what a request fetched, oldest first; it leaves before what is held."""
        return self._new(trades)

    def resume(self) -> list[T]:
        """What was missed has come: end the pause and return what it held."""
        held, self._held, self._paused = self._held, {}, False
        return self._new(held.items())

    def _new(self, trades: Iterable[tuple[Hashable, T]]) -> list[T]:
        out = []
        for key, trade in trades:
            if key in self._seen:
                self.duplicates += 1
                continue
            self._seen[key] = None
            out.append(trade)
        while len(self._seen) > self._window:
            self._seen.popitem(last=False)
        return out
