"""The judgement of a finished run: every figure of a report, and what it means."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import numpy as np

from evaluation.figures import Figure, absent, measured
from evaluation.hold import Hold, buy_and_hold
from evaluation.returns import (
    DAY_NS,
    REPLICATIONS,
    RETURNS_MIN,
    SEED,
    Performance,
    daily_values,
    performance,
    trading_days,
    undefined,
)
from evaluation.run import DataDescription, Fills, Floats, Ints, Marks, RunRecord, moment, read_fills, read_marks
from evaluation.trips import RoundTrip, round_trips

YEAR_NS = 365.25 * DAY_NS
TOO_DEAR = "the initial cash does not buy one lot"

DEFINITIONS: dict[str, str] = {
    "total_return": "Final equity over initial cash, minus one, after all costs.",
    "annual_return": "Compound growth a year: daily returns multiplied up, raised to trading days a year over days "
    "seen, minus one.",
    "volatility": "Standard deviation of daily returns times the root of trading days a year.",
    "sharpe": "Mean over standard deviation of daily returns, times the root of trading days a year, riskless rate "
    "zero; standard error after Mertens (2002), which allows for skewness and fat tails.",
    "deflated_sharpe": "Probability that the true Sharpe ratio exceeds what the best of the stated number of worthless "
    "trials would show by luck (Bailey & López de Prado 2014); with one trial, that it exceeds zero.",
    "sortino": "Mean daily return over the root of the mean squared daily loss, times the root of trading days a year, "
    "target zero.",
    "calmar": "Annual return over maximum drawdown.",
    "max_drawdown": "Deepest fall of equity from its running peak, as a fraction of the peak, over every mark; "
    "its interval comes from daily values.",
    "drawdown_days": "Days from the peak before the deepest fall until equity was back there, or until the end.",
    "fills": "Number of executions.",
    "fees": "Sum of the fees of all fills, rebates subtracted.",
    "turnover": "Sum of the notional of all fills over the time-weighted mean of equity.",
    "turnover_per_year": "Turnover over the years of the window, 365.25 days each.",
    "round_trips": "Excursions from flat and back in one symbol, at average cost; a fill through zero ends one and "
    "begins the next; what is still open does not count.",
    "win_rate": "Share of round trips that made money after their fees; Wilson (1927) interval.",
    "profit_factor": "Money made in winning round trips over money lost in losing ones, after fees.",
    "mean_trip": "Mean profit of a round trip, after fees.",
    "holding_hours": "Median hours from the first to the last fill of a round trip.",
    "time_in_market": "Share of calendar time with an open position.",
    "gross_exposure": "Time-weighted mean of the sum of absolute position values over equity.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What the strategy did for its return."""

    fills: Figure
    fees: Figure
    turnover: Figure
    turnover_per_year: Figure
    round_trips: Figure
    win_rate: Figure
    profit_factor: Figure
    mean_trip: Figure
    holding_hours: Figure
    time_in_market: Figure
    gross_exposure: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All figures of a run and what they rest on."""

    title: str
    partial: bool
    data: DataDescription
    start: datetime  # naive UTC, of the figures
    end: datetime
    symbols: tuple[str, ...]
    costs: tuple[str, ...]
    sample: str
    facts: tuple[tuple[str, str], ...]
    currency: str
    initial_cash: float
    final_equity: float
    days_per_year: int
    trials: int
    open_symbols: tuple[str, ...]  # held at the end
    strategy: Performance
    activity: Activity
    buy_and_hold: Performance
    buy_and_hold_fees: Figure
    months: tuple[tuple[str, float], ...]  # ("2017-07", return), strategy; empty where returns are undefined


def evaluate(record: RunRecord) -> Report:
    """Judge a finished run.

    Annual figures come from daily returns: equity at the end of each UTC day (a mark at midnight ends the day before;
    where the market is not open all week, weekends belong to Monday), over the equity of the day before, the first
    over `initial_cash`. A day without a mark repeats the one before.

    Raises:
        ValueError: a table lacks a column, has no mark, or holds NaN, disorder or an unknown symbol.
    """
    marks, fills = read_marks(record), read_fills(record)
    hold = buy_and_hold(record)
    seen = np.concatenate([marks.times, *(market.times for market in record.markets)])
    days = trading_days(seen, record.days_per_year)
    trips, _, held = round_trips(fills, record.markets)
    return Report(
        title=record.title,
        partial=record.partial,
        data=record.data,
        start=moment(int(marks.times[0])),
        end=moment(int(marks.times[-1])),
        symbols=tuple(market.symbol for market in record.markets),
        costs=record.costs,
        sample=record.sample,
        facts=record.facts,
        currency=record.currency,
        initial_cash=record.initial_cash,
        final_equity=float(marks.equity[-1]),
        days_per_year=record.days_per_year,
        trials=record.trials,
        open_symbols=tuple(held),
        strategy=performance(
            marks.times,
            marks.equity,
            initial=record.initial_cash,
            days=days,
            days_per_year=record.days_per_year,
            trials=record.trials,
        ),
        activity=_activity(record, marks, fills, trips, enough=len(days) >= RETURNS_MIN),
        buy_and_hold=_held(record, hold, days),
        buy_and_hold_fees=measured(hold.fees) if any(hold.quantities) else absent(TOO_DEAR),
        months=_months(record, marks, days),
    )


def plain(report: Report) -> dict[str, Any]:
    """The report as JSON-ready data: finite numbers, strings, booleans, None, lists and dicts in a fixed order."""
    return {
        "schema": 1,
        "title": report.title,
        "partial": report.partial,
        "data": {
            "path": report.data.path,
            "sha256": report.data.sha256,
            "rows": report.data.rows,
            "start": _stamp(report.data.start),
            "end": _stamp(report.data.end),
        },
        "window": {"start": _stamp(report.start), "end": _stamp(report.end)},
        "symbols": list(report.symbols),
        "costs": list(report.costs),
        "sample": report.sample,
        "facts": dict(report.facts),
        "currency": report.currency,
        "initial_cash": report.initial_cash,
        "final_equity": report.final_equity,
        "open_symbols": list(report.open_symbols),
        "strategy": _plain_performance(report.strategy),
        "activity": {field.name: _plain_figure(getattr(report.activity, field.name)) for field in fields(Activity)},
        "buy_and_hold": _plain_performance(report.buy_and_hold) | {"fees": _plain_figure(report.buy_and_hold_fees)},
        "months": dict(report.months),
        "method": {
            "days_per_year": report.days_per_year,
            "daily_returns": report.strategy.returns,
            "trials": report.trials,
            "bootstrap": {
                "kind": "stationary, percentile interval, 95 %",
                "replications": REPLICATIONS,
                "seed": SEED,
                "mean_block_days": report.strategy.block_days,
            },
        },
        "definitions": DEFINITIONS,
    }


def wilson_interval(wins: int, count: int) -> tuple[float, float]:
    """95 % interval of a share. Source: Wilson, JASA 22(158), 1927."""
    z = 1.959963984540054
    share = wins / count
    centre = share + z * z / (2 * count)
    half = z * float(np.sqrt(share * (1.0 - share) / count + z * z / (4 * count * count)))
    scale = 1.0 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _activity(record: RunRecord, marks: Marks, fills: Fills, trips: list[RoundTrip], *, enough: bool) -> Activity:
    span_ns = int(marks.times[-1] - marks.times[0])
    turnover = _turnover(record, marks, fills)
    if turnover.value is None:
        yearly = turnover
    elif not enough:
        yearly = absent(f"needs {RETURNS_MIN} trading days")
    else:
        yearly = measured(turnover.value / (span_ns / YEAR_NS))
    profits = np.array([trip.profit for trip in trips])
    no_trip = absent("no closed round trip")
    wins = int((profits > 0.0).sum())
    losses = float(-profits[profits < 0.0].sum())
    no_loss = absent("no round trip lost money")
    hours = [(trip.closed_ns - trip.opened_ns) / 3.6e12 for trip in trips]
    in_market, gross = _exposure(marks)
    return Activity(
        fills=measured(len(fills.symbols)),
        fees=measured(float(fills.fees.sum())),
        turnover=turnover,
        turnover_per_year=yearly,
        round_trips=measured(len(trips)),
        win_rate=measured(wins / len(trips), interval=wilson_interval(wins, len(trips))) if trips else no_trip,
        profit_factor=(measured(float(profits[profits > 0.0].sum()) / losses) if losses else no_loss)
        if trips
        else no_trip,
        mean_trip=measured(float(profits.mean())) if trips else no_trip,
        holding_hours=measured(float(np.median(hours))) if trips else no_trip,
        time_in_market=in_market,
        gross_exposure=gross,
    )


def _turnover(record: RunRecord, marks: Marks, fills: Fills) -> Figure:
    multipliers = {market.symbol: market.multiplier for market in record.markets}
    sizes = np.array([multipliers[symbol] for symbol in fills.symbols])  # (F,)
    mean_equity = _time_mean(marks.times, marks.equity)
    if mean_equity is None:
        return absent("the window has no length")
    if mean_equity <= 0.0:
        return absent("mean equity is not positive")
    return measured(float((fills.quantities * fills.prices * sizes).sum()) / mean_equity)


def _exposure(marks: Marks) -> tuple[Figure, Figure]:
    if marks.gross is None:
        no = absent("needs the column gross_exposure, with several symbols")
        return no, no
    in_market = _time_mean(marks.times, (marks.gross != 0.0).astype(np.float64))
    if in_market is None:
        no = absent("the window has no length")
        return no, no
    if (marks.equity <= 0.0).any():
        return measured(in_market), absent("equity fell to zero or below")
    mean = _time_mean(marks.times, marks.gross / marks.equity)
    return measured(in_market), absent("the window has no length") if mean is None else measured(mean)


def _time_mean(times: Ints, values: Floats) -> float | None:
    """Mean over time of a value that holds until the next one; None where no time passes."""
    lengths = np.diff(times).astype(np.float64)  # (N - 1,)
    if not lengths.any():
        return None
    return float(lengths @ values[:-1] / lengths.sum())


def _held(record: RunRecord, hold: Hold, days: Ints) -> Performance:
    if not any(hold.quantities):
        return undefined(TOO_DEAR)
    return performance(
        hold.times, hold.equity, initial=record.initial_cash, days=days, days_per_year=record.days_per_year
    )


def _months(record: RunRecord, marks: Marks, days: Ints) -> tuple[tuple[str, float], ...]:
    if (marks.equity <= 0.0).any():
        return ()
    values = daily_values(
        marks.times, marks.equity, days=days, initial=record.initial_cash, days_per_year=record.days_per_year
    )  # (D + 1,)
    months = days.astype("datetime64[D]").astype("datetime64[M]")  # (D,)
    ends = np.flatnonzero(np.append(months[1:] != months[:-1], True))  # (M,) last day of each month
    closes = np.concatenate([values[:1], values[1:][ends]])  # (M + 1,)
    returns = closes[1:] / closes[:-1] - 1.0  # (M,)
    return tuple((str(month), float(value)) for month, value in zip(months[ends], returns, strict=True))


def _plain_figure(figure: Figure) -> dict[str, Any]:
    return {
        "value": figure.value,
        "standard_error": figure.standard_error,
        "interval_95": None if figure.interval is None else list(figure.interval),
        "reason": figure.reason,
    }


def _plain_performance(performance: Performance) -> dict[str, Any]:
    span = performance.drawdown
    figures = [field.name for field in fields(performance) if isinstance(getattr(performance, field.name), Figure)]
    return {name: _plain_figure(getattr(performance, name)) for name in figures} | {
        "drawdown": None
        if span is None
        else {
            "peak": _stamp(span.peak),
            "trough": _stamp(span.trough),
            "recovered": None if span.recovered is None else _stamp(span.recovered),
        },
    }


def _stamp(time: datetime) -> str:
    return time.isoformat() + "Z"
