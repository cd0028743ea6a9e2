from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_bars import HOUR_NS, MONDAY_NS, walk

from tokenizer.bars import HOURS_A_WEEK, hours_of_week, next_closes


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def said(closes: np.ndarray) -> list[str]:
    return [f"{datetime.fromtimestamp(int(when) // 10**9, UTC):%m-%d %H:%M}" for when in closes]


def test_hours_of_the_week_begin_on_monday_at_midnight_utc() -> None:
    times = np.array([ns("1970-01-01"), ns("2024-01-01"), ns("2024-01-01 00:59:59"), ns("2024-01-07 23:00"), 0])

    assert hours_of_week(times).tolist() == [72, 0, 0, 167, 72]


@given(st.integers(-(10**18), 4 * 10**18))
@settings(max_examples=200)
def test_hours_of_the_week_are_those_of_the_calendar(time_ns: int) -> None:
    when = datetime.fromtimestamp(time_ns // 10**9, UTC)

    assert hours_of_week(np.array([time_ns]))[0] == when.weekday() * 24 + when.hour
    assert 0 <= hours_of_week(np.array([time_ns]))[0] < HOURS_A_WEEK


def test_slice_takes_closes_from_start_up_to_end() -> None:
    bars = walk(10)

    part = bars.slice(MONDAY_NS + 3 * HOUR_NS, MONDAY_NS + 6 * HOUR_NS)

    assert part.close_time.tolist() == [MONDAY_NS + h * HOUR_NS for h in (3, 4, 5)]
    assert part.close.tolist() == bars.close[2:5].tolist()
    assert len(bars.slice()) == 10
    assert len(bars.slice(MONDAY_NS + 6 * HOUR_NS, MONDAY_NS)) == 0


@pytest.mark.parametrize("name", ["open", "high", "low", "close"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, -1.0])
def test_a_series_with_an_impossible_price_is_refused(name: str, value: float) -> None:
    bars = walk(5)
    column = getattr(bars, name).copy()
    column[3] = value

    with pytest.raises(ValueError, match="bar 3 of WALK: want finite numbers"):
        replace(bars, **{name: column})


def test_a_series_is_refused_by_the_column_that_is_wrong() -> None:
    bars = walk(5)
    with pytest.raises(ValueError, match="bar 0 of WALK"):
        replace(bars, volume=-bars.volume)
    with pytest.raises(ValueError, match="bar 0 of WALK"):
        replace(bars, high=bars.low, low=bars.high)
    with pytest.raises(ValueError, match="close_time of WALK must increase"):
        replace(bars, close_time=bars.close_time[::-1].copy())
    with pytest.raises(ValueError, match="close_time of WALK must increase"):
        replace(bars, close_time=np.zeros(5, np.int64))
    with pytest.raises(ValueError, match="close_time of WALK must be int64"):
        replace(bars, close_time=bars.close_time.astype(np.float64))
    with pytest.raises(ValueError, match=r"volume of WALK must be float64 \(5,\)"):
        replace(bars, volume=bars.volume[:4])
    with pytest.raises(ValueError, match="bar_s of WALK"):
        replace(bars, bar_s=0.0)


def test_the_next_closes_of_a_market_that_never_closes_are_a_bar_apart() -> None:
    assert said(next_closes(ns("2024-02-28 23:00"), 3600.0, "24/7", 3)) == ["02-29 00:00", "02-29 01:00", "02-29 02:00"]
    assert len(next_closes(0, 3600.0, "24/7", 0)) == 0


def test_the_next_closes_skip_nights_weekends_and_follow_daylight_saving() -> None:
    # Friday, 8 March 2024, the last of seven hourly bars of New York; on Sunday the clocks go forward.
    closes = next_closes(ns("2024-03-08 21:30"), 3600.0, "NYSE", 8)

    assert said(closes) == [f"03-11 {hour}:30" for hour in range(14, 21)] + ["03-12 14:30"]


def test_the_next_closes_end_early_on_a_half_day_and_skip_a_holiday() -> None:
    # 3 July 2024 ends at 17:00 UTC, the 4th is a holiday.
    assert said(next_closes(ns("2024-07-03 15:30"), 3600.0, "NYSE", 3)) == ["07-03 16:30", "07-03 17:30", "07-05 14:30"]


def test_the_next_closes_keep_a_grid_that_does_not_fit_the_session() -> None:
    # Bars on the hour: the first of a day holds the open at 14:30.
    assert said(next_closes(ns("2024-01-02 21:00"), 3600.0, "NYSE", 2)) == ["01-03 15:00", "01-03 16:00"]


def test_the_next_closes_of_daily_bars_are_the_trading_days() -> None:
    assert said(next_closes(ns("2024-12-24"), 86_400.0, "NYSE", 3)) == ["12-25 00:00", "12-27 00:00", "12-28 00:00"]


def test_the_next_closes_go_over_the_end_of_a_year() -> None:
    assert said(next_closes(ns("2024-12-31 21:30"), 3600.0, "NYSE", 1)) == ["01-02 15:30"]


def test_a_lunch_break_has_no_bars() -> None:
    # Tokyo: 00:00 to 02:30 and 03:30 to 06:00 UTC.
    closes = next_closes(ns("2024-03-11 02:00"), 1800.0, "JPX", 3)

    assert said(closes) == ["03-11 02:30", "03-11 04:00", "03-11 04:30"]


@given(st.integers(0, 200), st.sampled_from([300.0, 1800.0, 3600.0, 14_400.0, 86_400.0]), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_the_next_closes_increase_on_the_grid(hours: int, bar_s: float, count: int) -> None:
    last = ns("2024-06-28 20:00") + hours * HOUR_NS

    closes = next_closes(last, bar_s, "NYSE", count)

    assert len(closes) == count
    assert (np.diff(np.concatenate([[last], closes])) > 0).all()
    assert ((closes - last) % round(bar_s * 1e9) == 0).all()


def test_an_impossible_question_about_closes_is_refused() -> None:
    with pytest.raises(ValueError, match="bar_s"):
        next_closes(0, float("nan"), "24/7", 1)
    with pytest.raises(ValueError, match="count"):
        next_closes(0, 60.0, "24/7", -1)
    with pytest.raises(ValueError, match=r"calendar must be '24/7' or a name"):
        next_closes(0, 60.0, "Moon", 1)
