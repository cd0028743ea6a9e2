"""Files of market data as a stream of checked tables. Plain pyarrow: csp comes in `feeds.replay`.

Whatever the file calls its columns and however it stamps its bars, what comes out is canonical: `time` is when a row
is known, in nanoseconds UTC, rows are sorted by it, prices are positive and sizes possible. A file that cannot be made
so is refused with a `DataError` that names the file, the row, what was wanted and what came.

Prices must be positive, although some futures have traded below zero: every return in ticktorch is relative.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feeds import raw
from feeds.errors import DataError
from feeds.times import bar_length, moment, to_utc

TABLE_ROWS = 65_536

_KINDS = ("auto", "bars", "trades", "macro")
_WANTED = {
    "bars": ("open", "high", "low", "close"),
    "trades": ("price", "size"),
    "macro": ("value",),
}
_NAMES = {
    "time": ("time", "timestamp", "datetime", "date", "open_time", "event_time", "close_time"),
    "open_time": ("open_time",),
    "symbol": ("symbol", "ticker", "series"),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume",),
    "price": ("price",),
    "size": ("size", "quantity", "qty", "amount"),
    "value": ("value",),
}
_RELATIVE = 1e-9  # rounding that an open or close may lie outside [low, high]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file of bars, trades or points of a macro series."""

    path: str  # Parquet, Arrow IPC (.arrow, .feather) or CSV (.csv, .csv.gz); relative to here, else to the project
    kind: str = "auto"  # bars, trades, macro; auto: by the columns that are there
    symbol: str = ""  # of every row; "": the file's symbol column, else the file's name
    columns: dict[str, str] = field(default_factory=dict)  # e.g. {time = "Datetime"}; else found by well-known names
    time_zone: str = ""  # of times without an offset, such as "UTC" or "America/New_York"
    bar: str = ""  # length of a bar: 30s, 5m, 1h, 1d; wanted for bars, unless the file has both time and open_time
    stamp: str = "open"  # what the time of a bar means: open (known one bar later) or close

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, was {self.kind!r}")
        if self.stamp not in ("open", "close"):
            raise ValueError(f"stamp must be open or close, was {self.stamp!r}")
        for name in self.columns:
            if name not in _NAMES:
                raise ValueError(f"columns may map {', '.join(_NAMES)}, was {name!r}")
        if self.bar:
            bar_length(self.bar)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a source holds, after every row was checked."""

    kind: str
    rows: int
    symbols: tuple[str, ...]  # in order of appearance
    first: datetime  # naive UTC, when the first row is known
    last: datetime
    bar: timedelta | None  # None for trades and macro points
    sha256: str  # of the file's bytes


def describe(source: Source) -> Description:
    """Read and check the whole file once.

    Raises:
        DataError: the file cannot be used.
    """
    reader = Reader(source)
    rows, first, last = 0, 0, 0
    for table in reader.tables():
        time = _ints(table["time"])
        first = first if rows else int(time[0])
        last = int(time[-1])
        rows += table.num_rows
    if rows == 0:
        raise DataError(f"{source.path} has no rows")
    with reader.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Description(
        kind=reader.kind,
        rows=rows,
        symbols=tuple(reader.symbols),
        first=moment(first),
        last=moment(last),
        bar=reader.bar,
        sha256=digest,
    )


def tables(source: Source) -> Iterator[pa.Table]:
    """Canonical, checked tables of at most 65,536 rows, read as a stream.

    Columns: `time` (timestamp[ns, UTC]), `symbol`; bars add `open_time`, open, high, low, close, volume (0.0 where the
    file has none); trades add price, size; macro points add value.

    Raises:
        DataError: the file cannot be used.
    """
    return Reader(source).tables()


def truncate(source: Source, cut: datetime, target: Path) -> int:
    """Copy the rows of `source` that are known at `cut` to `target`, in the file's own format; return how many."""
    until = np.datetime64(cut, "ns").astype(np.int64)
    rows = sum(int(np.count_nonzero(_ints(table["time"]) <= until)) for table in tables(source))
    if rows:
        raw.copy_rows(raw.locate(source.path), rows, target)
    return rows


class Reader:
    """One pass over a file: which column is which, and what was seen so far."""

    def __init__(self, source: Source) -> None:
        self.path = raw.locate(source.path)
        self._source = source
        self._batches = raw.batches(self.path, TABLE_ROWS)
        self._names = raw.column_names(self.path)
        self.kind = self._kind()
        self._columns = {name: self._find(name) for name in self._needed()}
        self.bar = self._bar()
        self.symbols: dict[str, int] = {}  # symbol -> last bar's close, ns
        self._rows = 0
        self._last_time = np.iinfo(np.int64).min

    def tables(self) -> Iterator[pa.Table]:
        for batch in self._batches:
            if batch.num_rows:
                yield self._canonical(batch)
                self._rows += batch.num_rows

    def _kind(self) -> str:
        if self._source.kind != "auto":
            return self._source.kind
        for kind, wanted in _WANTED.items():
            if all(self._lookup(name) for name in wanted):
                return kind
        raise DataError(
            f"{self._source.path} has the columns {', '.join(self._names) or '(none)'}; wanted a time and open, high,"
            " low, close (bars), or price, size (trades), or value (macro), or a [columns] map"
        )

    def _needed(self) -> list[str]:
        needed = ["time", *_WANTED[self.kind]]
        if not self._source.symbol and self._lookup("symbol"):
            needed.append("symbol")
        if self.kind == "bars":
            needed += [name for name in ("volume",) if self._lookup(name)]
            if self._canonical_bars():
                needed.append("open_time")
        return needed

    def _canonical_bars(self) -> bool:
        """Whether the file says of every bar both when it opened and when it was known."""
        time = self._lookup("time")
        return bool(self._lookup("open_time")) and time != self._lookup("open_time") and not self._source.bar

    def _lookup(self, name: str) -> str | None:
        mapped = self._source.columns.get(name)
        if mapped is not None:
            return mapped if mapped in self._names else None
        lower = {column.lower(): column for column in reversed(self._names)}
        return next((lower[known] for known in _NAMES[name] if known in lower), None)

    def _find(self, name: str) -> str:
        column = self._lookup(name)
        if column is None:
            wanted = self._source.columns.get(name) or " or ".join(_NAMES[name])
            raise DataError(
                f"{self._source.path} has no column {wanted!r} for the {name}; it has {', '.join(self._names)}"
            )
        return column

    def _bar(self) -> timedelta | None:
        if self.kind == "trades" or (self.kind == "macro" and not self._source.bar):
            return None
        if self._source.bar:
            return bar_length(self._source.bar)
        if "open_time" in self._columns:
            return None  # learned from the rows
        raise DataError(f"{self._source.path} holds bars: say how long one is, such as bar = '1h'")

    def _canonical(self, batch: pa.RecordBatch) -> pa.Table:
        time, open_time = self._times(batch)
        symbol = self._symbol(batch)
        columns: dict[str, Any] = {"time": _stamps(time), "symbol": symbol}
        values = {n: self._numbers(batch, n) for n in (*_WANTED[self.kind], "volume") if n in self._columns}
        self._check_order(time)
        if self.kind == "bars":
            self._check_spacing(time, open_time, symbol)
            _check_bars(self, values)
            columns["open_time"] = _stamps(open_time)
            values.setdefault("volume", np.zeros(len(time)))
        elif self.kind == "trades":
            self._register(symbol)
            self._refuse(~(values["price"] > 0.0), values["price"], "a positive price")
            self._refuse(~(values["size"] > 0.0), values["size"], "a positive size")
        else:
            self._register(symbol)
        self._last_time = int(time[-1])
        return pa.table(columns | values)

    def _times(self, batch: pa.RecordBatch) -> tuple[Ints, Ints]:
        """When each row is known, and when its bar opened (the same where there is no bar)."""
        column = batch.column(self._columns["time"])
        zone, shift = self._source.time_zone, timedelta()
        if self.bar is not None and self._source.stamp == "open" and "open_time" not in self._columns:
            shift = self.bar
        where = (self._source.path, self._rows)
        time = to_utc(column, zone, shift, where)
        if "open_time" in self._columns:
            open_time = to_utc(batch.column(self._columns["open_time"]), zone, timedelta(), where)
            self._refuse(open_time >= time, _stamps(open_time), "an open_time before the time")
            shortest = timedelta(microseconds=int((time - open_time).min()) // 1000)
            self.bar = shortest if self.bar is None else min(self.bar, shortest)
        elif shift:
            open_time = to_utc(column, zone, timedelta(), where)
        else:
            open_time = time - (self.bar // timedelta(microseconds=1) * 1000 if self.bar else 0)
        return time, open_time

    def _symbol(self, batch: pa.RecordBatch) -> pa.Array:
        if "symbol" in self._columns:
            symbol = batch.column(self._columns["symbol"]).cast(pa.string())
            if symbol.null_count:
                row = self._rows + pc.index(symbol.is_null(), True).as_py() + 1
                raise DataError(f"{self._source.path}, row {row}: want a symbol, was empty")
            return symbol
        return pa.repeat(self._source.symbol or name_of(self.path), batch.num_rows)

    def _numbers(self, batch: pa.RecordBatch, name: str) -> Floats:
        """A column as finite floats."""
        column = batch.column(self._columns[name])
        try:
            numbers = column.cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise DataError(
                f"{self._source.path}: want numbers in column {self._columns[name]!r}, was {column.type}"
                f" such as {column[0].as_py()!r}"
            ) from None
        values = numbers.to_numpy(zero_copy_only=False)
        self._refuse(~np.isfinite(values), values, f"a number in {self._columns[name]!r}")
        return values

    def _check_order(self, time: Ints) -> None:
        before = np.concatenate(([self._last_time], time[:-1]))
        late = np.flatnonzero(time < before)
        if late.size:
            i = int(late[0])
            raise DataError(
                f"{self._source.path}, row {self._rows + i + 1}: want times in order, was {moment(int(time[i]))}"
                f" after {moment(int(before[i]))}"
            )

    def _check_spacing(self, time: Ints, open_time: Ints, symbol: pa.Array) -> None:
        """A symbol has one bar a time, and no bar opens before the one before it was known."""
        encoded = symbol.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        names = encoded.dictionary.to_pylist()
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(names)))
        before = np.empty_like(time)
        before[order[1:]] = time[order[:-1]]
        for code, name in enumerate(names):
            before[order[starts[code]]] = self.symbols.get(name, np.iinfo(np.int64).min)
        same = np.flatnonzero(time == before)
        if same.size:
            i = int(same[0])
            raise DataError(
                f"{self._source.path}, row {self._rows + i + 1}: want one bar of {symbol[i]} a time,"
                f" was a second one known at {moment(int(time[i]))}"
            )
        # A day that the clocks change is an hour short where bars are stamped in UTC.
        slack = 3_600_000_000_000 if self.bar is not None and self.bar >= timedelta(days=1) else 0
        overlap = np.flatnonzero(open_time + slack < before)
        if overlap.size:
            i = int(overlap[0])
            raise DataError(
                f"{self._source.path}, row {self._rows + i + 1}: the bar of {symbol[i]} opens at"
                f" {moment(int(open_time[i]))}, before the last one closed at {moment(int(before[i]))};"
                f" is a bar really {self._source.bar} long?"
            )
        ends = np.append(starts[1:], len(order)) - 1
        for code, name in enumerate(names):
            self.symbols[name] = int(time[order[ends[code]]])

    def _register(self, symbol: pa.Array) -> None:
        for name in symbol.unique().to_pylist():
            self.symbols.setdefault(name, 0)

    def _refuse(self, bad: npt.NDArray[np.bool_], values: Any, wanted: str) -> None:
        """Raise a DataError for the first row that is `bad`."""
        if bad.any():
            i = int(np.argmax(bad))
            raise DataError(f"{self._source.path}, row {self._rows + i + 1}: want {wanted}, was {values[i]}")


def name_of(path: Path) -> str:
    """A symbol from a file name: AAPL from AAPL_1h.csv.gz."""
    stem = path.name.split(".")[0]
    return re.sub(r"[_-]\d+(ms|s|m|h|d|w)$", "", stem)


def _check_bars(reader: Reader, values: dict[str, Floats]) -> None:
    high, low = values["high"], values["low"]
    for name in _WANTED["bars"]:
        reader._refuse(~(values[name] > 0.0), values[name], f"a positive {name}")
    reader._refuse(high < low, high, "a high not below the low")
    room = high * _RELATIVE
    for name in ("open", "close"):
        outside = (values[name] > high + room) | (values[name] < low - room)
        reader._refuse(outside, values[name], f"a {name} between low and high")
    if "volume" in values:
        reader._refuse(values["volume"] < 0.0, values["volume"], "a volume of zero or more")


def _stamps(time: Ints) -> pa.Array:
    return pa.array(time, pa.timestamp("ns", "UTC"))


def _ints(column: Any) -> Ints:
    return column.cast(pa.int64()).to_numpy()
