"""From an opinion to a position: how much of a symbol to hold."""

import math
from collections import deque
from dataclasses import dataclass
from datetime import datetime

import csp
from csp import ts

from brokers.ledger import Contract
from feeds.instruments import Instrument
from feeds.streams import SETTLE
from nodes.events import Signal, TargetPosition
from nodes.rolling import RollingMoments

_SECONDS_A_YEAR = 365.25 * 86_400.0
_MODES = ("fixed", "fraction", "volatility", "kelly")
_VOLATILITIES = ("forecast", "realised")


@dataclass(frozen=True, slots=True, kw_only=True)
class SizingConfig:
    """How a signal becomes a position. At score 1 the position is `full`:

    - `fixed`: `quantity` units;
    - `fraction`: `fraction` of equity;
    - `volatility`: the fraction of equity whose annual volatility is `volatility_target`, at most `leverage_max`;
    - `kelly`: `kelly_fraction` of the fraction of equity at which the signal's own past would have grown fastest, at
      most `leverage_max`; nothing where it would have lost.
    """

    mode: str = "volatility"  # fixed, fraction, volatility or kelly
    quantity: float = 1.0  # base units or contracts, for `fixed`
    fraction: float = 0.5  # of equity, for `fraction`
    volatility_target: float = 0.2  # annual standard deviation of the account, for `volatility`
    volatility_from: str = "forecast"  # forecast: of the price model, where it has one; realised: of the last prices
    volatility_window: int = 168  # prices over which volatility is measured
    kelly_fraction: float = 0.5  # of the Kelly fraction, for `kelly`; half gives three quarters of the growth
    kelly_window: int = 500  # prices over which the signal's own returns are measured
    leverage_max: float = 1.0  # largest position, as a fraction of equity
    score_min: float = 0.1  # a weaker score wants no position
    confidence_min: float = 0.05  # a less confident signal changes nothing
    change_min: float = 0.5  # of the full position: smaller changes of target are not traded
    shorts: bool = True  # False: a negative score wants no position

    def __post_init__(self) -> None:
        if self.mode not in _MODES:
            raise ValueError(f"mode must be one of {', '.join(_MODES)}, was {self.mode!r}")
        if self.volatility_from not in _VOLATILITIES:
            raise ValueError(f"volatility_from must be one of {', '.join(_VOLATILITIES)}, was {self.volatility_from!r}")
        for name in ("quantity", "fraction", "volatility_target", "leverage_max"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {getattr(self, name)}")
        if not 0.0 < self.kelly_fraction <= 1.0:  # beyond 1 more risk brings less growth
            raise ValueError(f"kelly_fraction must lie in (0, 1], was {self.kelly_fraction}")
        for name in ("score_min", "confidence_min", "change_min"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], was {getattr(self, name)}")
        for name in ("volatility_window", "kelly_window"):
            if not 2 <= getattr(self, name) <= 1_000_000:  # two for a deviation, and a bound on memory
                raise ValueError(f"{name} must lie in [2, 1000000], was {getattr(self, name)}")


@csp.node
def annual_volatility(close: ts[float], window: int) -> ts[float]:
    """Annualised volatility: squared log returns of the last `window` steps over the calendar time they took.

    Calendar time makes the figure right for any bar length, and counts nights and week-ends as the market's own rest.

    Args:
        close: last price, quote currency, positive.
        window: number of returns, at least 2.

    Ticks:
        With every price once `window` returns are there and time has passed; fraction a year, 0.2 is 20 %.

    Raises:
        ValueError: a price that is not positive and finite.

    Source: realised variance, Andersen & Bollerslev, International Economic Review 39(4), 1998.
    """
    with csp.state():
        s_last = 0.0
        s_squares = deque[float]()
        s_times = deque[datetime]()
        s_sum = 0.0
        s_steps = 0

    if csp.ticked(close):
        if not 0.0 < close < math.inf:
            raise ValueError(f"close must be positive and finite, was {close} at {csp.now()}")
        now = csp.now()
        if s_last:
            square = math.log(close / s_last) ** 2
            s_squares.append(square)
            s_sum += square
            s_steps += 1
            if len(s_squares) > window:
                s_sum -= s_squares.popleft()
                s_times.popleft()
            if s_steps % window == 0:
                s_sum = math.fsum(s_squares)  # a running sum drifts; this bounds the drift to one window
        s_times.append(now)
        s_last = close
        if len(s_squares) == window:
            elapsed = (now - s_times[0]).total_seconds()
            if elapsed > 0.0:
                return math.sqrt(max(s_sum, 0.0) * _SECONDS_A_YEAR / elapsed)


@csp.node
def kelly_fraction(signal: ts[Signal], close: ts[float], window: int) -> ts[float]:
    """The fraction of wealth on which the signal's own past would have grown fastest: mean over variance, from 0.

    The returns are those of holding the sign of the score from close to close, each known when it ends:

        r[t] = sign(score held from t-1 to t) * (close[t] / close[t-1] - 1)
        f[t] = max(0, mean(r) / var(r))        over the last `window` of them, sample variance

    A score counts from the close in whose instant it was given; one given between two closes counts from the second,
    because what the market did before it was said was not earned by it.

    Args:
        signal: opinions about the symbol. One of confidence 0 changes nothing, as it changes no position.
        close: last price, quote currency, positive.
        window: number of returns, at least 2.

    Ticks:
        With every price once `window` returns are there, the first of them after the first signal. Infinite where all
        were gains of one size; the caller caps it.

    Raises:
        ValueError: a price that is not positive and finite.

    Source: the criterion is Kelly, "A New Interpretation of Information Rate", Bell System Technical Journal 35(4),
        1956. Mean over variance is its limit for small steps: Thorp, "The Kelly Criterion in Blackjack, Sports Betting,
        and the Stock Market", Handbook of Asset and Liability Management 1, 2006, section 7, here with an interest
        rate of 0.
    """
    with csp.state():
        s_returns = RollingMoments(window)
        s_last = 0.0
        s_closed: datetime | None = None  # engine time of the last close
        s_side: int | None = None  # sign held since the last close; None before the first signal
        s_next: int | None = None  # sign from the next close on

    if csp.ticked(close):
        if not 0.0 < close < math.inf:
            raise ValueError(f"close must be positive and finite, was {close} at {csp.now()}")
        if s_side is not None:
            s_returns.push(s_side * (close / s_last - 1.0))
        s_last, s_closed, s_side = close, csp.now(), s_next
        if s_returns.full:
            mean, deviation = s_returns.mean, s_returns.deviation
            if mean <= 0.0:
                csp.output(0.0)
            else:
                csp.output(mean / (deviation * deviation) if deviation > 0.0 else math.inf)
    if csp.ticked(signal) and signal.confidence > 0.0:
        score = signal.score
        s_next = (score > 0.0) - (score < 0.0)
        if s_closed is not None and csp.now() - s_closed <= SETTLE:
            s_side = s_next


@csp.node
def target_position(
    signal: ts[Signal],
    close: ts[float],
    equity: ts[float],
    volatility: ts[float],
    kelly: ts[float],
    instrument: Instrument,
    config: SizingConfig,
    held: float = 0.0,
    decide: bool = False,
) -> ts[TargetPosition]:
    """Size one symbol's position from its fused signal. Only the signal wakes it.

    Args:
        signal: the final opinion.
        close: last price, currency of the account; passive.
        equity: account value, the same currency; passive.
        volatility: annualised fraction; passive, read in mode `volatility` only.
        kelly: full Kelly fraction from 0; passive, read in mode `kelly` only.
        held: what an earlier run has left, in base units: what is wanted before the first signal.
        decide: something may be held that nobody asked for: the first wanted quantity ticks whatever it is.

    Ticks:
        When the wanted quantity, in whole lots towards zero, moves by at least `change_min` of the full position, or
        goes to, comes from or crosses zero. While what the mode needs is not known, or equity is not positive, no
        position is taken, and one against the signal is left. A Kelly fraction of 0 is known: it wants nothing.
    """
    with csp.state():
        s_lots = Contract(instrument).lots
        s_multiplier = float(instrument.multiplier)
        s_mode = config.mode
        s_wanted = held
        s_decided = not decide
    with csp.start():
        csp.make_passive(close)
        csp.make_passive(equity)
        csp.make_passive(volatility)
        csp.make_passive(kelly)

    if csp.ticked(signal) and signal.confidence >= config.confidence_min:
        score = signal.score
        size = abs(score)
        if size < config.score_min or (score < 0.0 and not config.shorts):
            score = size = 0.0
        known = score * s_wanted <= 0.0  # leaving a position needs no size; taking one does
        full = wanted = 0.0
        if size and csp.valid(close, equity) and equity > 0.0:
            if s_mode == "fixed":
                full = config.quantity
            elif s_mode == "fraction":
                full = min(config.fraction, config.leverage_max) * equity / (close * s_multiplier)
            elif s_mode == "volatility":
                if csp.valid(volatility) and volatility > 0.0:
                    fraction = min(config.volatility_target / volatility, config.leverage_max)
                    full = fraction * equity / (close * s_multiplier)
            elif csp.valid(kelly):
                known = True
                full = min(config.kelly_fraction * kelly, config.leverage_max) * equity / (close * s_multiplier)
            lots = s_lots.down(size * full)
            known = known or full > 0.0
            wanted = math.copysign(s_lots.value(lots), score) if lots else 0.0
        moved = wanted * s_wanted <= 0.0 or abs(wanted - s_wanted) >= config.change_min * full
        if known and (not s_decided or (wanted != s_wanted and moved)):
            s_wanted = wanted
            s_decided = True
            return TargetPosition(symbol=signal.symbol, quantity=wanted, asof=csp.now())
