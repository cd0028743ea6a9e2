"""Recording what enters a live graph, and the same edges again from the recording.

A replay repeats a live run bit for bit when each edge from outside comes back in the engine cycle in which it came:
engine times are kept in nanoseconds, and come back through csp's own reader. What the graph computes, its alarms and
feedbacks included, is computed again.

Values are kept as Python sees them: exactly, but for datetimes that C++ code made finer than a microsecond.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import csp
import numpy as np
import pyarrow as pa
from csp import ts
from csp.adapters.parquet import ParquetReader
from csp.impl.adaptermanager import AdapterManagerImpl
from csp.impl.outputadapter import OutputAdapter
from csp.impl.struct import define_struct
from csp.impl.wiring import py_output_adapter_def
from csp.typing import NumpyNDArray

from feeds import recording
from feeds.errors import DataError
from feeds.recording import COLUMN, TIME, RecordingError, StreamWriter, Watermark

T = TypeVar("T")

_SCALARS = {float: pa.float64(), int: pa.int64(), bool: pa.bool_(), str: pa.string(), datetime: TIME}
_CHUNK = 128  # rows of a column that the writer converts, 20 us, before the engine thread may have the interpreter
_PAUSE_S = 1e-6  # any sleep hands the interpreter over; Linux makes 60 us of it
_BATCH = 16_384  # rows that are taken at a time
_HURRY = 20_000  # rows behind at which the writer stops pausing
_STOP_S = 5.0  # what a disk that hangs may take of the engine's stop


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderConfig:
    """How a run is recorded."""

    flush_s: float = 0.5  # wall seconds between rounds of writing: what a killed process may lose
    rotate_s: float = 600.0  # wall seconds after which a stream goes on in a new file
    backlog_max: int = 200_000  # ticks in memory; the engine waits for the writer at this many
    stall_max_s: float = 10.0  # wall seconds for which the disk may hang before the run is stopped

    def __post_init__(self) -> None:
        if not 0.0 < self.flush_s <= 0.9:
            raise ValueError(f"flush_s must lie in (0, 0.9], to lose at most a second, was {self.flush_s}")
        if not 0.0 < self.rotate_s < math.inf:
            raise ValueError(f"rotate_s must be positive and finite, was {self.rotate_s}")
        if not self.backlog_max >= 1:
            raise ValueError(f"backlog_max must be at least 1, was {self.backlog_max}")
        if not self.flush_s < self.stall_max_s < math.inf:
            raise ValueError(
                f"stall_max_s must be finite and more than flush_s = {self.flush_s}, was {self.stall_max_s}"
            )


class Inputs:
    """Where a graph gets the edges that come from outside. As they are: neither recorded nor replayed."""

    def edge(self, name: str, kind: type, make: Callable[[], Any]) -> Any:
        """One edge from outside, before any logic.

        Args:
            name: of the stream, the same in every life: lower-case letters, digits, "_", "." and "-".
            kind: what ticks: a Struct of scalars, enums and float arrays, or one of float, int, bool, str, datetime.
            make: makes the live edge; called while the graph is built.
        """
        return make()


class RecordingInputs(Inputs):
    """The live edges, recorded on the way in."""

    def __init__(self, recorder: "Recorder") -> None:
        self._recorder = recorder

    def edge(self, name: str, kind: type, make: Callable[[], Any]) -> Any:
        edge = make()
        self._recorder.record(name, kind, edge)
        return edge


class ReplayedInputs(Inputs):
    """The edges of a recording, in a graph that runs in simulation from the recorded start. It makes no live edge.

    Args:
        root: of the recording.
        until: engine nanoseconds; only what came strictly before is replayed. The watermark, after a crash.

    Raises:
        DataError: when the graph is built: a stream was not recorded, or is of another kind. In the run: a file is
            damaged.
    """

    def __init__(self, root: Path, until: int | None = None) -> None:
        self._root, self._until = root, until
        self._asked: set[str] = set()

    def edge(self, name: str, kind: type, make: Callable[[], Any]) -> Any:
        stream = f"inputs/{name}"
        layout = _Layout(kind)
        found = recording.read_schema(self._root, stream)
        if found is not None and not found.equals(layout.schema):
            raise DataError(
                f"{self._root} has other columns in {stream} than {kind.__name__}: it was recorded by another version. "
                f"Want {_columns(layout.schema)}; it has {_columns(found)}"
            )
        self._asked.add(stream)

        def tables(start: datetime, end: datetime) -> Iterator[pa.Table]:
            return map(layout.readable, recording.blocks(self._root, stream, self._until))

        return layout.subscribe(ParquetReader(tables, time_column=COLUMN, read_from_memory_tables=True))

    def unused(self) -> list[str]:
        """Recorded inputs that the graph, once built, has not asked for: it is not the graph that was recorded."""
        return [s for s in recording.stream_names(self._root) if s.startswith("inputs/") and s not in self._asked]


class Recorder:
    """Records edges of one run of one graph, live or replayed. Nothing is opened before the engine starts.

    The engine thread only appends to a queue; a thread writes it out every `flush_s`, all streams together. So
    `kill -9` loses at most the last second of each, however slow. A disk that is full or hangs stops the engine with a
    RecordingError, and so does a wall clock that steps back, for no replay could repeat that.

    Args:
        root: folder of the recording; made where there is none, and refused where it holds one.
    """

    def __init__(self, root: Path | str, config: RecorderConfig | None = None) -> None:
        self._root, self._config = Path(root), config or RecorderConfig()
        self._layouts: dict[str, _Layout] = {}
        self._backlog = _Backlog(self._config)
        self.counts: dict[str, int] = {}  # rows of each stream, once the run has ended; for the manifest
        self.last_ns = 0  # engine time of the last row, once the run has ended; 0 where there was none

    def record(self, name: str, kind: type, edge: Any, folder: str = "inputs") -> None:
        """Record every tick of an edge.

        Args:
            folder: "inputs" for what a replay needs, "outputs" for what it is compared with.

        Raises:
            ValueError: the name cannot be, or is taken.
            TypeError: `kind` cannot be recorded, or is not what ticks on the edge.
        """
        stream = f"{folder}/{name}"
        if folder not in ("inputs", "outputs"):
            raise ValueError(f'folder must be "inputs" or "outputs", was {folder!r}')
        if not recording.valid_name(name):
            raise ValueError(f'a stream is named with a-z, 0-9, "_", "." and "-", was {name!r}')
        if stream in self._layouts:
            raise ValueError(f"{stream} is recorded already")
        if edge.tstype.typ != kind:
            raise TypeError(f"{stream} should tick {kind}, but its edge ticks {edge.tstype.typ}")
        if not self._layouts:
            _anchor(self, csp.null_ts(bool))  # brings the writer to life with the engine
        number = len(self._layouts)
        self._layouts[stream] = layout = _Layout(kind)
        layout.batch([], [], _no_pause)  # the first array of a process imports pandas, 0.3 s: not while the engine runs
        _tap(edge, csp.times_ns(edge), number, self._backlog)

    def _create(self, engine: Any, memo: Any) -> "_Writer":
        return _Writer(engine, self)


class _Backlog:
    """What the engine has handed over and the writer has not written yet."""

    def __init__(self, config: RecorderConfig) -> None:
        self.rows: deque[tuple[int, int, Any]] = deque()  # (stream, engine ns, value), in the order of the engine
        self.max, self._stall_max_s = config.backlog_max, config.stall_max_s
        self.due = math.inf  # monotonic time at which the engine looks whether the writer still works
        self._moved = threading.Condition()
        self._moves = 0
        self._ended = False
        self.hangs = False  # the engine has given the writer up

    def move(self) -> None:
        """The writer has got on with its work."""
        with self._moved:
            self._moves += 1
            self.due = time.monotonic() + self._stall_max_s
            self._moved.notify_all()

    def end(self) -> None:
        """The writer has stopped: nobody need wait for it any more."""
        with self._moved:
            self._ended = True
            self.due = math.inf
            self._moved.notify_all()

    def wait(self) -> None:
        """Hold the engine until the writer has caught up.

        Raises:
            RecordingError: it does not get on at all.
        """
        with self._moved:
            while not self._ended and (len(self.rows) >= self.max or time.monotonic() > self.due):
                before = self._moves
                if not self._moved.wait_for(lambda: self._ended or self._moves != before, self._stall_max_s):  # noqa: B023
                    self.hangs = True
                    raise RecordingError(
                        f"the recording has not been written for {self._stall_max_s:g} s, "
                        f"{len(self.rows):,} ticks are waiting: does the disk hang?"
                    )


@csp.node
def _tap(edge: ts[T], ns: ts[int], stream: int, backlog: _Backlog) -> None:
    """Hand over each tick with its engine time in nanoseconds, which Python's `csp.now()` does not have."""
    with csp.start():
        s_rows = backlog.rows
        s_append = s_rows.append
        s_max = backlog.max
        s_clock = time.monotonic  # of the edge: it changes no result

    if csp.ticked(edge):
        s_append((stream, ns, edge))
        if len(s_rows) >= s_max or s_clock() > backlog.due:
            backlog.wait()


class _Writer(AdapterManagerImpl):  # type: ignore[misc] # csp ships no types
    """The thread that writes, from the engine's start to its stop."""

    def __init__(self, engine: Any, recorder: Recorder) -> None:
        super().__init__(engine)
        self._recorder, self._root = recorder, recorder._root
        self._config, self._backlog = recorder._config, recorder._backlog
        self._layouts = list(recorder._layouts.values())
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._streams: list[StreamWriter] = []
        self._last_ns = -(2**63)
        self._stepped_back_s = 0.0
        self._abandoned = False

    def start(self, starttime: datetime, endtime: datetime) -> None:
        try:
            if self._root.exists() and (recording.stream_names(self._root) or (self._root / "watermark").exists()):
                raise RecordingError(f"{self._root} holds a recording already: give each run a folder of its own")
            for stream, layout in self._recorder._layouts.items():
                self._streams.append(StreamWriter(self._root, stream, layout.schema, self._config.rotate_s))
            self._watermark = Watermark(self._root)
        except OSError as exc:
            raise RecordingError(f"recording {self._root} cannot be written: {exc}") from None
        self._backlog.move()
        self._thread.start()

    def stop(self) -> None:
        if self._thread.ident is None:  # `start` failed
            return
        self._stopping.set()
        self._thread.join(timeout=0.0 if self._backlog.hangs else _STOP_S)
        if self._thread.is_alive():
            self._abandoned = True
            self.shutdown_engine(
                RecordingError(f"recording {self._root} could not be finished within {_STOP_S:g} s: its end is missing")
            )

    def process_next_sim_timeslice(self, now: datetime) -> None:
        return None

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._config.flush_s):
                self._round()
            self._round()
            for stream in self._streams:
                stream.close()
            self._watermark.close()
            self._recorder.counts = {n: s.rows for n, s in zip(self._recorder._layouts, self._streams, strict=True)}
            self._recorder.last_ns = max(self._last_ns, 0)
        except OSError as exc:
            self._fail(RecordingError(f"recording {self._root} cannot be written: {exc}"))
        except Exception as exc:
            self._fail(exc)
        finally:
            self._backlog.end()

    def _fail(self, exc: Exception) -> None:
        if not self._abandoned:  # the engine may be gone by now
            self.shutdown_engine(exc)

    def _round(self) -> None:
        """Write what is there now. All streams first, then how far they are complete."""
        left = len(self._backlog.rows)
        pause = _pause if left < _HURRY else _no_pause
        while left:
            taken = min(left, _BATCH)
            for number, (times, values) in self._take(taken, pause).items():
                for i in range(0, len(times), _CHUNK):
                    batch = self._layouts[number].batch(times[i : i + _CHUNK], values[i : i + _CHUNK], pause)
                    self._streams[number].write(batch)
            if self._stepped_back_s:
                raise RecordingError(
                    f"the clock stepped back by {self._stepped_back_s:g} s at {_when(self._last_ns)}: "
                    "no replay can repeat that"
                )
            self._backlog.move()
            left -= taken
        if self._last_ns >= 0:
            self._watermark.write(self._last_ns)
        self._backlog.move()

    def _take(self, count: int, pause: Callable[[], None]) -> dict[int, tuple[list[int], list[Any]]]:
        """The next rows off the queue: times and values by stream."""
        rows = self._backlog.rows
        taken: dict[int, tuple[list[int], list[Any]]] = {}
        for i in range(count):
            number, ns, value = rows.popleft()
            if ns < self._last_ns:
                self._stepped_back_s = (self._last_ns - ns) / 1e9
                break  # what came before it is kept
            self._last_ns = ns
            if number not in taken:
                taken[number] = ([], [])
            times, values = taken[number]
            times.append(ns)
            values.append(value)
            if i % _CHUNK == 0:
                pause()
        return taken


def _pause() -> None:
    time.sleep(_PAUSE_S)


def _no_pause() -> None:
    pass


class _Anchor(OutputAdapter):  # type: ignore[misc]
    """Never ticks. A manager lives in the engine when an adapter of its own does."""

    def __init__(self, manager: _Writer) -> None:
        super().__init__()

    def on_tick(self, time: datetime, value: bool) -> None:
        raise AssertionError("an edge that never ticks has ticked")


_anchor = py_output_adapter_def("recorder", _Anchor, Recorder, input=ts[bool])


class _Layout:
    """How one kind of value lies in columns.

    Raises:
        TypeError: it has a field that cannot be recorded.
    """

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._struct = issubclass(kind, csp.Struct)
        self._fields: dict[str, pa.DataType] = {}
        self._names: dict[str, dict[Any, str]] = {}  # of the members of each field that is an enum
        self._arrays: list[str] = []
        for name, typ in (kind.metadata(typed=True) if self._struct else {"value": kind}).items():
            if name == COLUMN:
                raise TypeError(f"{kind.__name__}.{name} has the name of the time in recordings")
            if typ == NumpyNDArray[float]:
                self._arrays.append(name)
            elif isinstance(typ, type) and issubclass(typ, csp.Enum):
                self._names[name] = {member: member.name for member in typ}
                self._fields[name] = pa.string()
            elif typ in _SCALARS:
                self._fields[name] = _SCALARS[typ]
            else:
                raise TypeError(f"{kind.__name__}.{name} is a {typ}, which cannot be recorded")
        columns = [(COLUMN, TIME), *self._fields.items()]
        for name in self._arrays:
            columns += [(name, pa.list_(pa.float64())), (f"{name}_shape", pa.list_(pa.int64()))]
        self.schema = pa.schema(columns)
        self._defaults = set(kind.__defaults__) if self._struct else set()

    def batch(self, times: list[int], values: list[Any], pause: Callable[[], None]) -> pa.RecordBatch:
        """Values as columns, on the writer's thread: Structs are shared with the graph, and only read."""
        columns = [pa.array(np.array(times, np.int64), TIME)]
        for name, typ in self._fields.items():
            pause()
            items = [getattr(value, name, None) for value in values] if self._struct else values
            if name in self._names:
                items = [None if item is None else self._names[name][item] for item in items]
            columns.append(_times(items) if typ == TIME else pa.array(items, typ))
            if columns[-1].null_count and name in self._defaults:
                raise RecordingError(f"{self._kind.__name__}.{name} has a default but was unset: that does not replay")
        for name in self._arrays:
            pause()
            arrays = [getattr(value, name, None) for value in values]
            for array in arrays:
                if array is not None and array.dtype != np.float64:
                    raise RecordingError(f"{self._kind.__name__}.{name} must be float64, was {array.dtype}")
            columns.append(pa.array([None if a is None else a.ravel() for a in arrays], pa.list_(pa.float64())))
            columns.append(pa.array([None if a is None else a.shape for a in arrays], pa.list_(pa.int64())))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def readable(self, table: pa.Table) -> pa.Table:
        """A recorded block as csp's reader takes it: arrays as bytes, for it would lose the rows without them."""
        for name in self._arrays:
            for column, typ in ((name, np.float64), (f"{name}_shape", np.int64)):
                lists = (value.values for value in table.column(column))
                raw = [None if each is None else each.to_numpy().astype(typ).tobytes() for each in lists]
                table = table.set_column(table.schema.get_field_index(column), column, pa.array(raw, pa.binary()))
        return table

    def subscribe(self, reader: ParquetReader) -> Any:
        """The edge of a recorded stream."""
        if not self._struct:
            return reader.subscribe_all(self._kind, "value")
        fields = self._kind.metadata(typed=True)
        if not self._arrays:
            return reader.subscribe_all(self._kind, {name: name for name in fields})
        flat = {name: typ for name, typ in fields.items() if name not in self._arrays}
        flat |= {column: bytes for name in self._arrays for column in (name, f"{name}_shape")}
        rows = reader.subscribe_all(define_struct(f"{self._kind.__name__}Row", flat))
        return _with_arrays(rows, self._kind, tuple(self._fields), tuple(self._arrays))


@csp.node
def _with_arrays(row: ts[csp.Struct], kind: "T", fields: tuple[str, ...], arrays: tuple[str, ...]) -> ts["T"]:
    if csp.ticked(row):
        value = {name: getattr(row, name) for name in fields if hasattr(row, name)}
        for name in arrays:
            if hasattr(row, name):
                shape = np.frombuffer(getattr(row, f"{name}_shape"), np.int64)
                value[name] = np.frombuffer(getattr(row, name), np.float64).reshape(shape).copy()
        return kind(**value)  # type: ignore[operator]


def _times(items: list[datetime | None]) -> pa.Array:
    """Naive UTC as nanoseconds; given the zone at once, Arrow would look at that of each datetime."""
    return pa.array(items, pa.timestamp("us")).cast(pa.timestamp("ns")).view(TIME)


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema if field.name != COLUMN)


def _when(ns: int) -> str:
    return str(np.datetime64(ns, "ns"))
