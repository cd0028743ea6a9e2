"""One figure of a report: a number that the data support, or the reason why there is none."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number with its uncertainty, or a reason. Never both, never neither, never NaN."""

    value: float | None
    reason: str | None = None  # why there is no value
    standard_error: float | None = None
    interval: tuple[float, float] | None = None  # 95 %

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"a figure wants a value or a reason, was {self.value} and {self.reason!r}")
        numbers = [x for x in (self.value, self.standard_error, *(self.interval or ())) if x is not None]
        if not all(math.isfinite(x) for x in numbers):
            raise ValueError(f"the numbers of a figure must be finite, were {numbers}")


def measured(
    value: float, *, standard_error: float | None = None, interval: tuple[float, float] | None = None
) -> Figure:
    """The figure of a calculation. A value beyond the range of a float becomes a reason, an uncertainty None."""
    if not math.isfinite(value):
        return absent("the number is too large to write down")
    if standard_error is not None and not math.isfinite(standard_error):
        standard_error = None
    if interval is not None and not all(math.isfinite(x) for x in interval):
        interval = None
    pair = None if interval is None else (float(interval[0]), float(interval[1]))
    return Figure(value=float(value), standard_error=standard_error, interval=pair)


def absent(reason: str) -> Figure:
    """The figure that the data cannot support."""
    return Figure(value=None, reason=reason)
