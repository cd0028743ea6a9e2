"""What a bar says, in numbers that mean the same in calm and in storm: log prices over the lagged volatility, asinh.

Nothing here knows a bar before its close, and no bar is measured by a scale that it is part of itself.
"""

import math
from dataclasses import dataclass

import numpy as np

from tokenizer.bars import INSIDE, BarSeries, Floats, impossible

_KINDS = {"bar": ("gap", "close", "upper wick", "lower wick"), "returns": ("close",)}
_VOLUME_FLOOR = 0.1  # of the usual volume: where no volume and little become the same


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureConfig:
    """What of a bar the tokenizer sees.

    A `bar` is four numbers: the gap from the last close to the open, close to close, upper wick, lower wick.
    `returns` is close to close alone.
    """

    kind: str = "bar"  # bar or returns
    volume: bool = False  # one number more: log volume over its lagged mean
    scale_halflife_bars: float = 32.0  # of the mean of squared returns, and of the mean volume
    warmup_bars: int = 32  # the first bars, which have no features: their scale would be a guess
    clip: float = 50.0  # scales; a move beyond counts as one of this size, in its features and in the scale after it
    scale_floor: float = 1e-6  # log return, 0.01 bp; under a price that stands still the scale falls no further

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, was {self.kind!r}")
        if not 0.5 <= self.scale_halflife_bars < math.inf:
            raise ValueError(f"scale_halflife_bars must be at least 0.5, was {self.scale_halflife_bars}")
        if self.warmup_bars < 2:
            raise ValueError(f"warmup_bars must be at least 2, which hold one return, was {self.warmup_bars}")
        if not 5.0 <= self.clip <= 1e6:
            raise ValueError(f"clip must lie in [5, 1e6] scales, was {self.clip}")
        if not 1e-12 <= self.scale_floor <= 0.1:
            raise ValueError(f"scale_floor must lie in [1e-12, 0.1], was {self.scale_floor}")

    @property
    def names(self) -> tuple[str, ...]:
        """The features in order."""
        return (*_KINDS[self.kind], "volume") if self.volume else _KINDS[self.kind]

    @property
    def close_index(self) -> int:
        """Which of them is close to close."""
        return self.names.index("close")

    @property
    def decay(self) -> float:
        """What is left of a squared return's weight one bar later."""
        return 0.5 ** (1.0 / self.scale_halflife_bars)


@dataclass(frozen=True, slots=True)
class Features:
    """The features of a series; NaN in warm-up."""

    x: Floats  # (n, F) asinh of scaled moves
    scale: Floats  # (n,) the scale that bar t is measured by, log return; from the bars before t
    returns: Floats  # (n,) log return, close to close; NaN for the first bar alone


class FeatureStream:
    """Features bar by bar, in constant time and memory.

    For bar t with log return r_t and the scale s_(t-1) of the bars before it, a move m becomes asinh(m / s_(t-1)). The
    scale is the square root of the exponentially weighted mean of squared returns, whose weights sum to one from the
    first return on. The returns of overnight and weekend gaps are part of it like any other.

    A bar after the warm-up whose return is beyond `clip` scales counts as `clip` scales, so that one absurd price does
    not blind the scale for weeks. Prices that stand still let the scale fall to `scale_floor`, not to zero.
    """

    __slots__ = (
        "_bars",
        "_clip",
        "_close",
        "_config",
        "_decay",
        "_floor",
        "_has_volume",
        "_mean_volume",
        "_returns_only",
        "_scale",
        "_variance",
        "_warmup",
        "_weight",
    )

    def __init__(self, config: FeatureConfig) -> None:
        self._config = config
        self._returns_only = config.kind == "returns"
        self._has_volume = config.volume
        self._decay = config.decay
        self._clip, self._floor, self._warmup = config.clip, config.scale_floor, config.warmup_bars
        self._bars = 0
        self._close = math.nan  # of the last bar
        self._variance = 0.0  # weighted sum of squared returns
        self._weight = 0.0  # sum of the weights, up to one
        self._mean_volume = 0.0  # weighted sum of volumes, of the same weights
        self._scale = math.nan  # for the next bar; kept, as it is asked for often

    @property
    def scale(self) -> float:
        """The scale that the NEXT bar will be measured by, as a log return; NaN where that bar is in warm-up."""
        return self._scale if self._bars >= self._warmup else math.nan

    def push(
        self,
        open: float,  # noqa: A002 - the field is called so everywhere
        high: float,
        low: float,
        close: float,
        volume: float = 0.0,
    ) -> Floats | None:
        """The features of the bar that just closed, (F,), or None in warm-up.

        Raises:
            ValueError: the bar cannot have happened; the stream is as before.
        """
        top, bottom = (open, close) if open > close else (close, open)
        if not (
            0.0 < low <= high < math.inf
            and high >= top * INSIDE
            and 0.0 < bottom <= top < math.inf
            and low * INSIDE <= bottom
            and 0.0 <= volume < math.inf
        ):
            raise ValueError(impossible((open, high, low, close, volume)))
        previous, self._close = self._close, close
        self._bars += 1
        if self._bars == 1:
            if self._has_volume:
                self._follow_volume(volume)
            return None
        move = math.log(close / previous)
        if self._bars <= self._warmup:
            self._follow(move)
            if self._has_volume:
                self._follow_volume(volume)
            return None
        scale, clip = self._scale, self._clip
        moved = _clipped(move / scale, clip)
        self._follow(moved * scale)
        if self._returns_only:
            numbers = [math.asinh(moved)]
        else:
            # The three others cannot exceed what the prices hold, but a scale at its floor makes them huge as well.
            numbers = [
                math.asinh(_clipped(math.log(open / previous) / scale, clip)),
                math.asinh(moved),
                math.asinh(min(math.log(high / top) / scale, clip)) if high > top else 0.0,
                math.asinh(min(math.log(bottom / low) / scale, clip)) if low < bottom else 0.0,
            ]
        if self._has_volume:
            numbers.append(self._volume_feature(volume))
            self._follow_volume(volume)
        return np.array(numbers)

    def _follow(self, move: float) -> None:
        """Take one return into the scale."""
        self._variance = self._decay * self._variance + (1.0 - self._decay) * move * move
        self._weight = self._decay * self._weight + (1.0 - self._decay)
        self._scale = max(math.sqrt(self._variance / self._weight), self._floor)

    def _follow_volume(self, volume: float) -> None:
        # A young mean is the plain mean: 1 / bars is more than 1 - decay for as long as that is so.
        gain = max(1.0 - self._decay, 1.0 / self._bars)
        self._mean_volume += gain * (volume - self._mean_volume)

    def _volume_feature(self, volume: float) -> float:
        """Log volume over its mean, zero where nothing was ever traded; no volume at all gives -2.4."""
        mean = self._mean_volume
        if mean <= 0.0:
            return 0.0
        return min(math.log((volume / mean + _VOLUME_FLOOR) / (1.0 + _VOLUME_FLOOR)), math.asinh(self._clip))

    def state(self) -> dict[str, float]:
        """All that it remembers, as plain numbers: exact through JSON, NaN (no bar yet) left out."""
        state = {
            "bars": float(self._bars),
            "variance": self._variance,
            "weight": self._weight,
            "mean_volume": self._mean_volume,
        }
        return state if self._bars == 0 else state | {"close": self._close}

    def restore(self, state: dict[str, float]) -> None:
        """Go on where `state()` was taken, of a stream with the same config.

        Raises:
            ValueError: not such a state.
        """
        names = {"bars", "variance", "weight", "mean_volume"} | ({"close"} if state.get("bars", 0.0) else set())
        if set(state) != names:
            raise ValueError(f"state must have {', '.join(sorted(names))}, had {', '.join(sorted(state)) or 'nothing'}")
        for name, value in state.items():
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} of the state must be finite and not negative, was {value}")
        bars, weight = state["bars"], state["weight"]
        if bars % 1.0 or (weight > 0.0) != (bars > 1.0) or state.get("close", 1.0) == 0.0:
            raise ValueError(
                "the state must have whole bars, weight from the second of them on, and a close above zero, was"
                f" {bars:g}, {weight:g} and {state.get('close', math.nan):g}"
            )
        self._bars = int(state["bars"])
        self._variance, self._weight = state["variance"], state["weight"]
        self._mean_volume = state["mean_volume"]
        self._close = state.get("close", math.nan)
        self._scale = max(math.sqrt(self._variance / self._weight), self._floor) if self._weight > 0.0 else math.nan


def _clipped(value: float, limit: float) -> float:
    return limit if value > limit else -limit if value < -limit else value


def features(bars: BarSeries, config: FeatureConfig) -> Features:
    """The features of a whole series: what a stream gives for its bars one by one, to the last bit.

    It is the stream, run over the columns (2 us a bar): numpy's vectorised logarithms differ from the scalar ones in
    the last bit on some processors, and a token must not depend on how it was computed.
    """
    stream = FeatureStream(config)
    n = len(bars)
    x = np.full((n, len(config.names)), np.nan)
    scale = np.full(n, np.nan)
    columns = (bars.open.tolist(), bars.high.tolist(), bars.low.tolist(), bars.close.tolist(), bars.volume.tolist())
    for i, bar in enumerate(zip(*columns, strict=True)):
        before = stream.scale
        row = stream.push(*bar)
        if row is not None:
            x[i] = row
            scale[i] = before
    returns = np.full(n, np.nan)
    if n:
        returns[1:] = np.log(bars.close[1:] / bars.close[:-1])
    return Features(x, scale, returns)


def moves(x: Floats, config: FeatureConfig) -> Floats:
    """Features back to moves in scales, (n, F): sinh, wicks not below zero, nothing beyond `clip`."""
    limit = math.asinh(config.clip)
    back: Floats = np.sinh(np.clip(x, -limit, limit))  # (n, F)
    for i, name in enumerate(config.names):
        if name.endswith("wick"):
            back[:, i] = np.maximum(back[:, i], 0.0)
    return back
