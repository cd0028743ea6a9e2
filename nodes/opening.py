"""What an account starts a run with, as nodes count it: what is held, which orders work, what a person should know."""

from datetime import timedelta
from fractions import Fraction

import csp
from csp import ts

from brokers.events import OrderRequest, OrderType, TimeInForce
from brokers.ledger import Contract
from brokers.opening import Note, Opening, OpeningOrder
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.events import Alert, AlertLevel


def held_units(opening: Opening | None, contract: Contract) -> int:
    """The units of one instrument that are held at the start, signed.

    Raises:
        ValueError: the opening holds no multiple of the smallest quantity.
    """
    if opening is None:
        return 0
    symbol = contract.instrument.symbol
    return next((contract.held(held.quantity) for held in opening.positions if held.symbol == symbol), 0)


def working_orders(opening: Opening | None, symbol: str) -> tuple[OpeningOrder, ...]:
    """The orders of one symbol that work at the start."""
    return () if opening is None else tuple(order for order in opening.orders if order.symbol == symbol)


def as_request(order: OpeningOrder) -> OrderRequest:
    """A working order as it was sent, of the quantity that it had then."""
    return OrderRequest(
        order_id=order.order_id,
        symbol=order.symbol,
        side=Side[order.side],
        order_type=OrderType[order.order_type],
        quantity=float(order.quantity),
        limit_price=float(order.limit_price),
        stop_price=float(order.stop_price),
        time_in_force=TimeInForce[order.time_in_force],
        reduce_only=order.reduce_only,
        strategy=order.strategy,
    )


def open_lots(order: OpeningOrder, contract: Contract) -> int:
    """The lots that are still open of a working order, signed like its side.

    Raises:
        ValueError: they are no whole number.
    """
    lots = Fraction(order.remaining) / contract.lots.step
    if lots.denominator > 1:
        raise ValueError(f"want an order {order.order_id} of whole lots of {contract.lots.step}, was {order.remaining}")
    return int(lots) if order.side == "BUY" else -int(lots)


def wanted_at_start(opening: Opening | None, instrument: Instrument) -> float:
    """What the run before wanted to hold of one instrument: what is held and on its way, in whole lots towards zero."""
    contract = Contract(instrument)
    lots = contract.whole_lots(held_units(opening, contract))
    lots += sum(open_lots(order, contract) for order in working_orders(opening, instrument.symbol))
    return contract.lots.value(lots)


def value_at_cost(opening: Opening) -> float:
    """Cash and positions at what they cost, the account's currency: the equity, as long as there are no prices."""
    return float(Fraction(opening.cash) + sum(Fraction(held.cost) for held in opening.positions))


@csp.node
def note_alerts(notes: tuple[Note, ...]) -> ts[list[Alert]]:
    """Say what was found, and done, before the run began.

    Ticks:
        At the start, with one alert a note, in their order; not at all where there are none.
    """
    with csp.alarms():
        a_start = csp.alarm(bool)
    with csp.start():
        if notes:
            csp.schedule_alarm(a_start, timedelta(), True)

    if csp.ticked(a_start):
        return [
            Alert(
                level=AlertLevel[note.level],
                source="opening",
                symbol=note.symbol,
                message=f"{note.code}: {note.message}",
                value=note.value,
            )
            for note in notes
        ]
