"""Who earned what: profit, trading and trips of each symbol and of each strategy."""

from dataclasses import dataclass

import numpy as np

from evaluation.activity import TripFigures, fees_paid, notionals, trip_figures, turnover
from evaluation.drawdowns import fall
from evaluation.figures import Figure, absent, measured
from evaluation.run import Fills, Floats, Flows, Ints, Market, Marks, RunRecord, rates
from evaluation.trips import Accounts, Book, RoundTrip

GRID_MAX = 20_000  # points of a profit curve
TABLE_DEFINITIONS: dict[str, str] = {
    "fills": "Number of executions.",
    "volume": "Units traded, bought and sold.",
    "notional": "Sum of quantity times price of all fills.",
    "turnover": "Notional over the time-weighted mean of the account's equity.",
    "realised": "Profit of what was closed, at average cost, before fees.",
    "open": "Profit of what is still held, at the last price.",
    "fees": "Sum of all fees, rebates subtracted; fees in base units at the price of their fill.",
    "carry": "Funding, borrow, interest and dividends received, less what was paid.",
    "profit": "Realised and open profit and carry, less fees.",
    "share": "Profit over that of the account.",
    "round_trips": "Closed excursions from flat and back.",
    "win_rate": "Share of round trips that made money after their fees.",
    "profit_factor": "Money made in winning round trips over money lost in losing ones, after fees.",
    "mean_trip": "Mean profit of a round trip, after fees.",
    "deepest_fall": "Deepest fall of its own profit from its running peak, at the prices kept for buy and hold: an "
    "amount, for it has no capital of its own.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """What one symbol, or one strategy, added to the account. Money is in the currency of the account."""

    name: str
    fills: int
    volume: float | None  # base units or contracts; None for a strategy, whose symbols' units do not add up
    notional: float
    turnover: Figure
    realised: float  # before fees
    open: float  # before fees
    fees: float
    carry: float | None  # None: not recorded, or of a strategy, to which it is not shared out
    profit: float
    share: Figure
    trips: TripFigures
    deepest_fall: Figure


def by_symbol(
    record: RunRecord, marks: Marks, fills: Fills, accounts: Accounts, flows: Flows | None
) -> tuple[Contribution, ...]:
    """The symbols that were traded, in the order of the markets."""
    trips: dict[str, list[RoundTrip]] = {}
    for trip in accounts.trips:
        trips.setdefault(trip.symbol, []).append(trip)
    table = []
    for place, market in enumerate(record.markets):
        rows = np.flatnonzero(fills.places == place)  # (K,)
        if rows.size:
            table.append(
                _contribution(
                    record,
                    marks,
                    fills,
                    rows,
                    market.symbol,
                    [accounts.books[None, market.symbol]],
                    trips.get(market.symbol, []),
                    volume=float(fills.quantities[rows].sum()),
                    flows=None if flows is None else flows.of(place),
                )
            )
    return tuple(table)


def by_strategy(record: RunRecord, marks: Marks, fills: Fills, accounts: Accounts) -> tuple[Contribution, ...]:
    """The strategies by name; what belongs to none comes last."""
    trips: dict[str | None, list[RoundTrip]] = {}
    for trip in accounts.trips:
        trips.setdefault(trip.strategy, []).append(trip)
    table = []
    for name in sorted(filter(None, fills.names)) + [name for name in fills.names if not name]:
        rows = np.flatnonzero(fills.owners == fills.names.index(name))  # (K,)
        books = [book for (owner, _), book in accounts.books.items() if owner == name]
        table.append(_contribution(record, marks, fills, rows, name or "", books, trips.get(name, [])))
    return tuple(table)


def total_profit(record: RunRecord, marks: Marks) -> float:
    """What the account earned in all, open positions at the last mark."""
    return float(marks.equity[-1]) - record.initial_cash


def _contribution(
    record: RunRecord,
    marks: Marks,
    fills: Fills,
    rows: Ints,
    name: str,
    books: list[Book],
    trips: list[RoundTrip],
    volume: float | None = None,
    flows: Flows | None = None,
) -> Contribution:
    last = {market.symbol: market.last_price for market in record.markets}
    notional = float(notionals(record, fills)[rows].sum())
    realised = sum(book.realised * book.rate for book in books)
    still_open = sum(book.unrealised(last[book.symbol]) * book.rate for book in books)
    fees = float(fees_paid(record, fills)[rows].sum())
    carry = None if flows is None else float((flows.amounts * rates(record)[flows.places]).sum())
    profit = realised + still_open - fees + (carry or 0.0)
    total = total_profit(record, marks)
    # Below a billionth of the cash a profit is the rounding of sums.
    earned = abs(total) > 1e-9 * record.initial_cash
    return Contribution(
        name=name,
        fills=len(rows),
        volume=volume,
        notional=notional,
        turnover=turnover(marks, notional),
        realised=realised,
        open=still_open,
        fees=fees,
        carry=carry,
        profit=profit,
        share=measured(profit / total) if earned else absent("the account earned nothing"),
        trips=trip_figures(trips),
        deepest_fall=measured(fall(np.append(profit_curve(record, fills, rows, flows), profit))),
    )


def profit_curve(record: RunRecord, fills: Fills, rows: Ints, flows: Flows | None = None) -> Floats:
    """The profit of some fills after fees, at the prices kept of their markets, at most `GRID_MAX` points.

    Args:
        rows: (K,) rows of the fills, rising.
        flows: what else came in or went out.
    """
    places = np.unique(fills.places[rows])
    times = np.unique(np.concatenate([record.markets[place].times for place in places]))  # (P,)
    if len(times) > GRID_MAX:
        times = times[np.linspace(0, len(times) - 1, GRID_MAX).round().astype(np.int64)]  # (GRID_MAX,)
    profit = np.zeros(len(times))  # (P,)
    for place in places:
        market = record.markets[place]
        own = rows[fills.places[rows] == place]  # (K',)
        profit += _curve(market, fills, own, times) * market.rate
    if flows is not None:
        received = np.concatenate([[0.0], np.cumsum(flows.amounts * rates(record)[flows.places])])  # (C + 1,)
        profit += received[np.searchsorted(flows.times, times, side="right")]
    return profit


def _curve(market: Market, fills: Fills, rows: Ints, times: Ints) -> Floats:
    """The profit in one market, quote currency. (P,)"""
    traded = fills.times[rows]  # (K,)
    moved = fills.signs[rows] * fills.moved[rows]  # (K,)
    paid = moved * fills.prices[rows] * market.multiplier + fills.fees[rows]  # (K,)
    cash = np.concatenate([[0.0], -np.cumsum(paid)])  # (K + 1,)
    held = np.concatenate([[0.0], np.cumsum(moved / market.units(traded))])  # (K + 1,) in units of the start
    done = np.searchsorted(traded, times, side="right")  # (P,) fills so far
    seen = np.maximum(np.searchsorted(market.times, times, side="right"), 1)  # (P,) prices so far
    profit: Floats = cash[done] + held[done] * market.units(times) * market.multiplier * market.closes[seen - 1]
    return profit
