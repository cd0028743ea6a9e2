"""The judgement of a finished run: every figure of a report, and what it means."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from evaluation.activity import Activity, activity
from evaluation.aims import Aim, volatility_aim
from evaluation.costs import Costs, costs
from evaluation.figures import Figure, absent, measured
from evaluation.foresight import Foresight, foresight
from evaluation.hold import Hold, buy_and_hold
from evaluation.returns import RETURNS_MIN, Performance, daily_values, performance, trading_days, undefined
from evaluation.run import (
    Advisor,
    Checkpoint,
    DataDescription,
    Ints,
    Marks,
    RunRecord,
    moment,
    read_fills,
    read_flows,
    read_marks,
    read_strategy_fills,
)
from evaluation.tables import Contribution, by_strategy, by_symbol
from evaluation.trips import RoundTrip, account

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
    "fees": "Sum of the fees of all fills, rebates subtracted; fees in base units at the price of their fill.",
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
    "net_exposure": "Time-weighted mean of the sum of position values over equity, short ones negative.",
    "long_exposure": "Time-weighted mean of the value of long positions over equity.",
    "short_exposure": "Time-weighted mean of the absolute value of short positions over equity.",
    "peak_exposure": "Largest sum of absolute position values over equity, at any mark.",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Report:
    """All figures of a run and what they rest on. Money is in the currency of the account."""

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
    costs_paid: Costs
    by_symbol: tuple[Contribution, ...]
    by_strategy: tuple[Contribution, ...] | None  # None: the strategies are not told apart
    trips: tuple[RoundTrip, ...]  # of each strategy where they are told apart, else of the account; by their ends
    entries: npt.NDArray[np.bool_]  # (F,) the account's fills that opened or enlarged a position
    checkpoints: tuple[Checkpoint, ...]  # of the price models that spoke
    in_sample: tuple[tuple[datetime, datetime], ...]  # parts of the run that a price model was trained on
    foresight: tuple[Foresight, ...]  # how the forecasts did, all symbols first; empty where no price model spoke
    halflife_bars: float | None  # of the EWMA volatility that they are measured against
    aim: Aim | None  # None: no strategy sizes by volatility
    advisor: Advisor | None  # None: nobody read news

    @property
    def profit(self) -> float:
        return self.final_equity - self.initial_cash

    @property
    def elsewhere(self) -> float:
        """Profit of no symbol: flows not recorded, other exchange rates, parts of units that a split paid out."""
        return self.profit - sum(part.profit for part in self.by_symbol)


def evaluate(record: RunRecord) -> Report:
    """Judge a finished run.

    Annual figures come from daily returns: equity at the end of each UTC day (a mark at midnight ends the day before;
    where the market is not open all week, weekends belong to Monday), over the equity of the day before, the first
    over `initial_cash`. A day without a mark repeats the one before.

    Raises:
        ValueError: a table lacks a column, has no mark, or holds NaN, disorder or an unknown symbol.
    """
    marks, fills, strategy_fills = read_marks(record), read_fills(record), read_strategy_fills(record)
    hold, model = buy_and_hold(record), record.model
    seen = np.concatenate([marks.times, *(market.times for market in record.markets)])
    days = trading_days(seen, record.days_per_year)
    accounts = account(fills, record.markets)
    strategies = None if strategy_fills is None else account(strategy_fills, record.markets)
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
        open_symbols=tuple(market.symbol for market in record.markets if market.symbol in accounts.held),
        strategy=performance(
            marks.times,
            marks.equity,
            initial=record.initial_cash,
            days=days,
            days_per_year=record.days_per_year,
            trials=record.trials,
        ),
        activity=activity(record, marks, fills, accounts.trips, enough=len(days) >= RETURNS_MIN),
        buy_and_hold=_held(record, hold, days),
        buy_and_hold_fees=measured(hold.fees) if any(hold.quantities) else absent(TOO_DEAR),
        months=_months(record, marks, days),
        costs_paid=costs(record, fills),
        by_symbol=by_symbol(record, marks, fills, accounts, read_flows(record)),
        by_strategy=None
        if strategy_fills is None or strategies is None
        else by_strategy(record, marks, strategy_fills, strategies),
        trips=accounts.trips if strategies is None else strategies.trips,
        entries=accounts.entries,
        checkpoints=() if model is None else model.checkpoints,
        in_sample=record.in_sample,
        foresight=() if model is None else foresight(model),
        halflife_bars=None if model is None else model.halflife_bars,
        aim=volatility_aim(record, marks),
        advisor=record.advisor,
    )


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
