"""One strategy among several: its own books, and the limits at which it is sent to rest."""

import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import csp
from csp import ts

from brokers.events import Fill, Liquidity
from feeds.instruments import Instrument
from nodes.events import PositionUpdate, RiskAction, RiskActionKind, StrategyFill, TargetPosition
from nodes.portfolio import Books, portfolio
from nodes.trips import Trips

_TAKER = Liquidity.TAKER
_HALT_STRATEGY = RiskActionKind.HALT_STRATEGY
_SINCE = ("day", "start")


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyLimits:
    """What a strategy may lose before it has to rest. `None` switches a check off."""

    loss_max: float | None = None  # of its allocation
    loss_since: str = "day"  # what a loss is counted from: "day", the start of the UTC day, or "start", of the run
    losses_in_row_max: int | None = None  # round trips that lost, one after the other, at which it rests
    cool_down_s: float = 86_400.0  # how long it rests, engine seconds

    def __post_init__(self) -> None:
        if self.loss_max is not None and not 0.0 < self.loss_max < math.inf:
            raise ValueError(f"loss_max must be positive and finite, was {self.loss_max}")
        if self.loss_since not in _SINCE:
            raise ValueError(f"loss_since must be one of {', '.join(_SINCE)}, was {self.loss_since!r}")
        if self.losses_in_row_max is not None and self.losses_in_row_max < 1:
            raise ValueError(f"losses_in_row_max must be at least 1, was {self.losses_in_row_max}")
        if not 0.0 < self.cool_down_s <= 1e9:
            raise ValueError(f"cool_down_s must lie in (0, 1e9], was {self.cool_down_s}")

    @property
    def active(self) -> bool:
        """Whether there is anything to check."""
        return self.loss_max is not None or self.losses_in_row_max is not None


@csp.node
def _own_fill(fill: ts[StrategyFill], strategy: str) -> ts[Fill]:
    """The fills of one strategy, as a ledger wants them."""
    if csp.ticked(fill) and fill.strategy == strategy:
        return Fill(
            market_time=csp.now(),
            symbol=fill.symbol,
            side=fill.side,
            quantity=fill.quantity,
            price=fill.price,
            fee=fill.fee,
            order_id=fill.order_id,
            liquidity=_TAKER,
            base_fee=fill.base_fee,
        )


def strategy_book(
    fill: ts[StrategyFill],
    strategy: str,
    closes: dict[str, ts[float]],
    instruments: tuple[Instrument, ...],
    **options: Any,
) -> Books:
    """The exact books of one strategy over all symbols. They start from nothing, so `equity` is its profit.

    Args:
        fill: what `allocate` gave to whom, of every symbol and strategy.
        strategy: whose books; "" for the residual book.
        closes: last price by symbol, quote currency.
        instruments: what is traded.
        options: as the account's own `portfolio` has them: currency, method, rates, flow, corporate.

    Ticks:
        As `portfolio`, on the strategy's own fills.

    Raises:
        ValueError: as `portfolio`.
    """
    return portfolio(_own_fill(fill, strategy), closes, instruments, 0.0, **options)


@csp.node
def strategy_guard(
    targets: dict[str, ts[TargetPosition]],
    profit: ts[float],
    position: ts[PositionUpdate],
    strategy: str,
    allocation: float,
    instruments: tuple[Instrument, ...],
    limits: StrategyLimits,
) -> csp.Outputs(
    targets=csp.OutputBasket(dict[str, ts[TargetPosition]], shape_of="targets"),
    action=ts[RiskAction],
):
    """Send a strategy to rest when it loses too much: for `cool_down_s` its targets are 0.

    The loss is counted from the last mark before the UTC day, or from the start; in both cases no earlier than from the
    end of the last rest, or a strategy could not trade again on the day on which it lost.

    Args:
        targets: what the strategy wants, by symbol.
        profit: the mark of its books, in the currency of the account; 0.0 at the start.
        position: of its books, every symbol.
        strategy: its name.
        allocation: the money that `loss_max` is a fraction of, in the currency of the account, positive.
        instruments: what is traded.

    Ticks:
        `targets`: each target while the strategy works; 0 once for every symbol that it wants something of, when it is
        sent to rest; what it wants by then, where that is not 0, at the end of the rest. Nothing in between.
        `action`: HALT_STRATEGY in the cycle of the mark or fill that passes a limit, with the time of the rest's end.

    Raises:
        ValueError: a profit that is not finite, or an allocation that is not positive.
    """
    with csp.alarms():
        a_end = csp.alarm(bool)
    with csp.state():
        s_trips = Trips(instruments)
        s_losses = 0  # trips that lost, since the last one that did not
        s_loss_max = math.inf if limits.loss_max is None else limits.loss_max
        s_losses_max = math.inf if limits.losses_in_row_max is None else limits.losses_in_row_max
        s_rest = timedelta(seconds=limits.cool_down_s)
        s_daily = limits.loss_since == "day"
        s_day: date | None = None
        s_from = 0.0  # the profit that a loss is counted from
        s_last = 0.0  # profit
        s_until: datetime | None = None  # it rests until then
        s_wanted = dict[str, TargetPosition]()
    with csp.start():
        if not 0.0 < allocation < math.inf:
            raise ValueError(f"allocation of {strategy} must be positive and finite, was {allocation}")

    passed = dict[str, TargetPosition]()
    if csp.ticked(a_end):
        s_until = None
        s_from = s_last
        s_losses = 0
        passed = {
            symbol: TargetPosition(symbol=symbol, quantity=wanted.quantity, asof=csp.now())
            for symbol, wanted in s_wanted.items()
            if wanted.quantity
        }
    if csp.ticked(targets):
        for symbol, target in targets.tickeditems():  # type: ignore[attr-defined]
            s_wanted[symbol] = target
            passed[symbol] = target
    if csp.ticked(position):
        earned = s_trips.ended(position)
        if earned is not None:
            s_losses = s_losses + 1 if earned < 0.0 else 0
    if csp.ticked(profit):
        if not -math.inf < profit < math.inf:
            raise ValueError(f"profit of {strategy} must be finite, was {profit} at {csp.now()}")
        if s_daily:
            today = csp.now().date()
            if s_day is not None and today != s_day:
                s_from = s_last
            s_day = today
        s_last = profit
    if s_until is None:
        loss = (s_from - s_last) / allocation
        if loss > s_loss_max or s_losses >= s_losses_max:
            s_until = csp.now() + s_rest
            csp.schedule_alarm(a_end, s_rest, True)
            deep = loss > s_loss_max
            csp.output(
                action=RiskAction(
                    kind=_HALT_STRATEGY,
                    code="strategy_loss" if deep else "losses_in_row",
                    value=loss if deep else float(s_losses),
                    limit=s_loss_max if deep else float(s_losses_max),
                    strategy=strategy,
                    until=s_until,
                )
            )
            csp.output(
                targets={
                    symbol: TargetPosition(symbol=symbol, quantity=0.0, asof=csp.now())
                    for symbol, wanted in s_wanted.items()
                    if wanted.quantity or symbol in passed
                }
            )
        elif passed:
            csp.output(targets=passed)
