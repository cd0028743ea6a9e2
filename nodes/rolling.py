"""Moments of a sliding window, exact at any length of run."""

import math
from collections import deque

_SCALE = 2.0**60
RESOLUTION = 1.0 / _SCALE  # 8.7e-19: values are held in units of it
VALUE_MAX = 1e100  # far beyond any price, volume or sensor; squares of scaled values stay within range


class RollingMoments:
    """Mean and sample standard deviation of the last `size` values, O(1) a value.

    Float sums that add the newest and subtract the oldest value drift, and keep the rounding of an outlier long after
    it left. Here values are integers of a fixed scale, so both sums are exact: a window of equal values has deviation
    0.0, and a result depends on the values in the window alone, never on those before it.
    """

    __slots__ = ("_squares", "_sum", "_values")

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, was {size}")
        self._values: deque[int] = deque(maxlen=size)
        self._sum = 0
        self._squares = 0

    def push(self, value: float) -> None:
        """Add `value`, and drop the oldest one when the window is full.

        Raises:
            ValueError: `value` is not a number within +-1e100.
        """
        if not -VALUE_MAX <= value <= VALUE_MAX:
            raise ValueError(f"value must be a number within +-{VALUE_MAX:g}, was {value}")
        scaled = int(value * _SCALE)
        if len(self._values) == self._values.maxlen:
            oldest = self._values[0]
            self._sum -= oldest
            self._squares -= oldest * oldest
        self._values.append(scaled)
        self._sum += scaled
        self._squares += scaled * scaled

    def __len__(self) -> int:
        return len(self._values)

    @property
    def full(self) -> bool:
        return len(self._values) == self._values.maxlen

    @property
    def mean(self) -> float:
        """Mean of the window; 0.0 while it is empty."""
        return self._sum / len(self._values) / _SCALE if self._values else 0.0

    @property
    def deviation(self) -> float:
        """Sample standard deviation of the window; 0.0 below two values."""
        n = len(self._values)
        return math.sqrt((n * self._squares - self._sum * self._sum) / (n * (n - 1))) / _SCALE if n > 1 else 0.0
