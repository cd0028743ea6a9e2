"""How likely the best of several configs is only the luckiest: the probability of backtest overfitting."""

from itertools import combinations

import numpy as np

from evaluation.figures import Figure, absent, measured
from evaluation.run import Floats

BLOCKS = 16
CONFIGS_MIN = 2


def overfitting(performance: Floats, blocks: int = BLOCKS) -> Figure:
    """The probability that the config which is best in sample is below the median out of sample (PBO).

    Time is cut into `blocks` stretches. Each half of them once chooses the best config by its mean, and the other half
    ranks it; with w its relative rank among N configs, in (0, 1), PBO is the share of halves where w <= 1/2. Without
    anything to choose it is near one half; a PBO near zero says that what was best stays good.

    Args:
        performance: (T, N) one row a period, one column a config; higher is better.
        blocks: even, at least 2; 16 give 12,870 halves.

    Returns:
        Absent where there is no sweep: fewer than two configs, or fewer periods than blocks.

    Source: Bailey, Borwein, Lopez de Prado & Zhu, "The probability of backtest overfitting", Journal of Computational
    Finance 20(4), 2017: combinatorially symmetric cross-validation.
    """
    if performance.ndim != 2 or not np.isfinite(performance).all():
        raise ValueError(f"want a finite (T, N), was {performance.shape}")
    if blocks < 2 or blocks % 2:
        raise ValueError(f"blocks must be even and at least 2, was {blocks}")
    periods, configs = performance.shape
    if configs < CONFIGS_MIN:
        return absent("needs a sweep of at least two configs")
    if periods < blocks:
        return absent(f"needs {blocks} periods, has {periods}")
    pieces = np.array_split(performance, blocks)
    sums = np.stack([piece.sum(axis=0) for piece in pieces])  # (S, N)
    sizes = np.array([len(piece) for piece in pieces], np.float64)  # (S,)
    halves = np.array(list(combinations(range(blocks), blocks // 2)))  # (C, S/2)
    inside = np.zeros((len(halves), blocks))  # (C, S)
    np.put_along_axis(inside, halves, 1.0, axis=1)
    outside = 1.0 - inside
    chosen = (inside @ sums / (inside @ sizes)[:, None]).argmax(axis=1)  # (C,)
    means = outside @ sums / (outside @ sizes)[:, None]  # (C, N)
    own = means[np.arange(len(halves)), chosen][:, None]  # (C, 1)
    below = (means < own).sum(axis=1)  # (C,), configs that the chosen one beats
    equal = (means == own).sum(axis=1)  # (C,), itself among them
    relative = (below + (equal + 1.0) / 2.0) / (configs + 1.0)  # (C,), mean rank of equals
    return measured(float((relative <= 0.5).mean()))
