"""History as edges: files stream through csp's own Parquet reader, demultiplexed in C++.

The reader is given a generator of checked tables in memory: memory does not grow with the file, and a row that cannot
be stops the run with a DataError.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import csp
import pyarrow as pa
from csp import ts
from csp.adapters.parquet import ParquetReader

from feeds.events import Bar, MacroPoint, Trade
from feeds.files import Source, tables

T = TypeVar("T")

_BAR = {"time": "event_time"} | {n: n for n in ("symbol", "open_time", "open", "high", "low", "close", "volume")}
_TRADE = {"time": "event_time"} | {n: n for n in ("symbol", "price", "size", "side")}
_MACRO = {"symbol": "series", "observed": "event_time", "value": "value"}


def bars(source: Source, symbols: list[str], of_file: tuple[str, ...]) -> dict[str, ts[Bar]]:
    """The bars of `symbols`, each known at its close.

    Args:
        of_file: all symbols of the file; one symbol alone needs no demultiplexing.
    """
    return _split(source, Bar, _BAR, symbols, of_file)


def trades(source: Source, symbols: list[str], of_file: tuple[str, ...]) -> dict[str, ts[Trade]]:
    """The trades of `symbols`; those that share a time keep their order, in separate engine cycles."""
    return _split(source, Trade, _TRADE, symbols, of_file)


def trade_columns(source: Source) -> tuple[ts[float], ts[float]]:
    """(price, size) of a file of one symbol as bare numbers that tick together: the fast path of a million trades."""
    reader = _reader(source)
    return reader.subscribe_all(float, "price"), reader.subscribe_all(float, "size")


def macro_points(source: Source) -> ts[MacroPoint]:
    """The points of one or more series, each when it could be known."""
    return _reader(source).subscribe_all(MacroPoint, _MACRO)


def bars_in_memory(bars: Sequence[Bar]) -> ts[Bar]:
    """Bars that were fetched before the run, each known at its close; sorted by it."""
    if not bars:
        return csp.null_ts(Bar)
    columns: dict[str, Any] = {name: [getattr(bar, name) for bar in bars] for name in _BAR.values()}
    times = pa.timestamp("ns")
    table = pa.table(
        {
            name: pa.array(columns[field], times if field in ("event_time", "open_time") else None)
            for name, field in _BAR.items()
        }
    )
    reader = ParquetReader(lambda start, end: iter((table,)), time_column="time", read_from_memory_tables=True)
    return reader.subscribe_all(Bar, _BAR)


@csp.node
def pace(event: ts[T], speed: float) -> ts[T]:
    """Hold the engine back to `speed` times real time. An edge: the wall clock is read here, and changes no result.

    Args:
        event: a stream from a file; the engine sleeps before it passes a tick on.
        speed: engine seconds a wall second.
    """
    with csp.start():
        s_wall = time.monotonic()
        s_start = csp.engine_start_time()

    if csp.ticked(event):
        ahead = (csp.now() - s_start).total_seconds() / speed - (time.monotonic() - s_wall)
        if ahead > 0.0:
            time.sleep(ahead)  # Ctrl-C interrupts it
        return event


def _reader(source: Source, symbols: Sequence[str] = ()) -> ParquetReader:
    """csp's reader over the checked tables; it leaves unset what a table has no column for, such as a trade's side."""

    def window(start: datetime, end: datetime) -> Iterator[pa.Table]:
        return tables(source, start, end, symbols)

    return ParquetReader(window, time_column="time", read_from_memory_tables=True, allow_missing_columns=True)


def _split(source: Source, kind: Any, fields: dict[str, str], symbols: list[str], of_file: tuple[str, ...]) -> Any:
    """One edge a symbol. Rows of other symbols are dropped as Arrow, before they become Structs."""
    if not symbols:
        return {}
    reader = _reader(source, () if set(of_file) <= set(symbols) else symbols)
    events = reader.subscribe_all(kind, fields)
    if len(symbols) == 1:
        return {symbols[0]: events}
    # The column as an edge of its own ticks with its Struct; reading it off the Struct costs 100 ns an event more.
    return dict(csp.demultiplex(events, reader.subscribe_all(str, "symbol"), symbols))
