"""How far advice may move a position: what is wanted with it, beside what is wanted without."""

import math
from collections import deque
from datetime import datetime, timedelta

import csp
from csp import ts

from brokers.ledger import Contract
from feeds.instruments import Instrument
from nodes.advise import AdvisorConfig
from nodes.events import Signal, TargetPosition

_HOUR = timedelta(hours=1)


@csp.node
def cap_advice(
    target: ts[TargetPosition],
    without: ts[TargetPosition],
    advice: ts[Signal],
    price: ts[float],
    equity: ts[float],
    instrument: Instrument,
    config: AdvisorConfig,
    held: float = 0.0,
    decide: bool = False,
) -> ts[TargetPosition]:
    """Let advice move one symbol's target by no more than it may.

        advised = target - without, in whole lots towards zero, and in value of equity at most
        - `exposure_max`, and
        - what it was, plus what `exposure_hour_max` leaves of the growth of the last hour.

    Where price or equity is not known, or equity is not positive, advice moves nothing. Nor does it where the advisor
    says nothing: what it has moved is taken back when it expires. Smaller it may become at any time. The room that an
    hour gives back is taken at the next tick.

    Args:
        target: what is wanted with the advice.
        without: what the same strategy would want without it.
        advice: the advisor's own signal; one of confidence 0 says nothing.
        price: last price, account currency; passive.
        equity: account value, account currency; passive.
        held: what an earlier run has left, in base units: what both want before their first tick.
        decide: the first quantity ticks whatever it is.

    Ticks:
        When what is left of the target changes.
    """
    with csp.state():
        s_lots = Contract(instrument).lots
        s_multiplier = float(instrument.multiplier)
        s_target = s_without = s_last = s_lots.exact(held)
        s_decided = not decide
        s_speaks = False
        s_advised = 0  # lots
        s_grown: deque[tuple[datetime, float]] = deque()  # shares of equity, each when
    with csp.start():
        csp.make_passive(price)
        csp.make_passive(equity)

    if csp.ticked(target):
        s_target = s_lots.exact(target.quantity)
    if csp.ticked(without):
        s_without = s_lots.exact(without.quantity)
    if csp.ticked(advice):
        s_speaks = advice.confidence > 0.0
    wanted_anew = csp.ticked(target) or csp.ticked(without)
    if wanted_anew or csp.ticked(advice):
        now = csp.now()
        while s_grown and now - s_grown[0][0] >= _HOUR:
            s_grown.popleft()
        wanted = s_target - s_without if s_speaks else 0
        if wanted and csp.valid(price, equity) and equity > 0.0 and price > 0.0:
            lot = s_lots.value(1) * price * s_multiplier / equity  # share of equity
            before = abs(s_advised) * lot if wanted * s_advised > 0 else 0.0
            left = max(0.0, config.exposure_hour_max - math.fsum(share for _, share in s_grown))
            most = min(config.exposure_max, before + left)
            size = min(abs(wanted), s_lots.down(s_lots.value(1) * (most / lot)))
            if size * lot > before:
                s_grown.append((now, size * lot - before))
            wanted = int(math.copysign(size, wanted))
        else:
            wanted = 0
        s_advised = wanted
        lots = s_without + wanted
        if lots != s_last or (wanted_anew and not s_decided):
            s_last = lots
            s_decided = True
            return TargetPosition(symbol=instrument.symbol, quantity=s_lots.value(lots), asof=now)
