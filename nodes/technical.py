"""Price signals on bars: the rules of technical analysis.

Each rule is a config and a graph that reads bar columns which tick together, once a bar. A rule ticks only when its
side changes: BUY is score +1, SELL is -1, and 0 is flat where the rule knows an exit. Trend rules hold their side until
the opposite one; reversion rules go flat half way. Nothing ticks before the rule's window is full.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any

import csp
from csp import ts

from nodes.events import Signal
from nodes.indicators import atr, bollinger, donchian, ema, momentum, rsi, sma

_LARGEST = 1e100  # prices and volumes below it cannot overflow a sum
_ROUNDING = 1e-12  # averages nearer than this fraction are equal: a cross must not be made of rounding


def _check_bars(name: str, bars: int, least: int = 1) -> None:
    if not least <= bars <= 1_000_000:
        raise ValueError(f"{name} must lie in [{least}, 1000000], was {bars}")


def _check_pair(fast_bars: int, slow_bars: int) -> None:
    _check_bars("fast_bars", fast_bars)
    _check_bars("slow_bars", slow_bars)
    if fast_bars >= slow_bars:
        raise ValueError(f"fast_bars must be below slow_bars, were {fast_bars} and {slow_bars}")


def _check_band(name: str, band: float) -> None:
    if not 0.0 <= band < 1.0:
        raise ValueError(f"{name} must lie in [0, 1), was {band}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleConfig:
    """What every rule says about its own signals."""

    confidence: float = 0.5  # [0, 1]
    horizon_s: float = 86_400.0  # how long an opinion counts

    def __post_init__(self) -> None:
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence must lie in [0, 1], was {self.confidence}")
        if not 0.0 < self.horizon_s < math.inf:
            raise ValueError(f"horizon_s must be positive and finite, was {self.horizon_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingAverageConfig(RuleConfig):
    """The price against its own average, where enough was traded."""

    bars: int = 20  # of the window
    band: float = 0.0  # fraction of the average
    volume_min: float = 0.0  # of the bar, base units

    def __post_init__(self) -> None:
        RuleConfig.__post_init__(self)
        _check_bars("bars", self.bars, 2)
        _check_band("band", self.band)
        if not 0.0 <= self.volume_min < math.inf:
            raise ValueError(f"volume_min must not be negative and be finite, was {self.volume_min}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SmaCrossConfig(RuleConfig):
    """A fast simple average against a slow one."""

    fast_bars: int = 10  # of the fast average
    slow_bars: int = 20  # of the slow average
    band: float = 0.0  # fraction of the slow average

    def __post_init__(self) -> None:
        RuleConfig.__post_init__(self)
        _check_pair(self.fast_bars, self.slow_bars)
        _check_band("band", self.band)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmaCrossConfig(RuleConfig):
    """A fast exponential average against a slow one."""

    fast_bars: int = 12  # of the fast average
    slow_bars: int = 26  # of the slow average
    band: float = 0.0  # fraction of the slow average

    def __post_init__(self) -> None:
        RuleConfig.__post_init__(self)
        _check_pair(self.fast_bars, self.slow_bars)
        _check_band("band", self.band)


@dataclass(frozen=True, slots=True, kw_only=True)
class RsiConfig(RuleConfig):
    """Against the move when the relative strength index is extreme; out at 50. Wilder's own numbers."""

    bars: int = 14  # of the window
    oversold: float = 30.0  # below it BUY
    overbought: float = 70.0  # above it SELL

    def __post_init__(self) -> None:
        RuleConfig.__post_init__(self)
        _check_bars("bars", self.bars, 2)
        if not 0.0 <= self.oversold < 50.0 < self.overbought <= 100.0:
            raise ValueError(f"want 0 <= oversold < 50 < overbought <= 100, was {self.oversold} and {self.overbought}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BollingerConfig(RuleConfig):
    """Against the move when the close is `entry` deviations from its mean; out at the mean."""

    bars: int = 20  # of the window
    entry: float = 2.0  # standard deviations

    def __post_init__(self) -> None:
        RuleConfig.__post_init__(self)
        _check_bars("bars", self.bars, 2)
        if not 0.0 < self.entry < math.sqrt(self.bars - 1):
            most = math.sqrt(self.bars - 1)
            raise ValueError(f"entry must lie in (0, {most:g}), no bar of {self.bars} is further out; was {self.entry}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentumConfig(RuleConfig):
    """With the return over the last bars."""

    bars: int = 20  # of the window
    return_min: float = 0.0  # fraction, either way

    def __post_init__(self) -> None:
        RuleConfig.__post_init__(self)
        _check_bars("bars", self.bars)
        _check_band("return_min", self.return_min)


@dataclass(frozen=True, slots=True, kw_only=True)
class DonchianConfig(RuleConfig):
    """With a close outside the range of the bars before; the further out, the more confident."""

    bars: int = 20  # of the window
    atr_bars: int = 14  # of the average true range
    confident_atr: float = (
        0.5  # average true ranges beyond the channel that earn all of the confidence; a touch has half
    )

    def __post_init__(self) -> None:
        RuleConfig.__post_init__(self)
        _check_bars("bars", self.bars)
        _check_bars("atr_bars", self.atr_bars)
        if not 0.0 < self.confident_atr < math.inf:
            raise ValueError(f"confident_atr must be positive and finite, was {self.confident_atr}")


def _signal(symbol: str, source: str, score: float, confidence: float, config: RuleConfig, asof: datetime) -> Signal:
    return Signal(
        symbol=symbol, source=source, score=score, confidence=confidence, horizon_s=config.horizon_s, asof=asof
    )


@csp.node
def _checked(x: ts[float], column: str, symbol: str, positive: bool) -> ts[float]:
    """One bar column as it is. Equal calls are one node, so rules that share a column share its check."""
    if csp.ticked(x):
        if not (0.0 < x < _LARGEST or (x == 0.0 and not positive)):
            wanted = "positive" if positive else "not negative"
            raise ValueError(f"{column} of {symbol} must be {wanted} and below {_LARGEST:g}, was {x} at {csp.now()}")
        return x


@csp.node
def _trend(value: ts[float], band: float, symbol: str, source: str, config: RuleConfig) -> ts[Signal]:
    """BUY above `band`, SELL below -`band`; in between the last side stands."""
    with csp.state():
        s_band = max(band, _ROUNDING)
        s_side = 0.0

    if csp.ticked(value):
        side = 1.0 if value > s_band else -1.0 if value < -s_band else s_side
        if side != s_side:
            s_side = side
            return _signal(symbol, source, side, config.confidence, config, csp.now())


@csp.node
def _reversion(
    value: ts[float], low: float, middle: float, high: float, symbol: str, source: str, config: RuleConfig
) -> ts[Signal]:
    """BUY at or below `low`, SELL at or above `high`, flat once `middle` is reached again."""
    with csp.state():
        s_side = 0.0

    if csp.ticked(value):
        if value <= low:
            side = 1.0
        elif value >= high:
            side = -1.0
        elif (value - middle) * s_side >= 0.0:
            side = 0.0
        else:
            side = s_side
        if side != s_side:
            s_side = side
            return _signal(symbol, source, side, config.confidence, config, csp.now())


@csp.graph
def moving_average_signal(
    close: ts[float], volume: ts[float], symbol: str, config: MovingAverageConfig, source: str = "moving_average"
) -> ts[Signal]:
    """BUY when close > (1 + band) * mean of the last `bars` closes, SELL when close < (1 - band) * mean.

    Args:
        close: quote currency, positive; this close is in the mean.
        volume: base units; a bar below `volume_min` is not acted upon, but is in the mean.

    Ticks:
        On a bar with enough volume that changes the side.

    Raises:
        ValueError: a close is not positive, or a volume negative; neither may be NaN or infinite.

    Source: Brock, Lakonishok & LeBaron, "Simple technical trading rules", Journal of Finance 47(5), 1992.
    """
    price = _checked(close, "close", symbol, positive=True)
    enough = _checked(volume, "volume", symbol, positive=False) >= config.volume_min
    distance = csp.filter(enough, price / sma(price, config.bars) - 1.0)
    return _trend(distance, config.band, symbol, source, config)


@csp.node
def sma_cross_signal(close: ts[float], symbol: str, config: SmaCrossConfig, source: str = "sma_cross") -> ts[Signal]:
    """BUY when the fast mean > (1 + band) * the slow one, SELL when it is < (1 - band) * the slow one.

    Args:
        close: quote currency, positive.

    Ticks:
        When the side changes, from bar `slow_bars` on.

    Raises:
        ValueError: a close is not a positive number below 1e100.

    Source: Brock, Lakonishok & LeBaron, "Simple technical trading rules", Journal of Finance 47(5), 1992.
    """
    # One node, because a bar here costs less than two csp.stats.mean and a comparison; the sums of the ring are taken
    # anew each time it comes round, so their rounding is that of at most slow_bars additions at any length of run.
    with csp.state():
        s_ring = [0.0] * config.slow_bars
        s_at = 0  # where the oldest close stands
        s_fast_bars = config.fast_bars
        s_fast = math.nan  # sums, NaN until the ring is full: no comparison with them holds
        s_slow = math.nan
        s_above = (1.0 + max(config.band, _ROUNDING)) * config.fast_bars / config.slow_bars
        s_below = (1.0 - max(config.band, _ROUNDING)) * config.fast_bars / config.slow_bars
        s_side = 0.0

    if csp.ticked(close):
        if not 0.0 < close < _LARGEST:
            raise ValueError(f"close of {symbol} must be positive and below {_LARGEST:g}, was {close} at {csp.now()}")
        s_fast += close - s_ring[s_at - s_fast_bars]  # a negative index wraps round, as the ring does
        s_slow += close - s_ring[s_at]
        s_ring[s_at] = close
        s_at += 1
        if s_at == len(s_ring):
            s_at = 0
            s_slow = math.fsum(s_ring)
            s_fast = math.fsum(s_ring[-s_fast_bars:])
        side = 1.0 if s_fast > s_slow * s_above else -1.0 if s_fast < s_slow * s_below else s_side
        if side != s_side:
            s_side = side
            return _signal(symbol, source, side, config.confidence, config, csp.now())


@csp.graph
def ema_cross_signal(close: ts[float], symbol: str, config: EmaCrossConfig, source: str = "ema_cross") -> ts[Signal]:
    """BUY when the fast exponential mean > (1 + band) * the slow one, SELL when it is < (1 - band) * the slow one.

    Args:
        close: quote currency, positive.

    Ticks:
        When the side changes, from bar `slow_bars` on.

    Raises:
        ValueError: a close is not a positive number below 1e100.

    Source: Appel, "Technical Analysis: Power Tools for Active Investors", 2005 (the averages of MACD).
    """
    price = _checked(close, "close", symbol, positive=True)
    distance = ema(price, config.fast_bars) / ema(price, config.slow_bars) - 1.0
    return _trend(distance, config.band, symbol, source, config)


@csp.graph
def rsi_signal(close: ts[float], symbol: str, config: RsiConfig, source: str = "rsi") -> ts[Signal]:
    """BUY at `oversold` or below, SELL at `overbought` or above, flat when the index is back at 50.

    Ticks:
        When the side changes, from bar `bars` + 1 on.

    Raises:
        ValueError: a close is not a positive number below 1e100.

    Source: Wilder, "New Concepts in Technical Trading Systems", 1978, section VI.
    """
    index = rsi(_checked(close, "close", symbol, positive=True), config.bars)
    return _reversion(index, config.oversold, 50.0, config.overbought, symbol, source, config)


@csp.graph
def bollinger_signal(close: ts[float], symbol: str, config: BollingerConfig, source: str = "bollinger") -> ts[Signal]:
    """BUY at the lower band or below, SELL at the upper one or above, flat when the close is back at the mean.

    Ticks:
        When the side changes, from bar `bars` on.

    Raises:
        ValueError: a close is not a positive number below 1e100.

    Source: Bollinger, "Bollinger on Bollinger Bands", 2001.
    """
    distance = bollinger(_checked(close, "close", symbol, positive=True), config.bars)
    return _reversion(distance, -config.entry, 0.0, config.entry, symbol, source, config)


@csp.graph
def momentum_signal(close: ts[float], symbol: str, config: MomentumConfig, source: str = "momentum") -> ts[Signal]:
    """BUY when the return over `bars` bars exceeds `return_min`, SELL when it is below its negative.

    Ticks:
        When the side changes, from bar `bars` + 1 on.

    Raises:
        ValueError: a close is not a positive number below 1e100.

    Source: Moskowitz, Ooi & Pedersen, "Time series momentum", Journal of Financial Economics 104(2), 2012.
    """
    change = momentum(_checked(close, "close", symbol, positive=True), config.bars)
    return _trend(change, config.return_min, symbol, source, config)


@csp.node
def _breakout(
    close: ts[float],
    upper: ts[float],
    lower: ts[float],
    volatility: ts[float],
    symbol: str,
    source: str,
    config: DonchianConfig,
) -> ts[Signal]:
    """BUY above `upper`, SELL below `lower`; in between the last side stands."""
    with csp.state():
        s_side = 0.0

    with csp.start():
        csp.make_passive(upper)
        csp.make_passive(lower)
        csp.make_passive(volatility)

    if csp.ticked(close) and csp.valid(upper, lower, volatility):
        side = 1.0 if close > upper else -1.0 if close < lower else s_side
        if side != s_side:
            s_side = side
            beyond = close - upper if side > 0.0 else lower - close
            full = volatility * config.confident_atr
            share = 0.5 + 0.5 * min(beyond / full, 1.0) if full > 0.0 else 1.0
            return _signal(symbol, source, side, config.confidence * share, config, csp.now())


@csp.graph
def donchian_signal(
    high: ts[float], low: ts[float], close: ts[float], symbol: str, config: DonchianConfig, source: str = "donchian"
) -> ts[Signal]:
    """BUY on a close above the highest high of the `bars` bars before, SELL on one below their lowest low.

    Confidence runs from half of the config's on the edge of the channel to all of it `confident_atr` average true
    ranges beyond: a breakout counts by what is usual for this market.

    Ticks:
        When the side changes, from bar max(`bars`, `atr_bars`) + 1 on.

    Raises:
        ValueError: a price is not a positive number below 1e100, or `high` is below `low`.

    Source: Faith, "Way of the Turtle", 2007 (breakouts, and the average true range as their unit).
    """
    top = _checked(high, "high", symbol, positive=True)
    bottom = _checked(low, "low", symbol, positive=True)
    price = _checked(close, "close", symbol, positive=True)
    channel = donchian(top, bottom, config.bars)
    volatility = atr(top, bottom, price, config.atr_bars)
    return _breakout(price, channel.upper, channel.lower, volatility, symbol, source, config)


RULES = ("moving_average", "sma_cross", "ema_cross", "rsi", "bollinger", "momentum", "donchian")


@dataclass(frozen=True, slots=True, kw_only=True)
class TechnicalConfig:
    """Which rules speak, and how each is set."""

    enabled: tuple[str, ...] = RULES  # rules that speak
    moving_average: MovingAverageConfig = field(default_factory=MovingAverageConfig)
    sma_cross: SmaCrossConfig = field(default_factory=SmaCrossConfig)
    ema_cross: EmaCrossConfig = field(default_factory=EmaCrossConfig)
    rsi: RsiConfig = field(default_factory=RsiConfig)
    bollinger: BollingerConfig = field(default_factory=BollingerConfig)
    momentum: MomentumConfig = field(default_factory=MomentumConfig)
    donchian: DonchianConfig = field(default_factory=DonchianConfig)

    def __post_init__(self) -> None:
        for name in self.enabled:
            if name not in RULES:
                near = get_close_matches(name, RULES, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"enabled must name rules of {', '.join(RULES)}, was {name!r}{hint}")
        if len(set(self.enabled)) < len(self.enabled):
            raise ValueError(f"enabled must name each rule once, was {list(self.enabled)}")


def technical_signals(
    open_: ts[float],
    high: ts[float],
    low: ts[float],
    close: ts[float],
    volume: ts[float],
    symbol: str,
    config: TechnicalConfig,
    suffix: str = "",
) -> list[ts[Signal]]:
    """Wire the enabled rules, and only those, in the order in which they are named.

    Args:
        open_: with the other columns the whole bar; no rule here reads it.
        high, low, close: quote currency, positive.
        volume: base units, not negative.
        suffix: put behind the name of the rule to make the source of its signals, such as "@1d".
    """
    # By name at call time, not a table at import: each rule has its own columns.
    build: dict[str, Callable[[str], Any]] = {
        "moving_average": lambda s: moving_average_signal(close, volume, symbol, config.moving_average, s),
        "sma_cross": lambda s: sma_cross_signal(close, symbol, config.sma_cross, s),
        "ema_cross": lambda s: ema_cross_signal(close, symbol, config.ema_cross, s),
        "rsi": lambda s: rsi_signal(close, symbol, config.rsi, s),
        "bollinger": lambda s: bollinger_signal(close, symbol, config.bollinger, s),
        "momentum": lambda s: momentum_signal(close, symbol, config.momentum, s),
        "donchian": lambda s: donchian_signal(high, low, close, symbol, config.donchian, s),
    }
    return [build[name](name + suffix) for name in config.enabled]
