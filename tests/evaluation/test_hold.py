"""Buy and hold, worked by hand."""

import pytest
from finished import DAY_NS, START_NS, market, record
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.hold import buy_and_hold

T = [START_NS + i * DAY_NS for i in range(4)]


def test_all_cash_buys_whole_lots_at_the_first_price_after_the_taker_fee() -> None:
    # 1000 / (30 * 1.01) = 33.003: 33 units for 990 and a fee of 9.90 leave 0.10.
    run = record(
        T[:3], [1.0] * 3, initial_cash=1000.0, markets=(market(T[:3], [30.0, 20.0, 40.0], lot=1.0, taker_bps=100.0),)
    )

    hold = buy_and_hold(run)

    assert hold.quantities == (33.0,)
    assert hold.fees == pytest.approx(9.9)
    assert hold.equity == pytest.approx([0.1 + 33 * 30.0, 0.1 + 33 * 20.0, 0.1 + 33 * 40.0])


def test_slippage_multiplier_and_the_given_first_and_last_price_count() -> None:
    # A contract of 50 a point, bought at 10 + 0.5: 525 each; marked at 12 in the middle and 14 at the end.
    only = market(T[:2], [12.0, 13.0], first_price=10.0, last_price=14.0, multiplier=50.0, lot=1.0, slippage=0.5)
    hold = buy_and_hold(record(T[:2], [1.0] * 2, initial_cash=1100.0, markets=(only,)))

    assert hold.quantities == (2.0,)
    assert hold.equity.tolist() == [50.0 + 2 * 50 * 12.0, 50.0 + 2 * 50 * 14.0]


def test_slippage_is_rounded_up_to_the_tick() -> None:
    only = market(T, [10.0] * 4, tick=0.25, slippage=0.3, lot=1.0)  # 10.3 fills at 10.5

    hold = buy_and_hold(record(T, [1.0] * 4, initial_cash=105.0, markets=(only,)))

    assert hold.quantities == (10.0,)
    assert hold.equity[0] == 100.0


def test_several_symbols_get_equal_cash_and_wait_for_their_first_price() -> None:
    early = market(T[:3], [10.0, 20.0, 20.0], symbol="A", lot=1.0)
    late = market(T[1:4], [50.0, 50.0, 25.0], symbol="B", lot=1.0)

    hold = buy_and_hold(record(T, [1.0] * 4, initial_cash=200.0, markets=(early, late)))

    assert hold.quantities == (10.0, 2.0)
    assert hold.equity.tolist() == [200.0, 300.0, 300.0, 250.0]


def test_foreign_prices_are_converted_at_the_last_rate() -> None:
    # 1000 dollars are 800 euros at 1.25: 8 units at 100 with a fee of 8 leave no room, 7 cost 707.
    only = market(T[:2], [100.0, 110.0], lot=1.0, taker_bps=100.0, currency="EUR", rate=1.25)
    hold = buy_and_hold(record(T[:2], [1.0] * 2, initial_cash=1000.0, markets=(only,)))

    assert hold.quantities == (7.0,)
    assert hold.fees == pytest.approx(7.0 * 1.25)
    assert hold.equity == pytest.approx([1000.0 - 7.0 * 1.25, 1000.0 + (70.0 - 7.0) * 1.25])


def test_splits_multiply_what_is_held_and_dividends_stay_cash() -> None:
    # 10 units; 1 a unit paid and then 2 for 1, both after the second price; 0.5 a unit of the 20 before the last.
    terms = {"splits": ((T[1], 2.0),), "dividends": ((T[1], 1.0), (T[2], 0.5))}
    only = market(T, [10.0, 10.0, 5.0, 6.0], lot=1.0, **terms)
    hold = buy_and_hold(record(T, [1.0] * 4, initial_cash=100.0, markets=(only,)))

    assert hold.equity.tolist() == [100.0, 100.0, 20 * 5.0 + 10.0, 20 * 6.0 + 10.0 + 10.0]


def test_a_share_that_buys_no_lot_stays_cash() -> None:
    dear, cheap = market(T, [1e6] * 4, symbol="A", lot=1.0), market(T, [1.0, 1.0, 1.0, 2.0], symbol="B", lot=1.0)

    hold = buy_and_hold(record(T, [1.0] * 4, initial_cash=200.0, markets=(dear, cheap)))

    assert hold.quantities == (0.0, 100.0)
    assert hold.equity[-1] == 300.0


def test_float_lots_are_not_lost_to_rounding() -> None:
    # 0.3 / 0.1 is 2.9999999999999996.
    hold = buy_and_hold(record(T, [1.0] * 4, initial_cash=0.3, markets=(market(T, [1.0] * 4, lot=0.1),)))

    assert hold.quantities == pytest.approx((0.3,))


@settings(max_examples=500)
@given(
    cash=st.floats(1.0, 1e9),
    price=st.integers(1, 10_000_000).map(lambda cents: cents / 100),
    lot=st.sampled_from([1e-8, 1e-4, 0.1, 1.0, 100.0]),
    bps=st.floats(0.0, 100.0),
)
def test_no_more_is_spent_than_there_is_and_less_than_a_lot_is_left(
    cash: float, price: float, lot: float, bps: float
) -> None:
    run = record(T, [1.0] * 4, initial_cash=cash, markets=(market(T, [price] * 4, lot=lot, taker_bps=bps),))

    spent = buy_and_hold(run).quantities[0] * price * (1.0 + bps / 1e4)

    one_lot = lot * price * (1.0 + bps / 1e4)
    assert spent <= cash * (1.0 + 1e-9) + 1e-8 * one_lot
    assert cash - spent <= one_lot * (1.0 + 1e-6) + 1e-9 * cash
