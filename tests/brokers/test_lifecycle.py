"""How orders begin and end: times in force, flags, replacements, cancels. Numbers are those of fills.md."""

from fractions import Fraction

import pytest
from book_market import HOUR, SECOND, T0, Market, bracket, fills, on_bars, told

from brokers.matching import Order

# Time in force


@pytest.mark.parametrize("whole", [False, True])
def test_an_immediate_order_takes_what_it_can_have_at_once(whole: bool) -> None:
    # E32
    market = Market()
    market.buy(10, limit=100.0, immediate=True, whole=whole)
    lines = market.depth([], [(99.99, 4), (100.0, 3), (100.05, 20)])
    if whole:
        assert lines == [("1", "expired", "fok_unfilled")]
    else:
        assert fills(lines) == [("1", 4, 99.99, "taker"), ("1", 3, 100.0, "taker")]
        assert lines[-1] == ("1", "expired", "ioc_unfilled")


def test_on_bars_an_immediate_order_knows_only_the_open() -> None:
    # E33
    market = on_bars()
    market.buy(10, limit=99.0, immediate=True)
    assert market.bar(100.0, 101.0, 98.0, 100.0) == [("1", "expired", "ioc_unfilled")]


def test_an_immediate_stop_counts_from_when_it_is_set_off() -> None:
    market = Market()
    market.sell(10, stop=98.0, immediate=True)
    assert market.trade(99.0) == []
    assert market.trade(97.0, 4.0) == [("1", "triggered", "")]
    assert market.trade(97.0, 4.0) == [("1", "filled", 4, 97.0, "taker"), ("1", "expired", "ioc_unfilled")]


def test_on_bars_an_order_ends_with_the_bar_in_which_its_time_runs_out() -> None:
    # E34
    market = on_bars()
    market.bar(100.0, 101.0, 99.0, 100.0)
    market.buy(10, limit=99.5, expires=T0 + 1.5 * HOUR)
    assert market.book.next_expiry is None
    assert market.book.expire(T0 + 1.5 * HOUR) == []
    assert market.bar(100.0, 101.0, 99.9, 100.0) == [("1", "expired", "time_in_force")]
    market.send("2", 1, 10, limit=99.5, expires=T0 + 2.5 * HOUR)
    assert market.bar(100.0, 101.0, 99.0, 100.0) == [("2", "filled", 10, 99.5, "maker")]


def test_on_bars_an_order_has_no_part_in_a_bar_that_opens_at_its_end() -> None:
    # E35
    market = on_bars()
    market.bar(100.0, 101.0, 99.0, 100.0)
    market.buy(10, limit=99.0, expires=T0 + 2 * HOUR)
    assert market.bar(100.0, 101.0, 99.0, 100.0) == [("1", "expired", "time_in_force")]
    market.send("2", 1, 10, expires=market.now)
    assert market.bar(100.0, 101.0, 99.0, 100.0) == [("2", "expired", "time_in_force")]


def test_elsewhere_an_order_ends_before_the_event_of_the_same_time() -> None:
    market = Market()
    market.send("1", 1, 10, expires=T0 + 5 * SECOND)
    market.send("2", 1, 10, limit=1.0, expires=T0 + 3 * SECOND)
    assert market.book.next_expiry == T0 + 3 * SECOND
    assert told(market.book.expire(T0 + 3 * SECOND)) == [("2", "expired", "time_in_force")]
    assert market.book.next_expiry == T0 + 5 * SECOND
    assert told(market.book.on_trade(100.0, 10.0, T0 + 5 * SECOND)) == [("1", "expired", "time_in_force")]
    assert market.book.next_expiry is None


# Post-only and reduce-only


def test_post_only_is_refused_where_it_would_take_on_arrival() -> None:
    # E36
    market = Market()
    market.quote(99.9, 100.0)
    assert market.send("1", 1, 5, limit=100.0, post_only=True) == [("1", "rejected", "post_only")]
    market.quote(99.9, 100.01)
    assert market.send("2", 1, 5, limit=100.0, post_only=True) == [("2", "accepted", 5)]
    assert market.quote(99.9, 100.0) == [("2", "expired", "post_only")]


def test_post_only_ends_where_it_would_take_at_its_first_open() -> None:
    market = on_bars()
    market.buy(5, limit=101.0, post_only=True)
    assert market.bar(100.0, 102.0, 99.0, 100.0) == [("1", "expired", "post_only")]


def test_reduce_only_is_cut_to_the_position() -> None:
    # E37
    market = on_bars()
    market.book.position = 4
    market.sell(10, reduce_only=True)
    assert market.bar(100.0, 101.0, 99.0, 100.0) == [
        ("1", "filled", 4, 100.0, "taker"),
        ("1", "cancelled", "reduce_only"),
    ]
    assert market.book.position == 0
    assert market.send("2", -1, 1, reduce_only=True) == [("2", "rejected", "reduce_only")]


def test_reduce_only_orders_together_do_not_turn_a_position() -> None:
    market = on_bars()
    market.book.position = 5
    market.send("1", -1, 4, limit=101.0, reduce_only=True)
    market.send("2", -1, 4, limit=102.0, reduce_only=True)
    assert market.bar(100.0, 103.0, 99.0, 100.0) == [
        ("1", "filled", 4, 101.0, "maker"),
        ("2", "filled", 1, 102.0, "maker"),
        ("2", "cancelled", "reduce_only"),
    ]


# Replace and cancel


def partly_filled() -> Market:
    market = on_bars(participation_max=0.1)
    market.buy(10, limit=99.0)
    assert fills(market.bar(100.0, 101.0, 98.0, 100.0, volume=40.0)) == [("1", 4, 99.0, "maker")]
    return market


def test_a_replacement_is_open_for_what_is_left() -> None:
    # E46
    market = partly_filled()
    assert market.send("2", 1, 10, limit=100.0, replaces="1") == [("1", "cancelled", "replaced"), ("2", "accepted", 6)]
    assert fills(market.bar(101.0, 102.0, 99.0, 100.0)) == [("2", 6, 100.0, "maker")]


def test_a_replacement_by_no_more_than_has_filled_only_cancels() -> None:
    # E47
    market = partly_filled()
    assert market.send("2", 1, 4, limit=100.0, replaces="1") == [
        ("1", "cancelled", "replaced"),
        ("2", "rejected", "nothing_left"),
    ]
    assert market.book.idle


def test_what_a_chain_of_replacements_filled_counts_for_the_last() -> None:
    market = partly_filled()
    market.send("2", 1, 10, limit=100.0, replaces="1")
    market.bar(101.0, 102.0, 99.0, 100.0, volume=20.0)
    assert market.send("3", 1, 10, limit=98.0, replaces="2") == [("2", "cancelled", "replaced"), ("3", "accepted", 4)]


def test_an_order_that_has_ended_is_not_replaced() -> None:
    market = on_bars()
    market.buy(10)
    market.bar(100.0, 101.0, 99.0, 100.0)
    assert market.send("2", 1, 20, replaces="1") == [("2", "rejected", "replaced_gone")]
    assert market.book.idle


def test_a_refused_replacement_leaves_the_order_as_it_is() -> None:
    market = Market()
    market.quote(99.0, 100.0)
    market.buy(10, limit=99.0)
    assert market.send("2", 1, 10, limit=100.0, replaces="1", post_only=True) == [("2", "rejected", "post_only")]
    assert list(market.book.orders) == ["1"]


def test_a_replacement_takes_over_group_and_children() -> None:
    market = on_bars()
    market.book.position = 10
    bracket(market, 95.0, 110.0, limit=90.0)
    market.send("entry 2", 1, 10, replaces="entry")
    market.send("target 2", -1, 10, limit=105.0, replaces="target")
    assert fills(market.bar(100.0, 101.0, 99.0, 100.0)) == [("entry 2", 10, 100.0, "taker")]
    assert market.bar(100.0, 106.0, 99.0, 100.0) == [
        ("target 2", "filled", 10, 105.0, "maker"),
        ("stop", "cancelled", "oco"),
    ]


def test_an_id_is_used_once() -> None:
    market = on_bars()
    market.buy(10)
    (again,) = market.book.submit(Order(order_id="1", sign=1, lots=3, sent=T0), T0)
    assert (again.what, again.code, again.order.lots) == ("rejected", "duplicate_order_id", 3)
    market.bar(100.0, 101.0, 99.0, 100.0)
    assert market.send("1", 1, 10) == [("1", "rejected", "duplicate_order_id")]


def test_a_cancel_of_nothing_is_silent() -> None:
    market = on_bars()
    assert market.book.cancel("1", T0) == []
    market.buy(10)
    assert told(market.book.cancel("1", T0)) == [("1", "cancelled", "")]
    assert market.book.cancel("1", T0) == []
    assert market.bar(100.0, 101.0, 99.0, 100.0) == []


def test_ended_orders_leave_nothing_behind() -> None:
    market = Market()
    market.quote(150.0, 150.01)
    for number in range(10_000):  # each at a price of its own
        terms = {"limit" if number % 2 else "stop": 100.0 + number % 2 + number * 0.01}
        market.send(str(number), 1 if number % 2 else -1, 1, group=str(number), expires=T0 + 90 * HOUR, **terms)
        market.quote(300.0, 300.01)
        market.book.cancel(str(number), market.now)
    orders = market.book._orders
    assert market.book.idle
    assert len(orders._ended) == len(orders._ended_ids) == 4096
    assert len(orders._groups) == 4096
    assert len(orders.expiries) < 200
    for shelf in (*orders.shelves.limits, *orders.shelves._stops):
        assert len(shelf.keys) == len(shelf._orders) < 200


# Splits


def test_a_split_cancels_all_that_works_and_scales_the_position() -> None:
    # E52
    market = on_bars()
    market.book.position = 105
    market.sell(105, limit=120.0)
    bracket(market, 80.0, 120.0, limit=90.0)
    assert told(market.book.split(Fraction(1, 10))) == [
        (name, "cancelled", "split") for name in ("1", "entry", "stop", "target")
    ]
    assert (market.book.position, market.book.idle) == (10, True)
    assert market.bar(1_000.0, 2_000.0, 900.0, 1_000.0) == []
    market.send("2", -1, 105, reduce_only=True)
    assert fills(market.bar(1_000.0, 1_000.0, 1_000.0, 1_000.0)) == [("2", 10, 1_000.0, "taker")]


def test_a_short_position_is_scaled_towards_zero_too() -> None:
    market = on_bars()
    market.book.position = -105
    assert market.book.split(Fraction(1, 10)) == []
    assert market.book.position == -10


def test_what_was_filled_before_a_split_wakes_nothing_after_it() -> None:
    market = on_bars()
    market.buy(10)
    market.bar(100.0, 100.0, 100.0, 100.0)
    market.book.split(Fraction(1, 10))
    assert market.send("2", -1, 10, stop=900.0, parent="1") == [("2", "rejected", "no_parent")]
    assert market.send("1", 1, 1) == [("1", "rejected", "duplicate_order_id")]


def test_levels_of_the_old_units_are_gone_after_a_split() -> None:
    # 1 for 10: what is left of the old book would sell at a tenth of the price.
    market = Market()
    market.depth([(99.0, 5)], [(100.0, 5)])
    market.book.split(Fraction(1, 10))
    assert market.book.mid == 0.0
    assert market.send("1", 1, 5, limit=990.0, post_only=True) == [("1", "accepted", 5)]
    market.send("2", 1, 5)
    assert market.depth([(990.0, 5)], [], snapshot=False) == []
    assert fills(market.depth([], [(1_000.0, 5)], snapshot=False)) == [("2", 5, 1_000.0, "taker")]


def test_expiries_go_with_the_orders_that_a_split_cancels() -> None:
    market = Market()
    market.buy(10, limit=99.0, expires=T0 + HOUR)
    market.book.split(Fraction(2))
    assert market.book.next_expiry is None
    assert market.book.expire(T0 + HOUR) == []
