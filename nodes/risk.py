"""Risk: what an account tolerates, the monitor that watches it, and the last word on a target."""

import math
from dataclasses import dataclass

import csp
from csp import ts

from brokers.events import NEVER
from brokers.figures import passed
from brokers.opening import Opening
from brokers.units import Steps
from feeds.instruments import Instrument
from feeds.streams import by_symbol, together
from nodes.events import Alert, AlertLevel, Forecast, PositionUpdate, RiskAction, RiskActionKind, TargetPosition
from nodes.forecast import forecast_at_risk
from nodes.loss_limits import account_limits, losing_streak, symbol_loss
from nodes.portfolio import Books
from nodes.tail_risk import tail_limits

# Bound once: looking a member up on its class costs more than comparing it.
_STOP, _REDUCE, _HALT_SYMBOL = (
    RiskActionKind.EMERGENCY_STOP,
    RiskActionKind.REDUCE_POSITIONS,
    RiskActionKind.HALT_SYMBOL,
)
_WIND_DOWN = RiskActionKind.WIND_DOWN
_FRACTIONS = ("drawdown_max", "daily_loss_max", "symbol_loss_max", "price_collar")
_POSITIVE = (
    "gross_exposure_max", "net_exposure_max", "concentration_max", "var_max", "var_ewma_max", "var_forecast_max",
    "es_max",
    "order_notional_max", "position_notional_max", "quote_age_max_s", "duplicate_window_s", "cool_down_s",
)  # fmt: skip
_COUNTS = ("losses_in_row_max", "order_lots_max", "orders_per_second_max", "cancels_per_second_max")
_LONGEST_S = 1e9  # thirty years


class TradingState(csp.Enum):
    """What the gate lets pass."""

    ACTIVE = 1  # what the limits allow
    REDUCING = 2  # what brings a position nearer to zero
    HALTED = 3  # the same, or nothing where nothing is flattened; until a person resets it


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskConfig:
    """What the account tolerates. Fractions, not percent: 0.05 is 5 %. `None` switches a check off.

    Money is in the currency of the account. What watches the account comes first, what an order must pass second.
    """

    drawdown_max: float | None = 0.35  # of the running equity peak; beyond it EMERGENCY_STOP
    daily_loss_max: float | None = None  # of the equity at the start of the UTC day; beyond it EMERGENCY_STOP
    flatten: bool = True  # close all positions on EMERGENCY_STOP; False: freeze, nothing passes any more
    symbol_loss_max: float | None = None  # of the same equity, lost on one symbol in a day; beyond it HALT_SYMBOL
    losses_in_row_max: int | None = None  # losing round trips of one symbol; at so many HALT_SYMBOL
    cool_down_s: float = 3_600.0  # for so long, engine seconds
    gross_exposure_max: float | None = 1.5  # of equity: the leverage limit; beyond it REDUCE_POSITIONS; of orders too
    concentration_max: float | None = None  # largest |position| as a share of equity; beyond it REDUCE_POSITIONS
    var_max: float | None = 0.05  # one-step 95 % historical value at risk, of equity; beyond it REDUCE_POSITIONS
    var_ewma_max: float | None = None  # the same by RiskMetrics: normal, decay 0.94; beyond it REDUCE_POSITIONS
    var_forecast_max: float | None = 0.05  # of the next bar, by the price models' forecasts; beyond it REDUCE_POSITIONS
    es_max: float | None = None  # one-step 95 % expected shortfall, of equity; beyond it REDUCE_POSITIONS
    var_window: int = 500  # steps of history, of all three
    reduce_hold_s: float = 3_600.0  # after REDUCE_POSITIONS only reducing orders pass for so long, engine seconds
    order_lots_max: int | None = None  # of the instrument, one order
    order_notional_max: float | None = None  # one order
    position_notional_max: float | None = None  # one symbol, with all that is on its way
    net_exposure_max: float | None = None  # |longs - shorts| of equity, with all that is on its way
    cash_only: bool = False  # nothing is bought beyond the cash there is, nor sold short; a venue wants it true
    price_collar: float | None = None  # a price may be so much worse than the last one, as a fraction of it
    quote_age_max_s: float | None = None  # engine seconds since the last price
    session_check: bool = False  # orders pass only in market hours of the instrument's calendar
    duplicate_window_s: float | None = None  # the same order again within so many engine seconds does not pass
    orders_per_second_max: int | None = None  # over the last engine second
    cancels_per_second_max: int | None = None  # the same; what is too much waits

    def __post_init__(self) -> None:
        for name in _FRACTIONS:
            limit = getattr(self, name)
            if limit is not None and not 0.0 < limit < 1.0:
                raise ValueError(f"{name} must lie in (0, 1), was {limit}")
        for name in _POSITIVE:
            limit = getattr(self, name)
            if limit is not None and not 0.0 < limit < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {limit}")
        for name in _COUNTS:
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise ValueError(f"{name} must be at least 1, was {limit}")
        for name in ("orders_per_second_max", "cancels_per_second_max"):  # that many times are kept
            limit = getattr(self, name)
            if limit is not None and limit > 1_000_000:
                raise ValueError(f"{name} must be at most 1000000, was {limit}")
        if not 20 <= self.var_window <= 100_000:  # 95 % of fewer is no tail; of more, no memory
            raise ValueError(f"var_window must lie in [20, 100000], was {self.var_window}")
        if not 0.0 <= self.reduce_hold_s <= _LONGEST_S:
            raise ValueError(f"reduce_hold_s must lie in [0, 1e9], was {self.reduce_hold_s}")
        for name in ("cool_down_s", "duplicate_window_s", "quote_age_max_s"):
            seconds = getattr(self, name)
            if seconds is not None and seconds > _LONGEST_S:
                raise ValueError(f"{name} must be at most 1e9, was {seconds}")


def _off(limit: float | None) -> float:
    return math.inf if limit is None else limit


def risk_monitor(
    books: Books,
    closes: dict[str, ts[float]],
    instruments: tuple[Instrument, ...],
    config: RiskConfig,
    unit_values: dict[str, ts[float]] | None = None,
    opening: Opening | None = None,
    forecasts: dict[str, ts[Forecast]] | None = None,
) -> ts[RiskAction]:
    """Watch the account. What no limit asks for is not computed.

    Args:
        books: of the account.
        closes: last price by symbol, quote currency.
        instruments: what is traded.
        config: the limits.
        unit_values: what a unit is worth by symbol, currency of the account; None where that is the quote currency of
            all: close times multiplier.
        opening: what the account starts with: the peak and the day's start that losses are counted from, and what is
            held.
        forecasts: of the next bar, by symbol, where price models speak.

    Ticks:
        As `account_limits` and `symbol_loss`, in the cycle of the change; `losing_streak`, in the cycle of a fill;
        `tail_limits`, with each price, a microsecond later where there are several symbols; `forecast_at_risk`, with
        each forecast and fill.
    """
    if unit_values is None:
        unit_values = {
            i.symbol: closes[i.symbol] if float(i.multiplier) == 1.0 else closes[i.symbol] * float(i.multiplier)
            for i in instruments
        }
    actions = [
        account_limits(
            books.equity,
            books.gross_exposure,
            _off(config.drawdown_max),
            _off(config.daily_loss_max),
            _off(config.gross_exposure_max),
            *([] if opening is None else [opening.equity_peak, opening.day, opening.day_start]),
        )
    ]
    if config.losses_in_row_max is not None:
        actions.append(losing_streak(books.position, instruments, config.losses_in_row_max, config.cool_down_s))
    if config.symbol_loss_max is not None:
        positions = by_symbol(books.position, [instrument.symbol for instrument in instruments])
        held = () if opening is None else tuple(position.symbol for position in opening.positions)
        for instrument in instruments:
            symbol = instrument.symbol
            actions.append(
                symbol_loss(
                    books.equity,
                    positions[symbol],
                    books.values[symbol],
                    closes[symbol],
                    unit_values[symbol],
                    instrument,
                    config.symbol_loss_max,
                    symbol in held,
                )
            )
    tails = [_off(limit) for limit in (config.concentration_max, config.var_max, config.var_ewma_max, config.es_max)]
    if min(tails) < math.inf:
        actions.append(tail_limits(books.equity, unit_values, books.values, config.var_window, *tails))
    if forecasts and config.var_forecast_max is not None:
        values = {symbol: books.values[symbol] for symbol in forecasts}
        actions.append(forecast_at_risk(forecasts, books.position, values, books.equity, config.var_forecast_max))
    return together(actions)


@csp.node
def action_alert(action: ts[RiskAction]) -> ts[Alert]:
    """Say what risk asked for: CRITICAL for a stop, ALERT for a halt, WARNING for a reduction. The gate itself tells
    what it does to wind down: no limit was passed there."""
    if csp.ticked(action) and action.kind is not _WIND_DOWN:
        kind = action.kind
        level = AlertLevel.CRITICAL if kind is _STOP else AlertLevel.WARNING if kind is _REDUCE else AlertLevel.ALERT
        whom = "".join(f" {name}" for name in (action.symbol, action.strategy) if name)
        until = f" until {action.until}" if action.until < NEVER else ""
        return Alert(
            level=level,
            source="risk_monitor",
            symbol=action.symbol,
            message=f"{kind.name}{whom}{until}: {passed(action.code, action.value, action.limit)}",
            value=action.value,
        )


@csp.node
def limit_target(
    target: ts[TargetPosition],
    position: ts[PositionUpdate],
    action: ts[RiskAction],
    instrument: Instrument,
    config: RiskConfig,
    held: float = 0.0,
) -> ts[TargetPosition]:
    """Let risk overrule the strategy's target of one symbol.

    Args:
        target: what the strategy wants.
        position: of this symbol; passive.
        action: what the risk monitor asks; the halts of other symbols and of strategies are not for this node.
        held: what is wanted before the first target: what an earlier run has left.

    Ticks:
        Every target until an EMERGENCY_STOP; then 0 once, if so configured, and nothing more. A HALT_SYMBOL of this
        symbol gives 0 once, and no target before it ends; one that comes meanwhile can only prolong it.
        REDUCE_POSITIONS scales the position, or the target where that is nearer to zero, by limit/value, towards zero
        in whole lots.
    """
    with csp.state():
        s_lots = Steps(instrument.lot, f"lot of {instrument.symbol}")
        s_target = held
        s_stopped = False
        s_halted_until = csp.now()
    with csp.start():
        csp.make_passive(position)

    if not s_stopped:
        halted = csp.now() < s_halted_until
        heard = csp.ticked(action) and (
            action.kind is _STOP
            or (not halted and action.kind is _REDUCE)
            or (action.kind is _HALT_SYMBOL and action.symbol == instrument.symbol)
        )
        if csp.ticked(target) and not halted:
            s_target = target.quantity
        if not heard:
            if not halted and csp.ticked(target):
                csp.output(target)
        elif action.kind is not _REDUCE:
            s_stopped = action.kind is _STOP
            s_halted_until = max(s_halted_until, action.until)
            s_target = 0.0
            # A stop cancels what works, even the order that was to flatten a halted symbol: it is sent again.
            if config.flatten if s_stopped else not halted:
                csp.output(TargetPosition(symbol=instrument.symbol, quantity=0.0, asof=csp.now()))
        else:
            held = position.quantity if csp.valid(position) else 0.0
            keep = 0.0 if held * s_target <= 0.0 else math.copysign(min(abs(held), abs(s_target)), held)
            lots = s_lots.down(abs(keep) * action.limit / action.value)
            s_target = math.copysign(s_lots.value(lots), keep) if lots else 0.0
            if held or csp.ticked(target):
                csp.output(TargetPosition(symbol=instrument.symbol, quantity=s_target, asof=csp.now()))
