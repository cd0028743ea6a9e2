"""What a strategy did for its return: how much it traded, how its trips ended, how exposed it was."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.drawdowns import DAY_NS
from evaluation.figures import Figure, absent, measured
from evaluation.returns import RETURNS_MIN
from evaluation.run import Fills, Floats, Ints, Marks, RunRecord, point_values, rates
from evaluation.trips import RoundTrip

YEAR_NS = 365.25 * DAY_NS
NO_LENGTH = "the window has no length"


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
    net_exposure: Figure
    long_exposure: Figure
    short_exposure: Figure
    peak_exposure: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class TripFigures:
    """How a set of round trips ended."""

    count: int
    win_rate: Figure
    profit_factor: Figure
    mean_trip: Figure
    holding_hours: Figure


def activity(record: RunRecord, marks: Marks, fills: Fills, trips: Sequence[RoundTrip], *, enough: bool) -> Activity:
    """Trading and exposure of the whole account.

    Args:
        trips: of the account.
        enough: the window has days enough for figures a year.
    """
    traded = turnover(marks, float(notionals(record, fills).sum()))
    span_ns = int(marks.times[-1] - marks.times[0])
    if traded.value is None:
        yearly = traded
    elif not enough:
        yearly = absent(f"needs {RETURNS_MIN} trading days")
    else:
        yearly = measured(traded.value / (span_ns / YEAR_NS))
    ended = trip_figures(trips)
    return Activity(
        fills=measured(len(fills)),
        fees=measured(float(fees_paid(record, fills).sum())),
        turnover=traded,
        turnover_per_year=yearly,
        round_trips=measured(ended.count),
        win_rate=ended.win_rate,
        profit_factor=ended.profit_factor,
        mean_trip=ended.mean_trip,
        holding_hours=ended.holding_hours,
        **_exposures(marks),
    )


def notionals(record: RunRecord, fills: Fills) -> Floats:
    """What each fill traded, in the currency of the account. (F,)"""
    return fills.quantities * fills.prices * point_values(record)[fills.places]


def fees_paid(record: RunRecord, fills: Fills) -> Floats:
    """The fee of each fill, in the currency of the account. (F,)"""
    return fills.fees * rates(record)[fills.places]


def turnover(marks: Marks, notional: float) -> Figure:
    """A traded notional over the time-weighted mean of equity."""
    mean_equity = _time_mean(marks.times, marks.equity)
    if mean_equity is None:
        return absent(NO_LENGTH)
    if mean_equity <= 0.0:
        return absent("mean equity is not positive")
    return measured(notional / mean_equity)


def trip_figures(trips: Sequence[RoundTrip]) -> TripFigures:
    profits = np.array([trip.profit for trip in trips])  # (K,)
    if not trips:
        no = absent("no closed round trip")
        return TripFigures(count=0, win_rate=no, profit_factor=no, mean_trip=no, holding_hours=no)
    wins = int((profits > 0.0).sum())
    losses = float(-profits[profits < 0.0].sum())
    hours = [(trip.closed_ns - trip.opened_ns) / 3.6e12 for trip in trips]
    return TripFigures(
        count=len(trips),
        win_rate=measured(wins / len(trips), interval=wilson_interval(wins, len(trips))),
        profit_factor=measured(float(profits[profits > 0.0].sum()) / losses)
        if losses
        else absent("no round trip lost money"),
        mean_trip=measured(float(profits.mean())),
        holding_hours=measured(float(np.median(hours))),
    )


def wilson_interval(wins: int, count: int) -> tuple[float, float]:
    """95 % interval of a share. Source: Wilson, JASA 22(158), 1927."""
    z = 1.959963984540054
    share = wins / count
    centre = share + z * z / (2 * count)
    half = z * float(np.sqrt(share * (1.0 - share) / count + z * z / (4 * count * count)))
    scale = 1.0 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _exposures(marks: Marks) -> dict[str, Figure]:
    names = ("time_in_market", "gross_exposure", "net_exposure", "long_exposure", "short_exposure", "peak_exposure")
    if _time_mean(marks.times, marks.equity) is None:
        return dict.fromkeys(names, absent(NO_LENGTH))
    unknown = absent("needs the column gross_exposure, with several symbols")
    result = dict.fromkeys(names, unknown)
    if marks.gross is not None:
        result["time_in_market"] = _mean(marks, (marks.gross != 0.0).astype(np.float64))
    if (marks.equity <= 0.0).any():
        return dict.fromkeys(names, absent("equity fell to zero or below")) | {
            "time_in_market": result["time_in_market"]
        }
    net = marks.position_value / marks.equity  # (N,)
    result["net_exposure"] = _mean(marks, net)
    if marks.gross is not None:
        gross = marks.gross / marks.equity  # (N,)
        result["gross_exposure"] = _mean(marks, gross)
        result["long_exposure"] = _mean(marks, (gross + net) / 2.0)
        result["short_exposure"] = _mean(marks, (gross - net) / 2.0)
        result["peak_exposure"] = measured(float(gross.max()))
    return result


def _mean(marks: Marks, values: Floats) -> Figure:
    mean = _time_mean(marks.times, values)
    return absent(NO_LENGTH) if mean is None else measured(mean)


def _time_mean(times: Ints, values: Floats) -> float | None:
    """Mean over time of a value that holds until the next one; None where no time passes."""
    lengths = np.diff(times).astype(np.float64)  # (N - 1,)
    if not lengths.any():
        return None
    return float(lengths @ values[:-1] / lengths.sum())
