"""Round trips by average cost, worked by hand."""

import pytest
from finished import START_NS, Row, market, record
from hypothesis import given
from hypothesis import strategies as st

from evaluation.run import read_fills
from evaluation.trips import RoundTrip, round_trips


def account(*rows: tuple[str, float, float, float], multiplier: float = 1.0, lot: float = 1e-8, symbol: str = "X"):  # type: ignore[no-untyped-def]
    """Round trips of fills (side, quantity, price, fee), one a nanosecond."""
    fills: list[Row] = [
        (START_NS + i, symbol, side, size, price, fee) for i, (side, size, price, fee) in enumerate(rows)
    ]
    run = record(
        [START_NS],
        [100.0],
        *fills,
        markets=(market([START_NS], [1.0], symbol=symbol, multiplier=multiplier, lot=lot),),
    )
    return round_trips(read_fills(run), run.markets)


def test_a_long_trip_with_an_addition_and_a_partial_exit_is_one_trip() -> None:
    # 2 at 10 and 2 at 20: average 15. Out 1 at 25 (+10) and 3 at 11 (-12). Fees 4.
    trips, entries, held = account(
        ("BUY", 2.0, 10.0, 1.0), ("BUY", 2.0, 20.0, 1.0), ("SELL", 1.0, 25.0, 1.0), ("SELL", 3.0, 11.0, 1.0)
    )

    assert trips == [RoundTrip("X", True, START_NS, START_NS + 3, -6.0, 4.0)]
    assert entries.tolist() == [True, True, False, False]
    assert held == []


def test_a_short_trip_earns_when_the_price_falls() -> None:
    trips, _, _ = account(("SELL", 3.0, 10.0, 0.5), ("BUY", 3.0, 8.0, 0.5), multiplier=50.0)

    assert trips == [RoundTrip("X", False, START_NS, START_NS + 1, 299.0, 1.0)]


def test_a_fill_through_zero_ends_one_trip_begins_the_next_and_splits_its_fee() -> None:
    trips, entries, held = account(("BUY", 1.0, 10.0, 0.1), ("SELL", 4.0, 12.0, 0.4), ("BUY", 3.0, 11.0, 0.3))

    assert [trip.long for trip in trips] == [True, False]
    assert trips[0].profit == pytest.approx(2.0 - 0.1 - 0.1)
    assert trips[1].profit == pytest.approx(3.0 - 0.3 - 0.3)
    assert (trips[1].opened_ns, trips[1].closed_ns) == (START_NS + 1, START_NS + 2)
    assert entries.tolist() == [True, True, False]
    assert held == []


def test_what_is_open_at_the_end_is_no_trip() -> None:
    trips, _, held = account(("BUY", 1.0, 10.0, 0.0), ("SELL", 0.4, 12.0, 0.0))

    assert trips == []
    assert held == ["X"]


def test_float_dust_does_not_keep_a_position_open() -> None:
    # 0.1 + 0.2 - 0.3 is 5.6e-17.
    trips, _, held = account(("BUY", 0.1, 10.0, 0.0), ("BUY", 0.2, 10.0, 0.0), ("SELL", 0.3, 10.0, 0.0), lot=0.1)

    assert len(trips) == 1
    assert held == []


def test_float_dust_beyond_zero_opens_nothing() -> None:
    # 0.3 - 0.1 is 0.19999999999999998: selling 0.2 goes through zero by 2.8e-17.
    trips, entries, held = account(("BUY", 0.3, 10.0, 0.0), ("SELL", 0.1, 10.0, 0.0), ("SELL", 0.2, 10.0, 0.3), lot=0.1)

    assert [trip.fees for trip in trips] == [0.3]
    assert entries.tolist() == [True, False, False]
    assert held == []


def test_a_rebate_adds_to_the_profit() -> None:
    trips, _, _ = account(("BUY", 1.0, 10.0, -0.2), ("SELL", 1.0, 10.0, 0.1))

    assert trips[0].profit == pytest.approx(0.1)


@given(
    st.lists(
        st.tuples(st.sampled_from(["BUY", "SELL"]), st.integers(1, 50), st.integers(1, 1_000), st.floats(-0.5, 2.0)),
        min_size=1,
        max_size=40,
    )
)
def test_profits_of_all_trips_are_the_cash_that_came_in_once_flat(rows: list[tuple[str, int, int, float]]) -> None:
    net = sum(size if side == "BUY" else -size for side, size, _, _ in rows)
    if net:
        rows = [*rows, ("SELL" if net > 0 else "BUY", abs(net), 500, 1.0)]
    trips, entries, held = account(*((side, float(size), float(price), fee) for side, size, price, fee in rows))

    cash = sum((size * price if side == "SELL" else -size * price) - fee for side, size, price, fee in rows)
    assert held == []
    assert sum(trip.profit for trip in trips) == pytest.approx(cash, abs=1e-6)
    assert sum(trip.fees for trip in trips) == pytest.approx(sum(fee for *_, fee in rows), abs=1e-9)
    assert 1 <= len(trips) <= int(entries.sum())
