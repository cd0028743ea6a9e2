"""Parquet, Arrow and CSV files as record batches, whatever is in them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from feeds.errors import DataError

_PROJECT = Path(__file__).parent.parent
_CSV = (".csv", ".csv.gz")
_ARROW = (".arrow", ".feather", ".ipc")
_BLOCK_BYTES = 4 << 20  # of CSV read at once, and the longest line
_HEAD_BYTES = 1 << 20  # of CSV read for its header
# Of a Parquet column read at once: a row group is not held whole. 143 MB at the peak instead of 206 MB for 10 million
# trades in one row group.
_BUFFER_BYTES = 1 << 20
_COPY_ROWS = 65_536
_RAGGED = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+): ?(.*)")  # the header is row 1
# pyarrow raises any of these on bytes that are not what the file's name says.
_BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError)


def locate(path: str | Path) -> Path:
    """The file, relative to the current folder or, where it is not there, to the project.

    Raises:
        DataError: no such file, a folder, or a file without a byte.
    """
    if not str(path):
        raise DataError("the path of a data file is empty")
    for found in (Path(path), _PROJECT / path):
        if found.is_dir():
            raise DataError(f"{path} is a folder, want a file")
        if found.exists():
            if found.stat().st_size == 0:
                raise DataError(f"{path} is empty (0 bytes)")
            return found
    raise DataError(f"data file {path} does not exist")


def stem(path: Path) -> str:
    """The name without the ending that says the format: BRK.B_1h from BRK.B_1h.csv.gz."""
    return path.name[: -len(_ending(path))]


def batches(path: Path, rows: int, columns: Sequence[str] | None = None, groups: int = 0) -> Iterator[pa.RecordBatch]:
    """The file's rows in batches of at most `rows`, read as a stream.

    The cells of a CSV file are strings, or null where nothing is written: what the first block looks like must not
    decide what a later one may hold.

    Args:
        columns: the only ones to read; None: all.
        groups: row groups of a Parquet file to leave out at its start.

    Raises:
        DataError: not a file of the kind that its name says.
    """
    try:
        for batch in _read(path, rows, columns, groups):
            for start in range(0, batch.num_rows, rows):
                yield batch.slice(start, rows)
    except _BROKEN as exc:
        raise _unreadable(path, exc) from None


def column_names(path: Path) -> list[str]:
    """The names of the columns; DataError as `batches`."""
    ending = _ending(path)
    try:
        if ending in _CSV:
            with _csv_bytes(path) as text, pa.csv.open_csv(text, read_options=_csv_blocks(_HEAD_BYTES)) as reader:
                return list(reader.schema.names)
        if ending == ".parquet":
            return list(pq.read_schema(path).names)
        with pa.memory_map(str(path)) as file:
            return list(_ipc(file).schema.names)
    except _BROKEN as exc:
        raise _unreadable(path, exc) from None


def copy_rows(path: Path, rows: int, target: Path) -> None:
    """Write the first `rows` rows of a file, one or more, to `target` in the same format; DataError as `batches`."""
    with ExitStack() as stack:
        writer = None
        for batch in batches(path, _COPY_ROWS):
            writer = writer or stack.enter_context(_writer(path, target, batch.schema, stack))
            part = batch.slice(0, rows)
            writer.write_batch(part)
            rows -= part.num_rows
            if rows == 0:
                return


def _writer(path: Path, target: Path, schema: pa.Schema, stack: ExitStack) -> Any:
    """What writes batches to `target` as they are in `path`."""
    ending = _ending(path)
    if ending == ".parquet":
        return pq.ParquetWriter(target, schema)
    compression = "gzip" if ending == ".csv.gz" else None
    sink = stack.enter_context(pa.output_stream(str(target), compression=compression))
    if ending in _CSV:
        return pa.csv.CSVWriter(sink, schema, write_options=pa.csv.WriteOptions(quoting_style="needed"))
    with pa.memory_map(str(path)) as file:
        as_file = isinstance(_ipc(file), pa.RecordBatchFileReader)
    return pa.ipc.new_file(sink, schema) if as_file else pa.ipc.new_stream(sink, schema)


def _ending(path: Path) -> str:
    """The format, as the end of the file's name."""
    for ending in (*_CSV, *_ARROW, ".parquet"):
        if path.name.lower().endswith(ending):
            return ending
    raise DataError(f"{path}: want .parquet, .arrow, .feather, .csv or .csv.gz, was {path.suffix or 'no ending'}")


def groups_before(path: Path, column: str, before: datetime) -> tuple[int, int]:
    """How many row groups at the start of a Parquet file end before a time (naive UTC), and how many rows they hold."""
    if _ending(path) != ".parquet":
        return 0, 0
    rows = 0
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata
            leaves = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
            if column not in leaves or not pa.types.is_timestamp(file.schema_arrow.field(column).type):
                return 0, 0
            at = leaves.index(column)
            for group in range(metadata.num_row_groups):
                facts = metadata.row_group(group).column(at).statistics
                if facts is None or not facts.has_min_max or facts.max.replace(tzinfo=None) >= before:
                    return group, rows
                rows += metadata.row_group(group).num_rows
            return metadata.num_row_groups, rows
    except _BROKEN as exc:
        raise _unreadable(path, exc) from None


def _read(path: Path, rows: int, columns: Sequence[str] | None, groups: int = 0) -> Iterator[pa.RecordBatch]:
    ending = _ending(path)
    if ending in _CSV:
        yield from _read_csv(path, columns)
    elif ending == ".parquet":
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file:
            left = range(groups, file.metadata.num_row_groups)
            yield from file.iter_batches(batch_size=rows, row_groups=left, columns=columns)
    else:
        with pa.memory_map(str(path)) as file:
            reader = _ipc(file)
            numbered = isinstance(reader, pa.RecordBatchFileReader)
            for batch in map(reader.get_batch, range(reader.num_record_batches)) if numbered else reader:
                batch.validate(full=True)  # offsets that point outside the file would end the process
                yield batch.select(columns) if columns is not None else batch


def _read_csv(path: Path, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    strings = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(columns if columns is not None else column_names(path), pa.string()),
        include_columns=columns,
        null_values=[""],
        strings_can_be_null=True,
    )
    with (
        _csv_bytes(path) as text,
        pa.csv.open_csv(text, read_options=_csv_blocks(_BLOCK_BYTES), convert_options=strings) as reader,
    ):
        yield from reader


def _csv_blocks(size: int) -> Any:
    return pa.csv.ReadOptions(block_size=size, use_threads=False)  # with threads, errors do not tell the row


def _csv_bytes(path: Path) -> Any:
    # pyarrow reads ahead in a thread that may go on after the reader is closed. From a path it would read by the file's
    # number, which the next file that is opened has by then: its bytes would be lost. A file of Python's stays closed.
    file = path.open("rb")
    return pa.input_stream(file, compression="gzip" if _ending(path) == ".csv.gz" else None)


def _ipc(file: Any) -> Any:
    """A reader of the file format or, where it is not that, of the stream format."""
    try:
        return pa.ipc.open_file(file)
    except pa.ArrowInvalid:
        file.seek(0)
        return pa.ipc.open_stream(file)


def _unreadable(path: Path, exc: Exception) -> DataError:
    reason = (str(exc).splitlines() or [type(exc).__name__])[0]
    ragged = _RAGGED.search(reason)
    if ragged:
        line, wanted, came, text = ragged.groups()
        return DataError(f"{path}, row {int(line) - 1}: want {wanted} cells, were {came}: {text[:80]}")
    return DataError(f"{path} cannot be read as {_ending(path).lstrip('.')}: {reason}")
