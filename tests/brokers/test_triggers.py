"""Orders that wait for a price: stops, stop-limits, trailing stops, touches. Numbers are those of fills.md."""

import pytest
from book_market import Market, fills, on_bars


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
