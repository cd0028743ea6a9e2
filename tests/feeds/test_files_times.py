"""When a row was known, by whatever times its file has: never before it could be."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from market_files import FORMATS, NS_UTC, START, bars, read, times, trades, utc, write

from feeds import files, synthetic
from feeds.errors import DataError
from feeds.files import Source, describe
from feeds.synthetic import SyntheticConfig


def source(path: Path, **settings: Any) -> Source:
    return Source(path=str(path), **settings)


def refused(path: Path, message: str, **settings: Any) -> None:
    """Assert that a file is refused by a message that begins with its path."""
    with pytest.raises(DataError, match=message) as caught:
        describe(source(path, **settings))
    assert str(caught.value).startswith(str(path))


# --- stamps of bars ---


def test_a_stamp_of_the_close_is_when_the_bar_was_known(tmp_path: Path) -> None:
    path = write(bars(3), tmp_path)
    assert utc(read(path, bar="1h", stamp="close")) == utc(bars(3))
    assert utc(read(path, bar="1h", stamp="close"), "open_time")[0] == "2024-01-02 13:30:00"
    assert utc(read(path, bar="1h"), "open_time") == utc(bars(3))
    assert utc(read(path, bar="1h"))[0] == "2024-01-02 15:30:00"


@pytest.mark.parametrize("stamp", ["open", "close"])
@pytest.mark.parametrize("spring", [True, False])
def test_a_daily_bar_ends_at_midnight_of_its_exchange(tmp_path: Path, spring: bool, stamp: str) -> None:
    # The clocks of New York change on Sunday 2024-03-10 and on Sunday 2024-11-03.
    day = date(2024, 3, 8) if spring else date(2024, 11, 1)
    shift = timedelta(days=stamp == "close")
    days = [f"{day + shift + timedelta(days=i)} 00:00" for i in range(5)]

    table = read(write(bars(5, time=days), tmp_path), bar="1d", stamp=stamp, time_zone="America/New_York")

    hours = ["05", "05", "05", "04", "04", "04"] if spring else ["04", "04", "04", "05", "05", "05"]
    midnights = [f"{day + timedelta(days=i)} {hour}:00:00" for i, hour in enumerate(hours)]
    assert utc(table, "open_time") == midnights[:-1]
    assert utc(table) == midnights[1:]


@pytest.mark.parametrize("days", [pa.array([date(2024, 3, 9), date(2024, 3, 10)]), ["2024-03-09", "2024-03-10"]])
@pytest.mark.parametrize("form", FORMATS)
def test_a_date_is_over_at_the_next_midnight_of_its_exchange(tmp_path: Path, form: str, days: Any) -> None:
    table = read(write(bars(2, time=days), tmp_path, form), bar="1d", time_zone="America/New_York")
    assert utc(table, "open_time") == ["2024-03-09 05:00:00", "2024-03-10 05:00:00"]
    assert utc(table) == ["2024-03-10 05:00:00", "2024-03-11 04:00:00"]


def test_daily_bars_stamped_in_utc_may_cross_a_clock_change(tmp_path: Path) -> None:
    # Midnights of Berlin as UTC: the day of 2024-03-31 has 23 hours, so that 24 hours reach into the next one.
    stamps = ["2024-03-29 23:00Z", "2024-03-30 23:00Z", "2024-03-31 22:00Z"]
    table = read(write(bars(3, time=stamps), tmp_path), bar="1d")
    assert utc(table) == ["2024-03-30 23:00:00", "2024-03-31 23:00:00", "2024-04-01 22:00:00"]


def test_a_file_with_time_and_open_time_needs_only_its_path(tmp_path: Path) -> None:
    # Hourly bars of a session that ends at half past: the last bar of a day is cut short.
    opened = ["2024-01-02 19:00Z", "2024-01-02 20:00Z", "2024-01-02 21:00Z", "2024-01-03 14:30Z"]
    known = ["2024-01-02 20:00Z", "2024-01-02 21:00Z", "2024-01-02 21:30Z", "2024-01-03 15:30Z"]
    path = write(bars(4, time=known, open_time=opened), tmp_path)

    for settings_ in ({}, {"bar": "1h"}, {"bar": "1h", "stamp": "close"}):
        table = read(path, **settings_)
        assert [f"{t[:-3]}Z" for t in utc(table)] == known
        assert [f"{t[:-3]}Z" for t in utc(table, "open_time")] == opened
    assert describe(source(path)).bar == timedelta(hours=1)  # of most of them


def test_a_column_map_may_say_that_the_time_is_the_open(tmp_path: Path) -> None:
    path = write(bars(3, open_time=times(3)), tmp_path)
    assert utc(read(path, columns={"time": "open_time"}, bar="1h"))[0] == "2024-01-02 15:30:00"


@pytest.mark.parametrize("kind", ["bars", "trades"])
def test_invented_markets_need_only_their_path(tmp_path: Path, kind: Any) -> None:
    config = SyntheticConfig(rows=1_000, symbol="X", bar_s=60.0)
    path = tmp_path / "any.parquet"
    synthetic.write(config, path, kind)

    table = read(path)

    made = synthetic.bar_tables(config) if kind == "bars" else synthetic.trade_tables(config)
    assert table.select(next(made).column_names).equals(
        pa.concat_tables(synthetic.bar_tables(config) if kind == "bars" else synthetic.trade_tables(config))
    )
    assert describe(source(path)).bar == (timedelta(minutes=1) if kind == "bars" else None)


# --- several times ---


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("stamp", "first"), [("open", "15:30:00"), ("close", "15:29:59.999000000")])
def test_of_an_open_and_a_close_time_the_stamp_tells_which_counts(
    tmp_path: Path, form: str, stamp: str, first: str
) -> None:
    # As Binance writes them. The open time taken for the close would be a bar known before it began.
    ends = pa.array(times(4)[1:].cast(pa.int64()).to_numpy() - 1_000_000).view(NS_UTC)
    path = write(bars(3, time=None, open_time=times(3), close_time=ends), tmp_path, form)
    table = read(path, bar="1h", stamp=stamp)
    assert utc(table)[0] == f"2024-01-02 {first}"
    assert utc(table, "open_time") == utc(bars(3))


@pytest.mark.parametrize("settings", [{}, {"bar": "1h"}, {"bar": "1h", "stamp": "close"}])
def test_a_series_of_closes_is_known_when_the_bars_are(tmp_path: Path, settings: dict[str, str]) -> None:
    # Bars of feeds.yahoo, taken as points of a series.
    path = write(bars(3, time=times(4)[1:], open_time=times(3)), tmp_path)
    known = read(path, kind="macro", columns={"value": "close"})
    assert utc(known) == utc(known, "observed") == ["2024-01-02 15:30:00", "2024-01-02 16:30:00", "2024-01-02 17:30:00"]


@pytest.mark.parametrize("stamp", ["open", "close"])
def test_a_series_made_of_bars_is_known_at_their_close(tmp_path: Path, stamp: str) -> None:
    path = write(bars(3, time=None, open_time=times(3), close_time=times(4)[1:]), tmp_path)
    macro = {"kind": "macro", "columns": {"value": "close"}}
    assert utc(read(path, bar="1h", stamp=stamp, **macro))[0] == "2024-01-02 15:30:00"
    refused(path, "has the times open_time, close_time: say which", **macro)


def test_between_two_times_of_a_trade_the_user_decides(tmp_path: Path) -> None:
    path = write(trades(3, event_time=times(3, 60.0)), tmp_path)
    refused(path, r"has the times time, event_time: say which, as columns = \{ time = \.\.\. \}")
    assert utc(read(path, columns={"time": "event_time"}))[1] == "2024-01-02 14:31:00"
    refused(write(bars(3, date=["2024-01-02"] * 3), tmp_path), "has the times time, date: say which", bar="1h")


# --- times that do not tell enough ---


@pytest.mark.parametrize("days", [pa.array([date(2024, 3, 9), date(2024, 3, 10)]), ["2024-03-09", "2024-03-10"]])
@pytest.mark.parametrize("settings", [{"bar": "1d", "stamp": "close"}, {"bar": "1h"}, {"bar": "36h"}])
@pytest.mark.parametrize("form", FORMATS)
def test_a_date_is_refused_where_the_day_would_be_known_before_it_is_over(
    tmp_path: Path, form: str, settings: dict[str, str], days: Any
) -> None:
    path = write(bars(2, time=days), tmp_path, form)
    wanted = "row 1: want a time of day; or bar = '1d', stamp = 'open', known when the day is over, was 2024-03-09$"
    refused(path, wanted, time_zone="UTC", **settings)


@pytest.mark.parametrize("form", FORMATS)
def test_a_date_is_no_time_of_a_trade_or_of_a_release(tmp_path: Path, form: str) -> None:
    refused(write(trades(1, time=["2024-03-09"]), tmp_path, form), "row 1: want a time of day", time_zone="UTC")
    point = pa.table({"time": ["2024-03-09"], "series": ["CPI"], "value": [3.1]})
    refused(write(point, tmp_path, form), "row 1: want a time of day", time_zone="UTC")
    assert utc(read(write(point, tmp_path, form), time_zone="UTC", bar="1d")) == ["2024-03-10 00:00:00"]


def test_a_date_among_times_is_refused(tmp_path: Path) -> None:
    path = write(trades(3, time=["2024-01-02 00:00", "2024-01-03", "2024-01-04 00:00"]), tmp_path, "csv")
    refused(path, "row 2: want a time of day, as others have, was 2024-01-03", time_zone="UTC")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("2024-01-02 15:00:00", "row 4: want times with an offset, as in the rows before, was times without an offset"),
        ("2024-01-03", "row 4: want times with an offset, as in the rows before, was dates: 2024-01-03"),
        ("1704300000", "row 4: want times with an offset, as in the rows before, was counts since 1970: 1704300000"),
        (None, "row 4: want a time, was empty"),
    ],
)
def test_times_written_another_way_in_a_later_table_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: str | None, message: str
) -> None:
    # Each table alone would pass, and the later ones would be five hours off.
    monkeypatch.setattr(files, "TABLE_ROWS", 3)
    path = write(trades(4, time=["2024-01-02 14:30:00Z"] * 3 + [cell]), tmp_path, "csv")
    refused(path, message, time_zone="America/New_York")


# --- lengths of bars ---


@pytest.mark.parametrize("bar", ["1h", "12h"])
def test_daily_bars_said_to_be_shorter_are_refused(tmp_path: Path, bar: str) -> None:
    path = write(bars(20, time=times(20, 86_400.0)), tmp_path)
    refused(path, "want bars .*:00:00 long, was 1 day, 0:00:00 from bar to bar", bar=bar)
    assert describe(source(path, bar="1d")).rows == 20
    assert describe(source(path, bar=bar), whole=False).rows == 20


def test_the_length_of_bars_is_judged_for_each_symbol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A minute from row to row, an hour from bar to bar, over many tables.
    monkeypatch.setattr(files, "TABLE_ROWS", 3)
    stamps = np.repeat(times(20).cast(pa.int64()).to_numpy(), 2) + np.tile([0, 60_000_000_000], 20)
    path = write(bars(40, time=pa.array(stamps).view(NS_UTC), symbol=["A", "B"] * 20), tmp_path)
    refused(path, "want bars 0:01:00 long, was 1:00:00", bar="1m")
    assert describe(source(path, bar="1h")).rows == 40


def test_bars_of_a_thin_market_may_be_far_apart(tmp_path: Path) -> None:
    gaps = np.arange(2, 40) * 60_000_000_000
    path = write(bars(38, time=pa.array(START.astype(int) + np.cumsum(gaps)).view(NS_UTC)), tmp_path)
    assert describe(source(path, bar="1m")).rows == 38
