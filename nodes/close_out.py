"""Closing what risk wants closed, for strategies that send orders of their own."""

from datetime import datetime

import csp
from csp import ts

from brokers.events import CorporateAction, Fill, OrderRequest, OrderState, OrderUpdate
from brokers.opening import Opening
from brokers.orders import ENDED
from brokers.units import split_ratio
from feeds.instruments import Instrument
from feeds.streams import SETTLE
from nodes.events import RiskAction, RiskActionKind
from nodes.orders import Flight

_STOP, _HALT_SYMBOL = RiskActionKind.EMERGENCY_STOP, RiskActionKind.HALT_SYMBOL
_REJECTED = OrderState.REJECTED


@csp.node
def _close_out(
    action: ts[RiskAction],
    fill: ts[Fill],
    update: ts[OrderUpdate],
    corporate: ts[CorporateAction],
    again: ts[list[str]],
    instrument: Instrument,
    flatten: bool,
    run_id: str,
    opening: Opening | None,
) -> ts[OrderRequest]:
    with csp.state():
        s_flight = Flight(instrument, opening, orders=False)  # of its own orders alone
        s_stopped = False
        s_until: datetime | None = None
        s_count = 0

    waits = csp.ticked(again) and instrument.symbol not in again and not csp.ticked(fill, action)
    if csp.ticked(corporate) and corporate.symbol == instrument.symbol:
        s_flight.split(split_ratio(corporate.split))
        waits = s_flight.coming != 0  # for the venue, which takes back what works
    if csp.ticked(fill):
        s_flight.filled(fill)
    if csp.ticked(update) and update.state in ENDED:
        lots, _ = s_flight.ended(update.order_id)
        waits = lots != 0 and update.state is _REJECTED and update.code != "split" and not csp.ticked(fill)
    if csp.ticked(action):
        stop = action.kind is _STOP and flatten
        if stop or (action.kind is _HALT_SYMBOL and action.symbol == instrument.symbol):
            s_until = action.until if s_until is None else max(s_until, action.until)
            waits = False
        if stop and not s_stopped:
            s_stopped = True
            s_flight.forget()  # the gate takes back what works, this node's own order too
    if s_until is not None and csp.now() < s_until and not waits:
        lots = s_flight.missing(0)
        if lots * s_flight.units < 0:  # more may be on its way than is left: it finds nothing to do
            s_count += 1
            return s_flight.order(f"{run_id}-{instrument.symbol}-close-{s_count}", lots, closes=True)


def close_out(
    action: ts[RiskAction],
    fill: ts[Fill],
    update: ts[OrderUpdate],
    instrument: Instrument,
    flatten: bool,
    run_id: str,
    corporate: ts[CorporateAction] | None = None,
    opening: Opening | None = None,
    again: ts[list[str]] | None = None,
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
        corporate: splits, of all symbols; what is held counts in new units a microsecond later, as in the books.
        opening: what is held at the start.
        again: symbols of which an order was refused for a reason that has ended since.

    Ticks:
        A reduce-only market order for what is held, in whole lots, and not yet being closed. One that the gate or the
        venue refuses is not repeated before the next fill, action or `again` of this symbol: the refusal is an alert,
        and where its reason does not end by itself a person has to look. One that a split takes back is sent again in
        the new units.

    Raises:
        ValueError: a fill that is no multiple of the lot, or an opening off the steps of the instrument.
    """
    splits = csp.null_ts(CorporateAction) if corporate is None else csp.delay(corporate, SETTLE)
    asked = csp.null_ts(list[str]) if again is None else again
    orders: ts[OrderRequest] = _close_out(action, fill, update, splits, asked, instrument, flatten, run_id, opening)
    return orders
