"""Files as record batches: every format, every ending, every kind of damage."""

import gzip
import io
import random
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from market_files import FORMATS, bars, times, trades, write, write_text

from feeds import raw
from feeds.errors import DataError


def read(path: Path, rows: int = 100, columns: list[str] | None = None) -> pa.Table:
    return pa.Table.from_batches(raw.batches(path, rows, columns))


# --- finding ---


def test_locate_looks_here_first_then_in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, project = tmp_path / "here", tmp_path / "project"
    for folder in (here, project):
        folder.mkdir()
        write_text("x", folder, "both.csv")
    write_text("x", project, "one.csv")
    monkeypatch.chdir(here)
    monkeypatch.setattr(raw, "_PROJECT", project)

    assert raw.locate("both.csv") == Path("both.csv")
    assert raw.locate("one.csv") == project / "one.csv"
    assert raw.locate(project / "both.csv") == project / "both.csv"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the path of a data file is empty"),
        ("none.csv", "data file .*none.csv does not exist"),
        ("none/none.csv", "does not exist"),
        ("x\0.csv", "does not exist"),
        ("folder.csv", "folder.csv is a folder, want a file"),
        ("nothing.csv", r"nothing.csv is empty \(0 bytes\)"),
    ],
)
def test_locate_says_what_is_wrong(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    write_text("", tmp_path, "nothing.csv")
    with pytest.raises(DataError, match=message):
        raw.locate(f"{tmp_path}/{name}" if name else "")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("AAPL_1h.csv.gz", "AAPL_1h"),
        ("BRK.B.parquet", "BRK.B"),
        ("x.CSV", "x"),
        ("a.b.feather", "a.b"),
        (".csv", ""),
    ],
)
def test_stem_is_the_name_without_the_format(name: str, stem: str) -> None:
    assert raw.stem(Path(name)) == stem


@pytest.mark.parametrize("name", ["prices.txt", "prices", "prices.gz", "prices.parquet.gz", "prices.csv.zip"])
def test_an_unknown_ending_is_refused(tmp_path: Path, name: str) -> None:
    path = write_text("a,b\n1,2\n", tmp_path, name)
    for use in (raw.column_names, read, raw.stem):
        with pytest.raises(DataError, match=r"want \.parquet, \.arrow, \.feather, \.csv or \.csv\.gz, was"):
            use(path)


# --- reading ---


@pytest.mark.parametrize("form", FORMATS)
def test_batches_hold_the_rows_in_order_and_no_more_than_asked(tmp_path: Path, form: str) -> None:
    path = write(bars(25, time=None), tmp_path, form)

    batches = list(raw.batches(path, 10))

    assert max(batch.num_rows for batch in batches) <= 10
    table = pa.Table.from_batches(batches)
    assert raw.column_names(path) == table.column_names == ["open", "high", "low", "close", "volume"]
    for name in table.column_names:
        assert table[name].cast(pa.float64()).to_pylist() == bars(25)[name].to_pylist()


@pytest.mark.parametrize("form", FORMATS)
def test_only_the_columns_that_are_asked_for_are_read(tmp_path: Path, form: str) -> None:
    path = write(bars(3), tmp_path, form)
    assert read(path, columns=["close", "open"]).column_names == ["close", "open"]


def test_the_ending_may_be_in_capitals(tmp_path: Path) -> None:
    text = write_text("a,b\n1,2\n", tmp_path, "X.CSV")
    zipped = tmp_path / "X.CSV.GZ"
    zipped.write_bytes(gzip.compress(text.read_bytes()))
    assert read(text) == read(zipped) == pa.table({"a": ["1"], "b": ["2"]})


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_cells_are_text_and_blank_cells_are_null(tmp_path: Path, end: str) -> None:
    lines = ["\ufeffa,b,c", "1,2024-01-02,NA", "", 'true,,"x,y"', '0x1,"",nan']
    path = tmp_path / "x.csv"
    path.write_bytes(end.join(lines).encode())

    table = read(path)

    assert table.to_pydict() == {
        "a": ["1", "true", "0x1"],
        "b": ["2024-01-02", None, None],
        "c": ["NA", "x,y", "nan"],
    }


def test_csv_blocks_may_differ_in_what_they_look_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "_BLOCK_BYTES", 64)
    cells = ["1"] * 50 + ["1.5"] * 50 + ["late"] * 50
    path = write_text("a,b\n" + "".join(f"{cell},x\n" for cell in cells), tmp_path)

    batches = list(raw.batches(path, 1000))

    assert len(batches) > 10
    assert pa.Table.from_batches(batches)["a"].to_pylist() == cells


def test_a_header_alone_holds_no_row(tmp_path: Path) -> None:
    path = write_text("a,b\n", tmp_path)
    assert raw.column_names(path) == ["a", "b"]
    assert list(raw.batches(path, 10)) == []


@pytest.mark.parametrize("form", [form for form in FORMATS if "csv" not in form])
def test_a_table_without_rows_holds_none(tmp_path: Path, form: str) -> None:
    path = write(bars(3).slice(0, 0), tmp_path, form)
    assert raw.column_names(path) == bars(3).column_names
    assert sum(batch.num_rows for batch in raw.batches(path, 10)) == 0


# --- damage ---


@pytest.mark.parametrize(("good", "cells"), [(0, 1), (0, 3), (7, 3), (500, 1)])
def test_a_ragged_row_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: int, cells: int) -> None:
    monkeypatch.setattr(raw, "_BLOCK_BYTES", 200)
    monkeypatch.setattr(raw, "_HEAD_BYTES", 200)
    rows = ["1,2"] * good + ["", ",".join("3" * cells)]
    path = write_text("a,b\n" + "\n".join(rows), tmp_path)
    with pytest.raises(DataError, match=rf"AAPL_1h.csv, row {good + 1}: want 2 cells, were {cells}: 3"):
        read(path)


def _cut(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def _garbage(content: bytes) -> bytes:
    return random.Random(1).randbytes(len(content))


@pytest.mark.parametrize("damage", [_cut, _garbage])
@pytest.mark.parametrize("form", [form for form in FORMATS if form != "csv"])
def test_a_damaged_file_is_refused(tmp_path: Path, form: str, damage: Any) -> None:
    path = write(bars(2_000), tmp_path, form)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"AAPL_1h\.[a-z.]+ cannot be read as (parquet|arrow|feather|csv.gz): ."):
        read(path)


@pytest.mark.parametrize("wrong", ["parquet", "arrow", "csv.gz"])
def test_a_file_with_the_ending_of_another_format_is_refused(tmp_path: Path, wrong: str) -> None:
    path = write(bars(3), tmp_path, "csv")
    other = path.rename(tmp_path / f"x.{wrong}")
    with pytest.raises(DataError, match=rf"x.{wrong} cannot be read as {wrong}: "):
        raw.column_names(other)


@pytest.mark.parametrize("text", ["\n", "\n\n\n", "a,b\n1,\xf6\n", "a,b\n" + "x" * 3_000_000 + ",1\n"])
def test_text_that_is_no_table_in_utf8_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"x.csv cannot be read as csv: "):
        read(path)


@pytest.mark.parametrize("form", FORMATS)
def test_any_flipped_byte_is_harmless_or_a_data_error(tmp_path: Path, form: str) -> None:
    path = write(trades(50, symbol=["A", "B"] * 25), tmp_path, form)
    good = path.read_bytes()
    chance = random.Random(form)
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        path.write_bytes(bad)
        with suppress(DataError):
            raw.column_names(path)
            for batch in raw.batches(path, 20, ["price", "symbol"] if "csv" in form else None):
                batch.validate(full=True)


# --- copying ---


@pytest.mark.parametrize("rows", [1, 9, 10, 25])
@pytest.mark.parametrize("form", FORMATS)
def test_copy_rows_keeps_the_first_rows_and_the_format(tmp_path: Path, form: str, rows: int) -> None:
    extra = pa.array(["a", 'b "c"', "d,e", None, "ö"] * 5).dictionary_encode()
    path = write(bars(25, note=extra), tmp_path, form)
    target = tmp_path / ("copy" + path.name.removeprefix("AAPL_1h"))

    raw.copy_rows(path, rows, target)

    assert raw.column_names(target) == raw.column_names(path)
    assert read(target) == read(path).slice(0, rows)
    assert target.read_bytes()[:2] == path.read_bytes()[:2] or form == "csv"


def test_copy_rows_copies_a_pandas_index_of_parquet(tmp_path: Path) -> None:
    frame = bars(5).to_pandas().set_index("time")
    path, target = tmp_path / "x.parquet", tmp_path / "y.parquet"
    frame.to_parquet(path)
    raw.copy_rows(path, 2, target)
    assert pq.read_table(target).to_pandas().equals(frame.iloc[:2])


def test_copy_rows_crosses_batches_and_their_dictionaries(tmp_path: Path) -> None:
    path, target = tmp_path / "x.arrow", tmp_path / "y.arrow"
    parts = [pa.record_batch({"s": pa.array(names).dictionary_encode()}) for names in (["a", "b"], ["c", "b"], ["a"])]
    with pa.ipc.new_stream(str(path), parts[0].schema) as writer:
        for part in parts:
            writer.write_batch(part)

    raw.copy_rows(path, 4, target)

    assert read(target)["s"].to_pylist() == ["a", "b", "c", "b"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_copy_rows_counts_rows_not_lines(tmp_path: Path, end: str) -> None:
    path, target = tmp_path / "x.csv", tmp_path / "y.csv"
    path.write_bytes(end.join(["a,b", "", '1,"two', 'lines"', "", "2,x", "3,y", ""]).encode())

    raw.copy_rows(path, 2, target)

    assert read(target)["a"].to_pylist() == ["1", "2"]
    assert read(target)["b"].to_pylist() == [f"two{end}lines", "x"]


def test_copy_rows_refuses_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("price,note\n1,\xf6\n".encode("latin-1"))
    assert read(path, columns=["price"])["price"].to_pylist() == ["1"]
    with pytest.raises(DataError, match=r"x.csv cannot be read as csv: .*UTF8"):
        raw.copy_rows(path, 1, tmp_path / "y.csv")


def test_copy_rows_refuses_a_damaged_column_that_nothing_else_reads(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"price": [1.0, 2.0], "note": ["a" * 500, "b" * 500]}), path, use_dictionary=False)
    page = pq.ParquetFile(path).metadata.row_group(0).column(1).data_page_offset
    held = bytearray(path.read_bytes())
    held[page : page + 40] = b"\xff" * 40
    path.write_bytes(held)
    assert read(path, columns=["price"])["price"].to_pylist() == [1.0, 2.0]
    with pytest.raises(DataError, match=r"x.parquet cannot be read as parquet: "):
        raw.copy_rows(path, 1, tmp_path / "y.parquet")


# --- row groups ---


@pytest.mark.parametrize(("days", "groups"), [(-1, 0), (2, 0), (2.5, 1), (5, 1), (5.5, 2), (9, 3)])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_groups_that_end_before_a_time_are_counted(tmp_path: Path, zone: str | None, days: float, groups: int) -> None:
    path = tmp_path / "x.parquet"
    stamps = times(10, 86_400.0).cast(pa.int64()).view(pa.timestamp("ns", zone))
    pq.write_table(trades(10, time=stamps), path, row_group_size=3)  # of days 0-2, 3-5, 6-8 and 9
    expected = groups, 3 * groups
    assert raw.groups_before(path, "time", datetime(2024, 1, 2, 14, 30) + timedelta(days=days)) == expected
    left = pa.Table.from_batches(raw.batches(path, 100, ["size"], groups))
    assert left["size"].to_pylist() == [float(i + 1) for i in range(3 * groups, 10)]


def test_no_group_is_passed_over_where_the_file_does_not_tell_its_times(tmp_path: Path) -> None:
    late = datetime(2100, 1, 1)
    assert raw.groups_before(write(trades(3), tmp_path, "csv"), "time", late) == (0, 0)
    assert raw.groups_before(write(trades(3, time=["2024-01-02 14:30Z"] * 3), tmp_path), "time", late) == (0, 0)
    silent = tmp_path / "silent.parquet"
    pq.write_table(trades(3), silent, write_statistics=False)
    assert raw.groups_before(silent, "time", late) == (0, 0)


# --- closing ---


def test_nothing_reads_on_once_the_column_names_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = {"begun": 0, "ended": 0}

    class SlowDisk(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            reads["begun"] += not self.closed
            time.sleep(0.02)
            count = super().readinto(buffer)  # raises where it is closed
            reads["ended"] += 1
            return count

    path = write_text("close\n" + "100.25\n" * 1_000_000, tmp_path, "slow.csv")
    monkeypatch.setattr(Path, "open", lambda self, mode: io.BufferedReader(SlowDisk(self, mode)))
    assert raw.column_names(path) == ["close"]
    assert 0 < reads["begun"] == reads["ended"]  # a read under way would be of whatever file is opened next
