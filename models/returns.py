"""From probabilities of codes to a distribution of the next return.

Each code stands for the returns that its training bars had, in units of the scale before the bar. Quantiles at
(q + 0.5) / Q, joined by straight lines and flat beyond the first and the last, are a distribution of their own: draws,
moments and quantiles below are all of exactly this one.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from models.sampling import Floats, Ints


@dataclass(frozen=True, eq=False)
class ReturnTable:
    """What the codes mean in returns, and how the scale follows them.

    Args:
        quantiles: (V, Q) of standardised log returns, each row not falling, Q >= 2.
        halflife_bars: of the mean of squared returns whose root is the scale.
        scale_floor: the scale falls no further, log return.
        clip: a standardised return beyond counts as this one in the scale after it.
    """

    quantiles: Floats
    halflife_bars: float
    scale_floor: float = 1e-6
    clip: float = 50.0

    def __post_init__(self) -> None:
        q = self.quantiles
        if q.ndim != 2 or q.shape[1] < 2 or not np.isfinite(q).all() or (np.diff(q, axis=1) < 0.0).any():
            raise ValueError(f"quantiles must be finite (V, Q >= 2) with rows that do not fall, was {q.shape}")
        for name in ("halflife_bars", "scale_floor", "clip"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {getattr(self, name)}")

    @property
    def decay(self) -> float:
        """What is left of a squared return's weight one bar later."""
        return 0.5 ** (1.0 / self.halflife_bars)

    def draw(self, codes: Ints, uniforms: Floats) -> Floats:
        """Standardised returns of `codes` by inversion, (B,) and (B,) in [0, 1) -> (B,)."""
        last = self.quantiles.shape[1] - 1
        place = np.clip(uniforms * (last + 1) - 0.5, 0.0, last)
        low = np.minimum(place.astype(np.int64), last - 1)
        a, b = self.quantiles[codes, low], self.quantiles[codes, low + 1]
        drawn: Floats = a + (place - low) * (b - a)
        return drawn

    def next_scale(self, scale: Floats, z: Floats) -> Floats:
        """The scale after bars of standardised return `z` that were measured by `scale`, (B,) and (B,) -> (B,)."""
        moved = np.clip(z, -self.clip, self.clip) * scale
        followed: Floats = np.sqrt(self.decay * scale * scale + (1.0 - self.decay) * moved * moved)
        return np.maximum(followed, self.scale_floor)

    def forecast(self, probabilities: Floats, scale: Floats) -> "StepForecast":
        """The distribution of the next log return, exactly; see `StepForecast`.

        Args:
            probabilities: (B, V), rows sum to 1.
            scale: (B,) of the next bar, log return.
        """
        p, s = np.asarray(probabilities, np.float64), np.asarray(scale, np.float64)
        if p.ndim != 2 or p.shape[1] != self.quantiles.shape[0] or s.shape != p.shape[:1]:
            raise ValueError(f"want (B, {self.quantiles.shape[0]}) and (B,), was {p.shape} and {s.shape}")
        if not ((p >= 0.0).all() and np.allclose(p.sum(axis=1), 1.0, atol=1e-6)):
            raise ValueError("probabilities must not be negative, and rows must sum to 1")
        if not ((s > 0.0) & (s < math.inf)).all():
            raise ValueError(f"scale must be positive and finite, was {s}")
        mean, square, up, flat = self._moments
        average = p @ mean
        variance = np.maximum(p @ square - average * average, 0.0)
        return StepForecast(self, p, s, s * average, s * np.sqrt(variance), p @ up, p @ flat)

    @cached_property
    def _moments(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Mean, mean square, chance above zero, chance of exactly zero, of each code, (V,) each."""
        a, b = self.quantiles[:, :-1], self.quantiles[:, 1:]  # (V, Q - 1) ends of the segments, 1 / Q each
        ends = self.quantiles[:, [0, -1]]  # (V, 2) with the half steps before the first and after the last
        count = self.quantiles.shape[1]
        square = ((a * a + a * b + b * b).sum(axis=1) / 3.0 + 0.5 * (ends * ends).sum(axis=1)) / count
        # Where a segment crosses zero, the part of it above; nowhere else is the quotient used.
        part = np.divide(b, b - a, out=np.zeros_like(b), where=b > a)
        above = np.where(a >= 0.0, (b > 0.0) * 1.0, np.where(b > 0.0, part, 0.0))
        up = (above.sum(axis=1) + 0.5 * (ends > 0.0).sum(axis=1)) / count
        flat = (((a == 0.0) & (b == 0.0)).sum(axis=1) + 0.5 * (ends == 0.0).sum(axis=1)) / count
        return self.quantiles.mean(axis=1), square, up, flat

    @cached_property
    def _steps(self) -> tuple[Floats, Floats, Floats]:
        """Where any code's distribution bends, (M,) rising; P(z < it) and P(z <= it) of each code, (M, V) each."""
        bends = np.unique(self.quantiles)
        below = np.stack([_distribution(row, bends, "left") for row in self.quantiles], axis=1)
        within = np.stack([_distribution(row, bends, "right") for row in self.quantiles], axis=1)
        return bends, below, within


def _distribution(row: Floats, at: Floats, side: str) -> Floats:
    """P(z < at), side "left", or P(z <= at), side "right", of one code with sorted quantiles `row`; (M,)."""
    count = len(row)
    index = np.searchsorted(row, at, side="left" if side == "left" else "right")  # quantiles before `at`
    low, high = np.clip(index - 1, 0, count - 1), np.clip(index, 0, count - 1)
    gap = row[high] - row[low]
    part = np.divide(at - row[low], gap, out=np.zeros_like(at), where=gap > 0.0)
    place = (index - 0.5 + part) / count
    return np.where(index == 0, 0.0, np.where(index == count, 1.0, place))


@dataclass(frozen=True, slots=True, eq=False)
class StepForecast:
    """The next log return of each of B symbols, as a mixture of what the codes stand for."""

    table: ReturnTable
    probabilities: Floats  # (B, V)
    scale: Floats  # (B,) log return
    mean: Floats  # (B,) log return
    volatility: Floats  # (B,) standard deviation of the log return
    probability_up: Floats  # (B,) of a return above zero
    probability_flat: Floats  # (B,) of a return of exactly zero

    def quantile(self, levels: npt.ArrayLike) -> Floats:
        """The smallest log return whose distribution function reaches each level in (0, 1): (B, n), exact.

        A level that falls between two bends is on a straight line; halving finds them in the sorted bends.
        """
        wanted = np.asarray(levels, np.float64)
        if wanted.ndim != 1 or not ((wanted > 0.0) & (wanted < 1.0)).all():
            raise ValueError(f"levels must be (n,) in (0, 1), was {wanted}")
        bends, below, within = self.table._steps
        p = self.probabilities[:, None, :]  # (B, 1, V)
        shape = (len(self.scale), len(wanted))
        low, high = np.zeros(shape, np.int64), np.full(shape, len(bends) - 1)
        while (low < high).any():  # the first bend whose P(z <= it) reaches the level
            middle = (low + high) // 2
            reached = (within[middle] * p).sum(axis=2) >= wanted
            high, low = np.where(reached, middle, high), np.where(reached, low, np.minimum(middle + 1, high))
        before = np.maximum(high - 1, 0)
        start, end = (within[before] * p).sum(axis=2), (below[high] * p).sum(axis=2)  # (B, n) each
        slope = np.divide(wanted - start, end - start, out=np.ones(shape), where=(end >= wanted) & (end > start))
        z = bends[before] + np.clip(slope, 0.0, 1.0) * (bends[high] - bends[before])
        return z * self.scale[:, None]
