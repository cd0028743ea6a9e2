"""When and at what price market and limit orders fill, on each kind of market.

Tests that bear a number such as E5 are the worked examples of docs/concepts/fills.md. What no example can cover is in
test_against_judge.
"""

import math
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from book_market import CENTS, HOUR, SECOND, T0, Market, fills, on_bars, told

from brokers.costs import FillModel
from brokers.matching import Book, Order

ROOT = Path(__file__).parents[2]
FILES = ("test_matching.py", "test_triggers.py", "test_lifecycle.py", "test_brackets.py", "test_costs.py")


def test_every_worked_example_is_a_test() -> None:
    page = (ROOT / "docs" / "concepts" / "fills.md").read_text()
    examples = re.findall(r"^> \*\*(E\d+)\.\*\*", page, flags=re.MULTILINE)
    assert examples == [f"E{number}" for number in range(1, len(examples) + 1)]
    folder = ROOT / "tests" / "brokers"
    comments = re.findall(
        r"^ +# (E\d+(?:, E\d+)*)",
        "".join((folder / name).read_text() for name in FILES),
        flags=re.MULTILINE,
    )
    tested = {number for comment in comments for number in comment.split(", ")}
    assert tested == set(examples)


# Which market


def test_on_bars_an_order_takes_the_next_open() -> None:
    # E1
    market = on_bars()
    market.bar(100.0, 101.0, 99.0, 100.5)
    market.buy(2)
    (report,) = market.book.on_bar(102.0, 103.0, 101.0, 102.5, 1e9, T0 + HOUR, T0 + 2 * HOUR)
    assert told([report]) == [("1", "filled", 2, 102.0, "taker")]
    assert report.market_time == T0 + HOUR
    assert report.execution is not None
    assert report.execution.market == 102.0
    assert market.book.position == 2
    assert market.book.idle


def test_an_order_sent_inside_a_bar_waits_for_the_next_open() -> None:
    # E2
    market = on_bars()
    market.buy(2, sent=T0 + HOUR / 2)
    assert market.bar(50.0, 51.0, 49.0, 50.0) == []
    assert market.bar(104.0, 105.0, 103.0, 104.0) == [("1", "filled", 2, 104.0, "taker")]


def test_an_order_that_took_a_microsecond_to_settle_is_in_time_and_one_of_two_is_not() -> None:
    for late, lots in ((1, 2), (2, 0)):
        market = on_bars()
        market.buy(2, sent=T0 + timedelta(microseconds=late))
        assert sum(line[1] for line in fills(market.bar(100.0, 101.0, 99.0, 100.0))) == lots


# Market orders


def test_a_market_order_walks_the_depth_one_fill_a_level() -> None:
    # E3, E29
    market = Market()
    market.buy(10)
    asks = [(100.05, 20.0), (100.01, 4.0), (100.02, 3.0)]
    reports = market.book.on_depth([(99.99, 5.0)], asks, True, T0)
    assert told(reports) == [
        ("1", "filled", 4, 100.01, "taker"),
        ("1", "filled", 3, 100.02, "taker"),
        ("1", "filled", 3, 100.05, "taker"),
    ]
    executions = [report.execution for report in reports if report.execution is not None]
    assert [execution.market for execution in executions] == pytest.approx([100.0] * 3)
    assert [execution.half_spread for execution in executions] == pytest.approx([0.01] * 3)


def test_a_market_order_takes_what_quotes_show_and_the_rest_of_the_next() -> None:
    # E4
    market = Market()
    market.buy(10)
    assert market.quote(100.0, 100.01, ask_lots=6.0) == [("1", "filled", 6, 100.01, "taker")]
    assert market.quote(100.0, 100.03, ask_lots=50.0) == [("1", "filled", 4, 100.03, "taker")]


def test_where_there_are_quotes_a_market_order_does_not_take_trades() -> None:
    market = Market()
    market.quote(100.0, 100.01)
    market.buy(1)
    assert market.trade(99.0) == []
    assert market.quote(100.0, 100.02) == [("1", "filled", 1, 100.02, "taker")]


def test_a_book_that_is_told_of_quotes_takes_no_trade_before_the_first() -> None:
    book = Book(CENTS, FillModel(), bars=False, quoted=True)
    book.submit(Order(order_id="1", sign=1, lots=1, sent=T0), T0)
    assert book.on_trade(99.0, 10.0, T0 + SECOND) == []


def test_a_side_that_is_not_shown_fills_nothing() -> None:
    for bid, ask, size in ((100.0, math.nan, 5.0), (100.0, 0.0, 5.0), (100.0, math.inf, 5.0), (100.0, 100.01, 0.0)):
        market = Market()
        market.buy(1)
        assert market.quote(bid, ask, ask_lots=size) == []
        assert not market.book.idle
    assert market.book.mid == 0.0


# Limit orders


@pytest.mark.parametrize(("sign", "limit"), [(1, 99.0), (-1, 101.0)])
def test_a_limit_fills_where_the_bar_trades_through_it_not_where_it_touches(sign: int, limit: float) -> None:
    # E5
    market = on_bars(slippage_bps=50.0)
    market.send("1", sign, 10, limit=limit)
    assert market.bar(100.0, 101.0, 99.0, 100.0) == []
    assert market.bar(100.0, 101.01, 98.99, 100.0) == [("1", "filled", 10, limit, "maker")]


def test_a_resting_limit_that_the_market_gaps_over_fills_at_the_open() -> None:
    # E6
    market = on_bars()
    market.buy(10, limit=99.0)
    market.bar(100.0, 101.0, 99.0, 100.0)
    assert market.bar(95.0, 96.0, 94.0, 95.0) == [("1", "filled", 10, 95.0, "maker")]


def test_an_open_between_ticks_is_rounded_against_a_resting_limit() -> None:
    market = on_bars()
    market.buy(10, limit=99.0)
    market.bar(100.0, 101.0, 99.0, 100.0)
    assert market.bar(95.005, 96.0, 94.0, 95.0) == [("1", "filled", 10, 95.01, "maker")]


def test_a_new_limit_takes_a_better_open_but_never_beyond_its_limit() -> None:
    # E7
    market = on_bars(slippage_bps=200.0)
    market.buy(10, limit=101.0)
    assert market.bar(100.0, 102.0, 99.0, 100.0) == [("1", "filled", 10, 101.0, "taker")]


def test_a_limit_on_trades_takes_a_better_trade_when_new_and_gets_its_limit_when_it_rested() -> None:
    # E8
    new = Market()
    new.buy(10, limit=100.0)
    assert new.trade(99.5) == [("1", "filled", 10, 99.5, "taker")]
    rested = Market()
    rested.buy(10, limit=100.0)
    assert rested.trade(100.0) == []
    assert rested.trade(99.5) == [("1", "filled", 10, 100.0, "maker")]


def test_a_limit_takes_the_levels_within_it_and_then_rests() -> None:
    # E9
    market = Market()
    market.buy(10, limit=100.02)
    assert market.depth([], [(100.01, 4), (100.02, 3), (100.05, 20)]) == [
        ("1", "filled", 4, 100.01, "taker"),
        ("1", "filled", 3, 100.02, "taker"),
    ]
    update = [(100.0, 2), (100.01, 0), (100.02, 0)]
    assert market.depth([], update, snapshot=False) == [("1", "filled", 2, 100.02, "maker")]
    assert market.book.orders["1"].lots == 1
    assert market.depth([], [(100.05, 7)], snapshot=False) == []  # the level at 100.00 is used up
    assert market.depth([], [(100.0, 7)], snapshot=False) == [("1", "filled", 1, 100.02, "maker")]


def test_a_resting_limit_is_filled_by_a_trade_through_it_beside_quotes() -> None:
    market = Market()
    market.buy(5, limit=99.0)
    market.quote(100.0, 100.01)
    assert market.trade(99.0) == []
    assert market.trade(98.99, 3.0) == [("1", "filled", 3, 99.0, "maker")]


# The queue


def test_the_queue_is_served_before_the_order() -> None:
    # E10
    market = Market(queue=True)
    market.buy(5, limit=100.0)
    market.quote(100.0, 100.01, bid_lots=30.0)
    assert market.trade(100.0, 20.0) == []
    market.quote(100.0, 100.01, bid_lots=8.0)
    assert market.trade(100.0, 10.0) == [("1", "filled", 2, 100.0, "maker")]
    assert market.trade(100.0, 3.0) == [("1", "filled", 3, 100.0, "maker")]


def test_a_queue_that_is_not_shown_has_no_end_until_the_market_trades_through() -> None:
    # E11
    market = Market(queue=True)
    market.buy(5, limit=99.99)
    market.quote(100.0, 100.01)
    assert market.trade(99.99, 1000.0) == []
    market.quote(99.99, 100.01, bid_lots=40.0)
    assert market.trade(99.99, 39.0) == []
    assert market.trade(99.98, 7.0) == [("1", "filled", 5, 99.99, "maker")]


def test_two_own_orders_do_not_share_what_passed_the_queue() -> None:
    # E12
    market = Market(queue=True)
    market.send("1", 1, 4, limit=100.0)
    market.send("2", 1, 4, limit=100.0)
    market.quote(100.0, 100.01, bid_lots=6.0)
    assert fills(market.trade(100.0, 12.0)) == [("1", 4, 100.0, "maker"), ("2", 2, 100.0, "maker")]


def test_a_better_price_than_all_that_are_shown_has_no_queue() -> None:
    market = Market(queue=True)
    market.buy(5, limit=100.0)
    market.quote(99.98, 100.01)
    assert market.trade(100.0, 4.0) == [("1", "filled", 4, 100.0, "maker")]


def test_the_queue_behind_the_best_level_is_known_by_depth() -> None:
    market = Market(queue=True)
    market.sell(5, limit=100.03)
    market.depth([], [(100.01, 9), (100.03, 6)])
    assert market.trade(100.03, 8.0) == [("1", "filled", 2, 100.03, "maker")]
    market.depth([], [(100.01, 9), (100.03, 0)], snapshot=False)
    assert market.trade(100.03, 2.0) == [("1", "filled", 2, 100.03, "maker")]


# Volume


def test_participation_caps_what_all_orders_take_of_a_bar() -> None:
    # E30
    market = on_bars(participation_max=0.1)
    market.buy(10)
    assert market.bar(100.0, 101.0, 99.0, 100.0, volume=9.0) == []
    assert market.bar(100.0, 101.0, 99.0, 100.0, volume=55.0) == [("1", "filled", 5, 100.0, "taker")]
    market.send("2", -1, 10)
    assert fills(market.bar(100.0, 101.0, 99.0, 100.0, volume=80.0)) == [
        ("1", 5, 100.0, "taker"),
        ("2", 3, 100.0, "taker"),
    ]


def test_participation_caps_what_is_taken_of_a_trade() -> None:
    # E31
    market = Market(participation_max=0.5)
    market.buy(4)
    lines = market.trade(10.0, 2.0) + market.trade(11.0, 4.0) + market.trade(12.0, 100.0)
    assert fills(lines) == [("1", 1, 10.0, "taker"), ("1", 2, 11.0, "taker"), ("1", 1, 12.0, "taker")]


# Hostile markets


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
@pytest.mark.parametrize("place", range(4))
def test_an_impossible_bar_stops_the_run(bad: float, place: int) -> None:
    prices = [100.0, 101.0, 99.0, 100.0]
    prices[place] = bad
    market = on_bars()
    market.buy(1, limit=50.0)
    with pytest.raises(ValueError, match="want a bar"):
        market.bar(*prices)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_an_impossible_trade_stops_the_run(bad: float) -> None:
    market = Market()
    market.buy(1)
    with pytest.raises(ValueError, match="want a trade"):
        market.trade(bad)


def test_a_bar_whose_open_lies_outside_its_range_is_the_wider_for_it() -> None:
    market = on_bars()
    market.buy(1, limit=99.0)
    market.bar(100.0, 101.0, 99.5, 100.0)
    assert fills(market.bar(98.0, 101.0, 99.5, 100.0)) == [("1", 1, 98.0, "maker")]


def test_prices_a_hair_off_the_tick_count_as_on_it() -> None:
    market = Market()
    market.buy(1, limit=0.3)
    assert market.trade(0.1 + 0.2) == market.trade(0.3 - 1e-12) == []
    assert fills(market.trade(0.29)) == [("1", 1, 0.3, "maker")]


# Cost


def test_an_event_costs_what_it_touches_not_what_rests() -> None:
    # Counted in orders looked at, not in seconds: the machine may be busy.
    market = Market(queue=True)
    for number in range(20_000):
        price = 50.0 + number % 1000 / 100.0
        market.send(f"buy {number}", 1, 1, limit=price)
        market.send(f"stop {number}", -1, 1, stop=price)
    market.quote(100.0, 100.01)
    looked = 0

    class Seen(dict[int, Order]):
        """A price's orders that count when they are read."""

        def values(self) -> Any:
            nonlocal looked
            looked += len(self)
            return super().values()

    shelves = market.book._orders.shelves
    for shelf in (*shelves.limits, *shelves._stops):
        shelf._orders = {key: Seen(orders) for key, orders in shelf._orders.items()}
    assert market.quote(100.0, 100.01) == market.trade(100.0) == market.depth([(100.0, 1)], [(100.01, 1)]) == []
    assert looked == 0
    assert len(market.trade(59.99)) == 0  # at a limit, not through it
    assert looked == 20
    assert len(fills(market.trade(59.98))) == 20
    assert looked <= 60
    assert len(fills(market.quote(59.99, 60.0))) == 20
    assert looked <= 140
