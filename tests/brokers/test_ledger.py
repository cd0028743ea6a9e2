"""The books, checked by hand and by property."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.ledger import Ledger, Steps
from feeds.instruments import Instrument

BTC = Instrument(symbol="BTC-USD", tick="0.01", lot="0.00000001", maker_bps=4.0, taker_bps=6.0)
ES = Instrument(symbol="ES", tick="0.25", lot="1", multiplier="50", taker_bps=0.2)


def test_long_round_trip_by_hand() -> None:
    # Buy 2 at 100, sell 1 at 110, sell 1 at 90; fees 0.12, 0.07, 0.05.
    ledger = Ledger([BTC], 1_000.0)
    for lots, ticks, fee in ((2, 10_000, 0.12), (-1, 11_000, 0.07), (-1, 9_000, 0.05)):
        position = ledger.book("BTC-USD", lots * 10**8, ticks, ledger.quanta(fee))

    contract = ledger.contracts["BTC-USD"]
    assert contract.money(ledger.cash) == 1_000.0 - 200.0 + 110.0 + 90.0 - 0.24
    assert contract.money(position.realised) == 0.0  # +10 and -10 against the average of 100
    assert contract.money(position.fees) == 0.24
    assert position.lots == 0
    assert position.cost == 0


def test_flip_through_zero_opens_at_the_fill_price() -> None:
    ledger = Ledger([ES], 100_000.0)
    ledger.book("ES", 2, 4 * 1600, 0)
    position = ledger.book("ES", -5, 4 * 1610, 0)

    contract = ledger.contracts["ES"]
    assert contract.money(position.realised) == 2 * 10 * 50.0
    assert position.lots == -3
    assert contract.average_price(position) == 1610.0
    assert contract.money(ledger.unrealised("ES", 4 * 1600)) == 3 * 10 * 50.0


@pytest.mark.parametrize(
    ("lots", "ticks", "maker", "fee"),
    [
        (10**8, 10_000, False, 0.06),  # 100 * 6 bps
        (10**8, 833, False, 0.0),  # 8.33 * 6 bps = 0.004998: below half a cent
        (10**8, 834, False, 0.01),  # 0.005004: half up
        (-(10**8), 10_000, True, 0.04),
    ],
)
def test_fee_is_rounded_half_up_to_the_cent(lots: int, ticks: int, maker: bool, fee: float) -> None:
    ledger = Ledger([BTC], 1_000.0)
    contract = ledger.contracts["BTC-USD"]
    assert contract.money(contract.fee(lots, ticks, maker=maker)) == fee


executions = st.lists(
    st.tuples(
        st.sampled_from(["BTC-USD", "ES"]),
        st.integers(-(10**10), 10**10).filter(bool),
        st.integers(1, 10**8),
        st.booleans(),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(executions, st.integers(1, 10**8), st.integers(1, 10**8))
def test_the_books_add_up_exactly_after_any_fills(fills: list[tuple[str, int, int, bool]], btc: int, es: int) -> None:
    ledger = Ledger([BTC, ES], 5_000_000.0)
    for symbol, lots, ticks, maker in fills:
        ledger.book(symbol, lots, ticks, ledger.contracts[symbol].fee(lots, ticks, maker=maker))

    marks = {"BTC-USD": btc, "ES": es}
    realised = sum(p.realised for p in ledger.positions.values())
    fees = sum(p.fees for p in ledger.positions.values())
    unrealised = sum(ledger.unrealised(symbol, marks[symbol]) for symbol in marks)
    assert ledger.equity(marks) == ledger.initial_cash + realised + unrealised - fees


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["0.01", "0.25", "0.00000001", "1", "0.00005"]), st.integers(0, 10**14))
def test_steps_round_trip(step: str, count: int) -> None:
    steps = Steps(step, "tick")
    value = steps.value(count)
    assert steps.exact(value) == count
    assert steps.down(value) == count
    assert steps.up(value) == count
    assert value == float(Fraction(step) * count)


def test_down_and_up_bracket_a_value_between_steps() -> None:
    steps = Steps("0.25", "tick")
    assert (steps.down(1640.3), steps.up(1640.3)) == (6561, 6562)
    assert (steps.down(-0.3), steps.up(-0.3)) == (-2, -1)


def test_a_price_off_the_tick_is_refused() -> None:
    with pytest.raises(ValueError, match=r"want a multiple of the tick of ES 1/4, was 1640\.3"):
        Ledger([ES], 1_000.0).contracts["ES"].ticks.exact(1640.3)


@pytest.mark.parametrize(
    ("instruments", "cash", "message"),
    [
        ([], 1.0, "at least one instrument"),
        ([BTC, BTC], 1.0, "each symbol once"),
        ([BTC, Instrument(symbol="EUR", currency="EUR")], 1.0, "one quote currency"),
        ([BTC], 0.001, "multiple of the unit of USD"),
        ([BTC], float("nan"), "NaN"),
    ],
)
def test_impossible_books_are_refused(instruments: list[Instrument], cash: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ledger(instruments, cash)
