"""The books of an account, out of all that its journal has kept."""

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction
from math import floor

from brokers.journal import Journal, KeptFill, KeptFlow
from brokers.ledger import Contract, Ledger, Position, smallest_quantity
from brokers.opening import Note, Opening, OpeningPosition, plain
from brokers.units import common_quantum, exactly, half_up
from feeds.instruments import Instrument

_DIGITS = 120  # of a product of two amounts and a step: more than any has, so that nothing is rounded
START_CASH = "start_cash"  # fact in the journal: what the first run could trade with


class ReconcileError(Exception):
    """An account that cannot be gone on with; the message says why."""


def paper_opening(
    journal: Journal, instruments: tuple[Instrument, ...], initial_cash: float, method: str = "average"
) -> Opening:
    """What an account on paper goes on with: what its journaled fills and flows add up to. Its orders ended with the
    simulated venue. The first start fixes `initial_cash`.

    Raises:
        ReconcileError: the instruments have several currencies, or fills are of a symbol that is not among them.
    """
    currency = one_currency(instruments)
    start_cash, notes = began_with(journal.fact(START_CASH), initial_cash, currency)
    journal.keep_fact(START_CASH, plain(decimal(start_cash)))
    ledger = books(journal.fills(), journal.flows(), instruments, start_cash, method)
    contracts = Ledger(instruments, 0.0).contracts
    held = (opening_position(ledger.positions[symbol], contract) for symbol, contract in contracts.items())
    risk = journal.risk()
    return Opening(
        cash=plain(opening_cash(ledger, contracts[instruments[0].symbol])),
        positions=tuple(position for position in held if position is not None),
        equity_peak=risk.equity_peak,
        day=risk.day,
        day_start=risk.day_start,
        notes=notes,
    )


def books(
    fills: Iterable[KeptFill],
    flows: Iterable[KeptFlow],
    instruments: tuple[Instrument, ...],
    start_cash: Fraction,
    method: str = "average",
) -> Ledger:
    """The ledger of an account: the same integers that its runs have counted, all of one currency.

    Where a venue has changed a tick or a lot since, that symbol is counted in steps that fit the old fills too.

    Raises:
        ReconcileError: fills of a symbol that is not among the instruments.
    """
    own: dict[str, list[KeptFill]] = {i.symbol: [] for i in instruments}
    fills, flows = tuple(fills), tuple(flows)
    strange = sorted({*(fill.symbol for fill in fills), *(flow.symbol for flow in flows)} - set(own))
    if strange:
        raise ReconcileError(
            f"the journal holds trades of {', '.join(strange)}, which this run does not trade: want it among the"
            " symbols, or another account and journal"
        )
    for fill in fills:
        own[fill.symbol].append(fill)
    with localcontext() as context:
        context.prec = _DIGITS
        ledger = Ledger((_fitting(i, own[i.symbol]) for i in instruments), 0.0, method=method)
        ledger.cash[ledger.currency] = half_up(start_cash / ledger.contracts[instruments[0].symbol].quantum)
        for fill in fills:
            contract = ledger.contracts[fill.symbol]
            lots = _count(fill.quantity, contract.lots.step)
            ledger.book(
                fill.symbol,
                lots if fill.side == "BUY" else -lots,
                _count(fill.price, contract.ticks.step),
                _payment(contract, fill.fee),
                _count(fill.base_fee, contract.units.step),
            )
        for flow in flows:
            ledger.receive(flow.symbol, _payment(ledger.contracts[flow.symbol], flow.amount))
    return ledger


def opening_position(position: Position, contract: Contract, missing: Fraction = Fraction(0)) -> OpeningPosition | None:
    """A position of the books as a run starts with it; None when flat.

    Args:
        contract: how the run counts the symbol.
        missing: base units of it that are gone, not positive; what is left keeps its share of the cost.
    """
    held = position.units * position.contract.units.step
    count = int((held + missing) / contract.units.step)  # towards zero
    if not held or not count:
        return None
    quantity = count * contract.units.step
    cost = position.cost * position.contract.quantum * quantity / held
    return OpeningPosition(
        symbol=contract.instrument.symbol,
        quantity=plain(decimal(quantity)),
        cost=plain(_rounded(cost, contract.quantum)),
    )


def opening_cash(ledger: Ledger, contract: Contract, missing: Fraction = Fraction(0)) -> Decimal:
    """The cash of the books as a run starts with it.

    Args:
        contract: any that the run trades, for how it counts money.
        missing: cash that is gone, not positive.
    """
    return _rounded(ledger_cash(ledger) + missing, contract.quantum)


def ledger_cash(ledger: Ledger) -> Fraction:
    """What a ledger of one currency holds of it."""
    return ledger.cash[ledger.currency] * next(iter(ledger.contracts.values())).quantum


def began_with(kept: str, initial_cash: float, currency: str) -> tuple[Fraction, tuple[Note, ...]]:
    """What an account began with: what is kept of it, else `initial_cash`; and a note where the two differ."""
    if not kept or Fraction(kept) == exactly(initial_cash):
        return exactly(initial_cash), ()
    message = f"the account began with {kept} {currency}; initial_cash {initial_cash} is not used"
    return Fraction(kept), (Note(code="initial_cash_kept", symbol="", message=message, level="WARNING"),)


def one_currency(instruments: tuple[Instrument, ...]) -> str:
    """The currency of all of them. Raises ReconcileError when there is not just one."""
    currencies = sorted({i.currency for i in instruments})
    if len(currencies) != 1:
        raise ReconcileError(
            f"an account that goes on after a restart wants instruments of one currency, was {currencies}"
        )
    return currencies[0]


def decimal(value: Fraction) -> Decimal:
    """A fraction as a decimal, exactly. Raises ValueError when it has no end, as 1/3 has none."""
    places = 0
    while 10**places % value.denominator:
        places += 1
        if places > 80:
            raise ValueError(f"{value} has no exact decimal form")
    return Decimal(f"{value.numerator * 10**places // value.denominator}E-{places}")


def _rounded(value: Fraction, step: Fraction) -> Decimal:
    return decimal(half_up(value / step) * step)


def _count(text: str, step: Fraction) -> int:
    """How many steps a decimal is; it is a whole number of them."""
    return 0 if text == "0" else int(Decimal(text) * step.denominator) // step.numerator


def _payment(contract: Contract, text: str) -> int:
    """A payment in quanta, rounded half up to the unit of its currency."""
    if text == "0":
        return 0
    unit = contract.fee_unit * contract.quantum
    doubled = 2 * Decimal(text) * unit.denominator + unit.numerator
    return floor(doubled) // (2 * unit.numerator) * contract.fee_unit


def _fitting(instrument: Instrument, fills: list[KeptFill]) -> Instrument:
    """The instrument, with finer steps where `fills` are off its own."""
    tick, lot = Fraction(instrument.tick), Fraction(instrument.lot)
    unit = smallest_quantity(instrument)
    price = _finer(tick, {fill.price for fill in fills})
    quantity = _finer(lot, {fill.quantity for fill in fills})
    base = _finer(common_quantum([unit, quantity]), {fill.base_fee for fill in fills})
    if (price, quantity, base) == (tick, lot, unit):
        return instrument
    return replace(instrument, tick=plain(decimal(price)), lot=plain(decimal(quantity)), base_unit=plain(decimal(base)))


def _finer(step: Fraction, texts: set[str]) -> Fraction:
    """The largest step that divides `step` and each of `texts`."""
    whole = decimal(step)
    return common_quantum([step, *(Fraction(text) for text in texts if Decimal(text) % whole)])
