"""News live: RSS and Atom, Yahoo Finance by symbol, and files that other programs write, as one stream of items.

Each source is asked or read by itself, and what one of them does never stops another. How they are doing is told of the
symbols that a source is all about; of a source that is about no one symbol it is told under its own name, so that no
order waits for it. What is told of an item, and when twice is once: `feeds.news_desk`. Which symbol it is about:
`feeds.news_universe`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from feeds.events import FeedStatus, NewsItem
from feeds.loop import LoopAdapter, Push
from feeds.news_desk import Desk
from feeds.news_follow import Follow, FollowConfig
from feeds.news_rss import Rss, RssConfig, address
from feeds.news_universe import UniverseConfig, load_universe
from feeds.news_yahoo import YahooNews, YahooNewsConfig
from feeds.polling import Clock, WallClock
from feeds.tasks import all_of

__all__ = [
    "OUTPUTS",
    "FollowConfig",
    "NewsFeed",
    "NewsSource",
    "RssConfig",
    "UniverseConfig",
    "YahooNewsConfig",
    "news_feed",
]

OUTPUTS: Mapping[str, type] = {"items": NewsItem, "status": FeedStatus}

NewsSource = RssConfig | YahooNewsConfig | FollowConfig


def news_feed(sources: Sequence[NewsSource], universe: UniverseConfig) -> LoopAdapter:
    """The adapter of a graph that runs in realtime; its outputs are those of `OUTPUTS`.

    Raises:
        ValueError: no source, two of one name, or a token that the environment does not hold.
        DataError: the universe's table cannot be used.
    """
    return LoopAdapter("news", NewsFeed(sources, universe), OUTPUTS)


class NewsFeed:
    """The service behind `news_feed`.

    Args:
        sources, universe: as of `news_feed`, whose errors it raises.
        session: a curl_cffi session for Yahoo; None is a plain one.
        clock: that items are dated by; tests move their own.
    """

    def __init__(
        self,
        sources: Sequence[NewsSource],
        universe: UniverseConfig,
        *,
        session: Any = None,
        clock: Clock | None = None,
    ) -> None:
        if not sources:
            raise ValueError("want at least one source of news, was none")
        names = [name for source in sources for name in _names(source)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"want each source of news once, and each under a name of its own, was twice: {twice}")
        self._sources, self._session, self._clock = tuple(sources), session, clock or WallClock()
        self._universe = load_universe(universe)
        self._addresses = {source: address(source) for source in sources if isinstance(source, RssConfig)}

    async def run(self, push: Push) -> None:
        """Deliver until cancelled."""
        desk = Desk(push, self._clock)
        async with aiohttp.ClientSession(trust_env=True) as http:
            await all_of(*(self._source(source, desk, http).run() for source in self._sources))

    def take(self, name: str, value: Any) -> None:
        """Nothing is sent to the sources."""

    def _source(self, source: NewsSource, desk: Desk, http: aiohttp.ClientSession) -> Rss | YahooNews | Follow:
        if isinstance(source, RssConfig):
            return Rss(source, self._addresses[source], self._universe, desk, http)
        if isinstance(source, YahooNewsConfig):
            return YahooNews(source, self._universe, desk, self._session)
        return Follow(source, desk)


def _names(source: NewsSource) -> list[str]:
    """What a source's states are told under."""
    if isinstance(source, RssConfig):
        return [f"rss {source.name}"]
    if isinstance(source, YahooNewsConfig):
        return [f"yahoo {symbol.upper()}" for symbol in source.symbols]
    return [f"file {source.path}"]
