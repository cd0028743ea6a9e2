"""Which symbol will do better than the others: information coefficients over the cross-section of each instant."""

import math
from dataclasses import dataclass

import numpy as np

from evaluation.figures import Figure, absent, measured
from evaluation.run import Floats, Ints

SYMBOLS_MIN = 5  # of one instant; a correlation over fewer is noise
INSTANTS_MIN = 30
RANK_DEFINITIONS: dict[str, str] = {
    "ic": "Mean over instants of the correlation between expected and realised return across symbols.",
    "rank_ic": "The same of their ranks (Spearman).",
    "t": "The mean over its standard error after Newey and West, which allows for instants that depend on each other.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFigures:
    """The figures of RANK_DEFINITIONS; both means carry the 95 % interval of their Newey-West error."""

    instants: int
    symbols: int  # the most of one instant
    lags: int
    ic: Figure
    ic_t: Figure
    rank_ic: Figure
    rank_ic_t: Figure


def information(expected: Floats, realised: Floats, times: Ints) -> RankFigures:
    """IC and RankIC of each instant with at least SYMBOLS_MIN symbols.

    Args:
        expected, realised: (N,) returns of bars, in any unit that is the same across symbols.
        times: (N,) closes; bars with the same close make one instant.
    """
    if not (expected.shape == realised.shape == times.shape):
        raise ValueError(f"want equal shapes, was {expected.shape}, {realised.shape}, {times.shape}")
    order = np.argsort(times, kind="stable")
    _, first, counts = np.unique(times[order], return_index=True, return_counts=True)
    plain, ranked = [], []
    most = int(counts.max()) if len(counts) else 0
    for start, count in zip(first.tolist(), counts.tolist(), strict=True):
        if count < SYMBOLS_MIN:
            continue
        rows = order[start : start + count]
        one = correlation(expected[rows], realised[rows])
        if one is not None:  # nobody was expected to differ, or nobody did: the instant says nothing
            plain.append(one)
            ranked.append(correlation(ranks(expected[rows]), ranks(realised[rows])) or 0.0)
    instants = len(plain)
    if instants < INSTANTS_MIN:
        reason = (
            f"needs {SYMBOLS_MIN} symbols in one instant, the most were {most}"
            if most < SYMBOLS_MIN
            else f"needs {INSTANTS_MIN} instants with {SYMBOLS_MIN} symbols, has {instants}"
        )
        no = absent(reason)
        return RankFigures(instants=instants, symbols=most, lags=0, ic=no, ic_t=no, rank_ic=no, rank_ic_t=no)
    lags = lags_for(instants)
    ic, ic_t = _figures(np.array(plain), lags)
    rank_ic, rank_ic_t = _figures(np.array(ranked), lags)
    return RankFigures(
        instants=instants, symbols=most, lags=lags, ic=ic, ic_t=ic_t, rank_ic=rank_ic, rank_ic_t=rank_ic_t
    )


def correlation(a: Floats, b: Floats) -> float | None:
    """Pearson's; None where one of the two does not vary, rounding left aside."""
    if any(float(np.ptp(x)) <= 1e-12 * float(np.abs(x).max()) for x in (a, b)):
        return None
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum()) / float(np.sqrt(np.square(a).sum() * np.square(b).sum()))


def ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share their mean rank. (N,)"""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), np.float64)


def newey_west(values: Floats, lags: int) -> float:
    """The standard error of a mean of values that depend on each other.

    Source: Newey & West, "A simple, positive semi-definite, heteroskedasticity and autocorrelation consistent
    covariance matrix", Econometrica 55(3), 1987: Bartlett weights 1 - l / (lags + 1).
    """
    n = len(values)
    centred = values - values.mean()
    total = float((centred * centred).sum())
    for lag in range(1, min(lags, n - 1) + 1):
        total += 2.0 * (1.0 - lag / (lags + 1.0)) * float((centred[lag:] * centred[:-lag]).sum())
    return math.sqrt(max(total, 0.0)) / n


def lags_for(instants: int) -> int:
    """floor(4 (n / 100)^(2/9)). Source: Newey & West, Review of Economic Studies 61(4), 1994."""
    return int(4.0 * (instants / 100.0) ** (2.0 / 9.0))


def _figures(series: Floats, lags: int) -> tuple[Figure, Figure]:
    mean, error = float(series.mean()), newey_west(series, lags)
    if error == 0.0:
        return measured(mean), absent("it does not vary")
    interval = (mean - 1.959964 * error, mean + 1.959964 * error)
    return measured(mean, standard_error=error, interval=interval), measured(mean / error)
