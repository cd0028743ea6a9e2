"""The gate between strategy and venue. Every order passes it; nothing goes around."""

import math
from collections import deque
from datetime import datetime, timedelta

import csp
from csp import ts

from brokers.events import CancelRequest, Fill, OrderRequest, OrderState, OrderUpdate
from brokers.ledger import Contract
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.events import Alert, AlertLevel, RiskAction, RiskActionKind
from nodes.risk import RiskConfig

_SECOND = timedelta(seconds=1)
_BUY = Side.BUY  # bound once: looking a member up on its class costs more than comparing it


class Exposure:
    """What is held and what is on its way, by symbol, in lots; and the orders that are still working."""

    __slots__ = ("_contracts", "_multipliers", "held", "pending", "working")

    def __init__(self, instruments: tuple[Instrument, ...]) -> None:
        self._contracts = {i.symbol: Contract(i) for i in instruments}
        self._multipliers = {i.symbol: float(i.multiplier) for i in instruments}
        self.held = dict.fromkeys(self._contracts, 0)
        self.pending = dict.fromkeys(self._contracts, 0)  # signed lots of all working orders
        self.working: dict[str, tuple[str, int]] = {}  # order id -> (symbol, signed lots still open)

    def lots(self, symbol: str, side: Side, quantity: float) -> int:
        """Signed lots of a quantity, towards zero."""
        count = self._contracts[symbol].lots.down(quantity)
        return count if side is _BUY else -count

    def worth(self, symbol: str, lots: int, price: float) -> float:
        """|lots| at `price`, quote currency."""
        return self._contracts[symbol].lots.value(abs(lots)) * self._multipliers[symbol] * price

    def sent(self, order_id: str, symbol: str, lots: int) -> None:
        self.working[order_id] = (symbol, lots)
        self.pending[symbol] += lots

    def filled(self, fill: Fill) -> None:
        lots = self.lots(fill.symbol, fill.side, fill.quantity)
        self.held[fill.symbol] += lots
        working = self.working.get(fill.order_id)
        if working is not None:
            self.pending[fill.symbol] -= lots
            if working[1] == lots:
                del self.working[fill.order_id]
            else:
                self.working[fill.order_id] = (fill.symbol, working[1] - lots)

    def closed(self, order_id: str) -> None:
        symbol, left = self.working.pop(order_id, ("", 0))
        if symbol:
            self.pending[symbol] -= left

    def cancel_all(self) -> list[CancelRequest]:
        """Ask for every working order back; from now on it no longer counts, unless it fills after all."""
        requests = [CancelRequest(order_id=key, symbol=symbol) for key, (symbol, _) in self.working.items()]
        self.working.clear()
        self.pending = dict.fromkeys(self.pending, 0)
        return requests

    def reduces(self, symbol: str, lots: int) -> bool:
        """Whether `lots` bring the position, with what is in flight, nearer to zero without crossing it."""
        now = self.held[symbol] + self.pending[symbol]
        return now * lots < 0 and abs(lots) <= abs(now)


def _refused(order: OrderRequest, code: str, reason: str) -> OrderUpdate:
    return OrderUpdate(
        order_id=order.order_id, symbol=order.symbol, state=OrderState.REJECTED, remaining=0.0, code=code, reason=reason
    )


@csp.node
def risk_filter(
    order: ts[OrderRequest],
    fill: ts[Fill],
    update: ts[OrderUpdate],
    action: ts[RiskAction],
    equity: ts[float],
    closes: dict[str, ts[float]],
    instruments: tuple[Instrument, ...],
    config: RiskConfig,
) -> csp.Outputs(approved=ts[OrderRequest], refused=ts[OrderUpdate], cancel=ts[list[CancelRequest]], alert=ts[Alert]):
    """Let an order pass, or refuse it with a stable code and a sentence.

    Three states. ACTIVE: the limits below hold. REDUCING, for `reduce_hold_s` after a REDUCE_POSITIONS: only orders
    that bring a position nearer to zero pass. HALTED, from an EMERGENCY_STOP to the end of the run: what works is
    cancelled, and only reducing orders pass, so that positions can be closed. A reducing order is never held up by
    the limits on exposure, notional or rate.

    Args:
        order: what the strategy wants to send.
        fill: executions.
        update: orders that were refused or cancelled; with the fills they tell what is held and in flight.
        action: what the risk monitor asks.
        equity: account value, quote currency; passive.
        closes: last price by symbol, quote currency; passive.

    Ticks:
        `approved` or `refused` in the order's own cycle, never both; an `alert` with every refusal and change of
        state; `cancel` with all working orders on EMERGENCY_STOP.
    """
    with csp.state():
        s_exposure = Exposure(instruments)
        s_halted = False
        s_reducing_until = None
        s_sent = deque[datetime]()  # engine times of approved orders within the last second
    with csp.start():
        csp.make_passive(equity)
        csp.make_passive(closes)

    if csp.ticked(fill):
        s_exposure.filled(fill)
    if csp.ticked(update):
        s_exposure.closed(update.order_id)
    if csp.ticked(action):
        if action.kind is RiskActionKind.EMERGENCY_STOP:
            s_halted = True
            csp.output(cancel=s_exposure.cancel_all())
        else:
            s_reducing_until = csp.now() + timedelta(seconds=config.reduce_hold_s)

    if csp.ticked(order):
        symbol = order.symbol
        lots = s_exposure.lots(symbol, order.side, order.quantity)
        reducing = s_exposure.reduces(symbol, lots)
        now = csp.now()
        while s_sent and s_sent[0] <= now - _SECOND:
            s_sent.popleft()
        code, reason = "", ""
        if not csp.valid(closes[symbol]) or not csp.valid(equity):
            code, reason = "no_price", f"there is no price or no equity yet to judge an order of {symbol} by"
        elif not reducing:
            worth = s_exposure.worth(symbol, lots, closes[symbol])
            if s_halted:
                code, reason = "halted", "trading is halted: only orders that reduce a position pass"
            elif s_reducing_until is not None and now < s_reducing_until:
                code, reason = "reducing", "risk is being reduced: only orders that reduce a position pass"
            elif config.order_notional_max is not None and worth > config.order_notional_max:
                code = "order_notional"
                reason = f"the order is worth {worth:.2f}, more than {config.order_notional_max:.2f}"
            elif config.orders_per_second_max is not None and len(s_sent) >= config.orders_per_second_max:
                code = "order_rate"
                reason = f"{len(s_sent)} orders went out within the last second, the limit is the same"
            elif config.gross_exposure_max is not None:
                gross = 0.0
                for key, held in s_exposure.held.items():
                    after = held + s_exposure.pending[key] + (lots if key == symbol else 0)
                    worst = max(abs(held), abs(after))  # what is on its way may fill, or not
                    if worst:
                        gross += s_exposure.worth(key, worst, closes[key]) if csp.valid(closes[key]) else math.inf
                if gross > config.gross_exposure_max * equity:
                    code = "gross_exposure"
                    reason = (
                        f"exposure would be {gross:.2f}, more than {config.gross_exposure_max:g} times"
                        f" the equity of {equity:.2f}"
                    )
        if code:
            csp.output(refused=_refused(order, code, reason))
            csp.output(
                alert=Alert(
                    level=AlertLevel.WARNING,
                    source="risk_filter",
                    symbol=symbol,
                    message=f"order {order.order_id} refused ({code}): {reason}",
                    value=order.quantity,
                )
            )
        else:
            s_sent.append(now)
            s_exposure.sent(order.order_id, symbol, lots)
            csp.output(approved=order)
