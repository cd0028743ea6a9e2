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

_BLOCK = 64  # bends, a power of two: best of 16, 32, 64 for 10 and 64 symbols, as good for one


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
        if not ((p >= 0.0).all() and (np.abs(p.sum(axis=1) - 1.0) <= 1e-6).all()):
            raise ValueError("probabilities must not be negative, and rows must sum to 1")
        if not ((s > 0.0) & (s < math.inf)).all():
            raise ValueError(f"scale must be positive and finite, was {s}")
        mean, square, up, flat = self._moments
        average = np.vecdot(p, mean)
        variance = np.maximum(np.vecdot(p, square) - average * average, 0.0)
        return StepForecast(self, p, s, s * average, s * np.sqrt(variance), np.vecdot(p, up), np.vecdot(p, flat))

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
    def _mixture(self) -> "_Mixture":
        return _Mixture(self.quantiles)


class _Mixture:
    """The distribution functions of all codes at every point where one of them bends, for mixtures to be read from.

    Bends come in blocks. P(z <= bend) of each code at the last one of every block finds the block, halving finds the
    bend in it. The rows of a block are worked out when one of them is needed: all take 8 MB for 128 codes, 0.5 GB for
    1,000. Each is multiplied alone, so what comes of a mixture does not depend on others that are asked for with it.
    """

    def __init__(self, quantiles: Floats) -> None:
        self._quantiles = quantiles
        self._bends, rank = np.unique(quantiles, return_inverse=True)  # (M,) rising
        of = rank.reshape(quantiles.shape)  # (V, Q): each quantile is this bend
        self._rising = (of + np.arange(len(of))[:, None] * len(self._bends)).ravel()  # of all codes, in one rising row
        count = -(-len(self._bends) // _BLOCK)
        # A row for the bend before each block and one for each of its own; the last block is filled up.
        bend = np.arange(count)[:, None] * _BLOCK + np.arange(-1, _BLOCK)
        self._bend = np.clip(bend, 0, len(self._bends) - 1).ravel()  # (N,) of each row
        self._at = self._bends[self._bend]  # (N,)
        self._ends = self._reached(self._bend[_BLOCK :: _BLOCK + 1])  # (blocks, V)
        self._rows = np.empty((len(self._bend), len(of)))  # (N, V) P(z <= bend), where the block is known
        self._known = np.zeros(count, dtype=bool)
        self._jumps = _jumps(of)
        self._jumping = np.isin(self._bend, list(self._jumps))  # (N,)

    def quantile(self, p: Floats, levels: Floats) -> Floats:
        """The smallest z that reaches each level, of the mixture of each row of p (B, V): (B, n)."""
        mixed = p[:, None]  # (B, 1, V)
        ends = np.vecdot(self._ends, mixed)  # (B, blocks): P(z <= last bend of the block)
        found = np.array([of.searchsorted(levels) for of in ends])
        block = np.minimum(found, len(self._ends) - 1)  # (B, n): rounding may keep a level of almost 1 from any
        if not self._known[block].all():
            self._work_out(block)
        row, step = block * (_BLOCK + 1), _BLOCK // 2
        while step:  # the first bend whose P(z <= it) reaches the level is one of the 2 `step` after `row`
            row += step * (np.vecdot(self._rows.take(row + step, axis=0), mixed) < levels)
            step //= 2
        # Up to that bend it is a line; a level above the line's end is reached by the jump there.
        start, end = np.vecdot(self._rows.take(row, axis=0), mixed), np.vecdot(self._rows.take(row + 1, axis=0), mixed)
        jumping = self._jumping[row + 1]
        for i, level in np.argwhere(jumping).tolist() if jumping.any() else ():
            codes, sizes = self._jumps[int(self._bend[row[i, level] + 1])]
            end[i, level] -= p[i, codes] @ sizes  # P(z < bend)
        part = np.divide(levels - start, end - start, out=np.ones(row.shape), where=(levels <= end) & (end > start))
        low = self._at[row]
        z: Floats = low + np.maximum(part, 0.0) * (self._at[row + 1] - low)
        return z

    def _work_out(self, blocks: Ints) -> None:
        for block in np.unique(blocks[~self._known[blocks]]).tolist():
            rows = slice(block * (_BLOCK + 1), (block + 1) * (_BLOCK + 1))
            self._rows[rows] = self._reached(self._bend[rows])
            if block == 0:
                self._rows[0] = 0.0  # nothing lies before the first bend
            self._known[block] = True

    def _reached(self, bends: Ints) -> Floats:
        """P(z <= bend) of every code at each of the bends with these numbers: (m, V)."""
        quantiles, (codes, count) = self._quantiles, self._quantiles.shape
        code = np.arange(codes)
        index = self._rising.searchsorted(bends[:, None] + code * len(self._bends), "right") - code * count
        low = quantiles[code, np.maximum(index - 1, 0)]  # (m, V) the last quantile up to the bend
        gap = quantiles[code, np.minimum(index, count - 1)] - low
        part = np.divide(self._bends[bends][:, None] - low, gap, out=np.zeros_like(gap), where=gap > 0.0)
        found: Floats = np.where(index == 0, 0.0, np.where(index == count, 1.0, (index - 0.5 + part) / count))
        return found


def _jumps(of: Ints) -> dict[int, tuple[Ints, Floats]]:
    """Bends with P(z = bend) > 0: the codes that have it, and how much; `of` is (V, Q), the bend of each quantile.

    A code jumps by half a step at its first quantile and at its last, and by one where two of them are equal.
    """
    twice = np.argwhere(np.diff(of, axis=1) == 0)  # (N, 2)
    bend = np.concatenate([of[:, [0, -1]].ravel(), of[twice[:, 0], twice[:, 1]]])
    code = np.concatenate([np.repeat(np.arange(len(of)), 2), twice[:, 0]])
    size = np.where(np.arange(len(code)) < 2 * len(of), 0.5, 1.0) / of.shape[1]
    order = np.argsort(bend, kind="stable")
    where, first = np.unique(bend[order], return_index=True)
    parts = (np.split(values[order], first[1:]) for values in (code, size))
    return dict(zip(where.tolist(), zip(*parts, strict=True), strict=True))


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

        A level that falls between two bends is on a straight line.
        """
        wanted = np.asarray(levels, np.float64)
        if wanted.ndim != 1 or not ((wanted > 0.0) & (wanted < 1.0)).all():
            raise ValueError(f"levels must be (n,) in (0, 1), was {wanted}")
        z = self.table._mixture.quantile(self.probabilities, wanted)
        return z * self.scale[:, None]
