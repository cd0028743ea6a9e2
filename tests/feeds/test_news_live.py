"""News of several sources as one stream: what is told twice, and what one source's trouble does to the others."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import csp
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from feeds.clock import utc_now
from feeds.errors import DataError
from feeds.events import FeedStatus, NewsItem
from feeds.news_desk import Article, Desk, Told
from feeds.news_live import FollowConfig, NewsFeed, RssConfig, UniverseConfig, YahooNewsConfig, news_feed
from tests.feeds.hand_clock import HandClock, living
from tests.feeds.news_server import NewsServer, item, rss
from tests.feeds.yahoo_server import Desk as YahooDesk
from tests.feeds.yahoo_server import desk_at

NOW = datetime(2024, 7, 2, 15, 10, 7)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.fixture
def yahoo(tmp_path: Path) -> Iterator[YahooDesk]:
    with desk_at(NOW, tmp_path / "cache") as desk:
        yield desk


def article_of(uuid: str, title: str, when: datetime) -> dict[str, Any]:
    return {"id": uuid, "content": {"title": title, "pubDate": f"{when:%Y-%m-%dT%H:%M:%SZ}"}}


def line_of(headline: str, when: datetime, symbol: str = "") -> str:
    published = when.replace(tzinfo=UTC).isoformat()
    return json.dumps({"published": published, "symbol": symbol, "headline": headline, "source": "desk"}) + "\n"


def test_one_story_of_three_sources_is_told_once_a_symbol(tmp_path: Path, yahoo: YahooDesk) -> None:
    path = tmp_path / "news.jsonl"
    path.touch()

    async def work() -> list[tuple[str, str, str]]:
        async with NewsServer(rss()) as one, NewsServer(rss()) as two:
            sources = (
                RssConfig(url=one.url, source="one", poll_s=60.0),
                RssConfig(url=two.url, source="two", poll_s=60.0, symbols=("AAPL",)),
                YahooNewsConfig(symbols=("AAPL",), poll_s=60.0, cache_dir=str(yahoo.folder)),
                FollowConfig(path=str(path)),
            )
            clock = HandClock(NOW, lambda _: None)
            feed = NewsFeed(sources, UniverseConfig(), session=yahoo.session, clock=clock)
            async with living(feed, clock, sleepers=8) as live:
                one.text = rss(item("Apple beats!", NOW, "1"))
                await live.until(NOW + 2 * MINUTE)
                two.text = rss(item("APPLE  BEATS", NOW, "x"))
                await live.until(NOW + 4 * MINUTE)
                yahoo.server.news["AAPL"] = [article_of("uuid", "“Apple beats”", NOW)]
                path.write_text(line_of("apple beats", NOW) + line_of("Apple beats", NOW + DAY), encoding="utf-8")
                await live.until(NOW + 6 * MINUTE)
            return [(news.source, news.headline, news.symbol) for news in live.of("items")]

    # As news about no one symbol first, and then of the one that it is about; the last claims to be tomorrow's.
    assert asyncio.run(work()) == [("one", "Apple beats!", ""), ("two", "APPLE BEATS", "AAPL")]


def test_the_trouble_of_one_source_does_not_touch_the_others(tmp_path: Path, yahoo: YahooDesk) -> None:
    path = tmp_path / "news.jsonl"
    yahoo.server.news_refusal = (429, "Too Many Requests")

    async def work() -> Any:
        async with NewsServer(rss()) as good, NewsServer() as bad:
            bad.status, bad.headers = 429, {"Retry-After": "86400"}
            sources = (
                RssConfig(url=good.url, source="good", poll_s=60.0),
                RssConfig(url=bad.url, source="bad", poll_s=60.0, symbols=("X",)),
                YahooNewsConfig(symbols=("AAPL",), cache_dir=str(yahoo.folder)),
                FollowConfig(path=str(path), stale_after_s=600.0),
            )
            clock = HandClock(NOW, lambda _: None)
            feed = NewsFeed(sources, UniverseConfig(), session=yahoo.session, clock=clock)
            async with living(feed, clock, sleepers=8) as live:
                for n in range(30):
                    good.text = rss(item(f"News {n}", clock.now(), str(n)))
                    await live.until(clock.now() + MINUTE)
            return live

    live = asyncio.run(work())

    assert [news.headline for news in live.of("items")] == [f"News {n}" for n in range(30)]
    assert {(status.feed, status.symbol, status.state.name) for status in live.of("status")} == {
        ("good news", "good", "CONNECTED"),
        ("bad news", "X", "STALE"),
        ("yahoo news", "AAPL", "STALE"),
        ("file news", str(path), "STALE"),
    }


def test_a_graph_gets_items_and_states_and_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "news.jsonl"
    path.write_text(line_of("From the file", utc_now(), "ACME"), encoding="utf-8")

    async def work() -> Any:
        async with NewsServer(rss(item("From the wire", utc_now()))) as server:
            sources = (
                RssConfig(url=server.url, source="wire", poll_s=0.1, backlog_s=60.0),
                FollowConfig(path=str(path), from_start=True, poll_s=0.1),
            )
            adapter = news_feed(sources, UniverseConfig())

            def graph() -> None:
                items, status = adapter.edge("items"), adapter.edge("status")
                csp.add_graph_output("items", items)
                csp.add_graph_output("status", status)
                both = csp.count(items) + csp.count(status)
                csp.stop_engine(csp.filter(both == 4, both))

            running = csp.run_on_thread(graph, starttime=utc_now(), endtime=timedelta(seconds=60), realtime=True)
            return await asyncio.to_thread(running.join)

    result = asyncio.run(work())

    items = [news for _, news in result["items"]]
    assert sorted(news.headline for news in items) == ["From the file", "From the wire"]
    assert all(isinstance(news, NewsItem) and news.event_time <= news.received <= utc_now() for news in items)
    assert {status.feed for _, status in result["status"]} == {"wire news", "file news"}


@pytest.mark.parametrize(
    ("sources", "wanted"),
    [
        ((), "at least one source"),
        ((RssConfig(url="http://h/a"), RssConfig(url="http://h/b")), r"was twice: \['rss h'\]"),
        ((YahooNewsConfig(symbols=("A",)), YahooNewsConfig(symbols=("a",))), r"was twice: \['yahoo A'\]"),
        ((FollowConfig(path="x"), FollowConfig(path="x")), r"was twice: \['file x'\]"),
    ],
)
def test_sources_that_could_not_be_told_apart_are_refused(sources: Any, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        news_feed(sources, UniverseConfig())


def test_a_universe_that_cannot_be_read_stops_a_run_before_it_starts() -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        news_feed((FollowConfig(path="x"),), UniverseConfig(path="nowhere.csv"))


# --- what is told ---


def article(item_id: str, headline: str, feed: str = "a", *symbols: str) -> Article:
    return Article(
        feed=feed, item_id=item_id, published=NOW, headline=headline, body="", source="s", symbols=symbols or ("",)
    )


def test_an_id_is_one_sources_own() -> None:
    told = Told()

    assert told.is_new(article("1", "One"), "", NOW.date())
    assert told.is_new(article("1", "Two", "b"), "", NOW.date())
    assert not told.is_new(article("1", "One, corrected"), "", NOW.date())


def test_what_was_told_of_a_symbol_is_not_told_again_of_the_market() -> None:
    told, day = Told(), NOW.date()

    assert told.is_new(article("1", "One"), "A", day)
    assert told.is_new(article("2", "One"), "B", day)
    assert not told.is_new(article("3", "one."), "", day)
    assert not told.is_new(article("4", "One"), "B", day)
    assert told.is_new(article("5", "One"), "", day + DAY)


def test_headlines_without_words_are_told_apart_by_their_ids() -> None:
    told, day = Told(), NOW.date()

    assert [told.is_new(article(str(n), mark), "", day) for n, mark in enumerate("!?!")] == [True] * 3


def test_memory_is_bounded_and_keeps_what_is_still_listed() -> None:
    told, day = Told(most=3), NOW.date()
    for n in range(10):
        told.is_new(article("listed", "Listed"), "", day)
        told.is_new(article(f"{n}", f"News {n}"), "", day)

    assert not told.is_new(article("listed", "Listed"), "", day)
    assert told.is_new(article("0", "News 0"), "", day)
    assert len(told._ids) == len(told._headlines) == 3


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.sampled_from(["Up", "UP!", "down"]), st.integers(0, 1)),
        max_size=30,
    )
)
def test_no_id_and_no_headline_of_a_day_is_told_twice(handed_in: list[tuple[str, int, str, int]]) -> None:
    told, ids, words = Told(), set(), set()
    for feed, number, headline, days in handed_in:
        day = (NOW + days * DAY).date()
        if told.is_new(article(str(number), headline, feed), "X", day):
            assert (feed, number) not in ids
            assert (headline.strip("!").lower(), day) not in words
        ids.add((feed, number))
        words.add((headline.strip("!").lower(), day))


def test_odd_times_are_noted_with_their_count() -> None:
    pushed: list[Any] = []
    desk = Desk(lambda _, value: pushed.append(value), HandClock(NOW, lambda _: None))
    health = desk.health("wire news", ("A", "B"))
    with structlog.testing.capture_logs() as logs:
        for n in range(5):
            odd = Article(
                feed="wire",
                item_id=str(n),
                published=NOW + DAY,
                headline=f"N {n}",
                body="",
                source="wire",
                symbols=("",),
            )
            assert desk.hand_in(health, odd, NOW, undated=True) == 1
        health.well("there")

    assert [(log["feed"], log["count"]) for log in logs] == [("wire news", 1), ("wire news", 2), ("wire news", 4)]
    assert [news.event_time for news in pushed[:5]] == [NOW] * 5
    assert [(status.symbol, isinstance(status, FeedStatus)) for status in pushed[5:]] == [("A", True), ("B", True)]
