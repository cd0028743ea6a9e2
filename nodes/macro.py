"""A signal from macro series: is money moving towards risk or away from it?"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

import csp
from csp import ts

from feeds.events import MacroPoint
from nodes.events import Signal

_FLAT = 1e-9  # a spread of changes below this fraction of the largest one is rounding, not a scale
_HUGE = 1e100  # no series comes near; its square still fits a float


@dataclass(frozen=True, slots=True, kw_only=True)
class MacroConfig:
    """Which series speak, and how loudly."""

    risk_on: tuple[str, ...] = ("^GSPC",)  # a rise speaks for the symbol
    risk_off: tuple[str, ...] = ("^VIX", "DX-Y.NYB")  # a rise speaks against it
    difference: tuple[str, ...] = ("^TNX",)  # plain change, for what may be zero or negative; the others log change
    window: int = 60  # changes that the latest one is measured against
    changes_min: int = 20  # changes before a series speaks
    z_scale: float = 2.0  # standard deviations at which the score reaches tanh(1) = 0.76
    fresh_s: float = 4 * 86_400.0  # a series counts this long; daily series rest over a long weekend
    settle_s: float = 1e-6  # points this close together make one score
    change_min: float = 0.01  # of score or confidence, before the signal ticks again
    confidence: float = 0.3  # with every series fresh
    horizon_s: float = 2 * 86_400.0  # time constant of the signal's decay

    def __post_init__(self) -> None:
        names = self.risk_on + self.risk_off
        if not names or len(set(names)) < len(names):
            raise ValueError(f"risk_on and risk_off must name some series, each once, were {names}")
        if not 2 <= self.changes_min <= self.window <= 1_000_000:
            raise ValueError(f"want 2 <= changes_min <= window <= 1000000, was {self.changes_min} and {self.window}")
        for name in ("z_scale", "fresh_s", "horizon_s"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {value}")
        if not 1e-6 <= self.settle_s < self.fresh_s <= 1e9:
            raise ValueError(f"want 1e-6 <= settle_s < fresh_s <= 1e9, was {self.settle_s} and {self.fresh_s}")
        for name in ("change_min", "confidence"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], was {value}")


def z_score(change: float, before: Iterable[float]) -> float:
    """How many sample standard deviations `change` lies from the mean of the changes before it; 0.0 if those are flat.

    Args:
        change: the latest change, not part of `before`.
        before: at least two changes.
    """
    window = tuple(before)
    mean = math.fsum(window) / len(window)
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in window) / (len(window) - 1))
    if deviation <= _FLAT * max(map(abs, window)):
        return 0.0
    return (change - mean) / deviation


class _Series:
    """The recent changes of one series, and what the latest one says."""

    __slots__ = ("_changes", "_difference", "_last", "_minimum", "known", "z")

    def __init__(self, name: str, config: MacroConfig) -> None:
        self._changes: deque[float] = deque(maxlen=config.window)
        self._difference = name in config.difference
        self._minimum = config.changes_min
        self._last: float | None = None
        self.known: datetime | None = None  # engine time of z; None until there are enough changes
        self.z = 0.0

    def add(self, point: MacroPoint, now: datetime) -> None:
        value = point.value
        lowest = -_HUGE if self._difference else 0.0
        if not lowest < value < _HUGE:
            raise ValueError(f"{point.series} must lie in ({lowest:g}, {_HUGE:g}), was {value} at {now}")
        if self._last is not None:
            change = value - self._last if self._difference else math.log(value) - math.log(self._last)
            if len(self._changes) >= self._minimum:
                self.z = z_score(change, self._changes)
                self.known = now
            self._changes.append(change)
        self._last = value


def _fresh(series: Mapping[str, _Series], now: datetime, fresh_for: timedelta) -> dict[str, tuple[datetime, float]]:
    """{name: (known, z)} of the series that have something to say, and said it less than `fresh_for` ago."""
    spoken = {name: (s.known, s.z) for name, s in series.items() if s.known is not None}
    return {name: (known, z) for name, (known, z) in spoken.items() if now - known < fresh_for}


def _combine(fresh: Mapping[str, tuple[datetime, float]], config: MacroConfig) -> tuple[float, float]:
    """Score and confidence: the mean of the squashed z-scores, and the share of the series that are fresh."""
    if not fresh:
        return 0.0, 0.0
    votes = [(1.0 if n in config.risk_on else -1.0) * math.tanh(z / config.z_scale) for n, (_, z) in fresh.items()]
    share = len(fresh) / (len(config.risk_on) + len(config.risk_off))
    return math.fsum(votes) / len(votes), config.confidence * share


@csp.node
def macro_signal(point: ts[MacroPoint], symbol: str, config: MacroConfig) -> ts[Signal]:
    """Score the latest moves of macro series: +1 is money moving towards risk, -1 away from it.

    score = mean over fresh series of direction * tanh(z / z_scale), where z measures the series' latest change (log
    change, or plain change if listed under `difference`) in standard deviations of the `window` changes before it.
    confidence = `confidence` * share of the configured series that are fresh.

    Args:
        point: points of any series; those that the config does not name are ignored.
        symbol: whom the signal is for; the score is the same for every symbol.

    Ticks:
        `settle_s` after the first of a group of points, source "macro", when score or confidence has moved by more
        than `change_min` since the last tick (which starts at 0 and 0), or confidence has left or reached 0. Also when
        a series goes stale and that moves them; with none fresh, score and confidence are 0. `asof` is when the newest
        point that speaks became known.

    Raises:
        ValueError: a named series has a value that is not a number, or not positive where log changes are taken.
    """
    with csp.alarms():
        a_settle = csp.alarm(bool)
        a_stale = csp.alarm(bool)
    with csp.state():
        s_series = {name: _Series(name, config) for name in chain(config.risk_on, config.risk_off)}
        s_fresh_for = timedelta(seconds=config.fresh_s)
        s_settling = False
        s_watched = False
        s_score = 0.0
        s_confidence = 0.0

    if csp.ticked(point) and point.series in s_series:
        s_series[point.series].add(point, csp.now())
        if not s_settling:
            s_settling = True
            csp.schedule_alarm(a_settle, timedelta(seconds=config.settle_s), True)

    if csp.ticked(a_settle) or csp.ticked(a_stale):
        if csp.ticked(a_settle):
            s_settling = False
        if csp.ticked(a_stale):
            s_watched = False
        fresh = _fresh(s_series, csp.now(), s_fresh_for)
        if fresh and not s_watched:  # one alarm for all: it wakes for the oldest, and is armed again for the next
            s_watched = True
            csp.schedule_alarm(a_stale, min(known for known, _ in fresh.values()) + s_fresh_for, True)
        score, confidence = _combine(fresh, config)
        moved = max(abs(score - s_score), abs(confidence - s_confidence)) > config.change_min
        if moved or (confidence == 0.0) != (s_confidence == 0.0):  # falling silent is news, however quiet it was
            s_score = score
            s_confidence = confidence
            return Signal(
                symbol=symbol,
                source="macro",
                score=score,
                confidence=confidence,
                horizon_s=config.horizon_s,
                asof=max(s.known for s in s_series.values() if s.known is not None),
            )
