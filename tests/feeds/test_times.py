"""Times of every kind become the same nanoseconds UTC, or are refused with their row."""

from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.errors import DataError
from feeds.times import Spacing, bar_length, first_refused, form, length_label, moment, to_utc

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NONE = timedelta()


def ns(text: str) -> int:
    return int(np.datetime64(text, "ns").astype(np.int64))


def utc(column: Any, zone: str = "", shift: timedelta = NONE, rows: int = 0) -> list[str]:
    """`to_utc` as ISO text without trailing zeros."""
    got = to_utc(column, zone, shift, ("prices.csv", rows))
    assert got.dtype == np.int64
    return [str(np.datetime64(int(t), "ns")).removesuffix("000").removesuffix("000").removesuffix(".000") for t in got]


# --- lengths and moments ---


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("1h", HOUR),
        ("1d", DAY),
        ("2w", timedelta(weeks=2)),
        ("366d", timedelta(days=366)),
    ],
)
def test_bar_length_reads_a_number_and_a_unit(text: str, length: timedelta) -> None:
    assert bar_length(text) == length


@pytest.mark.parametrize(
    "text", ["", "1", "h", "0h", "-1h", "1.5h", "1 h", "1H", "1mo", "1h ", "367d", "99999999w", "999999999999w", "1h\n"]
)
def test_bar_length_refuses_anything_else(text: str) -> None:
    with pytest.raises(ValueError, match=r"a bar length is a number and one of ms, s, m, h, d, w"):
        bar_length(text)


@pytest.mark.parametrize(
    ("length", "label"),
    [
        (timedelta(milliseconds=250), "250ms"),
        (timedelta(seconds=90), "90s"),
        (timedelta(minutes=5), "5m"),
        (timedelta(minutes=60), "1h"),
        (timedelta(minutes=90), "90m"),
        (DAY, "1d"),
        (timedelta(days=14), "2w"),
        (timedelta(seconds=59, microseconds=999_999), "59.999999s"),
    ],
)
def test_a_length_has_a_short_label(length: timedelta, label: str) -> None:
    assert length_label(length) == label


@given(st.integers(1, 99_999_999), st.sampled_from([1, 1_000]).map(lambda unit: timedelta(milliseconds=unit)))
def test_a_label_is_read_back_as_its_length(count: int, unit: timedelta) -> None:
    length = min(count * unit, timedelta(days=366))
    assert bar_length(length_label(length)) == length


def test_moment_cuts_nanoseconds_off_also_before_1970() -> None:
    assert moment(1_500) == datetime(1970, 1, 1, 0, 0, 0, 1)
    assert moment(-1) == datetime(1969, 12, 31, 23, 59, 59, 999_999)


# --- what is read ---


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["2024-01-02 14:30:00"]),
        pa.array(["2024-01-02T14:30"]),
        pa.array(["2024-01-02T14:30:00.000"], pa.large_string()),
        pa.array(["2024-01-02 14:30:00"], pa.string_view()),
        pa.array(["2024-01-02 14:30:00"]).dictionary_encode(),
        pa.array([datetime(2024, 1, 2, 14, 30)], pa.timestamp("s")),
        pa.array([datetime(2024, 1, 2, 14, 30)], pa.timestamp("ms")),
        pa.array([datetime(2024, 1, 2, 14, 30)], pa.timestamp("us")),
        pa.array([datetime(2024, 1, 2, 14, 30)], pa.timestamp("ns")),
    ],
    ids=lambda column: str(column.type),
)
def test_naive_times_are_read_in_the_zone_that_is_named(column: pa.Array) -> None:
    assert utc(column, "UTC") == ["2024-01-02T14:30:00"]
    assert utc(column, "America/New_York") == ["2024-01-02T19:30:00"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["2024-01-02 14:30:00Z"]),
        pa.array(["2024-01-02T14:30Z"]),
        pa.array(["2024-01-02 09:30:00-05:00"]),
        pa.array(["2024-01-02 09:30:00.000-0500"]),
        pa.array(["2024-01-02 20:00:00+05:30"]),
        pa.array(["2024-01-02 09:30-05"]),
        pa.array([datetime(2024, 1, 2, 14, 30)], pa.timestamp("us", "UTC")),
        pa.array([datetime(2024, 1, 2, 14, 30)], pa.timestamp("ns", "America/New_York")),
        pa.array([1_704_205_800], pa.int64()),
        pa.array([1_704_205_800], pa.uint32()),
        pa.array([1_704_205_800_000], pa.int64()),
        pa.array([1_704_205_800_000_000], pa.uint64()),
        pa.array([1_704_205_800_000_000_000], pa.int64()),
        pa.array(["1704205800"]),
        pa.array(["1704205800000"]),
    ],
    ids=lambda column: f"{column.type} {column[0]}",
)
@pytest.mark.parametrize("zone", ["", "Asia/Tokyo"])
def test_times_that_name_an_instant_need_no_zone_and_ignore_one(column: pa.Array, zone: str) -> None:
    assert utc(column, zone) == ["2024-01-02T14:30:00"]


def test_nanoseconds_are_kept() -> None:
    text = ["2024-01-02 14:30:00.123456789", "2024-01-02 14:30:00.5"]
    assert utc(pa.array(text), "UTC") == ["2024-01-02T14:30:00.123456789", "2024-01-02T14:30:00.500"]
    assert utc(pa.array([text[0] + "+00:00"])) == ["2024-01-02T14:30:00.123456789"]
    assert utc(pa.array([ns("2024-01-02T14:30:00.123456789")])) == ["2024-01-02T14:30:00.123456789"]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_dates_are_midnights_of_the_zone(kind: pa.DataType) -> None:
    column = pa.array([date(2024, 1, 2), date(2024, 7, 2)], kind)
    assert utc(column, "America/New_York") == ["2024-01-02T05:00:00", "2024-07-02T04:00:00"]
    assert utc(pa.array(["2024-01-02", "2024-07-02"]), "UTC") == ["2024-01-02T00:00:00", "2024-07-02T00:00:00"]


def test_years_before_1970_are_read_from_text() -> None:
    assert utc(pa.array(["1928-01-03"]), "UTC") == ["1928-01-03T00:00:00"]


# --- shifts ---


def test_days_are_added_on_the_local_clock() -> None:
    # New York leaves winter time on 2024-03-10 and returns on 2024-11-03: days of 23 and of 25 hours.
    opens = pa.array(["2024-03-09", "2024-03-10", "2024-03-11", "2024-11-03", "2024-11-04"])
    assert utc(opens, "America/New_York") == [
        "2024-03-09T05:00:00",
        "2024-03-10T05:00:00",
        "2024-03-11T04:00:00",
        "2024-11-03T04:00:00",
        "2024-11-04T05:00:00",
    ]
    assert utc(opens, "America/New_York", DAY) == [
        "2024-03-10T05:00:00",
        "2024-03-11T04:00:00",
        "2024-03-12T04:00:00",
        "2024-11-04T05:00:00",
        "2024-11-05T05:00:00",
    ]
    assert utc(opens[1:3], "America/New_York", -DAY) == ["2024-03-09T05:00:00", "2024-03-10T05:00:00"]


def test_hours_are_added_to_the_instant() -> None:
    # 01:30 plus an hour on the night that skips 02:00 to 03:00 is 03:30 on the clock, 07:30 UTC.
    assert utc(pa.array(["2024-03-10 01:30"]), "America/New_York", HOUR) == ["2024-03-10T07:30:00"]
    assert utc(pa.array(["2024-03-10 01:30Z"]), shift=HOUR) == ["2024-03-10T02:30:00"]
    assert utc(pa.array([1_704_205_800]), shift=DAY) == ["2024-01-03T14:30:00"]


def test_a_close_that_the_clocks_skip_or_repeat_is_taken_late() -> None:
    # Cairo skips the midnight at the start of Friday 2023-04-28, and repeats 23:00 to 24:00 before Friday 2023-10-27.
    thursday = pa.array(["2023-04-27"])
    assert utc(thursday, "Africa/Cairo", DAY) == ["2023-04-27T22:00:00"]
    evening = pa.array(["2023-10-25 23:30"])
    assert utc(evening, "Africa/Cairo", DAY) == ["2023-10-26T21:30:00"]  # 20:30 UTC was the earlier reading


# --- how times are written ---


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array(["2024-01-02 14:30Z"]), "times with an offset"),
        (pa.array(["2024-01-02 14:30-0500"]).dictionary_encode(), "times with an offset"),
        (pa.array(["2024-01-02 14:30"], pa.string_view()), "times without an offset"),
        (pa.array(["2024-01-02"], pa.large_string()), "dates"),
        (pa.array([date(2024, 1, 2)]), "dates"),
        (pa.array([date(2024, 1, 2)]).dictionary_encode(), "dates"),
        (pa.array([datetime(2024, 1, 2)]), "times without a zone"),
        (pa.array([datetime(2024, 1, 2)], pa.timestamp("ns", "UTC")), "times with a zone"),
        (pa.array([1_704_205_800]), "counts since 1970"),
        (pa.array(["1704205800"]), "counts since 1970"),
        (pa.array([None, "2024-01-02"]), ""),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_the_first_time_tells_how_all_are_written(column: Any, words: str) -> None:
    assert form(column) == words


# --- how far bars are apart ---


@pytest.mark.parametrize(
    ("batches", "usual_s"),
    [
        ([[60] * 10], 60),
        ([[60] * 9], 0),  # too few
        ([[60] * 5, [], [60] * 5], 60),
        ([[3_600] * 11, [60] * 12], 60),  # a closer one starts the count again
        ([[60] * 11, [3_600] * 10], 60),
        ([[60] * 10, [3_600] * 10], 0),  # half is not most
        ([[60] * 100, [1]], 0),
        ([], 0),
    ],
)
def test_the_usual_distance_is_that_of_most_bars_and_the_least(batches: list[list[int]], usual_s: int) -> None:
    spacing = Spacing()
    for batch in batches:
        spacing.add(np.array(batch, dtype=np.int64) * 1_000_000_000)
    assert spacing.usual() == timedelta(seconds=usual_s)


# --- what is refused ---


@pytest.mark.parametrize(
    ("column", "zone", "message"),
    [
        (pa.array([1_704_205_800, None]), "", "row 12: want a time, was empty"),
        (pa.array(["2024-01-02 14:30Z", None]), "", "row 12: want a time, was empty"),
        (
            pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["2024-01-02 14:30Z", None])),
            "",
            "row 12: want a time, was empty",
        ),
        (pa.nulls(2), "", "row 11: want a time, was empty"),
        (
            pa.array(["2024-01-02", "x"]),
            "UTC",
            "row 12: want a time such as 2024-01-02 14:30:00, 1700 to 2199, was 'x'",
        ),
        (pa.array(["2024-01-02", "2024-13-01"]), "UTC", "row 12: want a time such as .*, was '2024-13-01'"),
        (pa.array(["2024-01-02", "20240103"]), "UTC", "row 12: want a time such as .*, was '20240103'"),
        (pa.array(["2024-01-02 14:30:00.1234567891"]), "UTC", r"row 11: want a time such as .*\.1234567891'"),
        (
            pa.array(["2024-01-02 14:30Z", "later Z"]),
            "",
            "row 12: want a time with an offset, as others are, was later Z",
        ),
        (
            pa.array(["2024-01-02 14:30", "2024-01-02 14:31Z", "2024-01-02 14:32"]),
            "UTC",
            "row 12: want a time without an offset, as others are, was 2024-01-02 14:31Z",
        ),
        (
            pa.array(["2024-01-02 14:30Z", "2024-01-02 14:31Z", "2024-01-02 14:32"]),
            "UTC",
            "row 13: want a time with an offset, as others are, was 2024-01-02 14:32",
        ),
        (
            pa.array(["2024-01-02 14:30", "2024-01-03"]),
            "UTC",
            "row 12: want a time of day, as others have, was 2024-01-03",
        ),
        (pa.array(["2024-01-02 14:30"]), "", "row 11: the time 2024-01-02 14:30:00.* has no time zone"),
        (pa.array([date(2024, 1, 2)]), "", "row 11: the time 2024-01-02 .* has no time zone"),
        (pa.array(["2024-01-02"]), "Mars/Olympus", "want a time zone such as 'UTC' .*, was 'Mars/Olympus'"),
        (pa.array(["2024-01-02"]), "America", "want a time zone such as 'UTC' .*, was 'America'"),
        (
            pa.array(["2024-03-10 01:30", "2024-03-10 02:30", "2024-03-10 03:30"]),
            "America/New_York",
            r"row 12: want times that name one instant, was 2024-03-10 02:30:00\.0*, which the clocks of America",
        ),
        (
            pa.array(["2024-11-03 00:30", "2024-11-03 00:45", "2024-11-03 01:30"]),
            "America/New_York",
            r"row 13: want times that name one instant, was 2024-11-03 01:30:00",
        ),
        (pa.array([1.5]), "", "want times, was a column of double such as 1.5"),
        (pa.array([True]), "", "want times, was a column of bool such as True"),
        (pa.array([1_704_205_800, 1_704_205_801_000]), "", "row 12: want a time as text, or all as counts"),
        (pa.array([20_240_102]), "", "row 11: want a time as text, or all as counts .* was 20240102"),
        (pa.array(["20240102"]), "", "row 11: want a time as text, or all as counts .* was 20240102"),
        (pa.array([0]), "", "row 11: want a time as text, or all as counts"),
        (pa.array([-1_704_205_800]), "", "row 11: want a time as text, or all as counts"),
        (pa.array([1_704_205_800, 2**64 - 1], pa.uint64()), "", "row 12: want a time such as"),
        (pa.array(["1704205800", "9" * 30]), "", "row 12: want a time such as .*, was '9{30}'"),
        (pa.array([datetime(2024, 1, 2), datetime(3000, 1, 1)]), "UTC", "row 12: want a time such as .*'3000-01-01"),
        (pa.array([0, 10**15], pa.timestamp("s", "UTC")), "", "row 12: want a time such as"),
        (pa.array(["2024-01-02", "2200-01-01"]), "UTC", "row 12: want a time from 1700 to 2199, was 2200-01-01"),
        (pa.array(["1699-12-31"]), "UTC", "row 11: want a time from 1700 to 2199, was 1699-12-31"),
    ],
)
def test_a_bad_time_is_refused_with_its_row(column: pa.Array, zone: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^prices\.csv(, |: ){message}"):
        utc(column, zone, rows=10)


# --- properties ---

INSTANTS = st.integers(ns("1973-06-01"), ns("2199-12-31"))


@given(st.lists(INSTANTS, min_size=1, max_size=20))
def test_every_spelling_of_an_instant_is_the_same(instants: list[int]) -> None:
    column = pa.array(instants).view(pa.timestamp("ns"))
    text = column.cast(pa.string())
    spellings = [pa.array(instants), column, text, text.dictionary_encode(), pa.array([f"{t}Z" for t in text])]
    for spelling in spellings:
        np.testing.assert_array_equal(to_utc(spelling, "UTC", NONE, ("x", 0)), instants)


@given(st.lists(INSTANTS, min_size=1, max_size=20), st.sampled_from([1, 1_000, 1_000_000, 1_000_000_000]))
def test_counts_tell_their_unit(instants: list[int], unit: int) -> None:
    counts = np.array(instants) // unit
    np.testing.assert_array_equal(to_utc(pa.array(counts), "", NONE, ("x", 0)), counts * unit)


@given(st.lists(st.text(max_size=25) | st.none() | st.just("2024-01-02 10:00"), min_size=1, max_size=5))
def test_any_text_is_a_time_or_a_data_error(texts: list[str | None]) -> None:
    with suppress(DataError):
        assert len(to_utc(pa.array(texts, pa.string()), "Europe/Berlin", HOUR, ("x", 0))) == len(texts)


@given(st.lists(st.booleans(), min_size=1, max_size=50).filter(any))
def test_first_refused_is_the_first(bad: list[bool]) -> None:
    column = pa.array(["x" if b else "1" for b in bad])
    assert first_refused(column, lambda part: part.cast(pa.int64())) == bad.index(True)
