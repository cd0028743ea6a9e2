"""Trading sessions of an exchange, as plain Python that nodes ask.

Times are naive UTC. A session holds its first instant and not its last: at the close the market is closed.
"""

from bisect import bisect_right
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from feeds.events import Session

ALWAYS_OPEN = "24/7"

_MARGIN = timedelta(days=10)  # a session, with its overnight start, ends well within it
_YEARS_AHEAD = 1  # how far next_change looks beyond the running year


class SessionClock:
    """Which session an exchange is in.

    Half days, daylight saving, overnight sessions and lunch breaks (CLOSED) are those of the calendar. Holidays that
    were declared at short notice are in it too, so `next_change` of a past date may know of one before the market did;
    interruptions within a day, such as a circuit breaker, are left out, as no clock can know them.

    A lookup in the session of the previous one costs two comparisons, any other a bisection. The boundaries of a year
    are loaded when first asked for (0.8 s to import the library, then about 0.05 s a year) and shared by all clocks.

    Args:
        calendar: a name of pandas_market_calendars such as "NYSE", or "24/7", which is always MARKET_HOURS.

    Raises:
        ValueError: no calendar has that name.

    Source: pandas_market_calendars, `MarketCalendar.schedule`.
    """

    __slots__ = ("_from", "_session", "_until", "calendar")

    def __init__(self, calendar: str) -> None:
        self.calendar = calendar
        self._from = self._until = datetime.min  # noqa: DTZ901 - an empty interval: the first lookup fills it
        self._session = Session.CLOSED
        if calendar == ALWAYS_OPEN:
            self._until = datetime.max  # noqa: DTZ901 - naive UTC, as all times here
            self._session = Session.MARKET_HOURS
        else:
            _market_calendar(calendar)

    def at(self, now: datetime) -> Session:
        """The session at `now`, naive UTC."""
        if self._from <= now < self._until:
            return self._session
        starts, sessions = _year(self.calendar, now.year)
        i = bisect_right(starts, now) - 1
        self._from = starts[i]
        self._until = starts[i + 1] if i + 1 < len(starts) else datetime(now.year + 1, 1, 1)
        self._session = sessions[i]
        return self._session

    def next_change(self, now: datetime) -> datetime | None:
        """The first instant after `now` with another session; None when there is none up to the end of next year."""
        if self.calendar == ALWAYS_OPEN:
            return None
        session = self.at(now)
        for year in range(now.year, now.year + 1 + _YEARS_AHEAD):
            starts, sessions = _year(self.calendar, year)
            for i in range(bisect_right(starts, now), len(starts)):
                if sessions[i] != session:
                    return starts[i]
        return None

    def day_end(self, now: datetime) -> datetime:
        """The first close of a trading day after `now`, lunch breaks left out; UTC midnight where it never closes."""
        if self.calendar == ALWAYS_OPEN:
            return datetime(now.year, now.month, now.day) + timedelta(days=1)
        for year in range(now.year, now.year + 1 + _YEARS_AHEAD):
            closes = _closes(self.calendar, year)
            i = bisect_right(closes, now)
            if i < len(closes):
                return closes[i]
        raise ValueError(f"the calendar {self.calendar} has no close within a year of {now}")


@lru_cache(maxsize=8)
def _market_calendar(name: str) -> Any:
    """The library's calendar. Imported here, because the import costs 0.8 s and pulls in pandas."""
    import pandas_market_calendars

    names = pandas_market_calendars.get_calendar_names()
    if name not in names:
        by_lower = {known.lower(): known for known in names}
        near = [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
        raise ValueError(
            f"calendar must be '{ALWAYS_OPEN}' or a name of pandas_market_calendars, was {name!r}"
            + (f"; nearest: {', '.join(near)}" if near else "")
        )
    return pandas_market_calendars.get_calendar(name)


# 32 years and calendars together: about 1000 boundaries each, so at most a few MB.
@lru_cache(maxsize=32)
def _year(calendar: str, year: int) -> tuple[tuple[datetime, ...], tuple[Session, ...]]:
    """Boundaries of one year, ascending from 1 January, and the session that each begins."""
    first, last = date(year, 1, 1), date(year, 12, 31)
    schedule = _market_calendar(calendar).schedule(first - _MARGIN, last + _MARGIN, market_times="all")
    columns = {name: _naive_utc(schedule[name]) for name in schedule.columns} if len(schedule) else {}
    days = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    starts = [datetime(year, 1, 1)]
    sessions = [Session.CLOSED]
    for start, session in _steps([span for day in days for span in _spans(day)]):
        if start <= starts[0]:
            sessions[0] = session
        elif start.year == year and session != sessions[-1]:
            starts.append(start)
            sessions.append(session)
    return tuple(starts), tuple(sessions)


@lru_cache(maxsize=32)
def _closes(calendar: str, year: int) -> tuple[datetime, ...]:
    """When trading days end, ascending, of the days of one year."""
    schedule = _market_calendar(calendar).schedule(date(year, 1, 1), date(year, 12, 31))
    return tuple(sorted(when for when in _naive_utc(schedule["market_close"]) if when is not None))


def _naive_utc(column: Any) -> list[datetime | None]:
    times = column.dt.tz_convert("UTC").dt.tz_localize(None)
    return [None if is_absent else when.to_pydatetime() for when, is_absent in zip(times, times.isna(), strict=True)]


def _spans(day: dict[str, datetime | None]) -> list[tuple[datetime, datetime, Session]]:
    """The sessions of one trading day as (start, end, session), in order. Calendars differ in what they name."""
    opened, closed = day["market_open"], day["market_close"]
    if opened is None or closed is None:
        return []
    # A break may be moved to the close of a half day, or lie outside the session altogether.
    pause = min(max(day.get("break_start") or closed, opened), closed)
    resume = min(max(day.get("break_end") or closed, pause), closed)
    spans = [
        (day.get("pre") or opened, opened, Session.PRE_MARKET),
        (opened, pause, Session.MARKET_HOURS),
        (resume, closed, Session.MARKET_HOURS),
        (closed, day.get("post") or closed, Session.AFTER_HOURS),
    ]
    return [span for span in spans if span[0] < span[1]]


def _steps(spans: list[tuple[datetime, datetime, Session]]) -> list[tuple[datetime, Session]]:
    """Sorted spans to (start, session), CLOSED between them. Where two overlap, the earlier one runs to its end."""
    steps: list[tuple[datetime, Session]] = []
    end = datetime.min  # noqa: DTZ901
    for start, stop, session in spans:
        if start > end:
            if steps:
                steps.append((end, Session.CLOSED))
            end = start
        if stop > end:
            steps.append((end, session))
            end = stop
    if steps:
        steps.append((end, Session.CLOSED))
    return steps
