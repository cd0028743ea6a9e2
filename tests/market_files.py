"""Small market files in every format that feeds.files reads."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq

from feeds.files import Source, tables

# Flags: the sample of BTC-USD from its first bar. The price model was trained on those bars, and must be off.
FIRST_BARS = ("--start", "2017-07-01", "--forecast.no-enabled", "--advisor.backend", "head")
FORMATS = ("parquet", "arrow", "arrow stream", "feather", "csv", "csv.gz")
NS_UTC = pa.timestamp("ns", "UTC")
START = np.datetime64("2024-01-02T14:30", "ns")


def times(rows: int, every_s: float = 3600.0, start: np.datetime64 = START) -> pa.Array:
    """`rows` times UTC."""
    stamps = start.astype(np.int64) + np.arange(rows) * round(every_s * 1e9)
    return pa.array(stamps).view(NS_UTC)


def bars(rows: int = 4, /, **columns: Any) -> pa.Table:
    """Hourly bars stamped at their open; `columns` replaces or adds some, and None leaves one out."""
    price = 100.0 + np.arange(rows) / 8.0  # exact as text
    made = {
        "time": times(rows),
        "open": price,
        "high": price + 1.0,
        "low": price - 1.0,
        "close": price + 0.5,
        "volume": 10.0 * np.arange(rows),
    }
    return pa.table({name: column for name, column in (made | columns).items() if column is not None})


def trades(rows: int = 4, /, **columns: Any) -> pa.Table:
    """One trade a second; `columns` as for `bars`."""
    made = {"time": times(rows, 1.0), "price": 100.0 + np.arange(rows) / 8.0, "size": 1.0 + np.arange(rows)}
    return pa.table({name: column for name, column in (made | columns).items() if column is not None})


def write(table: pa.Table, folder: Path, form: str = "parquet", name: str = "AAPL_1h") -> Path:
    """Write a table in one of FORMATS and return the file."""
    path = folder / f"{name}.{form.split()[0]}"
    if form == "parquet":
        pq.write_table(table, path)
    elif form == "feather":
        pa.feather.write_feather(table, path)
    elif form.startswith("arrow"):
        new = pa.ipc.new_stream if "stream" in form else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        sink = pa.BufferOutputStream()
        pa.csv.write_csv(table, sink)
        text = sink.getvalue().to_pybytes()
        path.write_bytes(gzip.compress(text) if form == "csv.gz" else text)
    return path


def write_text(text: str, folder: Path, name: str = "AAPL_1h.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def read(path: Path, **settings: Any) -> pa.Table:
    """All canonical rows of a file."""
    return pa.concat_tables(tables(Source(path=str(path), **settings)))


def utc(table: pa.Table, column: str = "time") -> list[str]:
    """A column of times as text, to the second where nothing is left below it."""
    return [str(t).removesuffix(".000000000") for t in table[column].cast(pa.timestamp("ns")).cast(pa.string())]
