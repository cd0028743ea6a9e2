"""Falls of an account from its running peak: how deep, when, and how long until it was back."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from evaluation.run import Floats, Ints, moment

DAY_NS = 86_400_000_000_000
DRAWDOWNS_MAX = 5  # in the table


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawdown:
    """One fall from a peak until the account was back there. Naive UTC."""

    peak: datetime
    trough: datetime
    recovered: datetime | None  # None: not by the end of the run
    depth: float  # fraction of the peak; above 1 where money is owed
    days_down: float  # from the peak to the trough
    days_up: float | None  # from the trough until recovered; None: not by the end
    days: float  # from the peak until recovered, or until the end


def drawdowns(equity: Floats, initial: float) -> Floats:
    """The fall from the running peak as a fraction of it, at every mark. (N,) -> (N,); above 1 where money is owed."""
    falls: Floats = 1.0 - equity / running_peak(equity, initial)
    return falls


def running_peak(equity: Floats, initial: float) -> Floats:
    peak: Floats = np.maximum.accumulate(np.maximum(equity, initial))
    return peak


def deepest(times: Ints, equity: Floats, initial: float, count: int = DRAWDOWNS_MAX) -> tuple[Drawdown, ...]:
    """The `count` deepest drawdowns of every mark, the deepest first, of equal ones the earlier.

    A drawdown lasts from the last mark at a peak, or from the first mark where the peak is the initial value, to the
    first mark that is back there. So no two of them overlap.

    Args:
        times: (N,) ns UTC, not decreasing.
        equity: (N,) account value.
        initial: value before the first mark, positive.
    """
    falls = drawdowns(equity, initial)  # (N,)
    below = np.concatenate([[False], falls > 0.0, [False]])  # (N + 2,)
    starts = np.flatnonzero(below[1:] & ~below[:-1])  # (E,) the first mark below the peak
    ends = np.flatnonzero(~below[1:] & below[:-1])  # (E,) the first mark back at it; N: none
    if not starts.size or len(times) < 2:
        return ()
    # Pairs: every other piece is the time between two drawdowns. A piece cannot begin at N, where the last may end.
    edges = np.stack([starts, ends], axis=1).ravel()  # (2 E,)
    depths = np.maximum.reduceat(falls, edges[edges < len(falls)])[::2]  # (E,)
    chosen = np.argsort(-depths, kind="stable")[:count]
    return tuple(_drawdown(times, falls, int(starts[i]), int(ends[i])) for i in chosen)


def fall(values: Floats) -> float:
    """The deepest fall of a profit from its running peak, which is at least zero, in the unit of `values`."""
    if not len(values):
        return 0.0
    return float((np.maximum.accumulate(np.maximum(values, 0.0)) - values).max())


def _drawdown(times: Ints, falls: Floats, start: int, end: int) -> Drawdown:
    trough = start + int(falls[start:end].argmax())
    peak_ns, trough_ns = int(times[max(0, start - 1)]), int(times[trough])
    back = end < len(times)
    end_ns = int(times[end if back else -1])
    return Drawdown(
        peak=moment(peak_ns),
        trough=moment(trough_ns),
        recovered=moment(end_ns) if back else None,
        depth=float(falls[trough]),
        days_down=(trough_ns - peak_ns) / DAY_NS,
        days_up=(end_ns - trough_ns) / DAY_NS if back else None,
        days=(end_ns - peak_ns) / DAY_NS,
    )
