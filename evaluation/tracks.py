"""What a model foretold, bar by bar, and over which window: all that the figures need to know of it."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from evaluation.run import Floats, Ints

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Track:
    """One symbol: its bars from the second on, and what was foretold for those that are judged."""

    symbol: str
    times: Ints  # (n,) closes, ns UTC
    returns: Floats  # (n,) log returns, close to close
    ranges: Floats  # (n,) squared return as gap and range witness it, see `volatility.range_variance`
    scale: Floats  # (n,) lagged volatility by the codec; NaN in its warm-up
    tokens: Ints  # (n,) -1 in warm-up
    training: Bools  # (n,) bars of the training window
    judged: Bools  # (n,) bars foretold by a decision that may be judged
    probabilities: npt.NDArray[np.float32]  # (m, V) of the token of each judged bar, given before it
    recomputed: npt.NDArray[np.float32] | None = None  # (m, V) the same without a cache; None: not asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which decisions are judged."""

    start: datetime  # naive UTC, first decision
    end: datetime  # naive UTC, last decision
    in_sample: bool  # it overlaps what the checkpoint has seen, embargo included


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What one forecast costs, by counting: the same on every machine."""

    parameters: int
    weights_bytes: int
    context: int
    multiply_adds: int  # of one decoded token with a full cache
    cache_bytes: int  # of one symbol, float32
