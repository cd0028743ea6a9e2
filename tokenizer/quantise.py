"""From features to codes and back, in numpy alone: what a trained tokenizer does once the training is over.

A row goes through a small network (linear, ReLU, linear), and the result is rounded to a code: to the nearest row of
a codebook, level after level on what is left (`VectorRounding`), or to a fixed grid (`GridRounding`).

All at once and one by one must agree to the code. Matrix products of other shapes round differently in the last bits,
so of all rows at once those are named that lie so close to a border between two codes that this could matter; the
caller does them again one by one.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tokenizer.bars import Floats, Ints

Bools = npt.NDArray[np.bool_]

# Of the squared distances that are compared; rounding makes 1e-15 of them, a bar falls within it once in 1e8.
_CLOSE = 1e-9
_ROWS = 65_536  # of a distance table at once: 67 MB at 128 codes


class Network:
    """Linear, ReLU, ..., linear."""

    __slots__ = ("biases", "weights")

    def __init__(self, weights: Sequence[Floats], biases: Sequence[Floats]) -> None:
        self.weights = [np.ascontiguousarray(weight) for weight in weights]  # each (out, in)
        self.biases = [np.ascontiguousarray(bias) for bias in biases]  # each (out,)

    def all(self, x: Floats) -> Floats:
        """(N, in) -> (N, out)"""
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight.T + bias
            if i < last:
                np.maximum(x, 0.0, out=x)
        return x

    def one(self, x: Floats) -> Floats:
        """(in,) -> (out,)"""
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = np.dot(weight, x)
            x += bias
            if i < last:
                np.maximum(x, 0.0, out=x)
        return x


class Rounding(Protocol):
    """A latent vector to its codes, one a level, and codes to the latent vector that they stand for."""

    codes: int
    levels: int

    def all(self, z: Floats) -> tuple[Ints, Bools]:
        """(N, D) -> the codes (N, L), and which rows to do again one by one (N,)."""
        ...

    def one(self, z: Floats) -> tuple[int, ...]:
        """(D,) -> L codes."""
        ...

    def back(self, codes: Ints) -> Floats:
        """(N, l) -> (N, D), of the first l levels, l from 1 to L."""
        ...


class VectorRounding:
    """The nearest row of a codebook, then of the next one to what is left.

    A tie goes to the lower index. Source: van den Oord et al., arXiv:1711.00937, eq. 1; levels as in Zeghidour et al.,
    arXiv:2107.03312, section III-C.
    """

    __slots__ = ("_books", "_halves", "codes", "levels")

    def __init__(self, codebooks: Floats) -> None:
        self._books = [np.ascontiguousarray(book) for book in codebooks]  # L of (K, D)
        self._halves = [0.5 * np.square(book).sum(axis=1) for book in self._books]  # L of (K,)
        self.levels, self.codes = codebooks.shape[:2]

    def all(self, z: Floats) -> tuple[Ints, Bools]:
        left = np.array(z)  # (N, D)
        codes = np.empty((len(z), self.levels), np.int64)
        doubtful = np.zeros(len(z), np.bool_)
        for first in range(0, len(z), _ROWS):
            rows = slice(first, first + _ROWS)
            for level, (book, half) in enumerate(zip(self._books, self._halves, strict=True)):
                score = half - left[rows] @ book.T  # (n, K) half the squared distance, less half of |left| squared
                codes[rows, level] = nearest = score.argmin(axis=1)  # (n,)
                if self.codes > 1:
                    best = np.partition(score, 1, axis=1)[:, :2]  # (n, 2)
                    size = 1.0 + np.square(left[rows]).sum(axis=1) + np.abs(best[:, 1])  # (n,)
                    doubtful[rows] |= best[:, 1] - best[:, 0] < _CLOSE * size
                left[rows] -= book[nearest]
        return codes, doubtful

    def one(self, z: Floats) -> tuple[int, ...]:
        codes: list[int] = []
        for book, half in zip(self._books, self._halves, strict=True):
            code = int((half - np.dot(book, z)).argmin())
            codes.append(code)
            if len(codes) < self.levels:
                z = z - book[code]
        return tuple(codes)

    def back(self, codes: Ints) -> Floats:
        total = np.zeros((len(codes), self._books[0].shape[1]))  # (N, D)
        for level in range(codes.shape[1]):
            total += self._books[level][codes[:, level]]
        return total


class GridRounding:
    """Finite scalar quantisation: each number squashed to a range and rounded to one of a few steps.

    The code counts the steps like digits, the first number being the lowest digit. Source: Mentzer et al.,
    arXiv:2309.15505, section 3.1 and appendix A.1.
    """

    __slots__ = ("_basis", "_half", "_offset", "_shift", "_steps", "_zero", "codes", "levels")

    def __init__(self, steps: Sequence[int]) -> None:
        self._steps = np.array(steps, np.int64)  # (D,)
        self._half, self._offset, self._shift = grid(steps)  # each (D,)
        self._basis = np.concatenate([[1], np.cumprod(self._steps[:-1])])  # (D,)
        self._zero = self._steps // 2  # (D,)
        self.codes = math.prod(steps)
        self.levels = 1

    def all(self, z: Floats) -> tuple[Ints, Bools]:
        bounded = np.tanh(z + self._shift) * self._half - self._offset  # (N, D)
        nearest = np.rint(bounded)  # (N, D)
        doubtful: Bools = np.any(np.abs(np.abs(bounded - nearest) - 0.5) < _CLOSE, axis=1)  # (N,)
        codes = (nearest.astype(np.int64) + self._zero) @ self._basis  # (N,)
        return codes[:, None], doubtful

    def one(self, z: Floats) -> tuple[int, ...]:
        bounded = np.tanh(z + self._shift) * self._half - self._offset  # (D,)
        return (int((np.rint(bounded).astype(np.int64) + self._zero) @ self._basis),)

    def back(self, codes: Ints) -> Floats:
        digits = codes // self._basis % self._steps - self._zero  # (N, D) from (N, 1)
        scaled: Floats = digits / self._zero  # (N, D) within [-1, 1]
        return scaled


def grid(steps: Sequence[int]) -> tuple[Floats, Floats, Floats]:
    """Half width, offset and shift that squash a number to `steps` steps, each (D,): tanh(z + shift) half - offset.

    An even count has no step in the middle: half a step is taken off after the squashing, and zero stays where it was.
    """
    count = np.array(steps, np.float64)
    half = (count - 1.0) * (1.0 + 1e-3) / 2.0  # a little more than the outermost step, as tanh does not reach one
    offset = np.where(count % 2 == 0, 0.5, 0.0)
    return half, offset, np.arctanh(offset / half)


def parse_grid(text: str) -> tuple[int, ...]:
    """ "8x4x4" to (8, 4, 4).

    Raises:
        ValueError: not 1 to 16 whole numbers of 2 to 1024 with an x between them.
    """
    parts = text.split("x")
    if not (1 <= len(parts) <= 16 and all(part.isascii() and part.isdigit() and len(part) <= 4 for part in parts)):
        raise ValueError(f"grid must be steps with an x between them, such as 8x4x4, was {text!r}")
    steps = tuple(int(part) for part in parts)
    if not all(2 <= step <= 1024 for step in steps):
        raise ValueError(f"each of the steps of a grid must lie in [2, 1024], was {text!r}")
    return steps


def perplexity(counts: npt.NDArray[Any]) -> float:
    """exp of the entropy of how often each code was used: how many equally used codes would say as much. (V,)"""
    total = counts.sum()
    if total <= 0:
        return 0.0
    shares = counts[counts > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def tensors_of(name: str, network: Network) -> dict[str, npt.NDArray[np.float32]]:
    """The numbers of a network under names such as `encoder.0.weight`."""
    found = {}
    for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        found[f"{name}.{i}.weight"] = weight.astype(np.float32)
        found[f"{name}.{i}.bias"] = bias.astype(np.float32)
    return found


def network_of(name: str, tensors: Mapping[str, npt.NDArray[Any]], widths: Sequence[int]) -> Network:
    """The network that `tensors_of` wrote down, of layers `widths` (in, hidden, ..., out).

    Raises:
        ValueError: a tensor is missing or has another shape.
    """
    weights, biases = [], []
    for i, (inner, outer) in enumerate(pairwise(widths)):
        weights.append(checked(tensors, f"{name}.{i}.weight", (outer, inner)))
        biases.append(checked(tensors, f"{name}.{i}.bias", (outer,)))
    return Network(weights, biases)


def checked(tensors: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int, ...]) -> Floats:
    """One tensor as float64.

    Raises:
        ValueError: it is missing, has another shape, or holds a number that is not finite.
    """
    if name not in tensors:
        raise ValueError(f"the codec has no tensor {name}")
    tensor = np.asarray(tensors[name])
    if tensor.shape != shape:
        raise ValueError(f"{name} of the codec must be {shape}, was {tensor.shape}")
    numbers: Floats = tensor.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} of the codec must hold finite numbers")
    return numbers
