"""Round trips: what each excursion from flat and back earned, by average cost."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.run import Fills, Market

WHOLE = 1.0 - 1e-6  # of a lot; less than that cannot be traded away: the position counts as flat


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """One excursion from flat and back. Prices are in the currency of the market, money in that of the account."""

    strategy: str | None  # None: of the whole account
    symbol: str
    long: bool
    opened_ns: int
    closed_ns: int
    quantity: float  # base units or contracts, at the peak
    entry_price: float  # mean, by quantity
    exit_price: float
    profit: float  # net of the fees of its fills
    fees: float
    entry_return: float  # profit over the notional of its entries


@dataclass(slots=True)
class Book:
    """The position of one strategy, or of the account, in one market. Quote currency."""

    symbol: str
    lot: float
    grain: float  # quantities up to this are the rounding of sums of floats
    value: float  # multiplier
    rate: float  # to the currency of the account
    quantity: float = 0.0  # signed
    average: float = 0.0
    realised: float = 0.0  # of the whole run, before fees
    fees: float = 0.0  # of the whole run
    # Of the trip so far, since the position was last flat.
    opened_ns: int | None = None
    peak: float = 0.0
    entered: float = 0.0  # units
    entry_points: float = 0.0  # units times price
    left: float = 0.0
    exit_points: float = 0.0
    trip_realised: float = 0.0
    trip_fees: float = 0.0
    splits: int = 0  # of its market, so far

    @property
    def flat(self) -> bool:
        return abs(self.quantity) < WHOLE * self.lot

    def unrealised(self, price: float) -> float:
        """The profit of what is held at `price`."""
        return self.quantity * (price - self.average) * self.value if self.quantity else 0.0

    def split(self, ratio: float) -> None:
        """Turn every unit into `ratio` units; what they cost stays the same."""
        self.quantity *= ratio
        self.average /= ratio
        self.peak *= ratio
        self.entered *= ratio
        self.left *= ratio
        self.splits += 1

    def reduce(self, quantity: float, price: float, fee: float) -> None:
        """Take off `quantity`, no more than is held, and pay `fee`."""
        direction = 1.0 if self.quantity > 0.0 else -1.0
        gain = (price - self.average) * quantity * self.value * direction
        self.realised += gain
        self.trip_realised += gain
        self.left += quantity
        self.exit_points += quantity * price
        self.pay(fee)
        self.quantity -= quantity * direction
        if abs(self.quantity) <= self.grain:
            self.quantity = 0.0

    def add(self, quantity: float, price: float, fee: float, *, buy: bool, time_ns: int) -> bool:
        """Open or enlarge the position; return whether there is one after it."""
        size = abs(self.quantity) + quantity
        self.average += (price - self.average) * quantity / size
        self.quantity = size if buy else -size
        self.entered += quantity
        self.entry_points += quantity * price
        self.peak = max(self.peak, size)
        self.pay(fee)
        if self.flat:
            return False
        if self.opened_ns is None:
            self.opened_ns = time_ns
        return True

    def pay(self, fee: float) -> None:
        self.fees += fee
        self.trip_fees += fee

    def finish(self, strategy: str | None, symbol: str, time_ns: int, *, long: bool) -> RoundTrip:
        """End the trip. What is left of a lot stays in the book at its cost, and goes into the next one."""
        profit = (self.trip_realised - self.trip_fees) * self.rate
        notional = self.entry_points * self.value * self.rate
        trip = RoundTrip(
            strategy,
            symbol,
            long,
            time_ns if self.opened_ns is None else self.opened_ns,
            time_ns,
            self.peak,
            self.entry_points / self.entered,
            self.exit_points / self.left,
            profit,
            self.trip_fees * self.rate,
            profit / notional,
        )
        self.opened_ns = None
        self.peak = self.entered = abs(self.quantity)
        self.entry_points = self.entered * self.average
        self.left = self.exit_points = self.trip_realised = self.trip_fees = 0.0
        return trip


@dataclass(frozen=True, slots=True, eq=False)
class Accounts:
    """All fills, accounted for."""

    trips: tuple[RoundTrip, ...]  # closed, in the order of their ends
    entries: npt.NDArray[np.bool_]  # (F,) whether a fill opened or enlarged a position, as one through zero does
    books: dict[tuple[str | None, str], Book]  # by strategy and symbol; those that had a fill

    @property
    def held(self) -> tuple[str, ...]:
        """The symbols with an open position at the end."""
        return tuple(symbol for (_, symbol), book in self.books.items() if not book.flat)


def account(fills: Fills, markets: tuple[Market, ...]) -> Accounts:
    """Account for all fills in their order, each strategy for itself where they are told apart.

    A trip begins with the fill that leaves flat and ends with the fill that returns to it; what is added or taken off
    between belongs to it. A fill that goes through zero ends one trip and begins the next: its fee is split between
    them by quantity. Less than a lot counts as flat: it can be left over where fees are taken in base units.

    A split multiplies what is held; a trip across one counts its units, and its prices, in those of its end.
    """
    books: dict[tuple[str | None, str], Book] = {}
    trips: list[RoundTrip] = []
    entries = np.zeros(len(fills), dtype=np.bool_)
    whole = bool((fills.moved == fills.quantities).all())
    rows = zip(
        fills.times.tolist(),
        fills.owners.tolist(),
        fills.places.tolist(),
        fills.buys.tolist(),
        fills.moved.tolist(),
        fills.prices.tolist(),
        fills.fees.tolist(),
        strict=True,
    )
    for row, (time_ns, owner, place, buy, quantity, price, fee) in enumerate(rows):
        market = markets[place]
        strategy = fills.names[owner]
        key = strategy, market.symbol
        book = books.get(key)
        if book is None:
            grain = market.lot * (0.5 if whole else 1e-9)
            book = books[key] = Book(market.symbol, market.lot, grain, market.multiplier, market.rate)
        while book.splits < len(market.splits) and market.splits[book.splits][0] < time_ns:
            book.split(market.splits[book.splits][1])
        opening = quantity
        if book.quantity and (book.quantity > 0.0) != buy:
            closing = min(quantity, abs(book.quantity))
            opening = quantity - closing if quantity - closing > book.grain else 0.0
            part = fee * (1.0 - opening / quantity)
            book.reduce(closing, price, part)
            fee -= part
            if book.opened_ns is not None and book.flat:
                trips.append(book.finish(strategy, market.symbol, time_ns, long=not buy))
        if opening:
            entries[row] = book.add(opening, price, fee, buy=buy, time_ns=time_ns)
    splits = {market.symbol: market.splits for market in markets}
    for (_, symbol), book in books.items():
        for _, ratio in splits[symbol][book.splits :]:
            book.split(ratio)
    return Accounts(tuple(trips), entries, books)
