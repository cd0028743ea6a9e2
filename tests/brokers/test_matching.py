"""When and at what price an order fills.

Tests that bear a number such as E5 are the worked examples of docs/concepts/fills.md. What no example can cover is in
test_against_judge.
"""

import math
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brokers.costs import FillModel
from brokers.matching import Book, Order, Report
from feeds.instruments import Instrument

T0 = datetime(2024, 1, 2)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
CENTS = Instrument(symbol="A", tick="0.01", lot="1")
ROOT = Path(__file__).parents[2]


class Market:
    """A book and its market: events come one after another, and each answers what happened."""

    def __init__(self, *, bars: bool = False, **model: Any) -> None:
        model.setdefault("slippage_bps", 0.0)
        self.book = Book(CENTS, FillModel(**model), bars)
        self.now = T0

    def send(self, name: str, sign: int, lots: int, **terms: Any) -> list[tuple[Any, ...]]:
        """Submit an order now; prices in quote currency."""
        for price in ("limit", "stop", "trail"):
            if price in terms:
                terms[price] = round(terms[price] * 100.0)
        terms.setdefault("sent", self.now)
        return told(self.book.submit(Order(order_id=name, sign=sign, lots=lots, **terms), self.now))

    def buy(self, lots: int, **terms: Any) -> None:
        assert self.send("1", 1, lots, **terms)[-1][1] == "accepted"

    def sell(self, lots: int, **terms: Any) -> None:
        assert self.send("1", -1, lots, **terms)[-1][1] == "accepted"

    def bar(self, open_: float, high: float, low: float, close: float, volume: float = 1e9) -> list[tuple[Any, ...]]:
        """The bar of the hour that starts now."""
        opened, self.now = self.now, self.now + HOUR
        return told(self.book.on_bar(open_, high, low, close, volume, opened, self.now))

    def trade(self, price: float, size: float = 1e9) -> list[tuple[Any, ...]]:
        self.now += SECOND
        return told(self.book.on_trade(price, size, self.now))

    def quote(self, bid: float, ask: float, bid_lots: float = 1e9, ask_lots: float = 1e9) -> list[tuple[Any, ...]]:
        self.now += SECOND
        return told(self.book.on_quote(bid, ask, bid_lots, ask_lots, self.now))

    def depth(self, bids: Any, asks: Any, snapshot: bool = True) -> list[tuple[Any, ...]]:
        self.now += SECOND
        arrays = [np.array(side, float).reshape(-1, 2) for side in (bids, asks)]
        return told(self.book.on_depth(*arrays, snapshot, self.now))


def on_bars(**model: Any) -> Market:
    return Market(bars=True, **model)


def told(reports: list[Report]) -> list[tuple[Any, ...]]:
    """(order, "filled", lots, price, how), (order, "accepted" or "reduced", lots left), or (order, what, code)."""
    lines: list[tuple[Any, ...]] = []
    for report in reports:
        execution = report.execution
        name = report.order.order_id
        if execution is not None:
            how = "maker" if execution.maker else "taker"
            lines.append((name, "filled", execution.lots, execution.ticks / 100.0, how))
        elif report.what in ("accepted", "reduced"):
            lines.append((name, report.what, report.lots))
        else:
            assert report.what == "triggered" or report.lots == 0
            lines.append((name, report.what, report.code))
    return lines


def fills(lines: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What of `lines` are fills: (order, lots, price, how)."""
    return [(line[0], *line[2:]) for line in lines if line[1] == "filled"]


def test_every_worked_example_is_a_test() -> None:
    page = (ROOT / "docs" / "concepts" / "fills.md").read_text()
    examples = re.findall(r"^> \*\*(E\d+)\.\*\*", page, flags=re.MULTILINE)
    assert examples == [f"E{number}" for number in range(1, len(examples) + 1)]
    folder = ROOT / "tests" / "brokers"
    comments = re.findall(
        r"^ +# (E\d+(?:, E\d+)*)",
        "".join((folder / name).read_text() for name in ("test_matching.py", "test_costs.py")),
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


# Orders that wait for a price


@pytest.mark.parametrize(("sign", "stop", "price"), [(-1, 98.0, 97.90), (1, 100.5, 100.61)])
def test_a_stop_inside_a_bar_takes_its_price_less_slippage(sign: int, stop: float, price: float) -> None:
    # E13
    market = on_bars(slippage_bps=10.0)
    market.send("1", sign, 10, stop=stop)
    assert market.bar(100.0, 101.0, 97.0, 99.0) == [("1", "triggered", ""), ("1", "filled", 10, price, "taker")]


def test_a_stop_that_the_open_has_passed_takes_the_open() -> None:
    # E14
    market = on_bars()
    market.sell(10, stop=98.0)
    assert market.bar(95.0, 99.0, 94.0, 98.0) == [("1", "triggered", ""), ("1", "filled", 10, 95.0, "taker")]


def test_a_stop_on_trades_fills_from_the_next_trade_on() -> None:
    # E15
    market = Market()
    market.sell(10, stop=98.0)
    assert market.trade(98.01) == []
    assert market.trade(97.90) == [("1", "triggered", "")]
    assert market.trade(97.50, 4.0) == [("1", "filled", 4, 97.50, "taker")]
    assert market.trade(99.0) == [("1", "filled", 6, 99.0, "taker")]


def test_a_stop_on_quotes_fills_at_the_quote_that_sets_it_off() -> None:
    # E16
    market = Market()
    market.sell(10, stop=98.0)
    assert market.quote(98.01, 98.02) == []
    assert market.quote(97.95, 98.02, bid_lots=100.0) == [("1", "triggered", ""), ("1", "filled", 10, 97.95, "taker")]


def test_a_touch_is_set_off_the_other_way_round() -> None:
    # E17
    market = on_bars()
    market.buy(10, stop=98.0, touch=True)
    assert market.bar(100.0, 101.0, 98.01, 99.0) == []
    assert market.bar(100.0, 101.0, 98.0, 99.0) == [("1", "triggered", ""), ("1", "filled", 10, 98.0, "taker")]
    gapped = on_bars()
    gapped.buy(10, stop=98.0, touch=True)
    assert fills(gapped.bar(95.0, 99.0, 94.0, 98.0)) == [("1", 10, 95.0, "taker")]


def test_a_stop_limit_takes_its_stop_where_the_limit_allows() -> None:
    # E18
    market = on_bars()
    market.sell(10, stop=98.0, limit=97.5)
    assert market.bar(100.0, 101.0, 97.0, 99.0) == [("1", "triggered", ""), ("1", "filled", 10, 98.0, "taker")]


def test_a_stop_limit_set_off_inside_a_bar_knows_only_the_close_to_come_after() -> None:
    # E19, E20
    market = on_bars()
    market.sell(10, stop=98.0, limit=98.5)
    assert market.bar(100.0, 101.0, 97.0, 98.4) == [("1", "triggered", "")]
    assert market.bar(98.0, 98.6, 97.0, 98.0) == [("1", "filled", 10, 98.5, "maker")]
    market = on_bars()
    market.sell(10, stop=98.0, limit=98.5)
    assert fills(market.bar(100.0, 101.0, 97.0, 98.6)) == [("1", 10, 98.5, "maker")]


def test_a_stop_limit_set_off_at_the_open_has_the_whole_bar_before_it() -> None:
    market = on_bars()
    market.sell(10, stop=98.0, limit=98.5)
    assert market.bar(97.0, 98.6, 96.0, 96.5) == [("1", "triggered", ""), ("1", "filled", 10, 98.5, "maker")]


def test_a_trailing_stop_follows_the_high_of_a_bar_into_the_next() -> None:
    # E21
    market = on_bars()
    market.sell(10, trail=2.0)
    assert market.bar(100.0, 101.0, 99.0, 100.0) == []
    assert fills(market.bar(100.0, 100.5, 98.9, 100.0)) == [("1", 10, 99.0, "taker")]


def test_the_high_raises_a_trailing_stop_before_the_close() -> None:
    # E22
    market = on_bars()
    market.sell(10, trail=2.0)
    market.bar(100.0, 101.0, 99.5, 100.0)
    assert fills(market.bar(100.0, 105.0, 99.5, 102.5)) == [("1", 10, 103.0, "taker")]


def test_a_trailing_stop_that_the_open_has_passed_takes_the_open() -> None:
    # E23
    market = on_bars()
    market.sell(10, trail=2.0)
    market.bar(100.0, 101.0, 99.5, 100.0)
    assert fills(market.bar(97.0, 105.0, 96.0, 104.0)) == [("1", 10, 97.0, "taker")]


def test_a_trailing_distance_in_basis_points_is_rounded_up_to_the_tick() -> None:
    # E24
    market = Market()
    market.sell(10, trail_bps=150.0)
    assert market.trade(100.0) == market.trade(103.33) == market.trade(101.80) == market.trade(101.79) == []
    assert market.trade(101.70) == [("1", "triggered", "")]
    assert market.trade(101.60) == [("1", "filled", 10, 101.6, "taker")]


def test_a_trailing_buy_follows_the_ask_down() -> None:
    market = Market()
    market.buy(10, trail=1.0)
    assert market.quote(99.0, 100.0) == market.quote(94.0, 95.0) == market.quote(94.99, 95.99) == []
    assert fills(market.quote(95.0, 96.0)) == [("1", 10, 96.0, "taker")]


def test_inside_a_bar_the_stop_comes_before_the_target() -> None:
    # E25
    market = on_bars()
    market.book.position = 10
    market.send("target", -1, 10, limit=102.0, group="exit")
    market.send("stop", -1, 10, stop=98.0, group="exit")
    assert market.bar(100.0, 103.0, 97.0, 100.0) == [
        ("stop", "triggered", ""),
        ("stop", "filled", 10, 98.0, "taker"),
        ("target", "cancelled", "oco"),
    ]


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


# Groups and brackets


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


def bracket(market: Market, low: float, high: float, **entry: Any) -> None:
    """Buy 10, with a stop at `low` and a target at `high`."""
    market.send("entry", 1, 10, **entry)
    market.send("stop", -1, 10, stop=low, parent="entry", group="exit")
    market.send("target", -1, 10, limit=high, parent="entry", group="exit")


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
