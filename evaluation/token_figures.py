"""How well the next token was foretold, and how well it could have been by counting alone.

A token metric says how a model predicts its own alphabet. It compares with the unigram and the bigram of the same
alphabet, never across tokenizers, and never with the figures of a return distribution.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.run import Floats, Ints

Bools = npt.NDArray[np.bool_]

ADDED = 0.5  # count that each token has before anything was seen (Krichevsky & Trofimov 1981)
BACKOFFS = tuple(2.0**power for power in range(-2, 21))  # weights of the unigram, in counts
TOP = 5
TOKEN_DEFINITIONS: dict[str, str] = {
    "bits": (
        "Mean of minus the logarithm to base 2 of the probability that the next token had: what one token costs to "
        "write down when the forecast is known."
    ),
    "cross_entropy": "The same with the natural logarithm, in nats.",
    "perplexity": "Two to the power of bits: among how many equally likely tokens one would be as unsure.",
    "accuracy": "Share of bars whose token was the most probable one.",
    "top_5": "Share of bars whose token was among the five most probable ones.",
    "code_perplexity": "Two to the power of the entropy of the judged tokens: how many codes are in use.",
}


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """How each token was foretold. Means of the columns are the figures."""

    bits: Floats  # (N,) minus log2 of the probability of the token that came
    ranks: Ints  # (N,) place of the token among all, 0 the most probable

    @property
    def correct(self) -> Bools:
        return self.ranks == 0

    @property
    def top(self) -> Bools:
        return self.ranks < TOP

    def figures(self) -> dict[str, float]:
        """The means, by the keys of TOKEN_DEFINITIONS."""
        bits = float(self.bits.mean())
        return {
            "cross_entropy": bits * math.log(2.0),
            "bits": bits,
            "perplexity": 2.0**bits,
            "accuracy": float(self.correct.mean()),
            "top_5": float(self.top.mean()),
        }


def score(probabilities: npt.NDArray[np.floating], tokens: Ints) -> TokenScores:
    """Score forecasts of the next token.

    Args:
        probabilities: (N, V), each row a distribution; a row goes with the token that came after it was given.
        tokens: (N,) in [0, V).

    Raises:
        ValueError: shapes that do not fit, a token outside the vocabulary, a row that is no distribution.
    """
    if probabilities.ndim != 2 or tokens.shape != probabilities.shape[:1] or not len(tokens):
        raise ValueError(f"want (N, V) and (N,) with N > 0, was {probabilities.shape} and {tokens.shape}")
    _in_vocabulary(tokens, probabilities.shape[1])
    sums = probabilities.sum(axis=1, dtype=np.float64)  # (N,)
    if not (probabilities.min() >= 0.0 and np.abs(sums - 1.0).max() < 1e-4):
        raise ValueError(
            f"want rows of probabilities that add up to 1, sums were {sums.min():.6g} to {sums.max():.6g} and the "
            f"smallest was {probabilities.min():.3g}"
        )
    own = probabilities[np.arange(len(tokens)), tokens]  # (N,)
    with np.errstate(divide="ignore"):  # an impossible token costs infinitely many bits, and shall
        bits = -np.log2(own.astype(np.float64))
    before = np.arange(probabilities.shape[1]) < tokens[:, None]  # (N, V), of equal tokens the lower one comes first
    better = (probabilities > own[:, None]) | ((probabilities == own[:, None]) & before)  # (N, V)
    return TokenScores(bits, better.sum(axis=1, dtype=np.int64))


def unigram(sequences: Sequence[Ints], vocabulary: int) -> Floats:
    """The distribution of training tokens, (V,); each token has half a count more than it was seen.

    Args:
        sequences: token sequences, one a symbol, -1 where there is no token.

    Source: Krichevsky & Trofimov, "The performance of universal encoding", IEEE Trans. Inf. Theory 27(2), 1981.
    """
    counts = np.full(vocabulary, ADDED)  # (V,)
    for tokens in sequences:
        seen = tokens[tokens >= 0]
        _in_vocabulary(seen, vocabulary)
        counts += np.bincount(seen, minlength=vocabulary)
    return counts / counts.sum()


def bigram(sequences: Sequence[Ints], vocabulary: int) -> Floats:
    """The distribution of a training token given the one before it, (V, V): row before, column after.

    Backed off to the unigram by a Dirichlet prior: after a token that had c followers the bigram count weighs
    c / (c + k) and the unigram the rest. k is the one of BACKOFFS that makes each training pair most likely given all
    others, so a bigram that knows too little is at worst the unigram.

    Source: MacKay & Peto, "A hierarchical Dirichlet language model", Natural Language Engineering 1(3), 1995; k by
    leaving one out, as Ney, Essen & Kneser, Computer Speech & Language 8(1), 1994, do for discounts.
    """
    counts = np.zeros((vocabulary, vocabulary))  # (V, V)
    for tokens in sequences:
        _in_vocabulary(tokens[tokens >= 0], vocabulary)
        pairs = (tokens[:-1] >= 0) & (tokens[1:] >= 0)
        np.add.at(counts, (tokens[:-1][pairs], tokens[1:][pairs]), 1.0)
    total = counts.sum(axis=1, keepdims=True)  # (V, 1)
    lower = unigram(sequences, vocabulary)  # (V,)
    seen = np.nonzero(counts)
    others, prior = counts[seen] - 1.0, lower[seen[1]]  # (P,), (P,)

    def likelihood(k: float) -> float:
        return float((counts[seen] * np.log((others + k * prior) / (total[seen[0], 0] - 1.0 + k))).sum())

    k = max(BACKOFFS, key=likelihood)
    return (counts + k * lower) / (total + k)


def score_unigram(distribution: Floats, tokens: Ints) -> TokenScores:
    """Score the unigram on tokens (N,) without building (N, V)."""
    return _score_rows(distribution[None, :], np.zeros(len(tokens), np.int64), tokens)


def score_bigram(distribution: Floats, before: Ints, tokens: Ints) -> TokenScores:
    """Score the bigram.

    Args:
        distribution: (V, V) from `bigram`.
        before: (N,) the token of the bar before each.
        tokens: (N,) the token that came.
    """
    return _score_rows(distribution, before, tokens)


def code_perplexity(tokens: Ints, vocabulary: int) -> float:
    """Two to the entropy of the tokens, between 1 and `vocabulary`; -1 is no token."""
    counts = np.bincount(tokens[tokens >= 0], minlength=vocabulary)
    share = counts[counts > 0] / counts.sum()
    return float(2.0 ** -(share * np.log2(share)).sum())


def _score_rows(rows: Floats, which: Ints, tokens: Ints) -> TokenScores:
    """As `score` of `rows[which]`, with each row ranked once."""
    if which.shape != tokens.shape or not len(tokens):
        raise ValueError(f"want two equal shapes (N,) with N > 0, was {which.shape} and {tokens.shape}")
    vocabulary = rows.shape[1]
    _in_vocabulary(tokens, vocabulary)
    _in_vocabulary(which, len(rows))
    order = np.argsort(-rows, axis=1, kind="stable")  # (R, V)
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.broadcast_to(np.arange(vocabulary), order.shape), axis=1)
    return TokenScores(-np.log2(rows)[which, tokens], places[which, tokens].astype(np.int64))


def _in_vocabulary(tokens: Ints, vocabulary: int) -> None:
    if len(tokens) and not (tokens.min() >= 0 and tokens.max() < vocabulary):
        raise ValueError(f"want tokens in [0, {vocabulary}), was {tokens.min()} to {tokens.max()}")
