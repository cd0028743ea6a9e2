"""The account: exact books on fills, float marks on prices."""

from datetime import timedelta

import csp
from csp import ts

from brokers.events import Fill
from brokers.ledger import Ledger
from feeds.events import Side
from feeds.instruments import Instrument
from feeds.streams import SETTLE, by_symbol
from nodes.events import PositionUpdate

_SELL = Side.SELL  # bound once: looking a member up on its class costs more than comparing it


@csp.node
def book(fill: ts[Fill], instruments: tuple[Instrument, ...], initial_cash: float) -> csp.Outputs(
    position=ts[PositionUpdate], cash=ts[float]
):
    """Book every fill in the exact ledger.

    Args:
        fill: price and quantity exact multiples of tick and lot.
        initial_cash: quote currency, a multiple of its unit.

    Ticks:
        `cash` at the start of the run and with every fill; `position` with every fill.

    Raises:
        ValueError: a fill off the tick, the lot or the currency's unit: the books would no longer be exact.
    """
    with csp.alarms():
        a_start = csp.alarm(float)
    with csp.state():
        s_ledger = Ledger(instruments, initial_cash)
    with csp.start():
        csp.schedule_alarm(a_start, timedelta(), initial_cash)

    if csp.ticked(a_start) and not csp.ticked(fill):
        csp.output(cash=a_start)
    if csp.ticked(fill):
        symbol = fill.symbol
        contract = s_ledger.contracts[symbol]
        lots = contract.lots.exact(fill.quantity)
        if fill.side is _SELL:
            lots = -lots
        held = s_ledger.book(symbol, lots, contract.ticks.exact(fill.price), s_ledger.quanta(fill.fee))
        csp.output(cash=contract.money(s_ledger.cash))
        csp.output(
            position=PositionUpdate(
                symbol=symbol,
                quantity=contract.lots.value(held.lots),
                average_price=contract.average_price(held),
                realised=contract.money(held.realised),
                fees=contract.money(held.fees),
            )
        )


@csp.node
def settled_sums(cash: ts[float], values: dict[str, ts[float]]) -> csp.Outputs(
    equity=ts[float], position_value=ts[float], gross_exposure=ts[float]
):
    """Equity and exposure of an account of several symbols.

    Args:
        cash: quote currency.
        values: signed value of each position, by symbol.

    Ticks:
        A microsecond after the first change of an instant: the marks of one instant come in separate cycles, and no sum
        may mix old and new prices.
    """
    with csp.alarms():
        a_settled = csp.alarm(bool)
    with csp.state():
        s_armed = False
        s_symbols = list(values.keys())

    if csp.ticked(a_settled):
        s_armed = False
        held = [values[s] for s in s_symbols]
        net = sum(held)
        csp.output(equity=cash + net, position_value=net, gross_exposure=sum(map(abs, held)))
    elif not s_armed:
        s_armed = True
        csp.schedule_alarm(a_settled, SETTLE, True)


@csp.graph
def portfolio(
    fill: ts[Fill], closes: dict[str, ts[float]], instruments: tuple[Instrument, ...], initial_cash: float
) -> csp.Outputs(
    position=ts[PositionUpdate],
    values=csp.OutputBasket(dict[str, ts[float]], shape_of="closes"),
    cash=ts[float],
    equity=ts[float],
    position_value=ts[float],
    gross_exposure=ts[float],
):
    """Positions, cash and marks of one account: the exact ledger behind, floats in front.

    Args:
        fill: every execution of the account.
        closes: last price of each symbol.
        instruments: what is traded, in one quote currency.
        initial_cash: quote currency.

    Ticks:
        `position` and `cash` on fills; a value at the start, on fills, and on every price after the first fill of its
        symbol; the sums in the cycle of the change where there is one symbol, else as `settled_sums`.
    """
    booked = book(fill, instruments, initial_cash)
    symbols = [instrument.symbol for instrument in instruments]
    positions = by_symbol(booked.position, symbols)
    values = {}
    for instrument in instruments:  # edges of C++ arithmetic: a mark is the most frequent thing an open position does
        units = positions[instrument.symbol].quantity * float(instrument.multiplier)
        values[instrument.symbol] = csp.default(units * closes[instrument.symbol], 0.0)
    if len(symbols) == 1:
        value = values[symbols[0]]
        equity, position_value, gross_exposure = booked.cash + value, value, csp.abs(value)
    else:
        sums = settled_sums(booked.cash, values)
        equity, position_value, gross_exposure = sums.equity, sums.position_value, sums.gross_exposure
    return csp.output(
        position=booked.position,
        values=values,
        cash=booked.cash,
        equity=equity,
        position_value=position_value,
        gross_exposure=gross_exposure,
    )
