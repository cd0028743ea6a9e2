"""What ccxt hands over becomes events or is refused; and how a stream's state is told."""

import math
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.crypto_parse import BadItemError, bar, counted_id, depth, key, milliseconds, moment, quote, trade
from feeds.events import FeedState, FeedStatus, Side
from feeds.health import Health

NOW = datetime(2024, 1, 2, 14, 30, 0, 500_000)
THEN = datetime(2024, 1, 2, 14, 30)
THEN_MS = 1_704_205_800_000
TRADE = {"id": "7", "timestamp": THEN_MS, "price": 100.5, "amount": 2.0, "side": "sell"}
TICKER = {"timestamp": None, "bid": 99.0, "ask": 100.0, "bidVolume": 1.0, "askVolume": 0.0}
BOOK = {"timestamp": THEN_MS, "bids": [[99.0, 1.0], [98.0, 2.0]], "asks": [[100.0, 3.0], [101.0, 4.0], [102.0, 1.0]]}
ROW = [THEN_MS, 10.0, 12.0, 9.0, 11.0, 5.0]
HOSTILE = [None, math.nan, math.inf, -math.inf, -1.0, "1.0", [1], {}, True]


def test_a_trade_has_the_time_of_the_exchange_and_the_time_of_its_arrival() -> None:
    event = trade(TRADE, "BTC/USDT", NOW)

    assert (event.symbol, event.event_time, event.received) == ("BTC/USDT", THEN, NOW)
    assert (event.price, event.size, event.side) == (100.5, 2.0, Side.SELL)
    assert event.trade_id == 0


def test_a_trade_without_a_side_leaves_it_unset() -> None:
    assert not hasattr(trade(TRADE | {"side": None}, "A", NOW), "side")
    assert not hasattr(trade(TRADE | {"side": "both"}, "A", NOW), "side")


@pytest.mark.parametrize("value", [*HOSTILE, 0.0])
@pytest.mark.parametrize("field", ["price", "amount", "timestamp"])
def test_a_trade_that_cannot_be_is_refused(field: str, value: Any) -> None:
    with pytest.raises(BadItemError, match="want a"):
        trade(TRADE | {field: value}, "A", NOW)


@pytest.mark.parametrize("value", [None, "", "x", "-1", "1.0", "²", "1" * 19, 5])
def test_an_id_that_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(BadItemError, match="want a count"):
        counted_id({"id": value})


def test_keys_tell_trades_apart_with_and_without_ids() -> None:
    assert counted_id({"id": "000000000000000012"}) == 12
    assert key(TRADE) == "7"
    bare = TRADE | {"id": None}
    assert key(bare) == key(dict(bare))
    assert key(bare) != key(bare | {"amount": 3.0})


def test_a_quote_without_a_time_is_of_its_arrival() -> None:
    event = quote(TICKER, "A", NOW)

    assert (event.event_time, event.bid, event.ask, event.bid_size, event.ask_size) == (NOW, 99.0, 100.0, 1.0, 0.0)
    assert quote(TICKER | {"timestamp": THEN_MS}, "A", NOW).event_time == THEN


@pytest.mark.parametrize("field", ["bid", "ask", "bidVolume", "askVolume"])
@pytest.mark.parametrize("value", HOSTILE)
def test_a_quote_that_cannot_be_is_refused(field: str, value: Any) -> None:
    with pytest.raises(BadItemError):
        quote(TICKER | {field: value}, "A", NOW)


def test_a_crossed_quote_and_a_crossed_book_are_refused() -> None:
    with pytest.raises(BadItemError, match=r"want bid <= ask, was 100.5 and 100.0"):
        quote(TICKER | {"bid": 100.5}, "A", NOW)
    with pytest.raises(BadItemError, match=r"want bid <= ask"):
        depth(BOOK | {"bids": [[100.5, 1.0]]}, 10, "A", NOW)


def test_a_book_is_its_best_levels_as_a_snapshot() -> None:
    event = depth(BOOK, 2, "A", NOW)

    assert event.snapshot
    assert event.event_time == THEN
    assert np.array_equal(event.bids, [[99.0, 1.0], [98.0, 2.0]])
    assert np.array_equal(event.asks, [[100.0, 3.0], [101.0, 4.0]])
    empty = depth(BOOK | {"bids": []}, 2, "A", NOW)
    assert empty.bids.shape == (0, 2)


@pytest.mark.parametrize(
    "side",
    [
        None,
        [[99.0]],
        [["x", 1.0]],
        [[math.nan, 1.0]],
        [[99.0, math.inf]],
        [[99.0, 0.0]],
        [[-1.0, 1.0]],
        [[98.0, 1.0], [99.0, 1.0]],
        [[99.0, 1.0], [99.0, 1.0]],
        7,
    ],
)
def test_a_side_of_a_book_that_cannot_be_is_refused(side: Any) -> None:
    with pytest.raises(BadItemError):
        depth(BOOK | {"bids": side}, 10, "A", NOW)


def test_a_bar_is_known_at_its_close() -> None:
    event = bar(ROW, timedelta(minutes=1), "A", NOW)

    assert (event.open_time, event.event_time) == (THEN, THEN + timedelta(minutes=1))
    assert (event.open, event.high, event.low, event.close, event.volume) == (10.0, 12.0, 9.0, 11.0, 5.0)


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("value", HOSTILE)
def test_a_bar_that_cannot_be_is_refused(place: int, value: Any) -> None:
    with pytest.raises(BadItemError):
        bar([*ROW[:place], value, *ROW[place + 1 :]], timedelta(minutes=1), "A", NOW)


@pytest.mark.parametrize(
    "row", [ROW[:5], [THEN_MS, 10.0, 10.5, 9.0, 11.0, 1.0], [THEN_MS, 10.0, 12.0, 10.5, 11.0, 1.0]]
)
def test_a_bar_whose_prices_contradict_each_other_is_refused(row: list[Any]) -> None:
    with pytest.raises(BadItemError):
        bar(row, timedelta(minutes=1), "A", NOW)


@given(st.datetimes(datetime(2000, 1, 1), datetime(2199, 12, 31)))
def test_milliseconds_and_moments_are_each_others_inverse(time: datetime) -> None:
    whole = time.replace(microsecond=time.microsecond // 1000 * 1000)

    assert moment(milliseconds(time)) == whole


@given(st.one_of(st.integers(), st.floats(), st.text(), st.none(), st.booleans(), st.lists(st.integers())))
def test_any_time_is_a_moment_or_is_refused(value: Any) -> None:
    try:
        time = moment(value)
    except BadItemError:
        return
    assert datetime(2000, 1, 1) <= time < datetime(2200, 1, 1)


class Told(list[FeedStatus]):
    """The state of one stream, and what was told of it."""

    def __init__(self) -> None:
        super().__init__()
        self.health = Health("binance trades", "BTC/USDT", 5.0, self.append)

    def states(self) -> list[str]:
        return [status.state.name for status in self]


def test_a_state_is_told_when_it_changes_and_not_again() -> None:
    told = Told()
    health = told.health

    health.well("connected")
    health.well("connected")
    health.stale("connection closed")
    health.stale("connection refused")
    health.gap("3 trades are missing", 3)
    health.gap("2 trades are missing", 2)
    health.well("3 trades fetched", 3)
    health.well("connected")

    assert told.states() == ["CONNECTED", "STALE", "GAP", "RECOVERED"]
    assert [status.value for status in told] == [0.0, 0.0, 3.0, 3.0]
    assert {(status.feed, status.symbol) for status in told} == {("binance trades", "BTC/USDT")}


def test_a_gap_before_the_first_delivery_is_the_start() -> None:
    told = Told()

    told.health.gap("12 trades are missing", 12)
    told.health.well("12 trades fetched", 12)

    assert told.states() == ["CONNECTED"]


def test_an_exchange_that_cannot_be_reached_at_first_is_stale_and_then_recovered() -> None:
    told = Told()

    told.health.stale("could not be reached")
    assert not told.health.sound
    told.health.well("connected")

    assert told.states() == ["STALE", "RECOVERED"]


def test_lag_is_told_once_an_episode_which_ends_well_below_the_limit() -> None:
    told = Told()
    told.health.well("connected")

    for lag_s in (1.0, 5.1, 9.0, 4.9, 2.6, 2.4, 1.0, -6.0):
        told.health.lag(lag_s)

    assert told.states() == ["CONNECTED", "LAGGING", "RECOVERED", "LAGGING"]
    assert [status.value for status in told] == [0.0, 5.1, 0.0, -6.0]
    assert "ahead of this machine's clock" in told[-1].detail


def test_lag_does_not_hide_that_something_is_missing() -> None:
    told = Told()
    told.health.stale("connection closed")
    told.health.lag(60.0)

    assert told.states() == ["STALE"]


def test_what_was_dropped_is_told_ever_more_rarely_and_changes_no_state() -> None:
    told = Told()
    told.health.well("connected")
    told.health.stale("connection closed")

    for _ in range(10):
        told.health.bad("want a positive price, was -1.0")

    assert [status.value for status in told[2:]] == [1.0, 2.0, 4.0, 8.0]
    assert {status.state for status in told[2:]} == {FeedState.DROPPED}
    assert told[-1].detail == "want a positive price, was -1.0 (8 so far)"
    assert told.health.state is FeedState.STALE
