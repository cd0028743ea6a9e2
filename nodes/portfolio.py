"""The account: exact books on fills, float marks on prices."""

from datetime import timedelta

import csp
from csp import ts

from brokers.events import Fill
from brokers.ledger import Ledger
from feeds.events import Side
from feeds.instruments import Instrument
from feeds.streams import by_symbol
from nodes.events import PositionUpdate

# Prices of one instant come in separate engine cycles; all are in one microsecond later, csp's finest Python alarm.
_SETTLE = timedelta(microseconds=1)


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
        if fill.side is Side.SELL:
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
def position_value(position: ts[PositionUpdate], close: ts[float], multiplier: float) -> ts[float]:
    """Value of one position at the last price, quote currency, signed. The price is passive while the position is flat.

    Args:
        position: updates of one symbol.
        close: its last price, quote currency.
        multiplier: quote currency per point and unit.

    Ticks:
        On every update of the position, and on every price while it is open.

    Raises:
        ValueError: an open position and a price that is not positive and finite.
    """
    with csp.state():
        s_units = 0.0
    with csp.start():
        csp.make_passive(close)

    if csp.ticked(position):
        was_open = s_units != 0.0
        s_units = position.quantity * multiplier
        if s_units and not was_open:
            csp.make_active(close)
        elif was_open and not s_units:
            csp.make_passive(close)
    if csp.valid(close):
        value = s_units * close
        if s_units and not -1e300 < value < 1e300:
            raise ValueError(f"want a finite price to mark a position, was {close} at {csp.now()}")
        return value


@csp.node
def account(cash: ts[float], values: dict[str, ts[float]]) -> csp.Outputs(
    equity=ts[float], position_value=ts[float], gross_exposure=ts[float]
):
    """Equity and exposure of an account.

    Args:
        cash: quote currency.
        values: signed value of each position, by symbol.

    Ticks:
        In the cycle of the change where there is one symbol. Where there are several, marks of one instant come in
        separate cycles: they settle by an alarm one microsecond later, so that no sum mixes old and new prices.
    """
    with csp.alarms():
        a_settled = csp.alarm(bool)
    with csp.state():
        s_many = len(values) > 1
        s_armed = False
        s_symbols = list(values.keys())
        s_symbol = s_symbols[0]

    if not s_many:
        value = values[s_symbol] if csp.valid(values[s_symbol]) else 0.0
        csp.output(equity=cash + value, position_value=value, gross_exposure=abs(value))
    elif csp.ticked(a_settled):
        s_armed = False
        held = [values[s] for s in s_symbols if csp.valid(values[s])]
        net = sum(held)
        csp.output(equity=cash + net, position_value=net, gross_exposure=sum(map(abs, held)))
    elif not s_armed:
        s_armed = True
        csp.schedule_alarm(a_settled, _SETTLE, True)


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
        `position` and `cash` on fills, `values` by symbol on marks, the sums as `account` says.
    """
    booked = book(fill, instruments, initial_cash)
    symbols = [instrument.symbol for instrument in instruments]
    positions = by_symbol(booked.position, symbols)
    values = {i.symbol: position_value(positions[i.symbol], closes[i.symbol], float(i.multiplier)) for i in instruments}
    sums = account(booked.cash, values)
    return csp.output(
        position=booked.position,
        values=values,
        cash=booked.cash,
        equity=sums.equity,
        position_value=sums.position_value,
        gross_exposure=sums.gross_exposure,
    )
