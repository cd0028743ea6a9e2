"""Whatever a file calls its columns and however it stamps its bars, what comes out is canonical."""

import hashlib
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from market_files import FORMATS, NS_UTC, START, bars, read, times, trades, utc, write, write_text

from feeds import files, raw
from feeds.files import Source, describe, name_of, truncate

PRICES = ("open", "high", "low", "close", "volume")
DATA = Path(__file__).parents[2].parent / "shared" / "data"


def source(path: Path, **settings: Any) -> Source:
    return Source(path=str(path), **settings)


# --- one result from every format ---


@pytest.mark.parametrize("form", FORMATS)
def test_bars_are_the_same_from_every_format(tmp_path: Path, form: str) -> None:
    path = write(bars(4), tmp_path, form)

    table = read(path, bar="1h")

    assert table.schema.field("time").type == table.schema.field("open_time").type == NS_UTC
    assert table["open_time"].combine_chunks() == bars(4)["time"].combine_chunks()
    assert table["time"].combine_chunks() == times(5)[1:]
    assert table["symbol"].to_pylist() == ["AAPL"] * 4
    for name in PRICES:
        assert table[name].type == pa.float64()
        assert table[name].to_pylist() == bars(4)[name].to_pylist()


@pytest.mark.parametrize("form", FORMATS)
def test_trades_are_the_same_from_every_format(tmp_path: Path, form: str) -> None:
    table = read(write(trades(4, symbol=["B", "A", "A", "B"]), tmp_path, form))
    assert table.column_names == ["time", "symbol", "price", "size"]
    assert table["time"].combine_chunks() == times(4, 1.0)
    assert table["symbol"].to_pylist() == ["B", "A", "A", "B"]
    assert table["price"].to_pylist() == [100.0, 100.125, 100.25, 100.375]
    assert table["size"].to_pylist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("form", FORMATS)
def test_macro_points_are_the_same_from_every_format(tmp_path: Path, form: str) -> None:
    # Two series, one figure that was revised, and values that no price may have: the columns of feeds.macro.
    points = pa.table(
        {
            "time": times(3, 86_400.0),
            "series": ["CPI", "SPREAD", "CPI"],
            "observed": pa.array([START.astype(int)] * 3).view(NS_UTC),
            "value": [3.1, -0.5, 0.0],
        }
    )
    table = read(write(points, tmp_path, form))
    assert table.column_names == ["time", "symbol", "observed", "value"]
    assert table["observed"].combine_chunks() == points["observed"].combine_chunks()
    assert table["time"].combine_chunks() == times(3, 86_400.0)
    assert table["symbol"].to_pylist() == ["CPI", "SPREAD", "CPI"]
    assert table["value"].to_pylist() == [3.1, -0.5, 0.0]


@pytest.mark.parametrize("form", FORMATS)
def test_describe_tells_what_is_there(tmp_path: Path, form: str) -> None:
    path = write(trades(5, symbol=["B", "A", "C", "A", "B"]), tmp_path, form)
    described = describe(source(path))
    assert described.kind == "trades"
    assert described.rows == 5
    assert described.symbols == ("B", "A", "C")
    assert described.first == datetime(2024, 1, 2, 14, 30)
    assert described.last == datetime(2024, 1, 2, 14, 30, 4)
    assert described.bar is None
    assert described.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_last_moment_is_not_before_the_last_row(tmp_path: Path) -> None:
    path = write(trades(2, time=pa.array(START.astype(int) + np.array([1, 1_001])).view(NS_UTC)), tmp_path)
    described = describe(source(path))
    assert described.first == datetime(2024, 1, 2, 14, 30)
    assert described.last == datetime(2024, 1, 2, 14, 30, 0, 2)


def test_tables_have_at_most_65536_rows(tmp_path: Path) -> None:
    path = write(trades(150_000), tmp_path)
    lengths = [table.num_rows for table in files.tables(source(path))]
    assert sum(lengths) == 150_000
    assert max(lengths) == files.TABLE_ROWS == 65_536


# --- names ---


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("AAPL_1h.csv.gz", "AAPL"),
        ("AAPL-5m.parquet", "AAPL"),
        ("VOD.L_1wk.parquet", "VOD.L"),
        ("BRK.B.csv", "BRK.B"),
        ("BTC-USD_1d.feather", "BTC-USD"),
        ("gbpusd-m1-bid-2012.csv.gz", "gbpusd-m1-bid-2012"),
    ],
)
def test_a_symbol_comes_from_the_file_name(name: str, symbol: str) -> None:
    assert name_of(Path(name)) == symbol


def test_well_known_names_are_found_in_any_case_and_others_are_ignored(tmp_path: Path) -> None:
    named = bars(3).rename_columns(["Datetime", "Open", "HIGH", "Low", "Close", "Volume"])
    named = named.append_column("Adj Close", pa.array(["n/a", None, "-1"]))
    assert read(write(named, tmp_path, "csv"), bar="1h").equals(read(write(bars(3), tmp_path), bar="1h"))


def test_a_column_map_goes_before_well_known_names(tmp_path: Path) -> None:
    price = bars(3)["close"]
    odd = trades(3, price=[1.0] * 3, last=price, when=times(3, 60.0), time=["x"] * 3, who=["A", "B", "A"])
    table = read(write(odd, tmp_path), columns={"time": "when", "price": "last", "symbol": "who"})
    assert table["price"].to_pylist() == price.to_pylist()
    assert table["symbol"].to_pylist() == ["A", "B", "A"]
    assert table["time"].combine_chunks() == times(3, 60.0)


def test_one_symbol_for_all_rows_renames_the_one_in_the_file(tmp_path: Path) -> None:
    path = write(trades(3, symbol=["adbe", None, "adbe"]), tmp_path)
    assert read(path, symbol="ADBE")["symbol"].to_pylist() == ["ADBE"] * 3
    assert describe(source(path, symbol="ADBE")).symbols == ("ADBE",)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_symbols_that_look_like_something_else_stay_what_they_are(tmp_path: Path, form: str) -> None:
    symbols = ["NA", "TRUE", "007", "1e5", "NaN", "2024-01-02", "null"]
    assert read(write(trades(7, symbol=symbols), tmp_path, form))["symbol"].to_pylist() == symbols


@pytest.mark.parametrize("time", ["time", None])
def test_a_pandas_index_is_a_column(tmp_path: Path, time: str | None) -> None:
    frame = bars(3).to_pandas().set_index("time").rename_axis(time)
    path = tmp_path / "AAPL_1h.parquet"
    frame.to_parquet(path)
    assert read(path, bar="1h").equals(read(write(bars(3), tmp_path, "csv"), bar="1h"))


def test_the_row_numbers_of_a_filtered_pandas_table_are_no_time(tmp_path: Path) -> None:
    path = tmp_path / "AAPL_1h.parquet"
    bars(5).to_pandas().iloc[[0, 2, 3]].to_parquet(path)
    assert "__index_level_0__" in raw.column_names(path)
    assert utc(read(path, bar="1h"), "open_time") == [utc(bars(5))[i] for i in (0, 2, 3)]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())], ids=str
)
def test_the_side_of_a_trade_is_read_where_it_is_a_known_word(tmp_path: Path, kind: pa.DataType) -> None:
    side = pa.array(["buy", "S", None, "?", "SELL", "b"]).cast(kind)
    table = read(write(trades(6, side=side), tmp_path, "arrow"))
    assert table["side"].to_pylist() == ["BUY", "SELL", None, None, "SELL", "BUY"]


def test_a_side_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    assert read(write(trades(2, side=[1, -1]), tmp_path))["side"].to_pylist() == [None, None]


def test_points_without_an_observed_time_were_observed_when_known(tmp_path: Path) -> None:
    points = pa.table({"time": times(2), "series": ["X", "X"], "value": [1.0, 2.0]})
    table = read(write(points, tmp_path))
    assert table["observed"].equals(table["time"])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kind", "candles", "kind must be one of auto, bars, trades, macro, was 'candles'"),
        ("stamp", "middle", "stamp must be open or close, was 'middle'"),
        ("bar", "1 hour", "a bar length is a number and one of"),
        ("symbol", " ", "symbol must not be blank"),
        ("columns", {"vwap": "x"}, "columns may map time, .*, was 'vwap'"),
    ],
)
def test_a_source_refuses_what_cannot_be(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Source(path="x.csv", **{field: value})


# --- types ---


@pytest.mark.parametrize(
    "kind",
    [
        pa.int8(),
        pa.int32(),
        pa.int64(),
        pa.uint16(),
        pa.uint64(),
        pa.float32(),
        pa.decimal128(10, 2),
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.float64()),
        pa.dictionary(pa.int32(), pa.string()),
    ],
    ids=str,
)
def test_numbers_of_any_type_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    numbers = pa.array([7, 100, 7], pa.int64())
    if pa.types.is_decimal(kind):
        column = pa.array([Decimal(7), Decimal(100), Decimal(7)], kind)
    elif pa.types.is_dictionary(kind):
        column = numbers.cast(kind.value_type).dictionary_encode().cast(kind)
    else:
        column = numbers.cast(kind)
    table = read(write(trades(3, size=column), tmp_path, "arrow"))
    assert table["size"].to_pylist() == [7.0, 100.0, 7.0]


def test_whole_numbers_beyond_two_to_53_are_rounded(tmp_path: Path) -> None:
    assert read(write(trades(1, size=[2**60 + 1]), tmp_path))["size"].to_pylist() == [2.0**60]


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()), pa.binary()], ids=str
)
def test_symbols_of_any_type_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    path = write(trades(3, symbol=pa.array(["A", "B", "A"]).cast(kind)), tmp_path, "arrow")
    assert read(path)["symbol"].to_pylist() == ["A", "B", "A"]


def test_numbers_in_csv_may_be_padded(tmp_path: Path) -> None:
    path = write_text("time,price,size\n2024-01-02 14:30,  100.5,1 \n", tmp_path)
    assert read(path, time_zone="UTC")["price"].to_pylist() == [100.5]


@pytest.mark.parametrize(
    ("column", "zone"),
    [
        (times(3, 86_400.0).cast(pa.timestamp("us", "America/New_York")), ""),
        (times(3, 86_400.0).cast(pa.timestamp("ms", "UTC")).cast(pa.timestamp("ms")), "UTC"),
        (pa.array(["2024-01-02T09:30:00-05:00", "2024-01-03T14:30Z", "2024-01-04 15:30+0100"]), ""),
        (pa.array(["2024-01-02 09:30", "2024-01-03 09:30:00", "2024-01-04T09:30:00.000"]), "America/New_York"),
        (pa.array([1_704_205_800, 1_704_292_200, 1_704_378_600]), ""),
        (pa.array([1_704_205_800_000_000, 1_704_292_200_000_000, 1_704_378_600_000_000]), ""),
    ],
)
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_times_of_any_type_are_read(tmp_path: Path, form: str, column: pa.Array, zone: str) -> None:
    table = read(write(trades(3, time=column), tmp_path, form), time_zone=zone)
    assert utc(table) == ["2024-01-02 14:30:00", "2024-01-03 14:30:00", "2024-01-04 14:30:00"]


def test_csv_keeps_nanoseconds(tmp_path: Path) -> None:
    path = write_text("time,price,size\n2024-01-02 14:30:00.123456789Z,1,1\n", tmp_path)
    assert utc(read(path)) == ["2024-01-02 14:30:00.123456789"]


# --- bars of several symbols ---


def test_bars_of_several_symbols_are_spaced_each_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TABLE_ROWS", 3)  # every symbol crosses tables
    stamps = pa.array(np.repeat(times(4).cast(pa.int64()).to_numpy(), 2)).view(NS_UTC)
    path = write(bars(8, time=stamps, symbol=["A", "B"] * 4), tmp_path)
    table = read(path, bar="1h")
    assert table["symbol"].to_pylist() == ["A", "B"] * 4
    assert utc(table)[::2] == utc(table)[1::2]
    assert table.column("time").num_chunks == 3


def test_an_open_may_lie_outside_by_rounding(tmp_path: Path) -> None:
    assert read(write(bars(1, open=[101.0 + 5e-8], close=[99.0 - 5e-8]), tmp_path), bar="1h").num_rows == 1


# --- truncation ---


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("minutes", "rows"), [(59, 0), (60, 1), (150, 2), (240, 4), (9_999, 4)])
def test_truncate_copies_the_bars_that_are_known(tmp_path: Path, form: str, minutes: int, rows: int) -> None:
    path = write(bars(4, note=["a", "b, c", None, "d"]), tmp_path, form)
    target = tmp_path / f"cut{path.name.removeprefix('AAPL_1h')}"
    here = source(path, bar="1h", symbol="AAPL")

    assert truncate(here, datetime(2024, 1, 2, 14, 30) + timedelta(minutes=minutes), target) == rows

    assert target.exists() == (rows > 0)
    if rows:
        assert read(target, bar="1h", symbol="AAPL").equals(read(path, bar="1h").slice(0, rows))
        assert raw.column_names(target) == raw.column_names(path)


def test_truncate_crosses_tables(tmp_path: Path) -> None:
    path, target = write(trades(150_000), tmp_path), tmp_path / "AAPL_1s.parquet"
    assert truncate(source(path), datetime(2024, 1, 2, 14, 30) + timedelta(seconds=99_999.5), target) == 100_000
    assert read(target).equals(read(path).slice(0, 100_000))


# --- a window ---


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.integers(-5, 65),
    end=st.integers(-5, 65),
    wanted=st.sampled_from([(), ("A",), ("B", "C"), ("X",)]),
    group=st.sampled_from([1, 7, 999]),
    zone=st.sampled_from(["UTC", "Pacific/Kiritimati", ""]),
)
def test_a_window_is_the_rows_that_a_filter_would_keep(
    tmp_path: Path, start: int, end: int, wanted: tuple[str, ...], group: int, zone: str
) -> None:
    # Days apart, so that whole row groups lie long before the start.
    day = np.arange(120) // 2
    stamps = pa.array(START.astype(int) + day * 86_400_000_000_000).view(pa.timestamp("ns", zone or None))
    path = tmp_path / "x.parquet"
    pq.write_table(trades(120, time=stamps, symbol=["ABC"[i % 3] for i in range(120)]), path, row_group_size=group)

    begun, ended = (datetime(2024, 1, 2, 14, 30) + timedelta(days=d) for d in (start, end))
    got = [size for part in files.tables(source(path, time_zone="UTC"), begun, ended, wanted) for size in part["size"]]

    kept = [i for i in range(120) if start <= day[i] <= end and (not wanted or "ABC"[i % 3] in wanted)]
    assert [size.as_py() for size in got] == [i + 1.0 for i in kept]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])
def test_a_window_of_local_days_has_every_bar_that_closes_in_it(tmp_path: Path, zone: str) -> None:
    path = tmp_path / "x.parquet"
    stamps = pa.array([datetime(2024, 1, 1 + i) for i in range(30)], pa.timestamp("us"))
    pq.write_table(bars(30, time=stamps), path, row_group_size=1)
    here = source(path, bar="1d", time_zone=zone)
    whole = read(path, bar="1d", time_zone=zone)
    for i in range(30):
        known = whole["time"][i].as_py().replace(tzinfo=None)
        (part,) = files.tables(here, known, known)
        assert part.equals(whole.slice(i, 1))


# --- real files ---


REAL = [(path, "1h", "") for path in sorted((DATA / "hourly").glob("*.csv.gz"))] + [
    (path, "1m" if "m1" in path.name else "5m", "UTC") for path in sorted((DATA / "minute").glob("*.csv.gz"))
]


@pytest.mark.skipif(not REAL, reason="the market files for developers, ../shared/data, are not here")
@pytest.mark.parametrize(("path", "bar", "zone"), REAL, ids=lambda value: getattr(value, "name", None))
def test_a_real_file_is_usable(path: Path, bar: str, zone: str) -> None:
    described = describe(source(path, bar=bar, time_zone=zone))
    assert described.kind == "bars"
    assert described.rows == sum(batch.num_rows for batch in raw.batches(path, 1_000_000)) > 4_000
    assert described.symbols == (path.name.split(".")[0].split("_")[0],)


# --- properties ---


@st.composite
def sane_bars(draw: st.DrawFn) -> pa.Table:
    """Bars at rising times; prices and volumes of any size."""
    rows = draw(st.integers(1, 12))
    positive = st.floats(1e-12, 1e12)
    cells = [sorted(draw(st.tuples(positive, positive, positive, positive))) for _ in range(rows)]
    low, mid, other, high = (np.array(column) for column in zip(*cells, strict=True))
    gaps = np.array(draw(st.lists(st.integers(60_000_000_000, 10**15), min_size=rows, max_size=rows)))
    return pa.table(
        {
            "time": pa.array(START.astype(int) + np.cumsum(gaps)).view(NS_UTC),
            "open": mid,
            "high": high,
            "low": low,
            "close": other,
            "volume": np.array(draw(st.lists(st.floats(0.0, 1e15), min_size=rows, max_size=rows))),
        }
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=sane_bars(), form=st.sampled_from(FORMATS))
def test_any_sane_bars_read_back_equal(tmp_path: Path, table: pa.Table, form: str) -> None:
    got = read(write(table, tmp_path, form), bar="1m")
    assert got["open_time"].combine_chunks() == table["time"].combine_chunks()
    for name in PRICES:
        assert got[name].to_pylist() == table[name].to_pylist()
