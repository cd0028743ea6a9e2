"""Closing what risk wants closed, for strategies that send orders of their own."""

from datetime import datetime

import csp
from csp import ts

from brokers.events import Fill, OrderRequest, OrderState, OrderType, OrderUpdate
from brokers.ledger import Contract
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.events import RiskAction, RiskActionKind

_BUY, _SELL, _MARKET = Side.BUY, Side.SELL, OrderType.MARKET
_STOP, _HALT_SYMBOL = RiskActionKind.EMERGENCY_STOP, RiskActionKind.HALT_SYMBOL
_CANCELLED, _EXPIRED = OrderState.CANCELLED, OrderState.EXPIRED


@csp.node
def close_out(
    action: ts[RiskAction],
    fill: ts[Fill],
    update: ts[OrderUpdate],
    instrument: Instrument,
    flatten: bool,
    run_id: str,
) -> ts[OrderRequest]:
    """Close the position of one symbol when risk stops the account or halts the symbol.

    A strategy that sends targets is flattened by its target; one that sends orders cannot be, so this node does it.
    What the strategy had working is cancelled by the gate. Some of it may fill on the way: that is closed as well, as
    long as the halt lasts.

    Args:
        action: what risk asks for.
        fill: executions of this symbol, whoever ordered them.
        update: what became of orders without a fill.
        flatten: whether an EMERGENCY_STOP closes positions at all.
        run_id: first part of the ids of its orders; the rest is the symbol, "close" and a counter.

    Ticks:
        A reduce-only market order for what is held and not yet being closed. One that the gate or the venue refuses is
        not repeated: the refusal is an alert, and a person has to look.
    """
    with csp.state():
        s_lots = Contract(instrument).lots
        s_held = 0  # lots, towards zero
        s_closing = 0  # signed lots of the order that is on its way
        s_order_id = ""
        s_until: datetime | None = None
        s_count = 0

    if csp.ticked(fill):
        done = s_lots.down(fill.quantity - fill.base_fee)
        done = done if fill.side is _BUY else -done
        s_held += done
        if fill.order_id == s_order_id:
            s_closing -= done
    if csp.ticked(update) and update.order_id == s_order_id and s_closing:
        if update.state is _CANCELLED or update.state is _EXPIRED:
            s_closing = 0  # it is sent again below, while the halt lasts
    if csp.ticked(action):
        stop = action.kind is _STOP and flatten
        if stop or (action.kind is _HALT_SYMBOL and action.symbol == instrument.symbol):
            s_until = action.until if s_until is None else max(s_until, action.until)
            if stop:
                s_closing = 0  # the gate takes back what works, this node's own order too
    lots = -s_held - s_closing
    if s_until is not None and csp.now() < s_until and lots and lots * s_held < 0:
        s_count += 1
        s_order_id = f"{run_id}-{instrument.symbol}-close-{s_count}"
        s_closing += lots
        return OrderRequest(
            order_id=s_order_id,
            symbol=instrument.symbol,
            side=_BUY if lots > 0 else _SELL,
            order_type=_MARKET,
            quantity=s_lots.value(abs(lots)),
            reduce_only=True,
        )
