"""What kind of market it is, and a rule that adapts to it."""

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import csp
from csp import ts

from feeds.sessions import SessionClock
from nodes.events import Alert, AlertLevel, MarketState, Regime, Signal, Trend, VolumeProfile
from nodes.rolling import RollingMoments

_BARS_MAX = 1_000_000  # of a window; it is held in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketStateConfig:
    """Where one kind of market ends and the next begins. Windows count bars.

    With the defaults a random walk with unrelated volumes changes its state every 40 to 45 bars.
    """

    volatility_window_bars: int = 20  # of the realised volatility
    volatility_history_bars: int = 250  # the regime compares the window with this
    calm_ratio: float = 0.7  # deviation of the window over that of the history
    volatile_ratio: float = 1.5  # the same, above it VOLATILE
    trend_window_bars: int = 50  # of the mean return
    trend_t_min: float = 2.0  # standard errors of the mean return; a random walk exceeds it 5 % of the time
    volume_recent_bars: int = 20  # compared with the window
    volume_window_bars: int = 100  # of the average volume
    volume_low_ratio: float = 0.5  # mean of the recent bars over the mean of the window
    volume_high_ratio: float = 2.0  # the same, above it HIGH
    hysteresis: float = 0.25  # fraction of a threshold by which a value must come back before its state is left

    def __post_init__(self) -> None:
        for short, long, shortest in (
            ("volatility_window_bars", "volatility_history_bars", 2),
            ("volume_recent_bars", "volume_window_bars", 1),
        ):
            if not shortest <= getattr(self, short) < getattr(self, long) <= _BARS_MAX:
                raise ValueError(
                    f"want {shortest} <= {short} < {long} <= {_BARS_MAX}, "
                    f"was {getattr(self, short)} and {getattr(self, long)}"
                )
        if not 2 <= self.trend_window_bars <= _BARS_MAX:
            raise ValueError(f"trend_window_bars must lie in [2, {_BARS_MAX}], was {self.trend_window_bars}")
        if not 0.0 < self.trend_t_min < math.inf:
            raise ValueError(f"trend_t_min must be positive and finite, was {self.trend_t_min}")
        if not 0.0 <= self.hysteresis < 1.0:
            raise ValueError(f"hysteresis must lie in [0, 1), was {self.hysteresis}")
        for low, high in (("calm_ratio", "volatile_ratio"), ("volume_low_ratio", "volume_high_ratio")):
            low_ratio, high_ratio = getattr(self, low), getattr(self, high)
            if not 0.0 < low_ratio < 1.0 < high_ratio < math.inf:
                raise ValueError(f"want 0 < {low} < 1 < {high}, was {low_ratio} and {high_ratio}")
            if not low_ratio * (1.0 + self.hysteresis) < high_ratio * (1.0 - self.hysteresis):
                raise ValueError(
                    f"hysteresis must leave room between {low} and {high}, "
                    f"was {self.hysteresis} with {low_ratio} and {high_ratio}"
                )


_REGIMES = {-1: Regime.CALM, 0: Regime.NORMAL, 1: Regime.VOLATILE}
_TRENDS = {-1: Trend.DOWN, 0: Trend.FLAT, 1: Trend.UP}
_VOLUMES = {-1: VolumeProfile.LOW, 0: VolumeProfile.NORMAL, 1: VolumeProfile.HIGH}
_JUST_BEFORE = timedelta(microseconds=1)
_NOISE = 1e-12  # deviations and means of log returns below are rounding, which is about 1e-15 a return


def _band(was: int, x: float, low: float, high: float, hysteresis: float) -> int:
    """-1 at or below `low`, 1 at or above `high`, else 0; the band that we `was` in is wider by `hysteresis`."""
    if x >= high or (was > 0 and x > high - hysteresis * abs(high)):
        return 1
    if x <= low or (was < 0 and x < low + hysteresis * abs(low)):
        return -1
    return 0


class _Gauge:
    """Volatility, trend and volume of one symbol as bands: -1, 0 or 1. All are 0 until their windows are full."""

    __slots__ = (
        "_config",
        "_history",
        "_log_close",
        "_recent_volume",
        "_trend_window",
        "_volume_window",
        "_window",
        "regime",
        "trend",
        "volume",
    )

    def __init__(self, config: MarketStateConfig) -> None:
        self._config = config
        self._window = RollingMoments(config.volatility_window_bars)
        self._history = RollingMoments(config.volatility_history_bars)
        self._trend_window = RollingMoments(config.trend_window_bars)
        self._recent_volume = RollingMoments(config.volume_recent_bars)
        self._volume_window = RollingMoments(config.volume_window_bars)
        self._log_close: float | None = None
        self.regime = self.trend = self.volume = 0

    @property
    def volatility(self) -> float:
        return self._window.deviation

    def add_close(self, close: float) -> None:
        before, self._log_close = self._log_close, math.log(close)
        if before is None:
            return
        log_return = self._log_close - before
        for window in (self._window, self._history, self._trend_window):
            window.push(log_return)
        c = self._config
        # A history hardly longer than the window would compare it with itself.
        if len(self._history) >= min(2 * c.volatility_window_bars, c.volatility_history_bars):
            usual = self._history.deviation
            ratio = self._window.deviation / usual if usual > _NOISE else 1.0
            self.regime = _band(self.regime, ratio, c.calm_ratio, c.volatile_ratio, c.hysteresis)
        if self._trend_window.full:
            t = _t_statistic(self._trend_window)
            self.trend = _band(self.trend, t, -c.trend_t_min, c.trend_t_min, c.hysteresis)

    def add_volume(self, volume: float) -> None:
        self._recent_volume.push(volume)
        self._volume_window.push(volume)
        if self._volume_window.full:
            c = self._config
            usual = self._volume_window.mean
            ratio = self._recent_volume.mean / usual if usual > 0.0 else 1.0
            self.volume = _band(self.volume, ratio, c.volume_low_ratio, c.volume_high_ratio, c.hysteresis)


def _t_statistic(window: RollingMoments) -> float:
    """Mean over its standard error; without any deviation the sign of the mean, times infinity, or 0.0."""
    mean, deviation = window.mean, window.deviation
    if deviation > _NOISE:
        return mean / (deviation / math.sqrt(len(window)))
    return math.copysign(math.inf, mean) if abs(mean) > _NOISE else 0.0


def _refuse_bad_bar(symbol: str, close: float, volume: float, when: object) -> None:
    if not 0.0 < close < math.inf:
        raise ValueError(f"close of {symbol} must be positive and finite, was {close} at {when}")
    if not 0.0 <= volume < math.inf:
        raise ValueError(f"volume of {symbol} must be finite and not negative, was {volume} at {when}")


@csp.node
def market_state(
    close: ts[float], volume: ts[float], symbol: str, config: MarketStateConfig, calendar: str
) -> ts[MarketState]:
    """Name the kind of market that each bar closed in.

    regime   standard deviation of log returns in the volatility window over that in its history: CALM at or below
             `calm_ratio`, VOLATILE at or above `volatile_ratio`. NORMAL until the history is twice the window.
    trend    mean log return of the trend window in its standard errors: the drift of a random walk against none.
             UP or DOWN from `trend_t_min`. FLAT until the window is full.
    volume   mean volume of the recent bars over that of the volume window, LOW or HIGH beyond its two ratios. NORMAL
             until the window is full, and where the source has no volume.
    session  of the interval that the bar closed, so a bar that ends at the open is PRE_MARKET.

    A state is entered at its threshold and left only when the value has come back by `hysteresis` times it.

    Args:
        close: close of each bar, quote currency, positive; the tick is the bar's close.
        volume: volume of the same bar, in the same tick; 0.0 or no tick where the source has none.
        calendar: see `SessionClock`.

    Ticks:
        On the first bar, and then on each bar where one of the four differs from the last tick.

    Raises:
        ValueError: a close that is not positive and finite, a volume that is negative or not finite, or an unknown
            calendar.

    Source: realised volatility as in Andersen & Bollerslev, "Answering the skeptics", International Economic Review
        39(4), 1998, but around the mean; the t-statistic is Student's.
    """
    with csp.state():
        s_gauge = None
        s_clock = None
        s_last = None

    with csp.start():
        csp.make_passive(volume)
        s_gauge = _Gauge(config)
        s_clock = SessionClock(calendar)

    if csp.ticked(close):
        _refuse_bad_bar(symbol, close, volume if csp.ticked(volume) else 0.0, csp.now())
        s_gauge.add_close(close)
        if csp.ticked(volume):
            s_gauge.add_volume(volume)
        session = s_clock.at(csp.now() - _JUST_BEFORE)
        key = (s_gauge.regime, s_gauge.trend, s_gauge.volume, session)
        if key != s_last:
            s_last = key
            return MarketState(
                symbol=symbol,
                regime=_REGIMES[s_gauge.regime],
                trend=_TRENDS[s_gauge.trend],
                volume=_VOLUMES[s_gauge.volume],
                session=session,
                volatility=s_gauge.volatility,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveConfig:
    """Price against its moving average, in a normal market. Other markets scale `threshold` and `volume_floor`."""

    window_bars: int = 20  # of the moving average, and of the average volume
    threshold: float = 0.02  # fraction from the moving average
    volume_floor: float = 0.5  # multiple of the average volume that a move needs to count; 0 disables
    cooldown_bars: int = 3  # bars after a signal that give none
    horizon_s: float = 86_400.0  # time constant of a signal's age
    confidence: float = 0.5  # a fixed rule does not know how often it is right

    def __post_init__(self) -> None:
        if not 2 <= self.window_bars <= _BARS_MAX:
            raise ValueError(f"window_bars must lie in [2, {_BARS_MAX}], was {self.window_bars}")
        if self.cooldown_bars < 0:
            raise ValueError(f"cooldown_bars must not be negative, was {self.cooldown_bars}")
        for name in ("threshold", "horizon_s"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {getattr(self, name)}")
        if not 0.0 <= self.volume_floor < math.inf:
            raise ValueError(f"volume_floor must be finite and not negative, was {self.volume_floor}")
        if not 0.0 < self.confidence <= 1.0:
            raise ValueError(f"confidence must lie in (0, 1], was {self.confidence}")


class Strategy(NamedTuple):
    """How a regime scales the rule."""

    name: str
    threshold_scale: float
    volume_scale: float


STRATEGIES = {
    Regime.VOLATILE: Strategy("conservative", 2.0, 1.5),
    Regime.NORMAL: Strategy("normal", 1.0, 1.0),
    Regime.CALM: Strategy("aggressive", 0.5, 1.0),
}


def _wanted_side(deviation: float, threshold: float, confirmed: bool, side: int) -> int:
    """-1, 0 or 1. An unconfirmed move opens nothing: it keeps a side that it agrees with, and else wants none."""
    wanted = int(deviation > threshold) - int(deviation < -threshold)
    return wanted if confirmed or wanted == side else 0


def _switch_alert(symbol: str, before: Strategy, after: Strategy, threshold: float) -> Alert:
    scaled = threshold * after.threshold_scale
    return Alert(
        level=AlertLevel.INFO,
        source="adaptive",
        symbol=symbol,
        message=f"{symbol} strategy {before.name} -> {after.name}, threshold {scaled:.2%}",
        value=scaled,
    )


@csp.node
def adaptive_signal(
    close: ts[float], volume: ts[float], state: ts[MarketState], symbol: str, config: AdaptiveConfig
) -> csp.Outputs(signal=ts[Signal], alert=ts[Alert]):
    """Follow the price when it leaves its moving average, the more boldly the calmer the market.

    With d = close / mean of the last `window_bars` closes - 1, the rule is long above `threshold`, short below
    -`threshold` and flat between; the score is d / (2 * threshold), cut to [-1, 1], and 0.0 when flat. A move counts
    only when the bar's volume reaches `volume_floor` times its average over the same bars; to be flat needs no volume.
    The regime sets the strategy: NORMAL as configured, VOLATILE conservative (2 * threshold, 1.5 * volume floor), CALM
    aggressive (threshold / 2).

    Args:
        close: close of each bar, quote currency, positive.
        volume: volume of the same bar, in the same tick; where the average is 0.0 every bar has volume enough.
        state: the market; normal until it first ticks. A state in the tick of a bar holds for that bar.

    Ticks:
        signal: when the side changes, on a bar at least `cooldown_bars` after the bar of the signal before.
        alert: INFO on each switch of strategy; its value is the threshold from then on.

    Raises:
        ValueError: a close that is not positive and finite, or a volume that is negative or not finite.
    """
    with csp.state():
        s_closes = None
        s_volumes = None
        s_strategy = STRATEGIES[Regime.NORMAL]
        s_side = 0
        s_cooldown = 0

    with csp.start():
        csp.make_passive(volume)
        s_closes = RollingMoments(config.window_bars)
        s_volumes = RollingMoments(config.window_bars)

    if csp.ticked(state):
        strategy = STRATEGIES[state.regime]
        if strategy is not s_strategy:
            before, s_strategy = s_strategy, strategy
            csp.output(alert=_switch_alert(symbol, before, strategy, config.threshold))

    if csp.ticked(close):
        bar_volume = volume if csp.ticked(volume) else 0.0
        _refuse_bad_bar(symbol, close, bar_volume, csp.now())
        s_closes.push(close)
        s_volumes.push(bar_volume)
        if s_cooldown > 0:
            s_cooldown -= 1
        elif s_closes.full:
            threshold = config.threshold * s_strategy.threshold_scale
            floor = config.volume_floor * s_strategy.volume_scale * s_volumes.mean
            deviation = close / s_closes.mean - 1.0
            side = _wanted_side(deviation, threshold, bar_volume >= floor, s_side)
            if side != s_side:
                s_side = side
                s_cooldown = config.cooldown_bars
                csp.output(
                    signal=Signal(
                        symbol=symbol,
                        source="adaptive",
                        score=max(-1.0, min(1.0, deviation / (2.0 * threshold))) if side else 0.0,
                        confidence=config.confidence,
                        horizon_s=config.horizon_s,
                        asof=csp.now(),
                    )
                )
