"""What a graph records comes back in the same cycles, bit for bit. What cannot be kept is refused."""

import re
import struct
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import csp
import numpy as np
import pyarrow as pa
import pytest
from csp import ts
from csp.typing import NumpyNDArray
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0

from feeds import recording
from feeds.errors import DataError
from feeds.events import Bar, Depth, FeedState, FeedStatus, NewsItem, Quote, Side, Trade
from feeds.record import Inputs, Recorder, RecorderConfig, RecordingInputs, ReplayedInputs
from feeds.recording import COLUMN, RecordingError

T0_NS = 1_704_205_800_000_000_000
DAY = timedelta(days=1)

T = TypeVar("T")
Edges = dict[str, tuple[type, Callable[[], Any]]]  # name -> kind and what makes the live edge


class _Held:
    """Values that csp does not try to hash."""

    def __init__(self, values: Any) -> None:
        self.values = values


@csp.node
def _nth(n: ts[int], held: object, kind: "T") -> ts["T"]:
    if csp.ticked(n):
        return held.values[n]


def at(*points: tuple[int, Any], kind: Any) -> Any:
    """An edge of (microseconds after T0, value) points, in a cycle each."""
    numbers = [(timedelta(microseconds=when), n) for n, (when, _) in enumerate(points)]
    return _nth(csp.curve(int, numbers), _Held([value for _, value in points]), kind) if points else csp.null_ts(kind)


def once(*values: Any) -> Callable[[], Any]:
    """Makes an edge of all the values at T0, in a cycle each."""
    return lambda: at(*((0, value) for value in values), kind=type(values[0]))


def run(inputs: Inputs, edges: Edges) -> dict[str, list[tuple[int, Any]]]:
    """{name: [(engine ns, value), ...]} of the edges."""

    def graph() -> None:
        for name, (kind, make) in edges.items():
            edge = inputs.edge(name, kind, make)
            csp.add_graph_output(name, edge)
            csp.add_graph_output(f"{name} ns", csp.times_ns(edge))

    out = csp.run(graph, starttime=T0, endtime=DAY)
    return {
        name: [(ns, value) for (_, ns), (_, value) in zip(out[f"{name} ns"], out[name], strict=True)] for name in edges
    }


def never() -> Any:
    raise AssertionError("a replay makes no live edge")


def there_and_back(root: Path, edges: Edges) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ticked when it was recorded, and in the replay."""
    live = run(RecordingInputs(Recorder(root)), edges)
    return live, run(ReplayedInputs(root), {name: (kind, never) for name, (kind, _) in edges.items()})


def bits(value: Any) -> Any:
    """A value such that == means the same bits."""
    if isinstance(value, csp.Struct):
        return {name: bits(getattr(value, name)) for name in value.metadata() if hasattr(value, name)}
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    return struct.pack("<d", value) if isinstance(value, float) else value


def ticks_of(out: dict[str, list[tuple[int, Any]]]) -> dict[str, Any]:
    return {name: [(ns, bits(value)) for ns, value in points] for name, points in out.items()}


# --- there and back ---


FLOATS = st.floats(allow_nan=True, allow_infinity=True)
TEXTS = st.text(max_size=20)
TIMES = st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1))
WHOLE = st.integers(-(2**63), 2**63 - 1)


def some(kind: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Structs with some of their fields set."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: kind(**given))


def arrays() -> st.SearchStrategy[Any]:
    levels = st.lists(st.tuples(FLOATS, FLOATS), max_size=4)
    return levels.map(lambda rows: np.array(rows, np.float64).reshape(len(rows), 2))


KINDS: dict[Any, st.SearchStrategy[Any]] = {
    Trade: some(
        Trade, symbol=TEXTS, event_time=TIMES, received=TIMES, price=FLOATS, size=FLOATS,
        side=st.sampled_from(list(Side)), trade_id=WHOLE,
    ),
    Quote: some(Quote, symbol=TEXTS, event_time=TIMES, bid=FLOATS, ask=FLOATS, bid_size=FLOATS, ask_size=FLOATS),
    Bar: some(Bar, symbol=TEXTS, event_time=TIMES, open_time=TIMES, open=FLOATS, close=FLOATS, volume=FLOATS),
    Depth: some(Depth, symbol=TEXTS, event_time=TIMES, bids=arrays(), asks=arrays(), snapshot=st.booleans()),
    NewsItem: some(NewsItem, symbol=TEXTS, event_time=TIMES, item_id=TEXTS, headline=TEXTS, body=TEXTS, source=TEXTS),
    FeedStatus: st.builds(
        FeedStatus, feed=TEXTS, symbol=TEXTS, state=st.sampled_from(list(FeedState)), detail=TEXTS, value=FLOATS
    ),
    float: FLOATS,
    int: WHOLE,
    bool: st.booleans(),
    str: TEXTS,
    datetime: TIMES,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_kind_comes_back_bit_for_bit(
    kind: Any, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = data.draw(st.lists(KINDS[kind], max_size=5))
    waits = data.draw(st.lists(st.integers(0, 3), min_size=len(values), max_size=len(values)))
    points = list(zip(np.cumsum(waits).tolist(), values, strict=True))

    live, replayed = there_and_back(
        tmp_path_factory.mktemp("run") / "rec", {"x": (kind, lambda: at(*points, kind=kind))}
    )

    assert [bits(value) for _, value in live["x"]] == [bits(value) for value in values]
    assert ticks_of(replayed) == ticks_of(live)


def test_engine_times_keep_their_nanoseconds(tmp_path: Path) -> None:
    stamps = T0_NS + np.array([0, 1, 2, 999, 1_000, 1_001])

    def make() -> Any:
        return csp.curve(float, (stamps.astype("datetime64[ns]"), np.arange(6.0)))

    live, replayed = there_and_back(tmp_path, {"x": (float, make)})

    assert replayed == live
    assert [ns for ns, _ in replayed["x"]] == stamps.tolist()


@csp.node
def _cycles(a: ts[int], b: ts[int]) -> ts[str]:
    if csp.ticked(a, b):
        return f"{a if csp.ticked(a) else '-'}{b if csp.ticked(b) else '-'}"


def test_ticks_of_one_instant_share_the_cycles_they_shared(tmp_path: Path) -> None:
    edges = {"a": (int, once(1, 2, 3)), "b": (int, once(4, 5))}

    def graph(inputs: Inputs) -> Any:
        return _cycles(*(inputs.edge(name, kind, make) for name, (kind, make) in edges.items()))

    live, replayed = (
        [value for _, value in csp.run(graph, inputs, starttime=T0, endtime=DAY)[0]]
        for inputs in (RecordingInputs(Recorder(tmp_path)), ReplayedInputs(tmp_path))
    )

    assert live == ["14", "25", "3-"]
    assert replayed == live


def test_a_stream_that_never_ticked_is_an_edge_that_never_ticks(tmp_path: Path) -> None:
    live, replayed = there_and_back(tmp_path, {"x": (Trade, lambda: csp.null_ts(Trade)), "y": (int, once(1))})
    assert live == replayed == {"x": [], "y": [(T0_NS, 1)]}


def test_only_what_came_strictly_before_is_replayed(tmp_path: Path) -> None:
    stamps = T0_NS + np.array([0, 5, 6])
    run(RecordingInputs(Recorder(tmp_path)), {
        "x": (float, lambda: csp.curve(float, (stamps.astype("datetime64[ns]"), np.arange(3.0))))
    })  # fmt: skip

    assert run(ReplayedInputs(tmp_path, T0_NS + 6), {"x": (float, never)}) == {"x": [(T0_NS, 0.0), (T0_NS + 5, 1.0)]}


def test_plain_inputs_and_recorded_ones_tick_alike(tmp_path: Path) -> None:
    edges: Edges = {"x": (Trade, once(Trade(symbol="A", price=1.0), Trade()))}
    assert ticks_of(run(Inputs(), edges)) == ticks_of(run(RecordingInputs(Recorder(tmp_path)), edges))


def test_the_engine_waits_for_a_writer_that_is_behind(tmp_path: Path) -> None:
    stamps = (T0_NS + np.arange(500)).astype("datetime64[ns]")
    recorder = Recorder(tmp_path, RecorderConfig(backlog_max=1, flush_s=0.001))

    def graph() -> None:
        recorder.record("x", float, csp.curve(float, (stamps, np.arange(500.0))))

    csp.run(graph, starttime=T0, endtime=DAY)

    (table,) = recording.blocks(tmp_path, "inputs/x")
    assert table.column("value").to_pylist() == list(range(500))


def test_counts_and_the_last_time_are_known_at_the_end(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)

    def graph() -> None:
        recorder.record("x", int, once(1, 2, 3)())
        recorder.record("y", int, csp.null_ts(int), folder="outputs")

    csp.run(graph, starttime=T0, endtime=DAY)

    assert recorder.counts == {"inputs/x": 3, "outputs/y": 0}
    assert recorder.last_ns == recording.read_watermark(tmp_path) == T0_NS


@csp.node
def _fails(x: ts[int]):
    if csp.ticked(x):
        if x == 3:
            raise ArithmeticError("a bug")


def test_a_bug_in_the_graph_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    def graph() -> None:
        values = csp.curve(int, [(timedelta(seconds=n), n) for n in range(10)])
        Recorder(tmp_path).record("x", int, values)
        _fails(values)

    with pytest.raises(ArithmeticError, match="a bug"):
        csp.run(graph, starttime=T0, endtime=DAY)

    (table,) = recording.blocks(tmp_path, "inputs/x")
    assert table.column("value").to_pylist()[:3] == [0, 1, 2]


# --- refused ---


def test_a_name_is_recorded_once_and_makes_a_good_file(tmp_path: Path) -> None:
    def graph() -> None:
        recorder = Recorder(tmp_path)
        recorder.record("x", int, csp.const(1))
        with pytest.raises(ValueError, match="inputs/x is recorded already"):
            recorder.record("x", int, csp.const(1))
        with pytest.raises(ValueError, match="was 'a/b'"):
            recorder.record("a/b", int, csp.const(1))
        with pytest.raises(ValueError, match="was 'elsewhere'"):
            recorder.record("y", int, csp.const(1), folder="elsewhere")
        recorder.record("x", int, csp.const(1), folder="outputs")

    csp.run(graph, starttime=T0, endtime=DAY)


class _Listed(csp.Struct):
    items: list[int]


class _Timed(csp.Struct):
    engine_time: datetime


def test_a_kind_that_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    def graph() -> None:
        recorder = Recorder(tmp_path)
        with pytest.raises(TypeError, match=r"_Listed\.items is a .*, which cannot be recorded"):
            recorder.record("x", _Listed, csp.null_ts(_Listed))
        with pytest.raises(TypeError, match=r"_Timed\.engine_time has the name of the time"):
            recorder.record("x", _Timed, csp.null_ts(_Timed))
        with pytest.raises(TypeError, match=r"inputs/x should tick .*Quote.* its edge ticks .*Trade"):
            recorder.record("x", Quote, csp.null_ts(Trade))

    csp.run(graph, starttime=T0, endtime=DAY)


class _Floats(csp.Struct):
    values: NumpyNDArray[float]


def test_an_array_of_other_numbers_stops_the_engine(tmp_path: Path) -> None:
    value = _Floats(values=np.zeros(2, np.float32))
    with pytest.raises(RecordingError, match=r"_Floats\.values must be float64, was float32"):
        run(RecordingInputs(Recorder(tmp_path)), {"x": (_Floats, once(value))})


class _Sized(csp.Struct):
    size: float = 1.0


def test_a_default_that_was_unset_stops_the_engine_for_it_would_come_back_set(tmp_path: Path) -> None:
    value = _Sized()
    del value.size
    with pytest.raises(RecordingError, match=r"_Sized\.size has a default but was unset"):
        run(RecordingInputs(Recorder(tmp_path)), {"x": (_Sized, once(value))})


def test_a_folder_that_holds_a_recording_is_not_written_to(tmp_path: Path) -> None:
    run(RecordingInputs(Recorder(tmp_path)), {"x": (int, once(1, 2))})
    with pytest.raises(RecordingError, match="holds a recording already"):
        run(RecordingInputs(Recorder(tmp_path)), {"x": (int, once(3))})
    assert [value for _, value in run(ReplayedInputs(tmp_path), {"x": (int, never)})["x"]] == [1, 2]


def test_a_folder_that_cannot_be_made_stops_the_engine(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match=r"cannot be written: .*file"):
        run(RecordingInputs(Recorder(tmp_path / "file" / "run")), {"x": (int, once(1))})


def test_a_stream_that_was_not_recorded_is_refused_when_the_graph_is_built(tmp_path: Path) -> None:
    run(RecordingInputs(Recorder(tmp_path)), {"x": (int, once(1))})
    with pytest.raises(DataError, match="has no stream inputs/y; it has inputs/x"):
        run(ReplayedInputs(tmp_path), {"y": (int, never)})


def test_a_stream_of_another_version_is_refused_when_the_graph_is_built(tmp_path: Path) -> None:
    run(RecordingInputs(Recorder(tmp_path)), {"x": (int, once(1))})
    with pytest.raises(DataError, match=r"by another version\. Want value double; it has value int64"):
        run(ReplayedInputs(tmp_path), {"x": (float, never)})


def test_a_damaged_file_stops_the_replay(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    run(RecordingInputs(recorder), {"x": (int, once(1, 2))})
    recording.write_manifest(tmp_path, {"ended": "stop", "counts": recorder.counts})
    path = tmp_path / "inputs/x-000001.arrow"
    path.write_bytes(path.read_bytes()[:-60])

    with pytest.raises(DataError, match="inputs/x holds 0 rows, its manifest says 2"):
        run(ReplayedInputs(tmp_path), {"x": (int, never)})


def test_inputs_that_the_graph_does_not_ask_for_are_told(tmp_path: Path) -> None:
    run(RecordingInputs(Recorder(tmp_path)), {"x": (int, once(1)), "y": (int, once(1))})
    inputs = ReplayedInputs(tmp_path)
    run(inputs, {"x": (int, never)})
    assert inputs.unused() == ["inputs/y"]


@pytest.mark.parametrize(
    "given",
    [{"flush_s": 0.0}, {"flush_s": 1.0}, {"rotate_s": 0.0}, {"rotate_s": float("nan")}, {"backlog_max": 0},
     {"stall_max_s": 0.5}, {"stall_max_s": float("inf")}, {"flush_s": float("nan")}],
)  # fmt: skip
def test_a_recorder_that_could_not_keep_its_word_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(given))} must .*, was {next(iter(given.values()))}$"):
        RecorderConfig(**given)


# --- a disk that fails, a clock that steps back ---


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("full", r"run cannot be written: .*File too large"),
        ("hang", r"has not been written for 1 s, [\d,]+ ticks are waiting: does the disk hang\?"),
    ],
)
def test_a_disk_that_fails_stops_the_engine_and_keeps_what_it_took(tmp_path: Path, fault: str, message: str) -> None:
    command = [sys.executable, str(Path(__file__).parent / "recorder_faults.py"), fault, str(tmp_path / "run")]

    stopped = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert stopped.returncode == 2
    assert re.search(message, stopped.stdout)
    (tmp_path / "run/inputs/ticks-000002.arrow").unlink(missing_ok=True)  # the pipe that hung
    kept = pa.concat_tables(recording.blocks(tmp_path / "run", "inputs/ticks"))
    times = kept.column(COLUMN).cast(pa.int64()).to_numpy()
    assert len(times) >= 2  # how many is the disk's and the machine's affair
    assert (np.diff(times) == 1_000_000).all()  # none between two is missing


@csp.node
def _step_back(x: ts[int], recorder: object):
    """What the recorder sees of a clock that was set back: an engine time before one that it has."""
    if csp.ticked(x):
        if x == 3:
            recorder._backlog.rows.append((0, T0_NS + 500_000_000, 99))


def test_a_clock_that_steps_back_stops_the_engine_and_keeps_what_came_before(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)

    def graph() -> None:
        values = csp.curve(int, [(timedelta(seconds=n), n) for n in range(3)])
        recorder.record("x", int, values)
        _step_back(csp.curve(int, [(timedelta(seconds=2.5), 3)]), recorder)

    message = r"clock stepped back by 1\.5 s at 2024-01-02T14:30:02\.000000000: no replay can repeat that"
    with pytest.raises(RecordingError, match=message):
        csp.run(graph, starttime=T0, endtime=DAY)

    (table,) = recording.blocks(tmp_path, "inputs/x")
    assert table.column("value").to_pylist() == [0, 1, 2]
