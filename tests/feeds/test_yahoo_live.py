"""Yahoo's bars as they come: the real yfinance against a Yahoo on 127.0.0.1 that lives at the test's clock."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import csp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feeds.clock import utc_now
from feeds.events import Bar, FeedState, Trade
from feeds.yahoo import read_bars
from feeds.yahoo_live import OUTPUTS, YahooFeed, YahooLiveConfig, bars_from, warmup, yahoo_feed
from tests.feeds.hand_clock import HandClock, Live, living
from tests.feeds.yahoo_server import Desk, Listing, closed_port, desk_at
from tests.feeds.yahoo_stream_server import YahooStream

NOW = datetime(2024, 7, 2, 15, 10, 7)  # a Tuesday, 11:10 in New York
MINUTE = timedelta(minutes=1)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_at(NOW, tmp_path / "cache") as desk:
        yield desk


def config(desk: Desk, *symbols: str, **options: Any) -> YahooLiveConfig:
    place: dict[str, Any] = {"streams": ("bars",), "cache_dir": str(desk.folder)}
    return YahooLiveConfig(symbols=symbols or ("AAPL",), **place | options)


def clock_of(desk: Desk, start: datetime = NOW) -> HandClock:
    def moved(now: datetime) -> None:
        desk.server.now = now.replace(tzinfo=UTC)

    moved(start)
    return HandClock(start, moved)


def feed_of(desk: Desk, clock: HandClock, *symbols: str, since: Any = None, **options: Any) -> YahooFeed:
    return YahooFeed(config(desk, *symbols, **options), since, session=desk.session, clock=clock)


def closes(live: Live, symbol: str = "AAPL") -> list[str]:
    return [f"{bar.event_time:%H:%M}" for bar in live.of("bars") if bar.symbol == symbol]


@csp.node
def enough(bars: csp.ts[Bar], trades: csp.ts[Trade], wanted_bars: int, wanted_trades: int) -> csp.ts[bool]:
    """Tick when both counts are reached."""
    with csp.state():
        s_bars = s_trades = 0
    if csp.ticked(bars):
        s_bars += 1
    if csp.ticked(trades):
        s_trades += 1
    if s_bars >= wanted_bars and s_trades >= wanted_trades:
        return True


def without_arrival(bars: list[Bar]) -> list[Bar]:
    plain = [bar.copy() for bar in bars]
    for bar in plain:
        bar.received = Bar().received
    return plain


# --- bars ---


def test_each_bar_comes_once_at_its_close_and_as_history_has_it(desk: Desk) -> None:
    async def work() -> Live:
        clock = clock_of(desk)
        async with living(feed_of(desk, clock), clock) as live:
            assert live.of("bars") == []  # the running minute is none
            assert live.states() == ["CONNECTED"]
            await live.until(datetime(2024, 7, 2, 15, 11, 4))
            assert live.of("bars") == []  # it closed four seconds ago
            await live.until(datetime(2024, 7, 2, 15, 11, 5))
            assert closes(live) == ["15:11"]
            await live.until(datetime(2024, 7, 2, 15, 20, 0))
        return live

    before = utc_now()
    live = asyncio.run(work())

    assert closes(live) == [f"15:{minute}" for minute in range(11, 20)]
    assert live.states() == ["CONNECTED"]
    assert all(before <= bar.received <= utc_now() for bar in live.of("bars"))
    desk.server.now = datetime(2024, 7, 2, 18, tzinfo=UTC)
    path = desk.paths(["AAPL"], "1m", "2024-07-02T15:10", "2024-07-02T15:19")[0]
    fetched = read_bars(path, datetime(2024, 7, 2, 15, 10), datetime(2024, 7, 2, 15, 19))
    assert without_arrival(live.of("bars")) == bars_from(fetched)


def test_what_closed_since_the_warm_up_comes_first(desk: Desk) -> None:
    async def work() -> Live:
        clock = clock_of(desk)
        warm = warmup(config(desk), "1m", 3, session=desk.session, now=datetime(2024, 7, 2, 15, 6, 30))
        assert [f"{bar.event_time:%H:%M}" for bar in warm["AAPL"]] == ["15:04", "15:05", "15:06"]
        since = {"aapl": warm["AAPL"][-1].event_time}
        async with living(feed_of(desk, clock, since=since), clock) as live:
            await live.until(datetime(2024, 7, 2, 15, 12, 5))
        return live

    live = asyncio.run(work())

    assert closes(live) == ["15:07", "15:08", "15:09", "15:10", "15:11", "15:12"]


def test_each_question_ends_ahead_of_now_and_reaches_back_to_the_last_bar_alone(desk: Desk) -> None:
    async def work() -> list[tuple[datetime, dict[str, str]]]:
        asked, clock = [], clock_of(desk)
        async with living(feed_of(desk, clock), clock) as live:
            for minute in range(11, 15):
                desk.server.requests.clear()
                await live.until(datetime(2024, 7, 2, 15, minute, 30))
                asked += [(clock.now(), chart) for chart in desk.server.charts()]
        return asked

    asked = asyncio.run(work())

    assert len(asked) == 4  # one a bar: nothing else is due
    for at, chart in asked:
        start, end = (
            datetime.fromtimestamp(int(chart[edge]), UTC).replace(tzinfo=None) for edge in ("period1", "period2")
        )
        assert end > at
        assert at - start < 3 * MINUTE


def test_a_bar_that_late_quotes_still_feed_is_waited_for(desk: Desk) -> None:
    desk.server.listings["AAPL"].late = timedelta(minutes=15)

    async def work() -> Live:
        clock = clock_of(desk)
        since = {"AAPL": datetime(2024, 7, 2, 14, 50)}
        async with living(feed_of(desk, clock, since=since, lag_max_s=1200.0), clock) as live:
            assert closes(live)[-1] == "14:55"  # at 15:10:07 the quotes are of 14:55:07
            await live.until(datetime(2024, 7, 2, 15, 12, 10))
        return live

    live = asyncio.run(work())

    assert closes(live) == [f"14:{minute}" for minute in range(51, 58)]
    price = desk.server.listings["AAPL"].price
    for bar in live.of("bars"):
        assert bar.close == pytest.approx(price(int(bar.event_time.replace(tzinfo=UTC).timestamp())), abs=1e-6)


def test_late_bars_are_told_once(desk: Desk) -> None:
    desk.server.listings["AAPL"].late = timedelta(minutes=15)

    async def work() -> Live:
        clock = clock_of(desk)
        async with living(feed_of(desk, clock, since={"AAPL": datetime(2024, 7, 2, 14, 50)}), clock) as live:
            await live.until(datetime(2024, 7, 2, 15, 12, 10))
        return live

    live = asyncio.run(work())

    assert [state for state in live.states() if state == "LAGGING"] == ["LAGGING"]
    assert "LAGGING" in live.states()[:2]


def test_bars_that_cannot_be_are_left_out_and_told(desk: Desk) -> None:
    desk.server.listings["CL=F"] = Listing(symbol="CL=F", exchange="NYM", kind="FUTURE", base=-30.0)

    async def work() -> Live:
        clock = clock_of(desk)
        async with living(feed_of(desk, clock, "CL=F", "AAPL"), clock) as live:
            await live.until(datetime(2024, 7, 2, 15, 14, 30))
        return live

    live = asyncio.run(work())

    assert closes(live, "CL=F") == []
    assert closes(live) == ["15:11", "15:12", "15:13", "15:14"]
    told = [tick.detail for tick in live.of("status") if tick.symbol == "CL=F"]
    assert len(told) == 4  # connected; then the 1st, 2nd and 4th bar
    assert told[1].startswith("bar that closed at 2024-07-02 15:11:00: low -")


def test_a_symbol_that_splits_is_stale_to_the_end(desk: Desk) -> None:
    async def work() -> Live:
        clock = clock_of(desk, datetime(2024, 6, 10, 13, 20, 0))  # ten minutes before it trades split
        since = {"NVDA": datetime(2024, 6, 7, 20), "AAPL": datetime(2024, 6, 7, 20)}
        async with living(feed_of(desk, clock, "NVDA", "AAPL", since=since), clock) as live:
            await live.until(datetime(2024, 6, 10, 13, 35, 30))
        return live

    live = asyncio.run(work())

    assert live.states("NVDA") == ["CONNECTED", "STALE"]
    assert "split on 2024-06-10" in live.of("status")[-1].detail
    assert closes(live, "NVDA") == []
    assert closes(live) == ["13:31", "13:32", "13:33", "13:34", "13:35"]


# --- trouble ---


def test_an_outage_is_told_and_what_it_hid_comes_afterwards(desk: Desk) -> None:
    async def work() -> Live:
        clock = clock_of(desk)
        async with living(feed_of(desk, clock, backoff_max_s=20.0), clock) as live:
            await live.until(datetime(2024, 7, 2, 15, 12, 30))
            port, desk.session.port = desk.session.port, closed_port()
            await live.until(datetime(2024, 7, 2, 15, 14, 20))  # a bar was due at 15:13:05, and 15 s + 60 s to spare
            assert live.states() == ["CONNECTED", "STALE"]
            await live.until(datetime(2024, 7, 2, 15, 22, 30))
            assert closes(live) == ["15:11", "15:12"]
            desk.session.port = port
            await live.until(datetime(2024, 7, 2, 15, 24, 5))
        return live

    live = asyncio.run(work())

    assert closes(live) == [f"15:{minute}" for minute in range(11, 25)]
    assert live.states() == ["CONNECTED", "STALE", "RECOVERED"]
    stale, recovered = live.of("status")[1:]
    assert "AAPL: Yahoo could not be reached" in stale.detail
    assert stale.value == 135.0  # since the last bar came
    assert recovered.value == 10.0
    before, after = (live.ticks.index(("bars", bar)) for bar in (live.of("bars")[11], live.of("bars")[12]))
    assert before < live.ticks.index(("status", recovered)) < after  # whole before it says so


def test_a_refusal_is_answered_with_silence(desk: Desk) -> None:
    async def work() -> tuple[Live, int]:
        clock = clock_of(desk)
        async with living(feed_of(desk, clock, "AAPL", "NVDA"), clock) as live:
            desk.server.refusal = (429, "Too Many Requests\r\n")
            desk.server.requests.clear()
            await live.until(datetime(2024, 7, 2, 15, 50))
            refused = len(desk.server.charts())
            desk.server.refusal = None
            await live.until(datetime(2024, 7, 2, 16, 10))
        return live, refused

    live, refused = asyncio.run(work())

    # yfinance asks twice each time; fifteen seconds apart it would have been 640 times.
    assert 4 <= refused <= 60
    for symbol in ("AAPL", "NVDA"):
        assert live.states(symbol) == ["CONNECTED", "STALE", "RECOVERED"]
        assert len(closes(live, symbol)) == 59
    assert "HTTP 429" in live.of("status")[2].detail


def test_an_answer_that_stands_still_in_an_open_session_is_stale(desk: Desk) -> None:
    async def work() -> Live:
        frozen = False

        def moved(now: datetime) -> None:
            if not frozen:
                desk.server.now = now.replace(tzinfo=UTC)

        clock = HandClock(NOW, moved)
        async with living(feed_of(desk, clock), clock) as live:
            await live.until(datetime(2024, 7, 2, 15, 12, 30))
            frozen = True
            await live.until(datetime(2024, 7, 2, 15, 14, 19))
            assert live.states() == ["CONNECTED"]
            await live.until(datetime(2024, 7, 2, 15, 16))
            assert live.states() == ["CONNECTED", "STALE"]
            frozen = False
            await live.until(datetime(2024, 7, 2, 15, 18, 10))
        return live

    live = asyncio.run(work())

    assert "without a bar since the one that closed at 2024-07-02 15:12:00" in live.of("status")[1].detail
    assert live.states() == ["CONNECTED", "STALE", "RECOVERED"]
    assert closes(live) == [f"15:{minute}" for minute in range(11, 19)]


def test_a_closed_market_is_at_rest_and_its_first_bar_comes_at_once(desk: Desk) -> None:
    async def work() -> Live:
        clock = clock_of(desk, datetime(2024, 7, 2, 19, 57, 0))
        async with living(feed_of(desk, clock, closed_poll_s=3600.0), clock) as live:
            await live.until(datetime(2024, 7, 2, 20, 5))
            assert closes(live) == ["19:58", "19:59", "20:00"]
            await live.until(datetime(2024, 7, 3, 13, 31, 4))
            assert len(live.of("bars")) == 3
            await live.until(datetime(2024, 7, 3, 13, 31, 5))
            assert closes(live)[3:] == ["13:31"]
        return live

    assert asyncio.run(work()).states() == ["CONNECTED"]


def test_a_symbol_that_yahoo_lacks_does_not_hold_up_the_others(desk: Desk) -> None:
    async def work() -> Live:
        clock = clock_of(desk)
        async with living(feed_of(desk, clock, "NOSUCH", "AAPL"), clock) as live:
            await live.until(datetime(2024, 7, 2, 15, 13, 5))
        return live

    live = asyncio.run(work())

    assert closes(live) == ["15:11", "15:12", "15:13"]
    assert live.states("AAPL") == ["CONNECTED"]
    (stale,) = (tick for tick in live.of("status") if tick.symbol == "NOSUCH")
    assert (stale.state, stale.value) == (FeedState.STALE, 60.0)
    assert "NOSUCH: Yahoo has no such symbol" in stale.detail


@pytest.mark.parametrize(
    "refusal", [(500, "<html>oops</html>"), (200, "Will be right back"), (200, "[]"), (401, '{"finance":{}}')]
)
def test_a_senseless_answer_is_asked_again(desk: Desk, refusal: tuple[int, str]) -> None:
    async def work() -> Live:
        clock = clock_of(desk)
        async with living(feed_of(desk, clock, backoff_max_s=30.0), clock) as live:
            desk.server.refusal = refusal
            await live.until(datetime(2024, 7, 2, 15, 14))
            desk.server.refusal = None
            await live.until(datetime(2024, 7, 2, 15, 16, 6))
        return live

    live = asyncio.run(work())

    assert closes(live) == [f"15:{minute}" for minute in range(11, 17)]
    assert live.states() == ["CONNECTED", "STALE", "RECOVERED"]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(
        st.tuples(st.integers(1, 300), st.sampled_from(["offline", "429", "500", "page", "frozen", "late"])), max_size=6
    )
)
def test_whatever_fails_each_bar_comes_once_and_in_order(desk: Desk, faults: list[tuple[int, str]]) -> None:
    refusals = {"429": (429, "Too Many Requests"), "500": (500, "oops"), "page": (200, "Will be right back")}
    port = desk.session.port

    async def work() -> Live:
        frozen = False

        def moved(now: datetime) -> None:
            if not frozen:
                desk.server.now = now.replace(tzinfo=UTC)

        moved(NOW)
        clock = HandClock(NOW, moved)
        async with living(feed_of(desk, clock, "BTC-USD", backoff_max_s=60.0), clock) as live:
            for seconds, fault in faults:
                desk.server.refusal, frozen = refusals.get(fault), fault == "frozen"
                desk.session.port = closed_port() if fault == "offline" else port
                desk.server.listings["BTC-USD"].late = timedelta(minutes=3 if fault == "late" else 0)
                await live.until(clock.now() + timedelta(seconds=seconds))
            desk.server.refusal, frozen, desk.session.port = None, False, port
            desk.server.listings["BTC-USD"].late = timedelta()
            await live.until(clock.now() + 3 * MINUTE)
        return live

    live = asyncio.run(work())

    times = [bar.event_time for bar in live.of("bars")]
    assert times[0] == datetime(2024, 7, 2, 15, 11)
    assert all(b - a == MINUTE for a, b in pairwise(times))
    assert live.clock.now() - times[-1] < MINUTE + timedelta(seconds=21)
    states = [tick.state for tick in live.of("status")]
    assert states[0] is FeedState.CONNECTED or FeedState.CONNECTED not in states
    assert states[-1] in (FeedState.CONNECTED, FeedState.RECOVERED)
    assert all(a is not b for a, b in pairwise(states) if a is FeedState.STALE)


def test_a_feed_stops_while_an_answer_hangs(desk: Desk) -> None:
    async def work(deaf: socket.socket) -> threading.Thread:
        clock = clock_of(desk)
        ticks: list[Any] = []
        feed = asyncio.create_task(feed_of(desk, clock, timeout_s=30.0).run(lambda *tick: ticks.append(tick)))
        loop = asyncio.get_running_loop()
        taken, _ = await asyncio.wait_for(loop.sock_accept(deaf), 30.0)  # it asks, and nobody will answer
        started = loop.time()
        feed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await feed
        assert loop.time() - started < 5.0
        assert ticks == []
        (worker,) = (thread for thread in threading.enumerate() if thread.name == "feed-call")
        deaf.close()
        taken.close()
        return worker

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.setblocking(False)
        desk.session.port = deaf.getsockname()[1]
        worker = asyncio.run(work(deaf))
    worker.join(60.0)  # it is refused now, and must not outlive the test
    assert not worker.is_alive()


def test_bars_beyond_yahoos_reach_are_not_passed_over_in_silence(desk: Desk) -> None:
    async def work() -> Live:
        clock = clock_of(desk)
        async with living(feed_of(desk, clock, since={"AAPL": datetime(2024, 5, 1)}), clock) as live:
            await live.until(NOW + 3 * MINUTE)
        return live

    live = asyncio.run(work())

    assert live.of("bars") == []
    assert live.states() == ["STALE"]
    assert "start anew" in live.of("status")[0].detail


# --- the adapter ---


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"symbols": ()}, "symbols must name at least one"),
        ({"symbols": ("BTC/USDT",)}, "symbols must be Yahoo's"),
        ({"symbols": ("AAPL", "aapl")}, "each of the symbols once"),
        ({"streams": ()}, "streams must be one or more of bars, trades"),
        ({"streams": ("quotes",)}, "streams must be one or more of bars, trades"),
        ({"bar": "1wk"}, "bar must be one of"),
        ({"poll_s": 0.0}, "poll_s must be positive"),
        ({"stale_after_s": float("nan")}, "stale_after_s must be positive"),
        ({"delay_s": -1.0}, "delay_s must lie in"),
        ({"delay_s": float("nan")}, "delay_s must lie in"),
        ({"stream_url": "https://example.org"}, "stream_url must begin with ws"),
    ],
)
def test_impossible_configs_are_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        YahooLiveConfig(**{"symbols": ("AAPL",)} | options)


def test_a_graph_gets_bars_trades_and_the_feeds_state(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    now = utc_now()
    desk.server.now = now.replace(tzinfo=UTC)
    desk.server.listings["BTC-USD"].zone = "UTC" if 2 < now.hour < 22 else "Asia/Tokyo"  # far from its midnight
    monkeypatch.setattr("feeds.yahoo_bars.plain_session", lambda: desk.session)
    known = now.replace(second=0, microsecond=0) - 5 * MINUTE
    with YahooStream() as stream:
        settings = config(desk, "BTC-USD", streams=("bars", "trades"), stream_url=stream.url, delay_s=0.0)

        def graph() -> None:
            feed = yahoo_feed(settings, {"BTC-USD": known})
            for name in OUTPUTS:
                csp.add_graph_output(name, feed.edge(name))
            csp.stop_engine(enough(feed.edge("bars"), feed.edge("trades"), 5, 3))

        running = csp.run_on_thread(graph, starttime=now, endtime=timedelta(seconds=60), realtime=True)
        stream.wait_for_subscribers(1)
        for i in range(3):
            stream.send("BTC-USD", 60_000.0 + i, quote_type=41, last_size=i)
        result = running.join()

    assert [f"{bar.event_time - known}" for _, bar in result["bars"]] == [f"0:0{i}:00" for i in range(1, 6)]
    assert [(trade.price, trade.size) for _, trade in result["trades"]] == [(60_000.0 + i, float(i)) for i in range(3)]
    told = {(status.feed, status.state.name) for _, status in result["status"]}
    assert told >= {("yahoo trades", "CONNECTED")}
    assert logging.getLogger("yfinance").level != logging.CRITICAL
