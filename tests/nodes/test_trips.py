"""Round trips: where one ends, what it earned, and that breaking even is no loss."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.instruments import Instrument
from nodes.events import PositionUpdate
from nodes.trips import Trips

A = Instrument(symbol="A", tick="0.01", lot="0.1")
B = Instrument(symbol="B", tick="0.01", lot="1")


def earned(*positions: tuple[float, float, float], symbol: str = "A") -> list[float]:
    """What each trip earned, of (quantity, realised, fees)."""
    trips = Trips((A, B))
    results = [
        trips.ended(PositionUpdate(symbol=symbol, quantity=q, average_price=1.0, realised=r, fees=f))
        for q, r, f in positions
    ]
    return [result for result in results if result is not None]


@pytest.mark.parametrize(
    ("positions", "results"),
    [
        ([(1.0, -1.0), (0.0, -2.0)], [-2.0]),  # the fee of the opening counts
        ([(2.0, 0.0), (1.0, -1.0), (0.5, -2.0), (0.0, -3.0)], [-3.0]),  # closed in pieces: one trip
        ([(1.0, 0.0), (-1.0, -1.0), (1.0, -2.0), (0.0, -3.0)], [-1.0, -1.0, -1.0]),  # each turn ends one
        ([(1.0, 0.0), (0.0, -1.0), (1.0, -1.0), (0.0, 0.0), (1.0, 0.0), (0.0, -1.0)], [-1.0, 1.0, -1.0]),
        ([(1.0, 0.0), (0.0, 0.0)], [0.0]),  # nothing won, nothing lost
        ([(1.0, 0.0), (0.05, -1.0), (1.05, -1.0), (0.05, -2.0)], [-1.0, -1.0]),  # less than a lot is left: flat
        ([(0.1, 0.0), (0.1, 0.0), (0.0, -1.0)], [-1.0]),
        ([(0.0, 0.0), (0.0, -1.0)], []),  # never open
    ],
)
def test_a_trip_goes_from_flat_to_flat_or_through_zero(
    positions: list[tuple[float, float]], results: list[float]
) -> None:
    assert earned(*((quantity, net + 0.5, 0.5) for quantity, net in positions)) == results


def test_each_symbol_has_its_own_trips() -> None:
    trips = Trips((A, B))
    results = [
        trips.ended(PositionUpdate(symbol=symbol, quantity=quantity, average_price=1.0, realised=net, fees=0.0))
        for symbol, quantity, net in [("A", 1.0, 0.0), ("B", 1.0, 0.0), ("B", 0.0, 3.0), ("A", 0.0, -1.0)]
    ]
    assert results == [None, None, 3.0, -1.0]


def test_breaking_even_is_no_loss() -> None:
    # 0.3 - 0.2 is a little less than 0.1.
    assert earned((1.0, 0.0, 0.0), (0.0, 0.1, 0.0), (1.0, 0.1, 0.0), (0.0, 0.3, 0.2)) == [0.1, 0.0]


@given(
    st.lists(st.tuples(st.integers(-10_000, 10_000), st.integers(0, 500)), min_size=1, max_size=20),
    st.sampled_from([0, 10**9, 10**12]),  # cents realised before
)
def test_the_sign_of_a_trip_is_exact_whatever_was_earned_before(steps: list[tuple[int, int]], before: int) -> None:
    positions, signs = [(1.0, 0.0, 0.0), (0.0, before / 100, 0.0)], []
    realised, fees = before, 0
    for profit, fee in steps:
        positions.append((1.0, realised / 100, fees / 100))
        realised, fees = realised + profit, fees + fee
        positions.append((0.0, realised / 100, fees / 100))
        net = Fraction(profit - fee)
        signs.append((net > 0) - (net < 0))
    assert [(result > 0.0) - (result < 0.0) for result in earned(*positions)[1:]] == signs
