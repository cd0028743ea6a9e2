"""Forecasts of the next return as distributions, and how a distribution is judged by what came.

A return is measured in units of the lagged volatility of its bar, which is known before the bar. Two kinds of forecast
meet the same judge: a Student t around zero with a point mass at zero (`Student`), and a mixture of the empirical
returns of codes (`Mixture`). An exactly zero return is an outcome of its own for both.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from evaluation.run import Floats

ROWS = 512  # bars judged at once: a mixture of 128 x 64 quantiles has 8,500 knots, 35 MB for so many bars


class Forecast(Protocol):
    """Distributions of the returns of n bars, each in units of its own lagged volatility."""

    def __len__(self) -> int: ...

    def pieces(self, rows: int) -> Iterator[tuple[slice, "Piece"]]:
        """The forecasts of at most `rows` bars at a time, in order."""
        ...

    def moments(self) -> tuple[Floats, Floats]:
        """Mean and mean square of each. (n,), (n,)"""
        ...

    def signs(self) -> tuple[Floats, Floats]:
        """Probability of a return above and below zero. (n,), (n,)"""
        ...


class Piece(Protocol):
    """The distributions of a few bars, b of them."""

    def cdf(self, points: Floats) -> tuple[Floats, Floats]:
        """P(return < x) and P(return <= x). points (b, P) -> (b, P), (b, P)"""
        ...

    def quantiles(self, levels: Floats) -> Floats:
        """The smallest x with P(return <= x) >= level. levels (L,), rising, in (0, 1) -> (b, L)"""
        ...

    def crps(self, came: Floats) -> Floats:
        """The integral over x of (P(return <= x) - [x >= came])^2. (b,) -> (b,)"""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Student:
    """Zero with probability `zero`, else `scale` times a Student t.

    Source of the CRPS: Jordan, Krueger & Lerch, "Evaluating probabilistic forecasts with scoringRules", J. Statistical
    Software 90(12), 2019, for t and normal; the mixture with zero by Gneiting & Raftery, JASA 102(477), 2007, eq. 21.
    """

    scale: Floats  # (n,) positive
    df: float  # above 2; inf: normal
    zero: float  # in [0, 1)

    def __post_init__(self) -> None:
        if not (self.df > 2.0 and 0.0 <= self.zero < 1.0):
            raise ValueError(f"want df > 2 and zero in [0, 1), was {self.df} and {self.zero}")
        if not ((self.scale > 0.0) & np.isfinite(self.scale)).all():
            raise ValueError("scales must be positive and finite")

    def __len__(self) -> int:
        return len(self.scale)

    def pieces(self, rows: int) -> Iterator[tuple[slice, "Student"]]:
        for first in range(0, len(self.scale), rows):
            part = slice(first, min(first + rows, len(self.scale)))
            yield part, Student(self.scale[part], self.df, self.zero)

    def moments(self) -> tuple[Floats, Floats]:
        spread = 1.0 if math.isinf(self.df) else self.df / (self.df - 2.0)
        return np.zeros(len(self.scale)), (1.0 - self.zero) * spread * np.square(self.scale)

    def signs(self) -> tuple[Floats, Floats]:
        half = np.full(len(self.scale), (1.0 - self.zero) / 2.0)
        return half, half

    def cdf(self, points: Floats) -> tuple[Floats, Floats]:
        low = (1.0 - self.zero) * self._below(points / self.scale[:, None])
        return low + self.zero * (points > 0.0), low + self.zero * (points >= 0.0)

    def quantiles(self, levels: Floats) -> Floats:
        left, right = (1.0 - self.zero) / 2.0, (1.0 + self.zero) / 2.0
        moving = np.where(levels < left, levels, np.where(levels > right, levels - self.zero, left)) / (1.0 - self.zero)
        return self.scale[:, None] * np.where((levels < left) | (levels > right), self._inverse(moving), 0.0)

    def crps(self, came: Floats) -> Floats:
        z = came / self.scale  # (b,)
        reach, apart, about = self._distance(z), self._apart(), float(self._distance(np.zeros(1))[0])
        away = (1.0 - self.zero) * reach + self.zero * np.abs(z)
        within = (1.0 - self.zero) ** 2 * apart + 2.0 * self.zero * (1.0 - self.zero) * about
        return self.scale * (away - 0.5 * within)

    def _below(self, z: Floats) -> Floats:
        from scipy.special import ndtr, stdtr

        return np.asarray(ndtr(z) if math.isinf(self.df) else stdtr(self.df, z), np.float64)

    def _inverse(self, levels: Floats) -> Floats:
        from scipy.special import ndtri, stdtrit

        return np.asarray(ndtri(levels) if math.isinf(self.df) else stdtrit(self.df, levels), np.float64)

    def _distance(self, z: Floats) -> Floats:
        """E|T - z|."""
        if math.isinf(self.df):
            density = np.exp(-0.5 * np.square(z)) / math.sqrt(2.0 * math.pi)
            return z * (2.0 * self._below(z) - 1.0) + 2.0 * density
        log_constant = math.lgamma((self.df + 1.0) / 2.0) - math.lgamma(self.df / 2.0)
        constant = math.exp(log_constant) / math.sqrt(self.df * math.pi)
        density = constant * (1.0 + np.square(z) / self.df) ** (-(self.df + 1.0) / 2.0)
        return z * (2.0 * self._below(z) - 1.0) + 2.0 * density * (self.df + np.square(z)) / (self.df - 1.0)

    def _apart(self) -> float:
        """E|T - T'| of two that are independent."""
        if math.isinf(self.df):
            return 2.0 / math.sqrt(math.pi)
        half = 0.5 * self.df
        pair = math.lgamma(0.5) + math.lgamma(self.df - 0.5) - math.lgamma(self.df)
        one = math.lgamma(0.5) + math.lgamma(half) - math.lgamma(half + 0.5)
        return 4.0 * math.sqrt(self.df) / (self.df - 1.0) * math.exp(pair - 2.0 * one)


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """The distribution of returns under each code, on the knots where any of them bends."""

    knots: Floats  # (K,) rising, in units of the lagged volatility; zero is among them
    left: Floats  # (V, K) P(return < knot)
    right: Floats  # (V, K) P(return <= knot); straight between knots
    jumps: npt.NDArray[np.int64]  # (J,) knots where left and right differ for some code
    mean: Floats  # (V,)
    square: Floats  # (V,) mean square

    @property
    def zero(self) -> int:
        """Which knot is zero."""
        return int(np.searchsorted(self.knots, 0.0))

    @classmethod
    def from_table(cls, table: npt.NDArray[np.floating]) -> "Codes":
        """The codes' distributions from a codec's `returns_table`: what a forecast in the graph is made of, exactly.

        The entries of a row are quantiles at levels (q + 1/2) / Q, joined by straight lines and flat beyond the first
        and the last, which hold half a step each. Entries that are equal are a point mass.

        Args:
            table: (V, Q) sorted standardised returns of the training bars of each code.
        """
        table = np.asarray(table, np.float64)
        if table.ndim != 2 or not table.size or not np.isfinite(table).all() or (np.diff(table, axis=1) < 0.0).any():
            raise ValueError(f"want a finite table (V, Q) with sorted rows, was {table.shape}")
        knots = np.unique(np.append(table, 0.0))  # (K,)
        if len(knots) < 2:
            raise ValueError("every return of the table is zero: there is nothing to forecast")
        left, right = np.empty((2, len(table), len(knots)))
        mean, square = np.empty((2, len(table)))
        for code, row in enumerate(table):
            left[code], right[code], mean[code], square[code] = _code(row, knots)
        jumps = np.flatnonzero((left != right).any(axis=0))
        return cls(knots, left, right, jumps, mean, square)


def _code(row: Floats, knots: Floats) -> tuple[Floats, Floats, float, float]:
    """P(< knot) (K,), P(<= knot) (K,), mean and mean square of one code with sorted quantiles (Q,)."""
    places, first = np.unique(row, return_index=True)  # (U,)
    last = np.append(first[1:], len(row)) - 1
    low, high = (first + 0.5) / len(row), (last + 0.5) / len(row)  # (U,) below and up to each place
    low[0], high[-1] = 0.0, 1.0
    at = np.searchsorted(places, knots, side="right") - 1  # (K,) the place at or before each knot
    inside = (at >= 0) & (at < len(places) - 1)
    here, after = np.clip(at, 0, None), np.clip(at + 1, None, len(places) - 1)
    gap = np.where(inside, places[after] - places[here], 1.0)
    part = np.where(inside, (knots - places[here]) / gap, 0.0)
    right = np.where(at < 0, 0.0, high[here] + part * np.where(inside, low[after] - high[here], 0.0))
    left = np.where((at >= 0) & (places[here] == knots), low[here], right)
    mass, point, a, b = low[1:] - high[:-1], high - low, places[:-1], places[1:]
    mean = float((mass * (a + b)).sum() / 2.0 + (point * places).sum())
    square = float((mass * (a * a + a * b + b * b)).sum() / 3.0 + (point * places * places).sum())
    return left, right, mean, square


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """What code probabilities say of the return: the codes' distributions, mixed."""

    probabilities: npt.NDArray[np.floating]  # (n, V)
    codes: Codes

    def __post_init__(self) -> None:
        if self.probabilities.ndim != 2 or self.probabilities.shape[1] != len(self.codes.mean):
            raise ValueError(f"want (n, {len(self.codes.mean)}) probabilities, was {self.probabilities.shape}")

    def __len__(self) -> int:
        return len(self.probabilities)

    def pieces(self, rows: int) -> Iterator[tuple[slice, "MixturePiece"]]:
        codes = self.codes
        for first in range(0, len(self.probabilities), rows):
            part = slice(first, min(first + rows, len(self.probabilities)))
            weights = _normalised(self.probabilities[part])
            right = weights @ codes.right  # (b, K)
            left = right.copy()
            left[:, codes.jumps] = weights @ codes.left[:, codes.jumps]
            yield part, MixturePiece(codes.knots, left, right)

    def moments(self) -> tuple[Floats, Floats]:
        weights = _normalised(self.probabilities)
        return weights @ self.codes.mean, weights @ self.codes.square

    def signs(self) -> tuple[Floats, Floats]:
        weights, zero = _normalised(self.probabilities), self.codes.zero
        return 1.0 - weights @ self.codes.right[:, zero], weights @ self.codes.left[:, zero]


@dataclass(frozen=True, slots=True, eq=False)
class MixturePiece:
    """A few mixtures, their distribution functions straight between common knots."""

    knots: Floats  # (K,)
    left: Floats  # (b, K)
    right: Floats  # (b, K)

    def cdf(self, points: Floats) -> tuple[Floats, Floats]:
        at = np.searchsorted(self.knots, points, side="right") - 1  # (b, P)
        here, after = np.clip(at, 0, None), np.clip(at + 1, None, len(self.knots) - 1)
        inside = (at >= 0) & (at < len(self.knots) - 1)
        gap = np.where(inside, self.knots[after] - self.knots[here], 1.0)
        begin = np.take_along_axis(self.right, here, axis=1)
        end = np.take_along_axis(self.left, after, axis=1)
        part = np.where(inside, (points - self.knots[here]) / gap, 0.0)
        high = np.where(at < 0, 0.0, begin + part * np.where(inside, end - begin, 0.0))
        on = (at >= 0) & (self.knots[here] == points)
        return np.where(on, np.take_along_axis(self.left, here, axis=1), high), high

    def quantiles(self, levels: Floats) -> Floats:
        found = np.empty((len(self.right), len(levels)))
        last = len(self.knots) - 1
        for row, (left, right) in enumerate(zip(self.left, self.right, strict=True)):
            at = np.minimum(np.searchsorted(right, levels, side="left"), last)  # (L,) first knot with P(<= knot) >= u
            before = np.maximum(at - 1, 0)
            rise = left[at] - right[before]
            slope = (levels < left[at]) & (at > 0) & (rise > 0.0)
            part = np.divide(levels - right[before], rise, out=np.ones(len(levels)), where=slope)
            found[row] = np.where(
                slope, self.knots[before] + part * (self.knots[at] - self.knots[before]), self.knots[at]
            )
        return found

    def crps(self, came: Floats) -> Floats:
        # With F from 0 to 1 between the outer knots and y in between, the integral of (F - [x >= y])^2 is that of F^2
        # over all, less twice that of F above y, and y's distance from the end: one pass over (b, K) rather than six.
        gap = np.diff(self.knots)  # (K - 1,)
        a, b = self.right[:, :-1], self.left[:, 1:]  # (b, K - 1), each stretch from a up to b
        both = a + b
        square = (both * both - a * b) @ gap / 3.0  # (b,)
        y = np.clip(came, self.knots[0], self.knots[-1])
        at = np.minimum(np.searchsorted(self.knots, y, side="right") - 1, len(gap) - 1)  # (b,) the stretch y lies in
        beyond = np.where(np.arange(len(gap)) > at[:, None], both, 0.0) @ gap / 2.0  # (b,)
        begin, end = (np.take_along_axis(x, at[:, None], axis=1)[:, 0] for x in (a, b))
        rest = self.knots[at + 1] - y
        middle = end - (end - begin) * rest / gap[at]
        beyond += rest * (middle + end) / 2.0
        return square - 2.0 * beyond + (self.knots[-1] - y) + np.abs(came - y)


def _normalised(probabilities: npt.NDArray[np.floating]) -> Floats:
    weights = probabilities.astype(np.float64)
    return weights / weights.sum(axis=1, keepdims=True)
