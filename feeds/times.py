"""Times of a file as nanoseconds UTC, strictly: nothing is guessed that could shift a bar."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feeds.errors import DataError

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LENGTH = re.compile(r"(\d{1,8})(ms|s|m|h|d|w)")
_LONGEST = timedelta(days=366)
_DAY = timedelta(days=1)
_OFFSET = r":.*\d(Z|[+-]\d\d:?(\d\d)?)$"  # after a time of day: the -22 of 2009-05-22 is none
# A count since 1970 tells its unit by its size: in each of them the years 1973 to 2255 have the same digits.
_EPOCH_NS = (10**17, 9 * 10**18)
_EPOCH_UNITS = (1_000_000_000, 1_000_000, 1_000, 1)  # nanoseconds of s, ms, us, ns
_YEARS = (1700, 2199)  # well inside csp's range, which is that of int64 nanoseconds
_FIRST_NS, _END_NS = (np.datetime64(str(year), "ns").astype(np.int64) for year in (_YEARS[0], _YEARS[1] + 1))
_NS_UTC = pa.timestamp("ns", "UTC")

Ints = npt.NDArray[np.int64]


def bar_length(text: str) -> timedelta:
    """The length of a bar from words such as 30s, 5m, 1h, 1d.

    Raises:
        ValueError: anything else, zero, or more than 366 days.
    """
    match = _LENGTH.fullmatch(text)
    length = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
    if not timedelta() < length <= _LONGEST:
        raise ValueError(
            f"a bar length is a number and one of {', '.join(_UNITS)}, such as 5m or 1h, at most 366d, was {text!r}"
        )
    return length


def length_label(length: timedelta) -> str:
    """The shortest words that `bar_length` reads as `length`: 1d, 1h, 5m, 90s; seconds where less than 1 ms is left."""
    for unit, name in reversed(_UNITS.items()):
        if length % timedelta(**{name: 1}) == timedelta():
            return f"{length // timedelta(**{name: 1})}{unit}"
    return f"{length.total_seconds()}s"


class Spacing:
    """How far apart the bars of a file are, seen a batch at a time."""

    def __init__(self) -> None:
        self._closest, self._closest_count, self._count = np.iinfo(np.int64).max, 0, 0

    def add(self, apart_ns: Ints) -> None:
        """Note the nanoseconds from one bar to the next of its symbol."""
        if not apart_ns.size:
            return
        closest = min(self._closest, int(apart_ns.min()))
        before = self._closest_count if closest == self._closest else 0
        self._closest, self._closest_count = closest, before + int(np.count_nonzero(apart_ns == closest))
        self._count += len(apart_ns)

    def usual(self) -> timedelta:
        """The distance that most bars have, and none less; zero where there is none such, or fewer than ten."""
        if self._count < 10 or self._closest_count * 2 <= self._count:
            return timedelta()
        return timedelta(microseconds=self._closest // 1_000)


def moment(time_ns: int) -> datetime:
    """Nanoseconds since 1970 as naive UTC; what is left of a microsecond is cut off."""
    return datetime(1970, 1, 1) + timedelta(microseconds=time_ns // 1_000)


def to_utc(column: Any, zone: str, shift: timedelta, where: tuple[str, int]) -> Ints:
    """A time column as int64 nanoseconds UTC.

    Args:
        column: timestamps, dates, ISO 8601 strings, or integers since 1970 in s, ms, us or ns (from 1973 on, where
            their size tells which); at least one row.
        zone: time zone of times that carry none; "" refuses them.
        shift: added to every time. Whole days are added on the local clock, so that a day that the clocks change
            still ends at midnight; where they skip or repeat that midnight, at the later reading.
        where: (path, rows before this column), for messages.

    Raises:
        DataError: a missing, naive, mixed, non-existent, ambiguous or unreadable time, or one outside 1700 to 2199.
    """
    path, rows = where
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        raise DataError(f"{path}, row {rows + _first(column.is_null())}: want a time, was empty")
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = _parse(column.cast(pa.string()), where)
    elif pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if pa.types.is_integer(column.type):
        return _in_range(_epoch(column, where), where) + _nanoseconds(shift)
    if not pa.types.is_timestamp(column.type):
        raise DataError(f"{path}: want times, was a column of {column.type} such as {column[0].as_py()!r}")
    aware = column.type.tz is not None
    time = _in_range(_ints(_cast(column, _NS_UTC if aware else pa.timestamp("ns"), where)), where)
    if aware:
        return time + _nanoseconds(shift)
    if shift % _DAY:
        return _localize(time, zone, False, where) + _nanoseconds(shift)
    return _localize(time + _nanoseconds(shift), zone, bool(shift), where)


def form(column: Any) -> str:
    """How the times of a column are written, in words; strings by the first of them, "" where that is empty."""
    if pa.types.is_dictionary(column.type):
        column = column.slice(0, 1).dictionary_decode()
    if pa.types.is_timestamp(column.type):
        return "times with a zone" if column.type.tz is not None else "times without a zone"
    if pa.types.is_date(column.type):
        return "dates"
    first = column[0].as_py()
    if first is None:
        return ""
    if not isinstance(first, str) or first.isdecimal():
        return "counts since 1970"
    if ":" not in first:
        return "dates"
    return "times with an offset" if re.search(_OFFSET, first) else "times without an offset"


def first_refused(column: Any, convert: Callable[[Any], Any]) -> int:
    """Position of the first value that makes `convert` raise; there must be one."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            convert(column.slice(low, middle - low))
            low = middle
        except pa.ArrowException:
            high = middle
    return low


def _parse(text: Any, where: tuple[str, int]) -> Any:
    """Strings as integers where they are digits, else as timestamps, with a zone when all of them carry an offset."""
    path, rows = where
    if text[0].as_py().isdecimal():
        return _cast(text, pa.int64(), where)
    with_offset = pc.match_substring_regex(text, _OFFSET)
    count = pc.sum(with_offset).as_py()
    if 0 < count < len(text):
        rare, wanted = (with_offset, "without") if count * 2 < len(text) else (pc.invert(with_offset), "with")
        odd = _first(rare)
        raise DataError(f"{path}, row {rows + odd}: want a time {wanted} an offset, as others are, was {text[odd - 1]}")
    timed = pc.match_substring(text, ":")
    if pc.any(timed).as_py() and not pc.all(timed).as_py():
        odd = _first(pc.invert(timed))
        raise DataError(f"{path}, row {rows + odd}: want a time of day, as others have, was {text[odd - 1]}")
    return _cast(text, _NS_UTC if count else pa.timestamp("ns"), where)


def _cast(column: Any, kind: pa.DataType, where: tuple[str, int]) -> Any:
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        path, rows = where
        bad = first_refused(column, lambda part: part.cast(kind))
        raise DataError(
            f"{path}, row {rows + bad + 1}: want a time such as 2024-01-02 14:30:00, {_YEARS[0]} to {_YEARS[1]},"
            f" was {_shown(column, bad)!r}"
        ) from None


def _localize(local_ns: Ints, zone: str, later: bool, where: tuple[str, int]) -> Ints:
    """Naive local times as nanoseconds UTC.

    Args:
        later: take the later reading of a time that the clocks skip or repeat; otherwise refuse it.
    """
    path, rows = where
    local = pa.array(local_ns).view(pa.timestamp("ns"))
    if not zone:
        raise DataError(
            f"{path}, row {rows + 1}: the time {_shown(local, 0)} has no time zone; say which one it is in, such as"
            " time_zone = 'UTC'"
        )
    try:
        pc.assume_timezone(pa.scalar(datetime(2020, 7, 1, 12), pa.timestamp("ns")), zone)
    except pa.ArrowInvalid:
        raise DataError(f"{path}: want a time zone such as 'UTC' or 'America/New_York', was {zone!r}") from None
    reading = "latest" if later else "raise"

    def assume(times: Any) -> Any:
        return pc.assume_timezone(times, zone, ambiguous=reading, nonexistent=reading)

    try:
        return _ints(assume(local))
    except pa.ArrowInvalid:
        bad = first_refused(local, assume)
        raise DataError(
            f"{path}, row {rows + bad + 1}: want times that name one instant, was {_shown(local, bad)}, which the"
            f" clocks of {zone} skip or repeat; want times in UTC or with an offset"
        ) from None


def _epoch(column: Any, where: tuple[str, int]) -> Ints:
    """Counts since 1970 in nanoseconds; the first tells the unit of all."""
    path, rows = where
    counts = _ints(_cast(column, pa.int64(), where))
    low, high = _EPOCH_NS
    unit = next((ns for ns in _EPOCH_UNITS if low <= int(counts[0]) * ns < high), 1)
    odd = (counts < low // unit) | (counts >= high // unit)
    if odd.any():
        i = int(np.argmax(odd))
        raise DataError(
            f"{path}, row {rows + i + 1}: want a time as text, or all as counts since 1970 in one of s, ms, us and ns"
            f" (from 1973 on), was {counts[i]}"
        )
    return counts * unit


def _in_range(time: Ints, where: tuple[str, int]) -> Ints:
    if time.min() < _FIRST_NS or time.max() >= _END_NS:
        path, rows = where
        i = int(np.argmax((time < _FIRST_NS) | (time >= _END_NS)))
        first, last = _YEARS
        raise DataError(f"{path}, row {rows + i + 1}: want a time from {first} to {last}, was {moment(int(time[i]))}")
    return time


def _first(mask: Any) -> int:
    """1-based position of the first true."""
    return int(pc.index(mask, True).as_py()) + 1


def _shown(column: Any, row: int) -> str:
    """A time as text; Python has no word for years after 9999."""
    return str(column.slice(row, 1).cast(pa.string())[0])


def _ints(column: Any) -> Ints:
    return column.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _nanoseconds(length: timedelta) -> int:
    return length // timedelta(microseconds=1) * 1000
