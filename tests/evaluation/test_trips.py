"""Round trips by average cost, worked by hand."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from finished import START_NS, Row, fills_table, market, record
from hypothesis import given
from hypothesis import strategies as st

from evaluation.run import read_fills, read_strategy_fills
from evaluation.trips import Accounts, RoundTrip, account


def book(*rows: tuple[str, float, float, float], base_fees: Sequence[float] | None = None, **terms: Any) -> Accounts:
    """Accounts of fills (side, quantity, price, fee) of X, one a nanosecond."""
    fills: list[Row] = [(START_NS + i, "X", *row) for i, row in enumerate(rows)]
    table = fills_table(*fills)
    if base_fees is not None:
        table = table.append_column("base_fee", pa.array(base_fees, pa.float64()))
    run = record([START_NS], [100.0], fills=table, markets=(market([START_NS], [1.0], **terms),))
    return account(read_fills(run), run.markets)


def test_a_long_trip_with_an_addition_and_a_partial_exit_is_one_trip() -> None:
    # 2 at 10 and 2 at 20: average 15. Out 1 at 25 (+10) and 3 at 11 (-12). Fees 4.
    done = book(("BUY", 2.0, 10.0, 1.0), ("BUY", 2.0, 20.0, 1.0), ("SELL", 1.0, 25.0, 1.0), ("SELL", 3.0, 11.0, 1.0))

    trip = RoundTrip(None, "X", True, START_NS, START_NS + 3, 4.0, 15.0, 14.5, -6.0, 4.0, -6.0 / 60.0)
    assert done.trips == (trip,)
    assert done.entries.tolist() == [True, True, False, False]
    assert done.held == ()


def test_a_short_trip_earns_when_the_price_falls() -> None:
    done = book(("SELL", 3.0, 10.0, 0.5), ("BUY", 3.0, 8.0, 0.5), multiplier=50.0)

    assert done.trips == (
        RoundTrip(None, "X", False, START_NS, START_NS + 1, 3.0, 10.0, 8.0, 299.0, 1.0, 299.0 / 1500.0),
    )


def test_a_foreign_trip_earns_in_the_currency_of_the_account_and_keeps_its_prices() -> None:
    (trip,) = book(("BUY", 2.0, 10.0, 1.0), ("SELL", 2.0, 15.0, 1.0), rate=0.5).trips

    assert (trip.entry_price, trip.exit_price) == (10.0, 15.0)
    assert (trip.profit, trip.fees) == (4.0, 1.0)
    assert trip.entry_return == pytest.approx(0.4)


def test_a_fill_through_zero_ends_one_trip_begins_the_next_and_splits_its_fee() -> None:
    done = book(("BUY", 1.0, 10.0, 0.1), ("SELL", 4.0, 12.0, 0.4), ("BUY", 3.0, 11.0, 0.3))

    first, second = done.trips
    assert (first.long, second.long) == (True, False)
    assert first.profit == pytest.approx(2.0 - 0.1 - 0.1)
    assert second.profit == pytest.approx(3.0 - 0.3 - 0.3)
    assert (second.opened_ns, second.closed_ns) == (START_NS + 1, START_NS + 2)
    assert (second.quantity, second.entry_price, second.exit_price) == (3.0, 12.0, 11.0)
    assert done.entries.tolist() == [True, True, False]
    assert done.held == ()


def test_what_is_open_at_the_end_is_no_trip_but_in_the_book() -> None:
    done = book(("BUY", 1.0, 10.0, 0.0), ("SELL", 0.4, 12.0, 0.5))

    assert done.trips == ()
    assert done.held == ("X",)
    left = done.books[None, "X"]
    assert (left.realised, left.fees) == (pytest.approx(0.8), 0.5)
    assert left.unrealised(13.0) == pytest.approx(0.6 * 3.0)


def test_float_dust_does_not_keep_a_position_open() -> None:
    # 0.1 + 0.2 - 0.3 is 5.6e-17.
    done = book(("BUY", 0.1, 10.0, 0.0), ("BUY", 0.2, 10.0, 0.0), ("SELL", 0.3, 10.0, 0.0), lot=0.1)

    assert len(done.trips) == 1
    assert done.books[None, "X"].quantity == 0.0


def test_float_dust_beyond_zero_opens_nothing() -> None:
    # 0.3 - 0.1 is 0.19999999999999998: selling 0.2 goes through zero by 2.8e-17.
    done = book(("BUY", 0.3, 10.0, 0.0), ("SELL", 0.1, 10.0, 0.0), ("SELL", 0.2, 10.0, 0.3), lot=0.1)

    assert [trip.fees for trip in done.trips] == [0.3]
    assert done.entries.tolist() == [True, False, False]
    assert done.held == ()


def test_a_rebate_adds_to_the_profit() -> None:
    (trip,) = book(("BUY", 1.0, 10.0, -0.2), ("SELL", 1.0, 10.0, 0.1)).trips

    assert trip.profit == pytest.approx(0.1)


def test_a_fee_in_base_units_is_taken_from_the_position_and_charged_at_the_price_of_its_fill() -> None:
    # 10 bought at 20 leave 9.9, and 2 is the fee; 9 sold at 22 earn 18; 0.9 are left at a cost of 20.
    done = book(("BUY", 10.0, 20.0, 0.0), ("SELL", 9.0, 22.0, 0.5), base_fees=[0.1, 0.0], lot=0.1)

    left = done.books[None, "X"]
    assert left.quantity == pytest.approx(0.9)
    assert (left.realised, left.fees) == (pytest.approx(18.0), pytest.approx(2.5))
    # What the cash and the units say, at a price of 25.
    assert left.realised + left.unrealised(25.0) - left.fees == pytest.approx(-200.0 + 198.0 - 0.5 + 0.9 * 25.0)


def test_less_than_a_lot_left_over_ends_the_trip_and_goes_into_the_next_at_its_cost() -> None:
    # 2 bought at 20 less 0.002: 1.998. The lot is 0.01: 1.99 can be sold, 0.008 stay.
    rows = [("BUY", 2.0, 20.0, 0.0), ("SELL", 1.99, 30.0, 0.0), ("BUY", 1.0, 40.0, 0.0), ("SELL", 1.0, 50.0, 0.0)]
    done = book(*rows, base_fees=[0.002, 0.0, 0.001, 0.0], lot=0.01)

    first, second = done.trips
    assert first.profit == pytest.approx(1.99 * 10.0 - 0.002 * 20.0)
    assert (first.closed_ns, second.opened_ns) == (START_NS + 1, START_NS + 2)
    assert second.quantity == pytest.approx(1.007)
    assert second.entry_price == pytest.approx((0.008 * 20.0 + 0.999 * 40.0) / 1.007)
    left = done.books[None, "X"]
    assert left.quantity == pytest.approx(0.007)
    assert done.held == ()
    cash = -2.0 * 20.0 + 1.99 * 30.0 - 40.0 + 50.0
    assert first.profit + second.profit + left.unrealised(60.0) == pytest.approx(cash + 0.007 * 60.0)


def test_strategies_have_books_of_their_own_where_the_account_is_flat() -> None:
    columns = fills_table(
        (START_NS, "X", "BUY", 1.0, 10.0, 0.0),
        (START_NS, "X", "SELL", 1.0, 10.0, 0.0),
        (START_NS + 1, "X", "SELL", 1.0, 13.0, 0.0),
    )
    named = columns.append_column("strategy", pa.array(["a", "b", "a"]))
    run = record([START_NS], [100.0], strategy_fills=named)
    fills = read_strategy_fills(run)
    assert fills is not None

    done = account(fills, run.markets)

    assert [(trip.strategy, trip.profit) for trip in done.trips] == [("a", 3.0)]
    assert done.books["b", "X"].quantity == -1.0


def test_a_split_multiplies_units_and_leaves_their_cost() -> None:
    # 2 at 30 become 6 at 10; 6 are sold at 12, a nanosecond after what still trades in old units.
    done = book(("BUY", 2.0, 30.0, 0.0), ("SELL", 6.0, 12.0, 0.0), splits=((START_NS, 3.0),))

    (trip,) = done.trips
    assert (trip.quantity, trip.entry_price, trip.exit_price) == (6.0, 10.0, 12.0)
    assert trip.profit == pytest.approx(12.0)
    assert done.held == ()


def test_a_split_after_the_last_fill_counts_too() -> None:
    left = book(("SELL", 6.0, 10.0, 0.0), splits=((START_NS + 5, 0.5),)).books[None, "X"]

    assert (left.quantity, left.average) == (-3.0, 20.0)
    assert left.unrealised(19.0) == 3.0


SIDES = st.sampled_from(["BUY", "SELL"])


@given(st.lists(st.tuples(SIDES, st.integers(1, 50), st.integers(1, 1_000), st.floats(-0.5, 2.0)), min_size=1))
def test_profits_of_all_trips_are_the_cash_that_came_in_once_flat(rows: list[tuple[str, int, int, float]]) -> None:
    net = sum(size if side == "BUY" else -size for side, size, _, _ in rows)
    if net:
        rows = [*rows, ("SELL" if net > 0 else "BUY", abs(net), 500, 1.0)]
    done = book(*((side, float(size), float(price), fee) for side, size, price, fee in rows))

    cash = sum((size * price if side == "SELL" else -size * price) - fee for side, size, price, fee in rows)
    assert done.held == ()
    assert sum(trip.profit for trip in done.trips) == pytest.approx(cash, abs=1e-6)
    assert sum(trip.fees for trip in done.trips) == pytest.approx(sum(fee for *_, fee in rows), abs=1e-9)
    assert 1 <= len(done.trips) <= int(done.entries.sum())


@given(
    rows=st.lists(
        st.tuples(SIDES, st.integers(1, 50), st.integers(1, 1_000), st.integers(0, 900)), min_size=1, max_size=40
    ),
    last=st.integers(1, 1_000),
)
def test_books_agree_with_cash_and_units_when_fees_are_in_base_units(
    rows: list[tuple[str, int, int, int]], last: int
) -> None:
    # A fee of up to 0.9 of a unit on a lot of 1: the position is hardly ever flat to the last digit.
    base = [thousandths / 1_000 if side == "BUY" else 0.0 for side, _, _, thousandths in rows]
    done = book(*((side, float(size), float(price), 0.0) for side, size, price, _ in rows), base_fees=base, lot=1.0)

    cash = sum(size * price if side == "SELL" else -size * price for side, size, price, _ in rows)
    units = sum(size if side == "BUY" else -size for side, size, _, _ in rows) - sum(base)
    (left,) = done.books.values()
    assert left.quantity == pytest.approx(units, abs=1e-9)
    profit = left.realised + left.unrealised(float(last)) - left.fees
    assert profit == pytest.approx(cash + units * last, abs=1e-6)
    of_trips = sum(trip.profit for trip in done.trips) + left.trip_realised - left.trip_fees
    assert of_trips == pytest.approx(left.realised - left.fees, abs=1e-6)
