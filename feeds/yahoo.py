"""Bars from Yahoo Finance, through yfinance, into a Parquet cache that replay reads.

    python -m feeds.yahoo AAPL MSFT --interval 1h --start 2026-01-01 > mine.toml
    python run_backtest.py --config mine.toml

One file a symbol and interval. Prices are adjusted for splits and not for dividends, bars are stamped at their close,
only finished ones are kept: `feeds.yahoo_bars` says exactly how. A window selects bars by their open, UTC; daily and
longer bars by their date at the exchange.

Limits that are Yahoo's or yfinance's: intraday bars reach back only `REACH_DAYS`; regular sessions only; the 23:59 bar
of a market that never closes is missing at 1m, because Yahoo ends that day at 23:59.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tyro
import yfinance as yf

from feeds.errors import DataError, FeedError, OfflineError
from feeds.windows import Window, subtract, union
from feeds.yahoo_bars import SCHEMA, US_STOCKS, inside, read
from feeds.yahoo_client import (
    DELAY,
    INTERVALS,
    MINUTES,
    REACH_DAYS,
    client,
    plain_session,
    refuse_strange,
    split_since,
)

log = logging.getLogger(__name__)

_TERMS = {"EQUITY": ("1", 1.0), "ETF": ("1", 1.0), "CRYPTOCURRENCY": ("0.00001", 10.0)}  # lot, taker_bps
# How long a bar may last, with the exchange's distance from UTC: until then new rows may turn up.
_LONGEST_DAYS = {"1d": 2, "5d": 21, "1wk": 9, "1mo": 33, "3mo": 94}


@dataclass(frozen=True, slots=True, kw_only=True)
class YahooConfig:
    """Fetch bars from Yahoo Finance into the cache."""

    symbols: tyro.conf.Positional[tuple[str, ...]]  # as Yahoo spells them: AAPL BRK-B VOD.L BTC-USD ^VIX ES=F EURUSD=X
    start: str  # ISO date or time, UTC, inside the window
    end: str | None = None  # ISO date or time, UTC, outside the window; absent: now
    interval: str = "1h"  # 1m 2m 5m 15m 30m 60m 90m 1h 1d 5d 1wk 1mo 3mo
    cache_dir: str = ".cache/yahoo"
    timeout_s: float = 10.0  # for one answer
    retries: int = 2  # after a failed connection, 1 s, 2 s, 4 s ... apart

    def __post_init__(self) -> None:
        refuse_strange(self.symbols)
        if self.interval not in INTERVALS:
            raise ValueError(f"interval must be one of {' '.join(INTERVALS)}, was {self.interval!r}")
        start, end = utc(self.start), utc(self.end) if self.end is not None else None
        if end is not None and not start < end:
            raise ValueError(f"start must lie before end, was {self.start} and {self.end}")
        if not 0.0 < self.timeout_s < float("inf"):
            raise ValueError(f"timeout_s must be positive and finite, was {self.timeout_s}")
        if not 0 <= self.retries <= 10:
            raise ValueError(f"retries must lie in [0, 10], was {self.retries}")


@dataclass(slots=True)
class _Held:
    """The bars of one symbol and interval, the windows that they cover, and what Yahoo says of the symbol."""

    bars: pa.Table = field(default_factory=SCHEMA.empty_table)
    windows: list[Window] = field(default_factory=list)
    fetched_at: datetime = datetime(1970, 1, 1)
    dropped: int = 0  # rows without prices
    widened: int = 0  # rows whose high or low did not contain the open and the close
    market: dict[str, str] = field(default_factory=dict)  # exchange, timezone, currency, kind


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """What all requests of one call share."""

    folder: Path
    interval: str
    now: datetime
    session: Any
    timeout_s: float


def history(
    symbols: Sequence[str],
    interval: str,
    start: datetime,
    end: datetime | None = None,
    *,
    cache_dir: str | Path = ".cache/yahoo",
    session: Any = None,
    now: datetime | None = None,
    timeout_s: float = 10.0,
    retries: int = 2,
) -> list[Path]:
    """Bring the cache up to a window and return its files, one a symbol in the order asked for.

    What the cache has is not fetched again, and a file may hold more than the window: the reader chooses its own. A
    window that ends now is fetched again at its end. After a split the whole file is fetched anew, because its old
    prices have another scale. Files written before an error stay.

    Args:
        symbols: as Yahoo spells them; lower case is taken as upper.
        interval: one of `INTERVALS`; 60m and 1h are the same bars and the same file.
        start: first open wanted, UTC (naive or aware); see the module for daily bars.
        end: first open not wanted; None or later than `now` means `now`.
        session: a curl_cffi session, for a proxy or a local server; None is a plain one.
        now: the present, UTC; None reads the clock.
        timeout_s: for one answer of Yahoo's, seconds.
        retries: after a failed connection, with doubling pauses that begin at one second.

    Raises:
        ValueError: arguments that `YahooConfig` refuses, or a start that lies in the future.
        FeedError: bars older than Yahoo serves at this interval, an empty window, an answer that makes no sense;
            OfflineError, RateLimitError, UnknownSymbolError, DataError (bars that overlap) are its cases.
    """
    config = YahooConfig(
        symbols=tuple(symbols),
        interval=interval,
        start=start.isoformat(),
        end=None if end is None else end.isoformat(),
        cache_dir=str(cache_dir),
        timeout_s=timeout_s,
        retries=retries,
    )
    return fetch(config, session=session, now=now)


def fetch(config: YahooConfig, *, session: Any = None, now: datetime | None = None) -> list[Path]:
    """What `history` does, told by a config."""
    now = _naive(now or datetime.now(UTC))
    start, end = utc(config.start), now if config.end is None else min(utc(config.end), now)
    if start >= now:
        raise ValueError(f"start must lie in the past, was {start} at {now}")
    folder = Path(config.cache_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FeedError(f"cache_dir must be a folder that can be written, was {folder} ({error.strerror})") from error
    call = _Call(
        folder=folder,
        interval="1h" if config.interval == "60m" else config.interval,
        now=now,
        session=session or plain_session(),
        timeout_s=config.timeout_s,
    )
    with client(folder / "client", config.retries):
        return [_update(call, symbol.upper(), (start, end)) for symbol in config.symbols]


def cache_path(cache_dir: str | Path, symbol: str, interval: str) -> Path:
    """Where the bars of a symbol and interval are kept."""
    return Path(cache_dir) / f"{symbol.upper()}_{'1h' if interval == '60m' else interval}.parquet"


def utc(text: str) -> datetime:
    """Naive UTC from an ISO date or time; one without an offset is UTC.

    Raises:
        ValueError: text that is neither.
    """
    try:
        return _naive(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"want an ISO date or time such as 2026-01-31 or 2026-01-31T14:30, was {text!r}") from error


def read_bars(path: Path, start: datetime, end: datetime) -> pa.Table:
    """The bars of a cache file that a window selects, as `history` means it.

    Args:
        path: as `history` returns it.
        start: first open (longer bars: date at the exchange) wanted, UTC.
        end: first not wanted, UTC.
    """
    bars, facts = pq.read_table(path), _facts(path)
    return bars.filter(inside(bars, (_naive(start), _naive(end)), facts["interval"], facts["market"]))


def main(argv: Sequence[str] | None = None, *, session: Any = None, now: datetime | None = None) -> int:
    """The command. Exit codes: 0 done, 2 bad usage or a feed error, 130 interrupted."""
    config = tyro.cli(YahooConfig, prog="python -m feeds.yahoo", args=argv)

    def work() -> None:
        paths = []
        for symbol in config.symbols:  # one by one, so that each file is told when it is there
            paths += fetch(replace(config, symbols=(symbol,)), session=session, now=now)
            print(f"# {describe(paths[-1])}", flush=True)
        print(run_config(paths))

    return exit_code(work)


def exit_code(work: Callable[[], None]) -> int:
    """Do the work of a command; an error becomes one line on stderr."""
    try:
        work()
    except (FeedError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the files named so far are whole", file=sys.stderr)
        return 130
    return 0


def describe(path: Path) -> str:
    """One line about a file of the cache."""
    times = pq.read_table(path, columns=["time"])["time"].cast(pa.timestamp("s", "UTC"))
    first, last = (f"{times[i].as_py():%Y-%m-%d %H:%M}" for i in (0, -1))
    dropped = _facts(path)["dropped"]
    spoilt = f"; {dropped} rows without prices dropped" if dropped else ""
    return f"{path}: {len(times)} bars, closes {first} to {last} UTC{spoilt}"


def run_config(paths: Sequence[Path]) -> str:
    """A config for `run_backtest.py` that trades files of the cache; lots, fees and calendars are first guesses."""
    lines = [
        "# What follows is a config: set it to your broker's terms, then python run_backtest.py --config FILE",
        f'name = "yahoo-{_facts(paths[0])["interval"]}"',
    ]
    instruments = []
    for path in paths:
        facts = _facts(path)
        lot, taker_bps = _TERMS.get(facts["market"]["kind"], ("0.0001", 1.0))
        calendar = "NYSE" if facts["market"]["exchange"] in US_STOCKS else "24/7"
        lines += ["[[feeds]]", f"path = {json.dumps(str(path), ensure_ascii=False)}"]
        instruments += ["[[instruments]]", f'symbol = "{facts["symbol"]}"', 'tick = "0.0001"', f'lot = "{lot}"']
        instruments += [f"taker_bps = {taker_bps}", f'calendar = "{calendar}"']
    return "\n".join(lines + instruments)


def _facts(path: Path) -> dict[str, Any]:
    return dict(json.loads(pq.read_schema(path).metadata[b"ticktorch"]))


# --- one symbol ---


def _update(call: _Call, symbol: str, window: Window) -> Path:
    path = cache_path(call.folder, symbol, call.interval)
    held = _read(path, symbol, call.interval)
    wanted = subtract([window], held.windows)
    if not wanted:
        return path
    if call.interval in _LONGEST_DAYS and call.interval != "1d" and held.windows:
        # Yahoo may lay long bars from the start asked for: pieces would not fit together.
        every = union([*held.windows, window])
        wanted, held = [(every[0][0], every[-1][1])], _Held()
    _refuse_out_of_reach(call, symbol, wanted, "")
    try:
        kind = held.market.get("kind", "")
        if split_since(symbol, kind, held.fetched_at, call.now, call.session, call.timeout_s):
            log.warning("%s has split since %s was fetched: fetching all of it anew", symbol, path)
            wanted, held = union([*held.windows, window]), _Held()
            _refuse_out_of_reach(call, symbol, wanted, f" {symbol} has split: move {path} away to begin a new file.")
        for piece in wanted:
            _fetch(call, held, symbol, piece)
    except OfflineError as error:
        covered = ", ".join(f"{a} to {b}" for a, b in _read(path, symbol, call.interval).windows)
        raise OfflineError(f"{error} {path} holds {covered or 'nothing'}, which works offline.") from error
    if len(held.bars) == 0:
        reason = "a weekend, a holiday, the time before its first trade, or no finished bar yet"
        raise FeedError(f"Yahoo has no {call.interval} bars of {symbol} from {window[0]} to {window[1]}: {reason}")
    held.fetched_at = call.now
    _write(path, held, symbol, call.interval)
    return path


def _fetch(call: _Call, held: _Held, symbol: str, piece: Window) -> None:
    """Put Yahoo's bars of `piece` in place of those that are held."""
    found = read(symbol, call.interval, piece, now=call.now, session=call.session, timeout_s=call.timeout_s)
    held.market |= found.market
    held.dropped += found.dropped
    held.widened += found.widened
    fresh = found.bars
    if len(fresh) == 0:
        return  # an empty answer is never remembered: it may have been a hiccup
    rest = held.bars.filter(pc.invert(inside(held.bars, piece, call.interval, held.market)))
    bars = pa.concat_tables([rest, fresh]).sort_by("open_time")
    clashes = np.flatnonzero(np.diff(bars["time"].cast(pa.int64()).to_numpy()) <= 0)
    if len(clashes):
        at = bars["open_time"].cast(pa.timestamp("s", "UTC"))[int(clashes[0])].as_py()
        raise DataError(f"bars of {symbol} must close one after the other, were {len(clashes)} that do not, from {at}")
    held.bars = bars
    # Where the window ends now, rows of its last hours or days may still turn up.
    minutes = MINUTES.get(call.interval, 0)
    final = call.now - DELAY - timedelta(days=_LONGEST_DAYS.get(call.interval, 0), minutes=minutes)
    held.windows = union([*held.windows, (piece[0], min(piece[1], final))])


# --- windows ---


def _refuse_out_of_reach(call: _Call, symbol: str, wanted: Sequence[Window], hint: str) -> None:
    days = REACH_DAYS.get(call.interval)
    if days is None:
        return
    limit = call.now - timedelta(days=days) + timedelta(minutes=1)  # the requests take their time
    if wanted[0][0] < limit:
        earliest = (limit + timedelta(hours=2)).replace(minute=0, second=0, microsecond=0)  # true for an hour to come
        raise FeedError(
            f"{symbol}: Yahoo serves {call.interval} bars of the last {days} days only. Want a start at or after"
            f" {earliest.isoformat(timespec='minutes')}, was {wanted[0][0].isoformat(timespec='minutes')};"
            f" longer intervals reach further back.{hint}"
        )


def _naive(when: datetime) -> datetime:
    return when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo is not None else when


# --- the cache ---


def _read(path: Path, symbol: str, interval: str) -> _Held:
    """What the cache has; nothing where the file is absent or damaged."""
    if not path.exists():
        return _Held()
    try:
        bars = pq.read_table(path, page_checksum_verification=True)
        facts = json.loads(bars.schema.metadata[b"ticktorch"])
        found = [facts["source"], facts["symbol"], facts["interval"], bars.schema.names]
        if found != ["yahoo", symbol, interval, SCHEMA.names] or len(bars) == 0:
            raise ValueError(f"it holds {len(bars)} rows of {found}")
        return _Held(
            bars=bars.replace_schema_metadata().cast(SCHEMA),
            windows=[(datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in facts["windows"]],
            fetched_at=datetime.fromisoformat(facts["fetched_at"]),
            dropped=facts["dropped"],
            widened=facts["widened"],
            market=facts["market"],
        )
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s: %.200s): fetching it anew", path, type(error).__name__, error)
        return _Held()


def _write(path: Path, held: _Held, symbol: str, interval: str) -> None:
    facts = {
        "source": "yahoo",
        "symbol": symbol,
        "interval": interval,
        "adjusted": "splits",
        "windows": [[start.isoformat(), end.isoformat()] for start, end in held.windows],
        "fetched_at": held.fetched_at.isoformat(),
        "dropped": held.dropped,
        "widened": held.widened,
        "market": held.market,
        "yfinance": yf.__version__,
    }
    write_parquet(held.bars.replace_schema_metadata({"ticktorch": json.dumps(facts)}), path)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a file whole or not at all: a reader, or a crash, never sees half of it.

    Raises:
        FeedError: no permission, no space.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            pq.write_table(table, part, compression="zstd", write_page_checksum=True)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise FeedError(f"{path} cannot be written: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
