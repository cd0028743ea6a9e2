"""Yahoo's news live: the real yfinance against a Yahoo on 127.0.0.1, at the test's clock."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from feeds.news_live import NewsFeed, UniverseConfig, YahooNewsConfig
from tests.feeds.hand_clock import HandClock, Live, living
from tests.feeds.yahoo_server import Desk, closed_port, desk_at

NOW = datetime(2024, 7, 2, 15, 10, 7)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
Story = Callable[[Live], Coroutine[Any, Any, None]]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_at(NOW, tmp_path / "cache") as desk:
        yield desk


def story_of(uuid: str, title: str, when: datetime = NOW, *tickers: str, **changes: Any) -> dict[str, Any]:
    """An article as Yahoo sends it."""
    content = {
        "id": uuid,
        "contentType": "STORY",
        "title": title,
        "summary": "",
        "pubDate": f"{when:%Y-%m-%dT%H:%M:%SZ}",
        "provider": {"displayName": "Example Wire", "url": "https://example.org/"},
        "canonicalUrl": {"url": f"https://finance.yahoo.com/news/{uuid}.html"},
        "finance": {"stockTickers": [{"symbol": ticker} for ticker in tickers]} if tickers else None,
    }
    return {"id": uuid, "content": content | changes}


def tell(desk: Desk, story: Story, *symbols: str, universe: str = "", **options: Any) -> Live:
    quick: dict[str, Any] = {"poll_s": 60.0, "stale_after_s": 300.0, "backoff_max_s": 30.0}
    config = YahooNewsConfig(symbols=symbols, cache_dir=str(desk.folder), **quick | options)

    async def work() -> Live:
        clock = HandClock(NOW, lambda _: None)
        feed = NewsFeed((config,), UniverseConfig(path=universe), session=desk.session, clock=clock)
        async with living(feed, clock) as live:
            await story(live)
        return live

    return asyncio.run(work())


def told(live: Live) -> list[tuple[str, str]]:
    return [(news.item_id, news.symbol) for news in live.of("items")]


def test_each_new_article_is_told_once_and_the_oldest_first(desk: Desk) -> None:
    news = desk.server.news
    news["AAPL"] = [story_of("old", "Old", NOW - MINUTE)]

    async def story(live: Live) -> None:
        assert told(live) == []
        await live.until(NOW + 3 * MINUTE)
        news["AAPL"] = [
            story_of("2", "Later", NOW + 2 * MINUTE, summary="<p>More</p>"),
            story_of("1", "Sooner &amp; better", NOW + MINUTE),
            *news["AAPL"],
        ]
        await live.until(NOW + HOUR)

    live = tell(desk, story, "aapl")

    first, second = live.of("items")
    assert (first.item_id, first.headline, first.body) == ("1", "Sooner & better", "")
    assert (first.symbol, first.source, first.event_time) == ("AAPL", "Example Wire", NOW + MINUTE)
    assert first.received >= NOW + 3 * MINUTE
    assert (second.item_id, second.body) == ("2", "More")
    assert [(status.feed, status.symbol, status.state.name) for status in live.of("status")] == [
        ("yahoo news", "AAPL", "CONNECTED")
    ]


def test_every_question_reaches_yahoo_for_at_most_so_many_articles(desk: Desk) -> None:
    desk.server.news["AAPL"] = [story_of(str(n), f"News {n}") for n in range(9)]

    async def story(live: Live) -> None:
        await live.until(NOW + 10 * MINUTE)

    live = tell(desk, story, "AAPL", count=3)

    assert [item_id for item_id, _ in told(live)] == ["0", "1", "2"]
    assert sum(path == "/xhr/ncp" for path, _ in desk.server.requests) == 11


def test_an_article_is_about_its_tickers_or_else_about_the_symbol_it_came_for(desk: Desk) -> None:
    desk.server.news["AAPL"] = [
        story_of("both", "Both", NOW, "MSFT", "XYZ", "aapl"),
        story_of("other", "Other", NOW, "XYZ"),
        story_of("none", "None", NOW),
    ]
    desk.server.news["MSFT"] = [story_of("both", "Both", NOW, "MSFT", "XYZ", "aapl"), story_of("none", "None", NOW)]

    async def story(live: Live) -> None:
        await live.until(NOW + 3 * MINUTE)

    live = tell(desk, story, "AAPL", "MSFT")

    assert sorted(told(live)) == [("both", "AAPL"), ("both", "MSFT"), ("none", "AAPL"), ("none", "MSFT")]


def test_the_universe_says_which_symbol_a_ticker_is(desk: Desk, tmp_path: Path) -> None:
    table = tmp_path / "universe.csv"
    table.write_text("symbol,alias\nBTC/USDT,BTC-USD\n", encoding="utf-8")
    desk.server.news["BTC-USD"] = [story_of("1", "A", NOW, "BTC-USD")]

    async def story(live: Live) -> None:
        assert told(live) == [("1", "BTC/USDT")]

    tell(desk, story, "BTC-USD", universe=str(table))


def test_advertisements_are_left_out_and_broken_articles_told_of(desk: Desk) -> None:
    desk.server.news["AAPL"] = [
        {"ad": [{"id": "x"}], "id": "ad", "content": {"title": "Buy"}},
        "no article",
        {"id": "1"},
        {"id": 2, "content": {}},
        {"id": "3", "content": {"title": 5, "pubDate": 7, "provider": [], "finance": {"stockTickers": 1}}},
        story_of("4", "\ud800 Half", NOW, pubDate="yesterday"),
        story_of("5", "Good", NOW, provider=None, finance={"stockTickers": ["AAPL", {"symbol": None}]}),
    ]

    async def story(live: Live) -> None:
        await live.until(NOW + 3 * MINUTE)

    live = tell(desk, story, "AAPL")

    assert [(news.headline, news.source) for news in live.of("items")] == [("Good", "yahoo")]
    assert set(live.states()) == {"CONNECTED", "DROPPED"}


def test_an_article_without_a_time_is_dated_by_its_arrival(desk: Desk) -> None:
    async def story(live: Live) -> None:
        desk.server.news["AAPL"] = [story_of("1", "A", pubDate=None)]
        await live.until(NOW + MINUTE)

    assert [news.event_time for news in tell(desk, story, "AAPL").of("items")] == [NOW + MINUTE]


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (429, "Too Many Requests", "HTTP 429"),
        (401, json.dumps({"finance": {"result": None, "error": {"description": "Invalid Crumb"}}}), "HTTP 401"),
        (500, "", "HTTP 500"),
        (200, "<html>Will be right back</html>", "holds no news"),
        (200, json.dumps({"data": None}), "holds no news"),
        (200, json.dumps({"data": {"tickerStream": {"stream": None}}}), "holds no news"),
        (200, "[]", "holds no news"),
        (200, "[" * 100_000, "holds no news"),
    ],
)
def test_a_refusal_is_no_quiet_day(desk: Desk, status: int, body: str, wanted: str) -> None:
    # Of these, Ticker.news has an empty list for the 401 and the 500 with a body in JSON.
    async def story(live: Live) -> None:
        desk.server.news_refusal = (status, body)
        await live.until(NOW + 10 * MINUTE)
        desk.server.news_refusal = None
        desk.server.news["AAPL"] = [story_of("1", "Meanwhile", NOW + MINUTE)]
        await live.until(NOW + 15 * MINUTE)

    live = tell(desk, story, "AAPL")

    assert told(live) == [("1", "AAPL")]
    assert live.states() == ["CONNECTED", "STALE", "RECOVERED"]
    stale, recovered = live.of("status")[1:]
    assert wanted in stale.detail
    assert "\n" not in stale.detail
    assert recovered.value == 1.0


def test_an_unreachable_yahoo_is_stale_and_comes_back(desk: Desk) -> None:
    port = desk.session.port

    async def story(live: Live) -> None:
        desk.session.port = closed_port()
        await live.until(NOW + 10 * MINUTE)
        desk.session.port = port
        await live.until(NOW + 12 * MINUTE)

    live = tell(desk, story, "AAPL", "MSFT")

    assert live.states("AAPL") == live.states("MSFT") == ["CONNECTED", "STALE", "RECOVERED"]
    assert "could not be reached" in live.of("status")[2].detail


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"symbols": ()}, "at least one symbol"),
        ({"symbols": ("BTC/USDT",)}, "symbols must be Yahoo's"),
        ({"symbols": ("AAPL", "aapl")}, "each of the symbols once"),
        ({"count": 0}, "count must lie in"),
        ({"count": 101}, "count must lie in"),
        ({"poll_s": float("nan")}, "poll_s must be positive"),
        ({"timeout_s": 0.0}, "timeout_s must be positive"),
        ({"backlog_s": -1.0}, "backlog_s must lie in"),
    ],
)
def test_impossible_configs_are_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        YahooNewsConfig(**{"symbols": ("AAPL",)} | options)
