"""News by symbol from Yahoo Finance, through yfinance's client.

It is asked as `Ticker.get_news` asks, one level below it: that has no time-out of ours, takes every error in JSON for
an answer without news, and gives its first answer for as long as the Ticker lives.

An article is about those of the symbols asked for that it lists as its tickers; one that lists none, about the symbol
that Yahoo gave it for. Where the universe has a ticker as an alias, its symbols stand for it.

Source: yfinance 1.7.0, `base.py` and `data.py`. The fields of an article: observed, not documented.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from yfinance.data import YfData
from yfinance.exceptions import YFException, YFRateLimitError

from feeds.errors import FeedError, OfflineError, RateLimitError
from feeds.news_desk import (
    BODY_CHARS_MAX,
    HEADLINE_CHARS_MAX,
    Article,
    Desk,
    answered,
    oldest_first,
    plain_text,
    short,
    tidy,
)
from feeds.news_universe import Universe
from feeds.polling import Poller, Turn
from feeds.tasks import in_thread
from feeds.yahoo_client import client, plain_session, refuse_strange

FEED = "yahoo news"

_URL = "https://finance.yahoo.com/xhr/ncp?queryRef=latestNews&serviceKey=ncp_fin"
_COUNT_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class YahooNewsConfig:
    """News of Yahoo Finance about some symbols; their new risk waits while it is silent."""

    symbols: tuple[str, ...]  # as Yahoo spells them: AAPL BRK-B VOD.L BTC-USD ^VIX ES=F EURUSD=X
    count: int = 20  # of the newest articles, looked at with each question
    poll_s: float = 60.0  # between questions about one of them
    stale_after_s: float = 900.0  # without an answer about a symbol, beyond the poll
    backlog_s: float = 0.0  # what was published up to this long before the run is news too
    cache_dir: str = ".cache/yahoo"  # for yfinance's own small databases
    timeout_s: float = 10.0  # for one answer
    backoff_max_s: float = 900.0  # between attempts while Yahoo refuses
    seed: int = 0  # of the jitter of the pauses between attempts

    def __post_init__(self) -> None:
        refuse_strange(self.symbols)
        if len({symbol.upper() for symbol in self.symbols}) < len(self.symbols):
            raise ValueError(f"want each of the symbols once, was {self.symbols}")
        if not 1 <= self.count <= _COUNT_MAX:
            raise ValueError(f"count must lie in [1, {_COUNT_MAX}], was {self.count}")
        if not 0.0 <= self.backlog_s <= 366 * 86_400.0:
            raise ValueError(f"backlog_s must lie in [0, 31622400], was {self.backlog_s}")
        for name in ("poll_s", "stale_after_s", "timeout_s", "backoff_max_s"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, was {getattr(self, name)}")


def newest(symbol: str, count: int, session: Any, timeout_s: float) -> list[Any]:
    """Yahoo's newest articles of a symbol as it sends them, advertisements left out; inside `client`. It blocks.

    Raises:
        FeedError: or its case that fits.
    """
    body = {"serviceConfig": {"snippetCount": count, "s": [symbol]}}
    try:
        response = YfData(session=session).post(_URL, body=body, timeout=timeout_s)
        if response.status_code != 200:
            raise FeedError(f"{symbol}: Yahoo answers HTTP {response.status_code} to a question for news")
        # Not its own json(): that may be orjson's, to which half a surrogate pair spoils the whole answer.
        stream = json.loads(response.content)["data"]["tickerStream"]["stream"]
        return [item for item in stream if isinstance(item, dict) and not item.get("ad")]
    except YFRateLimitError as error:
        raise RateLimitError(f"{symbol}: Yahoo refuses for now, it was asked too often (HTTP 429)") from error
    except OSError as error:
        raise OfflineError(f"{symbol}: Yahoo could not be reached ({short(error)})") from error
    except (YFException, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise FeedError(f"{symbol}: Yahoo's answer holds no news ({type(error).__name__}: {short(error)})") from error


def article(item: Mapping[str, Any], asked: str, symbols: tuple[str, ...], universe: Universe) -> Article:
    """One of Yahoo's articles.

    Args:
        asked: the symbol that Yahoo gave it for.
        symbols: all that are asked for.

    Raises:
        FeedError: it is not what Yahoo's articles are like.
    """
    content = item.get("content")
    item_id = tidy(item.get("id"), HEADLINE_CHARS_MAX)
    if not isinstance(content, dict) or not item_id:
        raise FeedError(f"want an article with an id and its content, was {short(item)}")
    tickers = _tickers(content)
    about = tuple(symbol for symbol in symbols if symbol in tickers) if tickers else (asked,)
    named = (universe.tagged([symbol]) or (symbol,) for symbol in about)
    provider = content.get("provider")
    publisher = tidy(provider.get("displayName"), HEADLINE_CHARS_MAX) if isinstance(provider, dict) else ""
    return Article(
        feed=FEED,
        item_id=item_id,
        published=_published(content.get("pubDate")),
        headline=plain_text(content.get("title"), HEADLINE_CHARS_MAX),
        body=plain_text(content.get("summary"), BODY_CHARS_MAX),
        source=publisher or "yahoo",
        symbols=tuple(dict.fromkeys(name for names in named for name in names)),
    )


def _tickers(content: Mapping[str, Any]) -> list[str]:
    finance = content.get("finance")
    listed = finance.get("stockTickers") if isinstance(finance, dict) else None
    found = (entry.get("symbol") for entry in listed if isinstance(entry, dict)) if isinstance(listed, list) else ()
    return [symbol.upper() for symbol in found if isinstance(symbol, str)]


def _published(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)
    except (TypeError, ValueError, OverflowError):
        return None


class YahooNews:
    """News of some symbols, asked for again and again.

    Args:
        session: a curl_cffi session; None is a plain one.
    """

    def __init__(self, config: YahooNewsConfig, universe: Universe, desk: Desk, session: Any) -> None:
        self._config, self._universe, self._desk, self._session = config, universe, desk, session
        self._symbols = tuple(symbol.upper() for symbol in config.symbols)
        self._health = {symbol: desk.health(FEED, (symbol,)) for symbol in self._symbols}
        self._answered: set[str] = set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        config = self._config
        poller = Poller(
            self._ask,
            self._health,
            stale_after_s=config.stale_after_s,
            backoff_max_s=config.backoff_max_s,
            seed=config.seed,
            clock=self._desk.clock,
        )
        await poller.run()

    async def _ask(self, symbol: str) -> Turn:
        items = await in_thread(partial(self._newest, symbol))
        health, articles = self._health[symbol], []
        first = symbol not in self._answered
        self._answered.add(symbol)
        for item in items:
            try:
                articles.append(article(item, symbol, self._symbols, self._universe))
            except FeedError as error:
                health.bad(str(error))
        since = self._desk.since(self._config.backlog_s, first)
        told = sum(self._desk.hand_in(health, item, since, undated=not first) for item in oldest_first(articles))
        health.well(f"Yahoo answers, with {told} new items", told)
        return answered(self._config, self._desk.clock.now(), "Yahoo")

    def _newest(self, symbol: str) -> list[Any]:
        config, session = self._config, self._session or plain_session()
        with client(Path(config.cache_dir) / "client", 0):
            return newest(symbol, config.count, session, config.timeout_s)
