"""Recordings on disk, as plain Arrow: files that survive a killed process, the watermark, the manifest, the comparison.

    RUN/manifest.json                    what ran; written at the start, and again when the run has ended
    RUN/watermark                        engine time in nanoseconds: every stream is complete before it
    RUN/checksums                        SHA-256 of each finished file, as sha256sum writes it
    RUN/inputs/trades-000001.arrow       Arrow IPC streams; one batch of rows each half second, rotated
    RUN/outputs/orders-000001.arrow

Each row has its `engine_time`, then the fields of what ticked; null is a field that was not set. A stream is named by
its folder and name, such as "inputs/trades". csp comes in `feeds.record`.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from feeds.errors import DataError

TIME = pa.timestamp("ns", "UTC")
COLUMN = "engine_time"

_FORMAT = 1
_BLOCK_ROWS = 65_536
_CHECKSUMS = "checksums"
_FILE = re.compile(r"(?P<name>[a-z0-9][a-z0-9_.-]*)-(?P<number>\d{6,})\.arrow")


class RecordingError(Exception):
    """A recording that cannot be written, or that holds a run which cannot be replayed. It stops the engine."""


# --- writing ---


def valid_name(name: str) -> bool:
    """Whether a stream may be called so: its name is the name of its files."""
    return _FILE.fullmatch(f"{name}-000001.arrow") is not None


class StreamWriter:
    """The files of one stream. What `write` was given is with the operating system when it returns. A file that is
    finished has its line in `checksums`.

    Args:
        root: of the recording; the folder of the stream is made.
        stream: such as "inputs/trades".
        rotate_s: wall seconds after which the next batch opens a new file.

    Raises:
        OSError: the disk, from every method.
    """

    def __init__(self, root: Path, stream: str, schema: pa.Schema, rotate_s: float) -> None:
        self._root, self._stream, self._schema, self._rotate_s = root, stream, schema, rotate_s
        self._number = 0
        self.rows = 0
        (root / stream).parent.mkdir(parents=True, exist_ok=True)
        self._open()  # a stream that never ticks has a file of no rows: it was recorded, and there was nothing

    def write(self, batch: pa.RecordBatch) -> None:
        if time.monotonic() >= self._until:
            self.close()
            self._open()
        self._writer.write_batch(batch)  # OSFile has no buffer of its own: this is write(2)
        self.rows += batch.num_rows

    def close(self) -> None:
        self._writer.close()
        self._file.close()
        line = f"{_sha256(self._root / self._name)}  {self._name}\n"
        with (self._root / _CHECKSUMS).open("a", encoding="ascii") as file:
            file.write(line)

    def _open(self) -> None:
        self._number += 1
        self._name = f"{self._stream}-{self._number:06}.arrow"
        self._file = pa.OSFile(str(self._root / self._name), "wb")
        self._writer = pa.ipc.new_stream(self._file, self._schema)
        self._until = time.monotonic() + self._rotate_s


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Watermark:
    """The file that says how far a recording is complete. It is overwritten in place by one write of 20 bytes, which a
    killed process has made or has not."""

    def __init__(self, root: Path) -> None:
        self._file = os.open(root / "watermark", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def write(self, ns: int) -> None:
        """All rows strictly before engine time `ns` are written: one at `ns` itself may be of a cycle still running."""
        os.pwrite(self._file, b"%019d\n" % ns, 0)

    def close(self) -> None:
        os.close(self._file)


def write_manifest(root: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json`, or replace it by a whole new one: a reader sees either, never a part.

    Args:
        manifest: JSON values; no secret. Once the run has ended as it should, `ended` is "stop" and `counts` the rows
            of each stream, which whoever reads a stream checks.
    """
    temporary = root / "manifest.json.part"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump({"format": _FORMAT} | dict(manifest), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(root / "manifest.json")


# --- reading ---


def read_manifest(root: Path) -> dict[str, Any]:
    """What `write_manifest` wrote last.

    Raises:
        DataError: there is none, it cannot be read, or it is of another format.
    """
    path = root / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{root} is no recording: it has no manifest.json") from None
    except (OSError, ValueError) as exc:
        raise DataError(f"{path} cannot be read: {exc}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise DataError(f"{path} is of format {found}, want {_FORMAT}")
    return manifest


def read_watermark(root: Path) -> int:
    """Engine nanoseconds before which every stream is complete; 0 where the run ended before its first row was written.

    Raises:
        DataError: there is no such file, or it holds something else.
    """
    path = root / "watermark"
    try:
        text = path.read_text(encoding="ascii")
        return int(text) if text else 0
    except FileNotFoundError:
        raise DataError(f"{root} is no recording: it has no watermark") from None
    except (OSError, ValueError) as exc:
        raise DataError(f"{path} cannot be read: {exc}") from None


def complete_before(root: Path) -> int | None:
    """Up to where a recording can be replayed and compared, strictly before: None is to its end.

    Raises:
        DataError: it is no recording.
    """
    return None if read_manifest(root).get("ended") == "stop" else read_watermark(root)


def check_unchanged(root: Path, folder: str) -> None:
    """Refuse a recording of which a finished file is not as it was written. What a killed process had not finished has
    no checksum, and neither has a recording of an earlier version.

    Args:
        folder: "inputs" or "outputs".

    Raises:
        DataError: a file was changed, or is gone.
    """
    path = root / _CHECKSUMS
    try:
        lines = path.read_text(encoding="ascii").splitlines(keepends=True)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as exc:
        raise DataError(f"{path} cannot be read: {exc}") from None
    for line in lines:
        digest, _, name = line.rstrip("\n").partition("  ")
        if not name.startswith(f"{folder}/") or not line.endswith("\n"):  # a torn line is the last word of a killed run
            continue
        try:
            found = _sha256(root / name)
        except OSError as exc:
            raise DataError(f"{root / name} cannot be read: {exc.strerror}") from None
        if found != digest:
            raise DataError(f"{root / name} is not as it was recorded: its SHA-256 was {digest}, is {found}")


def stream_names(root: Path) -> list[str]:
    """All streams that were recorded, those that never ticked included, in order."""
    found = (_FILE.fullmatch(path.name) and path for path in root.glob("*/*.arrow"))
    return sorted({path.parent.name + "/" + path.name.rpartition("-")[0] for path in found if path})


def read_schema(root: Path, stream: str) -> pa.Schema | None:
    """The columns of a stream; None where the process was killed before it had written them.

    Raises:
        DataError: the stream was not recorded, or its first file cannot be read.
    """
    with _Reader(_files(root, stream)[0], last=True) as reader:
        return reader.schema


def blocks(root: Path, stream: str, before_ns: int | None = None) -> Iterator[pa.Table]:
    """The rows of a stream, in tables of 65,536 and a shorter last one, so that memory does not grow with the length.

    What a killed process has not finished writing at the end of the last file is left out.

    Args:
        before_ns: only rows strictly before this engine time.

    Raises:
        DataError: the stream was not recorded, a file cannot be read, or the manifest counts other rows.
    """
    held: list[pa.RecordBatch] = []
    rows = total = 0
    for batch in _batches(root, stream):
        total += batch.num_rows
        if before_ns is not None:
            batch = batch.filter(pc.less(batch.column(COLUMN), pa.scalar(before_ns, TIME)))
        held.append(batch)
        rows += batch.num_rows
        while rows >= _BLOCK_ROWS:
            table = pa.Table.from_batches(held)
            yield table.slice(0, _BLOCK_ROWS).combine_chunks()
            held = table.slice(_BLOCK_ROWS).to_batches()
            rows -= _BLOCK_ROWS
    if rows:
        yield pa.Table.from_batches(held).combine_chunks()
    counted = read_manifest(root).get("counts", {}).get(stream, total) if (root / "manifest.json").exists() else total
    if counted != total:
        raise DataError(f"{root / stream} holds {total:,} rows, its manifest says {counted:,}: a file is damaged")


def _files(root: Path, stream: str) -> list[Path]:
    folder, _, name = stream.partition("/")
    found = {}
    for path in (root / folder).glob(f"{name}-*.arrow"):
        match = _FILE.fullmatch(path.name)
        if match and match["name"] == name:
            found[int(match["number"])] = path
    if not found:
        names = ", ".join(stream_names(root)) or "none"
        raise DataError(f"{root} has no stream {stream}; it has {names}")
    if sorted(found) != list(range(1, len(found) + 1)):
        missing = next(n for n in range(1, len(found) + 1) if n not in found)
        raise DataError(f"{root / stream} lacks its file number {missing}")
    return [found[number] for number in sorted(found)]


def _batches(root: Path, stream: str) -> Iterator[pa.RecordBatch]:
    files = _files(root, stream)
    for path in files:
        with _Reader(path, last=path == files[-1]) as reader:
            yield from reader


class _Reader:
    """The whole batches of one file. At the end of the `last` one a part of a batch, or of the schema, is no error."""

    def __init__(self, path: Path, *, last: bool) -> None:
        self._path, self._last = path, last
        self.schema: pa.Schema | None = None

    def __enter__(self) -> Self:
        try:
            self._file = pa.OSFile(str(self._path), "rb")
        except OSError as exc:
            raise DataError(f"{self._path} cannot be read: {exc}") from None
        try:
            self._stream = pa.ipc.open_stream(self._file)
            self.schema = self._stream.schema
        except (OSError, pa.ArrowInvalid) as exc:
            self._torn(exc)
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while self.schema is not None:
            try:
                yield self._stream.read_next_batch()
            except StopIteration:
                return
            except (OSError, pa.ArrowInvalid) as exc:
                self._torn(exc)
                return

    def _torn(self, exc: Exception) -> None:
        if not self._last:
            self._file.close()
            raise DataError(f"{self._path} is damaged: {exc}") from None


# --- comparing ---


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a stream first differs. A row that one side does not have is ""."""

    stream: str
    row: int  # from 0
    engine_ns: int  # of that row; of the earlier one where they differ in time
    recorded: str
    replayed: str

    def __str__(self) -> str:
        return (
            f"{self.stream} differs first at row {self.row:,}\n"
            f"  recorded: {self.recorded or 'no such row'}\n"
            f"  replayed: {self.replayed or 'no such row'}"
        )


@dataclass(frozen=True, slots=True)
class StreamComparison:
    """One stream of two recordings: rows, and the SHA-256 of every bit of them, times included."""

    stream: str
    recorded: int
    replayed: int
    recorded_sha256: str
    replayed_sha256: str
    difference: Difference | None = None

    @property
    def identical(self) -> bool:
        return self.recorded == self.replayed and self.recorded_sha256 == self.replayed_sha256


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared, in the order asked for."""

    streams: tuple[StreamComparison, ...]

    @property
    def identical(self) -> bool:
        return all(stream.identical for stream in self.streams)

    @property
    def first(self) -> Difference | None:
        """The difference that came first in engine time: where to look for the cause of all later ones."""
        found = [stream.difference for stream in self.streams if stream.difference]
        return min(found, key=lambda difference: difference.engine_ns, default=None)

    def count(self, stream: str) -> int:
        """Rows of a stream in the recording, such as "outputs/orders"."""
        return next(each.recorded for each in self.streams if each.stream == stream)


def compare(recorded: Path, replayed: Path, streams: Sequence[str], before_ns: int | None = None) -> Comparison:
    """Compare streams of two recordings bit for bit: engine times in nanoseconds, floats, what is set and what is not.

    Args:
        streams: such as "outputs/orders".
        before_ns: only what comes strictly before this engine time; the watermark, after a crash.

    Raises:
        DataError: a stream was not recorded, or cannot be read.
    """
    return Comparison(tuple(_compare(recorded, replayed, stream, before_ns) for stream in streams))


def _compare(recorded: Path, replayed: Path, stream: str, before_ns: int | None) -> StreamComparison:
    sides = [blocks(recorded, stream, before_ns), blocks(replayed, stream, before_ns)]
    rows, digests = [0, 0], [hashlib.sha256(), hashlib.sha256()]
    difference = None
    while True:
        tables = [next(side, None) for side in sides]
        if tables[0] is None and tables[1] is None:
            break
        marks = [_digest(table) for table in tables]
        if difference is None and marks[0] != marks[1]:
            difference = _first_difference(stream, rows[0], tables)  # blocks are equal so far, so both have rows[0]
        for side, table in enumerate(tables):
            if table is not None:
                rows[side] += table.num_rows
                digests[side].update(marks[side])
    return StreamComparison(stream, rows[0], rows[1], digests[0].hexdigest(), digests[1].hexdigest(), difference)


def _first_difference(stream: str, before: int, tables: Sequence[pa.Table | None]) -> Difference:
    """Bisect two blocks that differ; `before` rows came ahead of them."""
    left, right = tables
    same, differ = 0, max(table.num_rows for table in tables if table is not None)  # of the first n rows
    while differ - same > 1:
        middle = (same + differ) // 2
        if left is not None and right is not None and _digest(left[:middle]) == _digest(right[:middle]):
            same = middle
        else:
            differ = middle
    found = [table[same : same + 1] for table in tables if table is not None and table.num_rows > same]
    times = [row.column(COLUMN).cast(pa.int64())[0].as_py() for row in found]
    texts = ["" if table is None or table.num_rows <= same else _text(table[same : same + 1]) for table in tables]
    return Difference(stream, before + same, min(times), *texts)


def _text(row: pa.Table) -> str:
    """One row for a person: floats in the shortest form that tells them apart, without what is not set."""
    fields = []
    for name, column in zip(row.column_names, row.columns, strict=True):
        value = (pc.strftime(column, format="%Y-%m-%dT%H:%M:%S") if column.type == TIME else column)[0].as_py()
        if value is not None:
            fields.append(value if name == COLUMN else f"{name}={value!r}")
    return " ".join(fields)


def _digest(table: pa.Table | None) -> bytes:
    """SHA-256 of the values of a block, whatever batches it was written in; names and types of its columns count."""
    if table is None:
        return b""
    digest = hashlib.sha256(repr([(field.name, str(field.type)) for field in table.schema]).encode())
    for column in table.columns:
        for part in _bits(column.combine_chunks()):
            digest.update(part)
    return digest.digest()


def _bits(values: pa.Array) -> Iterator[bytes]:
    """The bits of an array: what is under a null, and how the array lies in memory, does not count."""
    yield values.is_valid().to_numpy(zero_copy_only=False).tobytes()
    if pa.types.is_list(values.type):
        yield values.value_lengths().fill_null(0).to_numpy().tobytes()
        yield from _bits(values.flatten())
    elif pa.types.is_string(values.type):
        texts = [text.encode() for text in values.fill_null("").to_pylist()]
        yield b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    else:
        numbers = values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values
        zero = False if pa.types.is_boolean(numbers.type) else 0
        yield numbers.fill_null(zero).to_numpy(zero_copy_only=False).tobytes()
