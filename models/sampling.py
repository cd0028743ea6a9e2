"""From logits to tokens: temperature, top-k, top-p, and draws that depend only on the uniforms they are given."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn. The defaults draw from the model's own distribution, which is what a forecast needs."""

    temperature: float = 1.0  # divides the logits; 0 always takes the most probable token
    top_k: int = 0  # draw among this many most probable tokens; 0 is all
    top_p: float = 1.0  # draw among the fewest most probable tokens that hold this much probability

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be finite and at least 0, was {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 0, was {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must lie in (0, 1], was {self.top_p}")


EXACT = Sampling()  # the model's own distribution


def probabilities(logits: npt.NDArray[np.floating], sampling: Sampling = EXACT) -> Floats:
    """The distribution that is drawn from, (B, V) -> (B, V) float64, rows sum to 1.

    First the temperature, then top-k, then top-p of what top-k left. A tie goes to the lower token.

    Raises: ValueError: a logit is not finite.
    Source: Holtzman et al., arXiv:1904.09751, section 3.1 (top-p); Fan et al., arXiv:1805.04833, section 5 (top-k).
    """
    wide = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(wide).all():
        raise ValueError("logits must be finite: the model has failed")
    if sampling.temperature == 0.0:
        sure: Floats = np.zeros_like(wide)
        sure[np.arange(len(wide)), wide.argmax(axis=1)] = 1.0
        return sure
    wide = wide - wide.max(axis=1, keepdims=True)  # before the division: a small temperature must not overflow
    with np.errstate(over="ignore"):  # to -inf, whose exponential is the 0 that is meant
        weights = np.exp(wide / sampling.temperature)  # (B, V)
    vocabulary = weights.shape[1]
    if 0 < sampling.top_k < vocabulary or sampling.top_p < 1.0:
        order = np.argsort(-weights, axis=1, kind="stable")  # (B, V), most probable first
        ranked = np.take_along_axis(weights, order, axis=1)
        if sampling.top_k:
            ranked[:, sampling.top_k :] = 0.0
        before = np.cumsum(ranked, axis=1) - ranked  # what the tokens before each one hold
        ranked[before >= sampling.top_p * ranked.sum(axis=1, keepdims=True)] = 0.0
        np.put_along_axis(weights, order, ranked, axis=1)
    result: Floats = weights / weights.sum(axis=1, keepdims=True)
    return result


def draw(chances: Floats, uniforms: Floats) -> Ints:
    """Tokens by inversion, (B, V) and (B,) in [0, 1) -> (B,): the same uniforms give the same tokens."""
    cumulative = np.cumsum(chances, axis=1)  # (B, V)
    total = cumulative[:, -1]
    # Below the total even where the product rounds up to it: a token without probability is never drawn.
    level = np.minimum(uniforms * total, np.nextafter(total, 0.0))
    tokens: Ints = (cumulative <= level[:, None]).sum(axis=1)
    return tokens
