"""Funding and borrow: who pays what, when, to the cent."""

from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from typing import Any

import csp
import pytest
from csp.profiler import Profiler
from hypothesis import given, settings
from hypothesis import strategies as st
from support import at

from brokers.events import CashFlow, Fill, Liquidity
from brokers.ledger import Contract
from brokers.units import half_up
from feeds.events import Side
from feeds.instruments import Instrument
from feeds.streams import SETTLE
from nodes.carry import borrow, borrow_cost, funding, funding_payment, midnight_from
from nodes.events import PositionUpdate
from nodes.portfolio import portfolio

PERPETUAL = Instrument(symbol="PERP", tick="0.1", lot="0.001")
SHARE = Instrument(symbol="SHARE", tick="0.01", lot="1")
NOON = datetime(2024, 1, 2, 12)
DAY = timedelta(days=1)


def run(graph: Any, days: float = 30.0) -> Any:
    """The ticks of the single output of `graph`, run from noon of 2 January."""

    def outputs() -> None:
        csp.add_graph_output("out", graph())

    return csp.run(outputs, starttime=NOON, endtime=timedelta(days=days))["out"]


def hours(*points: tuple[float, Any], typ: Any = float) -> Any:
    """An edge with (hours after noon, value) points."""
    return at(*((h * 3600, v) for h, v in points), typ=typ)


def held(*points: tuple[float, float], symbol: str = "SHARE", cost: float = 50.0) -> Any:
    """A position: (hours after noon, quantity)."""
    updates = [
        (h, PositionUpdate(symbol=symbol, quantity=q, average_price=cost if q else 0.0, realised=0.0, fees=0.0))
        for h, q in points
    ]
    return hours(*updates, typ=PositionUpdate)


def amounts(flows: list[tuple[datetime, CashFlow]]) -> list[tuple[datetime, float]]:
    return [(when, flow.amount) for when, flow in flows]


# Funding.


def test_longs_pay_positive_funding_and_shorts_receive_it() -> None:
    # 0.5 at 40,000 is 20,000: 0.01 % of it is 2.00.
    for quantity, received in ((0.5, -2.0), (-0.5, 2.0)):
        flows = run(
            lambda q=quantity: funding(
                hours((8, 0.0001), (16, -0.0001)),
                held((1, q), symbol="PERP"),
                hours((0, 39_000.0), (8, 40_000.0), (9, 41_000.0)),
                PERPETUAL,
            )
        )
        assert amounts(flows) == [
            (NOON + timedelta(hours=8), received),
            (NOON + timedelta(hours=16), -received * 1.025),  # at 41,000
        ]
        assert {(flow.symbol, flow.kind) for _, flow in flows} == {("PERP", "funding")}


def test_funding_that_moves_no_money_does_not_tick() -> None:
    def graph() -> Any:
        rate = hours((1, 0.01), (3, 0.0), (4, 1e-9), (6, 0.01))
        return funding(rate, held((2, 1.0), (5, 0.0), symbol="PERP"), hours((0, 100.0)), PERPETUAL)

    assert run(graph) == []  # not held, no rate, less than half a cent, no longer held


def test_funding_before_the_first_price_counts_what_the_position_cost() -> None:
    out = run(
        lambda: funding(hours((2, 0.01)), held((1, 2.0), symbol="PERP"), csp.null_ts(float), PERPETUAL),
    )
    assert amounts(out) == [(NOON + timedelta(hours=2), -1.0)]


@pytest.mark.parametrize(
    ("units", "price", "rate", "cents"),
    [
        (1_000, 50.0, 0.0001, 0),  # -0.005: a half goes up
        (-1_000, 50.0, 0.0001, 1),  # 0.005
        (-1_000, 49.99, 0.0001, 0),
        (1_000, 50.01, 0.0001, -1),
        (3, 0.1, 0.1, 0),
    ],
)
def test_a_funding_payment_is_rounded_half_up(units: int, price: float, rate: float, cents: int) -> None:
    contract = Contract(PERPETUAL)
    assert contract.money(funding_payment(contract, units, price, rate)) == cents / 100


@settings(max_examples=200, deadline=None)
@given(
    st.integers(-(10**9), 10**9),
    st.decimals("0.01", 10**6, places=2),
    st.decimals("-0.1", "0.1", places=8),
)
def test_a_funding_payment_is_the_formula(units: int, price: Any, rate: Any) -> None:
    contract = Contract(PERPETUAL)
    received = funding_payment(contract, units, float(price), float(rate))
    cents = -Fraction(units, 1_000) * Fraction(price) * Fraction(rate) * 100
    assert received == half_up(cents) * contract.fee_unit


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), float("-inf")])
def test_a_funding_rate_that_is_no_number_stops_the_engine(rate: float) -> None:
    with pytest.raises(ValueError, match="funding rate of PERP must be finite, was"):
        run(lambda: funding(hours((1, rate)), held((0, 1.0), symbol="PERP"), hours((0, 1.0)), PERPETUAL))


def test_a_price_that_is_no_number_stops_the_engine() -> None:
    price = hours((0, float("nan")))
    with pytest.raises(ValueError, match="want a finite number, was nan"):
        run(lambda: funding(hours((1, 0.1)), held((0, 1.0), symbol="PERP"), price, PERPETUAL))
    with pytest.raises(ValueError, match="want a finite number, was nan"):
        run(lambda: borrow(held((0, -1.0)), price, 100.0, SHARE))


# Borrow.


def test_a_short_position_pays_for_its_days_at_midnight() -> None:
    # 1,000 short from noon; 3.65 % a year. Half a day at 50: 2.50. A day at 60: 6.00. Covered at 18:00 of the third
    # day: 3/4 of it at 80: 6.00, charged at its end.
    def graph() -> Any:
        close = hours((0, 50.0), (12, 50.0), (13, 70.0), (36, 60.0), (37, 80.0), (54, 80.0), (80, 90.0))
        return borrow(held((0, -1_000.0), (54, 0.0)), close, 365.0, SHARE)

    midnight = datetime(2024, 1, 3) + SETTLE
    out = run(graph)
    assert amounts(out) == [(midnight, -2.5), (midnight + DAY, -6.0), (midnight + 2 * DAY, -6.0)]
    assert {(flow.symbol, flow.kind) for _, flow in out} == {("SHARE", "borrow")}


def test_each_part_of_a_day_counts_what_was_short_in_it() -> None:
    # 1,000 short for six hours at 50, then 3,000 for six hours at 60: 1.25 and 4.50.
    out = run(lambda: borrow(held((0, -1_000.0), (6, -3_000.0)), hours((0, 50.0), (12, 60.0)), 365.0, SHARE))
    assert amounts(out) == [(datetime(2024, 1, 3) + SETTLE, -5.75)]


def test_days_without_prices_are_charged_together_at_the_midnight_after_the_next_one() -> None:
    # No price from the first midnight to 68 h later: three days at 10, not one of them lost.
    out = run(lambda: borrow(held((0, -1_000.0)), hours((0, 10.0), (80, 10.0)), 365.0, SHARE))
    assert amounts(out) == [(datetime(2024, 1, 3) + SETTLE, -0.5), (datetime(2024, 1, 6) + SETTLE, -3.0)]


def test_daily_bars_that_close_at_midnight_are_charged_daily_at_their_close() -> None:
    close = hours(*((12 + 24 * i, 10.0 + i) for i in range(4)))
    out = run(lambda: borrow(held((12, -1_000.0)), close, 365.0, SHARE))
    assert amounts(out) == [(datetime(2024, 1, 3 + i) + SETTLE, -(10.0 + i) / 10) for i in range(1, 4)]


def test_what_is_less_than_a_cent_a_day_is_not_lost() -> None:
    # 0.4 cents a day: in all 0.2, 0.6, 1.0, 1.4, 1.8, 2.2 and 2.6 cents, which is 0, 1, 1, 1, 2, 2 and 3 charged.
    close = hours(*((h, 4.0) for h in range(24 * 6)))
    out = run(lambda: borrow(held((0, -10.0)), close, 365.0, SHARE))
    assert amounts(out) == [(datetime(2024, 1, day) + SETTLE, -0.01) for day in (4, 7, 9)]


def test_a_position_that_is_closed_before_the_next_price_still_pays() -> None:
    # Past midnight no price has armed the next one yet when the position is closed at 06:00.
    out = run(lambda: borrow(held((0, -1_000.0), (18, 0.0)), hours((0, 40.0)), 365.0, SHARE))
    assert amounts(out) == [(datetime(2024, 1, 3) + SETTLE, -2.0), (datetime(2024, 1, 4) + SETTLE, -1.0)]


def test_longs_borrow_nothing() -> None:
    close = hours(*((h, 10.0) for h in range(100)))
    assert run(lambda: borrow(held((0, 1_000.0), (30, 0.0)), close, 365.0, SHARE)) == []


def test_borrow_wakes_for_one_price_a_day_and_never_without_one() -> None:
    def graph() -> None:
        close = hours(*((h, 10.0) for h in range(24 * 5)))  # to 11:00 of the fifth day
        csp.add_graph_output(0, borrow(held((0, -1_000.0)), close, 365.0, SHARE))

    with Profiler() as profiler:
        csp.run(graph, starttime=NOON, endtime=timedelta(days=365))
    # The position, the first price after each of five midnights, and six midnights: after the last comes no price.
    assert profiler.results().node_stats["borrow"]["executions"] == 1 + 5 + 6


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(-2_000, 2_000)), min_size=1, max_size=8),
    st.integers(1, 10_000),
)
def test_what_was_charged_is_the_integral_of_what_was_short(steps: list[tuple[int, int]], bps: int) -> None:
    """At one price all the way, so that an integral is all there is to it."""
    points, hour = [], 0
    for wait, quantity in steps:
        hour += wait
        points.append((float(hour), float(quantity)))
    end = 12 + 24 * (hour // 24 + 3)  # the last position is closed at a midnight
    points.append((float(end), 0.0))
    out = run(lambda: borrow(held(*points), hours(*((h, 20.0) for h in range(end))), float(bps), SHARE), days=60)

    owed = Fraction(0)
    for (start, quantity), (stop, _) in pairwise(points):
        owed += max(0, -int(quantity)) * 20 * Fraction(int(stop - start), 24 * 365) * Fraction(bps, 10_000)
    assert sum(round(flow.amount * 100) for _, flow in out) == half_up(-owed * 100)
    assert all(when - SETTLE == midnight_from(when - SETTLE) for when, _ in out)


def test_borrow_cost_is_actual_365() -> None:
    contract = Contract(SHARE)
    year = borrow_cost(contract, -100, 10.0, 50.0, timedelta(days=365))
    assert year == 100 * 1_000 * Fraction(50, 10_000)  # cents
    assert borrow_cost(contract, -100, 10.0, 50.0, timedelta(days=1)) == year / 365
    assert borrow_cost(contract, 100, 10.0, 50.0, timedelta(days=1)) == 0


@pytest.mark.parametrize("bps", [-1.0, float("nan"), float("inf"), 1_000_001.0])
def test_an_impossible_borrow_rate_is_refused(bps: float) -> None:
    with pytest.raises(ValueError, match=r"borrow_bps of SHARE must lie in \[0, 1000000\], was"):
        run(lambda: borrow(held((0, -1.0)), hours((0, 1.0)), bps, SHARE))


def test_the_next_midnight_may_be_now() -> None:
    assert midnight_from(datetime(2024, 2, 29)) == datetime(2024, 2, 29)
    assert midnight_from(datetime(2024, 2, 29, 0, 0, 0, 1)) == datetime(2024, 3, 1)
    assert midnight_from(datetime(2023, 12, 31, 23, 59)) == datetime(2024, 1, 1)


def test_an_account_pays_what_the_hooks_say() -> None:
    # Sold 1,000 at 10 at noon: the position comes back to the hook by feedback, the flow goes into the books.
    sold = Fill(
        market_time=NOON,
        symbol="SHARE",
        side=Side.SELL,
        quantity=1_000.0,
        price=10.0,
        fee=0.0,
        order_id="1",
        liquidity=Liquidity.TAKER,
    )

    def graph() -> Any:
        close = hours((0, 10.0), (12, 9.0))
        position = csp.feedback(PositionUpdate)
        flow = borrow(position.out(), close, 365.0, SHARE)
        books = portfolio(hours((0, sold), typ=Fill), {"SHARE": close}, (SHARE,), 1_000.0, flow=flow)
        position.bind(books.position)
        return books.equity

    midnight = datetime(2024, 1, 3)
    assert run(graph) == [
        (NOON, 1_000.0),
        (midnight, 2_000.0),
        (midnight + SETTLE, pytest.approx(1_999.55, abs=1e-9)),
    ]
