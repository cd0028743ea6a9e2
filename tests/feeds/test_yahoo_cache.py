"""The cache of Yahoo's bars: what is fetched again and what is not, end to end against a Yahoo on 127.0.0.1."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feeds.yahoo import cache_path, write_parquet
from tests.feeds.yahoo_server import Desk, desk_at, stamps

NOW = datetime(2024, 7, 2, 15, 10, 7)  # a Tuesday, 11:10 in New York
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_at(NOW, tmp_path / "cache") as desk:
        yield desk


def test_a_window_that_the_cache_has_makes_no_request(desk: Desk) -> None:
    first = desk.fetch("AAPL", "1h", "2024-06-24", "2024-06-29")
    desk.server.requests.clear()

    assert desk.fetch("AAPL", "1h", "2024-06-24", "2024-06-29") == first
    assert desk.fetch("AAPL", "60m", "2024-06-25", "2024-06-26") == first
    assert desk.server.requests == []


def test_a_wider_window_fetches_only_what_is_missing(desk: Desk) -> None:
    desk.fetch("BTC-USD", "1h", "2024-06-25", "2024-06-26")
    desk.server.requests.clear()

    rows = desk.fetch("BTC-USD", "1h", "2024-06-24", "2024-06-28")

    asked = [(int(q["period1"]), int(q["period2"])) for q in desk.server.charts()]
    edges = [int(datetime(2024, 6, d, tzinfo=UTC).timestamp()) for d in (24, 25, 26, 28)]
    assert asked == [(edges[0], edges[1]), (edges[2], edges[3])]
    assert [row["open_time"] for row in rows] == [datetime(2024, 6, 24) + i * HOUR for i in range(96)]
    assert desk.facts("BTC-USD", "1h")["windows"] == [["2024-06-24T00:00:00", "2024-06-28T00:00:00"]]


def test_a_window_that_ends_now_is_fetched_again_at_its_end(desk: Desk) -> None:
    desk.fetch("BTC-USD", "1h", "2024-07-01")
    desk.server.now += 3 * HOUR

    rows = desk.fetch("BTC-USD", "1h", "2024-07-01")

    assert rows[-1]["time"] == datetime(2024, 7, 2, 17)
    assert [row["open_time"] for row in rows] == [datetime(2024, 7, 1) + i * HOUR for i in range(41)]


def test_the_last_days_are_replaced_and_not_doubled(desk: Desk) -> None:
    first = desk.fetch("AAPL", "1d", "2024-06-24")
    desk.server.now += 2 * DAY
    desk.server.listings["AAPL"].base = 101.0  # late corrections

    rows = desk.fetch("AAPL", "1d", "2024-06-24")

    assert stamps(rows)[-3:] == ["07-01 20:00", "07-02 20:00", "07-03 17:00"]
    assert rows[:5] == first[:5]
    assert rows[5]["close"] == pytest.approx(first[5]["close"] * 1.01, rel=1e-6)


def test_long_bars_are_fetched_whole_when_the_window_grows(desk: Desk) -> None:
    desk.fetch("AAPL", "1wk", "2024-03-01", "2024-04-01")
    desk.server.requests.clear()

    rows = desk.fetch("AAPL", "1wk", "2024-05-01", "2024-06-01")

    assert len(desk.server.charts()) == 1
    assert (stamps(rows, "open_time")[0], stamps(rows, "open_time")[-1]) == ("03-04 05:00", "05-27 04:00")


def test_after_a_split_the_whole_file_is_fetched_anew(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.server.now = datetime(2024, 6, 7, 12, tzinfo=UTC)
    before = desk.fetch("NVDA", "1d", "2024-05-01", "2024-06-01")
    assert all(row["close"] > 300.0 for row in before)
    desk.server.now = NOW.replace(tzinfo=UTC)

    after = desk.fetch("NVDA", "1d", "2024-06-03", "2024-06-15")

    assert "has split" in caplog.text
    assert after[: len(before)] == [
        row
        | {name: pytest.approx(row[name] / 10.0, abs=1e-6) for name in ("open", "high", "low", "close")}
        | {"volume": row["volume"] * 10.0}
        for row in before
    ]
    assert all(30.0 < row["close"] < 80.0 for row in after)


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "foreign", "other symbol", "empty"])
def test_a_damaged_file_is_fetched_anew_with_a_notice(
    desk: Desk, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    good = desk.fetch("AAPL", "1h", "2024-06-24", "2024-06-29")
    path = cache_path(desk.folder, "AAPL", "1h")
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        at = 200  # inside the first column's pages
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
    elif damage == "text":
        path.write_text("time,open\n")
    elif damage == "foreign":
        pq.write_table(pa.table({"time": [1]}), path)
    elif damage == "other symbol":
        (other,) = desk.paths(["NVDA"], "1h", "2024-06-24", "2024-06-29")
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert desk.fetch("AAPL", "1h", "2024-06-24", "2024-06-29") == good
    assert f"{path} is damaged" in caplog.text


def test_a_reader_of_the_old_file_is_not_disturbed(desk: Desk) -> None:
    desk.fetch("BTC-USD", "1h", "2024-06-25", "2024-06-26")
    path = cache_path(desk.folder, "BTC-USD", "1h")
    old = path.read_bytes()
    with path.open("rb") as reader:
        desk.fetch("BTC-USD", "1h", "2024-06-25", "2024-06-28")
        assert reader.read() == old
    assert path.read_bytes() != old


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(pa.table({"a": [1]}), path)
    unwritable = pa.table({"a": pa.array([pa.MonthDayNano([1, 2, 3])])})  # Parquet has no such type

    with pytest.raises(pa.ArrowException):
        write_parquet(unwritable, path)

    assert pq.read_table(path).to_pydict() == {"a": [1]}
    assert list(tmp_path.iterdir()) == [path]


def test_a_weekend_after_known_bars_is_no_error_and_is_asked_for_again(desk: Desk) -> None:
    friday = desk.fetch("AAPL", "1h", "2024-06-28", "2024-06-29")

    assert desk.fetch("AAPL", "1h", "2024-06-28", "2024-07-01") == friday
    assert desk.facts("AAPL", "1h")["windows"] == [["2024-06-28T00:00:00", "2024-06-29T00:00:00"]]


hours = st.integers(0, 60).map(lambda h: datetime(2024, 6, 24) + h * HOUR)


def moments(pieces: list[tuple[datetime, datetime]]) -> set[datetime]:
    return {a + i * HOUR for a, b in pieces for i in range(int((b - a) / HOUR))}


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(st.tuples(hours, hours).filter(lambda w: w[0] < w[1]), min_size=1, max_size=4))
def test_any_sequence_of_windows_gives_the_bars_of_one_fetch(
    desk: Desk, tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[datetime, datetime]]
) -> None:
    desk.folder = tmp_path_factory.mktemp("cache")
    for start, end in calls:
        rows = desk.fetch("BTC-USD", "1h", start.isoformat(), end.isoformat())

    assert [row["open_time"] for row in rows] == sorted(moments(calls))
    price = desk.server.listings["BTC-USD"].price
    for row in rows:
        assert row["open"] == pytest.approx(price(int(row["open_time"].replace(tzinfo=UTC).timestamp())), abs=1e-6)
