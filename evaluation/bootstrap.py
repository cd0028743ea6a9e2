"""How sure the mean of a figure over bars is: whole days are drawn again, with all symbols of a day together.

Bars of one hour move together across symbols, and volatility lasts for days; bars taken as independent would make every
interval several times too narrow.
"""

import math

import numpy as np

from evaluation.drawdowns import DAY_NS
from evaluation.figures import Figure, absent, measured
from evaluation.run import Floats, Ints

REPLICATIONS = 2_000
SEED = 1994
DAYS_MIN = 10  # below it an interval would be an anecdote
NO_EDGE = "no edge"


def days_of(times: Ints) -> Ints:
    """The UTC day of each bar, in days since 1970; a bar that closes at midnight belongs to the day it ends. (N,)"""
    return (times - 1) // DAY_NS


def day_bootstrap(values: Floats, times: Ints, *, replications: int = REPLICATIONS, seed: int = SEED) -> Figure:
    """The mean over bars with its 95 % interval from the stationary bootstrap of days.

    Args:
        values: (N,) a figure a bar, any number of symbols; finite.
        times: (N,) when each bar closed, ns UTC, in any order.

    Returns:
        The mean; the interval is None where there are fewer than DAYS_MIN days.

    Source: Politis & Romano, "The stationary bootstrap", JASA 89(428), 1994, over days as units; mean block length
    after Politis & White 2004, corrected by Patton, Politis & White 2009.
    """
    if values.shape != times.shape or values.ndim != 1:
        raise ValueError(f"want two equal shapes (N,), was {values.shape} and {times.shape}")
    if not len(values):
        return absent("no bar was judged")
    if not np.isfinite(values).all():
        return absent("a bar was held impossible: its loss is infinite")
    days, place = np.unique(days_of(times), return_inverse=True)  # (D,), (N,)
    value = float(values.mean())
    if len(days) < DAYS_MIN:
        return measured(value)
    sums = np.bincount(place, weights=values)  # (D,)
    counts = np.bincount(place).astype(np.float64)  # (D,)
    block = block_days(sums / counts)
    chance = np.random.default_rng(seed)
    means = np.empty(replications)
    for first in range(0, replications, 256):
        rows = stationary_indices(len(days), block, min(256, replications - first), chance)  # (R, D)
        means[first : first + len(rows)] = sums[rows].sum(axis=1) / counts[rows].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return measured(value, standard_error=float(means.std(ddof=1)), interval=(float(low), float(high)))


def block_days(daily: Floats) -> int:
    """The mean block length that the data ask for, at least 1 day. (D,)"""
    from arch.bootstrap import optimal_block_length  # here: the import costs two seconds

    if float(np.ptp(daily)) <= 1e-12 * max(1.0, float(np.abs(daily).max())):
        return 1
    with np.errstate(divide="ignore", invalid="ignore"):
        block = float(optimal_block_length(daily)["stationary"].iloc[0])
    return max(1, round(block)) if math.isfinite(block) else 1


def stationary_indices(size: int, block: int, replications: int, chance: np.random.Generator) -> Ints:
    """Rows of resampled places (R, size): blocks of geometric length with mean `block`, wrapping at the end."""
    start = chance.random((replications, size)) < 1.0 / block  # (R, size), where a new block begins
    start[:, 0] = True
    place = np.where(start, chance.integers(0, size, (replications, size)), 0)  # (R, size)
    # The begin of the block that each cell is in, and how far the cell is into it.
    begin = np.maximum.accumulate(np.where(start, np.arange(size), 0), axis=1)  # (R, size)
    drawn = np.take_along_axis(place, begin, axis=1) + np.arange(size) - begin
    return drawn % size


def edge(figure: Figure) -> str:
    """What a difference says: "better" or "worse" where its interval leaves out zero, else "no edge".

    Args:
        figure: a baseline's loss less the model's, or the model's gain over it: above zero the model is better.
    """
    if figure.interval is None or figure.interval[0] <= 0.0 <= figure.interval[1]:
        return NO_EDGE
    return "better" if figure.interval[0] > 0.0 else "worse"
