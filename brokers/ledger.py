"""Exact accounting: integer ticks, lots and money. Floats come in once, with a fill, and leave for display only.

Money is counted in *quanta*, the largest amount that divides both the value of one tick on one lot and the smallest
unit of the currency, so every cash flow is a whole number of them and nothing is ever rounded but the fee:

    cash + positions at market = initial cash + realised + unrealised - fees        (always, exactly)

Fees are rounded half up to the currency's unit, once per fill.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

from feeds.instruments import Instrument

_NEAR = 1e-6  # of a step


def _tolerance(scaled: float) -> float:
    """How far `scaled` may lie from a whole number and still be meant as it: a millionth of a step, and the rounding
    of a float of its size and of the multiplication that made it (2**-53 each, relative)."""
    return _NEAR + abs(scaled) * 2**-51


def _common_quantum(amounts: Iterable[Fraction]) -> Fraction:
    """The largest amount of which all of `amounts` are whole multiples."""
    result = Fraction(0)
    for amount in amounts:
        result = Fraction(
            gcd(result.numerator * amount.denominator, amount.numerator * result.denominator),
            result.denominator * amount.denominator,
        )
    return result


class Steps:
    """Whole multiples of a step (a tick or a lot) from floats and back, without drift."""

    __slots__ = ("_denominator", "_name", "_numerator", "_per_unit")

    def __init__(self, step: str, name: str) -> None:
        fraction = Fraction(step)
        self._numerator, self._denominator = fraction.numerator, fraction.denominator
        self._per_unit = self._denominator / self._numerator
        self._name = name

    def exact(self, value: float) -> int:
        """The count of steps in `value`. Raises ValueError when `value` is no multiple of the step."""
        scaled = value * self._per_unit
        count = round(scaled)
        error = scaled - count
        if not -_NEAR < error < _NEAR and abs(error) > _tolerance(scaled):
            raise ValueError(f"want a multiple of the {self._name} {self.step}, was {value!r}")
        return count

    def down(self, value: float) -> int:
        """The largest count whose value does not exceed `value` (a hair below a step counts as on it)."""
        scaled = value * self._per_unit
        nearest = round(scaled)
        error = scaled - nearest
        if -_NEAR < error < _NEAR or abs(error) <= _tolerance(scaled):
            return nearest
        return int(scaled // 1)

    def up(self, value: float) -> int:
        """The smallest count whose value is not below `value`."""
        return -self.down(-value)

    def value(self, count: int) -> float:
        """The float nearest to `count` steps."""
        return count * self._numerator / self._denominator

    @property
    def step(self) -> Fraction:
        return Fraction(self._numerator, self._denominator)


@dataclass(slots=True)
class Position:
    """One symbol. `cost` is what the open lots cost at average cost, in quanta, signed like `lots`."""

    lots: int = 0
    cost: int = 0
    realised: int = 0  # quanta, before fees
    fees: int = 0  # quanta


class Contract:
    """One instrument in integers.

    Args:
        quantum: the unit of money to count in; without one, the largest that fits this instrument alone.
    """

    __slots__ = ("_fee_rates", "_fee_unit", "_quantum", "instrument", "lots", "ticks", "value_per_tick_lot")

    def __init__(self, instrument: Instrument, quantum: Fraction | None = None) -> None:
        self.instrument = instrument
        self._quantum = quantum = quantum or _common_quantum(money_steps(instrument))
        self.ticks = Steps(instrument.tick, f"tick of {instrument.symbol}")
        self.lots = Steps(instrument.lot, f"lot of {instrument.symbol}")
        tick_lot, unit = money_steps(instrument)
        self.value_per_tick_lot = int(tick_lot / quantum)
        self._fee_unit = int(unit / quantum)
        self._fee_rates = {
            True: Fraction(repr(instrument.maker_bps)) / 10_000,
            False: Fraction(repr(instrument.taker_bps)) / 10_000,
        }

    def notional(self, lots: int, ticks: int) -> int:
        """Value of `lots` at `ticks`, quanta, signed like `lots`."""
        return lots * ticks * self.value_per_tick_lot

    def fee(self, lots: int, ticks: int, *, maker: bool) -> int:
        """The fee in quanta: notional times the rate, rounded half up to the currency's unit."""
        rate = self._fee_rates[maker]
        unit = self._fee_unit * rate.denominator
        return (2 * abs(self.notional(lots, ticks)) * rate.numerator + unit) // (2 * unit) * self._fee_unit

    def money(self, quanta: int) -> float:
        """Quanta as the nearest float in quote currency."""
        return quanta * self._quantum.numerator / self._quantum.denominator

    def average_price(self, position: Position) -> float:
        """Average cost of the open lots; 0.0 when flat. For display: the books keep the cost itself."""
        if position.lots == 0:
            return 0.0
        return position.cost / (position.lots * self.value_per_tick_lot) * self.ticks.value(1)


def money_steps(instrument: Instrument) -> tuple[Fraction, Fraction]:
    """The value of one tick on one lot, and the smallest unit of the currency, in quote currency."""
    tick_lot = Fraction(instrument.tick) * Fraction(instrument.lot) * Fraction(instrument.multiplier)
    return tick_lot, Fraction(instrument.currency_unit)


class Ledger:
    """Cash and positions of one account in one currency, at average cost.

    Raises:
        ValueError: no instrument, two currencies, a symbol twice, or cash that is no multiple of the currency's unit.
    """

    def __init__(self, instruments: Iterable[Instrument], initial_cash: float) -> None:
        listed = tuple(instruments)
        if not listed:
            raise ValueError("a ledger wants at least one instrument, was none")
        if len({i.symbol for i in listed}) != len(listed):
            raise ValueError(f"want each symbol once, was {[i.symbol for i in listed]}")
        if len({i.currency for i in listed}) != 1:
            raise ValueError(f"want one quote currency, was {sorted({i.currency for i in listed})}")
        if len({i.currency_unit for i in listed}) != 1:
            raise ValueError(f"want one unit of {listed[0].currency}, was {[i.currency_unit for i in listed]}")
        self._quantum = _common_quantum(step for i in listed for step in money_steps(i))
        self._unit = Steps(listed[0].currency_unit, f"unit of {listed[0].currency}")
        self._unit_quanta = int(self._unit.step / self._quantum)
        self.contracts = {i.symbol: Contract(i, self._quantum) for i in listed}
        self.positions = {i.symbol: Position() for i in listed}
        self.initial_cash = self.quanta(initial_cash)
        self.cash = self.initial_cash

    def book(self, symbol: str, lots: int, ticks: int, fee: int) -> Position:
        """Book one execution of signed `lots` at `ticks` with `fee` quanta; return the position after it.

        A fill that crosses zero closes the old position and opens the new one at the fill's price.
        """
        contract, position = self.contracts[symbol], self.positions[symbol]
        value = contract.notional(lots, ticks)
        self.cash -= value + fee
        position.fees += fee
        held = position.lots
        if held * lots >= 0:
            position.cost += value
        elif abs(lots) <= abs(held):
            # What leaves takes its share of the cost; the remainder of the division stays with what is left.
            share = position.cost * -lots // held
            position.cost -= share
            position.realised -= value + share
        else:
            closing = contract.notional(-held, ticks)
            position.realised -= closing + position.cost
            position.cost = value - closing
        position.lots = held + lots
        return position

    def unrealised(self, symbol: str, ticks: int) -> int:
        """Open profit of one symbol at `ticks`, quanta."""
        position = self.positions[symbol]
        return self.contracts[symbol].notional(position.lots, ticks) - position.cost

    def equity(self, ticks: dict[str, int]) -> int:
        """Cash and all positions at the prices `ticks`, quanta."""
        return self.cash + sum(
            self.contracts[symbol].notional(position.lots, ticks[symbol])
            for symbol, position in self.positions.items()
            if position.lots
        )

    def money(self, quanta: int) -> float:
        """Quanta as the nearest float in quote currency."""
        return quanta * self._quantum.numerator / self._quantum.denominator

    def quanta(self, amount: float) -> int:
        """Quote currency as quanta. Raises ValueError when it is no multiple of the currency's unit."""
        return self._unit.exact(amount) * self._unit_quanta
