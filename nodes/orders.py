"""From an opinion to an order: how much to hold, and what to send to get there."""

import math
from collections import deque
from dataclasses import dataclass
from datetime import datetime

import csp
from csp import ts

from brokers.events import Fill, OrderRequest, OrderState, OrderType, OrderUpdate
from brokers.ledger import Contract
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.events import RiskAction, RiskActionKind, Signal, TargetPosition

_SECONDS_A_YEAR = 365.25 * 86_400.0
# Bound once: looking a member up on its class costs more than comparing it.
_BUY, _SELL, _MARKET = Side.BUY, Side.SELL, OrderType.MARKET
_REJECTED, _CANCELLED = OrderState.REJECTED, OrderState.CANCELLED
_EMERGENCY_STOP = RiskActionKind.EMERGENCY_STOP
_SIZING_MODES = ("fixed", "fraction", "volatility")


@dataclass(frozen=True, slots=True, kw_only=True)
class SizingConfig:
    """How a signal becomes a position. At score 1 the position is `full`:

    - `fixed`: `quantity` units;
    - `fraction`: `fraction` of equity;
    - `volatility`: the fraction of equity whose annual volatility is `volatility_target`, at most `leverage_max`.
    """

    mode: str = "volatility"  # fixed, fraction or volatility
    quantity: float = 1.0  # base units or contracts, for `fixed`
    fraction: float = 0.5  # of equity, for `fraction`
    volatility_target: float = 0.2  # annual standard deviation of the account, for `volatility`
    volatility_window: int = 168  # prices over which volatility is measured
    leverage_max: float = 1.0  # largest position, as a fraction of equity
    score_min: float = 0.1  # a weaker score wants no position
    confidence_min: float = 0.05  # a less confident signal changes nothing
    change_min: float = 0.5  # of the full position: smaller changes of target are not traded
    shorts: bool = True  # False: a negative score wants no position

    def __post_init__(self) -> None:
        if self.mode not in _SIZING_MODES:
            raise ValueError(f"mode must be one of {', '.join(_SIZING_MODES)}, was {self.mode!r}")
        for name in ("quantity", "fraction", "volatility_target", "leverage_max"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {getattr(self, name)}")
        for name in ("score_min", "confidence_min", "change_min"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], was {getattr(self, name)}")
        if self.volatility_window < 2:
            raise ValueError(f"volatility_window must be at least 2, was {self.volatility_window}")


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
def target_position(
    signal: ts[Signal],
    close: ts[float],
    equity: ts[float],
    volatility: ts[float],
    instrument: Instrument,
    config: SizingConfig,
) -> ts[TargetPosition]:
    """Size one symbol's position from its fused signal. Only the signal wakes it.

    Args:
        signal: the final opinion.
        close: last price, quote currency; passive.
        equity: account value, quote currency; passive.
        volatility: annualised fraction; passive, read in mode `volatility` only.

    Ticks:
        When the wanted quantity, in whole lots towards zero, moves by at least `change_min` of the full position, or
        goes to, comes from or crosses zero. While what the mode needs is not known, or equity is not positive, no
        position is taken, and one against the signal is left.
    """
    with csp.state():
        s_contract = Contract(instrument)
        s_multiplier = float(instrument.multiplier)
        s_wanted = 0.0
    with csp.start():
        csp.make_passive(close)
        csp.make_passive(equity)
        csp.make_passive(volatility)

    if csp.ticked(signal) and signal.confidence >= config.confidence_min:
        score = signal.score if abs(signal.score) >= config.score_min else 0.0
        if score < 0.0 and not config.shorts:
            score = 0.0
        full = wanted = 0.0
        if score and csp.valid(close, equity) and equity > 0.0:
            if config.mode == "fixed":
                full = config.quantity
            elif config.mode == "fraction":
                full = min(config.fraction, config.leverage_max) * equity / (close * s_multiplier)
            elif csp.valid(volatility) and volatility > 0.0:
                fraction = min(config.volatility_target / volatility, config.leverage_max)
                full = fraction * equity / (close * s_multiplier)
            lots = s_contract.lots.down(abs(score) * full)
            wanted = math.copysign(s_contract.lots.value(lots), score) if lots else 0.0
        # Leaving a position needs no size; taking one does.
        known = full > 0.0 or score * s_wanted <= 0.0
        moved = wanted * s_wanted <= 0.0 or abs(wanted - s_wanted) >= config.change_min * full
        if wanted != s_wanted and known and moved:
            s_wanted = wanted
            return TargetPosition(symbol=signal.symbol, quantity=wanted, asof=csp.now())


@csp.node
def generate_orders(
    target: ts[TargetPosition],
    fill: ts[Fill],
    update: ts[OrderUpdate],
    action: ts[RiskAction],
    instrument: Instrument,
    run_id: str,
) -> ts[OrderRequest]:
    """Order the difference between the target and the position plus what is in flight.

    After an EMERGENCY_STOP what was in flight is being cancelled and no longer counts. Should some of it fill after
    all, the difference to the target is ordered again: a stop that flattens ends flat.

    Args:
        target: the wanted position of this symbol.
        fill: its executions.
        update: its orders that were refused or cancelled; they are no longer in flight.
        action: what the risk monitor asks; only EMERGENCY_STOP is read.
        run_id: first part of every order id; the rest is the symbol and a counter.

    Ticks:
        A market order with each target that position and flight do not reach, in the target's own cycle; and with a
        fill of an order that was being cancelled.
    """
    with csp.state():
        s_contract = Contract(instrument)
        s_target = 0  # lots
        s_position = 0  # lots
        s_in_flight = dict[str, int]()  # order id -> signed lots still open
        s_count = 0

    stray = False
    if csp.ticked(fill):
        lots = s_contract.lots.exact(fill.quantity)
        if fill.side is _SELL:
            lots = -lots
        s_position += lots
        left = s_in_flight.pop(fill.order_id, None)
        if left is None:
            stray = True
        elif left != lots:
            s_in_flight[fill.order_id] = left - lots
    if csp.ticked(update):
        s_in_flight.pop(update.order_id, None)
    if csp.ticked(action) and action.kind is _EMERGENCY_STOP:
        s_in_flight.clear()
        s_target = s_position  # where nothing flattens it, the position stays as it is
    if csp.ticked(target):
        s_target = s_contract.lots.exact(target.quantity)
    if csp.ticked(target) or stray:
        lots = s_target - s_position - sum(s_in_flight.values())
        if lots:
            s_count += 1
            order_id = f"{run_id}-{instrument.symbol}-{s_count}"
            s_in_flight[order_id] = lots
            return OrderRequest(
                order_id=order_id,
                symbol=instrument.symbol,
                side=_BUY if lots > 0 else _SELL,
                order_type=_MARKET,
                quantity=s_contract.lots.value(abs(lots)),
                limit_price=0.0,
            )


@csp.node
def unfilled(update: ts[OrderUpdate]) -> ts[OrderUpdate]:
    """The updates that end an order without a fill: what is in flight must hear of them, and of no others."""
    if csp.ticked(update):
        state = update.state
        if state is _REJECTED or state is _CANCELLED:
            return update
