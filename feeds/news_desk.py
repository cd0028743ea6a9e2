"""What every live source of news hands in, and how each item reaches the graph once, cleaned and dated.

Dates. What was published before the run began is history: its symbols' signals of an earlier run had it. It is
remembered, so that it is not taken for new when it comes again, and not told. An item without a usable time is dated by
its arrival, one that claims the future too.

Duplicates. An item is told once a symbol: a source's own id tells it apart, and so do, between sources and where a
source changes its ids, the words of its headline and the day. One headline with the same words twice a day is therefore
told once. What was told of a symbol is not told again as news about no one symbol.
"""

import html
import re
import unicodedata
from collections import OrderedDict
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol, TypeVar

import structlog

from feeds.events import FeedStatus, NewsItem
from feeds.health import Health
from feeds.loop import Push
from feeds.news import IDS_REMEMBERED
from feeds.polling import Clock, Turn

HEADLINE_CHARS_MAX, BODY_CHARS_MAX = 500, 10_000
BEFORE_ALL = datetime(1970, 1, 1)
LATE_MAX = timedelta(days=1)  # by which an item may come late, or have its time zone forgotten, and still be news

_DETAIL_CHARS_MAX = 200
_AHEAD_MAX = timedelta(minutes=1)  # what two clocks may differ by
_FIRST_YEAR = 2000  # an earlier time is a placeholder: there were no news feeds
_TAG = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]*)[^<>]*>|<[!?][^<>]*>")
_BREAKING = re.compile(
    "address|article|blockquote|br|dd|div|dl|dt|h[1-6]|hr|li|ol|p|pre|table|td|th|tr|ul", re.IGNORECASE
)
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")  # a headline ends on terminals
_NO_WORD = re.compile(r"\W+")
_log = structlog.get_logger()

K, V = TypeVar("K"), TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """One item as its source has it, its texts plain."""

    feed: str  # within which its id is its own
    item_id: str
    published: datetime | None  # naive UTC; None where the source does not tell
    headline: str
    body: str
    source: str  # who published it
    symbols: tuple[str, ...]  # that it is about; "" for no one symbol; none: nobody asked for it


class Patience(Protocol):
    """What the config of a polled source says of its pace."""

    @property
    def poll_s(self) -> float: ...
    @property
    def stale_after_s(self) -> float: ...


def answered(config: Patience, now: datetime, who: str) -> Turn:
    """What follows from an answer that came at `now`."""
    again_at = now + timedelta(seconds=config.poll_s)
    stale_at = again_at + timedelta(seconds=config.stale_after_s)
    return Turn(again_at=again_at, stale_at=stale_at, heard_at=now, silence=f"{who} has not answered since {now}")


def plain_text(text: object, chars_max: int) -> str:
    """HTML as `tidy` has it, without its tags."""
    if not isinstance(text, str):
        return ""
    return tidy(html.unescape(_TAG.sub(_gap, text[: 8 * chars_max])), chars_max)


def tidy(text: object, chars_max: int) -> str:
    """A text as one line that can be printed and stored; "" where it is no text at all."""
    if not isinstance(text, str):
        return ""
    text = _UNPRINTABLE.sub(" ", text).encode("utf-8", "replace").decode()  # JSON can spell half a surrogate pair
    return " ".join(text.split())[:chars_max].rstrip()


def oldest_first(articles: list[Article]) -> list[Article]:
    """In the order of their publication; those of the same time, and the undated at the end, as they came."""
    return sorted(articles, key=lambda article: (article.published is None, article.published or BEFORE_ALL))


def _gap(tag: re.Match[str]) -> str:
    return " " if _BREAKING.fullmatch(tag[1] or "") else ""


def short(detail: object) -> str:
    """One line of a message for a person."""
    return tidy(str(detail), _DETAIL_CHARS_MAX)


class Told:
    """Which items the graph has, by their ids and by their headlines.

    Args:
        most: of each, the last so many are remembered; what is handed in again counts as new among them.
    """

    def __init__(self, most: int = IDS_REMEMBERED) -> None:
        self._most = most
        self._ids: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self._headlines: OrderedDict[tuple[str, date], list[str]] = OrderedDict()  # and the symbols that it was told of

    def is_new(self, article: Article, symbol: str, day: date) -> bool:
        """Whether the article is news about a symbol; from now on it is not."""
        key = (article.feed, article.item_id, symbol)
        known = key in self._ids
        _touch(self._ids, key, None, self._most)
        words = _NO_WORD.sub(" ", unicodedata.normalize("NFKC", article.headline).casefold()).strip()
        if not words:  # nothing to compare
            return not known
        symbols = self._headlines.get((words, day), [])
        told = symbol in symbols or (not symbol and bool(symbols))
        if symbol not in symbols:
            symbols = [*symbols, symbol]
        _touch(self._headlines, (words, day), symbols, self._most)
        return not known and not told


def _touch(window: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    window[key] = value
    window.move_to_end(key)
    if len(window) > most:
        window.popitem(last=False)


class Desk:
    """Where the sources of one feed hand in what they have.

    Args:
        push: of the feed; outputs "items" and "status".
        clock: that arrivals are dated by.
    """

    def __init__(self, push: Push, clock: Clock) -> None:
        self._push, self.clock = push, clock
        self.started = clock.now()
        self._told = Told()
        self._undated: dict[str, int] = {}

    def health(self, feed: str, symbols: tuple[str, ...]) -> Health:
        """Of one source; each change is told of every symbol that it speaks of."""

        def tell(status: FeedStatus) -> None:
            for symbol in symbols:
                told = status.copy()
                told.symbol = symbol
                self._push("status", told)

        return Health(feed, symbols[0], float("inf"), tell)

    def since(self, backlog_s: float, first: bool) -> datetime:
        """What was published before is history.

        Args:
            backlog_s: how far before the run news begins.
            first: of a source's first answer, which lists what stood there before; what comes later may be late.
        """
        backlog = timedelta(seconds=backlog_s)
        return self.started - (backlog if first else max(backlog, LATE_MAX))

    def hand_in(self, health: Health, article: Article, since: datetime, *, undated: bool) -> int:
        """Tell an article to the graph, once a symbol that it is about; return how often.

        Args:
            health: of its source.
            since: what was published before is remembered and not told.
            undated: whether what has no usable time is news.
        """
        received = self.clock.now()
        when, why = _dated(article.published, received)
        fresh = undated if why else when >= since
        new = [s for s in article.symbols if self._told.is_new(article, s, when.date())]
        if not new or not fresh:
            return 0
        if not article.headline:
            health.bad(f"an item without a headline: {short(article.item_id)}")
            return 0
        if why:
            self._note(health.feed, f"{why}, its arrival taken instead: {article.headline}")
        for symbol in new:
            item = NewsItem(
                symbol=symbol,
                event_time=when,
                received=received,
                item_id=article.item_id,
                headline=article.headline,
                body=article.body,
                source=article.source,
            )
            self._push("items", item)
        return len(new)

    def _note(self, feed: str, detail: str) -> None:
        count = self._undated[feed] = self._undated.get(feed, 0) + 1
        if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            _log.warning("news_undated", feed=feed, count=count, detail=short(detail))


def _dated(published: datetime | None, received: datetime) -> tuple[datetime, str]:
    """When an item could be read first, and why that is not when it says that it was published; "" where it is."""
    if published is None:
        return received, "an item without a time of publication"
    if published.year < _FIRST_YEAR:
        return received, f"an item published in {published.year}"
    if published > received + _AHEAD_MAX:
        return received, f"an item published in the future, at {published}"
    return min(published, received), ""
