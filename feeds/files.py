"""Files of market data as a stream of checked tables. Plain pyarrow: csp comes in `feeds.replay`.

Whatever the file calls its columns and however it stamps its bars, what comes out is canonical: `time` is when a row
is known, in nanoseconds UTC, rows are sorted by it, prices are positive and sizes possible. A file that cannot be made
so is refused with a `DataError` that names the file, the row, what was wanted and what came.

Prices must be positive, although some futures have traded below zero: every return in ticktorch is relative.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
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
from feeds.times import Spacing, bar_length, first_refused, form, moment, to_utc

TABLE_ROWS = 65_536

_KINDS = ("auto", "bars", "trades", "macro")
_WANTED = {
    "bars": ("open", "high", "low", "close"),
    "trades": ("price", "size"),
    "macro": ("value",),
}
_INDEX = "__index_level_0__"  # what pandas calls an index without a name
_NAMES = {
    "time": ("time", "timestamp", "datetime", "date", "event_time", "open_time", "close_time", _INDEX),
    "open_time": ("open_time",),
    "symbol": ("symbol", "ticker", "series"),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume",),
    "price": ("price",),
    "size": ("size", "quantity", "qty", "amount"),
    "side": ("side",),
    "observed": ("observed",),
    "value": ("value",),
}
_OPTIONAL = {"bars": ("symbol", "volume"), "trades": ("symbol", "side"), "macro": ("symbol", "observed")}
_SIDES = {"buy": "BUY", "b": "BUY", "sell": "SELL", "s": "SELL"}
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_NEVER, _FOREVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_DAY = timedelta(days=1)
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
    stamp: str = "open"  # what the time of a bar means: open (known one bar later) or close; not read where it has both

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, was {self.kind!r}")
        if self.stamp not in ("open", "close"):
            raise ValueError(f"stamp must be open or close, was {self.stamp!r}")
        if self.symbol and not self.symbol.strip():
            raise ValueError(f"symbol must not be blank, was {self.symbol!r}")
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
    last: datetime  # not before the last row is known: a run that ends here delivers it
    bar: timedelta | None  # the length of most bars; None for trades and macro points
    sha256: str  # of the file's bytes


def describe(source: Source, *, whole: bool = True) -> Description:
    """Read and check the whole file once.

    Args:
        whole: False for the first part of a file, which may be too thin to tell how long a bar is.

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
    if whole:
        reader.check_bar()
    with reader.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Description(
        kind=reader.kind,
        rows=rows,
        symbols=tuple(reader.symbols),
        first=moment(first),
        last=moment(last + 999),
        bar=reader.bar,
        sha256=digest,
    )


def tables(
    source: Source, start: datetime | None = None, end: datetime | None = None, symbols: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Canonical, checked tables of at most 65,536 rows, read as a stream.

    Columns: `time` (timestamp[ns, UTC]), `symbol`; bars add `open_time`, open, high, low, close, volume (0.0 where the
    file has none); trades add price, size and, where the file has one, side (BUY, SELL, or null for another word);
    macro points add observed (the time, where the file has none) and value.

    Args:
        start, end: naive UTC, both included; rows long before the start are passed over unchecked.
        symbols: only their rows; (): all.

    Raises:
        DataError: the file cannot be used.
    """
    first, last = _NEVER if start is None else _ns(start), _FOREVER if end is None else _ns(end)
    for table in Reader(source, start).tables():
        time = _ints(table["time"])
        if time[0] > last:
            return
        low, high = np.searchsorted(time, first, "left"), np.searchsorted(time, last, "right")
        table = table.slice(low, high - low)
        if symbols:
            table = table.filter(pc.is_in(table["symbol"], pa.array(symbols, pa.string())))
        if table.num_rows:
            yield table


def truncate(source: Source, cut: datetime, target: Path) -> int:
    """Copy the rows of `source` that are known at `cut` to `target`, in the file's own format; return how many.

    Args:
        cut: naive UTC.
        target: written only where there are rows.

    Raises:
        DataError: the file cannot be used, as far as it was read.
    """
    until = _ns(cut)
    rows = 0
    for table in tables(source):
        known = int(np.searchsorted(_ints(table["time"]), until, "right"))
        rows += known
        if known < table.num_rows:
            break
    if rows:
        raw.copy_rows(raw.locate(source.path), rows, target)
    return rows


class Reader:
    """One pass over a file: which column is which, and what was seen so far."""

    def __init__(self, source: Source, start: datetime | None = None) -> None:
        self.path = raw.locate(source.path)
        self._source = source
        self._names = raw.column_names(self.path)
        self.kind = self._kind()
        self._columns = {name: self._find(name) for name in self._needed()}
        self.bar = self._bar()
        early = None if start is None else start - (self.bar or timedelta()) - 2 * _DAY  # more than zones can shift
        groups, self._rows = raw.groups_before(self.path, self._columns["time"], early) if early else (0, 0)
        self._batches = raw.batches(self.path, TABLE_ROWS, list(dict.fromkeys(self._columns.values())), groups)
        self.symbols: dict[str, int] = {}  # symbol -> last bar's close, ns
        self._renamed = ""  # what the rows call the symbol that the source names otherwise
        self._form = ""  # how the first time is written
        self._spacing = Spacing()
        self._last_time = _NEVER

    def tables(self) -> Iterator[pa.Table]:
        for batch in self._batches:
            try:
                table = self._canonical(batch)
            except UnicodeDecodeError as exc:
                raise DataError(f"{self._source.path}, after row {self._rows}: want text in UTF-8, was {exc}") from None
            yield table
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
        needed = ["time", *_WANTED[self.kind], *(name for name in _OPTIONAL[self.kind] if self._lookup(name))]
        if self.kind == "bars" and self._says_both():
            needed.append("open_time")
        return needed

    def _says_both(self) -> bool:
        """Whether the file says of every bar both when it opened and when it was known."""
        opened = self._lookup("open_time")
        return opened is not None and opened != self._lookup("time")

    def _lookup(self, name: str) -> str | None:
        mapped = self._source.columns.get(name)
        if mapped is not None:
            if mapped not in self._names:
                raise DataError(
                    f"{self._source.path} has no column {mapped!r} for the {name}; it has {', '.join(self._names)}"
                )
            return mapped
        lower = {column.lower(): column for column in reversed(self._names)}
        known = [lower[word] for word in _NAMES[name] if word in lower]
        if len(known) > 1 and known[-1] == lower.get(_INDEX):
            known.pop()  # the row numbers of a table that was filtered
        if name == "time" and len(known) > 1:
            return self._which_time(lower, known)
        return known[0] if known else None

    def _which_time(self, lower: dict[str, str], known: list[str]) -> str:
        """Of several columns the one that the stamp speaks of; between others the user decides."""
        if self.kind != "trades" and "open_time" in lower and "time" in lower:
            return lower["time"]
        if self.kind == "bars" or (self.kind == "macro" and self._source.bar):
            meant, other = ("open_time", "close_time") if self._source.stamp == "open" else ("close_time", "open_time")
            if meant in lower:
                return lower[meant]
            known = [column for column in known if column != lower.get(other)]
        if len(known) == 1:
            return known[0]
        raise DataError(
            f"{self._source.path} has the times {', '.join(known)}: say which, as columns = {{ time = ... }}"
        )

    def _find(self, name: str) -> str:
        column = self._lookup(name)
        if column is None:
            raise DataError(
                f"{self._source.path} has no column for the {name}: want {' or '.join(_NAMES[name])}, or a [columns]"
                f" map; it has {', '.join(self._names)}"
            )
        if self._names.count(column) > 1:
            raise DataError(f"{self._source.path} has {self._names.count(column)} columns {column!r}, want one")
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
        if "side" in self._columns:
            columns["side"] = _sides(batch.column(self._columns["side"]))
        if "observed" in self._columns:
            observed = batch.column(self._columns["observed"])
            columns["observed"] = _stamps(
                to_utc(observed, self._source.time_zone, timedelta(), (self._source.path, self._rows))
            )
        elif self.kind == "macro":
            columns["observed"] = columns["time"]
        if self.kind == "bars":
            self._check_spacing(time, open_time, symbol)
            self._check_bars(values)
            columns["open_time"] = _stamps(open_time)
            values.setdefault("volume", np.zeros(len(time)))
        self._last_time = int(time[-1])
        return pa.table(columns | values)

    def _times(self, batch: pa.RecordBatch) -> tuple[Ints, Ints]:
        """When each row is known, and when its bar opened (the same where there is no bar)."""
        column, zone = batch.column(self._columns["time"]), self._source.time_zone
        self._check_form(column)
        where = (self._source.path, self._rows)
        stamped = to_utc(column, zone, timedelta(), where)
        if "open_time" in self._columns:
            open_time = to_utc(batch.column(self._columns["open_time"]), zone, timedelta(), where)
            self._refuse(open_time >= stamped, _stamps(open_time), "an open_time before the time")
            if self.bar is None:
                lengths, counts = np.unique(stamped - open_time, return_counts=True)
                self.bar = timedelta(microseconds=int(lengths[np.argmax(counts)]) // 1000)
            return stamped, open_time
        if self.bar is None:
            return stamped, stamped
        if self._source.stamp == "open":
            return to_utc(column, zone, self.bar, where), stamped
        return stamped, to_utc(column, zone, -self.bar, where)

    def _check_form(self, column: Any) -> None:
        """Times are written one way from the first row to the last, and say the time of day."""
        here = form(column)
        self._form = self._form or here
        if here and here != self._form:
            raise self._wrong(0, f"{self._form}, as in the rows before", f"{here}: {column[0]}")
        over = self.bar is not None and self.bar % _DAY == timedelta() and self._source.stamp == "open"
        if here == "dates" and not over:
            raise self._wrong(0, "a time of day; or bar = '1d', stamp = 'open', known when the day is over", column[0])

    def _symbol(self, batch: pa.RecordBatch) -> pa.Array:
        """Whose each row is."""
        if "symbol" not in self._columns:
            names = [self._source.symbol or name_of(self.path)]
            symbol = pa.repeat(names[0], batch.num_rows)
        else:
            column = batch.column(self._columns["symbol"])
            try:
                symbol = column.cast(pa.string())
            except pa.ArrowException:
                raise self._wrong(0, "a symbol", column[0]) from None
            names = symbol.unique().to_pylist()
            if self._source.symbol:
                self._check_one(symbol, names)
                names = [self._source.symbol]
                symbol = pa.repeat(names[0], batch.num_rows)
        for name in names:
            if name is None or not name.strip():
                raise self._wrong(symbol.to_pylist().index(name), "a symbol", None)
            self.symbols.setdefault(name, _NEVER)
        return symbol

    def _check_one(self, symbol: pa.Array, names: list[str | None]) -> None:
        """One name for all rows must not melt two symbols into one. Rows without a symbol may be of any."""
        for name in names:
            self._renamed = self._renamed or name or ""
            if name and name != self._renamed:
                wanted = f"only rows of {self._renamed}, because the symbol was set to {self._source.symbol}"
                raise self._wrong(symbol.to_pylist().index(name), wanted, name)

    def _numbers(self, batch: pa.RecordBatch, name: str) -> Floats:
        """A column as finite floats, of the sign that its name allows."""
        title = self._columns[name]
        column, wanted = batch.column(title), f"a number in {title!r}"
        if column.null_count:
            raise self._wrong(pc.index(column.is_null(), True).as_py(), wanted, None)
        try:
            values = _floats(column)
        except pa.ArrowException:
            i = first_refused(column, _floats)
            raise self._wrong(i, wanted, column[i]) from None
        low, high = values.min(), values.max()  # NaN where there is one
        if not -np.inf < low <= high < np.inf:
            self._refuse(~np.isfinite(values), values, wanted)
        if name == "volume" and low < 0.0:
            self._refuse(values < 0.0, values, "a volume of zero or more")
        if name not in ("volume", "value") and low <= 0.0:
            self._refuse(values <= 0.0, values, f"a positive {name}")
        return values

    def _check_order(self, time: Ints) -> None:
        before = np.concatenate(([self._last_time], time[:-1]))
        late = time < before
        if late.any():
            i = int(np.argmax(late))
            raise self._wrong(i, f"times in order, after {moment(int(before[i]))}", moment(int(time[i])))

    def _check_spacing(self, time: Ints, open_time: Ints, symbol: pa.Array) -> None:
        """A symbol has one bar a time, and no bar opens before the one before it was known.

        Bars that overlap are too long, and then known too late. A session's last, shorter bar with an extended
        session right behind it overlaps too: a file of such bars must say itself when each was known, by both a time
        and an open_time.
        """
        encoded = symbol.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        names = encoded.dictionary.to_pylist()
        order = np.argsort(codes, kind="stable") if len(names) > 1 else np.arange(len(codes))
        starts = np.searchsorted(codes[order], np.arange(len(names)))
        before = np.empty_like(time)
        before[order[1:]] = time[order[:-1]]
        for code, name in enumerate(names):
            before[order[starts[code]]] = self.symbols[name]
        same = time == before
        if same.any():
            i = int(np.argmax(same))
            raise self._wrong(i, f"one bar of {symbol[i]} a time", f"a second one known at {moment(int(time[i]))}")
        # A day that the clocks change is an hour short where bars are stamped in UTC.
        slack = 3_600_000_000_000 if self.bar is not None and self.bar >= timedelta(days=1) else 0
        overlap = open_time + slack < before
        if overlap.any():
            i = int(np.argmax(overlap))
            raise self._wrong(
                i,
                f"a bar of {symbol[i]} that opens after the last one closed at {moment(int(before[i]))}",
                f"one that opens at {moment(int(open_time[i]))}; is a bar really {self.bar} long?",
            )
        if self._source.bar and "open_time" not in self._columns:
            self._spacing.add((time - before)[before != _NEVER])
        ends = np.append(starts[1:], len(order)) - 1
        for code, name in enumerate(names):
            self.symbols[name] = int(time[order[ends[code]]])

    def check_bar(self) -> None:
        """Refuse a stated length that the rows contradict: daily bars called 1h would be known 23 hours early."""
        apart = self._spacing.usual()
        # Days that the clocks made longer count an hour more.
        if self.bar is not None and apart > self.bar + timedelta(hours=self.bar >= _DAY):
            raise DataError(f"{self._source.path}: want bars {self.bar} long, was {apart} from bar to bar, or more")

    def _check_bars(self, values: dict[str, Floats]) -> None:
        high, low = values["high"], values["low"]
        self._refuse(high < low, high, "a high not below the low")
        room = high * _RELATIVE
        for name in ("open", "close"):
            outside = (values[name] - high > room) | (low - values[name] > room)
            self._refuse(outside, values[name], f"the {name} between low and high")

    def _refuse(self, bad: npt.NDArray[np.bool_], values: Any, wanted: str) -> None:
        """Raise for the first row that is `bad`."""
        if bad.any():
            i = int(np.argmax(bad))
            raise self._wrong(i, wanted, values[i])

    def _wrong(self, i: int, wanted: str, came: Any) -> DataError:
        """What is wrong with row `i` of the batch at hand."""
        shown = "empty" if came is None else came
        return DataError(f"{self._source.path}, row {self._rows + i + 1}: want {wanted}, was {shown}")


def name_of(path: Path) -> str:
    """A symbol from a file name: AAPL from AAPL_1h.csv.gz."""
    return re.sub(r"[_-]\d+(ms|s|m|h|d|w|wk|mo)$", "", raw.stem(path))


def _floats(column: Any) -> Floats:
    """Numbers, or text that spells numbers, as floats.

    Raises:
        ArrowException: something else.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_boolean(column.type):
        raise pa.ArrowInvalid("a boolean is no number")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_trim_whitespace(column)
    return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)  # unsafe: whole numbers beyond 2**53


def _sides(column: Any) -> pa.Array:
    """Which side a trade's aggressor took: BUY, SELL, or null for what else a venue writes."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not any(is_text(column.type) for is_text in _TEXT):
        return pa.nulls(len(column), pa.string())
    encoded = column.cast(pa.string()).dictionary_encode()
    words = [_SIDES.get((word or "").lower()) for word in encoded.dictionary.to_pylist()]
    return pa.array(words, pa.string()).take(encoded.indices)


def _ns(time: datetime) -> int:
    return int(np.datetime64(time, "ns").astype(np.int64))


def _stamps(time: Ints) -> pa.Array:
    return pa.array(time).view(pa.timestamp("ns", "UTC"))


def _ints(column: Any) -> Ints:
    return column.cast(pa.int64()).to_numpy()
