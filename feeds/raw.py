"""Parquet, Arrow and CSV files as record batches, whatever is in them."""

import gzip
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from feeds.errors import DataError

_PROJECT = Path(__file__).parent.parent
_CSV_BLOCK = 4 << 20  # bytes


def locate(path: str | Path) -> Path:
    """The file, relative to the current folder or, where it is not there, to the project.

    Raises:
        DataError: no such file, a folder, or a file without a byte.
    """
    for found in (Path(path), _PROJECT / path):
        if found.is_dir():
            raise DataError(f"{path} is a folder, want a file")
        if found.exists():
            if found.stat().st_size == 0:
                raise DataError(f"{path} is empty (0 bytes)")
            return found
    raise DataError(f"data file {path} does not exist")


def batches(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """The file's rows in batches of at most `rows`, read as a stream.

    Raises:
        DataError: not a file of the kind that its name says.
    """
    try:
        for batch in _open(path, rows):
            for start in range(0, batch.num_rows, rows):
                yield batch.slice(start, rows)
    except (pa.ArrowException, OSError) as exc:
        raise _unreadable(path, exc) from None


def column_names(path: Path) -> list[str]:
    """The names of the columns; DataError as `batches`."""
    try:
        if _is_csv(path):
            with pa.csv.open_csv(_bytes(path)) as reader:
                return list(reader.schema.names)
        if path.suffix == ".parquet":
            return list(pq.read_schema(path).names)
        with _ipc(path) as reader:
            return list(reader.schema.names)
    except (pa.ArrowException, OSError) as exc:
        raise _unreadable(path, exc) from None


def copy_rows(path: Path, rows: int, target: Path) -> None:
    """Write the first `rows` rows of a file to `target` in the same format."""
    if _is_csv(path):
        _copy_lines(path, rows, target)
        return
    left = rows
    parts = []
    for batch in _open(path, 65_536):
        parts.append(batch.slice(0, left))
        left -= parts[-1].num_rows
        if left == 0:
            break
    table = pa.Table.from_batches(parts)
    if path.suffix == ".parquet":
        pq.write_table(table, target)
        return
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _copy_lines(path: Path, rows: int, target: Path) -> None:
    left = rows + 1  # and the header
    with _text(path, "rb") as lines, _text(target, "wb") as out:
        for line in lines:
            if line.strip():
                out.write(line)
                left -= 1
            if left == 0:
                return


def _is_csv(path: Path) -> bool:
    return path.name.endswith((".csv", ".csv.gz"))


def _text(path: Path, mode: str) -> IO[bytes]:
    return gzip.open(path, mode) if path.suffix == ".gz" else path.open(mode)  # type: ignore[return-value]


def _bytes(path: Path) -> Any:
    return pa.input_stream(str(path), compression="gzip" if path.suffix == ".gz" else None)


def _open(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    if _is_csv(path):
        # Times stay strings: they are parsed strictly, in feeds.times.
        names = column_names(path)
        numbers = pa.csv.ConvertOptions(
            timestamp_parsers=[], column_types=_string_times(path, names), strings_can_be_null=True
        )
        with pa.csv.open_csv(
            _bytes(path), read_options=pa.csv.ReadOptions(block_size=_CSV_BLOCK), convert_options=numbers
        ) as reader:
            yield from reader
    elif path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=rows)
    elif path.suffix in (".arrow", ".feather", ".ipc"):
        with _ipc(path) as reader:
            if isinstance(reader, pa.RecordBatchFileReader):
                yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
            else:
                yield from reader
    else:
        raise DataError(f"{path}: want .parquet, .arrow, .feather, .csv or .csv.gz, was {path.suffix or 'no ending'}")


def _string_times(path: Path, names: list[str]) -> dict[str, pa.DataType]:
    """Columns that pyarrow would turn into dates, as strings; numbers as numbers in every block."""
    with pa.csv.open_csv(_bytes(path)) as reader:
        schema = reader.schema
    kept = {}
    for name in names:
        kind = schema.field(name).type
        if pa.types.is_temporal(kind):
            kept[name] = pa.string()
        elif pa.types.is_integer(kind) and name.lower() not in _EPOCH_NAMES:
            kept[name] = pa.float64()  # a later block may hold 1.5
    return kept


_EPOCH_NAMES = ("time", "timestamp", "datetime", "open_time", "event_time", "close_time")


def _ipc(path: Path) -> Any:
    source = pa.memory_map(str(path))
    with suppress(pa.ArrowInvalid):
        return pa.ipc.open_file(source)
    source.seek(0)
    return pa.ipc.open_stream(source)


def _unreadable(path: Path, exc: Exception) -> DataError:
    return DataError(f"{path} cannot be read as {path.suffix.lstrip('.')}: {str(exc).splitlines()[0]}")
