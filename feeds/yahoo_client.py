"""What Yahoo Finance serves and how it answers, through yfinance: one request in, rows or one clear error out.

yfinance is a client with a process-wide state and many ways to fail; this module is the only one that knows them.
`Ticker.history` is the one call of its that reports errors: `download` swallows them all.

Source: yfinance 1.7.0, `scrapers/history.py` and `data.py`.
"""

import logging
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yfinance as yf
from curl_cffi import requests
from yfinance.data import YfData
from yfinance.exceptions import YFException, YFPricesMissingError, YFRateLimitError, YFTzMissingError

from feeds.errors import FeedError, OfflineError, RateLimitError, UnknownSymbolError
from feeds.windows import Window

MINUTES = {"1m": 1, "2m": 2, "5m": 5, "15m": 15, "30m": 30, "60m": 60, "90m": 90, "1h": 60}
CALENDAR: dict[str, dict[str, int]] = {  # lengths as a calendar counts them
    "1d": {"days": 1},
    "5d": {"days": 7},
    "1wk": {"days": 7},
    "1mo": {"months": 1},
    "3mo": {"months": 3},
}
INTERVALS = (*MINUTES, *CALENDAR)
REACH_DAYS = {"1m": 30, "2m": 60, "5m": 60, "15m": 60, "30m": 60, "90m": 60, "60m": 730, "1h": 730}
CHUNK_DAYS = {"1m": 7}  # Yahoo answers for at most 8 days of 1m bars at once
DELAY = timedelta(minutes=30)  # some exchanges' quotes arrive 15 to 20 minutes late: until then a bar may change

_one_at_a_time = threading.RLock()
_SYMBOL = re.compile(r"[A-Z0-9^][A-Z0-9.^=&_-]{0,31}")
_SPLITTING = frozenset(["EQUITY", "ETF", "MUTUALFUND"])
_FACTS = {
    "exchange": "exchangeName",
    "timezone": "exchangeTimezoneName",
    "currency": "currency",
    "kind": "instrumentType",
}
_NO_PERIODS: tuple[Any, ...] = (
    [],
    {},
    {"pre": [], "post": []},
)  # a window without a session, which yfinance trips over


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Yahoo's rows in exchange time, what it says of the symbol, and its trading periods (intraday only)."""

    rows: Any = None  # a DataFrame with Open High Low Close Volume "Stock Splits"; None where Yahoo has no rows
    market: Mapping[str, str] = field(default_factory=dict)  # exchange, timezone, currency, kind
    periods: Any = None  # a DataFrame indexed by exchange midnight, columns start and end
    quoted: datetime = datetime(1970, 1, 1)  # of the last price that Yahoo has, naive UTC
    hours: Window | None = None  # the regular session of the running day, or of the next, naive UTC


def refuse_strange(symbols: Sequence[str]) -> None:
    """Refuse what cannot be Yahoo's symbols, such as a pair with a slash.

    Raises:
        ValueError: none, or one of them.
    """
    if not symbols:
        raise ValueError("symbols must name at least one symbol, was empty")
    for symbol in symbols:
        if not _SYMBOL.fullmatch(symbol.upper()):
            raise ValueError(f"symbols must be Yahoo's, such as AAPL, BRK-B, ^VIX or EURUSD=X, was {symbol!r}")


def ask(symbol: str, interval: str, window: Window, session: Any, timeout_s: float) -> Answer:
    """One request, inside `client`. Prices are adjusted for splits and not for dividends.

    Args:
        window: naive UTC; for bars of a day and longer, dates at the exchange.

    Raises:
        FeedError: or its case that fits; each says what to do.
    """
    zone = UTC if interval in MINUTES else None  # yfinance takes naive times as the exchange's
    start, end = (edge.replace(tzinfo=zone) for edge in window)
    ticker = yf.Ticker(symbol, session=session)
    try:
        rows = ticker.history(
            start=start,
            end=end,
            interval=interval,
            auto_adjust=False,
            # yfinance resamples 30m rows, with empty ones for every night: those are no missing data.
            keepna=interval != "30m",
            timeout=timeout_s,
        )
        facts = _facts(ticker)
        return Answer(
            rows=rows if len(rows) else None,
            market={name: str(facts.get(key) or "") for name, key in _FACTS.items()},
            periods=facts["tradingPeriods"] if interval in MINUTES else None,
            **_present(facts),
        )
    except YFPricesMissingError as error:
        return _without_prices(symbol, error, _facts(ticker))
    except YFRateLimitError as error:
        raise RateLimitError(
            f"{symbol}: Yahoo refuses for now, too many requests came from this address (HTTP 429). Wait some minutes"
            " and run the same again: what was fetched already comes from the cache."
        ) from error
    except YFTzMissingError as error:
        raise _unknown(symbol) from error
    except YFException as error:
        raise FeedError(f"{symbol}: yfinance gave up: {error}") from error
    except OSError as error:
        raise _from_transport(symbol, error) from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        if _facts(ticker).get("tradingPeriods") in _NO_PERIODS:
            return Answer(**_present(_facts(ticker)))
        # yfinance trips over answers it does not expect, such as a page instead of JSON.
        raise FeedError(
            f"{symbol}: Yahoo's answer is not what yfinance {yf.__version__} understands"
            f" ({type(error).__name__}: {error}). Try again later, or update yfinance."
        ) from error


def split_since(symbol: str, kind: str, then: datetime, now: datetime, session: Any, timeout_s: float) -> bool:
    """Whether a symbol of that kind has split since then, so that older prices have another scale. One request."""
    if kind not in _SPLITTING:
        return False
    # A week more, so that the window is never empty; a day more counts, because Yahoo adjusts around the ex-date.
    window = (then - timedelta(days=7), now + timedelta(days=1))
    rows = ask(symbol, "1d", window, session, timeout_s).rows
    if rows is None:
        return False
    recent = rows.index.tz_localize(None) >= pd.Timestamp(then - timedelta(days=1)).normalize()
    return bool((rows["Stock Splits"][recent] != 0.0).any())


@contextmanager
def client(folder: Path, retries: int) -> Iterator[None]:
    """yfinance keeps its settings for the whole process: set ours, and put back what was there.

    One thread at a time is inside; the others wait.

    Args:
        folder: for the client's own small databases (time zones, cookies); the first one given serves the process.
        retries: after a failed connection, 1 s, 2 s, 4 s ... apart.
    """
    with _one_at_a_time:
        debug, network, logger = yf.config.debug, yf.config.network, logging.getLogger("yfinance")
        before = debug.hide_exceptions, network.retries, logger.level
        _place_databases(folder.resolve())
        YfData.cache_get.cache_clear()  # it remembers answers, refusals included, for as long as the process lives
        debug.hide_exceptions, network.retries = False, retries
        logger.setLevel(logging.CRITICAL)  # what it logs is what `ask` raises
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="yfinance")  # deprecations between it and pandas
                yield
        finally:
            debug.hide_exceptions, network.retries = before[:2]
            logger.setLevel(before[2])


@cache
def plain_session() -> Any:
    """The session of everyday use. One a process, given on every call: yfinance stays with the last one it saw."""
    return requests.Session(impersonate="chrome")


@cache
def _place_databases(folder: Path) -> None:
    yf.set_tz_cache_location(str(folder))


def _facts(ticker: yf.Ticker) -> Mapping[str, Any]:
    """What Yahoo said beside the rows. `history_metadata`, which is public, trips over `_NO_PERIODS` and asks again."""
    return getattr(getattr(ticker, "_price_history", None), "_history_metadata", None) or {}


def _present(facts: Mapping[str, Any]) -> dict[str, Any]:
    """When Yahoo's last price is from, and the hours of its regular session; what it does not tell is left out."""
    hours = (facts.get("currentTradingPeriod") or {}).get("regular") or {}
    quoted, opens, closes = map(_naive, (facts.get("regularMarketTime"), hours.get("start"), hours.get("end")))
    present: dict[str, Any] = {} if quoted is None else {"quoted": quoted}
    return present if opens is None or closes is None else present | {"hours": (opens, closes)}


def _naive(stamp: Any) -> datetime | None:
    """A time as yfinance leaves it: seconds since 1970, or a Timestamp with a zone where it came to format it."""
    if isinstance(stamp, pd.Timestamp):
        return stamp.tz_convert(UTC).tz_localize(None).to_pydatetime()
    return datetime.fromtimestamp(stamp, UTC).replace(tzinfo=None) if isinstance(stamp, int) else None


def _without_prices(symbol: str, error: YFPricesMissingError, facts: Mapping[str, Any]) -> Answer:
    """An empty answer where Yahoo knows the symbol and merely has no bars in the window; raises otherwise."""
    reason = error.yahoo_reason or ""
    if reason.startswith("Data doesn't exist"):
        return Answer(**_present(facts))
    if "delisted" in reason:
        raise _unknown(symbol) from error
    if reason or not facts.get("exchangeName"):
        raise FeedError(f"{symbol}: Yahoo answers {reason or 'neither prices nor a reason'!r}") from error
    if facts.get("firstTradeDate") is None:  # the empty page that Yahoo has for some misspelt symbols
        raise _unknown(symbol) from error
    return Answer(**_present(facts))


def _unknown(symbol: str) -> UnknownSymbolError:
    return UnknownSymbolError(
        f"{symbol}: Yahoo has no such symbol, or no longer. Look it up on finance.yahoo.com; its spellings are like"
        " AAPL, BRK-B, VOD.L, BTC-USD, ^VIX, ES=F, EURUSD=X."
    )


def _curl(error: OSError) -> str:
    """What curl says was wrong, without how it came to say so."""
    return str(error).removeprefix("Failed to perform, ").partition(". See https://curl.se")[0]


def _from_transport(symbol: str, error: OSError) -> FeedError:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status == 404:
        return _unknown(symbol)
    if status:
        return FeedError(f"{symbol}: Yahoo answers HTTP {status}. Try again later.")
    return OfflineError(f"{symbol}: Yahoo could not be reached ({_curl(error)}); check the network and the proxy")
