"""The tables of a report in words: who earned what, what it cost, the drawdowns, the round trips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from evaluation.costs import COST_DEFINITIONS, Breakdown, Cost
from evaluation.display import MISSING, change, count, ratio, share, signed, times, value_of, whole
from evaluation.drawdowns import Drawdown
from evaluation.run import moment
from evaluation.tables import TABLE_DEFINITIONS, Contribution
from evaluation.trading import Report
from evaluation.trips import RoundTrip

Show = Callable[[float], str]

TRIPS_SHOWN = 200
UNALLOCATED = "(unallocated)"
COSTS = {"fees": "Fees", "spread": "Spread", "slippage": "Slippage", "delay": "Delay", "shortfall": "Shortfall"}
CONTRIBUTIONS = {
    "fills": "Fills",
    "volume": "Units",
    "notional": "Traded",
    "turnover": "Turnover",
    "realised": "Realised",
    "open": "Open",
    "fees": "Fees",
    "carry": "Carry",
    "profit": "Profit",
    "share": "Share",
    "round_trips": "Trips",
    "win_rate": "Won",
    "profit_factor": "Profit factor",
    "mean_trip": "Mean trip",
    "deepest_fall": "Deepest fall",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table, ready to print. A cell may hold a second, lesser line after a line break."""

    title: str
    note: str  # "" for none
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1  # leading columns of text; the others are numbers
    totals: int = 0  # closing rows that sum up the others
    definitions: tuple[tuple[str, str], ...] = ()  # of the heads
    tall: bool = False  # too long to be shown whole


def summary_grids(report: Report) -> list[Grid]:
    """The tables that sum up the run, in the order of the page; those without a row are left out."""
    every = [
        contribution_grid("By strategy", "Strategy", report, report.by_strategy or ()),
        contribution_grid("By symbol", "Symbol", report, report.by_symbol),
        cost_grid(report),
        drawdown_grid(report.strategy.drawdowns),
    ]
    return [grid for grid in every if grid.rows]


def contribution_grid(title: str, head: str, report: Report, parts: Sequence[Contribution]) -> Grid:
    money = _money([x for part in parts for x in (part.realised, part.open, part.fees, part.profit)])
    traded = _money([part.notional for part in parts])
    rest = report.profit - sum(part.profit for part in parts)
    partial = {name for name in ("volume", "carry") if any(getattr(part, name) is None for part in parts)}
    keys = [key for key in CONTRIBUTIONS if key not in partial]
    heads = [CONTRIBUTIONS[key] for key in keys]
    rows = [_contribution(part, keys, money, traded) for part in parts]
    blank = dict.fromkeys(keys, "")
    totals = []
    # Sums of floats miss each other by less than a billionth of what was added up.
    if parts and abs(rest) > 1e-9 * max(report.initial_cash, *(part.notional for part in parts), 0.0):
        totals.append(("Elsewhere", *(blank | {"profit": money(rest)}).values()))
    if totals or len(parts) > 1:
        words = {name: money(sum(getattr(part, name) for part in parts)) for name in ("realised", "open", "fees")}
        if "carry" not in partial:
            words["carry"] = money(sum(part.carry or 0.0 for part in parts))
        words |= {
            "notional": traded(sum(part.notional for part in parts)),
            "fills": whole(sum(part.fills for part in parts)),
            "round_trips": whole(sum(part.trips.count for part in parts)),
            "profit": money(report.profit),
        }
        totals.append(("Total", *(blank | words).values()))
    note = f"Money in {report.currency}, foreign profits at the last exchange rate." if parts else ""
    if totals and totals[0][0] == "Elsewhere":
        note += " Elsewhere: what came from no fill of these, such as funding, borrow, dividends, exchange rates."
    return Grid(
        title=title,
        note=note,
        heads=(head, *heads),
        rows=(*rows, *totals),
        totals=len(totals),
        definitions=tuple((CONTRIBUTIONS[key], TABLE_DEFINITIONS[key]) for key in keys),
    )


def cost_grid(report: Report) -> Grid:
    costs = report.costs_paid
    total = costs.total
    every = (*costs.symbols, total)
    money = _money([getattr(part, key).amount.value or 0.0 for part in every for key in COSTS])
    traded = _money([part.notional for part in every])
    rows = [_costs(part, money, traded) for part in (every if len(costs.symbols) > 1 else costs.symbols)]
    note = f"In {report.currency}, and below it in basis points of what was traded."
    if total.fills and not total.priced:
        note += " Spread, slippage and delay were not recorded."
    elif total.priced < total.fills:
        note += f" {count(total.fills - total.priced, 'fill')} without a decision price, of which only the fee counts."
    return Grid(
        title="Costs",
        note=note,
        heads=("Symbol", "Fills", "Traded", *COSTS.values()),
        rows=tuple(rows),
        totals=int(len(rows) > 1),
        definitions=(
            ("Traded", COST_DEFINITIONS["notional"]),
            *((label, COST_DEFINITIONS[key]) for key, label in COSTS.items()),
        ),
    )


def drawdown_grid(falls: Sequence[Drawdown]) -> Grid:
    rows = [
        (
            date(fall.peak),
            date(fall.trough),
            "not by the end" if fall.recovered is None else date(fall.recovered),
            share(fall.depth),
            f"{fall.days_down:,.1f}",
            MISSING if fall.days_up is None else f"{fall.days_up:,.1f}",
            f"{fall.days:,.1f}",
        )
        for fall in falls
    ]
    heads = ("Peak", "Trough", "Recovered", "Depth", "Days down", "Days up", "Days in all")
    return Grid(title="Deepest drawdowns", note="Of every mark, UTC.", heads=heads, rows=tuple(rows), texts=3)


def trip_grid(report: Report) -> Grid:
    shown = report.trips[: -TRIPS_SHOWN - 1 : -1]  # the newest first
    money = _money([trip.profit for trip in shown])
    named = report.by_strategy is not None
    words = [f"Money in {report.currency}, prices in the currency of the market, mean by quantity; times UTC."]
    if len(report.trips) > len(shown):
        words.append(f"The newest {len(shown):,} of {len(report.trips):,}; all are in trips.parquet.")
    if named:
        words.append("Of the strategies' own books; the figures of trading are of the account, where opposites cancel.")
    heads = ("Symbol", "Side", "Opened", "Closed", "Peak units", "Entry", "Exit", "Profit", "Fees", "Return")
    return Grid(
        title="Round trips",
        note=" ".join(words),
        heads=("Strategy", *heads) if named else heads,
        rows=tuple(_trip(trip, money, named=named) for trip in shown),
        texts=5 if named else 4,
        definitions=(("Return", "Profit after fees over the notional of the entries."),),
        tall=True,
    )


def strategy_name(name: str) -> str:
    return name or UNALLOCATED


def date(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def bps(cost: Cost) -> str:
    return value_of(cost.bps, lambda value: signed(f"{value:,.1f} bps"))


def _contribution(part: Contribution, keys: list[str], money: Show, traded: Show) -> tuple[str, ...]:
    words = {
        "fills": whole(part.fills),
        "volume": "" if part.volume is None else f"{part.volume:,.6g}",
        "notional": traded(part.notional),
        "turnover": value_of(part.turnover, times),
        "realised": money(part.realised),
        "open": money(part.open),
        "fees": money(part.fees),
        "carry": "" if part.carry is None else money(part.carry),
        "profit": money(part.profit),
        "share": value_of(part.share, share),
        "round_trips": whole(part.trips.count),
        "win_rate": value_of(part.trips.win_rate, share),
        "profit_factor": value_of(part.trips.profit_factor, ratio),
        "mean_trip": value_of(part.trips.mean_trip, money),
        "deepest_fall": value_of(part.deepest_fall, money),
    }
    return strategy_name(part.name), *(words[key] for key in keys)


def _costs(part: Breakdown, money: Show, traded: Show) -> tuple[str, ...]:
    costs: list[Cost] = [getattr(part, key) for key in COSTS]
    cells = [MISSING if cost.amount.value is None else f"{money(cost.amount.value)}\n{bps(cost)}" for cost in costs]
    return part.symbol or "Total", whole(part.fills), traded(part.notional), *cells


def _trip(trip: RoundTrip, money: Show, *, named: bool) -> tuple[str, ...]:
    owner = (strategy_name(trip.strategy or ""),) if named else ()
    return (
        *owner,
        trip.symbol,
        "long" if trip.long else "short",
        date(moment(trip.opened_ns)),
        date(moment(trip.closed_ns)),
        f"{trip.quantity:,.8g}",
        f"{trip.entry_price:,.8g}",
        f"{trip.exit_price:,.8g}",
        money(trip.profit),
        money(trip.fees),
        change(trip.entry_return),
    )


def _money(amounts: Sequence[float]) -> Show:
    """How the amounts of some columns are written: cents where they are not lost among the digits."""
    digits = 2 if max(map(abs, amounts), default=0.0) < 1e5 else 0
    return lambda value: signed(f"{value:,.{digits}f}")
