"""Yahoo's stream of prices, end to end: a websocket and a chart on 127.0.0.1 that fail in every way known."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yfinance.pricing_pb2 import PricingData

from feeds.clock import utc_now
from feeds.yahoo_live import YahooFeed, YahooLiveConfig
from feeds.yahoo_stream import Tape, pricing
from tests.feeds.yahoo_server import Desk, closed_port, desk_at
from tests.feeds.yahoo_stream_server import YahooStream, pricing_text

STALE_S = 0.4
DEADLINE_S = 30.0  # generous: the machine may be busy
BTC = "BTC-USD"
T = datetime(2024, 7, 2, 15, 0)
T_MS = round(T.replace(tzinfo=UTC).timestamp() * 1e3)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_at(utc_now(), tmp_path / "cache") as desk:
        for listing in desk.server.listings.values():  # open whenever the tests run
            listing.weekends, listing.opens, listing.closes = True, datetime.min.time(), datetime.min.time()
            listing.holidays, listing.half_days = frozenset(), {}
            listing.zone = "UTC" if 2 < utc_now().hour < 22 else "Asia/Tokyo"  # far from its midnight
        yield desk


@pytest.fixture
def stream() -> Iterator[YahooStream]:
    with YahooStream() as stream:
        yield stream


class Listening:
    """A feed of prices that runs, and what it has pushed."""

    def __init__(self, feed: YahooFeed) -> None:
        self.ticks: list[tuple[str, Any]] = []
        self.task = asyncio.create_task(feed.run(lambda output, value: self.ticks.append((output, value))))

    def prices(self, symbol: str = BTC) -> list[float]:
        return [value.price for name, value in self.ticks if name == "trades" and value.symbol == symbol]

    def statuses(self, symbol: str = BTC) -> list[Any]:
        return [value for name, value in self.ticks if name == "status" and value.symbol == symbol]

    def states(self, symbol: str = BTC) -> list[str]:
        return [status.state.name for status in self.statuses(symbol)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                assert not self.task.done(), self.task
                await asyncio.sleep(0.002)


@asynccontextmanager
async def listening(desk: Desk, stream: YahooStream, *symbols: str, **options: Any) -> AsyncIterator[Listening]:
    place: dict[str, Any] = {"streams": ("trades",), "cache_dir": str(desk.folder), "stream_url": stream.url}
    place |= {"stale_after_s": DEADLINE_S, "timeout_s": 5.0}
    config = YahooLiveConfig(symbols=symbols or (BTC,), **place | options)
    live = Listening(YahooFeed(config, session=desk.session))
    try:
        await live.until(lambda: stream.subscribers() == 1)
        yield live
    finally:
        live.task.cancel()
        with suppress(asyncio.CancelledError):
            await live.task


# --- what a message says ---


def test_a_price_becomes_a_trade_of_what_the_days_volume_grew_by(desk: Desk, stream: YahooStream) -> None:
    now = utc_now().replace(microsecond=0)
    ms = round(now.replace(tzinfo=UTC).timestamp() * 1e3)

    async def work() -> Listening:
        async with listening(desk, stream, "aapl") as live:
            stream.send("AAPL", 189.84, time=ms, day_volume=1_000, quote_type=8, last_size=7)
            stream.send("AAPL", 189.85, time=ms + 250, day_volume=1_300, quote_type=8, last_size=7)
            stream.send("AAPL", 189.85, time=ms + 250, day_volume=1_300, quote_type=8, last_size=7)  # again
            stream.send("AAPL", 0.0001, time=ms + 500, day_volume=1_300, quote_type=8)
            await live.until(lambda: len(live.prices("AAPL")) == 3)
        return live

    live = asyncio.run(work())

    trades = [value for name, value in live.ticks if name == "trades"]
    assert [(trade.symbol, trade.price, trade.size) for trade in trades] == [
        ("AAPL", 189.84, 7.0),  # before it nothing is known of the day
        ("AAPL", 189.85, 300.0),
        ("AAPL", 0.0001, 0.0),
    ]
    assert [trade.event_time - now for trade in trades] == [timedelta(milliseconds=250 * i) for i in range(3)]
    assert all(abs(trade.received - utc_now()) < timedelta(minutes=1) for trade in trades)
    assert not hasattr(trades[0], "side")
    assert live.states("AAPL") == ["CONNECTED"]
    assert stream.subscriptions == [["AAPL"]]


@pytest.mark.parametrize(("wanted", "prices"), [(False, [2.0, 4.0]), (True, [1.0, 2.0, 3.0, 4.0])])
def test_prices_outside_the_session_are_for_those_who_want_them(
    desk: Desk, stream: YahooStream, wanted: bool, prices: list[float]
) -> None:
    async def work() -> Listening:
        async with listening(desk, stream, extended_hours=wanted) as live:
            for price, hours in ((1.0, 0), (2.0, 1), (3.0, 2), (4.0, 1)):
                stream.send(BTC, price, market_hours=hours)
            await live.until(lambda: 4.0 in live.prices())
        return live

    assert asyncio.run(work()).prices() == prices


def test_what_was_known_before_is_no_event_and_late_prices_are_told(desk: Desk, stream: YahooStream) -> None:
    hour_ago = round((datetime.now(UTC) - timedelta(hours=1)).timestamp() * 1e3)
    stream.snapshots[BTC] = pricing_text(BTC, 1.0, time=hour_ago)

    async def work() -> Listening:
        async with listening(desk, stream, lag_max_s=600.0) as live:
            await live.until(lambda: live.states() == ["CONNECTED"])  # the last price of before, at the subscription
            stream.send(BTC, 2.0, time=hour_ago + 1)  # an exchange whose prices come late
            stream.send(BTC, 3.0, time=hour_ago + 2)
            stream.send(BTC, 4.0)
            await live.until(lambda: 4.0 in live.prices())
        return live

    live = asyncio.run(work())

    assert live.prices() == [2.0, 3.0, 4.0]
    assert live.states() == ["CONNECTED", "LAGGING", "RECOVERED"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "Expecting value"),
        ("[1]", "want an object"),
        ('{"type":"pricing"}', "base64"),
        ('{"type":"pricing","message":7}', "want an object with a text"),
        ('{"type":"pricing","message":"***"}', "base64|Only base64"),
        ('{"type":"pricing","message":"AAAA"}', "PricingData"),
        ("[" * 100_000, "nested too deeply"),
        (b'{"type": "\xff"}', "decode"),
    ],
)
def test_what_cannot_be_read_says_why(text: str | bytes, wanted: str) -> None:
    with pytest.raises(ValueError, match=f"(?i){wanted}"):
        pricing(text)


def test_messages_of_other_types_are_passed_over() -> None:
    assert pricing('{"type":"heartbeat"}') is None


@pytest.mark.parametrize(
    ("price", "fields", "wanted"),
    [
        (math.nan, {}, "want a positive price, was nan"),
        (math.inf, {}, "want a positive price, was inf"),
        (-1.0, {}, "want a positive price, was -1"),
        (0.0, {}, "want a positive price, was 0"),
        (1.0, {"time": 0}, "want a time in ms"),
        (1.0, {"time": -5}, "want a time in ms"),
        (1.0, {"time": T_MS + 2 * 3_600_000}, "want a time in ms"),
        (1.0, {"time": 2**62}, "want a time in ms"),
    ],
)
def test_what_cannot_be_is_refused(price: float, fields: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wanted)):
        Tape(BTC, False, 60.0).trade(PricingData(**{"id": BTC, "price": price, "time": T_MS} | fields), T)


def test_nothing_that_comes_ends_the_feed(desk: Desk, stream: YahooStream) -> None:
    async def work() -> Listening:
        async with listening(desk, stream) as live:
            for text in ("", "[1]", '{"type":"pricing","message":"AAAA"}', "[" * 60_000, b"\xff\xfe", b"\x00"):
                stream.send_text(text)
            stream.send(BTC, 1.0)
            for price in (math.nan, -1.0, 0.0):
                stream.send(BTC, price)
            stream.send_text(pricing_text("OTHER", 5.0))
            stream.send(BTC, 2.0)
            await live.until(lambda: 2.0 in live.prices())
        return live

    live = asyncio.run(work())

    assert live.prices() == [1.0, 2.0]
    details = [status.detail for status in live.statuses()]
    assert details[0] == "the stream delivers"
    assert details[1] == "want a positive price, was nan (1 so far)"
    assert len(details) == 3  # the 1st and the 2nd of three
    assert live.states() == ["CONNECTED", "DROPPED", "DROPPED"]


# --- trouble ---


@pytest.mark.parametrize("fault", ["clean close", "abort", "outage", "too long a message"])
def test_a_lost_connection_is_told_and_dialled_again(desk: Desk, stream: YahooStream, fault: str) -> None:
    async def work() -> Listening:
        async with listening(desk, stream, BTC, "AAPL") as live:
            stream.send(BTC, 1.0, day_volume=100)
            stream.send("AAPL", 1.0, day_volume=100)
            await live.until(lambda: live.prices() == live.prices("AAPL") == [1.0])
            if fault == "clean close":
                stream.close()
            elif fault == "abort":
                stream.abort()
            elif fault == "outage":
                stream.down()
            else:
                stream.send_text("x" * 100_000)
            await live.until(lambda: live.states() == live.states("AAPL") == ["CONNECTED", "STALE"])
            if fault == "outage":
                stream.up()
            await live.until(lambda: stream.dials == 2 and stream.subscribers() == 1)
            for i in range(5):
                stream.send(BTC, 2.0 + i, day_volume=1_000 + i)
            await live.until(lambda: len(live.prices()) == 6)
        return live

    live = asyncio.run(work())

    assert live.prices() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    sizes = [value.size for name, value in live.ticks if name == "trades" and value.symbol == BTC]
    assert sizes == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0]  # what was traded meanwhile belongs to no one of them
    assert live.states() == ["CONNECTED", "STALE", "RECOVERED"]
    assert live.states("AAPL") == ["CONNECTED", "STALE"]  # it has not spoken since
    assert "connection is lost" in live.statuses()[1].detail
    assert stream.subscriptions == [[BTC, "AAPL"]] * 2


def test_a_stall_with_an_open_socket_is_stale_where_the_chart_moves_on(desk: Desk, stream: YahooStream) -> None:
    async def work() -> Listening:
        async with listening(desk, stream, stale_after_s=STALE_S) as live:
            stream.send(BTC, 1.0)
            await live.until(lambda: live.prices() == [1.0])
            desk.server.now += timedelta(minutes=1)  # trading goes on
            stream.stalled = True
            await live.until(lambda: live.states()[-1] == "STALE" and stream.dials >= 2)
            stream.stalled = False
            await live.until(lambda: stream.subscribers() == 1)
            while live.states()[-1] == "STALE":
                stream.send(BTC, 2.0, time=round(datetime.now(UTC).timestamp() * 1e3) + 61_000)
                await asyncio.sleep(0.01)
        return live

    live = asyncio.run(work())

    assert live.states()[:3] == ["CONNECTED", "STALE", "RECOVERED"]
    assert "the chart has a price of" in live.statuses()[1].detail
    assert live.statuses()[1].value >= STALE_S


def test_a_market_at_rest_is_not_stale_and_its_socket_is_replaced_all_the_same(desk: Desk, stream: YahooStream) -> None:
    desk.server.now = datetime.now(UTC) - timedelta(minutes=10)  # the chart's last price is of then, and stays

    async def work() -> Listening:
        async with listening(desk, stream, stale_after_s=STALE_S) as live:
            stream.send(BTC, 1.0)
            await live.until(lambda: live.prices() == [1.0])
            charts = len(desk.server.charts())
            await live.until(lambda: stream.dials >= 3 and len(desk.server.charts()) >= charts + 2)
        return live

    assert asyncio.run(work()).states() == ["CONNECTED"]


def test_a_closed_market_counts_as_connected_once_the_chart_says_so(desk: Desk, stream: YahooStream) -> None:
    today = desk.server.now.date()
    desk.server.listings["AAPL"].holidays = frozenset([today, today + timedelta(days=1)])

    async def work() -> Listening:
        async with listening(desk, stream, "AAPL", stale_after_s=STALE_S) as live:
            await live.until(lambda: bool(live.states("AAPL")))
        return live

    live = asyncio.run(work())

    assert live.states("AAPL") == ["CONNECTED"]
    assert "at rest" in live.statuses("AAPL")[0].detail


def test_silence_that_no_chart_explains_is_stale(desk: Desk, stream: YahooStream) -> None:
    desk.session.port = closed_port()

    async def work() -> Listening:
        async with listening(desk, stream, stale_after_s=STALE_S) as live:
            await live.until(lambda: bool(live.states()))
        return live

    live = asyncio.run(work())

    assert live.states() == ["STALE"]
    assert "the chart cannot be asked: BTC-USD: Yahoo could not be reached" in live.statuses()[0].detail


def test_one_symbol_may_fall_silent_alone(desk: Desk, stream: YahooStream) -> None:
    async def work() -> Listening:
        async with listening(desk, stream, BTC, "AAPL", stale_after_s=2.0) as live:  # a busy machine is not silence
            stream.send(BTC, 1.0)
            stream.send("AAPL", 1.0)
            await live.until(lambda: live.prices() == live.prices("AAPL") == [1.0])
            desk.server.now += timedelta(minutes=1)
            price = 1.0
            while "STALE" not in live.states("AAPL"):
                price += 1.0
                stream.send(BTC, price)
                await asyncio.sleep(0.02)
        return live

    live = asyncio.run(work())

    assert live.states("AAPL") == ["CONNECTED", "STALE"]
    assert live.states() == ["CONNECTED"]
    assert stream.dials == 1


def test_a_feed_stops_in_the_middle_of_a_farewell_that_nobody_answers(desk: Desk, stream: YahooStream) -> None:
    async def work() -> None:
        async with listening(desk, stream, stale_after_s=STALE_S) as live:
            stream.freeze()
            await live.until(lambda: len(desk.server.charts()) >= 1)  # the silence has been noticed, the close is sent

    asyncio.run(work())  # a socket left open would be an error of the test run


# --- the tape ---


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.integers(-3_000, 3_000),  # ms after the one before
            st.sampled_from([1.0, 2.0, 189.84, -1.0, math.nan]),
            st.integers(0, 200),  # volume more
        ),
        max_size=40,
    )
)
def test_a_tape_runs_forward_and_its_sizes_add_up_to_the_days_volume(steps: list[tuple[int, float, int]]) -> None:
    tape, at, volume = Tape(BTC, False, math.inf), T_MS, 1_000
    trades, volumes = [], []
    for later, price, more in steps:
        at, volume = at + later, volume + more
        message = PricingData(id=BTC, price=price, time=at, day_volume=volume, market_hours=1, quote_type=8)
        with suppress(ValueError):
            trade = tape.trade(message, T + timedelta(minutes=30))
            assert price > 0.0
            if trade is not None:
                trades.append(trade)
                volumes.append(volume)

    assert all(a.event_time <= b.event_time for a, b in pairwise(trades))
    assert {trade.price for trade in trades} <= {1.0, 2.0, 189.84}
    assert len({(t.event_time, t.price, v) for t, v in zip(trades, volumes, strict=True)}) == len(trades)
    assert sum(trade.size for trade in trades) == (volumes[-1] - volumes[0] if volumes else 0.0)
    assert sum(tape.dropped.values()) == sum(price > 0.0 for _, price, _ in steps) - len(trades)
