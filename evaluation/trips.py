"""Round trips: what each excursion from flat and back earned, by average cost."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.run import Fills, Market


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """One excursion from flat and back."""

    symbol: str
    long: bool
    opened_ns: int
    closed_ns: int
    profit: float  # quote currency, net of the fees of its fills
    fees: float  # quote currency


@dataclass(slots=True)
class _Position:
    quantity: float = 0.0  # signed
    average: float = 0.0  # quote currency
    realised: float = 0.0  # of the trip so far, before fees
    fees: float = 0.0  # of the trip so far
    opened_ns: int = 0


def round_trips(fills: Fills, markets: tuple[Market, ...]) -> tuple[list[RoundTrip], npt.NDArray[np.bool_], list[str]]:
    """Account for all fills in their order.

    A trip begins with the fill that leaves flat and ends with the fill that returns to it; what is added or taken off
    between belongs to it. A fill that goes through zero ends one trip and begins the next: its fee is split between
    them by quantity.

    Returns:
        The closed trips in the order of their ends; (F,) whether a fill opened or enlarged a position, as one that goes
        through zero does; and the symbols that were still held at the end.
    """
    book = {market.symbol: _Position() for market in markets}
    rules = {market.symbol: (market.multiplier, market.lot / 2.0) for market in markets}
    trips: list[RoundTrip] = []
    entries = np.zeros(len(fills.symbols), dtype=np.bool_)
    rows = zip(
        fills.times.tolist(),
        fills.symbols,
        fills.buys.tolist(),
        fills.quantities.tolist(),
        fills.prices.tolist(),
        fills.fees.tolist(),
        strict=True,
    )
    for row, (time_ns, symbol, buy, quantity, price, fee) in enumerate(rows):
        held = book[symbol]
        multiplier, dust = rules[symbol]  # dust: sums of floats miss zero by less than half a lot
        opening = quantity
        if held.quantity != 0.0 and (held.quantity > 0.0) != buy:
            closing = min(quantity, abs(held.quantity))
            opening = quantity - closing if quantity - closing > dust else 0.0
            share = fee * (1.0 - opening / quantity)
            direction = 1.0 if held.quantity > 0.0 else -1.0
            held.realised += (price - held.average) * closing * multiplier * direction
            held.fees += share
            held.quantity -= closing * direction
            fee -= share
            if abs(held.quantity) <= dust:
                profit = held.realised - held.fees
                trips.append(RoundTrip(symbol, direction > 0.0, held.opened_ns, time_ns, profit, held.fees))
                held = book[symbol] = _Position()
        if opening:
            entries[row] = True
            if held.quantity == 0.0:
                held.opened_ns = time_ns
            size = abs(held.quantity) + opening
            held.average += (price - held.average) * opening / size
            held.quantity = size if buy else -size
            held.fees += fee
    return trips, entries, [symbol for symbol, held in book.items() if held.quantity != 0.0]
