"""Macro series as point-in-time files: what was known, and when it could be known.

    python -m feeds.macro ^VIX ^TNX --start 2024-01-01 >> mine.toml

A point has two times. `observed` is the end of the period that it speaks of; `time` is when a desk could have had it,
and the only one that a graph may act on. The series here are market prices from Yahoo (an index, a yield in percent, a
dollar index): they are known at the close of their bar plus a delay, and are not revised later.

A published statistic is another matter. Payrolls or inflation come out weeks after the month that they measure, and are
revised for years. A file of such a series must carry one row a *release*: `time` the moment of that release, `value`
the figure as it stood then, the same `observed` again for each revision. Today's figures stamped with their month are
look-ahead twice over. Any file with the columns of `SCHEMA`, sorted by `time`, replays like those written here.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tyro

from feeds import yahoo
from feeds.yahoo import utc

MARKET_SERIES = ("^GSPC", "^VIX", "^TNX", "DX-Y.NYB")  # S&P 500, volatility, ten-year yield in percent, dollar index

_TIME = pa.timestamp("ns", "UTC")
SCHEMA = pa.schema([("time", _TIME), ("series", pa.string()), ("observed", _TIME), ("value", pa.float64())])


@dataclass(frozen=True, slots=True, kw_only=True)
class MacroFetchConfig:
    """Fetch macro series from Yahoo Finance into one point-in-time file."""

    series: tyro.conf.Positional[tuple[str, ...]] = MARKET_SERIES  # Yahoo's symbols
    start: str  # ISO date, inside the window
    end: str | None = None  # ISO date, outside the window; absent: now
    interval: str = "1d"  # as of feeds.yahoo
    publication_delay_s: float = 900.0  # close of the bar -> known; free quotes are up to 15 minutes late
    out: str | None = None  # absent: macro_INTERVAL.parquet in cache_dir
    cache_dir: str = ".cache/yahoo"
    timeout_s: float = 10.0  # for one answer
    retries: int = 2  # after a failed connection

    def __post_init__(self) -> None:
        if len(set(self.series)) < len(self.series):
            raise ValueError(f"want each series once, was {self.series}")
        if not 0.0 <= self.publication_delay_s <= 366 * 86_400.0:
            raise ValueError(f"publication_delay_s must lie in [0, 31622400], was {self.publication_delay_s}")
        self.bars()  # judges the rest

    def bars(self) -> yahoo.YahooConfig:
        """The bars that the points are made of."""
        return yahoo.YahooConfig(
            symbols=self.series,
            start=self.start,
            end=self.end,
            interval=self.interval,
            cache_dir=self.cache_dir,
            timeout_s=self.timeout_s,
            retries=self.retries,
        )


def fetch(
    series: Sequence[str],
    start: datetime,
    end: datetime | None = None,
    *,
    interval: str = "1d",
    publication_delay_s: float = 900.0,
    out: str | Path | None = None,
    cache_dir: str | Path = ".cache/yahoo",
    session: Any = None,
    now: datetime | None = None,
    timeout_s: float = 10.0,
    retries: int = 2,
) -> Path:
    """Write the closes of some of Yahoo's symbols in a window as points of `SCHEMA`, sorted by time, then by series.

    A daily bar counts as closed at midnight of its exchange, which is late for most series and early for none. Values
    at or below zero are kept (yields, oil in April 2020), an exact 0.0 is not: Yahoo writes it for "missing".

    Args:
        series: Yahoo's symbols, each once.
        start: first date wanted.
        end: first date not wanted; None means now.
        publication_delay_s: seconds from the close of a bar until the value is known.
        out: the file; None is `macro_INTERVAL.parquet` in `cache_dir`. It is replaced whole.
        interval, cache_dir, session, now, timeout_s, retries: as of `feeds.yahoo.history`.

    Raises:
        ValueError: arguments that `MacroFetchConfig` refuses.
        FeedError: as `feeds.yahoo.history`; nothing is written then.
    """
    config = MacroFetchConfig(
        series=tuple(series),
        start=start.isoformat(),
        end=None if end is None else end.isoformat(),
        interval=interval,
        publication_delay_s=publication_delay_s,
        out=None if out is None else str(out),
        cache_dir=str(cache_dir),
        timeout_s=timeout_s,
        retries=retries,
    )
    return _write(config, session, now or datetime.now(UTC))


def main(argv: Sequence[str] | None = None, *, session: Any = None, now: datetime | None = None) -> int:
    """The command. Exit codes: 0 done, 2 bad usage or a feed error, 130 interrupted."""
    config = tyro.cli(MacroFetchConfig, prog="python -m feeds.macro", args=argv)

    def work() -> None:
        path = _write(config, session, now or datetime.now(UTC))
        print(f"# {path}: {pq.read_metadata(path).num_rows} points of {', '.join(config.series)}; for a config:")
        print(f"[[macro]]\npath = {json.dumps(str(path), ensure_ascii=False)}")

    return yahoo.exit_code(work)


def _write(config: MacroFetchConfig, session: Any, now: datetime) -> Path:
    start, end = utc(config.start), utc(config.end) if config.end is not None else now
    paths = yahoo.fetch(config.bars(), session=session, now=now)
    bars = pa.concat_tables([yahoo.read_bars(path, start, end) for path in paths])
    delay = pa.scalar(round(config.publication_delay_s * 1e9), pa.duration("ns"))
    columns = [pc.add(bars["time"], delay), bars["symbol"], bars["time"], bars["close"]]
    points = pa.table(columns, schema=SCHEMA).sort_by([("time", "ascending"), ("series", "ascending")])
    facts = {"source": "yahoo", "interval": config.interval, "publication_delay_s": config.publication_delay_s}
    path = Path(config.out or Path(config.cache_dir) / f"macro_{config.interval}.parquet")
    yahoo.write_parquet(points.replace_schema_metadata({"ticktorch": json.dumps(facts)}), path)
    return path


if __name__ == "__main__":
    sys.exit(main())
