"""Many opinions about one symbol become one."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches

import csp
from csp import ts

from feeds.events import Session
from nodes.events import MarketState, Regime, Signal, Trend, VolumeProfile

_NOTHING = 1e-12  # a total weight or score below this carries no opinion, only rounding


_WEIGHTS = {"advisor": 0.5, "macro": 0.5}
_SHARES = {"advisor": 0.3}
_TREND_FOLLOWING = ("moving_average", "sma_cross", "ema_cross", "momentum", "donchian")
_DEFAULTS = {*_WEIGHTS, *_TREND_FOLLOWING}  # may be named whether or not they are in use


@dataclass(frozen=True, slots=True, kw_only=True)
class FuseConfig:
    """How opinions are weighed. The numbers are priors, chosen by judgement and fitted to no data.

    Sources are named as their signals name them. "rsi" also stands for "rsi@1h", unless that is named itself.
    """

    weights: dict[str, float] = field(default_factory=_WEIGHTS.copy)  # by source; those given are added to the default
    default_weight: float = 1.0  # of a source without one
    share_max: dict[str, float] = field(default_factory=_SHARES.copy)  # of a source, of all weight; added likewise
    trend_following: tuple[str, ...] = _TREND_FOLLOWING  # what a volatile market misleads; adaptive minds it itself
    volatile_factor: float = 0.5  # on those sources, while the regime is VOLATILE
    against_trend_factor: float = 0.75  # on a signal that opposes an UP or DOWN trend
    low_volume_factor: float = 0.75  # on every signal, while volume is LOW; lowers confidence, not score
    change_min: float = 0.01  # of score or confidence, before the signal ticks again

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _WEIGHTS | self.weights)  # a new dict: the caller's may change later
        for source, weight in (*self.weights.items(), ("default_weight", self.default_weight)):
            if not 0.0 <= weight <= 1000.0:
                raise ValueError(f"weight of {source} must lie in [0, 1000], was {weight}")
        object.__setattr__(self, "share_max", _SHARES | self.share_max)
        for source, share in self.share_max.items():
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"share_max of {source} must lie in [0, 1], was {share}")
        for name in ("volatile_factor", "against_trend_factor", "low_volume_factor", "change_min"):
            fraction = getattr(self, name)
            if not 0.0 <= fraction <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], was {fraction}")

    def __hash__(self) -> int:
        return hash(
            (frozenset(self.weights.items()), frozenset(self.share_max.items()), self.trend_following)
        )  # csp memoizes nodes by their arguments


def base_name(source: str) -> str:
    """The source without its bar length: "rsi" of "rsi@1h"."""
    return source.partition("@")[0]


def source_weight(source: str, config: FuseConfig) -> float:
    """The weight of a source, of its base name, or the default one."""
    weight = config.weights.get(source)
    return config.weights.get(base_name(source), config.default_weight) if weight is None else weight


def _share_max(source: str, config: FuseConfig) -> float:
    """The most that a source may have of all weight; 1 where nothing is said of it."""
    if not config.share_max:
        return 1.0
    most = config.share_max.get(source)
    return config.share_max.get(base_name(source), 1.0) if most is None else most


def check_names(config: FuseConfig, sources: Iterable[str]) -> None:
    """Refuse a weight, or a trend follower, that names no source: a misspelt name would silently do nothing.

    Args:
        sources: the names of all sources that there can be, with or without a bar length.

    Raises:
        ValueError: says which name, and the nearest source.
    """
    known = sorted({name for source in sources for name in (source, base_name(source))} | _DEFAULTS)
    for name in (*config.weights, *config.share_max, *config.trend_following):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; sources are {', '.join(known)}"
            raise ValueError(f"fuse names an unknown source {name!r}{hint}")


def check_signal(signal: Signal, symbol: str, now: datetime) -> None:
    """Refuse a signal that breaks its own contract.

    Raises:
        ValueError: no source, another symbol, score, confidence or horizon out of range, or from the future.
    """
    source = signal.source
    if not source:
        raise ValueError(f"a signal about {symbol} must name its source, was '' at {now}")
    if signal.symbol != symbol:
        raise ValueError(f"signal of {source} must be about {symbol}, was about {signal.symbol} at {now}")
    if not -1.0 <= signal.score <= 1.0 or not 0.0 <= signal.confidence <= 1.0:
        wanted = f"score and confidence of {source} must lie in [-1, 1] and [0, 1]"
        raise ValueError(f"{wanted}, were {signal.score} and {signal.confidence} at {now}")
    if not 0.0 < signal.horizon_s < math.inf:
        raise ValueError(f"horizon_s of {signal.source} must be positive and finite, was {signal.horizon_s} at {now}")
    if signal.asof > now:
        raise ValueError(f"signal of {signal.source} must not rest on the future, was asof {signal.asof} at {now}")


def state_factor(signal: Signal, state: MarketState | None, config: FuseConfig) -> float:
    """What the state of the market leaves of a signal's weight; 1.0 while the state is unknown."""
    if state is None:
        return 1.0
    factor = 1.0
    if state.regime == Regime.VOLATILE:
        followers = config.trend_following
        if signal.source in followers or base_name(signal.source) in followers:
            factor *= config.volatile_factor
    if (state.trend == Trend.UP and signal.score < 0.0) or (state.trend == Trend.DOWN and signal.score > 0.0):
        factor *= config.against_trend_factor
    if state.volume == VolumeProfile.LOW:
        factor *= config.low_volume_factor
    return factor


def combine(
    latest: Mapping[str, Signal], state: MarketState | None, now: datetime, config: FuseConfig
) -> tuple[float, float, float, datetime]:
    """(score, confidence, horizon_s, asof) of the signals together, at `now`.

    weight = source weight * confidence * exp(-age / horizon) * state factor, with age = now - asof, and for a source
    of `share_max` s at most s / (1 - s) of what the sources without one weigh together: alone it says nothing;
    score = sum(weight * score) / sum(weight), 0.0 without weight;
    confidence = sum(weight) / sum(source weight), over every source that has spoken: a source that fails or ages takes
    its share of the confidence with it, and the rest of them decide the score. A source of `share_max` may be
    silent: with confidence 0 it is as if it had never spoken.

    Args:
        latest: {source: its latest signal}, not empty.
        now: no earlier than any `asof`.

    Returns:
        `horizon_s` is the weighted mean and `asof` the newest of the signals that carry weight; where none does, the
        longest and the newest of all.
    """
    total = possible = score = horizon = 0.0
    asof = None
    capped: list[tuple[float, float, Signal]] = []
    for source, signal in latest.items():
        share = source_weight(source, config)
        said, horizon_s = signal.asof, signal.horizon_s
        weight = share * signal.confidence
        if said != now:
            weight *= math.exp(-(now - said).total_seconds() / horizon_s)
        if state is not None:
            weight *= state_factor(signal, state, config)
        most = _share_max(source, config)
        if most < 1.0:
            if signal.confidence > 0.0:
                capped.append((weight, most, signal))
                possible += share
            continue
        possible += share
        if weight > 0.0 and (asof is None or said > asof):
            asof = said
        total += weight
        score += weight * signal.score
        horizon += weight * horizon_s
    rest = total
    for weight, most, signal in capped:
        own = min(weight, rest * most / (1.0 - most))
        if own > 0.0 and (asof is None or signal.asof > asof):
            asof = signal.asof
        total += own
        score += own * signal.score
        horizon += own * signal.horizon_s
    if total < _NOTHING or asof is None:
        return 0.0, 0.0, max(s.horizon_s for s in latest.values()), max(s.asof for s in latest.values())
    score /= total
    if abs(score) < _NOTHING:
        score = 0.0  # opposite opinions cancel up to rounding, which must not look like a change of sign
    return max(-1.0, min(1.0, score)), min(1.0, total / possible), horizon / total, asof


def moved(score: float, confidence: float, last_score: float, last_confidence: float, change_min: float) -> bool:
    """Whether an opinion differs enough from the last one told to be worth telling."""
    if (score > 0.0) != (last_score > 0.0) or (score < 0.0) != (last_score < 0.0):
        return True
    if (confidence > 0.0) != (last_confidence > 0.0):
        return True
    step = max(abs(score - last_score), abs(confidence - last_confidence))
    return step > _NOTHING and step >= change_min - _NOTHING  # a step of exactly change_min counts, rounded or not


@csp.node
def _fuse(
    signals: list[ts[Signal]], state: ts[MarketState], trigger: ts[float], symbol: str, config: FuseConfig
) -> ts[Signal]:
    with csp.state():
        s_latest = {}
        s_score = 0.0
        s_confidence = 0.0

    if csp.ticked(signals):
        # In the order of the list: that in which they came into the cycle is another one in a replay.
        for i in sorted(signals.tickedkeys()):  # type: ignore[attr-defined]
            signal = signals[i]
            check_signal(signal, symbol, csp.now())
            s_latest[signal.source] = signal
    if s_latest and not (csp.valid(state) and state.session == Session.CLOSED):
        score, confidence, horizon_s, asof = combine(s_latest, state if csp.valid(state) else None, csp.now(), config)
        if moved(score, confidence, s_score, s_confidence, config.change_min):
            s_score = score
            s_confidence = confidence
            return Signal(
                symbol=symbol, source="fused", score=score, confidence=confidence, horizon_s=horizon_s, asof=asof
            )


def fuse_signals(
    signals: list[ts[Signal]],
    state: ts[MarketState],
    symbol: str,
    config: FuseConfig,
    trigger: ts[float] | None = None,
) -> ts[Signal]:
    """Weigh the latest signal of each source by source, confidence, age and the state of the market.

    Args:
        signals: each source's signals about `symbol`. Of two from one source in one cycle the later edge's counts.
        state: of the market in `symbol`; may never tick, then nothing is scaled and the session counts as open.
        trigger: when to look at ages again besides, say the symbol's close; its value is not read. Without it age is
            looked at when a signal or the state ticks: cheaper, by one evaluation a bar, and enough where some source
            speaks often.

    Ticks:
        When a signal, the state or the trigger ticks and score or confidence has moved by `change_min` since the last
        tick (before the first both are 0), or the sign of the score has changed, or confidence has left or reached 0.
        Signals that tick in one cycle make one tick. While the session is CLOSED signals are kept and nothing ticks.

    Raises:
        ValueError: as `check_signal`; a bug upstream must not become a position.

    Source: `combine`.
    """
    fused: ts[Signal] = _fuse(signals, state, csp.null_ts(float) if trigger is None else trigger, symbol, config)
    return fused
