"""How volatile the account was, against what its strategies sized their positions for."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.bootstrap import day_bootstrap
from evaluation.figures import Figure, absent, measured
from evaluation.run import Floats, Ints, Marks, RunRecord, VolatilityTarget

HOUR_NS = 3_600_000_000_000
HOURS_PER_YEAR = 8_766  # 365.25 days: calendar time, as sizing counts it
AIM_DEFINITIONS: dict[str, str] = {
    "realised": "Root of the mean squared change of log equity from UTC hour to UTC hour, times the root of 8,766 "
    "hours a year: realised volatility over calendar time, as sizing measures it.",
    "in_market": "The same over the hours of which a position was held for at least half.",
    "hours_in_market": "How many hours those were, of how many.",
    "target": "Annual volatility of the account that a full position in one symbol is sized for. Weaker opinions, "
    "leverage_max and time without a position bring the account below it, several symbols at once above it.",
}
_SETTLE_NS = 1_000  # a mark may settle a microsecond after the instant that it marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """Realised volatility of the account, annual, and what was aimed at."""

    targets: tuple[VolatilityTarget, ...]  # at least one
    target: float | None  # of the account; None: there are several strategies, and the account has none
    realised: Figure
    in_market: Figure
    hours: int
    hours_in_market: int | None  # None: not recorded


def volatility_aim(record: RunRecord, marks: Marks) -> Aim | None:
    """Compare; None where no strategy sizes by volatility. Intervals are of whole days drawn again.

    Source: Andersen & Bollerslev, "Answering the skeptics: yes, standard volatility models do provide accurate
    forecasts", International Economic Review 39(4), 1998, for realised volatility.
    """
    if not record.targets:
        return None
    one = record.targets[0] if len(record.targets) == 1 and record.strategy_fills is None else None
    first, last = -(-(int(marks.times[0]) - _SETTLE_NS) // HOUR_NS), int(marks.times[-1]) // HOUR_NS
    ends = HOUR_NS * np.arange(first, last + 1)  # (h + 1,)
    held = _held(marks, ends)  # (h,)
    realised, in_market = _volatilities(marks, ends, held)
    return Aim(
        targets=record.targets,
        target=None if one is None else one.target * one.allocation,
        realised=realised,
        in_market=in_market,
        hours=max(0, len(ends) - 1),
        hours_in_market=None if held is None else int(held.sum()),
    )


def _held(marks: Marks, ends: Ints) -> npt.NDArray[np.bool_] | None:
    """Whether a position was held for at least half of each hour, (h,); None where that is not recorded."""
    if marks.gross is None:
        return None
    lengths = np.diff(marks.times)  # (N - 1,)
    so_far = np.concatenate([[0], np.cumsum(lengths * (marks.gross[:-1] != 0.0))])  # (N,) ns with a position
    until = np.interp(ends + _SETTLE_NS, marks.times, so_far)  # (h + 1,): between marks nothing is traded
    return np.diff(until) >= 0.5 * HOUR_NS


def _volatilities(marks: Marks, ends: Ints, held: npt.NDArray[np.bool_] | None) -> tuple[Figure, Figure]:
    """Of all hours, and of those with a position."""
    reason = "equity fell to zero or below" if (marks.equity <= 0.0).any() else "the run has no whole hour"
    if len(ends) < 2 or (marks.equity <= 0.0).any():
        return absent(reason), absent(reason)
    last = np.searchsorted(marks.times, ends + _SETTLE_NS, side="right") - 1  # (h + 1,) mark of each hour
    squares = np.square(np.diff(np.log(marks.equity[last])))  # (h,)
    realised = _annual(squares, ends[1:])
    if held is None:
        return realised, absent("needs the column gross_exposure, with several symbols")
    if not held.any():
        return realised, absent("no position was held for most of an hour")
    return realised, _annual(squares[held], ends[1:][held])


def _annual(squares: Floats, times: Ints) -> Figure:
    """The annual volatility of hourly squared returns."""
    mean = day_bootstrap(squares, times)
    if mean.value is None:
        return mean
    low, high = mean.interval or (math.nan, math.nan)
    root = np.sqrt(HOURS_PER_YEAR * np.array([mean.value, low, high]))
    return measured(float(root[0]), interval=(float(root[1]), float(root[2])))
