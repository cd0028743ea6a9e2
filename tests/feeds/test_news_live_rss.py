"""RSS and Atom live: a real HTTP server on 127.0.0.1, at the test's clock."""

import asyncio
import gzip
import io
import random
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import feedparser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.errors import FeedError
from feeds.news_desk import plain_text
from feeds.news_live import NewsFeed, RssConfig, UniverseConfig
from feeds.news_rss import article, entries
from feeds.news_universe import Universe
from tests.feeds.hand_clock import HandClock, Live, living
from tests.feeds.news_server import NewsServer, item, rss
from tests.feeds.yahoo_server import closed_port

NOW = datetime(2024, 7, 2, 15, 10, 7)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
Story = Callable[[Live, NewsServer], Coroutine[Any, Any, None]]


def tell(story: Story, text: str = "", universe: UniverseConfig | None = None, **options: Any) -> Live:
    """Tell a story to a feed that asks a server every minute and misses an answer after five more."""
    quick: dict[str, Any] = {"poll_s": 60.0, "stale_after_s": 300.0, "backoff_max_s": 30.0, "source": "wire"}

    async def work() -> Live:
        async with NewsServer(text) as server:
            config = RssConfig(url=options.pop("url", server.url), **quick | options)
            clock = HandClock(NOW, lambda _: None)
            async with living(NewsFeed((config,), universe or UniverseConfig(), clock=clock), clock) as live:
                await story(live, server)
            return live

    return asyncio.run(work())


def headlines(live: Live) -> list[str]:
    return [news.headline for news in live.of("items")]


def test_what_stood_there_before_is_history_and_what_comes_later_is_told_once_oldest_first() -> None:
    old = item("Old", NOW - MINUTE, "1")

    async def story(live: Live, server: NewsServer) -> None:
        assert live.of("items") == []
        new = item("Newer", NOW + 90 * SECOND, "3"), item("New", NOW + 80 * SECOND, "2")
        await live.until(NOW + 100 * SECOND)
        server.text = rss(*new, old)
        await live.until(NOW + HOUR)

    live = tell(story, rss(old))

    assert [(news.item_id, news.headline, news.source, news.symbol) for news in live.of("items")] == [
        ("2", "New", "wire", ""),
        ("3", "Newer", "wire", ""),
    ]
    assert [news.event_time for news in live.of("items")] == [NOW + timedelta(seconds=s) for s in (80, 90)]
    assert {news.received for news in live.of("items")} == {NOW + 2 * MINUTE}
    assert live.states() == ["CONNECTED"]
    assert [(status.feed, status.symbol) for status in live.of("status")] == [("wire news", "wire")]


def test_a_backlog_begins_the_news_earlier() -> None:
    async def story(live: Live, server: NewsServer) -> None:
        assert headlines(live) == ["B", "A"]

    tell(story, rss(item("A", NOW - MINUTE), item("B", NOW - 2 * MINUTE), item("C", NOW - HOUR)), backlog_s=600.0)


def test_an_unchanged_feed_is_not_sent_again() -> None:
    async def story(live: Live, server: NewsServer) -> None:
        await live.until(NOW + 10 * MINUTE)
        server.text = rss(item("B", NOW + MINUTE, "b"), item("A", NOW, "a"))
        await live.until(NOW + 20 * MINUTE)

        assert "If-None-Match" not in server.asked[0]
        tags = [asked["If-None-Match"] for asked in server.asked[1:]]
        assert len(set(tags[:10])) == 1
        assert len(set(tags)) == 2
        assert {asked["If-Modified-Since"] for asked in server.asked[1:]} == {"Tue, 02 Jul 2024 15:00:00 GMT"}
        assert {asked["User-Agent"] for asked in server.asked} == {"desk someone@example.org"}

    live = tell(story, rss(item("A", NOW, "a")), user_agent="desk someone@example.org")

    assert headlines(live) == ["A", "B"]
    assert live.states() == ["CONNECTED"]


def test_the_same_answer_of_a_server_without_validators_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    parse = feedparser.parse
    monkeypatch.setattr(feedparser, "parse", lambda *args, **options: read.append(args) or parse(*args, **options))

    async def story(live: Live, server: NewsServer) -> None:
        server.validates = False
        await live.until(NOW + 5 * MINUTE)
        server.text = rss(item("B", NOW), item("A", NOW))
        await live.until(NOW + 9 * MINUTE)
        assert len(server.asked) == 10

    assert headlines(tell(story, rss(item("A", NOW)))) == ["A", "B"]
    assert len(read) == 2


def test_a_publisher_whose_ids_change_with_every_answer_tells_nothing_twice() -> None:
    async def story(live: Live, server: NewsServer) -> None:
        for n in range(1, 6):
            server.text = rss(item("Fed holds rates", NOW, f"https://x/?visit={n}"), item("Old", NOW - HOUR, f"o{n}"))
            await live.until(NOW + n * MINUTE)

    first = rss(item("FED  holds: rates!", NOW, "https://x/?visit=0"), item("Old", NOW - HOUR, "o0"))
    assert headlines(tell(story, first)) == ["FED holds: rates!"]


def test_the_same_headline_is_news_again_on_another_day() -> None:
    async def story(live: Live, server: NewsServer) -> None:
        await live.until(NOW + 20 * HOUR)
        server.text = rss(item("Market wrap", NOW + 20 * HOUR, "2"), item("Market wrap", NOW, "1"))
        await live.until(NOW + 21 * HOUR)

    live = tell(story, rss(item("Market wrap", NOW, "1")), poll_s=3600.0)

    assert [news.item_id for news in live.of("items")] == ["1", "2"]


@pytest.mark.parametrize("days", [2, 4000])
def test_old_articles_that_are_put_up_again_are_history(days: int) -> None:
    async def story(live: Live, server: NewsServer) -> None:
        server.text = rss(item("Best of", NOW - timedelta(days=days), "again"), item("Now", NOW, "now"))
        await live.until(NOW + 2 * MINUTE)

    assert headlines(tell(story, rss(item("Before", NOW - HOUR)))) == ["Now"]


@pytest.mark.parametrize(
    "published",
    [None, datetime(1970, 1, 1), NOW + timedelta(days=2), datetime(1, 1, 1), datetime(9999, 12, 31)],
)
def test_an_item_without_a_usable_time_is_dated_by_its_arrival(published: datetime | None) -> None:
    async def story(live: Live, server: NewsServer) -> None:
        assert live.of("items") == []  # nobody knows how long it has stood there
        server.text = rss(item("Fresh", published, "2"), item("Stood there", published, "1"))
        await live.until(NOW + MINUTE)

    live = tell(story, rss(item("Stood there", published, "1")))

    assert [(news.headline, news.event_time) for news in live.of("items")] == [("Fresh", NOW + MINUTE)]


def test_an_item_that_lies_seconds_ahead_is_dated_by_its_arrival_without_a_word() -> None:
    async def story(live: Live, server: NewsServer) -> None:
        assert [news.event_time for news in live.of("items")] == [NOW]

    tell(story, rss(item("Quick", NOW + timedelta(seconds=30))))


def test_tags_and_headlines_name_symbols_and_one_item_may_be_about_several(tmp_path: Any) -> None:
    table = tmp_path / "universe.csv"
    table.write_text("symbol,alias\nAAPL,Apple\nMSFT,Microsoft\n", encoding="utf-8")
    texts = rss(
        item("Rates stay", NOW, "4"),
        item("Chips", NOW, "3", tags="tech|aapl"),
        item("Microsoft sues Apple", NOW, "2"),
        item("Apple rises", NOW, "1", tags="Apple"),
    )

    async def story(live: Live, server: NewsServer) -> None:
        told = [(news.item_id, news.symbol) for news in live.of("items")]
        assert told == [("1", "AAPL"), ("2", "MSFT"), ("2", "AAPL"), ("3", "AAPL"), ("4", "")]

    universe = UniverseConfig(path=str(table))
    tell(story, texts, universe)

    async def without_the_market(live: Live, server: NewsServer) -> None:
        assert [news.item_id for news in live.of("items")] == ["1", "2", "2", "3"]

    tell(without_the_market, texts, universe, market_wide=False)


def test_a_feed_about_symbols_tells_its_items_and_its_states_of_each() -> None:
    async def story(live: Live, server: NewsServer) -> None:
        server.status = 500
        await live.until(NOW + 10 * MINUTE)

    live = tell(story, rss(item("Annual report", NOW)), symbols=("GOOG", "GOOGL"))

    assert [news.symbol for news in live.of("items")] == ["GOOG", "GOOGL"]
    assert [(status.symbol, status.state.name) for status in live.of("status")] == [
        ("GOOG", "CONNECTED"),
        ("GOOGL", "CONNECTED"),
        ("GOOG", "STALE"),
        ("GOOGL", "STALE"),
    ]


FAILURES: list[tuple[int, dict[str, str], bytes, str]] = [
    (404, {}, b"", "wire answers HTTP 404"),
    (500, {}, b"<html>", "wire answers HTTP 500"),
    (503, {}, b"", "wire answers HTTP 503"),
    (304, {}, b"", "wire answers HTTP 304"),  # to who did not say what it has
    (200, {"Content-Type": "text/html"}, b"<html><body>Sign in</body></html>", "want RSS or Atom"),
    (200, {}, b"/etc/hostname", "want RSS or Atom"),
    (200, {}, b"\x00\xff" * 500, "want RSS or Atom"),
    (200, {}, rss(item("Cut", NOW), item("Off", NOW)).encode()[:-30], "ends in its middle"),
    (200, {}, b'<!DOCTYPE rss [\n<!ENTITY p "C:\\data">\n]>\n<rss version="2.0"/>', "cannot be read"),
    (200, {}, b" " * (5 << 20), "at most"),
    (200, {"Content-Encoding": "gzip"}, gzip.compress(b" " * (64 << 20)), "at most"),
    (200, {"Content-Encoding": "gzip"}, b"no gzip", "as HTTP wants it"),
    (302, {"Location": "/feed.xml?token=hush"}, b"", "as HTTP wants it (TooManyRedirects)"),
    (302, {"Location": "ftp://hush/"}, b"", "as HTTP wants it"),
]


@pytest.mark.parametrize(("status", "headers", "body", "wanted"), FAILURES)
def test_an_answer_that_makes_no_sense_ends_nothing(
    status: int, headers: dict[str, str], body: bytes, wanted: str
) -> None:
    async def story(live: Live, server: NewsServer) -> None:
        server.validates = False
        server.text = rss(item("B", NOW, "b"), item("A", NOW, "a"))
        await live.until(NOW + 2 * MINUTE)
        server.status, server.headers, server.raw = status, headers, body
        await live.until(NOW + 20 * MINUTE)
        server.status, server.headers, server.raw = 200, {}, b""
        server.text = rss(item("C", NOW + 15 * MINUTE, "c"), item("B", NOW, "b"), item("A", NOW, "a"))
        await live.until(NOW + 22 * MINUTE)

    live = tell(story, rss(item("A", NOW, "a")))

    assert headlines(live) == ["A", "B", "C"]
    assert live.states() == ["CONNECTED", "STALE", "RECOVERED"]
    detail = live.of("status")[1].detail
    assert wanted in detail
    assert "\n" not in detail
    assert "hush" not in detail
    assert live.of("status")[2].value == 1.0


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for(status: int) -> None:
    async def story(live: Live, server: NewsServer) -> None:
        server.status, server.headers = status, {"Retry-After": "7200"}
        await live.until(NOW + 2 * MINUTE)
        asked = len(server.asked)
        server.status, server.headers, server.text = 200, {}, rss(item("B", NOW + MINUTE))
        await live.until(NOW + 2 * HOUR)
        assert len(server.asked) == asked
        await live.until(NOW + 3 * HOUR)

    live = tell(story, rss(item("A", NOW)))

    assert headlines(live) == ["A", "B"]
    assert live.states() == ["CONNECTED", "STALE", "RECOVERED"]


def test_a_publisher_that_cannot_be_reached_is_stale_and_comes_back() -> None:
    port = closed_port()

    async def story(live: Live, server: NewsServer) -> None:
        await live.until(NOW + 10 * MINUTE)

    live = tell(story, url=f"http://127.0.0.1:{port}/feed")

    assert live.states() == ["STALE"]
    assert "wire could not be reached" in live.of("status")[0].detail


def test_a_server_that_never_answers_is_given_up() -> None:
    async def work() -> Live:
        hung: list[asyncio.StreamWriter] = []

        async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            hung.append(writer)

        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/feed"
        config = RssConfig(url=url, timeout_s=0.2, stale_after_s=1.0, poll_s=1.0, backoff_max_s=10.0)
        clock = HandClock(NOW, lambda _: None)
        async with living(NewsFeed((config,), UniverseConfig(), clock=clock), clock) as live:
            await live.until(NOW + timedelta(seconds=5))
        for writer in hung:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return live

    live = asyncio.run(work())

    assert live.states() == ["STALE"]
    assert "could not be reached" in live.of("status")[0].detail


def test_a_token_comes_from_the_environment_and_is_told_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WIRE_TOKEN", "hush-hush")

    async def work() -> Live:
        async with NewsServer(rss(item("A", NOW, link="item/1"))) as server:
            config = RssConfig(url=server.url + "?key={token}", token_env="WIRE_TOKEN", source="wire", poll_s=60.0)
            clock = HandClock(NOW, lambda _: None)
            feed = NewsFeed((config,), UniverseConfig(), clock=clock)
            async with living(feed, clock) as live:
                server.status, server.headers = 302, {"Location": server.url + "?key=hush-hush"}
                await live.until(NOW + HOUR)
            assert server.paths[0] == "/feed.xml?key=hush-hush"
            assert "hush" not in repr(config) + repr(live.ticks) + repr(feed)
            return live

    assert asyncio.run(work()).states() == ["CONNECTED", "STALE"]
    monkeypatch.delenv("WIRE_TOKEN")
    with pytest.raises(ValueError, match="wire: the environment variable WIRE_TOKEN must hold its token"):
        NewsFeed((RssConfig(url="http://h/{token}", token_env="WIRE_TOKEN", source="wire"),), UniverseConfig())


def read(body: bytes | str, **headers: str) -> list[Any]:
    raw = body.encode() if isinstance(body, str) else body
    found = entries(raw, headers)
    return [article(entry, "wire", (), True, Universe()) for entry in found]


@pytest.mark.parametrize(
    ("title", "headline"),
    [
        ("A <b>bold</b> &amp; brave", "A bold & brave"),
        ("AT&T", "AT&T"),
        ("5 < 6 and 7 > 3", "5 < 6 and 7 > 3"),
        ("<p>One</p><p>Two<br/>three</p>", "One Two three"),
        ("tele<i>graph</i>", "telegraph"),
        ("  a\n\tb\u00a0c  ", "a b c"),
        ("\u202eesrever", "esrever"),
        ("Zürich — 東京 🚀", "Zürich — 東京 🚀"),
        ("x" * 900, "x" * 500),
    ],
)
def test_headlines_are_plain_text(title: str, headline: str) -> None:
    assert read(rss(item(title, NOW)))[0].headline == headline


def test_what_would_command_a_terminal_or_break_a_file_is_taken_out() -> None:
    assert plain_text("\x1b[31m red \x9b1m\x00 \ud800&#xD800;", 100) == "[31m red 1m ?\ufffd"
    assert plain_text(None, 100) == plain_text(["x"], 100) == ""


def test_identity_is_the_guid_or_the_link_or_the_content() -> None:
    found = read(
        rss(
            item("d", guid="g" * 5000),
            item("c", description="text"),
            item("b", link="http://127.0.0.1/b"),
            item("a", guid="<1@x>", link="http://127.0.0.1/a"),
        )
    )

    assert [entry.item_id for entry in found[:2]] == ["<1@x>", "http://127.0.0.1/b"]
    assert [len(entry.item_id) for entry in found[2:]] == [16, 16]
    assert found[2].item_id == read(rss(item("c", description="text")))[0].item_id
    assert found[2].item_id != read(rss(item("c", description="other")))[0].item_id


def test_an_item_without_a_title_is_headed_by_its_text() -> None:
    found = read(rss(item(None, description="<p>Only text</p>"), item("Title", description="Title")))

    assert [(entry.headline, entry.body) for entry in found] == [("Title", ""), ("Only text", "")]


def test_an_item_without_any_text_is_told_of_once() -> None:
    async def story(live: Live, server: NewsServer) -> None:
        await live.until(NOW + MINUTE)
        server.text = rss(item(None, NOW, "empty"), item("A", NOW))
        await live.until(NOW + 9 * MINUTE)

    live = tell(story, rss(item("A", NOW)))

    assert headlines(live) == ["A"]
    assert [status.detail for status in live.of("status")[1:]] == ["an item without a headline: empty (1 so far)"]


def test_atom_is_read_too_and_publication_comes_before_updates() -> None:
    text = """<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><title>T</title>
      <entry><id>urn:2</id><title type="html">B &lt;i&gt;it&lt;/i&gt;</title>
        <updated>2024-07-02T16:00:00+02:00</updated><category term="AAPL"/><summary>s</summary></entry>
      <entry><id>urn:1</id><title>A</title><published>2024-07-02T13:00:00Z</published>
        <updated>2024-07-02T15:00:00Z</updated></entry></feed>"""

    found = read(text)

    assert [(entry.item_id, entry.headline, entry.body) for entry in found] == [
        ("urn:1", "A", ""),
        ("urn:2", "B it", "s"),
    ]
    assert [entry.published for entry in found] == [datetime(2024, 7, 2, 13), datetime(2024, 7, 2, 14)]


def test_the_charset_of_the_answer_counts() -> None:
    body = rss(item("Zürich", NOW)).encode("latin-1")

    assert read(body, **{"Content-Type": "application/rss+xml; charset=iso-8859-1"})[0].headline == "Zürich"


def test_entities_that_expand_for_ever_are_not_expanded() -> None:
    levels = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    head = f'<!DOCTYPE rss [<!ENTITY a0 "lol">{levels}]>'

    found = read(rss("<item><title>x &a11; y</title></item>", head=head))

    assert len(found[0].headline) < 100


def test_only_so_many_items_of_one_answer_are_read() -> None:
    found = read(rss(*(item(f"n{n}", guid=str(n)) for n in range(1500))))

    assert [entry.item_id for entry in found] == [str(n) for n in reversed(range(1000))]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_a_damaged_feed_is_read_or_refused(seed: int, damages: int) -> None:
    source = random.Random(seed)
    body = bytearray(
        rss(*(item(f"N <b>{n}</b> &amp;", NOW, str(n), description="&#55296; x") for n in range(5))).encode()
    )
    for _ in range(damages):
        at = source.randrange(len(body))
        body[at : at + source.randrange(3)] = source.choice(
            [b"<", b"&", b">", b"]]>", b"<![", b"\xff", b"&#xD800;", b""]
        )
    with suppress(FeedError):
        for entry in read(bytes(body)):
            entry.headline.encode()
            entry.body.encode()
            assert entry.item_id


def test_feedparser_opens_no_file_that_an_answer_names(tmp_path: Any) -> None:
    # It would, given bytes: that is what BytesIO is for.
    secret = tmp_path / "feed.xml"
    secret.write_text(rss(item("secret", NOW)), encoding="utf-8")
    name = str(secret).encode()
    assert feedparser.parse(name).entries
    assert not feedparser.parse(io.BytesIO(name)).entries

    with pytest.raises(FeedError, match="want RSS or Atom"):
        read(name)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"url": ""}, "url must begin with http"),
        ({"url": "ftp://x/feed"}, "url must begin with http"),
        ({"url": "http://"}, "name a host"),
        ({"url": "http://me:hush@x/feed"}, "must not hold a password"),
        ({"url": "http://x/{token}"}, "or neither"),
        ({"url": "http://x/", "token_env": "T"}, "or neither"),
        ({"symbols": ("A", "A")}, "each of the symbols once"),
        ({"symbols": ("",)}, "each of the symbols once"),
        ({"poll_s": 0.0}, "poll_s must be positive"),
        ({"stale_after_s": float("nan")}, "stale_after_s must be positive"),
        ({"timeout_s": float("inf")}, "timeout_s must be positive"),
        ({"backoff_max_s": -1.0}, "backoff_max_s must be positive"),
        ({"backlog_s": float("nan")}, "backlog_s must lie in"),
        ({"user_agent": "a\nb"}, "user_agent must be printable"),
    ],
)
def test_impossible_configs_are_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted) as refused:
        RssConfig(**{"url": "http://127.0.0.1/feed"} | options)
    assert "hush" not in str(refused.value)


def test_a_feed_is_called_by_its_host_unless_it_has_a_name() -> None:
    assert RssConfig(url="https://example.org:8443/x").name == "example.org"
    assert RssConfig(url="https://example.org/x", source="wire").name == "wire"


def test_reading_leaves_no_thread_behind() -> None:
    async def story(live: Live, server: NewsServer) -> None:
        await live.until(NOW + 3 * MINUTE)

    tell(story, rss(item("A", NOW)))

    assert not [thread for thread in threading.enumerate() if thread.name == "feed-call" and thread.is_alive()]
