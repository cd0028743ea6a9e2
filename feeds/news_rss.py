"""News by RSS or Atom: fetched politely, parsed by feedparser, each entry as an article.

feedparser is not given the address but the bytes. It would block, and it opens a file where the bytes are the name of
one. Now and then it raises on a malformed feed, instead of saying so in `bozo` (its issue 599).
"""

import io
import math
import os
import re
from calendar import timegm
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import feedparser

from feeds.errors import FeedError
from feeds.fetch import fetch
from feeds.news_desk import BODY_CHARS_MAX, HEADLINE_CHARS_MAX, Article, Desk, answered, oldest_first, plain_text, tidy
from feeds.news_universe import Universe
from feeds.polling import Poller, Turn
from feeds.tasks import in_thread

_FEED_BYTES_MAX = 2 << 20  # 200 items have 0.1 MB; feedparser takes seconds for megabytes that are meant to be slow
_ENTRIES_MAX = 1000
_ID_CHARS_MAX = 256
_TOKEN = "{token}"
_ENDS = re.compile(rb"</\s*(?:\w+:)?(?:rss|feed|rdf)\s*>\s*(?:<!--[^<>]*-->\s*)*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RssConfig:
    """One RSS or Atom feed."""

    url: str  # where it needs a token, {token} stands for that
    token_env: str = ""  # environment variable that holds the token
    source: str = ""  # who publishes it; "": the host of the url
    symbols: tuple[str, ...] = ()  # that all of it is about, such as a company's own feed; their new risk waits for it
    market_wide: bool = True  # what names no symbol is about the market as a whole; False: it is left out
    poll_s: float = 120.0  # between questions
    stale_after_s: float = 900.0  # without an answer, beyond the poll
    backlog_s: float = 0.0  # what was published up to this long before the run is news too
    user_agent: str = "ticktorch"  # some publishers want a name and an address in it
    timeout_s: float = 10.0  # for one answer
    backoff_max_s: float = 900.0  # between attempts while the server refuses
    seed: int = 0  # of the jitter of the pauses between attempts

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")) or not urlsplit(self.url).hostname:
            raise ValueError("url must begin with http:// or https:// and name a host")  # it may hold a secret
        if "@" in urlsplit(self.url).netloc:
            raise ValueError(f"url must not hold a password; {_TOKEN} in it stands for what token_env holds")
        if (_TOKEN in self.url) != bool(self.token_env):
            raise ValueError(f"want {_TOKEN} in the url and token_env, or neither, was token_env {self.token_env!r}")
        if not all(self.symbols) or len(set(self.symbols)) < len(self.symbols):
            raise ValueError(f"want each of the symbols once, was {self.symbols}")
        if not 0.0 <= self.backlog_s <= 366 * 86_400.0:
            raise ValueError(f"backlog_s must lie in [0, 31622400], was {self.backlog_s}")
        if not self.user_agent.isascii() or not self.user_agent.isprintable():
            raise ValueError(f"user_agent must be printable ASCII, was {self.user_agent!r}")
        for name in ("poll_s", "stale_after_s", "timeout_s", "backoff_max_s"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {getattr(self, name)}")

    @property
    def name(self) -> str:
        """Who publishes it."""
        return self.source or urlsplit(self.url).hostname or ""


def entries(body: bytes, headers: Mapping[str, str]) -> list[Any]:
    """The entries of a feed, oldest first where it lists the newest first, at most 1000.

    Args:
        headers: of the answer; the charset counts.

    Raises:
        FeedError: no feed, or one that ends in its middle.
    """
    # Not the address: ids would be resolved against it.
    said = {"content-type": headers.get("Content-Type", "")}
    try:
        feed = feedparser.parse(io.BytesIO(body), response_headers=said)
    except Exception as error:  # whatever it is, another answer may be better
        raise FeedError(f"what came cannot be read as a feed ({type(error).__name__})") from error
    if not feed.get("version") and not feed.entries:
        raise FeedError(f"want RSS or Atom, was {body[:40]!r}")
    if feed.bozo and not _ENDS.search(body[-1024:]):
        raise FeedError("the feed ends in its middle")
    return list(reversed(feed.entries[:_ENTRIES_MAX]))


def article(entry: Any, source: str, symbols: tuple[str, ...], market_wide: bool, universe: Universe) -> Article:
    """One entry of a feed.

    Args:
        symbols: that all of the feed is about; where there are none, its tags and its headline tell.
        market_wide: whether an entry that names none is about "", or about nobody.
    """
    body = plain_text(entry.get("summary"), BODY_CHARS_MAX)
    headline = plain_text(entry.get("title"), HEADLINE_CHARS_MAX) or body[:HEADLINE_CHARS_MAX]  # some have no titles
    if not symbols:
        tags = [tag.get("term") for tag in entry.get("tags") or ()]
        symbols = universe.tagged(tag for tag in tags if isinstance(tag, str)) + universe.named(headline)
        symbols = tuple(dict.fromkeys(symbols)) or (("",) if market_wide else ())
    return Article(
        feed=source,
        item_id=_identity(entry, headline, body),
        published=_published(entry),
        headline=headline,
        body="" if body == headline else body,
        source=source,
        symbols=symbols,
    )


def _identity(entry: Any, headline: str, body: str) -> str:
    given = next((text for key in ("id", "link") if isinstance(text := entry.get(key), str) and text.strip()), "")
    given = tidy(given, BODY_CHARS_MAX)
    if given and len(given) <= _ID_CHARS_MAX:
        return given
    return sha256((given or f"{headline}\n{body}").encode()).hexdigest()[:16]


def _published(entry: Any) -> datetime | None:
    # `in`: feedparser answers a question for a missing update with the publication, and a warning.
    stamps = [entry[key] for key in ("published_parsed", "updated_parsed") if key in entry]
    stamp = next(filter(None, stamps), None)
    try:
        return None if stamp is None else datetime(1970, 1, 1) + timedelta(seconds=timegm(stamp))
    except (ValueError, OverflowError, TypeError):
        return None


def address(config: RssConfig) -> str:
    """Where the feed is, its token in place.

    Raises:
        ValueError: the environment does not hold the token.
    """
    if not config.token_env:
        return config.url
    token = os.environ.get(config.token_env, "")
    if not token:
        raise ValueError(f"{config.name}: the environment variable {config.token_env} must hold its token, is not set")
    return config.url.replace(_TOKEN, token)


class Rss:
    """One feed, asked again and again.

    Args:
        url: as of `address`.
    """

    def __init__(
        self, config: RssConfig, url: str, universe: Universe, desk: Desk, http: aiohttp.ClientSession
    ) -> None:
        self._config, self._url, self._universe, self._desk, self._http = config, url, universe, desk, http
        self._health = desk.health(f"{config.name} news", config.symbols or (config.name,))
        self._conditions: dict[str, str] = {}  # what the server wants to see again, to say that nothing changed
        self._digest = b""  # of the last answer that was read
        self._first = True

    async def run(self) -> None:
        """Deliver until cancelled."""
        config = self._config
        poller = Poller(
            self._ask,
            {config.name: self._health},
            stale_after_s=config.stale_after_s,
            backoff_max_s=config.backoff_max_s,
            seed=config.seed,
            clock=self._desk.clock,
        )
        await poller.run()

    async def _ask(self, name: str) -> Turn:
        headers = {"User-Agent": self._config.user_agent, **self._conditions}
        timeout_s = self._config.timeout_s
        answer = await fetch(self._http, self._url, name, timeout_s, headers=headers, bytes_max=_FEED_BYTES_MAX)
        articles: list[Article] = []
        if answer.status == 200:
            digest = sha256(answer.body).digest()  # many servers send the same again and again: it is read once
            if digest != self._digest:
                articles = await in_thread(partial(self._read, answer.body, answer.headers))
            self._digest = digest
            validators = {"If-None-Match": "ETag", "If-Modified-Since": "Last-Modified"}
            self._conditions = {ask: answer.headers[said] for ask, said in validators.items() if said in answer.headers}
        elif answer.status != 304 or not self._conditions:
            raise FeedError(f"{name} answers HTTP {answer.status}")
        since = self._desk.since(self._config.backlog_s, self._first)
        told = sum(self._desk.hand_in(self._health, item, since, undated=not self._first) for item in articles)
        self._first = False
        self._health.well(f"{name} answers, with {told} new items", told)
        return answered(self._config, self._desk.clock.now(), name)

    def _read(self, body: bytes, headers: Mapping[str, str]) -> list[Article]:
        config = self._config
        try:
            found = entries(body, headers)
        except FeedError as error:
            raise FeedError(f"{config.name}: {error}") from error
        symbols, wide = config.symbols, config.market_wide
        articles = [article(entry, config.name, symbols, wide, self._universe) for entry in found]
        return oldest_first(articles)
