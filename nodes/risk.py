"""Risk: the monitor that sees the account, and the gate that every order passes."""

import math
from dataclasses import dataclass
from datetime import timedelta

import csp
import numpy as np
from csp import ts

from brokers.ledger import Contract
from feeds.instruments import Instrument
from nodes.events import Alert, AlertLevel, PositionUpdate, RiskAction, RiskActionKind, TargetPosition

_SLOW_CHECK = timedelta(milliseconds=100)
_VAR_LEVEL = 0.95
_WORSE = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskConfig:
    """What the account tolerates. Fractions, not percent: 0.05 is 5 %. `None` switches a check off."""

    drawdown_max: float | None = 0.35  # of the running equity peak; beyond it EMERGENCY_STOP
    gross_exposure_max: float | None = 1.5  # of equity; beyond it REDUCE_POSITIONS, and no order may pass it
    concentration_max: float | None = None  # largest |position| as a share of equity; beyond it REDUCE_POSITIONS
    var_max: float | None = 0.05  # one-step 95 % historical value at risk, of equity; beyond it REDUCE_POSITIONS
    var_window: int = 500  # steps of history
    order_notional_max: float | None = None  # quote currency, one order
    orders_per_second_max: int | None = None  # over the last engine second
    reduce_hold_s: float = 3_600.0  # after REDUCE_POSITIONS only reducing orders pass for so long, engine seconds
    flatten: bool = True  # close all positions on EMERGENCY_STOP; False: keep them, stop new risk

    def __post_init__(self) -> None:
        if self.drawdown_max is not None and not 0.0 < self.drawdown_max < 1.0:
            raise ValueError(f"drawdown_max must lie in (0, 1), was {self.drawdown_max}")
        for name in ("gross_exposure_max", "concentration_max", "var_max", "order_notional_max"):
            limit = getattr(self, name)
            if limit is not None and not 0.0 < limit < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {limit}")
        if not 20 <= self.var_window <= 100_000:  # 95 % of fewer is no tail; of more, no memory
            raise ValueError(f"var_window must lie in [20, 100000], was {self.var_window}")
        if not 0.0 <= self.reduce_hold_s <= 1e9:
            raise ValueError(f"reduce_hold_s must lie in [0, 1e9], was {self.reduce_hold_s}")
        if self.orders_per_second_max is not None and self.orders_per_second_max < 1:
            raise ValueError(f"orders_per_second_max must be at least 1, was {self.orders_per_second_max}")


class ReturnHistory:
    """The last returns of several symbols, a row an observation, for historical simulation."""

    __slots__ = ("_last", "_rows", "_seen", "_window", "_written")

    def __init__(self, symbols: list[str], window: int) -> None:
        self._rows = np.zeros((window, len(symbols)))
        self._last = np.full(len(symbols), np.nan)
        self._window = window
        self._written = 0
        self._seen = False

    def add(self, prices: np.ndarray) -> None:
        """Take the latest price of each symbol, NaN where there is none yet."""
        if self._seen:
            # A symbol without two prices yet has NaN here, and did not move.
            self._rows[self._written % self._window] = np.nan_to_num(prices / self._last - 1.0)
            self._written += 1
        self._seen = True
        self._last = prices

    def value_at_risk(self, values: np.ndarray) -> float | None:
        """The 95 % historical value at risk of positions worth `values`; None before 20 observations.

        The loss that the positions held now would have exceeded in 5 % of the steps of the window, in quote currency.
        Source: historical simulation, Jorion, "Value at Risk", 3rd ed. 2007, ch. 10.
        """
        count = min(self._written, self._window)
        if count < 20:
            return None
        profits = self._rows[:count] @ values  # (count,)
        # The quantile with linear interpolation, as np.quantile has it, at a tenth of its cost on 500 numbers.
        rank = (1.0 - _VAR_LEVEL) * (count - 1)
        below = int(rank)
        low, high = np.partition(profits, (below, below + 1))[below : below + 2].tolist()
        return max(0.0, -(low + (high - low) * (rank - below)))


@csp.node
def fast_limits(equity: ts[float], gross_exposure: ts[float], config: RiskConfig) -> ts[RiskAction]:
    """Drawdown and gross exposure, checked in the cycle of the change.

    Args:
        equity: account value, quote currency.
        gross_exposure: sum of |position value|, quote currency.

    Ticks:
        EMERGENCY_STOP once a run when the drawdown passes its limit; REDUCE_POSITIONS when gross exposure passes its
        limit, and again each time it has grown by a twentieth since. Both inputs tick together, from the account.

    Raises:
        ValueError: equity that is not finite.
    """
    with csp.state():
        s_kept = 0.0 if config.drawdown_max is None else 1.0 - config.drawdown_max
        s_gross_max = math.inf if config.gross_exposure_max is None else config.gross_exposure_max
        s_drawdown_max = math.inf if config.drawdown_max is None else config.drawdown_max
        s_checked = config.drawdown_max is not None
        s_peak = 0.0
        s_floor = 0.0  # equity below it is too deep a drawdown
        s_acted = 0.0  # the exposure that was last acted on, 0.0 inside the limit

    if s_floor <= equity <= s_peak and not s_acted and gross_exposure <= s_gross_max * equity:
        pass  # nearly every mark: nothing new, and nothing wrong
    else:
        if not -math.inf < equity < math.inf:
            raise ValueError(f"equity must be finite, was {equity} at {csp.now()}")
        if equity > s_peak:
            s_peak = equity
            s_floor = s_peak * s_kept
        if s_checked and equity < s_floor:
            s_checked = False  # once a run
            csp.output(
                RiskAction(
                    kind=RiskActionKind.EMERGENCY_STOP,
                    code="drawdown",
                    value=1.0 - equity / s_peak,
                    limit=s_drawdown_max,
                )
            )
        else:
            # A reduction takes a while to fill: said once, and again whenever it has grown worse by a twentieth.
            ratio = gross_exposure / equity if equity > 0.0 else math.inf if gross_exposure else 0.0
            if ratio <= s_gross_max:
                s_acted = 0.0
            elif ratio > s_acted * _WORSE:
                s_acted = ratio
                csp.output(
                    RiskAction(
                        kind=RiskActionKind.REDUCE_POSITIONS, code="gross_exposure", value=ratio, limit=s_gross_max
                    )
                )


@csp.node
def slow_limits(
    equity: ts[float], closes: dict[str, ts[float]], values: dict[str, ts[float]], config: RiskConfig
) -> ts[RiskAction]:
    """Concentration and 95 % historical value at risk, at most every 100 ms, by an alarm that a price arms.

    Args:
        equity: account value, quote currency; passive.
        closes: last price by symbol, quote currency.
        values: signed position value by symbol, quote currency; passive.

    Ticks:
        REDUCE_POSITIONS when a limit is passed, and again each time the value has grown by a twentieth since.
    """
    with csp.alarms():
        a_check = csp.alarm(bool)
    with csp.state():
        s_symbols = list(closes.keys())
        s_history = ReturnHistory(s_symbols, config.var_window)
        s_armed = False
        s_acted = {"concentration": 0.0, "value_at_risk": 0.0}  # the value last acted on, 0.0 inside the limit
    with csp.start():
        csp.make_passive(equity)
        csp.make_passive(values)

    if csp.ticked(a_check):
        s_armed = False
        if config.var_max is not None:
            s_history.add(np.array([closes[s] if csp.valid(closes[s]) else math.nan for s in s_symbols]))
        held = np.array([values[s] if csp.valid(values[s]) else 0.0 for s in s_symbols])
        code, value, limit = "", 0.0, 0.0
        if held.any() and csp.valid(equity) and equity > 0.0:
            if config.concentration_max is not None:
                value, limit = float(np.abs(held).max()) / equity, config.concentration_max
                code = "concentration" if value > limit else ""
            if not code and config.var_max is not None:
                at_risk = s_history.value_at_risk(held)
                if at_risk is not None and at_risk / equity > config.var_max:
                    code, value, limit = "value_at_risk", at_risk / equity, config.var_max
        for other in s_acted:
            if other != code:
                s_acted[other] = 0.0
        if code and value > s_acted[code] * _WORSE:
            s_acted[code] = value
            csp.output(RiskAction(kind=RiskActionKind.REDUCE_POSITIONS, code=code, value=value, limit=limit))
    elif not s_armed:
        s_armed = True
        csp.schedule_alarm(a_check, _SLOW_CHECK, True)


@csp.graph
def risk_monitor(
    equity: ts[float],
    gross_exposure: ts[float],
    closes: dict[str, ts[float]],
    values: dict[str, ts[float]],
    config: RiskConfig,
) -> ts[RiskAction]:
    """Watch the account: drawdown and exposure in the cycle of the change, concentration and VaR every 100 ms.

    Args and ticks: those of `fast_limits` and `slow_limits`; what no limit asks for is not computed.
    """
    actions = [fast_limits(equity, gross_exposure, config)]
    if config.concentration_max is not None or config.var_max is not None:
        actions.append(slow_limits(equity, closes, values, config))
    return csp.flatten(actions) if len(actions) > 1 else actions[0]


@csp.node
def action_alert(action: ts[RiskAction]) -> ts[Alert]:
    """Say what the risk monitor did: CRITICAL for a stop, WARNING for a reduction."""
    if csp.ticked(action):
        stop = action.kind is RiskActionKind.EMERGENCY_STOP
        return Alert(
            level=AlertLevel.CRITICAL if stop else AlertLevel.WARNING,
            source="risk_monitor",
            symbol="",
            message=f"{action.kind.name}: {action.code} is {action.value:.4f}, the limit {action.limit:.4f}",
            value=action.value,
        )


@csp.node
def limit_target(
    target: ts[TargetPosition],
    position: ts[PositionUpdate],
    action: ts[RiskAction],
    instrument: Instrument,
    config: RiskConfig,
) -> ts[TargetPosition]:
    """Let risk overrule the strategy's target of one symbol.

    Args:
        target: what the strategy wants.
        position: of this symbol; passive.
        action: what the risk monitor asks.

    Ticks:
        Every target until an EMERGENCY_STOP; then 0 once, if so configured, and nothing more. REDUCE_POSITIONS scales
        the position, or the target where that is nearer to zero, by limit/value, towards zero in whole lots.
    """
    with csp.state():
        s_contract = Contract(instrument)
        s_target = 0.0
        s_stopped = False
    with csp.start():
        csp.make_passive(position)

    if not s_stopped:
        if csp.ticked(target):
            s_target = target.quantity
        if not csp.ticked(action):
            csp.output(target)
        elif action.kind is RiskActionKind.EMERGENCY_STOP:
            s_stopped = True
            if config.flatten:
                csp.output(TargetPosition(symbol=instrument.symbol, quantity=0.0, asof=csp.now()))
        else:
            held = position.quantity if csp.valid(position) else 0.0
            keep = 0.0 if held * s_target <= 0.0 else math.copysign(min(abs(held), abs(s_target)), held)
            lots = s_contract.lots.down(abs(keep) * action.limit / action.value)
            s_target = math.copysign(s_contract.lots.value(lots), keep) if lots else 0.0
            if held or csp.ticked(target):
                csp.output(TargetPosition(symbol=instrument.symbol, quantity=s_target, asof=csp.now()))
