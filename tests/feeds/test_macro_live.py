"""Macro series as they become known: the real yfinance and a FRED, on 127.0.0.1, at the test's clock."""

import asyncio
import gzip
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import csp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.clock import utc_now
from feeds.errors import FeedError
from feeds.macro_live import MacroFeed, MacroLiveConfig, Seen, fred_points, macro_feed
from tests.feeds.fred_server import FredServer
from tests.feeds.hand_clock import HandClock, Live, living
from tests.feeds.yahoo_server import Desk, Listing, closed_port, desk_at

NOW = datetime(2024, 7, 2, 15, 10, 7)  # a Tuesday
DAY = timedelta(days=1)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_at(NOW, tmp_path / "cache") as desk:
        chicago: dict[str, Any] = {"zone": "America/Chicago", "kind": "INDEX"}
        for listing in (
            Listing(symbol="^VIX", exchange="CXI", opens=time(2, 15), closes=time(15), **chicago),
            Listing(symbol="^TNX", exchange="CGI", opens=time(7, 20), closes=time(14), **chicago),
            Listing(symbol="CL=F", exchange="NYM", kind="FUTURE", base=-30.0),
        ):
            desk.server.listings[listing.symbol] = listing
        yield desk


def clock_of(desk: Desk, start: datetime = NOW) -> HandClock:
    def moved(now: datetime) -> None:
        desk.server.now = now.replace(tzinfo=UTC)

    moved(start)
    return HandClock(start, moved)


def feed_of(desk: Desk, clock: HandClock, since: Any = None, **options: Any) -> MacroFeed:
    place: dict[str, Any] = {"series": (), "cache_dir": str(desk.folder)}
    return MacroFeed(MacroLiveConfig(**place | options), since, session=desk.session, clock=clock)


def points(live: Live) -> list[tuple[str, str, float]]:
    return [(point.series, f"{point.event_time:%m-%d %H:%M}", point.value) for point in live.of("points")]


# --- market series ---


def test_the_newest_close_comes_first_and_each_further_one_when_it_can_be_known(desk: Desk) -> None:
    async def work() -> Live:
        clock = clock_of(desk)
        feed = feed_of(desk, clock, series=("^VIX", "^TNX"), interval="1h", publication_delay_s=900.0)
        async with living(feed, clock) as live:
            first = points(live)
            assert [(series, when) for series, when, _ in first] == [("^VIX", "07-02 14:15"), ("^TNX", "07-02 14:20")]
            await live.until(datetime(2024, 7, 2, 15, 29, 59))
            assert points(live) == first  # the hour of ^VIX that ended at 15:15 is known at 15:30
            await live.until(datetime(2024, 7, 2, 15, 36))
        return live

    live = asyncio.run(work())

    later = points(live)[2:]
    assert [(series, when) for series, when, _ in later] == [("^VIX", "07-02 15:15"), ("^TNX", "07-02 15:20")]
    stamp = int(datetime(2024, 7, 2, 15, 15, tzinfo=UTC).timestamp())
    assert later[0][2] == pytest.approx(desk.server.listings["^VIX"].price(stamp), abs=1e-6)
    assert live.states() == ["CONNECTED"] * 2


def test_daily_closes_are_known_after_midnight_of_their_exchange(desk: Desk) -> None:
    async def work() -> Live:
        clock = clock_of(desk)
        async with living(feed_of(desk, clock, series=("^vix",), poll_s=600.0), clock) as live:
            assert [when for _, when, _ in points(live)] == ["07-02 05:00"]
            await live.until(datetime(2024, 7, 3, 5, 0))
            assert len(points(live)) == 1
            await live.until(datetime(2024, 7, 3, 5, 45))
        return live

    assert [when for _, when, _ in points(asyncio.run(work()))] == ["07-02 05:00", "07-03 05:00"]


def test_points_since_the_last_one_known_come_in_order_and_may_be_negative(desk: Desk) -> None:
    async def work() -> Live:
        clock = clock_of(desk)
        since = {"CL=F": datetime(2024, 6, 27, 4)}
        async with living(feed_of(desk, clock, since, series=("CL=F",)), clock) as live:
            await live.until(NOW + timedelta(minutes=10))
        return live

    live = asyncio.run(work())

    assert [when for _, when, _ in points(live)] == ["06-28 04:00", "06-29 04:00", "07-02 04:00"]
    assert all(value < 0.0 for *_, value in points(live))


def test_a_series_that_cannot_be_had_is_stale_and_comes_back(desk: Desk) -> None:
    async def work() -> Live:
        clock = clock_of(desk)
        options: dict[str, Any] = {"series": ("^VIX",), "interval": "1h", "stale_after_s": 300.0, "backoff_max_s": 30.0}
        async with living(feed_of(desk, clock, **options), clock) as live:
            port, desk.session.port = desk.session.port, closed_port()
            await live.until(NOW + timedelta(hours=3))
            assert live.states() == ["CONNECTED", "STALE"]
            desk.session.port = port
            await live.until(NOW + timedelta(hours=3, minutes=2))
        return live

    live = asyncio.run(work())

    assert [when for _, when, _ in points(live)] == ["07-02 14:15", "07-02 15:15", "07-02 16:15", "07-02 17:15"]
    assert live.states() == ["CONNECTED", "STALE", "RECOVERED"]
    assert [status.symbol for status in live.of("status")] == ["^VIX"] * 3
    assert live.of("status")[2].value == 3.0
    assert "could not be reached" in live.of("status")[1].detail


# --- FRED ---


def fred_run(
    desk: Desk, story: Any, *fred: str, since: Any = None, **series: dict[str, str]
) -> tuple[Live, FredServer]:
    """Tell a story to a feed that asks FRED every ten minutes and misses an answer after five more."""
    quick: dict[str, Any] = {"fred_poll_s": 600.0, "backoff_max_s": 60.0, "stale_after_s": 300.0}

    async def work() -> tuple[Live, FredServer]:
        clock = clock_of(desk)
        async with FredServer(**series) as server:
            feed = feed_of(desk, clock, since, fred=fred, fred_url=server.url, **quick)
            async with living(feed, clock) as live:
                await story(live, server)
            return live, server

    return asyncio.run(work())


def test_what_stands_at_the_start_is_history_and_what_is_new_or_revised_is_a_point(desk: Desk) -> None:
    async def story(live: Live, server: FredServer) -> None:
        assert points(live) == [("UNRATE", "06-01 00:00", 4.0)]  # the newest; May ends with June's first day
        await live.until(NOW + timedelta(hours=1))
        assert len(points(live)) == 1
        server.series["UNRATE"] |= {"2024-04-01": "3.8", "2024-06-01": "4.1"}
        await live.until(NOW + timedelta(hours=2))
        server.series["UNRATE"] |= {"2024-06-01": "4.2"}
        await live.until(NOW + timedelta(hours=3))

    unrate = {"2024-03-01": "3.8", "2024-04-01": "3.9", "2024-05-01": "4.0"}
    live, _ = fred_run(desk, story, "UNRATE:1mo", UNRATE=unrate)

    assert points(live)[1:] == [
        ("UNRATE", "05-01 00:00", 3.8),
        ("UNRATE", "07-01 00:00", 4.1),
        ("UNRATE", "07-01 00:00", 4.2),
    ]
    assert live.states() == ["CONNECTED"]


def test_what_became_known_since_the_warm_up_comes_first(desk: Desk) -> None:
    async def story(live: Live, server: FredServer) -> None:
        await live.until(NOW + timedelta(minutes=30))

    days = {f"2024-06-{day:02}": str(4.0 + day / 100) for day in range(20, 29)} | {"2024-06-26": "."}
    live, server = fred_run(desk, story, "DGS10:1d", since={"DGS10": datetime(2024, 6, 25)}, DGS10=days)

    assert points(live) == [
        ("DGS10", "06-26 00:00", 4.25),
        ("DGS10", "06-28 00:00", 4.27),
        ("DGS10", "06-29 00:00", 4.28),
    ]
    assert len(server.asked) == 4
    assert {query["id"] for query in server.asked} == {"DGS10"}


def test_retry_after_is_waited_for(desk: Desk) -> None:
    async def story(live: Live, server: FredServer) -> None:
        server.status, server.headers = 429, {"Retry-After": "7200"}
        await live.until(NOW + timedelta(minutes=11))
        asked = len(server.asked)
        server.status, server.series["GDP"]["2024-04-01"] = 200, "2.0"
        await live.until(NOW + timedelta(hours=2))
        assert len(server.asked) == asked
        assert live.states() == ["CONNECTED", "STALE"]
        await live.until(NOW + timedelta(hours=2, minutes=12))

    live, _ = fred_run(desk, story, "GDP:3mo", GDP={"2024-01-01": "1.4"})

    assert points(live) == [("GDP", "04-01 00:00", 1.4), ("GDP", "07-01 00:00", 2.0)]
    assert live.states() == ["CONNECTED", "STALE", "RECOVERED"]
    assert "HTTP 429" in live.of("status")[1].detail


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (404, b"<html>", "no such series"),
        (503, b"", "HTTP 503"),
        (200, b"<html>maintenance</html>", "want a CSV"),
        (200, b"observation_date,OTHER\n2024-06-01,1", "want a CSV"),
        (200, b"observation_date,GDP\n2024-13-01,1", "line 2"),
        (200, b"observation_date,GDP\n2024-06-01,nan", "line 2"),
        (200, b"observation_date,GDP\n2024-06-01", "line 2"),
        (200, b"observation_date,GDP\n2024-06-01,1,2", "line 2"),
        (200, b"\xff\xfe\x00", "UTF-8"),
        (200, b"x" * (5 << 20), "at most"),
    ],
)
def test_an_answer_that_makes_no_sense_ends_nothing(desk: Desk, status: int, body: bytes, wanted: str) -> None:
    async def story(live: Live, server: FredServer) -> None:
        server.status, server.body = status, body
        await live.until(NOW + timedelta(minutes=20))
        server.status, server.body, server.series["GDP"]["2024-04-01"] = 200, b"", "2.0"
        await live.until(NOW + timedelta(minutes=32))

    live, _ = fred_run(desk, story, "GDP:3mo", GDP={"2024-01-01": "1.4"})

    assert [value for *_, value in points(live)] == [1.4, 2.0]
    assert live.states() == ["CONNECTED", "STALE", "RECOVERED"]
    assert wanted in live.of("status")[1].detail
    assert "\n" not in live.of("status")[1].detail


def test_a_small_answer_that_unpacks_to_a_huge_one_is_refused(desk: Desk) -> None:
    async def story(live: Live, server: FredServer) -> None:
        server.body, server.headers = gzip.compress(bytes(64 << 20)), {"Content-Encoding": "gzip"}
        await live.until(NOW + timedelta(minutes=20))

    live, _ = fred_run(desk, story, "GDP:3mo", GDP={"2024-01-01": "1.4"})

    assert "at most" in live.of("status")[-1].detail


@pytest.mark.parametrize(
    ("period", "day", "end"),
    [
        ("1d", "2024-02-29", datetime(2024, 3, 1)),
        ("1wk", "2024-06-29", datetime(2024, 6, 30)),  # FRED dates a week by its last day
        ("1mo", "2023-12-01", datetime(2024, 1, 1)),
        ("3mo", "2024-10-01", datetime(2025, 1, 1)),
        ("1y", "2023-01-01", datetime(2024, 1, 1)),
    ],
)
def test_a_point_is_stamped_with_the_end_of_its_period(period: str, day: str, end: datetime) -> None:
    assert fred_points(f"DATE,X\n{day},1.5\n", "X", period) == {end: 1.5}


def test_an_empty_answer_has_no_points() -> None:
    assert fred_points("DATE,X\n", "X", "1d") == {}
    with pytest.raises(FeedError, match="want a CSV"):
        fred_points("", "X", "1d")


@given(st.lists(st.dictionaries(st.integers(0, 20), st.sampled_from([1.0, 2.0]), max_size=10), max_size=8))
def test_what_is_told_adds_up_to_what_stands_there(answers: list[dict[int, float]]) -> None:
    # After the first answer, someone who writes down every point has FRED's newest figure of all that changed.
    start = datetime(2024, 1, 1)
    seen, told, stands = Seen(None), dict[datetime, float](), dict[datetime, float]()
    for number, answer in enumerate(answers):
        days = {start + n * DAY: value for n, value in answer.items()}
        fresh = seen.new(days, start)
        assert [when for when, _ in fresh] == sorted(when for when, _ in fresh)
        assert all(days[when] == value for when, value in fresh)
        if number and stands:
            assert all(stands.get(when) != value for when, value in fresh)
            assert {when for when, value in days.items() if stands.get(when) != value} == {when for when, _ in fresh}
        stands |= days
        told |= dict(fresh)
    assert all(stands[when] == value for when, value in told.items())


# --- the adapter ---


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"series": ()}, "want at least one of series and fred"),
        ({"series": ("BTC/USDT",)}, "symbols must be Yahoo's"),
        ({"series": ("^VIX", "^vix")}, "each series once"),
        ({"fred": ("UNRATE",)}, "fred wants SERIES:PERIOD"),
        ({"fred": ("UNRATE:2mo",)}, "fred wants SERIES:PERIOD"),
        ({"interval": "1wk"}, "interval must be one of"),
        ({"publication_delay_s": float("nan")}, "publication_delay_s must lie in"),
        ({"poll_s": 0.0}, "poll_s must be positive"),
        ({"revisions_days": 0.0}, "revisions_days must lie in"),
        ({"fred_url": "ftp://x"}, "fred_url must begin with http"),
    ],
)
def test_impossible_configs_are_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        MacroLiveConfig(**options)


def test_a_graph_gets_points_of_both_sources(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    now = utc_now()
    desk.server.now = now.replace(tzinfo=UTC)
    monkeypatch.setattr("feeds.yahoo_bars.plain_session", lambda: desk.session)

    async def work() -> Any:
        async with FredServer(GDP={date(now.year - 1, 1, 1).isoformat(): "1.5"}) as server:
            config = MacroLiveConfig(
                series=("^VIX",), fred=("GDP:3mo",), fred_url=server.url, cache_dir=str(desk.folder)
            )

            def graph() -> None:
                edges = {name: macro_feed_edges.edge(name) for name in ("points", "status")}
                for name, edge in edges.items():
                    csp.add_graph_output(name, edge)
                csp.stop_engine(csp.filter(csp.count(edges["points"]) == 2, edges["points"]))

            macro_feed_edges = macro_feed(config)
            running = csp.run_on_thread(graph, starttime=now, endtime=timedelta(seconds=60), realtime=True)
            return await asyncio.to_thread(running.join)

    result = asyncio.run(work())

    assert {point.series for _, point in result["points"]} == {"^VIX", "GDP"}
    assert {status.feed for _, status in result["status"]} <= {"yahoo macro", "fred macro"}
