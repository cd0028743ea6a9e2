"""Every figure of a return forecast, a value a bar: forecasts are compared bar by bar, and only then averaged."""

from dataclasses import dataclass

import numpy as np

from evaluation.distributions import ROWS, Forecast, Piece
from evaluation.run import Floats, Ints

BINS = 128
FLOOR = 1e-3  # of every forecast, spread evenly over the bins: an outcome that it held impossible costs 17 bits
LEVELS = np.arange(1, 20) / 20.0  # of the pinball loss: 5 % to 95 %
MIDDLE = {"coverage_50": (0.25, 0.75), "coverage_90": (0.05, 0.95)}
RETURN_DEFINITIONS: dict[str, str] = {
    "bits": "Mean of minus log2 of the probability of the bin that the return fell into; 128 bins, fixed on training "
    "returns in units of the lagged volatility, each with the same share of them, a return of exactly zero alone.",
    "bits_plain": "The same with bins fixed on returns in units of the symbol's standard deviation in training: here "
    "knowing today's volatility pays.",
    "crps": "Continuous ranked probability score in units of the lagged volatility: the integral of the squared "
    "distance between the forecast's distribution function and that of what came. Exact, no sampling.",
    "pinball": "Mean pinball loss of the quantiles at 5 %, 10 %, ... 95 %, in units of the lagged volatility.",
    "coverage_50": "Share of returns between the quantiles at 25 % and 75 %; 50 % is right.",
    "coverage_90": "Share of returns between the quantiles at 5 % and 95 %; 90 % is right.",
    "width_90": "Mean distance between the quantiles at 5 % and 95 %, in units of the lagged volatility: of two that "
    "cover equally, the narrower knows more.",
    "pit": "Largest distance between the share of probability integral transforms below u and u; zero is calibrated.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Intervals that part all returns, open below and closed above, with one for exactly zero.

    `edges` holds zero: what ends there from below leaves zero out, what begins there from above too.
    """

    edges: Floats  # (E,) rising
    zero: int  # which edge is zero

    @property
    def count(self) -> int:
        return len(self.edges) + 2

    @classmethod
    def of(cls, training: Floats, count: int = BINS) -> "Bins":
        """Bins with equal shares of the training returns that are not zero, on each side of zero.

        Args:
            training: (n,) finite.
            count: bins in all, the one of zero included; where returns repeat themselves there are fewer.
        """
        below, above = training[training < 0.0], training[training > 0.0]
        if not (np.isfinite(training).all() and len(below) and len(above)):
            raise ValueError(
                f"want finite returns on both sides of zero, was {len(below)} below and {len(above)} above"
            )
        sides = count - 1
        negative = min(max(round(sides * len(below) / (len(below) + len(above))), 1), sides - 1)
        low = np.quantile(below, np.arange(1, negative) / negative)
        high = np.quantile(above, np.arange(1, sides - negative) / (sides - negative))
        low, high = np.unique(low[low < 0.0]), np.unique(high[high > 0.0])
        return cls(np.concatenate([low, [0.0], high]), len(low))

    def place(self, values: Floats) -> Ints:
        """Which bin each value is in, the one of zero between those of the negative and the positive. (n,)"""
        number: Ints = np.searchsorted(self.edges, values, side="left") + (values >= 0.0)
        return number

    def probability(self, piece: Piece, values: Floats, units: Floats) -> Floats:
        """The probability that a forecast gave the bin of each value.

        Args:
            values: (b,) what came, in the unit of the bins.
            units: (b,) how many lagged volatilities one such unit is.
        """
        number, zero = self.place(values), self.zero + 1  # (b,)
        ends = np.concatenate([[-np.inf], self.edges, [np.inf]])  # (E + 2,)
        # Bin i lies between ends i and i + 1 below zero, and between i - 1 and i above; that of zero has no width.
        between = np.stack([number - (number > zero), number + (number < zero)], axis=1)  # (b, 2)
        left, right = piece.cdf(ends[between] * units[:, None])
        under = np.where(number == zero, left[:, 0], right[:, 0])
        up_to = np.where(number == zero - 1, left[:, 1], right[:, 1])
        return np.maximum(up_to - under, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One forecaster, judged bar by bar. All (N,), lengths in units of the lagged volatility of the bar."""

    bits: Floats
    bits_plain: Floats
    crps: Floats
    pinball: Floats
    pit_low: Floats  # P(return < what came)
    pit_high: Floats  # P(return <= what came)
    width_90: Floats
    mean: Floats  # expected return
    up: Floats  # probability of a return above zero
    down: Floats


def judge(forecast: Forecast, came: Floats, *, bins: Bins, plain_bins: Bins, plain_unit: Floats) -> Judged:
    """Judge a forecast.

    Args:
        came: (N,) returns in units of the lagged volatility.
        bins: of such returns.
        plain_bins: of returns in units of the symbol's standard deviation in training.
        plain_unit: (N,) that standard deviation, in units of the lagged volatility.

    Raises:
        ValueError: lengths that differ, or a return that is not finite.
    """
    if not (len(forecast) == len(came) == len(plain_unit)) or not np.isfinite(came).all():
        raise ValueError(f"want {len(forecast)} finite returns and units, was {len(came)} and {len(plain_unit)}")
    mean, _ = forecast.moments()
    up, down = forecast.signs()
    columns = {name: np.empty(len(came)) for name in Judged.__slots__ if name not in ("mean", "up", "down")}
    for rows, piece in forecast.pieces(ROWS):
        y, unit = came[rows], plain_unit[rows]
        columns["bits"][rows] = _bits(bins, bins.probability(piece, y, np.ones(len(y))))
        columns["bits_plain"][rows] = _bits(plain_bins, plain_bins.probability(piece, y / unit, unit))
        columns["crps"][rows] = piece.crps(y)
        quantiles = piece.quantiles(LEVELS)  # (b, 19)
        columns["pinball"][rows] = pinball(quantiles, y, LEVELS).mean(axis=1)
        columns["width_90"][rows] = quantiles[:, -1] - quantiles[:, 0]
        low, high = piece.cdf(y[:, None])
        columns["pit_low"][rows], columns["pit_high"][rows] = low[:, 0], high[:, 0]
    return Judged(**columns, mean=mean, up=up, down=down)


def _bits(bins: Bins, probability: Floats) -> Floats:
    return -np.log2((1.0 - FLOOR) * probability + FLOOR / bins.count)


def pinball(quantiles: Floats, came: Floats, levels: Floats) -> Floats:
    """(u - [y < q]) (y - q) of each quantile q at level u. (N, L), (N,), (L,) -> (N, L)

    Source: Koenker & Bassett, "Regression quantiles", Econometrica 46(1), 1978.
    """
    off = came[:, None] - quantiles
    return np.maximum(levels * off, (levels - 1.0) * off)


def pit_below(low: Floats, high: Floats, level: float) -> Floats:
    """The share of each bar's transform that lies below `level`: where what came had a probability of its own, its
    transform is spread evenly between P(< it) and P(<= it). (N,)

    Source: Czado, Gneiting & Held, "Predictive model assessment for count data", Biometrics 65(4), 2009.
    """
    span = high - low
    part = np.divide(level - low, span, out=(level >= high).astype(np.float64), where=span > 0.0)
    return np.clip(part, 0.0, 1.0)


def coverage(low: Floats, high: Floats, between: tuple[float, float]) -> Floats:
    """How much of each bar's transform lies between two levels; its mean is the coverage. (N,)"""
    return pit_below(low, high, between[1]) - pit_below(low, high, between[0])


def pit_histogram(low: Floats, high: Floats, bins: int = 20) -> Floats:
    """Density of the transform in equal bins, mean 1. (bins,)"""
    edges = [float(pit_below(low, high, level).mean()) for level in np.arange(bins + 1) / bins]
    edges[0], edges[-1] = 0.0, 1.0
    return np.diff(edges) * bins


def pit_distance(low: Floats, high: Floats) -> float:
    """The largest distance of the transform's distribution from uniform, over a grid of 1 %."""
    grid = np.arange(1, 100) / 100.0
    return max(abs(float(pit_below(low, high, level).mean()) - level) for level in grid.tolist())
