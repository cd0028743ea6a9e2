"""Yahoo's bars, end to end: the real yfinance client against a Yahoo on 127.0.0.1."""

import math
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yfinance as yf
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.errors import DataError, FeedError
from feeds.files import Source, describe
from feeds.instruments import Instrument
from feeds.yahoo import YahooConfig, cache_path, history, main, utc
from feeds.yahoo_bars import bars_of
from feeds.yahoo_client import INTERVALS, MINUTES, Answer
from tests.feeds.yahoo_server import Desk, LocalSession, bars, desk_at, stamps

NOW = datetime(2024, 7, 2, 15, 10, 7)  # a Tuesday, 11:10 in New York
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with desk_at(NOW, tmp_path / "cache") as desk:
        yield desk


def answer_of(
    index: pd.DatetimeIndex, *rows: tuple[float, float, float, float, float], exchange: str = "CCC"
) -> Answer:
    """Rows of open, high, low, close, volume; one trading period that never closes."""
    frame = pd.DataFrame(list(rows), index=index, columns=["Open", "High", "Low", "Close", "Volume"])
    periods = pd.DataFrame({"start": [index[0]], "end": [index[0] + pd.Timedelta(hours=23, minutes=59)]}, index[:1])
    return Answer(rows=frame, market={"exchange": "CCC", "timezone": str(index.tz)}, periods=periods)


# --- what a bar says ---


def test_hourly_bars_are_stamped_at_their_close_and_the_last_one_closes_with_the_session(desk: Desk) -> None:
    rows = desk.fetch("AAPL", "1h", "2024-06-27", "2024-06-28")

    opens = ["06-27 13:30", "06-27 14:30", "06-27 15:30", "06-27 16:30", "06-27 17:30", "06-27 18:30", "06-27 19:30"]
    assert stamps(rows, "open_time") == opens
    assert stamps(rows) == [*opens[1:], "06-27 20:00"]
    price = desk.server.listings["AAPL"].price
    first = int(datetime(2024, 6, 27, 13, 30, tzinfo=UTC).timestamp())
    assert rows[0]["symbol"] == "AAPL"
    assert rows[0]["open"] == pytest.approx(price(first), abs=1e-6)
    assert rows[0]["close"] == pytest.approx(price(first + 3600), abs=1e-6)
    assert rows[0]["volume"] == 106_000.0
    assert all(row["low"] <= min(row["open"], row["close"]) for row in rows)
    assert all(row["high"] >= max(row["open"], row["close"]) for row in rows)


def test_intraday_bars_follow_the_clock_change_of_the_exchange(desk: Desk) -> None:
    rows = desk.fetch("AAPL", "1h", "2024-03-08", "2024-03-12")

    friday, monday = rows[:7], rows[7:]  # New York moved its clocks on Sunday, 10 March
    assert (stamps(friday)[0], stamps(friday)[-1]) == ("03-08 15:30", "03-08 21:00")
    assert (stamps(monday)[0], stamps(monday)[-1]) == ("03-11 14:30", "03-11 20:00")


def test_a_market_that_never_closes_has_full_hours_round_the_clock(desk: Desk) -> None:
    rows = desk.fetch("BTC-USD", "1h", "2024-06-29", "2024-07-01")

    assert [row["time"] for row in rows] == [datetime(2024, 6, 29, 1) + i * HOUR for i in range(48)]
    assert all(row["time"] - row["open_time"] == HOUR for row in rows)


def test_daily_bars_of_us_stocks_run_from_open_to_close_half_days_and_clock_changes_included(desk: Desk) -> None:
    rows = desk.fetch("AAPL", "1d", "2023-11-22", "2023-11-25")  # Yahoo's row of the 23rd is on a holiday of the NYSE

    assert stamps(rows, "open_time") == ["11-22 14:30", "11-23 05:00", "11-24 14:30"]
    assert stamps(rows) == ["11-22 21:00", "11-24 05:00", "11-24 18:00"]
    assert stamps(desk.fetch("AAPL", "1d", "2024-06-18", "2024-06-21"))[-2:] == ["06-18 20:00", "06-20 20:00"]


def test_daily_bars_elsewhere_close_at_the_next_midnight_of_the_exchange(desk: Desk) -> None:
    rows = desk.fetch("7203.T", "1d", "2024-06-25", "2024-06-27")  # dates at the exchange

    assert stamps(rows, "open_time") == ["06-24 15:00", "06-25 15:00"]
    assert stamps(rows) == ["06-25 15:00", "06-26 15:00"]


@pytest.mark.parametrize(
    ("interval", "opens", "closes"),
    [
        ("5d", ["06-03 04:00", "06-10 04:00"], ["06-10 04:00", "06-17 04:00"]),
        ("1wk", ["06-03 04:00", "06-10 04:00", "06-17 04:00"], ["06-10 04:00", "06-17 04:00", "06-24 04:00"]),
        ("1mo", ["06-01 04:00"], ["07-01 04:00"]),
    ],
)
def test_long_bars_close_when_their_last_day_is_over(
    desk: Desk, interval: str, opens: list[str], closes: list[str]
) -> None:
    rows = desk.fetch("AAPL", interval, "2024-06-01", "2024-06-20")

    assert stamps(rows, "open_time") == opens
    assert stamps(rows) == closes


def test_a_quarter_closes_after_three_months(desk: Desk) -> None:
    rows = desk.fetch("AAPL", "3mo", "2023-10-01", "2024-07-01")

    assert stamps(rows) == ["01-01 05:00", "04-01 04:00", "07-01 04:00"]


@pytest.mark.parametrize("interval", INTERVALS)
def test_every_interval_gives_ordered_bars_known_at_their_close(desk: Desk, interval: str) -> None:
    start = "2024-06-26" if interval in MINUTES else "2023-01-01"

    rows = desk.fetch("AAPL", interval, start, "2024-06-28")

    assert len(rows) >= 2 * 390 // MINUTES[interval] if interval in MINUTES else len(rows) >= 5
    assert all(row["open_time"] < row["time"] <= NOW for row in rows)
    assert all(a["time"] <= b["open_time"] for a, b in pairwise(rows))
    replayed = describe(Source(path=str(cache_path(desk.folder, "AAPL", interval))))
    assert (replayed.rows, replayed.first, replayed.last) == (len(rows), rows[0]["time"], rows[-1]["time"])


def test_a_split_is_taken_out_of_the_prices_and_of_the_volume(desk: Desk) -> None:
    rows = desk.fetch("NVDA", "1d", "2024-06-06", "2024-06-12")

    assert stamps(rows) == ["06-06 20:00", "06-07 20:00", "06-10 20:00", "06-11 20:00"]
    assert all(30.0 < row["close"] < 80.0 for row in rows)  # unadjusted, the first two stand near 500
    assert {row["volume"] for row in rows} == {139_000.0}
    assert desk.facts("NVDA", "1d")["adjusted"] == "splits"


def test_dividends_are_left_in_the_prices(desk: Desk) -> None:
    without = desk.fetch("AAPL", "1d", "2024-06-06", "2024-06-12")
    desk.server.listings["AAPL"].dividends = {date(2024, 6, 11): 5.0}
    desk.folder /= "again"

    assert desk.fetch("AAPL", "1d", "2024-06-06", "2024-06-12") == without


def test_a_running_quote_that_stayed_behind_is_no_bar(desk: Desk) -> None:
    desk.server.listings["AAPL"].strays = [int(datetime(2024, 6, 27, 15, 1, 7, tzinfo=UTC).timestamp())]

    assert len(desk.fetch("AAPL", "1h", "2024-06-27", "2024-06-28")) == 7


def test_a_daily_window_selects_dates(desk: Desk) -> None:
    rows = desk.fetch("AAPL", "1d", "2024-06-25T09:00", "2024-06-27T12:00")  # the 25th begins before, at midnight

    assert stamps(rows) == ["06-26 20:00", "06-27 20:00"]


def test_nights_and_weekends_are_no_missing_data(desk: Desk) -> None:
    assert len(desk.fetch("AAPL", "30m", "2024-06-27", "2024-07-02")) == 3 * 13
    assert desk.facts("AAPL", "30m")["dropped"] == 0


def test_unfinished_bars_and_the_running_quote_are_left_out(desk: Desk) -> None:
    # 15:10 UTC. The bar of 14:30 runs; that of 13:30 closed 40 minutes ago. Yahoo sends a quote of 15:10:07 as well.
    assert stamps(desk.fetch("AAPL", "1h", "2024-07-02"), "open_time") == ["07-02 13:30"]
    assert stamps(desk.fetch("AAPL", "1d", "2024-07-01")) == ["07-01 20:00"]


def test_a_bar_counts_as_finished_half_an_hour_after_its_close(desk: Desk) -> None:
    desk.server.now = datetime(2024, 7, 2, 14, 59, 59, tzinfo=UTC)
    with pytest.raises(FeedError, match="no finished bar yet"):
        desk.fetch("AAPL", "1h", "2024-07-02")

    desk.server.now += timedelta(seconds=1)
    assert stamps(desk.fetch("AAPL", "1h", "2024-07-02")) == ["07-02 14:30"]


def test_rows_without_prices_are_dropped_and_counted_and_zero_volume_is_kept(desk: Desk) -> None:
    day = int(datetime(2024, 6, 27, 13, 30, tzinfo=UTC).timestamp())
    desk.server.listings["AAPL"].nulls = {day + 3600, day + 7200}
    desk.server.listings["AAPL"].silent = {day}

    rows = desk.fetch("AAPL", "1h", "2024-06-27", "2024-06-28")

    assert stamps(rows, "open_time") == ["06-27 13:30", "06-27 16:30", "06-27 17:30", "06-27 18:30", "06-27 19:30"]
    assert rows[0]["volume"] == 0.0
    assert desk.facts("AAPL", "1h")["dropped"] == 2


def test_each_symbol_has_its_file_in_the_order_asked_for(desk: Desk) -> None:
    paths = desk.paths(["nvda", "AAPL", "BTC-USD"], "1h", "2024-06-27", "2024-06-28")

    assert [path.name for path in paths] == ["NVDA_1h.parquet", "AAPL_1h.parquet", "BTC-USD_1h.parquet"]
    assert [bars(path)[0]["symbol"] for path in paths] == ["NVDA", "AAPL", "BTC-USD"]
    assert [len(bars(path)) for path in paths] == [7, 7, 24]


def test_the_file_says_where_it_comes_from(desk: Desk) -> None:
    desk.fetch("AAPL", "60m", "2024-06-27", "2024-06-28")

    facts = desk.facts("AAPL", "60m")
    assert facts["windows"] == [["2024-06-27T00:00:00", "2024-06-28T00:00:00"]]
    assert facts["market"] == {"exchange": "NMS", "timezone": "America/New_York", "currency": "USD", "kind": "EQUITY"}
    assert (facts["source"], facts["interval"], facts["yfinance"]) == ("yahoo", "1h", yf.__version__)
    assert facts["fetched_at"] == NOW.isoformat()


# --- refusals ---


@pytest.mark.parametrize(("start", "end"), [("2024-06-29", "2024-07-01"), ("1980-01-01", "1981-01-01")])
def test_an_empty_window_says_so_and_writes_nothing(desk: Desk, start: str, end: str) -> None:
    with pytest.raises(FeedError, match="Yahoo has no 1d bars of AAPL from"):
        desk.fetch("AAPL", "1d", start, end)
    assert not cache_path(desk.folder, "AAPL", "1d").exists()


@pytest.mark.parametrize(
    ("interval", "days"), [("1m", 30), ("2m", 60), ("5m", 60), ("15m", 60), ("30m", 60), ("90m", 60), ("1h", 730)]
)
def test_bars_older_than_yahoo_serves_are_refused_before_any_request(desk: Desk, interval: str, days: int) -> None:
    limit = NOW - days * DAY
    with pytest.raises(FeedError, match=f"last {days} days only. Want a start at or after") as caught:
        desk.fetch("AAPL", interval, limit.isoformat(), "2024-07-01")
    assert desk.server.requests == []

    earliest = str(caught.value).split("at or after ")[1].split(",")[0]
    assert timedelta(0) < utc(earliest) - limit <= timedelta(hours=2, minutes=1)
    assert desk.fetch("AAPL", interval, earliest, "2024-07-01")  # and the server, which keeps the limit, agrees


def test_a_month_of_minutes_comes_in_chunks_without_seams(desk: Desk) -> None:
    rows = desk.fetch("BTC-USD", "1m", "2024-06-10", "2024-07-01")

    spans = [int(q["period2"]) - int(q["period1"]) for q in desk.server.charts()]
    assert spans == [7 * 86_400] * 3
    opens = [datetime(2024, 6, 10) + i * timedelta(minutes=1) for i in range(21 * 1440)]
    assert [row["open_time"] for row in rows] == [t for t in opens if (t.hour, t.minute) != (23, 59)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"symbols": []}, "at least one symbol"),
        ({"symbols": ["../etc/passwd"]}, "symbols must be Yahoo's"),
        ({"symbols": [""]}, "symbols must be Yahoo's"),
        ({"symbols": ["A B"]}, "symbols must be Yahoo's"),
        ({"interval": "4h"}, "interval must be one of 1m 2m 5m 15m 30m 60m 90m 1h 1d 5d 1wk 1mo 3mo, was '4h'"),
        ({"end": datetime(2024, 6, 1)}, "start must lie before end"),
        ({"start": NOW}, "start must lie in the past"),
        ({"timeout_s": math.nan}, "timeout_s must be positive"),
        ({"timeout_s": math.inf}, "timeout_s must be positive"),
        ({"retries": -1}, "retries must lie in"),
    ],
)
def test_impossible_arguments_are_refused(tmp_path: Path, call: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"symbols": ["AAPL"], "interval": "1h", "start": datetime(2024, 6, 1), "now": NOW}
    with pytest.raises(ValueError, match=message):
        history(**good | {"cache_dir": tmp_path} | call)


def test_a_cache_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FeedError, match="cache_dir must be a folder"):
        history(["AAPL"], "1h", datetime(2024, 6, 1), now=NOW, cache_dir=tmp_path / "file" / "cache")


def test_times_are_utc_with_or_without_an_offset() -> None:
    assert utc("2024-06-01") == datetime(2024, 6, 1)
    assert utc("2024-06-01T09:30:00-04:00") == datetime(2024, 6, 1, 13, 30)
    for text in ("yesterday", "", "2024-13-01", "0001-01-01T00:00:00+14:00"):
        with pytest.raises(ValueError, match="want an ISO date or time"):
            utc(text)


# --- the command ---


def test_the_command_names_the_files_and_prints_a_config_that_replays_them(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--interval", "1h", "--start", "2024-06-26", "--end", "2024-06-28", "--cache-dir", str(desk.folder)]

    assert main(["aapl", "BTC-USD", *flags], session=desk.session, now=NOW) == 0

    out = capsys.readouterr().out
    assert f"{desk.folder / 'AAPL_1h.parquet'}: 14 bars, closes 2024-06-26 14:30 to 2024-06-27 20:00 UTC" in out
    config = tomllib.loads(out)
    assert config["name"] == "yahoo-1h"
    described = [describe(Source(**feed)) for feed in config["feeds"]]
    assert [(d.kind, d.symbols, d.rows) for d in described] == [("bars", ("AAPL",), 14), ("bars", ("BTC-USD",), 48)]
    assert (described[0].first, described[0].last) == (datetime(2024, 6, 26, 14, 30), datetime(2024, 6, 27, 20))
    instruments = [Instrument(**instrument) for instrument in config["instruments"]]
    assert [(i.symbol, i.lot, i.calendar) for i in instruments] == [
        ("AAPL", "1", "NYSE"),
        ("BTC-USD", "0.00001", "24/7"),
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["NOSUCH", "--start", "2024-06-27"], "NOSUCH: Yahoo has no such symbol"),
        (["AAPL", "--start", "2020-01-01"], "last 730 days only"),
        (["AAPL", "--start", "2030-01-01"], "start must lie in the past"),
    ],
)
def test_a_feed_error_is_one_line_and_exit_code_2(
    desk: Desk, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main([*flags, "--cache-dir", str(desk.folder)], session=desk.session, now=NOW) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [[], ["AAPL"], ["AAPL", "--start", "soon"], ["AAPL", "--start", "2024-06-01", "--interval", "4h"]]
)
def test_bad_usage_is_exit_code_2(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(flags)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_interrupt_is_exit_code_130(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted(LocalSession):
        def request(self, *_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

    with Interrupted(desk.server.port) as session:
        code = main(["7203.T", "--start", "2024-06-27", "--cache-dir", str(desk.folder)], session=session, now=NOW)

    assert code == 130
    assert "interrupted" in capsys.readouterr().err


# --- properties ---

prices = st.floats(allow_nan=True, allow_infinity=True, width=32)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(prices, prices, prices, prices, prices), min_size=1, max_size=20))
def test_whatever_yahoo_sends_a_bar_is_finite_and_contains_its_prices(rows: list[tuple[float, ...]]) -> None:
    index = pd.date_range("2024-06-24", periods=len(rows), freq="h", tz="UTC")

    table, dropped, _ = bars_of(answer_of(index, *rows), "X", "1h", NOW)

    assert len(table) + dropped == len(rows)
    values = np.array([table[name].to_numpy() for name in ("open", "high", "low", "close", "volume")])
    assert np.isfinite(values).all()
    opens, highs, lows, closes, volumes = values
    assert (highs >= np.maximum(opens, closes)).all()
    assert (lows <= np.minimum(opens, closes)).all()
    assert (volumes >= 0.0).all()


def test_rounding_that_leaves_the_close_outside_is_widened_and_zero_prices_are_dropped() -> None:
    index = pd.date_range("2024-06-24", periods=3, freq="h", tz="UTC")
    rounded = (10.0, 10.5, 9.5, 10.5000004, 1.0)
    answer = answer_of(index, rounded, (0.0, 10.5, 9.5, 10.25, 1.0), (10.0, 10.5, 9.5, 10.25, 1.0))

    table, dropped, widened = bars_of(answer, "X", "1h", NOW)

    assert (dropped, widened) == (1, 1)
    assert table["high"].to_pylist() == [10.5000004, 10.5]


@pytest.mark.parametrize(
    ("zone", "day", "closes"),
    [
        ("Africa/Cairo", "2024-04-25", datetime(2024, 4, 25, 22)),  # the 26th begins at 01:00
        ("America/Havana", "2023-11-04", datetime(2023, 11, 5, 5)),  # on the 5th midnight comes twice
    ],
)
def test_a_midnight_that_a_clock_change_removes_or_repeats_is_read_late(zone: str, day: str, closes: datetime) -> None:
    answer = answer_of(pd.DatetimeIndex([day], tz=zone), (10.0, 10.5, 9.5, 10.25, 1.0))

    table, _, _ = bars_of(answer, "X", "1d", NOW)

    assert table["time"].cast(pa.timestamp("s", "UTC")).to_pylist() == [closes.replace(tzinfo=UTC)]


def test_bars_that_overlap_are_a_data_error(desk: Desk) -> None:
    # A row at 13:45 within the bar of 13:30, both cut at 14:00 by the end of a session.
    desk.server.listings["AAPL"].half_days[date(2024, 6, 27)] = time(10)
    desk.server.listings["AAPL"].strays = [int(datetime(2024, 6, 27, 13, 45, tzinfo=UTC).timestamp())]
    desk.fetch("AAPL", "1h", "2024-06-26", "2024-06-27")

    with pytest.raises(DataError, match="bars of AAPL must close one after the other, were 1 that do not"):
        desk.fetch("AAPL", "1h", "2024-06-27", "2024-06-29")


def test_a_config_refuses_what_a_call_refuses() -> None:
    YahooConfig(symbols=("AAPL",), start="2024-01-01")
    with pytest.raises(ValueError, match="interval must be one of"):
        YahooConfig(symbols=("AAPL",), start="2024-01-01", interval="1s")
