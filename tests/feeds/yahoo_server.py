"""Yahoo Finance on 127.0.0.1: the chart protocol as the real service speaks it, so that the real client can be tested.

`YahooServer` answers /v8/finance/chart/SYMBOL, /xhr/ncp (news), the cookie, consent and crumb pages, and the quote
pages that yfinance falls back to. `LocalSession` is the session for the client: it sends every URL, whatever its host,
to the server.

What is emulated: prices adjusted for every split up to `now`; `tradingPeriods` for intraday requests; daily rows
stamped at the session's open; the running bar, and the separate "live" row stamped at this very second; quotes that
come late; the time of the last price and the hours of the running or the next session; nulls; the refusals (404, 400,
422, 429) with Yahoo's own texts; the 200 answer with an empty quote that some misspelt symbols get.
"""

import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
from curl_cffi import requests

from feeds.yahoo import cache_path, history, utc
from feeds.yahoo_bars import SCHEMA

MINUTES = {"1m": 1, "2m": 2, "5m": 5, "15m": 15, "30m": 30, "60m": 60, "90m": 90, "1h": 60}
REACH_DAYS = {"1m": 30, "2m": 60, "5m": 60, "15m": 60, "30m": 60, "90m": 60, "60m": 730, "1h": 730}
NOT_FOUND = {"code": "Not Found", "description": "No data found, symbol may be delisted"}


@dataclass(kw_only=True)
class Listing:
    """One symbol of the server's market."""

    symbol: str
    exchange: str = "NMS"
    zone: str = "America/New_York"
    kind: str = "EQUITY"
    opens: time = time(9, 30)
    closes: time = time(16, 0)  # time(0) is a market that never closes
    weekends: bool = False
    holidays: frozenset[date] = frozenset()
    half_days: dict[date, time] = field(default_factory=dict)
    first_day: date = date(1990, 1, 2)
    splits: dict[date, tuple[int, int]] = field(default_factory=dict)  # ex-date: (new, old)
    dividends: dict[date, float] = field(default_factory=dict)  # ex-date: amount a share
    nulls: set[int] = field(default_factory=set)  # row stamps whose prices are null
    silent: set[int] = field(default_factory=set)  # row stamps without volume
    strays: list[int] = field(default_factory=list)  # stamps of rows that do not belong between the bars
    base: float = 100.0  # price level
    late: timedelta = timedelta()  # how old the quotes are that the exchange lets Yahoo show

    def session(self, day: date) -> tuple[datetime, datetime] | None:
        """Open and close of a day, UTC; None where the market is shut."""
        if day < self.first_day or day in self.holidays or (day.weekday() > 4 and not self.weekends):
            return None
        zone = ZoneInfo(self.zone)
        closes = self.half_days.get(day, self.closes)
        last = day + timedelta(days=1) if closes == time(0) else day
        opened = datetime.combine(day, self.opens, zone).astimezone(UTC)
        return opened, datetime.combine(last, closes, zone).astimezone(UTC)

    def period(self, day: date) -> tuple[int, int] | None:
        """The trading period as Yahoo reports it: a market that never closes ends at 23:59."""
        session = self.session(day)
        if session is None:
            return None
        opened, closed = (int(t.timestamp()) for t in session)
        return opened, closed - 60 if self.closes == time(0) else closed

    def price(self, when: int) -> float:
        """What one share cost then, in the shares that remain after all splits."""
        return self.base * (1.2 + 0.2 * math.sin(when / 500_000.0) + 0.01 * math.sin(when / 900.0))

    def scale(self, now: datetime) -> float:
        """How many such shares one share was at `now`: a service adjusts for the splits that it knows of."""
        ratio = 1.0
        for ex, (new, old) in self.splits.items():
            session = self.session(ex)
            if session is not None and session[0] > now:
                ratio *= new / old
        return ratio


@dataclass(frozen=True)
class Row:
    stamp: int
    prices: tuple[float, float, float, float] | None  # open, high, low, close
    volume: int


class YahooServer:
    """A Yahoo that lives at `now`. Change `now`, the listings or `refusal` at any time; `requests` tells who asked.

    Use as a context manager. `charts()` leaves out the symbol look-ups that the client makes for the time zone.
    """

    def __init__(self, *listings: Listing, now: datetime) -> None:
        self.listings = {listing.symbol: listing for listing in listings}
        self.now = now.replace(tzinfo=UTC)
        self.refusal: tuple[int, str] | None = None  # status and body that every chart request gets
        self.stubs: set[str] = set()  # symbols answered by an empty quote
        self.news: dict[str, list[Any]] = {}  # articles by symbol, newest first
        self.news_refusal: tuple[int, str] | None = None  # status and body that every question for news gets
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    def __enter__(self) -> "YahooServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def charts(self) -> list[dict[str, str]]:
        """The parameters of the chart requests so far that asked for bars, oldest first."""
        with self._lock:
            return [{"symbol": path.rsplit("/", 1)[1], **query} for path, query in self.requests if "period1" in query]

    def answer(self, path: str, query: dict[str, str], posted: bytes = b"") -> tuple[int, str, str]:
        """Status, content type and body for a request."""
        with self._lock:
            self.requests.append((path, query))
        if path == "/xhr/ncp":
            if self.news_refusal is not None:
                return self.news_refusal[0], "application/json", self.news_refusal[1]
            asked = json.loads(posted)["serviceConfig"]
            stream = [
                article for symbol in asked["s"] for article in self.news.get(symbol, [])[: asked["snippetCount"]]
            ]
            return 200, "application/json", json.dumps({"data": {"tickerStream": {"stream": stream}}, "status": "OK"})
        if path.startswith("/v8/finance/chart/"):
            if self.refusal is not None:
                return self.refusal[0], "text/plain", self.refusal[1]
            status, body = self._chart(path.rsplit("/", 1)[1], query)
            return status, "application/json", json.dumps({"chart": body})
        if path == "/v1/test/getcrumb":
            return 200, "text/plain", "a1B2c3D4e5F"
        if path in ("/consent", "/copyConsent"):
            form = '<input name="csrfToken" value="t"/><input name="sessionId" value="s"/>'
            return 200, "text/html", f"<html><form>{form}</form></html>"
        if path.startswith("/v10/finance/quoteSummary/"):
            error = {"code": "Not Found", "description": f"Quote not found for symbol: {path.rsplit('/', 1)[1]}"}
            return 404, "application/json", json.dumps({"quoteSummary": {"result": None, "error": error}})
        if path == "/v7/finance/quote":
            return 200, "application/json", json.dumps({"quoteResponse": {"result": [], "error": None}})
        return 404, "text/html", "<html>not found</html>"  # so does the real fc.yahoo.com, with its cookie

    def _chart(self, symbol: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if symbol in self.stubs:
            stub = Listing(symbol=symbol, exchange="YHD", kind="MUTUALFUND")
            meta = self._meta(stub, query) | {"currency": None, "firstTradeDate": None}
            return 200, {"result": [{"meta": meta, "indicators": {"quote": [{}], "adjclose": [{}]}}], "error": None}
        listing = self.listings.get(symbol)
        if listing is None:
            return 404, {"result": None, "error": NOT_FOUND}
        now, interval = int(self.now.timestamp()), query["interval"]
        start, end = int(query.get("period1", now - 86_400)), int(query.get("period2", now))
        reason = self._refusal(listing, interval, start, end)
        if reason is not None:
            return reason[0], {"result": None, "error": {"code": reason[1], "description": reason[2]}}
        rows = list(self._rows(listing, interval, start, end))
        result: dict[str, Any] = {"meta": self._meta(listing, query), "indicators": {"quote": [{}], "adjclose": [{}]}}
        if interval in MINUTES:
            periods = [listing.period(day) for day in _days(listing, start, end)]
            result["meta"]["tradingPeriods"] = [[self._period(listing, p)] for p in periods if p]
            del result["indicators"]["adjclose"]
        if rows:
            result["timestamp"] = [row.stamp for row in rows]
            names = enumerate(("open", "high", "low", "close"))
            quote: dict[str, Any] = {name: [row.prices and row.prices[i] for row in rows] for i, name in names}
            result["indicators"]["quote"] = [quote | {"volume": [row.prices and row.volume for row in rows]}]
            if interval not in MINUTES:
                adjusted = [row.prices and row.prices[3] * self._without_dividends(listing, row.stamp) for row in rows]
                result["indicators"]["adjclose"] = [{"adjclose": adjusted}]
            events = {"splits": dict(self._splits(listing, start, end))}
            events["dividends"] = dict(self._dividends(listing, start, end))
            result["events"] = {name: found for name, found in events.items() if found}
        return 200, {"result": [result], "error": None}

    def _refusal(self, listing: Listing, interval: str, start: int, end: int) -> tuple[int, str, str] | None:
        span = f"{interval} data not available for startTime={start} and endTime={end}."
        if interval == "1m" and end - start > 8 * 86_400:
            text = "Only 8 days worth of 1m granularity data are allowed to be fetched per request."
            return 422, "Unprocessable Entity", f"{span} {text}"
        reach = REACH_DAYS.get(interval)
        if reach is not None and start < self.now.timestamp() - reach * 86_400:
            text = f"The requested range must be within the last {reach} days."
            return 422, "Unprocessable Entity", f"{span} {text}"
        if datetime.fromtimestamp(end, UTC).date() <= listing.first_day:
            return 400, "Bad Request", f"Data doesn't exist for startDate = {start}, endDate = {end}"
        return None

    def _meta(self, listing: Listing, query: dict[str, str]) -> dict[str, Any]:
        first = listing.session(listing.first_day)
        local = self.now.astimezone(ZoneInfo(listing.zone))
        hours = self._hours(listing)
        lasts = {"pre": (hours[0] - 60, hours[0]), "regular": hours, "post": (hours[1], hours[1] + 60)}
        return {
            "currency": "USD",
            "symbol": listing.symbol,
            "exchangeName": listing.exchange,
            "instrumentType": listing.kind,
            "firstTradeDate": int(first[0].timestamp()) if first else 0,
            "regularMarketTime": self._quoted(listing),
            "hasPrePostMarketData": listing.kind == "EQUITY",
            "gmtoffset": int(local.utcoffset().total_seconds()),  # type: ignore[union-attr]
            "timezone": local.tzname(),
            "exchangeTimezoneName": listing.zone,
            "regularMarketPrice": listing.price(int(self.now.timestamp())),
            "priceHint": 2,
            "currentTradingPeriod": {name: self._period(listing, period) for name, period in lasts.items()},
            "dataGranularity": query["interval"],
            "range": query.get("range", ""),
            "validRanges": ["1d", "5d", "1mo", "3mo", "6mo", "1y", "2y", "5y", "10y", "ytd", "max"],
        }

    def _hours(self, listing: Listing) -> tuple[int, int]:
        """The session of today at the exchange, or the next one."""
        day = self.now.astimezone(ZoneInfo(listing.zone)).date()
        return next(period for period in map(listing.period, (day + timedelta(days=i) for i in range(10))) if period)

    def _quoted(self, listing: Listing) -> int:
        """When the last price is from that the listing's exchange lets Yahoo show."""
        shown = self.now - listing.late
        day = shown.astimezone(ZoneInfo(listing.zone)).date()
        sessions = filter(None, (listing.session(day - timedelta(days=i)) for i in range(10)))
        return int(next((min(shown, closed) for opened, closed in sessions if opened <= shown), shown).timestamp())

    def _period(self, listing: Listing, period: tuple[int, int]) -> dict[str, Any]:
        local = datetime.fromtimestamp(period[0], ZoneInfo(listing.zone))
        offset = int(local.utcoffset().total_seconds())  # type: ignore[union-attr]
        return {"timezone": local.tzname(), "start": period[0], "end": period[1], "gmtoffset": offset}

    def _rows(self, listing: Listing, interval: str, start: int, end: int) -> Iterator[Row]:
        now = int((self.now - listing.late).timestamp())
        for opened, closed in _slots(listing, interval, start, end):
            if not start <= opened < end or opened > now:
                continue
            yield self._row(listing, opened, min(closed, now))
        yield from (self._row(listing, at, at + 60) for at in listing.strays if start <= at < end)
        session = listing.session(self.now.astimezone(ZoneInfo(listing.zone)).date())
        if interval in MINUTES and session and session[0].timestamp() <= now < session[1].timestamp() and start <= now:
            price = round(
                listing.price(now) * listing.scale(self.now), 4
            )  # the live row comes even when it lies after the end
            yield Row(now, (price, price, price, price), 0)

    def _row(self, listing: Listing, opened: int, closed: int) -> Row:
        if opened in listing.nulls:
            return Row(opened, None, 0)
        ratio = listing.scale(self.now)
        step = max((closed - opened) / 8.0, 1.0)
        path = [round(listing.price(int(opened + i * step)) * ratio, 6) for i in range(9)]
        volume = 0 if opened in listing.silent else int((1000 + (closed - opened) // 60) * 100 / ratio)
        return Row(opened, (path[0], max(path), min(path), path[-1]), volume)

    def _splits(self, listing: Listing, start: int, end: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for ex, (new, old) in listing.splits.items():
            session = listing.session(ex)
            stamp = int(session[0].timestamp()) if session else 0
            if start <= stamp < end and stamp <= self.now.timestamp():
                yield str(stamp), {"date": stamp, "numerator": new, "denominator": old, "splitRatio": f"{new}:{old}"}

    def _dividends(self, listing: Listing, start: int, end: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for ex, amount in listing.dividends.items():
            session = listing.session(ex)
            stamp = int(session[0].timestamp()) if session else 0
            if start <= stamp < end:
                yield str(stamp), {"date": stamp, "amount": amount}

    def _without_dividends(self, listing: Listing, stamp: int) -> float:
        """Yahoo's factor from the close to the adjusted close."""
        later = [d for ex, d in listing.dividends.items() if datetime.fromtimestamp(stamp, UTC).date() < ex]
        return math.prod(1.0 - amount / listing.price(stamp) for amount in later)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _reply(self) -> None:
                url = urlsplit(self.path)
                query = {name: given[-1] for name, given in parse_qs(url.query).items()}
                posted = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, kind, body = server.answer(unquote(url.path), query, posted)
                payload = body.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = _reply  # noqa: N815 (the names that http.server calls)

            def log_message(self, *_: Any) -> None:
                """Quiet: the tests read `requests`."""

        return Handler


class LocalSession(requests.Session):
    """A curl_cffi session whose every URL goes to 127.0.0.1:`port`; `hosts` keeps the hosts that were meant."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.hosts: set[str] = set()

    def request(self, method: Any, url: str, *args: Any, **kwargs: Any) -> Any:
        parts = urlsplit(url)
        self.hosts.add(parts.netloc)
        local = urlunsplit(("http", f"127.0.0.1:{self.port}", parts.path or "/", parts.query, ""))
        return super().request(method, local, *args, **kwargs)


class Desk:
    """A user of the server: one cache folder, one session, the server's clock."""

    def __init__(self, server: YahooServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.session = LocalSession(server.port)

    def fetch(self, symbol: str, interval: str, start: str, end: str | None = None) -> list[dict[str, Any]]:
        """The bars in the cache file after one call, times in naive UTC."""
        return bars(self.paths([symbol], interval, start, end)[0])

    def paths(self, symbols: list[str], interval: str, start: str, end: str | None = None) -> list[Path]:
        until = None if end is None else utc(end)
        place: dict[str, Any] = {"cache_dir": self.folder, "session": self.session, "now": self.server.now}
        return history(symbols, interval, utc(start), until, retries=0, **place)

    def facts(self, symbol: str, interval: str) -> dict[str, Any]:
        metadata = pq.read_schema(cache_path(self.folder, symbol, interval)).metadata
        return dict(json.loads(metadata[b"ticktorch"]))


@contextmanager
def desk_at(now: datetime, folder: Path) -> Iterator[Desk]:
    """A server with `market()` that lives at `now`, and a user of it."""
    with YahooServer(*market(), now=now) as server:
        desk = Desk(server, folder)
        yield desk
        desk.session.close()


def market() -> list[Listing]:
    """Two US stocks, one of which splits ten to one on 10 June 2024; a currency; a stock in Tokyo."""
    us: dict[str, Any] = {
        "holidays": frozenset([date(2024, 5, 27), date(2024, 6, 19)]),
        "half_days": {date(2023, 11, 24): time(13)},
    }
    always: dict[str, Any] = {"opens": time(0), "closes": time(0), "weekends": True}
    return [
        Listing(symbol="AAPL", **us),
        Listing(symbol="NVDA", splits={date(2024, 6, 10): (10, 1)}, base=50.0, **us),
        Listing(symbol="BTC-USD", exchange="CCC", zone="UTC", kind="CRYPTOCURRENCY", **always),
        Listing(symbol="7203.T", exchange="JPX", zone="Asia/Tokyo", opens=time(9), closes=time(15)),
    ]


def bars(path: Path) -> list[dict[str, Any]]:
    """The rows of a cache file, times in naive UTC."""
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA)
    rows = table.to_pandas().astype(dict.fromkeys(("time", "open_time"), "datetime64[us, UTC]"))
    for name in ("time", "open_time"):
        rows[name] = rows[name].dt.tz_localize(None)
    return [
        {key: getattr(value, "to_pydatetime", lambda v=value: v)() for key, value in row.items()}
        for row in rows.to_dict("records")
    ]


def stamps(rows: list[dict[str, Any]], name: str = "time") -> list[str]:
    return [f"{row[name]:%m-%d %H:%M}" for row in rows]


def closed_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _days(listing: Listing, start: int, end: int) -> Iterator[date]:
    zone = ZoneInfo(listing.zone)
    day, last = datetime.fromtimestamp(start, zone).date(), datetime.fromtimestamp(end, zone).date()
    day = max(day, listing.first_day)
    while day <= last:
        yield day
        day += timedelta(days=1)


def _slots(listing: Listing, interval: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(open, close) of the bars around a window, epoch seconds."""
    if interval in MINUTES or interval == "1d":
        for day in _days(listing, start, end):
            session = listing.session(day)
            if session is None:
                continue
            opened, closed = (int(t.timestamp()) for t in session)
            step = 60 * MINUTES[interval] if interval in MINUTES else closed - opened
            for at in range(opened, closed, step):
                yield at, min(at + step, closed)
        return
    zone = ZoneInfo(listing.zone)
    for day in _days(listing, start - 100 * 86_400, end):
        begins = {"1wk": day.weekday() == 0, "5d": day.weekday() == 0, "1mo": day.day == 1}
        if begins.get(interval, day.day == 1 and day.month % 3 == 1):
            until = day + timedelta(days={"1wk": 7, "5d": 7, "1mo": 28}.get(interval, 89))
            midnights = (datetime.combine(d, time(0), zone) for d in (day, until))
            opened, closed = (int(t.timestamp()) for t in midnights)
            yield opened, closed
