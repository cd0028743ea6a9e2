"""Limits on what is lost: of the account, of one symbol, and in a row. Off is infinity."""

import math
from datetime import datetime, timedelta

import csp
from csp import ts

from feeds.instruments import Instrument
from feeds.streams import SETTLE
from nodes.events import PositionUpdate, RiskAction, RiskActionKind
from nodes.trips import Trips

_STOP, _REDUCE, _HALT = RiskActionKind.EMERGENCY_STOP, RiskActionKind.REDUCE_POSITIONS, RiskActionKind.HALT_SYMBOL
_DAY = timedelta(days=1)
_WORSE = 1.05


def next_midnight(now: datetime) -> datetime:
    """The first UTC midnight after `now`."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY


@csp.node
def account_limits(
    equity: ts[float],
    gross_exposure: ts[float],
    drawdown_max: float,
    daily_loss_max: float,
    gross_exposure_max: float,
    peak: float = 0.0,
    day: str = "",
    day_start: float = 0.0,
) -> ts[RiskAction]:
    """Drawdown, daily loss and gross exposure, checked in the cycle of the change.

    A day is one of UTC. It starts with the equity of the first microsecond after midnight: the marks of the bars that
    close at midnight belong to the day that ends.

    Args:
        equity: account value, its currency.
        gross_exposure: sum of |position value|.
        drawdown_max: of the running peak.
        daily_loss_max: of the equity at the day's start.
        gross_exposure_max: of equity.
        peak: of the equity before this run.
        day: the day, YYYY-MM-DD, on which `day_start` was the equity at the start, if the first marks are of that day;
            "" where nobody knows.

    Ticks:
        EMERGENCY_STOP once a run when a loss passes its limit; REDUCE_POSITIONS when gross exposure passes its limit,
        and again each time it has grown by a twentieth since. Both inputs tick together, from the account.

    Raises:
        ValueError: equity that is not finite.
    """
    with csp.alarms():
        a_day = csp.alarm(bool)
    with csp.state():
        s_kept, s_kept_today = 1.0 - drawdown_max, 1.0 - daily_loss_max
        s_daily = daily_loss_max < math.inf
        s_stopped = not s_daily and drawdown_max == math.inf  # nothing left to stop for
        s_peak = peak
        s_start = 0.0  # equity at the start of the day
        s_day = day  # that has not begun; "" where no day is waited for
        s_armed = False  # a_day is set for the end of the day
        s_floor = math.inf  # equity below it needs a closer look
        s_acted = 0.0  # the exposure that was last acted on, 0.0 inside the limit

    if s_floor <= equity <= s_peak and not s_acted and gross_exposure <= gross_exposure_max * equity:
        pass  # nearly every mark: nothing new, and nothing wrong
    else:
        if not -math.inf < equity < math.inf:
            raise ValueError(f"equity must be finite, was {equity} at {csp.now()}")
        s_peak = max(s_peak, equity)
        s_start = s_start or equity
        if s_day:
            today = (csp.now() - 2 * SETTLE).date().isoformat()
            if today >= s_day:
                s_start = day_start if today == s_day else s_start
                s_day = ""
        if s_daily and not s_armed and not s_stopped:
            s_armed = True
            csp.schedule_alarm(a_day, next_midnight(csp.now()) + SETTLE, True)
        code, lost, limit = "", 0.0, 0.0
        if not s_stopped and s_peak > 0.0 and equity < s_peak * s_kept:
            code, lost, limit = "drawdown", 1.0 - equity / s_peak, drawdown_max
        elif not s_stopped and s_start > 0.0 and equity < s_start * s_kept_today:
            code, lost, limit = "daily_loss", 1.0 - equity / s_start, daily_loss_max
        if code:
            s_stopped = True  # once a run
            csp.output(RiskAction(kind=_STOP, code=code, value=lost, limit=limit))
        else:
            # A reduction takes a while to fill: said once, and again whenever it has grown worse by a twentieth.
            ratio = gross_exposure / equity if equity > 0.0 else math.inf if gross_exposure else 0.0
            if ratio <= gross_exposure_max:
                s_acted = 0.0
            elif ratio > s_acted * _WORSE:
                s_acted = ratio
                csp.output(RiskAction(kind=_REDUCE, code="gross_exposure", value=ratio, limit=gross_exposure_max))
        s_floor = -math.inf if s_stopped else max(s_peak * s_kept, max(s_start, 0.0) * s_kept_today)
    if csp.ticked(a_day):
        s_armed = False
        s_start = equity
        s_floor = math.inf  # the first mark of the new day arms its end


@csp.node
def symbol_loss(
    equity: ts[float],
    position: ts[PositionUpdate],
    value: ts[float],
    close: ts[float],
    unit_value: ts[float],
    instrument: Instrument,
    loss_max: float,
    carried: bool = False,
) -> ts[RiskAction]:
    """What one symbol has lost since the day's start, in the cycle of the change.

    A loss is realised and unrealised profit less fees, at the rate of exchange of the moment. A day is one of UTC; the
    changes of its first microsecond belong to the day that ends, as in `account_limits`.

    Args:
        equity: account value, its currency; passive.
        position: of this symbol.
        value: of the position, signed, currency of the account.
        close: last price, quote currency; passive.
        unit_value: what a unit is worth, currency of the account; passive.
        loss_max: of the equity at the day's start.
        carried: the first position is of an earlier run: what it has gained or lost before its first mark in this one
            does not count.

    Ticks:
        HALT_SYMBOL until the next UTC midnight, once a day.
    """
    with csp.alarms():
        a_day_over = csp.alarm(bool)
    with csp.state():
        s_multiplier = float(instrument.multiplier)
        s_spent = 0.0  # what was paid for what is held, less what was realised; price times units
        s_profit = 0.0  # since the start of the run
        s_before = 0.0  # of it, what came before this day
        s_equity = s_start = 0.0  # at the last change, at the start of the day
        s_most = 0.0  # that may be lost; infinite once the symbol is halted for the day
        s_known = False
        s_carried = carried
        s_day_over = True  # the next change starts a day
    with csp.start():
        csp.make_passive(equity)
        csp.make_passive(close)
        csp.make_passive(unit_value)

    if csp.ticked(a_day_over):
        s_day_over = True
    if csp.ticked(position):
        s_spent = position.quantity * position.average_price - (position.realised - position.fees) / s_multiplier
    s_known = s_known or csp.valid(equity, value, close)
    if s_known and csp.ticked(position, value) and close > 0.0:
        if s_carried:
            s_carried = False
            s_profit = value - s_spent * (unit_value / close)
        if s_day_over:
            s_day_over = False
            s_before, s_start = s_profit, s_equity or equity
            s_most = loss_max * s_start if s_start > 0.0 else math.inf
            csp.schedule_alarm(a_day_over, next_midnight(csp.now() - SETTLE) + 2 * SETTLE, True)
        s_equity = equity
        s_profit = value - s_spent * (unit_value / close)
        if s_before - s_profit > s_most:
            s_most = math.inf
            return RiskAction(
                kind=_HALT,
                code="symbol_loss",
                value=(s_before - s_profit) / s_start,
                limit=loss_max,
                symbol=instrument.symbol,
                until=next_midnight(csp.now()),
            )


@csp.node
def losing_streak(
    position: ts[PositionUpdate], instruments: tuple[Instrument, ...], losses_max: int, pause_s: float
) -> ts[RiskAction]:
    """A pause for a symbol that loses several round trips in a row.

    A round trip goes from flat to flat, or through zero; it has lost when realised profit less fees is below 0. See
    `nodes.trips.Trips`.

    Args:
        position: of any symbol.
        losses_max: the pause begins with this many.
        pause_s: its length, engine seconds.

    Ticks:
        HALT_SYMBOL in the cycle of the fill that ends the last of them; the count begins anew.
    """
    with csp.state():
        s_trips = Trips(instruments)
        s_losses = {i.symbol: 0 for i in instruments}

    if csp.ticked(position):
        symbol = position.symbol
        earned = s_trips.ended(position)
        if earned is not None:
            s_losses[symbol] = s_losses[symbol] + 1 if earned < 0.0 else 0
            if s_losses[symbol] >= losses_max:
                csp.output(
                    RiskAction(
                        kind=_HALT,
                        code="cool_down",
                        value=float(s_losses[symbol]),
                        limit=float(losses_max),
                        symbol=symbol,
                        until=csp.now() + timedelta(seconds=pause_s),
                    )
                )
                s_losses[symbol] = 0
