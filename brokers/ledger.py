"""Exact accounting: integer ticks, lots and money. Floats come in once, with a fill, and leave for display only.

The money of a currency is counted in *quanta*, the largest amount that divides both the value of one tick on the
smallest quantity of each of its instruments and the smallest unit of the currency. Every cash flow is a whole number of
them, and nothing is ever rounded but payments: fees, dividends, and what a split pays out. So for each currency

    cash + positions at market = start + realised + unrealised - fees + income        (always, exactly)

No currency is ever converted in here: what a conversion rate is worth is a matter of marks (`nodes.portfolio`).
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from brokers.opening import Opening
from brokers.units import Money, Steps, common_quantum, half_up
from feeds.instruments import Instrument

METHODS = ("average", "fifo")
_UNIT = "0.01"  # of an account currency in which nothing is traded


class Contract:
    """One instrument in integers. Orders are counted in lots, positions in units.

    Args:
        money: how its currency is counted; without one, in the largest quantum that fits this instrument alone.
    """

    __slots__ = (
        "currency",
        "denomination",
        "fee_unit",
        "instrument",
        "lots",
        "ticks",
        "units",
        "units_per_lot",
        "value_per_tick_lot",
        "value_per_tick_unit",
    )

    def __init__(self, instrument: Instrument, money: Money | None = None) -> None:
        if money is None:
            money = Money(instrument.currency, instrument.currency_unit, common_quantum(money_steps(instrument)))
        self.instrument = instrument
        self.currency = money.currency
        self.denomination = money
        self.ticks = Steps(instrument.tick, f"tick of {instrument.symbol}")
        self.lots = Steps(instrument.lot, f"lot of {instrument.symbol}")
        self.units = Steps(smallest_quantity(instrument), f"smallest quantity of {instrument.symbol}")
        self.units_per_lot = int(self.lots.step / self.units.step)
        tick_unit, _ = money_steps(instrument)
        self.value_per_tick_unit = int(tick_unit / money.quantum)  # quanta
        self.value_per_tick_lot = self.value_per_tick_unit * self.units_per_lot  # quanta
        self.fee_unit = money.unit  # quanta in the smallest unit of the currency

    @property
    def quantum(self) -> Fraction:
        """What money is counted in, quote currency."""
        return self.denomination.quantum

    def notional(self, lots: int, ticks: int) -> int:
        """Value of `lots` at `ticks`, quanta, signed like `lots`."""
        return lots * ticks * self.value_per_tick_lot

    def worth(self, units: int, ticks: int) -> int:
        """Value of `units` at `ticks`, quanta, signed like `units`."""
        return units * ticks * self.value_per_tick_unit

    def money(self, quanta: int) -> float:
        """Quanta as the nearest float in quote currency."""
        return self.denomination.amount(quanta)

    def held(self, quantity: str) -> int:
        """Signed units of a decimal quantity.

        Raises:
            ValueError: it is no multiple of the smallest quantity.
        """
        units = Fraction(quantity) / self.units.step
        if units.denominator > 1:
            raise ValueError(
                f"want a multiple of {self.units.step}, the smallest quantity of {self.instrument.symbol}, "
                f"was {quantity}"
            )
        return int(units)

    def whole_lots(self, units: int) -> int:
        """Signed units as lots, towards zero."""
        lots = abs(units) // self.units_per_lot
        return lots if units > 0 else -lots

    def average_price(self, position: "Position") -> float:
        """Average cost of the open units; 0.0 when flat. For display: the books keep the cost itself."""
        if position.units == 0:
            return 0.0
        return position.cost / (position.units * self.value_per_tick_unit) * self.ticks.value(1)


@dataclass(slots=True)
class Position:
    """One symbol. Money in quanta of its currency, `cost` signed like `units`."""

    contract: Contract
    parcels: deque[tuple[int, int]] | None  # of FIFO alone: (units, cost) of each purchase still open, oldest first
    units: int = 0
    cost: int = 0  # what the open units cost
    realised: int = 0  # before fees
    fees: int = 0
    income: int = 0  # dividends, funding, borrow, interest


def smallest_quantity(instrument: Instrument) -> Fraction:
    """The step of positions: the unit of the base currency where there is one, else the lot."""
    return Fraction(instrument.base_unit or instrument.lot)


def money_steps(instrument: Instrument) -> tuple[Fraction, Fraction]:
    """The value of one tick on the smallest quantity, and the smallest unit of the currency, in quote currency."""
    tick_unit = Fraction(instrument.tick) * smallest_quantity(instrument) * Fraction(instrument.multiplier)
    return tick_unit, Fraction(instrument.currency_unit)


class Ledger:
    """Cash by currency and positions of one account.

    Args:
        instruments: each symbol once; those of one currency agree on its unit.
        initial_cash: in the account's currency, a multiple of its unit. The other currencies start at nothing, and
            fall below it when something is bought in them.
        currency: of the account; "" where the instruments have but one.
        method: what the units that leave a position have cost: their share of it all ("average"), or what was paid for
            the oldest ("fifo"), for which each open purchase is kept.
        opening: what the account holds at the start, in place of `initial_cash` alone. Its cash and costs count to the
            nearest quantum; `start` is its cash and what its positions cost. An open position is one purchase.

    Raises:
        ValueError: no instrument, a symbol twice, two units of a currency, an account without a currency, an unknown
            method, or cash that is no multiple of the currency's unit; an opening in an account of several currencies,
            with a symbol that is not traded, or a quantity that is no multiple of the smallest one.
    """

    def __init__(
        self,
        instruments: Iterable[Instrument],
        initial_cash: float,
        *,
        currency: str = "",
        method: str = "average",
        opening: Opening | None = None,
    ) -> None:
        listed = tuple(instruments)
        if len({i.symbol for i in listed}) != len(listed):
            raise ValueError(f"want each symbol once, was {[i.symbol for i in listed]}")
        if method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, was {method!r}")
        self.currency = account_currency(listed, currency)
        self._money = _counted(listed, self.currency)
        self.contracts = {i.symbol: Contract(i, self._money[i.currency]) for i in listed}
        self.positions = {
            symbol: Position(contract, deque() if method == "fifo" else None)
            for symbol, contract in self.contracts.items()
        }
        self.start = dict.fromkeys(self._money, 0)  # quanta by currency
        if opening is None:
            self.start[self.currency] = self.quanta(initial_cash)
            self.cash = dict(self.start)
        else:
            self.cash = dict(self.start)
            self._open(opening)

    def book(self, symbol: str, lots: int, ticks: int, fee: int, base_fee: int = 0) -> Position:
        """Book one execution of signed `lots` at `ticks`; return the position after it.

        A fill that crosses zero closes the old position and opens the new one at the fill's price.

        Args:
            fee: quanta of the quote currency, negative when received.
            base_fee: units that a buyer pays out of what it bought: they never enter the position, and their price is
                a fee.

        Raises:
            ValueError: a base fee of a sale, or of more than was bought.
        """
        position = self.positions[symbol]
        contract = position.contract
        units = lots * contract.units_per_lot
        if base_fee:
            if lots <= 0 or base_fee > units:
                raise ValueError(f"{symbol}: a fee of {base_fee} units cannot be taken out of {units} bought")
            units -= base_fee
            fee += base_fee * ticks * contract.value_per_tick_unit
        value = units * ticks * contract.value_per_tick_unit
        self.cash[contract.currency] -= value + fee
        position.fees += fee
        held, parcels = position.units, position.parcels
        position.units = after = held + units
        if held * units >= 0:
            position.cost += value
            if parcels is not None and units:
                parcels.append((units, value))
        elif held * after >= 0:  # the rest is on the same side, or nothing
            # What leaves takes its share of the cost; the remainder of the division stays with what is left.
            share = position.cost * -units // held if parcels is None else _take_oldest(parcels, -units)
            position.cost -= share
            position.realised -= value + share
        else:
            closing = -held * ticks * contract.value_per_tick_unit
            position.realised -= closing + position.cost
            position.cost = value - closing
            if parcels is not None:
                parcels.clear()
                parcels.append((after, position.cost))
        return position

    def receive(self, symbol: str, amount: int) -> Position:
        """Book income of a position, quanta, negative when paid; return the position.

        Raises:
            ValueError: an amount that is no multiple of the currency's unit.
        """
        position = self.positions[symbol]
        if amount % position.contract.fee_unit:
            raise ValueError(f"{symbol}: want income in whole units of {position.contract.currency}, was {amount}")
        self.cash[position.contract.currency] += amount
        position.income += amount
        return position

    def dividend(self, symbol: str, per_unit: Fraction) -> int:
        """Book a cash dividend; a short position pays it.

        Args:
            per_unit: quote currency for each 1.0 of the quantity held.

        Returns:
            What was received, quanta: the quantity times `per_unit`, rounded half up to the currency's unit.
        """
        contract, units = self.contracts[symbol], self.positions[symbol].units
        amount = contract.denomination.rounded(units * contract.units.step * per_unit / contract.quantum)
        self.receive(symbol, amount)
        return amount

    def split(self, symbol: str, ratio: Fraction, ticks: int) -> int:
        """Turn each unit held into `ratio` units; what they cost stays the same.

        A part of a unit that is left over is sold at `ticks`, oldest cost first: its price, rounded half up to the
        currency's unit, is cash, and what it made is realised. A short position buys it back.

        Args:
            ratio: new units for one old, positive.
            ticks: price of a new unit.

        Returns:
            What was paid out, quanta.

        Source: IRS Publication 550, "Fractional shares": cash for them is an amount realised on their sale.
        """
        if ratio <= 0:
            raise ValueError(f"{symbol}: a split must be a positive ratio, was {ratio}")
        position = self.positions[symbol]
        held, contract = position.units, position.contract
        if not held:
            return 0
        position.units = int(held * ratio)  # towards zero
        left = held * ratio - position.units
        after, sold = _resized(position.parcels or [(held, position.cost)], ratio, abs(left))
        if position.parcels is not None:
            position.parcels = deque(after)
        paid = contract.denomination.rounded(left * ticks * contract.value_per_tick_unit)
        self.cash[contract.currency] += paid
        position.cost -= sold
        position.realised += paid - sold
        return paid

    def _open(self, opening: Opening) -> None:
        if len(self._money) > 1:
            raise ValueError(
                f"an opening tells the cash of one currency, the account has {', '.join(self._money)}: "
                "start it without one"
            )
        quantum = self._money[self.currency].quantum
        start = self.cash[self.currency] = half_up(Fraction(opening.cash) / quantum)
        for held in opening.positions:
            position = self.positions.get(held.symbol)
            if position is None:
                raise ValueError(f"{held.symbol} is held at the start and is none of {', '.join(self.positions)}")
            position.units = position.contract.held(held.quantity)
            position.cost = half_up(Fraction(held.cost) / quantum)
            if position.parcels is not None:
                position.parcels.append((position.units, position.cost))
            start += position.cost
        self.start[self.currency] = start

    def unrealised(self, symbol: str, ticks: int) -> int:
        """Open profit of one symbol at `ticks`, quanta."""
        position = self.positions[symbol]
        return position.units * ticks * position.contract.value_per_tick_unit - position.cost

    def equity(self, ticks: dict[str, int], currency: str = "") -> int:
        """Cash and positions in one currency, the account's unless named, at the prices `ticks`, quanta."""
        name = currency or self.currency
        return self.cash[name] + sum(
            position.contract.worth(position.units, ticks[symbol])
            for symbol, position in self.positions.items()
            if position.units and position.contract.currency == name
        )

    def money(self, quanta: int, currency: str = "") -> float:
        """Quanta as the nearest float in a currency, the account's unless named."""
        return self._money[currency or self.currency].amount(quanta)

    def quanta(self, amount: float, currency: str = "") -> int:
        """Money as quanta. Raises ValueError when it is no multiple of the currency's unit."""
        return self._money[currency or self.currency].quanta(amount)


def account_currency(instruments: tuple[Instrument, ...], currency: str) -> str:
    """The currency of an account that trades `instruments`: as named, or the only one that they have.

    Raises:
        ValueError: there is no instrument, or none was named and they have several.
    """
    if not instruments:
        raise ValueError("a ledger wants at least one instrument, was none")
    traded = {i.currency for i in instruments}
    if not currency and len(traded) > 1:
        raise ValueError(f"want the currency of the account, the instruments are in {', '.join(sorted(traded))}")
    return currency or instruments[0].currency


def _counted(instruments: tuple[Instrument, ...], account: str) -> dict[str, Money]:
    """How to count each currency, the account's first."""
    money = {}
    for currency in dict.fromkeys([account, *(i.currency for i in instruments)]):
        own = [i for i in instruments if i.currency == currency]
        units = sorted({i.currency_unit for i in own}) or [_UNIT]
        if len(units) > 1:
            raise ValueError(f"want one unit of {currency}, was {', '.join(units)}")
        steps = [Fraction(units[0]), *(step for i in own for step in money_steps(i))]
        money[currency] = Money(currency, units[0], common_quantum(steps))
    return money


def _take_oldest(parcels: deque[tuple[int, int]], count: int) -> int:
    """Take `count` units, signed like the position, off its oldest parcels; return what they cost."""
    taken = 0
    while count:
        units, cost = parcels[0]
        if abs(units) <= abs(count):
            parcels.popleft()
            count -= units
            taken += cost
        else:
            share = cost * count // units
            parcels[0] = (units - count, cost - share)
            return taken + share
    return taken


def _resized(parcels: Iterable[tuple[int, int]], ratio: Fraction, left: Fraction) -> tuple[list[tuple[int, int]], int]:
    """The parcels of a position after each unit became `ratio` units and the oldest `left` of the new ones were sold.

    A new unit that lies in two old parcels costs its part of each. Costs are rounded down where parcels meet, so they
    add up to what they were.

    Returns:
        the parcels, and the cost of what was sold.
    """
    after: list[tuple[int, int]] = []
    sold = booked = before = given = 0
    end = Fraction(0)  # of the parcel, in new units
    for units, cost in parcels:
        start, end = end, end + abs(units) * ratio
        whole = floor(end - left)
        if start <= left <= end:
            sold = booked = before + floor(cost * (left - start) / (end - start))
        if whole > given:
            up_to = before + floor(cost * (left + whole - start) / (end - start))
            after.append(((whole - given) * (1 if units > 0 else -1), up_to - booked))
            booked, given = up_to, whole
        before += cost
    return after, sold
