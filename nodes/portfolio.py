"""The account: exact books on fills, flows and corporate actions; float marks on prices."""

from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from operator import add

import csp
from csp import ts

from brokers.events import CashFlow, CorporateAction, Fill
from brokers.ledger import Contract, Ledger, Position, account_currency
from brokers.opening import Opening
from brokers.units import dividend_amount, split_ratio
from feeds.events import Side
from feeds.instruments import Instrument
from feeds.streams import SETTLE, by_symbol, together
from nodes.events import PositionUpdate

_SELL = Side.SELL  # bound once: looking a member up on its class costs more than comparing it


@dataclass(frozen=True, slots=True)
class Books:
    """What the books and the marks say. Edges; money in the currency of the account unless said otherwise."""

    position: ts[PositionUpdate]
    values: dict[str, ts[float]]  # signed, by symbol
    cash: ts[float]
    equity: ts[float]
    position_value: ts[float]
    gross_exposure: ts[float]
    dividend: ts[CashFlow]  # what corporate actions paid, quote currency of the symbol


def _told(contract: Contract, position: Position) -> PositionUpdate:
    return PositionUpdate(
        symbol=contract.instrument.symbol,
        quantity=contract.units.value(position.units),
        average_price=contract.average_price(position),
        realised=contract.money(position.realised),
        fees=contract.money(position.fees),
    )


def _book_fill(ledger: Ledger, fill: Fill) -> Contract:
    """Book a fill; return the contract it was of."""
    contract = ledger.contracts[fill.symbol]
    lots = contract.lots.exact(fill.quantity)
    if fill.side is _SELL:
        lots = -lots
    fee = contract.denomination.quanta(fill.fee)
    base_fee = contract.units.exact(fill.base_fee) if fill.base_fee else 0
    ledger.book(fill.symbol, lots, contract.ticks.exact(fill.price), fee, base_fee)
    return contract


def _book_flow(ledger: Ledger, flow: CashFlow) -> Contract:
    """Book a flow; return the contract it belongs to."""
    contract = ledger.contracts.get(flow.symbol)
    if contract is None:
        raise ValueError(f"want {flow.kind} of one of {', '.join(ledger.contracts)}, was of {flow.symbol!r}")
    ledger.receive(flow.symbol, contract.denomination.quanta(flow.amount))
    return contract


def _book_action(ledger: Ledger, action: CorporateAction, price: float | None) -> float:
    """Book a dividend, then a split; return the dividend, quote currency.

    Args:
        price: of a unit after both; None where it is not known.

    Raises:
        ValueError: the split leaves a part of a unit, and there is no price to sell it at.
    """
    symbol = action.symbol
    ratio = split_ratio(action.split)
    paid = ledger.dividend(symbol, dividend_amount(action.dividend))
    if price is None and (ledger.positions[symbol].units * ratio).denominator > 1:
        raise ValueError(f"a split of {symbol} by {ratio} leaves a part of a unit, and there is no price yet")
    contract = ledger.contracts[symbol]
    ledger.split(symbol, ratio, 0 if price is None else contract.ticks.nearest(price))
    return contract.money(paid)


@csp.node
def book(
    fill: ts[Fill],
    flow: ts[CashFlow],
    corporate: ts[CorporateAction],
    begin: ts[bool],
    marks: dict[str, ts[float]],
    instruments: tuple[Instrument, ...],
    initial_cash: float,
    currency: str,
    currencies: list[str],
    method: str,
    opening: Opening | None,
) -> csp.Outputs(
    position=csp.OutputBasket(dict[str, ts[PositionUpdate]], shape_of="marks"),
    cash=csp.OutputBasket(dict[str, ts[float]], shape="currencies"),
    dividend=ts[CashFlow],
):
    """Book every fill, flow and corporate action in the exact ledger; those of one cycle in this order.

    Args:
        fill: price and quantity exact multiples of tick and lot, a base fee of the smallest quantity.
        flow: amounts exact multiples of the currency's unit.
        corporate: splits and dividends; those of symbols that are not traded here are passed over.
        begin: asks for the positions of the opening.
        marks: prices after the corporate actions so far; passive, only a split looks at its own.
        initial_cash: in `currency`, that of the account.
        currencies: those of the ledger.
        opening: what is there at the start, in place of `initial_cash`.

    Ticks:
        `cash` of each currency at the start of the run and when it changes; `position` with `begin`, every one of the
        opening, with every fill, and with every split of what is held; `dividend` with every dividend on what is held.

    Raises:
        ValueError: a fill or flow off its steps, a flow of an unknown symbol, an impossible split or dividend: the
            books would no longer be exact; and what `Ledger` refuses.
    """
    with csp.alarms():
        a_start = csp.alarm(bool)
    with csp.state():
        s_ledger = Ledger(instruments, initial_cash, currency=currency, method=method, opening=opening)
    with csp.start():
        csp.make_passive(marks)
        csp.schedule_alarm(a_start, timedelta(), True)

    moved = currencies if csp.ticked(a_start) else []
    told = {}
    if csp.ticked(begin):
        told = {s: _told(position.contract, position) for s, position in s_ledger.positions.items() if position.units}
    if csp.ticked(fill):
        contract = _book_fill(s_ledger, fill)
        moved = [*moved, contract.currency]
        told[fill.symbol] = _told(contract, s_ledger.positions[fill.symbol])
    if csp.ticked(flow):
        moved = [*moved, _book_flow(s_ledger, flow).currency]
    if csp.ticked(corporate) and corporate.symbol in s_ledger.contracts:
        symbol = corporate.symbol
        contract, held = s_ledger.contracts[symbol], s_ledger.positions[symbol].units
        had = s_ledger.cash[contract.currency]
        paid = _book_action(s_ledger, corporate, marks[symbol] if csp.valid(marks[symbol]) else None)
        if paid:
            csp.output(dividend=CashFlow(symbol=symbol, amount=paid, kind="dividend"))
        if s_ledger.cash[contract.currency] != had:
            moved = [*moved, contract.currency]
        if held and corporate.split != "1":
            told[symbol] = _told(contract, s_ledger.positions[symbol])
    if moved:
        csp.output(cash={name: s_ledger.money(s_ledger.cash[name], name) for name in moved})
    if told:
        csp.output(position=told)


@csp.node
def settled_sums(cash: ts[float], values: dict[str, ts[float]]) -> csp.Outputs(
    equity=ts[float], position_value=ts[float], gross_exposure=ts[float]
):
    """Equity and exposure of an account of several symbols or currencies.

    Args:
        cash: of the account; it does not tick before each rate that it needs is known.
        values: signed value of each position, by symbol.

    Ticks:
        A microsecond after the first change of an instant: the marks of one instant come in separate cycles, and no sum
        may mix old and new prices. Not before `cash` and every value.
    """
    with csp.alarms():
        a_settled = csp.alarm(bool)
    with csp.state():
        s_armed = False
        s_known = False  # all of them have ticked
        s_symbols = list(values.keys())

    if csp.ticked(a_settled):
        s_armed = False
        s_known = s_known or csp.valid(cash, values)
        if s_known:
            held = [values[s] for s in s_symbols]
            net = sum(held)
            csp.output(equity=cash + net, position_value=net, gross_exposure=sum(map(abs, held)))
    elif not s_armed:
        s_armed = True
        csp.schedule_alarm(a_settled, SETTLE, True)


@csp.node
def _ex_price(corporate: ts[CorporateAction], close: ts[float], symbol: str, multiplier: float) -> ts[float]:
    """What the last close is worth after a corporate action: less the dividend, for a unit of the new kind."""
    with csp.state():
        s_price = 0.0
        s_closes = 0  # closes heard when `s_price` was made
    with csp.start():
        csp.make_passive(close)

    if csp.ticked(corporate) and corporate.symbol == symbol and csp.valid(close):
        before = s_price if csp.num_ticks(close) == s_closes else close
        s_closes = csp.num_ticks(close)
        ex_dividend = before - float(dividend_amount(corporate.dividend)) / multiplier
        s_price = ex_dividend / float(split_ratio(corporate.split))
        csp.output(s_price)


def _rates(
    instruments: tuple[Instrument, ...], currency: str, rates: dict[str, ts[float]] | None
) -> dict[str, ts[float]]:
    """The rate of each currency that is not the account's.

    Raises:
        ValueError: there is none.
    """
    foreign = dict.fromkeys(i.currency for i in instruments if i.currency != currency)
    for name in foreign:
        if name not in (rates or {}):
            symbols = ", ".join(i.symbol for i in instruments if i.currency == name)
            raise ValueError(f"an account in {currency} wants a rate of {name}, in which {symbols} is traded; was none")
    return {name: rates[name] for name in foreign} if rates else {}


def unit_values(
    closes: dict[str, ts[float]],
    instruments: tuple[Instrument, ...],
    currency: str = "",
    rates: dict[str, ts[float]] | None = None,
) -> dict[str, ts[float]]:
    """What one unit of each instrument is worth, in the currency of the account: close × multiplier × rate.

    Args:
        closes: last price by symbol, quote currency.
        currency: of the account; "" where the instruments have but one.
        rates: the account's currency for one of each foreign currency.

    Ticks:
        With the close and the rate, once both are known. Where there is nothing to multiply with it is the edge of
        the close itself.

    Raises:
        ValueError: a foreign currency without a rate.
    """
    home = account_currency(instruments, currency)
    known = _rates(instruments, home, rates)
    worth = {}
    for instrument in instruments:
        value = closes[instrument.symbol]
        if float(instrument.multiplier) != 1.0:
            value = value * float(instrument.multiplier)
        if instrument.currency != home:
            value = value * known[instrument.currency]
        worth[instrument.symbol] = value
    return worth


def ex_closes(
    closes: dict[str, ts[float]], corporate: ts[CorporateAction] | None, instruments: tuple[Instrument, ...]
) -> dict[str, ts[float]]:
    """The last price of each instrument, counted in what a unit is now.

    A dividend or split changes what a unit is before the market has given the new one a price. From the action to the
    next close the last price stands in, less the dividend and divided by the ratio: what is held loses nothing and
    gains nothing by it.

    Args:
        corporate: takes effect a microsecond after it ticks, as in `portfolio`: a close of the same instant is of the
            session before.

    Ticks:
        With every close, and with every action once there is one.
    """
    if corporate is None:
        return {i.symbol: closes[i.symbol] for i in instruments}
    actions = by_symbol(csp.delay(corporate, SETTLE), [i.symbol for i in instruments])
    marks = {}
    for instrument in instruments:
        symbol, close = instrument.symbol, closes[instrument.symbol]
        marks[symbol] = csp.merge(_ex_price(actions[symbol], close, symbol, float(instrument.multiplier)), close)
    return marks


def _values(
    positions: dict[str, ts[PositionUpdate]],
    marks: dict[str, ts[float]],
    instruments: tuple[Instrument, ...],
    currency: str,
    rates: dict[str, ts[float]],
    opening: Opening | None,
) -> dict[str, ts[float]]:
    """What each position is worth, in `currency`: edges of C++ arithmetic, for nothing ticks as often as a mark.

    Ticks:
        With 0.0 at the start, but for what is held from the start on: that has no value before it has a price.
    """
    held = () if opening is None else tuple(position.symbol for position in opening.positions)
    values = {}
    for instrument in instruments:
        symbol = instrument.symbol
        value = positions[symbol].quantity * float(instrument.multiplier) * marks[symbol]
        if instrument.currency != currency:
            value = value * rates[instrument.currency]
        values[symbol] = value if symbol in held else csp.default(value, 0.0)
    return values


def portfolio(
    fill: ts[Fill],
    closes: dict[str, ts[float]],
    instruments: tuple[Instrument, ...],
    initial_cash: float,
    *,
    currency: str = "",
    method: str = "average",
    rates: dict[str, ts[float]] | None = None,
    flow: ts[CashFlow] | None = None,
    corporate: ts[CorporateAction] | None = None,
    opening: Opening | None = None,
    live: ts[bool] | None = None,
) -> Books:
    """Positions, cash and marks of one account: the exact ledger behind, floats in front.

    Args:
        fill: every execution of the account.
        closes: last price of each symbol, quote currency.
        instruments: what is traded.
        initial_cash: in the currency of the account, a multiple of its unit.
        currency: of the account; "" where the instruments have but one.
        method: "average" or "fifo", see `Ledger`.
        rates: the account's currency for one of each foreign currency. For marks alone: the books convert nothing.
        flow: funding, borrow, interest.
        corporate: splits and dividends, known at the start of the ex-date; booked a microsecond later, when the last
            prices of the old kind are in.
        opening: what is there at the start, in place of `initial_cash`.
        live: ticks once, when the prices so far were history; what the opening holds is not marked before it.

    Ticks:
        `position` on fills and splits, and with `live`, or else at the start, what the opening holds; `cash` at the
        start, on fills, flows, corporate actions and rates; a value at the start, on fills and splits, and on every
        price and rate after the first fill of its symbol; the sums in the cycle of the change where there is one symbol
        in the account's currency, else as `settled_sums`. With foreign currencies neither `cash` nor a sum ticks before
        all their rates are known, nor a sum before what the opening holds has a price.

    Raises:
        ValueError: a foreign currency without a rate, and what `Ledger` and `book` refuse.
    """
    home = account_currency(instruments, currency)
    known = _rates(instruments, home, rates)
    marks = ex_closes(closes, corporate, instruments)
    begin = csp.null_ts(bool) if opening is None else csp.const(True) if live is None else live
    booked = book(
        fill,
        csp.null_ts(CashFlow) if flow is None else flow,
        csp.null_ts(CorporateAction) if corporate is None else csp.delay(corporate, SETTLE),
        begin,
        marks,
        instruments,
        initial_cash,
        home,
        [home, *known],
        method,
        opening,
    )
    values = _values(booked.position, marks, instruments, home, known, opening)
    cash = reduce(add, [booked.cash[home], *(booked.cash[name] * rate for name, rate in known.items())])
    if len(values) == 1 and not known:
        (value,) = values.values()
        equity, position_value, gross_exposure = cash + value, value, csp.abs(value)
    else:
        sums = settled_sums(cash, values)
        equity, position_value, gross_exposure = sums.equity, sums.position_value, sums.gross_exposure
    return Books(
        position=together(list(booked.position.values())),
        values=values,
        cash=cash,
        equity=equity,
        position_value=position_value,
        gross_exposure=gross_exposure,
        dividend=booked.dividend,
    )
