"""Does anything in the past depend on the future? Run prefixes of the data themselves, and compare.

Each input file is cut after the rows that were known at some instant; the whole backtest then runs on the cut files.
Until that instant every signal and every order must be the same, bit for bit, as with the full files. A statistic of
the whole series, or a feature that peeks one row ahead, cannot hide from this: the rows are not there.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feeds import files, news
from feeds.files import Source
from graphs.backtest import Options, Plan, plan, run
from graphs.config import BacktestConfig

CUTS = (
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    0.97,
)  # of the window; a peek of one row shows at about half of them
_COMPARED = ("signals", "final_signals", "orders")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first tick that the future changed."""

    stream: str
    cut: datetime
    time: datetime
    with_future: dict[str, Any] | None  # None: the tick is not there
    without_future: dict[str, Any] | None

    def __str__(self) -> str:
        return (
            f"stream {self.stream} differs at {self.time} when the files end at {self.cut}\n"
            f"  full files: {self.with_future or 'no tick'}\n"
            f"  cut files:  {self.without_future or 'no tick'}"
        )


def check(config: BacktestConfig, told: Callable[[str], None] = lambda _: None) -> Difference | None:
    """Compare prefixes of the data with the whole.

    Args:
        told: hears one line a step.

    Returns:
        The earliest difference of the first cut that shows one; None when there is none.

    Raises:
        ConfigError, FeedError: as `plan`.
        KeyboardInterrupt: half a run is nothing to compare.
    """
    full = plan(replace(config, journal=""))  # a stop of a trial run is nobody's stop
    with tempfile.TemporaryDirectory(prefix="ticktorch-lookahead-") as name:
        folder = Path(name)
        _run(full, folder / "full")
        for number, share in enumerate(CUTS):
            cut = full.start + (full.end - full.start) * share
            prefix = _cut_plan(full, cut, folder / f"data{number}")
            if prefix is None:
                told(f"cut at {cut}: no market data yet, skipped")
                continue
            _run(prefix, folder / f"cut{number}")
            difference = _compare(folder / "full", folder / f"cut{number}", prefix.end)
            told(f"cut at {cut}: {'DIFFERENT' if difference else 'the same'} until {prefix.end}")
            if difference is not None:
                return difference
    return None


def _run(plan: Plan, folder: Path) -> None:
    if run(plan, Options(out=folder, quiet=True, signals=True)).interrupted:
        raise KeyboardInterrupt


def _cut_plan(full: Plan, cut: datetime, folder: Path) -> Plan | None:
    """The plan of `full` over files that end at `cut`; None where no market data are left in the window."""
    folder.mkdir()
    numbers: Iterator[int] = iter(range(1_000_000))

    def place(path: str) -> Path:
        """A folder for each copy: the file keeps its name, which may be its symbol."""
        here = folder / str(next(numbers))
        here.mkdir()
        return here / Path(path).name

    def shortened(sources: tuple[Source, ...]) -> tuple[Source, ...]:
        cut_sources = []
        for source in sources:
            target = place(source.path)
            if files.truncate(source, cut, target):
                cut_sources.append(replace(source, path=str(target)))
        return tuple(cut_sources)

    config = full.config
    market = shortened(config.feeds)
    if not market:
        return None
    headlines = []
    for item in config.news:
        target = place(item.path)
        if news.truncate(item, cut, target):
            headlines.append(replace(item, path=str(target)))
    descriptions = [files.describe(source, whole=False) for source in market]
    if max(description.last for description in descriptions) < full.start:
        return None
    there = {symbol for description in descriptions for symbol in description.symbols}
    symbols = tuple(i.symbol for i in full.trading.instruments if i.symbol in there)
    return plan(
        replace(
            config,
            feeds=market,
            macro=shortened(config.macro),
            news=tuple(headlines),
            symbols=symbols,
            start=full.start,
            end=None,
        ),
        whole=False,
    )


def _compare(full: Path, prefix: Path, end: datetime) -> Difference | None:
    """The earliest tick until `end` that the two runs do not share."""
    found = []
    for stream in _COMPARED:
        long, short = (_until(folder / f"{stream}.parquet", end) for folder in (full, prefix))
        if not long.equals(short):
            found.append(_first_difference(stream, end, long, short))
    return min(found, key=lambda difference: difference.time, default=None)


def _until(path: Path, end: datetime) -> pa.Table:
    """The ticks until `end`, inclusive."""
    table = pq.read_table(path)
    last = pa.scalar(np.datetime64(end, "ns")).cast(pa.timestamp("ns", "UTC"))
    return table.filter(pc.less_equal(table["time"], last))


def _first_difference(stream: str, cut: datetime, full: pa.Table, prefix: pa.Table) -> Difference:
    """The first row that two tables, known to differ, do not share."""
    row = next(i for i in range(max(len(full), len(prefix))) if full.slice(i, 1) != prefix.slice(i, 1))
    ticks = [table.slice(row, 1).to_pylist()[0] if row < len(table) else None for table in (full, prefix)]
    time = min(tick["time"] for tick in ticks if tick is not None)
    return Difference(stream=stream, cut=cut, time=time, with_future=ticks[0], without_future=ticks[1])
