"""What the graph makes of forecasts: a signal, a volatility, a limit on what could be lost, and alerts."""

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import csp
import numpy as np
from csp import ts

from models.forms import FORMS
from nodes.events import Alert, AlertLevel, Forecast, PositionUpdate, RiskAction, RiskActionKind, Signal
from nodes.infer import InferConfig

LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)  # of the quantiles of every forecast

_LOW, _HIGH = LEVELS.index(0.05), LEVELS.index(0.95)
_SECONDS_A_YEAR = 365.25 * 86_400.0
_REARM = 0.8  # of a limit: below it an episode is over
_WORSE = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastConfig:
    """The price model: which, and what of its forecasts is used."""

    enabled: bool = True  # False: no model is loaded
    checkpoints: tuple[str, ...] = ("checkpoints/demo",)  # folders; distributions of several are mixed in equal parts
    form: str = "eager"  # how a model computes: eager, or an exported form: onnx, onnx-w8
    missing_max: int = 3  # missing bars that the model bridges; beyond, it forgets what came before
    edge_full: float = 0.1  # the probability of a rise is 0.5 + edge_full / 2 at a score of 1
    confidence: float = 0.2  # of the signal, where the expected return pays for a round trip
    surprise_bits: float | None = 14.0  # a bar less likely than 2^-bits is told; None: none is
    drift_window_bars: int = 500  # over which the use of tokens is compared with that of the training bars
    drift_bits_max: float | None = 0.6  # of its divergence; beyond it an alert; None: none
    infer: InferConfig = field(default_factory=InferConfig)

    def __post_init__(self) -> None:
        if self.enabled and not self.checkpoints:
            raise ValueError("checkpoints must name at least one folder where enabled is true")
        if len(set(self.checkpoints)) != len(self.checkpoints):
            raise ValueError(f"want each of checkpoints once, was {self.checkpoints}")
        if self.form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, was {self.form!r}")
        if not 0 <= self.missing_max <= 10_000:
            raise ValueError(f"missing_max must lie in [0, 10000], was {self.missing_max}")
        if not 0.0 < self.edge_full <= 1.0:
            raise ValueError(f"edge_full must lie in (0, 1], was {self.edge_full}")
        if not 0.0 <= self.confidence <= 1.0:
            raise ValueError(f"confidence must lie in [0, 1], was {self.confidence}")
        for name in ("surprise_bits", "drift_bits_max"):
            limit = getattr(self, name)
            if limit is not None and not 0.0 < limit < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {limit}")
        if not 50 <= self.drift_window_bars <= 1_000_000:  # the use of 128 codes by fewer bars says nothing
            raise ValueError(f"drift_window_bars must lie in [50, 1000000], was {self.drift_window_bars}")


@csp.node
def forecast_signal(forecast: ts[Forecast], config: ForecastConfig, horizon: timedelta, cost: float) -> ts[Signal]:
    """A direction, as far as the model sees one that pays.

    score = (2 p - 1) / edge_full, within [-1, 1], for a probability p of a rise. Hourly directions are all but coin
    tosses (docs/concepts/forecasting.md): where the expected gain of that direction is less than it costs to enter and
    leave, there is no opinion, and the confidence is 0. It may be a loss: many small rises, a few large falls.

    Args:
        horizon: the time constant with which the opinion fades; a bar.
        cost: of a round trip, as a return.

    Ticks:
        With every forecast.
    """
    if csp.ticked(forecast):
        score = (2.0 * forecast.probability_up - 1.0) / config.edge_full
        expected = forecast.mean if score > 0.0 else -forecast.mean
        return Signal(
            symbol=forecast.symbol,
            source="forecast",
            score=max(-1.0, min(1.0, score)),
            confidence=config.confidence if expected > cost else 0.0,
            horizon_s=horizon.total_seconds(),
            asof=forecast.asof,
        )


@csp.node
def expected_volatility(forecast: ts[Forecast], close: ts[float], realised: ts[float], window: int) -> ts[float]:
    """Annualised volatility for sizing: the forecast's, or the realised one while no forecast is fresh.

    The forecast is of one bar. A year has as many bars as the last `window` closes came at, in calendar time, so that
    nights and weekends count as in `annual_volatility`.

    Args:
        forecast: of one symbol.
        close: of each bar.
        realised: annualised, fraction a year; what holds until a forecast comes, and from the second close on after the
            one that the last forecast was made at. Nights and weekends make no forecast old.
        window: closes.

    Ticks:
        With every forecast once two closes are there; with `realised` while no forecast is fresh.
    """
    with csp.state():
        s_times = deque[datetime](maxlen=window + 1)

    if csp.ticked(close):
        s_times.append(csp.now())
    if csp.ticked(forecast):
        elapsed = (s_times[-1] - s_times[0]).total_seconds() if s_times else 0.0
        if elapsed > 0.0:
            bars_a_year = (len(s_times) - 1) * _SECONDS_A_YEAR / elapsed
            csp.output(forecast.volatility * math.sqrt(bars_a_year))
    elif csp.ticked(realised) and (not csp.valid(forecast) or (len(s_times) > 1 and s_times[-2] > forecast.asof)):
        csp.output(realised)


@csp.node
def forecast_at_risk(
    forecasts: dict[str, ts[Forecast]],
    position: ts[PositionUpdate],
    values: dict[str, ts[float]],
    equity: ts[float],
    limit: float,
) -> ts[RiskAction]:
    """The 95 % value at risk of the next bar as the forecasts have it, beside what history says.

    A long position loses 1 - exp(q) at the 5 % quantile q of the log return, a short one exp(q) - 1 at the 95 % one.
    Losses of several symbols are added up: as if the worst came to all at once, which is an upper bound for them.

    Args:
        forecasts: by symbol; each holds until the next.
        position: of any symbol; what is held has changed.
        values: of the positions, signed, currency of the account; passive.
        equity: of the account; passive.
        limit: of equity.

    Ticks:
        REDUCE_POSITIONS when the limit is passed by a forecast or a fill, and again each time the value has grown by a
        twentieth since. Nothing while equity is not positive.
    """
    with csp.state():
        s_symbols = list(forecasts.keys())
        s_told = 0.0
    with csp.start():
        csp.make_passive(values)
        csp.make_passive(equity)

    if csp.valid(equity) and equity > 0.0:
        lost = 0.0
        for symbol in s_symbols:
            if csp.valid(forecasts[symbol], values[symbol]):
                value, quantiles = values[symbol], forecasts[symbol].quantiles
                if value > 0.0:
                    lost -= value * math.expm1(min(quantiles[_LOW], 0.0))
                elif value < 0.0:
                    lost -= value * math.expm1(max(quantiles[_HIGH], 0.0))
        share = lost / equity
        if share <= limit:
            s_told = 0.0
        elif share > s_told * _WORSE:
            s_told = share
            return RiskAction(
                kind=RiskActionKind.REDUCE_POSITIONS, code="forecast_value_at_risk", value=share, limit=limit
            )


@csp.node
def surprise_alert(forecast: ts[Forecast], limit: float) -> ts[Alert]:
    """Tell a person of a bar that the model had held for all but impossible.

    Ticks:
        INFO with a bar whose surprise is at least `limit` bits; the first of a row of them.
    """
    with csp.state():
        s_surprised = False

    if csp.ticked(forecast):
        bits = forecast.surprise
        if bits >= limit:  # NaN is no surprise
            if not s_surprised:
                csp.output(
                    Alert(
                        level=AlertLevel.INFO,
                        source="forecast",
                        symbol=forecast.symbol,
                        message=f"a bar surprised the model by {bits:.1f} bits: it gave it a chance of 1 in"
                        f" {2.0 ** min(bits, 60.0):,.0f}",
                        value=bits,
                    )
                )
            s_surprised = True
        else:
            s_surprised = False


@csp.node
def drift_alert(forecast: ts[Forecast], counts: tuple[int, ...], window: int, limit: float) -> ts[Alert]:
    """Tell a person that the market no longer speaks as it did in training.

    The use of tokens over the last `window` bars is compared with that of the training bars by Jeffreys' rule:
    KL(use || training) in bits, each code counted half a time more in both. In distribution it is about (codes - 1) /
    (2 window ln 2) and more where tokens cling together.

    Args:
        counts: (V,) training bars of each code.

    Ticks:
        WARNING when the divergence passes `limit`, once until it has fallen below four fifths of it.

    Source: Kullback & Leibler, "On information and sufficiency", Annals of Mathematical Statistics 22(1), 1951.
    """
    with csp.state():
        s_recent = deque[int]()
        s_used = np.zeros(len(counts))
        s_training = np.log2((np.array(counts) + 0.5) / (sum(counts) + 0.5 * len(counts)))
        s_told = False
        s_wait = 0  # bars until it is looked at again

    if csp.ticked(forecast):
        s_recent.append(forecast.token)
        s_used[forecast.token] += 1.0
        if len(s_recent) > window:
            s_used[s_recent.popleft()] -= 1.0
        s_wait -= 1
        if len(s_recent) == window and s_wait <= 0:
            s_wait = window // 20
            share = (s_used + 0.5) / (window + 0.5 * len(counts))
            bits = float(share @ (np.log2(share) - s_training))
            if bits > limit and not s_told:
                s_told = True
                csp.output(
                    Alert(
                        level=AlertLevel.WARNING,
                        source="forecast",
                        symbol=forecast.symbol,
                        message=f"the last {window} bars use tokens unlike the training bars: {bits:.2f} bits apart,"
                        f" {limit:g} are expected at most; forecasts may be worth little",
                        value=bits,
                    )
                )
            elif bits < _REARM * limit:
                s_told = False
