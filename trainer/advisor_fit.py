"""A logistic head, fitted: the design matrix, the solver, folds, calibration, threshold. No scikit-learn."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.sparse import csr_matrix
from scipy.special import log_softmax, softmax

from models.advisor.ngrams import NgramConfig, buckets

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CLASSES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Design:
    """What is known of N texts.

    Attributes:
        ngrams: (N, B) sparse: each kind of n-gram of a text has length one.
        dense: (N, D) readings of a language model; None: none.
    """

    ngrams: Any
    dense: Floats | None = None

    def at(self, rows: Ints) -> "Design":
        return Design(self.ngrams[rows], None if self.dense is None else self.dense[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A head: logits = ngrams @ W + (dense - mean) / scale @ V + bias."""

    ngrams: Floats  # (B, 3)
    bias: Floats  # (3,)
    dense: Floats | None = None  # (D, 3)
    mean: Floats | None = None  # (D,)
    scale: Floats | None = None  # (D,)

    def logits(self, design: Design) -> Floats:
        found = design.ngrams @ self.ngrams + self.bias
        if self.dense is not None:
            if design.dense is None or self.mean is None or self.scale is None:
                raise ValueError("want readings for a head that was fitted on readings, was none")
            found = found + ((design.dense - self.mean) / self.scale) @ self.dense
        return found  # (N, 3)

    def calibrated(self, by: "Calibration") -> "Fitted":
        """The same head with its logits calibrated."""
        dense = None if self.dense is None else self.dense / by.temperature
        bias = self.bias / by.temperature + by.offsets
        return Fitted(self.ngrams / by.temperature, bias, dense, self.mean, self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What makes probabilities of logits right on the whole."""

    temperature: float = 1.0  # logits are divided by it
    offsets: Floats = field(default_factory=lambda: np.zeros(CLASSES))  # and these added, one a class

    def of(self, logits: Floats) -> Floats:
        """(N, 3)"""
        return logits / self.temperature + self.offsets


def ngram_matrix(texts: Sequence[str], config: NgramConfig) -> Any:
    """(N, B) sparse, as `models.advisor.weights` adds them up."""
    ends, places, values = [0], [], []
    for text in texts:
        for found in buckets(text, config):
            places.append(found)
            values.append(np.full(len(found), 1.0 / math.sqrt(max(1, len(found)))))
        ends.append(ends[-1] + len(places[-1]) + len(places[-2]))
    matrix = csr_matrix((np.concatenate(values), np.concatenate(places), ends), (len(texts), config.buckets))
    matrix.sum_duplicates()
    return matrix


def fit(design: Design, labels: Ints, strength: float, *, share: float = 1.0, steps: int = 60) -> Fitted:
    """Multinomial logistic regression with a squared penalty, by L-BFGS from zero: no randomness.

    N-grams weigh the more the rarer they are, which is the same as holding the common ones back more.

    Args:
        strength: inverse of the penalty.
        share: what a standardised number of `dense` is multiplied by: the smaller, the more it is held back.

    Source: inverse document frequency as smoothed by Salton & Buckley, "Term-weighting approaches in automatic text
        retrieval", Information Processing & Management 24(5), 1988.
    """
    count, width = design.ngrams.shape
    seen = np.bincount(design.ngrams.indices, minlength=width)
    kept = np.flatnonzero(seen)
    rarity = np.log((1.0 + count) / (1.0 + seen[kept])) + 1.0
    sparse = design.ngrams[:, kept].multiply(rarity).tocsr()
    turned = sparse.T.tocsr()
    mean = scale = dense = None
    columns = len(kept)
    if design.dense is not None:
        mean, spread = design.dense.mean(axis=0), design.dense.std(axis=0)
        scale = np.maximum(spread, 1e-6) / share
        dense = (design.dense - mean) / scale  # (N, D)
    truth = np.eye(CLASSES)[labels]

    def parts(flat: Floats) -> tuple[Floats, Floats, Floats]:
        matrix = flat[:-CLASSES].reshape(-1, CLASSES)
        return matrix[:columns], matrix[columns:], flat[-CLASSES:]

    def loss(flat: Floats) -> tuple[float, Floats]:
        words, rest, bias = parts(flat)
        logits = sparse @ words + bias
        if dense is not None:
            logits += dense @ rest
        chances = log_softmax(logits, axis=1)
        error = np.exp(chances) - truth
        slope = np.empty_like(flat)
        to_words, to_rest, to_bias = parts(slope)
        to_words[:] = turned @ error + words / strength
        if dense is not None:
            to_rest[:] = dense.T @ error + rest / strength
        to_bias[:] = error.sum(axis=0)
        penalty = 0.5 / strength * (np.square(words).sum() + np.square(rest).sum())
        return float(-(chances * truth).sum() + penalty), slope

    size = CLASSES * (columns + (0 if dense is None else dense.shape[1]) + 1)
    found = minimize(loss, np.zeros(size), jac=True, method="L-BFGS-B", options={"maxiter": steps, "maxcor": 8})
    words, rest, bias = parts(found.x)
    ngrams = np.zeros((width, CLASSES))
    ngrams[kept] = words * rarity[:, None]
    return Fitted(ngrams, bias, None if dense is None else rest, mean, scale)


def out_of_fold(
    design: Design, labels: Ints, fold: Ints, strength: float, *, share: float = 1.0, steps: int = 60
) -> Iterator[tuple[Ints, Floats]]:
    """Rows of each fold, and their logits (n, 3) by a head that saw none of them."""
    for held in np.unique(fold):
        rest, rows = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        head = fit(design.at(rest), labels[rest], strength, share=share, steps=steps)
        yield rows, head.logits(design.at(rows))


def temperature(logits: Floats, labels: Ints) -> float:
    """What the logits are to be divided by so that their probabilities are right on the whole.

    Source: Guo, Pleiss, Sun & Weinberger, "On calibration of modern neural networks", ICML 2017, section 4.2.
    """
    found = minimize_scalar(lambda x: log_loss(logits / math.exp(x), labels), bounds=(-4.0, 4.0), method="bounded")
    return math.exp(float(found.x))


def calibration(logits: Floats, labels: Ints, *, offsets: bool) -> Calibration:
    """By the least log loss.

    Args:
        offsets: whether a class may be made more or less probable than another; else the temperature alone is fitted.

    Source: as `temperature`; with offsets its vector scaling, of one scale for all classes.
    """
    heat = temperature(logits, labels)
    if not offsets:
        return Calibration(temperature=heat)
    truth = np.eye(CLASSES)[labels]

    def loss(x: Floats) -> tuple[float, Floats]:  # of the log of the temperature, and the offsets of down and up
        cooled = logits * math.exp(-x[0])
        found = log_softmax(cooled + np.array([x[1], 0.0, x[2]]), axis=1)
        error = np.exp(found) - truth  # (N, 3)
        slope = np.array([-(error * cooled).sum(), error[:, 0].sum(), error[:, 2].sum()])
        return float(-(found * truth).sum()) / len(labels), slope / len(labels)

    best = minimize(loss, np.array([math.log(heat), 0.0, 0.0]), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    return Calibration(temperature=math.exp(float(best[0])), offsets=np.array([best[1], 0.0, best[2]]))


def log_loss(logits: Floats, labels: Ints) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def chances(logits: Floats) -> Floats:
    """Probabilities (N, 3)."""
    return np.asarray(softmax(logits, axis=1))


def threshold(probabilities: Floats, labels: Ints, precision: float, emitted_min: float) -> float:
    """The lowest probability of a direction from which on the wanted share of directions is right; 1.0 where none is.

    Args:
        emitted_min: share of the rows; fewer emitted rows are not believed.
    """
    side = np.maximum(probabilities[:, 0], probabilities[:, 2])
    right = np.where(probabilities[:, 2] > probabilities[:, 0], 2, 0) == labels
    order = np.argsort(-side, kind="stable")
    hits = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero((hits >= precision) & (np.arange(1, len(order) + 1) >= emitted_min * len(order)))
    return float(side[order[enough[-1]]]) if len(enough) else 1.0
