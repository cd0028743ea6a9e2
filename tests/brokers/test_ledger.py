"""The books, checked by hand, by property, and against a list of single units."""

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.ledger import Contract, Ledger, Position
from brokers.units import half_up
from feeds.instruments import Instrument

BTC = Instrument(symbol="BTC-USD", tick="0.01", lot="0.00000001")
ES = Instrument(symbol="ES", tick="0.25", lot="1", multiplier="50")
SHARE = Instrument(symbol="SHARE", tick="0.01", lot="1")
COIN = Instrument(symbol="COIN", tick="0.01", lot="0.001", base_unit="0.00000001", fees_in="received")
DAX = Instrument(symbol="DAX", tick="0.5", lot="1", multiplier="25", currency="EUR")


def spent(ledger: Ledger, *fills: tuple[str, int, int]) -> None:
    """Book fills of (symbol, lots, ticks) without fees."""
    for symbol, lots, ticks in fills:
        ledger.book(symbol, lots, ticks, 0)


def add_up(ledger: Ledger, marks: dict[str, int]) -> None:
    """Assert the identity of the ledger in every currency, and that parcels are what the position is made of."""
    for currency in ledger.cash:
        own = {s: p for s, p in ledger.positions.items() if p.contract.currency == currency}
        total = ledger.start[currency]
        for symbol, p in own.items():
            total += p.realised + ledger.unrealised(symbol, marks[symbol]) - p.fees + p.income
        assert ledger.equity(marks, currency) == total
        for p in own.values():
            assert p.units or p.cost == 0
            if p.parcels is not None:
                assert sum(units for units, _ in p.parcels) == p.units
                assert sum(cost for _, cost in p.parcels) == p.cost
                assert all(units * p.units > 0 for units, _ in p.parcels)


# By hand: the examples of docs/concepts/ledger.md.


def test_long_round_trip_by_hand() -> None:
    # Buy 2 at 100, sell 1 at 110, sell 1 at 90; fees 0.12, 0.07, 0.05.
    ledger = Ledger([BTC], 1_000.0)
    for lots, ticks, fee in ((2, 10_000, 0.12), (-1, 11_000, 0.07), (-1, 9_000, 0.05)):
        position = ledger.book("BTC-USD", lots * 10**8, ticks, ledger.quanta(fee))

    assert ledger.money(ledger.cash["USD"]) == 1_000.0 - 200.0 + 110.0 + 90.0 - 0.24
    assert ledger.money(position.realised) == 0.0  # +10 and -10 against the average of 100
    assert ledger.money(position.fees) == 0.24
    assert (position.units, position.cost) == (0, 0)


def test_flip_through_zero_opens_at_the_fill_price() -> None:
    ledger = Ledger([ES], 100_000.0)
    spent(ledger, ("ES", 2, 4 * 1600), ("ES", -5, 4 * 1610))
    contract, position = ledger.contracts["ES"], ledger.positions["ES"]

    assert ledger.money(position.realised) == 2 * 10 * 50.0
    assert position.units == -3
    assert contract.average_price(position) == 1610.0
    assert ledger.money(ledger.unrealised("ES", 4 * 1600)) == 3 * 10 * 50.0


@pytest.mark.parametrize(("method", "realised", "average"), [("average", 15.0, 105.0), ("fifo", 20.0, 110.0)])
def test_first_in_first_out_realises_against_the_oldest_price(method: str, realised: float, average: float) -> None:
    # Buy 1 at 100, 1 at 110, sell 1 at 120: against the average of 105, or against the 100.
    ledger = Ledger([SHARE], 1_000.0, method=method)
    spent(ledger, ("SHARE", 1, 10_000), ("SHARE", 1, 11_000), ("SHARE", -1, 12_000))
    position = ledger.positions["SHARE"]

    assert ledger.money(position.realised) == realised
    assert ledger.contracts["SHARE"].average_price(position) == average
    assert ledger.money(ledger.cash["USD"]) == 910.0  # money does not depend on the method


def test_first_in_first_out_of_a_short_position_that_flips() -> None:
    # Sell 2 at 100 and 1 at 90, buy 4 at 80: 2 × 20 + 10 is made, and 1 is held at 80.
    ledger = Ledger([SHARE], 1_000.0, method="fifo")
    spent(ledger, ("SHARE", -2, 10_000), ("SHARE", -1, 9_000), ("SHARE", 4, 8_000))
    position = ledger.positions["SHARE"]

    assert ledger.money(position.realised) == 50.0
    assert list(position.parcels or []) == [(1, 8_000)]


def test_each_currency_has_its_own_cash() -> None:
    # An account in dollars buys 1 DAX at 15,000.0 (25 euros a point) with a fee of 2.50: the euros are owed.
    ledger = Ledger([SHARE, DAX], 1_000.0, currency="USD")
    ledger.book("SHARE", 2, 10_000, ledger.quanta(0.01))
    ledger.book("DAX", 1, 30_000, ledger.quanta(2.5, "EUR"))

    assert ledger.money(ledger.cash["USD"]) == 799.99
    assert ledger.money(ledger.cash["EUR"], "EUR") == -375_002.5
    assert ledger.money(ledger.equity({"DAX": 30_002}, "EUR"), "EUR") == 25.0 - 2.5
    assert ledger.money(ledger.equity({"SHARE": 10_100})) == 1_001.99


def test_a_fee_in_the_base_currency_is_taken_out_of_what_was_bought() -> None:
    # Buy 1 at 50.00 with a fee of 0.001: 0.999 is held and cost 49.95, the fee is worth 0.05.
    ledger = Ledger([COIN], 100.0)
    position = ledger.book("COIN", 1_000, 5_000, 0, base_fee=100_000)
    contract = ledger.contracts["COIN"]

    assert ledger.money(ledger.cash["USD"]) == 50.0
    assert contract.units.value(position.units) == 0.999
    assert (ledger.money(position.cost), ledger.money(position.fees)) == (49.95, 0.05)
    assert contract.average_price(position) == 50.0


def test_dust_is_carried_and_marked() -> None:
    # Of 0.9995 held 0.999 can be sold; 0.0005, half a lot, stays and is worth 0.03 at 60.00.
    ledger = Ledger([COIN], 100.0)
    ledger.book("COIN", 1_000, 5_000, 0, base_fee=50_000)
    position = ledger.book("COIN", -999, 6_000, 0)
    contract = ledger.contracts["COIN"]

    assert contract.units.value(position.units) == 0.0005
    assert contract.average_price(position) == 50.0
    assert ledger.money(contract.worth(position.units, 6_000)) == 0.03
    assert ledger.money(ledger.unrealised("COIN", 6_000)) == 0.005
    add_up(ledger, {"COIN": 6_000})


def test_a_base_fee_on_a_buy_that_closes_a_short_leaves_the_fee_short() -> None:
    # Short 1 at 50, bought back at 40 with a fee of 0.001: 0.999 is closed, 0.001 stays short at 50.
    ledger = Ledger([COIN], 100.0)
    ledger.book("COIN", -1_000, 5_000, 0)
    position = ledger.book("COIN", 1_000, 4_000, 0, base_fee=100_000)
    contract = ledger.contracts["COIN"]

    assert contract.units.value(position.units) == -0.001
    assert (ledger.money(position.realised), ledger.money(position.fees)) == (9.99, 0.04)
    assert ledger.money(ledger.cash["USD"]) == 110.0
    assert contract.average_price(position) == 50.0


def test_a_rebate_in_the_base_currency_is_more_than_was_bought() -> None:
    ledger = Ledger([COIN], 100.0)
    position = ledger.book("COIN", 1_000, 5_000, 0, base_fee=-100_000)

    assert ledger.contracts["COIN"].units.value(position.units) == 1.001
    assert (ledger.money(position.cost), ledger.money(position.fees)) == (50.05, -0.05)
    assert ledger.money(ledger.cash["USD"]) == 50.0


@pytest.mark.parametrize("method", ["average", "fifo"])
def test_a_split_pays_out_the_part_of_a_unit(method: str) -> None:
    # 5 shares at 30.00, three for two: 7.5 shares that cost 150.00. Half a share, cost 10.00, is sold at 24.01.
    ledger = Ledger([SHARE], 1_000.0, method=method)
    spent(ledger, ("SHARE", 5, 3_000))
    paid = ledger.split("SHARE", Fraction(3, 2), 2_401)
    position = ledger.positions["SHARE"]

    assert ledger.money(paid) == 12.01  # 12.005, half up
    assert position.units == 7
    assert (ledger.money(position.cost), ledger.money(position.realised)) == (140.0, 2.01)
    assert ledger.money(ledger.cash["USD"]) == 850.0 + 12.01
    assert position.income == 0


def test_a_reverse_split_of_a_short_position_buys_the_part_back() -> None:
    # Short 13 at 1.00, one for ten: short 1.3. The 0.3, sold for 3.00, is bought back at 9.05 for 2.715.
    ledger = Ledger([SHARE], 100.0)
    spent(ledger, ("SHARE", -13, 100))
    paid = ledger.split("SHARE", Fraction(1, 10), 905)
    position = ledger.positions["SHARE"]

    assert ledger.money(paid) == -2.71  # -2.715, half up
    assert position.units == -1
    assert (ledger.money(position.cost), ledger.money(position.realised)) == (-10.0, 0.29)


def test_a_split_into_less_than_a_unit_ends_the_position() -> None:
    ledger = Ledger([SHARE], 100.0)
    spent(ledger, ("SHARE", 3, 200))
    ledger.split("SHARE", Fraction(1, 10), 1_900)
    position = ledger.positions["SHARE"]

    assert (position.units, position.cost) == (0, 0)
    assert ledger.money(position.realised) == -0.30  # 5.70 for what cost 6.00
    assert ledger.money(ledger.cash["USD"]) == 94.0 + 5.70


def test_first_in_first_out_sells_the_oldest_part_of_a_split() -> None:
    # 1 at 10, 1 at 20, 1 at 40, three for two: 1.5 each at 6.67, 13.33 and 26.67. The oldest half is sold.
    ledger = Ledger([SHARE], 100.0, method="fifo")
    spent(ledger, ("SHARE", 1, 1_000), ("SHARE", 1, 2_000), ("SHARE", 1, 4_000))
    ledger.split("SHARE", Fraction(3, 2), 1_500)
    position = ledger.positions["SHARE"]

    # The last parcel holds the unit that lies half in the second purchase: 6.67 + 13.33 + 26.67.
    assert list(position.parcels or []) == [(1, 667), (1, 1_333), (2, 4_667)]
    assert ledger.money(position.realised) == 7.50 - 3.33


@pytest.mark.parametrize(
    ("lots", "per_unit", "received"),
    [(100, "0.24", 24.0), (-100, "0.24", -24.0), (3, "0.005", 0.02), (-3, "0.005", -0.01), (0, "9", 0.0)],
)
def test_a_dividend_is_rounded_half_up_and_paid_by_shorts(lots: int, per_unit: str, received: float) -> None:
    ledger = Ledger([SHARE], 1_000.0)
    spent(ledger, ("SHARE", lots, 1_000))
    amount = ledger.dividend("SHARE", Fraction(per_unit))

    assert ledger.money(amount) == ledger.money(ledger.positions["SHARE"].income) == received
    assert ledger.money(ledger.cash["USD"]) == 1_000.0 - lots * 10.0 + received


def test_a_dividend_counts_units_of_quantity_not_base_units() -> None:
    ledger = Ledger([COIN], 100.0)
    ledger.book("COIN", 1_000, 5_000, 0, base_fee=100_000)
    assert ledger.money(ledger.dividend("COIN", Fraction(2))) == 2.0  # 0.999 × 2 = 1.998


def test_the_quantum_divides_tick_values_and_the_unit() -> None:
    # The table of docs/concepts/ledger.md.
    quanta = {s: Contract(i).quantum for s, i in (("BTC", BTC), ("ES", ES), ("COIN", COIN))}
    assert quanta == {"BTC": Fraction(1, 10**10), "ES": Fraction(1, 100), "COIN": Fraction(1, 10**10)}
    assert Contract(ES).value_per_tick_lot == 1_250
    both = Ledger([BTC, ES], 0.0).contracts
    assert both["BTC-USD"].quantum == both["ES"].quantum == Fraction(1, 10**10)
    assert both["ES"].fee_unit == 10**8
    assert both["ES"].notional(-2, 6_400) == both["ES"].worth(-2, 6_400) == -160_000 * 10**10
    assert (Contract(COIN).units_per_lot, Contract(COIN).value_per_tick_lot) == (100_000, 100_000)


# Properties.

ACCOUNT = (BTC, COIN, DAX)
Step = Callable[[Ledger], object]


def fill_step(symbol: str, lots: int, ticks: int, fee: int, base: int) -> Step:
    """A fill; the base fee is a share of it in thousandths, and of buys of COIN alone."""

    def step(ledger: Ledger) -> None:
        contract = ledger.contracts[symbol]
        base_fee = lots * contract.units_per_lot * base // 1_000 if symbol == "COIN" and lots > 0 else 0
        ledger.book(symbol, lots, ticks, 0 if base_fee else fee * contract.fee_unit, base_fee)

    return step


symbols = st.sampled_from([i.symbol for i in ACCOUNT])
prices = st.integers(1, 10**6)
ratios = st.fractions(min_value=Fraction(1, 50), max_value=50, max_denominator=50)
fills = st.builds(
    fill_step, symbols, st.integers(-(10**6), 10**6).filter(bool), prices, st.integers(-5, 500), st.integers(0, 100)
)
closings = st.builds(
    lambda symbol, ticks: (
        lambda ledger: ledger.book(
            symbol,
            -(ledger.positions[symbol].units // ledger.contracts[symbol].units_per_lot),
            ticks,
            0,
        )
    ),
    symbols,
    prices,
)
splits = st.builds(lambda s, ratio, ticks: lambda ledger: ledger.split(s, ratio, ticks), symbols, ratios, prices)
dividends = st.builds(
    lambda s, per_unit: lambda ledger: ledger.dividend(s, per_unit),
    symbols,
    st.decimals(0, 100, places=6).map(Fraction),
)
flows = st.builds(
    lambda s, units: lambda ledger: ledger.receive(s, units * ledger.contracts[s].fee_unit),
    symbols,
    st.integers(-(10**6), 10**6),
)
life = st.lists(st.one_of(fills, fills, closings, splits, dividends, flows), max_size=40)
marks = st.fixed_dictionaries({i.symbol: prices for i in ACCOUNT})


@pytest.mark.parametrize("method", ["average", "fifo"])
@settings(max_examples=200, deadline=None)
@given(life=life, marks=marks)
def test_the_books_add_up_exactly_whatever_happens(method: str, life: list[Step], marks: dict[str, int]) -> None:
    ledger = Ledger(ACCOUNT, 5_000_000.0, currency="USD", method=method)
    for step in life:
        step(ledger)
        add_up(ledger, marks)


@settings(max_examples=100, deadline=None)
@given(life=life, marks=marks)
def test_cash_and_equity_do_not_depend_on_the_method(life: list[Step], marks: dict[str, int]) -> None:
    ledgers = [Ledger(ACCOUNT, 5_000_000.0, currency="USD", method=method) for method in ("average", "fifo")]
    for ledger in ledgers:
        for step in life:
            step(ledger)
    average, fifo = ledgers
    assert average.cash == fifo.cash
    assert [p.units for p in average.positions.values()] == [p.units for p in fifo.positions.values()]
    for currency in average.cash:
        assert average.equity(marks, currency) == fifo.equity(marks, currency)


trades = st.lists(
    st.tuples(symbols, st.integers(-(10**6), 10**6).filter(bool), prices, st.integers(0, 500), st.integers(0, 500)),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(trades, st.sampled_from(["average", "fifo"]))
def test_cash_is_never_created(done: list[tuple[str, int, int, int, int]], method: str) -> None:
    # Two accounts trade with each other: what one pays the other receives, and the venue has the fees.
    ours, theirs = (Ledger(ACCOUNT, 1_000.0, currency="USD", method=method) for _ in range(2))
    for symbol, lots, ticks, fee, their_fee in done:
        unit = ours.contracts[symbol].fee_unit
        ours.book(symbol, lots, ticks, fee * unit)
        theirs.book(symbol, -lots, ticks, their_fee * unit)
    for currency in ours.cash:
        fees = sum(
            p.fees for ledger in (ours, theirs) for p in ledger.positions.values() if p.contract.currency == currency
        )
        assert ours.cash[currency] + theirs.cash[currency] + fees == ours.start[currency] + theirs.start[currency]
    assert all(p.units == -theirs.positions[s].units for s, p in ours.positions.items())


class SingleUnits:
    """The judge of FIFO: a list with the price of every unit that is open, oldest first. No parcels, no shares."""

    def __init__(self) -> None:
        self.prices: list[int] = []
        self.sign = 0
        self.realised = 0

    def book(self, lots: int, ticks: int) -> None:
        side = 1 if lots > 0 else -1
        for _ in range(abs(lots)):
            if self.prices and self.sign != side:
                self.realised += (ticks - self.prices.pop(0)) * self.sign
            else:
                self.sign = side
                self.prices.append(ticks)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-20, 20).filter(bool), st.integers(1, 1_000)), max_size=60))
def test_first_in_first_out_agrees_with_a_list_of_single_units(done: list[tuple[int, int]]) -> None:
    ledger, judge = Ledger([SHARE], 1_000.0, method="fifo"), SingleUnits()
    for lots, ticks in done:
        position = ledger.book("SHARE", lots, ticks, 0)
        judge.book(lots, ticks)
        assert position.realised == judge.realised
        assert position.units == len(judge.prices) * judge.sign
        assert position.cost == sum(judge.prices) * judge.sign
        each = [cost // units for units, cost in position.parcels or () for _ in range(abs(units))]
        assert each == judge.prices


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 1_000)), min_size=1, max_size=8),
    ratios,
    st.sampled_from([1, -1]),
    prices,
)
def test_a_split_keeps_the_cost_of_every_piece(
    bought: list[tuple[int, int]], ratio: Fraction, sign: int, ticks: int
) -> None:
    ledger = Ledger([SHARE], 1_000.0, method="fifo")
    spent(ledger, *(("SHARE", sign * lots, price) for lots, price in bought))
    position = ledger.positions["SHARE"]
    held, cost = position.units, position.cost
    paid = ledger.split("SHARE", ratio, ticks)

    # The judge lays the old units end to end, each `ratio` new units long, and cuts whole ones off the young end.
    left = abs(held) * ratio - abs(position.units)
    assert 0 <= left < 1
    assert paid == half_up(sign * left * ticks)

    def cost_of_oldest(length: Fraction) -> Fraction:
        total = Fraction(0)
        for lots, price in bought:
            part = min(length, lots * ratio)
            total += part * price / ratio
            length -= part
        return sign * total

    sold = cost - position.cost
    assert 0 <= cost_of_oldest(left) - sold < 1
    assert position.realised == paid - sold
    reached, booked = left, sold
    for units, parcel_cost in position.parcels or ():
        reached += abs(units)
        booked += parcel_cost
        assert 0 <= cost_of_oldest(reached) - booked < 1
    add_up(ledger, {"SHARE": ticks})


# Hostile input.


@pytest.mark.parametrize(
    ("instruments", "cash", "options", "message"),
    [
        ([], 1.0, {}, "at least one instrument"),
        ([BTC, BTC], 1.0, {}, "each symbol once"),
        ([BTC, DAX], 1.0, {}, "want the currency of the account, the instruments are in EUR, USD"),
        ([BTC, Instrument(symbol="X", currency_unit="1")], 1.0, {}, "want one unit of USD, was 0.01, 1"),
        ([BTC], 0.001, {}, "multiple of the unit of USD"),
        ([BTC], float("nan"), {}, "want a finite multiple of the unit of USD 1/100, was nan"),
        ([BTC], float("inf"), {}, "want a finite multiple"),
        ([DAX], 0.001, {"currency": "USD"}, "multiple of the unit of USD"),
        ([BTC], 1.0, {"method": "lifo"}, "method must be one of average, fifo, was 'lifo'"),
    ],
)
def test_impossible_books_are_refused(
    instruments: list[Instrument], cash: float, options: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Ledger(instruments, cash, **options)


def test_an_account_may_be_in_a_currency_in_which_nothing_is_traded() -> None:
    ledger = Ledger([DAX], 1_000.01, currency="USD")
    spent(ledger, ("DAX", 1, 30_000))
    assert {name: ledger.money(cash, name) for name, cash in ledger.cash.items()} == {"USD": 1_000.01, "EUR": -375_000}


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda b: b.book("COIN", -1, 5_000, 0, base_fee=1), "COIN: a fee of 1 units cannot be taken out of -100000"),
        (
            lambda b: b.book("COIN", 1, 5_000, 0, base_fee=100_001),
            "a fee of 100001 units cannot be taken out of 100000",
        ),
        (lambda b: b.receive("COIN", 1), "COIN: want income in whole units of USD, was 1"),
        (lambda b: b.split("COIN", Fraction(0), 1), "COIN: a split must be a positive ratio, was 0"),
        (lambda b: b.split("COIN", Fraction(-2), 1), "COIN: a split must be a positive ratio, was -2"),
    ],
)
def test_what_would_break_the_books_is_refused_and_changes_nothing(act: Step, message: str) -> None:
    ledger = Ledger([COIN], 100.0)
    ledger.book("COIN", 3, 5_000, 0)
    before = (dict(ledger.cash), state(ledger.positions["COIN"]))
    with pytest.raises(ValueError, match=message):
        act(ledger)
    assert (dict(ledger.cash), state(ledger.positions["COIN"])) == before


def state(position: Position) -> tuple[int, ...]:
    return position.units, position.cost, position.realised, position.fees, position.income


def test_a_base_fee_of_all_that_was_bought_opens_nothing() -> None:
    ledger = Ledger([COIN], 100.0, method="fifo")
    position = ledger.book("COIN", 1, 5_000, 0, base_fee=100_000)
    assert (position.units, position.cost, ledger.money(position.fees)) == (0, 0, 0.05)
    assert not position.parcels
    add_up(ledger, {"COIN": 1})
