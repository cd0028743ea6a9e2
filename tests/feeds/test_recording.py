"""Recordings on disk: what a killed process leaves, what is refused, and a comparison that misses no bit."""

import json
import math
import struct
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds import recording
from feeds.errors import DataError
from feeds.recording import COLUMN, TIME, Comparison, StreamWriter, Watermark

T0_NS = 1_704_205_800_000_000_000  # 2024-01-02 14:30
SCHEMA = pa.schema(
    [
        (COLUMN, TIME),
        ("symbol", pa.string()),
        ("price", pa.float64()),
        ("count", pa.int64()),
        ("done", pa.bool_()),
        ("when", TIME),
        ("levels", pa.list_(pa.float64())),
    ]
)
ORDERS = "outputs/orders"

Row = dict[str, Any]


def row(i: int, **fields: Any) -> Row:
    """One row, a nanosecond after the one before it, with a null here and there."""
    of_all = {
        "symbol": None if i % 7 == 3 else f"S{i % 3}é",
        "price": None if i % 5 == 4 else 100.0 + i / 8,
        "count": i,
        "done": None if i % 3 == 2 else i % 2 == 0,
        "when": None if i % 4 == 1 else T0_NS - i,
        "levels": None if i % 6 == 5 else [float(j) for j in range(i % 3)],
    }
    return {COLUMN: T0_NS + i} | of_all | fields


def rows_of(count: int) -> list[Row]:
    return [row(i) for i in range(count)]


def batch(rows: list[Row]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def write(
    root: Path, rows: list[Row], sizes: list[int] | None = None, stream: str = ORDERS, rotate_s: float = 600.0
) -> Path:
    """Record rows in batches of the sizes given, the rest in one."""
    writer = StreamWriter(root, stream, SCHEMA, rotate_s)
    at = 0
    for size in [*(sizes or []), len(rows)]:
        if rows[at : at + size]:
            writer.write(batch(rows[at : at + size]))
        at += size
    writer.close()
    return root


def read(root: Path, stream: str = ORDERS, **limits: int) -> list[Row]:
    tables = [table.cast(SCHEMA) for table in recording.blocks(root, stream, **limits)]
    columns = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    nanoseconds = columns.set_column(0, COLUMN, columns.column(COLUMN).cast(pa.int64()))
    at = nanoseconds.schema.get_field_index("when")
    return nanoseconds.set_column(at, "when", columns.column("when").cast(pa.int64())).to_pylist()


def compare(tmp_path: Path, recorded: list[Row], replayed: list[Row], **limits: int) -> Comparison:
    """Two recordings of one stream, written in different batches."""
    if not (tmp_path / "recorded").exists():
        write(tmp_path / "recorded", recorded, [1, 2])
        write(tmp_path / "replayed", replayed, [5])
    return recording.compare(tmp_path / "recorded", tmp_path / "replayed", [ORDERS], **limits)


# --- files ---


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 60), sizes=st.lists(st.integers(1, 20), max_size=8), rotates=st.booleans())
def test_rows_come_back_in_order_whatever_batches_and_files_they_were_written_in(
    tmp_path_factory: pytest.TempPathFactory, count: int, sizes: list[int], rotates: bool
) -> None:
    root = write(tmp_path_factory.mktemp("run"), rows_of(count), sizes, rotate_s=0.0 if rotates else 600.0)

    assert read(root) == rows_of(count)
    assert rotates or len(list((root / "outputs").iterdir())) == 1


def test_a_stream_goes_on_in_a_new_file_once_its_time_is_up(tmp_path: Path) -> None:
    write(tmp_path, rows_of(4), [1, 1, 1, 1], rotate_s=0.0)

    names = sorted(path.name for path in (tmp_path / "outputs").iterdir())

    assert names == [f"orders-{number:06}.arrow" for number in range(1, 6)]  # the first was opened before any row
    assert read(tmp_path) == rows_of(4)


def test_a_changed_byte_of_a_finished_file_is_found_and_the_file_named(tmp_path: Path) -> None:
    write(tmp_path, rows_of(4), [1, 1, 1, 1], rotate_s=0.0)
    recording.check_unchanged(tmp_path, "outputs")
    path = tmp_path / "outputs" / "orders-000002.arrow"
    whole = path.read_bytes()

    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"orders-000002\.arrow is not as it was recorded"):
        recording.check_unchanged(tmp_path, "outputs")
    recording.check_unchanged(tmp_path, "inputs")  # none of them
    path.unlink()
    with pytest.raises(DataError, match=r"orders-000002\.arrow cannot be read: No such file"):
        recording.check_unchanged(tmp_path, "outputs")


def test_what_a_killed_process_had_not_finished_has_no_checksum(tmp_path: Path) -> None:
    writer = StreamWriter(tmp_path, ORDERS, SCHEMA, 0.0)
    writer.write(batch(rows_of(1)))  # in its second file
    sums = tmp_path / "checksums"
    assert [line.split()[1] for line in sums.read_text().splitlines()] == ["outputs/orders-000001.arrow"]
    done = subprocess.run(["sha256sum", "--check", "--quiet", "checksums"], cwd=tmp_path, check=False)
    assert done.returncode == 0

    with sums.open("a") as file:
        file.write("0123456789ab  outputs/orders-00")  # it died while it wrote the line

    recording.check_unchanged(tmp_path, "outputs")
    sums.unlink()  # as earlier versions wrote it
    recording.check_unchanged(tmp_path, "outputs")
    writer.close()


def test_what_is_written_can_be_read_before_the_file_is_closed(tmp_path: Path) -> None:
    writer = StreamWriter(tmp_path, ORDERS, SCHEMA, 600.0)
    for i in range(3):
        writer.write(batch([row(i)]))
        assert read(tmp_path) == rows_of(i + 1)
    writer.close()
    assert writer.rows == 3


def test_blocks_are_of_one_size_and_memory_is_bounded_by_it(tmp_path: Path) -> None:
    many = [row(0, **{COLUMN: T0_NS + i}) for i in range(150_000)]
    write(tmp_path, many, [70_000, 3, 70_000])

    assert [table.num_rows for table in recording.blocks(tmp_path, ORDERS)] == [65_536, 65_536, 150_000 - 2 * 65_536]


def test_only_rows_strictly_before_a_time_are_read(tmp_path: Path) -> None:
    write(tmp_path, rows_of(10), [4])
    assert read(tmp_path, before_ns=T0_NS + 6) == rows_of(6)
    assert read(tmp_path, before_ns=T0_NS) == []


def test_a_file_cut_anywhere_gives_its_whole_batches(tmp_path: Path) -> None:
    write(tmp_path, rows_of(6), [2, 2])
    path = tmp_path / ORDERS.replace("orders", "orders-000001.arrow")
    whole = path.read_bytes()

    counts = []
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        got = read(tmp_path)
        assert got == rows_of(len(got))
        counts.append(len(got))

    assert counts == sorted(counts)
    assert set(counts) == {0, 2, 4, 6}


def test_a_file_cut_before_its_columns_has_no_schema(tmp_path: Path) -> None:
    write(tmp_path, rows_of(2))
    (path,) = (tmp_path / "outputs").iterdir()
    path.write_bytes(path.read_bytes()[:20])
    assert recording.read_schema(tmp_path, ORDERS) is None


def test_a_file_cut_before_the_last_one_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, rows_of(4), [2, 2], rotate_s=0.0)
    path = tmp_path / "outputs/orders-000002.arrow"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(DataError, match=r"orders-000002\.arrow is damaged"):
        read(tmp_path)


def test_a_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, rows_of(4), [2, 2], rotate_s=0.0)
    (tmp_path / "outputs/orders-000002.arrow").unlink()
    with pytest.raises(DataError, match="orders lacks its file number 2"):
        read(tmp_path)


def test_streams_whose_names_begin_alike_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, rows_of(1), stream="inputs/a")
    write(tmp_path, rows_of(2), stream="inputs/a-000001")
    write(tmp_path, rows_of(3), stream="inputs/a.b")

    assert recording.stream_names(tmp_path) == ["inputs/a", "inputs/a-000001", "inputs/a.b"]
    assert [len(read(tmp_path, stream)) for stream in recording.stream_names(tmp_path)] == [1, 2, 3]


def test_a_stream_that_was_not_recorded_is_an_error_that_names_the_others(tmp_path: Path) -> None:
    write(tmp_path, rows_of(1), stream="inputs/trades")
    with pytest.raises(DataError, match="has no stream inputs/quotes; it has inputs/trades"):
        read(tmp_path, "inputs/quotes")


@pytest.mark.parametrize("name", ["", "Trades", "a/b", "../a", "a b", "-a", ".a", "é", "a\n"])
def test_a_name_that_makes_no_good_file_is_not_valid(name: str) -> None:
    assert not recording.valid_name(name)


# --- watermark and manifest ---


def test_the_watermark_is_the_last_one_written(tmp_path: Path) -> None:
    mark = Watermark(tmp_path)
    assert recording.read_watermark(tmp_path) == 0
    for ns in (T0_NS, 5, T0_NS + 1):
        mark.write(ns)
        assert recording.read_watermark(tmp_path) == ns
    mark.close()


def test_a_recording_is_complete_to_its_end_or_to_its_watermark(tmp_path: Path) -> None:
    mark = Watermark(tmp_path)
    mark.write(T0_NS)
    mark.close()

    recording.write_manifest(tmp_path, {"run": "r1"})
    assert recording.complete_before(tmp_path) == T0_NS
    recording.write_manifest(tmp_path, {"run": "r1", "ended": "stop"})
    assert recording.complete_before(tmp_path) is None


@pytest.mark.parametrize("text", ["x", "1.5", "é"])
def test_a_watermark_of_something_else_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "watermark").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="watermark cannot be read"):
        recording.read_watermark(tmp_path)


def test_a_folder_that_is_no_recording_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no recording: it has no watermark"):
        recording.read_watermark(tmp_path)
    with pytest.raises(DataError, match=r"no recording: it has no manifest\.json"):
        recording.read_manifest(tmp_path)


def test_a_manifest_comes_back_and_is_replaced_whole(tmp_path: Path) -> None:
    recording.write_manifest(tmp_path, {"run": "é", "start_ns": T0_NS})
    with pytest.raises(TypeError, match="not JSON serializable"):  # a write that fails half-way
        recording.write_manifest(tmp_path, {"run": "b", "start_ns": object()})

    assert recording.read_manifest(tmp_path) == {"format": 1, "run": "é", "start_ns": T0_NS}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[1]", "of format list"),
        ('{"format": 2}', "of format 2, want 1"),
        ("{}", "of format None"),
    ],
)
def test_a_manifest_of_something_else_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=message):
        recording.read_manifest(tmp_path)


def test_rows_that_the_manifest_counts_and_the_files_lack_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, rows_of(6), [2, 2])
    recording.write_manifest(tmp_path, {"ended": "stop", "counts": {ORDERS: 6}})
    assert len(read(tmp_path)) == 6

    (path,) = (tmp_path / "outputs").iterdir()
    path.write_bytes(path.read_bytes()[:-200])  # into the last batch: a killed process would be forgiven

    with pytest.raises(DataError, match="orders holds 4 rows, its manifest says 6: a file is damaged"):
        read(tmp_path)


# --- comparison ---


def test_the_same_rows_in_other_batches_are_identical(tmp_path: Path) -> None:
    compared = compare(tmp_path, rows_of(50), rows_of(50))

    assert compared.identical
    assert compared.first is None
    assert compared.count(ORDERS) == 50
    (stream,) = compared.streams
    assert stream.recorded_sha256 == stream.replayed_sha256


def test_streams_that_never_ticked_are_identical(tmp_path: Path) -> None:
    assert compare(tmp_path, [], []).identical


def _nan(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


@pytest.mark.parametrize(
    ("field", "one", "other"),
    [
        (COLUMN, T0_NS + 8, T0_NS + 9),
        ("symbol", "é", "e\u0301"),
        ("symbol", "", None),
        ("price", 1.0, math.nextafter(1.0, 2.0)),
        ("price", 0.0, -0.0),
        ("price", 0.0, None),
        ("price", math.nan, None),
        ("price", _nan(0x7FF8000000000000), _nan(0x7FF8000000000001)),
        ("count", 0, None),
        ("count", 2**62, 2**62 + 1),
        ("done", False, None),
        ("done", False, True),
        ("when", T0_NS, T0_NS + 1),
        ("levels", [], None),
        ("levels", [1.0, 2.0], [1.0]),
        ("levels", [0.0], [-0.0]),
    ],
)
def test_one_value_of_another_bit_is_found(tmp_path: Path, field: str, one: Any, other: Any) -> None:
    rows = [rows_of(8) + [row(8, **{field: each})] + [row(i) for i in range(9, 12)] for each in (one, other)]

    compared = compare(tmp_path, *rows)

    assert not compared.identical
    assert compared.first is not None
    assert (compared.first.stream, compared.first.row, compared.first.engine_ns) == (ORDERS, 8, T0_NS + 8)


def test_equal_nans_are_identical(tmp_path: Path) -> None:
    rows = [row(0, price=math.nan, levels=[math.nan])]
    assert compare(tmp_path, rows, rows).identical


@settings(max_examples=50, deadline=None)
@given(data=st.data(), count=st.integers(1, 40))
def test_the_first_of_several_differences_is_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int
) -> None:
    changed = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    replayed = [row(i, count=-1) if i in changed else row(i) for i in range(count)]

    compared = compare(tmp_path_factory.mktemp("runs"), rows_of(count), replayed)

    assert compared.first is not None
    assert compared.first.row == min(changed)
    assert compared.first.engine_ns == T0_NS + min(changed)


def test_a_difference_shows_both_rows(tmp_path: Path) -> None:
    recorded = [row(0), row(1, price=0.1)]
    replayed = [row(0), row(1, price=0.1 + 2**-56, when=T0_NS, **{COLUMN: T0_NS + 123})]

    first = compare(tmp_path, recorded, replayed).first

    assert str(first) == (
        "outputs/orders differs first at row 1\n"
        "  recorded: 2024-01-02T14:30:00.000000001 symbol='S1é' price=0.1 count=1 done=False levels=[0.0]\n"
        "  replayed: 2024-01-02T14:30:00.000000123 symbol='S1é' price=0.10000000000000002 count=1 done=False "
        "when='2024-01-02T14:30:00.000000000' levels=[0.0]"
    )


@pytest.mark.parametrize(("recorded", "replayed"), [(5, 3), (3, 5), (0, 1), (1, 0)])
def test_a_row_that_one_side_lacks_is_a_difference(tmp_path: Path, recorded: int, replayed: int) -> None:
    compared = compare(tmp_path, rows_of(recorded), rows_of(replayed))

    first = compared.first
    assert first is not None
    assert first.row == min(recorded, replayed)
    assert first.engine_ns == T0_NS + first.row
    assert (first.recorded == "") == (recorded < replayed)
    assert (first.replayed == "") == (replayed < recorded)
    assert "no such row" in str(first)
    assert [(each.recorded, each.replayed) for each in compared.streams] == [(recorded, replayed)]


def test_what_comes_after_the_watermark_does_not_count(tmp_path: Path) -> None:
    replayed = [*rows_of(6), row(6, price=7.0), row(7)]
    assert compare(tmp_path, rows_of(9), replayed, before_ns=T0_NS + 6).identical
    assert not compare(tmp_path, rows_of(9), replayed, before_ns=T0_NS + 7).identical


def test_a_difference_far_into_a_long_stream_has_its_row(tmp_path: Path) -> None:
    long = [row(0, **{COLUMN: T0_NS + i}) for i in range(140_000)]
    other = [*long[:133_333], long[133_333] | {"done": False}, *long[133_334:]]

    first = compare(tmp_path, long, other).first

    assert first is not None
    assert (first.row, first.engine_ns) == (133_333, T0_NS + 133_333)


def test_the_first_difference_of_several_streams_is_the_one_that_came_first_in_time(tmp_path: Path) -> None:
    for side, late, early in (("recorded", 1, 1), ("replayed", 2, 2)):
        write(tmp_path / side, [row(i, count=late if i == 9 else 0) for i in range(10)], stream="outputs/alerts")
        write(tmp_path / side, [row(i, count=early if i == 4 else 0) for i in range(10)], stream="outputs/orders")
        write(tmp_path / side, rows_of(3), stream="outputs/fills")

    streams = ["outputs/alerts", "outputs/orders", "outputs/fills"]
    compared = recording.compare(tmp_path / "recorded", tmp_path / "replayed", streams)

    assert [each.identical for each in compared.streams] == [False, False, True]
    assert compared.first is not None
    assert (compared.first.stream, compared.first.row) == ("outputs/orders", 4)


def test_columns_of_other_names_are_a_difference(tmp_path: Path) -> None:
    write(tmp_path / "recorded", rows_of(2))
    renamed = SCHEMA.set(2, pa.field("cost", pa.float64()))
    writer = StreamWriter(tmp_path / "replayed", ORDERS, renamed, 600.0)
    writer.write(pa.RecordBatch.from_arrays(batch(rows_of(2)).columns, schema=renamed))
    writer.close()

    assert not recording.compare(tmp_path / "recorded", tmp_path / "replayed", [ORDERS]).identical


def test_a_stream_that_was_not_recorded_cannot_be_compared(tmp_path: Path) -> None:
    write(tmp_path, rows_of(1))
    with pytest.raises(DataError, match="has no stream outputs/fills"):
        recording.compare(tmp_path, tmp_path, ["outputs/fills"])


def test_a_manifest_is_plain_json_for_other_tools(tmp_path: Path) -> None:
    recording.write_manifest(tmp_path, {"run": "r1"})
    assert json.loads((tmp_path / "manifest.json").read_bytes()) == {"format": 1, "run": "r1"}
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
