"""A file that cannot be used is refused by a DataError that names the file, the row, what was wanted and what came."""

import math
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from market_files import FORMATS, bars, times, trades, write, write_text

from feeds import files
from feeds.errors import DataError
from feeds.files import Source, describe


def refused(path: Path, message: str, **settings: Any) -> None:
    """Assert that a file is refused by one line that begins with its path."""
    with pytest.raises(DataError, match=message) as caught:
        describe(Source(path=str(path), **settings))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def changed(table: pa.Table, column: str, row: int, cell: Any) -> pa.Table:
    """`table` with another value in one cell."""
    cells = table[column].to_pylist()
    cells[row] = cell
    return table.set_column(table.column_names.index(column), column, pa.array(cells))


# --- files and columns ---


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_without_rows_is_refused(tmp_path: Path, form: str) -> None:
    refused(write(trades(1).slice(0, 0), tmp_path, form), "AAPL_1h.* has no rows")


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.csv", "does not exist")
    refused(tmp_path, "is a folder, want a file")
    refused(write_text("", tmp_path), r"is empty \(0 bytes\)")
    refused(write_text("x", tmp_path, "x.txt"), r"want \.parquet, .*, was \.txt")


@pytest.mark.parametrize("form", FORMATS)
def test_columns_of_no_kind_are_refused(tmp_path: Path, form: str) -> None:
    path = write(pa.table({"time": times(1), "bid": [1.0], "ask": [1.0]}), tmp_path, form)
    refused(path, r"has the columns time, bid, ask; wanted a time and open, high, low, close \(bars\), or price, size")


def test_a_file_without_a_column_is_refused(tmp_path: Path) -> None:
    refused(write(pa.table({}), tmp_path), r"has the columns \(none\); wanted")


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        (bars(1, time=None), {}, "no column for the time: want time or timestamp .*; it has open, high, low, close"),
        (bars(1, high=None), {"kind": "bars"}, r"no column for the high: want high, or a \[columns\] map; it has time"),
        (trades(1, size=None), {"kind": "trades"}, "no column for the size: want size or quantity or qty or amount"),
        (trades(1), {"kind": "macro"}, "no column for the value: want value"),
        (trades(1), {"columns": {"size": "lots"}}, "no column 'lots' for the size; it has time, price, size"),
        (trades(1), {"columns": {"symbol": "who"}}, "no column 'who' for the symbol; it has time"),
        (bars(1), {"columns": {"volume": "vol"}}, "no column 'vol' for the volume; it has time"),
        (bars(1), {"columns": {"open_time": "opened"}}, "no column 'opened' for the open_time"),
        (trades(1), {"columns": {"price": "Price"}}, "no column 'Price' for the price; it has time, price, size"),
        (bars(1), {"bar": ""}, "holds bars: say how long one is, such as bar = '1h'"),
    ],
)
def test_a_column_that_is_not_there_is_named(
    tmp_path: Path, table: pa.Table, settings: dict[str, Any], message: str
) -> None:
    refused(write(table, tmp_path), message, **({"bar": "1h"} | settings))


@pytest.mark.parametrize("form", FORMATS)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, form: str) -> None:
    twice = pa.Table.from_arrays([*trades(1), pa.array([2.0])], names=["time", "price", "size", "price"])
    refused(write(twice, tmp_path, form), "has 2 columns 'price', want one")
    other = pa.Table.from_arrays(
        [*trades(1), pa.array([2.0]), pa.array([3.0])], names=["time", "price", "size", "x", "x"]
    )
    assert describe(Source(path=str(write(other, tmp_path, form)))).rows == 1


def test_a_file_without_a_name_gives_no_symbol(tmp_path: Path) -> None:
    refused(write(trades(1), tmp_path, "csv", name="_1h"), "row 1: want a symbol, was empty")


# --- cells ---

BARS_REFUSED = [
    ("time", None, "want a time, was empty"),
    ("open", None, "want a number in 'open', was empty"),
    ("close", math.nan, "want a number in 'close', was (nan|empty)"),
    ("high", math.inf, "want a number in 'high', was inf"),
    ("low", -math.inf, "want a number in 'low', was -inf"),
    ("open", 0.0, r"want a positive open, was 0\.0"),
    ("low", -1.0, r"want a positive low, was -1\.0"),
    ("high", 98.0, r"want a high not below the low, was 98\.0"),
    ("open", 200.0, r"want the open between low and high, was 200\.0"),
    ("open", 50.0, r"want the open between low and high, was 50\.0"),
    ("close", 200.0, r"want the close between low and high, was 200\.0"),
    ("close", 101.26, r"want the close between low and high, was 101\.26"),
    ("volume", -1.0, r"want a volume of zero or more, was -1\.0"),
    ("volume", None, "want a number in 'volume', was empty"),
    ("volume", math.nan, "want a number in 'volume', was (nan|empty)"),
]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("column", "cell", "message"), BARS_REFUSED)
def test_a_bad_cell_of_a_bar_is_refused(tmp_path: Path, form: str, column: str, cell: Any, message: str) -> None:
    refused(write(changed(bars(5), column, 2, cell), tmp_path, form), f"row 3: {message}", bar="1h")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("price", 0.0, r"want a positive price, was 0\.0"),
        ("price", -0.01, r"want a positive price, was -0\.01"),
        ("price", None, "want a number in 'price', was empty"),
        ("size", 0.0, r"want a positive size, was 0\.0"),
        ("size", -5.0, r"want a positive size, was -5\.0"),
        ("size", math.nan, "want a number in 'size', was (nan|empty)"),
        ("symbol", None, "want a symbol, was empty"),
        ("symbol", "", "want a symbol, was empty"),
        ("symbol", "  ", "want a symbol, was empty"),
    ],
)
def test_a_bad_cell_of_a_trade_is_refused(tmp_path: Path, form: str, column: str, cell: Any, message: str) -> None:
    table = changed(trades(5, symbol=["A"] * 5), column, 4, cell)
    refused(write(table, tmp_path, form), f"row 5: {message}")


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_macro_point_without_a_number_is_refused(tmp_path: Path, value: float | None) -> None:
    path = write(pa.table({"time": times(2), "series": ["X", "X"], "value": [1.0, value]}), tmp_path)
    refused(path, "row 2: want a number in 'value', was (empty|nan|inf)")


@pytest.mark.parametrize("text", ["abc", "1,5", "0x10", "1_000", "--1", "1.5.2", "$5", "५x"])
def test_text_among_numbers_is_refused(tmp_path: Path, text: str) -> None:
    cells = ["1.5", "2", text, "3"]
    for form in FORMATS:
        refused(write(trades(4, price=cells), tmp_path, form), "row 3: want a number in 'price', was .*")


@pytest.mark.parametrize(
    "column",
    [pa.array([True]), pa.array([[1.0]]), pa.array([{"a": 1.0}]), times(1), pa.array([b"\xff"])],
    ids=lambda column: str(column.type),
)
def test_a_column_of_something_else_is_refused(tmp_path: Path, column: pa.Array) -> None:
    for form in ("arrow", "parquet"):
        refused(write(trades(1, price=column), tmp_path, form), "want (a number in 'price'|text in UTF-8), was")


def test_symbols_of_a_type_without_text_are_refused(tmp_path: Path) -> None:
    refused(write(trades(1, symbol=[[1]]), tmp_path), r"row 1: want a symbol, was \[1\]")
    refused(write(trades(1, symbol=[b"\xff"]), tmp_path), r"row 1: want a symbol, was")


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    for name in ("symbol", "time"):
        offsets, text = pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"A\xff")
        table = trades(2, **{name: pa.StringArray.from_buffers(2, offsets, text)})
        refused(write(table, tmp_path), "AAPL_1h.parquet")
        refused(write(table, tmp_path, "arrow"), "cannot be read as arrow: .*UTF8")


# --- times ---


@pytest.mark.parametrize("form", FORMATS)
def test_times_that_go_back_are_refused(tmp_path: Path, form: str) -> None:
    late = ["2024-01-02 14:00Z", "2024-01-02 15:00Z", "2024-01-02 14:59Z"]
    wanted = "row 3: want times in order, after"
    refused(write(trades(3, time=late), tmp_path, form), f"{wanted} 2024-01-02 15:00:00, was 2024-01-02 14:59:00")
    refused(
        write(bars(3, time=late), tmp_path, form), f"{wanted} 2024-01-02 15:01:00, was 2024-01-02 15:00:00", bar="1m"
    )


def test_a_second_bar_at_a_time_is_refused(tmp_path: Path) -> None:
    stamps = ["2024-01-02 14:00Z"] * 3
    path = write(bars(3, time=stamps, symbol=["A", "B", "A"]), tmp_path)
    refused(path, "row 3: want one bar of A a time, was a second one known at 2024-01-02 15:00:00", bar="1h")


def test_bars_that_overlap_are_refused(tmp_path: Path) -> None:
    path = write(bars(3, time=times(3, 300.0), symbol=["A", "B", "A"]), tmp_path)
    assert describe(Source(path=str(path), bar="10m")).rows == 3
    refused(
        path,
        "row 3: want a bar of A that opens after the last one closed at 2024-01-02 15:30:00,"
        r" was one that opens at 2024-01-02 14:40:00; is a bar really 1:00:00 long\?",
        bar="1h",
    )


def test_a_day_that_overlaps_by_more_than_a_clock_change_is_refused(tmp_path: Path) -> None:
    path = write(bars(2, time=["2024-03-30 23:00Z", "2024-03-31 21:59Z"]), tmp_path)
    refused(path, "row 2: want a bar of AAPL that opens after", bar="1d")


def test_a_time_that_is_not_after_the_open_is_refused(tmp_path: Path) -> None:
    path = write(bars(2, time=times(2), open_time=times(2, 3_601.0)), tmp_path)
    refused(path, "row 1: want an open_time before the time, was 2024-01-02 14:30:00")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("stamp", "zone", "message"),
    [
        ("2024-03-09 12:00", "", "row 1: the time 2024-03-09 12:00:00.* has no time zone; say which one it is in"),
        ("2024-03-09 12:00", "Mars", "want a time zone such as 'UTC' or 'America/New_York', was 'Mars'"),
        ("2024-03-10 02:30", "America/New_York", r"row 2: want times that name one instant, was 2024-03-10 02:30:00"),
        ("2024-11-03 01:30", "America/New_York", r"row 2: want times that name one instant, was 2024-11-03 01:30:00"),
        ("2024-03-09 12:00Z", "UTC", "row 2: want a time without an offset, as others are, was 2024-03-09 12:00Z"),
        ("9 March 2024", "UTC", "row 2: want a time of day, as others have, was 9 March 2024"),
    ],
)
def test_times_that_name_no_instant_are_refused(tmp_path: Path, form: str, stamp: str, zone: str, message: str) -> None:
    stamps = ["2024-03-09 11:00" if zone else stamp, stamp, "2024-12-01 12:00"]
    refused(write(trades(3, time=stamps), tmp_path, form), message, time_zone=zone)


# --- symbols ---


def test_one_symbol_for_the_rows_of_two_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(trades(4, symbol=["A", "A", "A", "B"]), tmp_path)
    for rows in (4, 3):  # in one table, and in the next one
        monkeypatch.setattr(files, "TABLE_ROWS", rows)
        refused(path, "row 4: want only rows of A, because the symbol was set to X, was B", symbol="X")


# --- rows beyond the first table ---


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("price", -1.0, "want a positive price"),
        ("size", None, "want a number in 'size', was empty"),
        ("price", "late", "want a number in 'price', was late"),
        ("symbol", None, "want a symbol, was empty"),
        ("time", "x", "want a time with an offset, as others are, was x"),
        ("time", "2024-01-02 14:00:00Z", "want times in order"),
        ("time", "2024-01-02 25:00:00Z", "want a time such as .*, was '2024-01-02 25:00:00Z'"),
    ],
)
@pytest.mark.parametrize("form", ["parquet", "arrow", "csv"])
def test_the_row_is_right_in_later_tables(tmp_path: Path, form: str, column: str, cell: Any, message: str) -> None:
    rows = 2 * files.TABLE_ROWS + 1_000
    table = trades(rows, symbol=["A"] * rows)
    if isinstance(cell, str) and column == "price":
        table = table.set_column(1, "price", table["price"].cast(pa.string()))
    if column == "time":
        stamps = pa.array([f"{t[:19]}Z" for t in table["time"].cast(pa.string()).to_pylist()])
        table = table.set_column(0, "time", stamps)
    bad = files.TABLE_ROWS + 500
    refused(write(changed(table, column, bad, cell), tmp_path, form), f"row {bad + 1}: {message}")


def test_a_ragged_row_far_into_a_csv_file_is_named(tmp_path: Path) -> None:
    lines = [f"2024-01-02 14:30:00.{i:06d}Z,100.25,1" for i in range(200_000)]  # more than one block
    lines[150_000] = "2024-01-02,1"
    path = write_text("time,price,size\n" + "\n".join(lines), tmp_path)
    refused(path, "row 150001: want 3 cells, were 2: 2024-01-02,1")


def test_whole_numbers_may_turn_into_fractions_in_a_later_block(tmp_path: Path) -> None:
    lines = [f"2024-01-02 14:30:00.{i:06d}Z,{100 if i < 150_000 else 100.5},1," for i in range(200_000)]
    lines[-1] += "an extra column whose cells were blank until here"
    path = write_text("time,price,size,note\n" + "\n".join(lines), tmp_path)
    assert describe(Source(path=str(path))).rows == 200_000


# --- any single cell ---

CELLS = (
    st.none()
    | st.floats()
    | st.integers(-(2**63), 2**64 - 1)
    | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**15), max_value=10**15)
    | st.booleans()
    | st.binary(max_size=8)
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.text(max_size=12)
    | st.sampled_from(
        ["2024-01-02 16:30", "2024-01-02 16:30Z", "1704213000", "NaN", "", " ", "1e400", "\x00", '"', ","]
    )
)


def one_column_as(cell: Any) -> Callable[[pa.Table, str, int], pa.Table]:
    """Put `cell` into a table: among values of its own type, else among text, else alone."""

    def put(table: pa.Table, column: str, row: int) -> pa.Table:
        place = table.column_names.index(column)
        for cells in (table[column].to_pylist(), table[column].cast(pa.string()).to_pylist()):
            cells[row] = cell
            with suppress(pa.ArrowException, OverflowError, ValueError):  # pyarrow cannot hold them together
                return table.set_column(place, column, pa.array(cells))
        return table.set_column(place, column, pa.array([cell] * len(table)))

    return put


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(FORMATS),
    column=st.sampled_from(["time", "symbol", "open", "high", "low", "close", "volume"]),
    row=st.integers(0, 3),
    cell=CELLS,
)
@example(form="parquet", column="high", row=1, cell=1.7976931348623157e308)
@example(form="csv", column="symbol", row=1, cell="a\nb")
@example(form="arrow", column="volume", row=1, cell=Decimal("1e15"))
@example(form="csv", column="volume", row=3, cell='"')
def test_any_cell_is_harmless_or_a_data_error(tmp_path: Path, form: str, column: str, row: int, cell: Any) -> None:
    try:
        table = one_column_as(cell)(bars(4, symbol=["A", "B", "A", "B"]), column, row)
        path = write(table, tmp_path, form)
    except (pa.ArrowException, UnicodeError, OverflowError):
        return  # there is no such file
    try:
        described = describe(Source(path=str(path), bar="1h", time_zone="UTC"))
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 - a harmless cell raises nothing
    else:
        assert described.rows == 4
