"""Up or down: what the forecast knew of the sign of the next return. Bars that did not move are left out."""

from dataclasses import dataclass

import numpy as np

from evaluation.bootstrap import day_bootstrap
from evaluation.figures import Figure
from evaluation.run import Floats, Ints
from evaluation.tracks import Bools

PROBABILITY_MIN = 1e-6  # of either sign; a forecast that is surer than that pays for this
DIRECTION_DEFINITIONS: dict[str, str] = {
    "log_loss": "Mean of minus log2 of the probability that the sign which came had, in bits; a coin costs 1.",
    "coin": "1 bit less the log-loss: above zero the forecast knows more of the sign than a coin.",
    "base_rate": "Log-loss of the share of rising bars in training less that of the forecast, in bits.",
    "sign_before": "Log-loss of the share of rises in training after a bar that fell, stood still or rose, less that "
    "of the forecast, in bits: prices that bounce between bid and ask turn back often, and no model is needed to say "
    "so.",
    "accuracy": "Share of bars whose sign was held the more probable one.",
    "majority": "Share of bars with the more frequent sign of the judged bars themselves, known only afterwards.",
    "above_majority": "Accuracy less that of always naming the more frequent sign.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """The figures of DIRECTION_DEFINITIONS."""

    bars: int
    log_loss: Figure
    coin: Figure
    base_rate: Figure
    sign_before: Figure
    accuracy: Figure
    majority: float
    above_majority: Figure


def direction(
    up: Floats, down: Floats, returns: Floats, times: Ints, *, training_up: float, turning: Floats
) -> Direction:
    """Judge the sign.

    Args:
        up, down: (N,) probabilities of a return above and below zero.
        returns: (N,) what came.
        times: (N,) closes, ns UTC.
        training_up: share of rising bars among those of training that moved, in (0, 1).
        turning: (N,) the same share after bars of the sign that the bar before had.

    Raises:
        ValueError: shapes that do not fit, no bar that moved, a share outside (0, 1).
    """
    shapes = [column.shape for column in (up, down, returns, times, turning)]
    if len(set(shapes)) > 1:
        raise ValueError(f"want equal shapes, was {', '.join(map(str, shapes))}")
    if not (0.0 < training_up < 1.0 and ((turning > 0.0) & (turning < 1.0)).all()):
        raise ValueError(f"training_up and turning must lie in (0, 1), was {training_up} and {turning}")
    moved = returns != 0.0
    if not moved.any():
        raise ValueError("want at least one bar that moved, was none")
    rose = returns[moved] > 0.0  # (M,)
    chance = sign_probability(up[moved], down[moved])
    losses = _log_loss(chance, rose)  # (M,)
    right = np.where(chance == 0.5, 0.5, (chance > 0.5) == rose)  # (M,), undecided is right half the time
    often = bool(2 * rose.sum() >= len(rose))
    majority = (rose == often).astype(np.float64)  # (M,)
    when = times[moved]
    return Direction(
        bars=int(moved.sum()),
        log_loss=day_bootstrap(losses, when),
        coin=day_bootstrap(1.0 - losses, when),
        base_rate=day_bootstrap(_log_loss(np.full(len(rose), training_up), rose) - losses, when),
        sign_before=day_bootstrap(_log_loss(turning[moved], rose) - losses, when),
        accuracy=day_bootstrap(right, when),
        majority=float(majority.mean()),
        above_majority=day_bootstrap(right - majority, when),
    )


def sign_probability(up: Floats, down: Floats) -> Floats:
    """The probability of a rise where the bar moves; one half where the forecast says that it cannot. (N,)"""
    total = up + down
    chance = np.divide(up, total, out=np.full_like(up, 0.5), where=total > 0.0)
    return np.clip(chance, PROBABILITY_MIN, 1.0 - PROBABILITY_MIN)


def _log_loss(chance: Floats, rose: Bools) -> Floats:
    return np.where(rose, -np.log2(chance), -np.log2(1.0 - chance))


def turning_share(before: Floats, returns: Floats) -> Floats:
    """The share of rises among the bars that moved, after one that fell, stood still, rose. (n,), (n,) -> (3,)

    Each has half a rise and half a fall more than were seen.
    """
    moved = returns != 0.0
    state = _state(before[moved])
    counts = np.bincount(state, minlength=3)
    rises = np.bincount(state, weights=returns[moved] > 0.0, minlength=3)
    return (rises + 0.5) / (counts + 1.0)


def turning_forecast(shares: Floats, before: Floats) -> Floats:
    """The share (3,) that goes with the return before each bar. (n,) -> (n,)"""
    return shares[_state(before)]


def _state(before: Floats) -> Ints:
    return np.sign(before).astype(np.int64) + 1
