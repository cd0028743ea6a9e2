"""Orders that belong together: groups and brackets. Numbers are those of fills.md."""

from typing import Any

import pytest
from book_market import HOUR, T0, Market, bracket, fills, on_bars, told


def test_what_one_of_a_group_fills_is_taken_off_the_other() -> None:
    # E38
    market = on_bars(participation_max=0.1)
    market.send("target", -1, 10, limit=102.0, group="exit")
    market.send("stop", -1, 10, stop=98.0, group="exit")
    assert market.bar(100.0, 103.0, 99.0, 100.0, volume=40.0) == [
        ("target", "filled", 4, 102.0, "maker"),
        ("stop", "reduced", 6),
    ]
    assert market.bar(100.0, 101.0, 97.0, 100.0, volume=400.0) == [
        ("stop", "triggered", ""),
        ("stop", "filled", 6, 98.0, "taker"),
        ("target", "cancelled", "oco"),
    ]


def test_who_joins_a_group_late_finds_its_fills_taken_off() -> None:
    market = on_bars()
    market.send("1", 1, 4, group="g")
    market.bar(100.0, 101.0, 99.0, 100.0)
    assert market.send("2", 1, 10, group="g") == [("2", "accepted", 10), ("2", "reduced", 6)]
    assert market.send("3", 1, 4, group="g") == [("3", "accepted", 4), ("3", "cancelled", "oco")]


def test_children_are_cut_to_what_their_parent_filled() -> None:
    # E39
    market = on_bars(participation_max=0.1)
    bracket(market, 95.0, 110.0)
    assert market.bar(100.0, 101.0, 99.0, 100.0, volume=40.0) == [("entry", "filled", 4, 100.0, "taker")]
    assert told(market.book.cancel("entry", market.now)) == [
        ("entry", "cancelled", ""),
        ("stop", "reduced", 4),
        ("target", "reduced", 4),
    ]
    assert market.bar(100.0, 111.0, 99.0, 100.0) == [
        ("target", "filled", 4, 110.0, "maker"),
        ("stop", "cancelled", "oco"),
    ]
    assert market.book.idle


def test_children_end_with_a_parent_that_filled_nothing() -> None:
    market = on_bars()
    bracket(market, 95.0, 110.0, limit=90.0)
    assert told(market.book.cancel("entry", market.now)) == [
        ("entry", "cancelled", ""),
        ("stop", "cancelled", "parent_ended"),
        ("target", "cancelled", "parent_ended"),
    ]
    assert market.send("late", -1, 1, limit=110.0, parent="entry") == [("late", "rejected", "no_parent")]
    assert market.book.idle


def test_a_child_that_comes_after_its_parent_filled_works_at_once() -> None:
    market = on_bars()
    market.send("entry", 1, 4)
    market.bar(100.0, 101.0, 99.0, 100.0)
    assert market.send("stop", -1, 10, stop=98.0, parent="entry") == [("stop", "accepted", 10), ("stop", "reduced", 4)]
    assert fills(market.bar(100.0, 101.0, 97.0, 100.0)) == [("stop", 4, 98.0, "taker")]


def test_lots_that_are_asleep_do_not_fill() -> None:
    market = Market()
    market.send("entry", 1, 10)
    market.send("target", -1, 10, limit=100.0, parent="entry")
    assert fills(market.trade(99.0, 4.0)) == [("entry", 4, 99.0, "taker")]
    assert fills(market.trade(101.0, 8.0)) == [("entry", 6, 101.0, "taker"), ("target", 2, 101.0, "taker")]
    assert fills(market.trade(101.0, 5.0)) == [("target", 5, 100.0, "maker")]
    assert market.book.orders["target"].lots == 3


def test_only_the_lots_that_woke_fill_though_the_market_has_more() -> None:
    market = Market()
    market.send("entry", 1, 10, limit=99.0)
    market.send("target", -1, 10, limit=100.0, parent="entry")
    assert fills(market.trade(98.0, 4.0)) == [("entry", 4, 98.0, "taker")]
    assert fills(market.trade(101.0, 50.0)) == [("target", 4, 101.0, "taker")]
    assert market.book.orders["target"].lots == 6


def test_on_trades_a_child_takes_part_from_the_next_trade_on() -> None:
    market = Market()
    market.send("entry", 1, 10)
    market.send("target", -1, 10, limit=99.0, parent="entry")
    assert fills(market.trade(100.0)) == [("entry", 10, 100.0, "taker")]
    assert fills(market.trade(101.0)) == [("target", 10, 101.0, "taker")]


def test_a_bar_that_reaches_both_exits_of_a_new_position_takes_the_stop() -> None:
    # E40
    market = on_bars()
    bracket(market, 98.0, 102.0)
    assert market.bar(100.0, 103.0, 97.0, 100.0) == [
        ("entry", "filled", 10, 100.0, "taker"),
        ("stop", "triggered", ""),
        ("stop", "filled", 10, 98.0, "taker"),
        ("target", "cancelled", "oco"),
    ]


def test_a_target_fills_in_the_bar_at_whose_open_the_entry_did() -> None:
    # E41
    market = on_bars()
    bracket(market, 98.0, 102.0)
    assert fills(market.bar(100.0, 103.0, 99.0, 100.0)) == [
        ("entry", 10, 100.0, "taker"),
        ("target", 10, 102.0, "maker"),
    ]


@pytest.mark.parametrize(("close", "exits"), [(100.0, []), (101.0, []), (101.5, [("target", 10, 101.0, "maker")])])
def test_after_an_entry_inside_a_bar_only_the_close_can_fill_a_target(close: float, exits: list[Any]) -> None:
    # E42
    market = on_bars()
    bracket(market, 90.0, 101.0, limit=99.0)
    assert fills(market.bar(100.0, 102.0, 98.0, close)) == [("entry", 10, 99.0, "maker"), *exits]


def test_a_target_beyond_a_stop_entry_was_reached_after_it() -> None:
    # E43
    market = on_bars()
    bracket(market, 90.0, 103.0, stop=101.0)
    assert fills(market.bar(100.0, 104.0, 99.0, 100.0)) == [
        ("entry", 10, 101.0, "taker"),
        ("target", 10, 103.0, "maker"),
    ]


def test_a_stop_counts_the_low_of_the_bar_even_if_it_came_before_the_entry() -> None:
    # E44
    market = on_bars()
    bracket(market, 98.0, 110.0, limit=99.0)
    assert fills(market.bar(100.0, 101.0, 97.5, 100.0)) == [("entry", 10, 99.0, "maker"), ("stop", 10, 98.0, "taker")]


def test_a_stop_on_the_wrong_side_of_its_entry_earns_nothing() -> None:
    # E45
    market = on_bars()
    bracket(market, 98.0, 110.0, limit=95.0)
    assert fills(market.bar(100.0, 101.0, 94.0, 96.0)) == [("entry", 10, 95.0, "maker"), ("stop", 10, 95.0, "taker")]


def test_a_trailing_stop_that_wakes_inside_a_bar_does_not_know_the_high() -> None:
    market = on_bars()
    market.send("entry", 1, 10, limit=95.0)
    market.send("stop", -1, 10, trail=2.0, parent="entry")
    assert fills(market.bar(100.0, 101.0, 94.0, 96.0)) == [("entry", 10, 95.0, "maker")]
    assert fills(market.bar(96.0, 96.0, 93.9, 95.0)) == [("stop", 10, 94.0, "taker")]  # 2.00 below the close of 96


def test_a_stop_that_its_group_left_nothing_has_its_turn_when_its_parent_wakes_more() -> None:
    market = on_bars(participation_max=0.1)
    market.send("entry", 1, 5, limit=97.0)
    market.send("stop", -1, 5, stop=96.0, parent="entry", group="exit")
    market.send("target", -1, 5, limit=100.0, parent="entry", group="exit")
    assert fills(market.bar(98.0, 99.0, 96.5, 98.0, volume=10.0)) == [("entry", 1, 97.0, "maker")]
    assert market.bar(100.5, 100.5, 96.0, 99.5) == [
        ("target", "filled", 1, 100.5, "maker"),
        ("stop", "reduced", 4),
        ("entry", "filled", 4, 97.0, "maker"),
        ("stop", "triggered", ""),
        ("stop", "filled", 4, 96.0, "taker"),
        ("target", "cancelled", "oco"),
    ]


def test_a_child_sent_inside_the_bar_that_wakes_it_starts_with_the_next() -> None:
    market = on_bars()
    market.send("entry", 1, 5, limit=99.0)
    market.send("target", -1, 5, limit=98.5, parent="entry", sent=T0 + HOUR / 2)
    assert fills(market.bar(100.0, 101.0, 98.0, 100.0)) == [("entry", 5, 99.0, "maker")]
    assert fills(market.bar(103.0, 104.0, 97.0, 101.0)) == [("target", 5, 103.0, "taker")]


def test_a_market_order_cannot_be_a_child() -> None:
    market = on_bars()
    market.send("entry", 1, 10)
    assert market.send("exit", -1, 10, parent="entry") == [("exit", "rejected", "child_type")]
    assert market.send("exit 2", -1, 10, limit=101.0, parent="nobody") == [("exit 2", "rejected", "no_parent")]
