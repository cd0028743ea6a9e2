import subprocess
import sys
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.events import Session
from feeds.sessions import SessionClock

CLOSED, PRE, OPEN, AFTER = Session.CLOSED, Session.PRE_MARKET, Session.MARKET_HOURS, Session.AFTER_HOURS
NEW_YORK = ZoneInfo("America/New_York")
MOMENTS = st.datetimes(datetime(2004, 1, 1), datetime(2027, 12, 31))


@pytest.mark.parametrize(
    ("calendar", "now", "session"),
    [
        # Winter and summer time: New York opens at 14:30 and 13:30 UTC.
        ("NYSE", datetime(2024, 1, 2, 8, 59, 59), CLOSED),
        ("NYSE", datetime(2024, 1, 2, 9, 0), PRE),
        ("NYSE", datetime(2024, 1, 2, 14, 29, 59, 999_999), PRE),
        ("NYSE", datetime(2024, 1, 2, 14, 30), OPEN),
        ("NYSE", datetime(2024, 1, 2, 21, 0), AFTER),
        ("NYSE", datetime(2024, 1, 3, 1, 0), CLOSED),
        ("NYSE", datetime(2024, 7, 2, 13, 29), PRE),
        ("NYSE", datetime(2024, 7, 2, 13, 30), OPEN),
        # The day after Thanksgiving closes at 13:00 in New York.
        ("NYSE", datetime(2024, 11, 28, 16, 0), CLOSED),
        ("NYSE", datetime(2024, 11, 29, 17, 59), OPEN),
        ("NYSE", datetime(2024, 11, 29, 18, 0), AFTER),
        ("NYSE", datetime(2024, 11, 29, 22, 0), CLOSED),
        ("NYSE", datetime(2024, 11, 30, 16, 0), CLOSED),  # Saturday
        ("NYSE", datetime(2025, 1, 1, 0, 30), AFTER),  # of 31 December
        # Hong Kong pauses for lunch, from 04:00 to 05:00 UTC.
        ("HKEX", datetime(2024, 11, 27, 3, 59), OPEN),
        ("HKEX", datetime(2024, 11, 27, 4, 0), CLOSED),
        ("HKEX", datetime(2024, 11, 27, 5, 0), OPEN),
        ("HKEX", datetime(2024, 11, 27, 8, 0), CLOSED),
        # Futures trade overnight: Wednesday's session began on Tuesday at 23:00 UTC.
        ("CMEGlobex_FX", datetime(2024, 11, 26, 22, 59), CLOSED),
        ("CMEGlobex_FX", datetime(2024, 11, 26, 23, 0), OPEN),
        ("CMEGlobex_FX", datetime(2024, 11, 27, 21, 59), OPEN),
        ("CMEGlobex_FX", datetime(2024, 11, 27, 22, 0), CLOSED),
        ("us_futures", datetime(2024, 11, 27, 23, 0), OPEN),  # one session ends as the next begins
        ("IEX", datetime(2005, 6, 1, 15, 0), CLOSED),  # before the exchange existed
        ("24/7", datetime(2024, 12, 25, 3, 0), OPEN),
    ],
)
def test_the_clock_knows_the_session(calendar: str, now: datetime, session: Session) -> None:
    assert SessionClock(calendar).at(now) == session


@pytest.mark.parametrize(
    ("calendar", "now", "then"),
    [
        ("NYSE", datetime(2024, 11, 29, 15, 0), datetime(2024, 11, 29, 18, 0)),
        ("NYSE", datetime(2024, 11, 29, 22, 0), datetime(2024, 12, 2, 9, 0)),  # over the weekend
        ("NYSE", datetime(2024, 12, 31, 23, 0), datetime(2025, 1, 1, 1, 0)),  # into the next year
        ("NYSE", datetime(2025, 1, 1, 1, 0), datetime(2025, 1, 2, 9, 0)),
        ("24/5", datetime(2024, 12, 31, 12, 0), datetime(2025, 1, 4)),  # midnight changes nothing
        ("24/7", datetime(2024, 12, 31, 12, 0), None),
        ("IEX", datetime(2005, 6, 1), None),
    ],
)
def test_the_clock_knows_when_the_session_changes(calendar: str, now: datetime, then: datetime | None) -> None:
    assert SessionClock(calendar).next_change(now) == then


@settings(max_examples=300, deadline=None)
@given(MOMENTS)
def test_new_york_keeps_its_local_hours(now: datetime) -> None:
    # Judged by the local wall clock alone: it cannot know holidays, so it bounds the answer.
    local = now.replace(tzinfo=ZoneInfo("UTC")).astimezone(NEW_YORK)
    clock = local.time()

    session = SessionClock("NYSE").at(now)

    if local.weekday() >= 5 or clock < time(4) or clock >= time(20):
        assert session == CLOSED
    elif clock < time(9, 30):
        assert session in (PRE, CLOSED)
    elif clock < time(13):
        assert session in (OPEN, CLOSED)
    elif clock < time(16):
        assert session in (OPEN, AFTER, CLOSED)
    else:
        assert session in (AFTER, CLOSED)


@settings(max_examples=100, deadline=None)
@given(MOMENTS, st.sampled_from(["NYSE", "HKEX", "CME_Equity", "CMEGlobex_FX", "24/5"]))
def test_a_session_lasts_until_the_next_change(now: datetime, calendar: str) -> None:
    clock = SessionClock(calendar)
    session = clock.at(now)

    then = clock.next_change(now)

    assert then is not None
    assert then > now
    middle = now + (then - now) / 2
    assert SessionClock(calendar).at(middle) == session
    assert SessionClock(calendar).at(then - timedelta(microseconds=1)) == session
    assert SessionClock(calendar).at(then) != session


@settings(max_examples=30, deadline=None)
@given(st.lists(MOMENTS, min_size=2, max_size=20))
def test_the_order_of_questions_does_not_matter(moments: list[datetime]) -> None:
    one = SessionClock("NYSE")

    assert [one.at(now) for now in moments] == [SessionClock("NYSE").at(now) for now in moments]


def test_the_clock_agrees_with_the_schedule_of_a_year() -> None:
    import pandas_market_calendars

    schedule = pandas_market_calendars.get_calendar("NYSE").schedule(
        "2024-01-01", "2024-12-31", start="pre", end="post"
    )
    clock = SessionClock("NYSE")
    assert len(schedule) == 252
    for row in schedule.itertuples():
        times = [t.tz_localize(None).to_pydatetime() for t in (row.pre, row.market_open, row.market_close, row.post)]
        assert [clock.at(t) for t in times] == [PRE, OPEN, AFTER, CLOSED]
        assert [clock.next_change(t) for t in times[:3]] == times[1:]


def test_an_unknown_calendar_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"was 'nyse'; nearest: NYSE"):
        SessionClock("nyse")
    with pytest.raises(ValueError, match=r"was ''$"):
        SessionClock("")


def test_a_time_with_a_zone_is_refused() -> None:
    with pytest.raises(TypeError, match="offset-naive and offset-aware"):
        SessionClock("24/7").at(datetime(2024, 1, 2, 14, 30, tzinfo=NEW_YORK))


def test_a_market_that_never_closes_does_not_load_the_calendars() -> None:
    code = """
import sys
from datetime import datetime
from feeds.sessions import SessionClock
assert SessionClock("24/7").at(datetime(2024, 1, 2)).name == "MARKET_HOURS"
assert "pandas_market_calendars" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_trading_day_ends_at_its_close_whatever_breaks_it_has() -> None:
    nyse, hong_kong = SessionClock("NYSE"), SessionClock("HKEX")
    assert nyse.day_end(datetime(2024, 1, 2, 15)) == datetime(2024, 1, 2, 21)
    assert nyse.day_end(datetime(2024, 1, 2, 21)) == datetime(2024, 1, 3, 21)  # at the close the next day counts
    assert nyse.day_end(datetime(2024, 11, 29, 15)) == datetime(2024, 11, 29, 18)  # a half day
    assert nyse.day_end(datetime(2024, 12, 31, 22)) == datetime(2025, 1, 2, 21)  # over the year's end and a holiday
    assert hong_kong.day_end(datetime(2024, 1, 3, 3)) == datetime(2024, 1, 3, 8)  # before lunch: the evening's close


def test_a_market_that_never_closes_ends_its_days_at_utc_midnight() -> None:
    assert SessionClock("24/7").day_end(datetime(2024, 2, 29, 0)) == datetime(2024, 3, 1)
