"""History as edges: files stream through csp's own Parquet reader, demultiplexed in C++.

The reader is given a generator of checked tables in memory: memory does not grow with the file, and a row that cannot
be stops the run with a DataError.
"""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, TypeVar

import csp
import numpy as np
import pyarrow as pa
from csp import ts
from csp.adapters.parquet import ParquetReader

from feeds.events import Bar, MacroPoint, Trade
from feeds.files import Source, tables
from feeds.streams import by_symbol

T = TypeVar("T")

_BAR = {"time": "event_time"} | {n: n for n in ("symbol", "open_time", "open", "high", "low", "close", "volume")}
_TRADE = {"time": "event_time"} | {n: n for n in ("symbol", "price", "size")}
_MACRO = {"symbol": "series", "time": "event_time", "value": "value"}


def bars(source: Source, symbols: list[str], of_file: tuple[str, ...]) -> dict[str, ts[Bar]]:
    """The bars of `symbols`, each known at its close.

    Args:
        of_file: all symbols of the file; a file of one symbol needs no demultiplexing.
    """
    return _split(_reader(source).subscribe_all(Bar, _BAR), symbols, of_file)


def trades(source: Source, symbols: list[str], of_file: tuple[str, ...]) -> dict[str, ts[Trade]]:
    """The trades of `symbols`; those that share a time keep their order, in separate engine cycles."""
    return _split(_reader(source).subscribe_all(Trade, _TRADE), symbols, of_file)


def trade_columns(source: Source) -> tuple[ts[float], ts[float]]:
    """(price, size) of a file of one symbol as bare numbers that tick together: the fast path of a million trades."""
    reader = _reader(source)
    return reader.subscribe_all(float, "price"), reader.subscribe_all(float, "size")


def macro_points(source: Source) -> ts[MacroPoint]:
    """The points of one or more series, each when it could be known."""
    return _reader(source).subscribe_all(MacroPoint, _MACRO)


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


def _reader(source: Source) -> ParquetReader:
    def window(start: datetime, end: datetime) -> Iterator[pa.Table]:
        first, last = (np.datetime64(t, "ns").astype(np.int64) for t in (start, end))
        for table in tables(source):
            known = table["time"].cast(pa.int64()).to_numpy()
            if known[0] > last:
                return
            low, high = np.searchsorted(known, first, "left"), np.searchsorted(known, last, "right")
            if high > low:
                yield table.slice(low, high - low)

    return ParquetReader(window, time_column="time", read_from_memory_tables=True)


def _split(events: Any, symbols: list[str], of_file: tuple[str, ...]) -> dict[str, Any]:
    if not symbols:
        return {}
    if len(of_file) == 1:
        return {symbols[0]: events}
    if len(symbols) == 1:
        return {symbols[0]: csp.filter(events.symbol == symbols[0], events)}
    return by_symbol(events, symbols)
