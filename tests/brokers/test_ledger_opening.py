"""A ledger that begins with what an earlier one ended with goes on as if it were the same."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.ledger import Contract, Ledger
from brokers.opening import Opening, OpeningPosition, plain
from feeds.instruments import Instrument

COIN = Instrument(symbol="COIN", tick="0.01", lot="0.001", base_unit="0.000001", fees_in="received")
FUTURE = Instrument(symbol="FUT", tick="0.25", lot="1", multiplier="50")
BOTH = (COIN, FUTURE)


def opening(cash: str = "1000", **held: tuple[str, str]) -> Opening:
    """Positions as symbol=(quantity, cost)."""
    positions = tuple(OpeningPosition(symbol=s, quantity=quantity, cost=cost) for s, (quantity, cost) in held.items())
    return Opening(cash=cash, positions=positions)


def left_by(ledger: Ledger) -> Opening:
    """What a ledger has, as an opening."""

    def decimal(value: Fraction) -> str:
        return plain(Decimal(value.numerator) / Decimal(value.denominator))

    quantum = ledger.contracts["COIN"].quantum
    return Opening(
        cash=decimal(ledger.cash["USD"] * quantum),
        positions=tuple(
            OpeningPosition(
                symbol=symbol,
                quantity=decimal(position.units * position.contract.units.step),
                cost=decimal(position.cost * quantum),
            )
            for symbol, position in ledger.positions.items()
            if position.units
        ),
    )


def test_it_begins_with_the_positions_at_their_cost_and_with_the_cash() -> None:
    ledger = Ledger(BOTH, 5.0, opening=opening("1000.1", COIN=("0.0015", "150.5"), FUT=("-2", "-160000")))
    coin, future = ledger.positions["COIN"], ledger.positions["FUT"]
    assert (coin.units, future.units) == (1_500, -2)
    assert [ledger.money(money) for money in (coin.cost, future.cost)] == [150.5, -160_000.0]
    assert ledger.money(ledger.cash["USD"]) == 1_000.1
    assert ledger.money(ledger.start["USD"]) == 1_000.1 + 150.5 - 160_000.0
    assert [position.realised for position in (coin, future)] == [0, 0]
    # 0.0015 × 110,000 and -2 × 50 × 1,600.
    assert ledger.money(ledger.unrealised("COIN", 11_000_000)) == 165.0 - 150.5
    assert ledger.money(ledger.equity({"COIN": 11_000_000, "FUT": 6_400})) == 1_000.1 + 165.0 - 160_000.0


def test_what_is_less_than_a_quantum_of_cash_or_cost_is_rounded_away() -> None:
    ledger = Ledger((FUTURE,), 0.0, opening=opening("10.004", FUT=("1", "100.006")))
    assert ledger.money(ledger.cash["USD"]) == 10.0
    assert ledger.money(ledger.positions["FUT"].cost) == 100.0 + 0.01
    assert ledger.start["USD"] == ledger.cash["USD"] + ledger.positions["FUT"].cost


def test_a_quantity_between_the_steps_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"want a multiple of 1/1000000, the smallest quantity of COIN, was 0\.0000015"
    ):
        Ledger(BOTH, 0.0, opening=opening(COIN=("0.0000015", "1")))


def test_a_symbol_that_is_not_traded_is_refused() -> None:
    with pytest.raises(ValueError, match="GONE is held at the start and is none of COIN, FUT"):
        Ledger(BOTH, 0.0, opening=opening(GONE=("1", "1")))


def test_an_account_of_several_currencies_cannot_start_so() -> None:
    euro = Instrument(symbol="EUR", currency="EUR")
    with pytest.raises(ValueError, match="the cash of one currency, the account has USD, EUR"):
        Ledger((COIN, euro), 0.0, currency="USD", opening=opening())


def test_whole_lots_are_counted_towards_zero() -> None:
    contract = Contract(COIN)
    assert [contract.whole_lots(units) for units in (1_999, 1_000, 999, -999, -1_000, -1_999)] == [1, 1, 0, 0, -1, -1]


# (symbol, signed lots, ticks, fee in cents, base fee)
TRADE = st.tuples(
    st.sampled_from(["COIN", "FUT"]),
    st.integers(-5, 5).filter(bool),
    st.integers(1, 2_000),
    st.integers(-3, 50),
    st.integers(0, 900),
)


def book(ledger: Ledger, trades: list[tuple[str, int, int, int, int]]) -> None:
    for symbol, lots, ticks, cents, base_fee in trades:
        taken = base_fee if symbol == "COIN" and lots > 0 else 0
        ledger.book(symbol, lots, ticks, cents * ledger.contracts[symbol].fee_unit, taken)


@settings(max_examples=200, deadline=None)
@given(st.lists(TRADE, max_size=20), st.lists(TRADE, max_size=20))
def test_books_that_are_interrupted_end_as_those_that_are_not(
    before: list[tuple[str, int, int, int, int]], after: list[tuple[str, int, int, int, int]]
) -> None:
    whole, first = Ledger(BOTH, 1_000.0), Ledger(BOTH, 1_000.0)
    book(whole, before + after)
    book(first, before)
    second = Ledger(BOTH, 0.0, opening=left_by(first))
    book(second, after)
    assert second.cash == whole.cash
    for symbol, position in whole.positions.items():
        went_on, had = second.positions[symbol], first.positions[symbol]
        assert (went_on.units, went_on.cost) == (position.units, position.cost)
        assert went_on.realised == position.realised - had.realised
        assert went_on.fees == position.fees - had.fees


@settings(max_examples=100, deadline=None)
@given(st.lists(TRADE, max_size=20), st.lists(TRADE, max_size=20), st.sampled_from(["average", "fifo"]))
def test_start_result_and_market_add_up_after_an_opening(
    before: list[tuple[str, int, int, int, int]], after: list[tuple[str, int, int, int, int]], method: str
) -> None:
    first = Ledger(BOTH, 1_000.0)
    book(first, before)
    ledger = Ledger(BOTH, 0.0, method=method, opening=left_by(first))
    book(ledger, after)
    marks = {"COIN": 1_234, "FUT": 777}
    result = sum(p.realised - p.fees + ledger.unrealised(s, marks[s]) for s, p in ledger.positions.items())
    assert ledger.equity(marks) == ledger.start["USD"] + result
    for position in ledger.positions.values():
        if position.parcels is not None:
            assert (sum(u for u, _ in position.parcels), sum(c for _, c in position.parcels)) == (
                position.units,
                position.cost,
            )
