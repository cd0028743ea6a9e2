"""Times of a file as nanoseconds UTC, strictly: nothing is guessed that could shift a bar."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feeds.errors import DataError

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LENGTH = re.compile(r"(\d+)(ms|s|m|h|d|w)")
_OFFSET = r"\d(Z|[+-]\d\d:?(\d\d)?)$"
# Epoch counts tell their unit by their size: 1e8..1e11 seconds are the years 1973 to 5138, and so on by thousands.
_EPOCH_UNITS = ((1e11, 1_000_000_000), (1e14, 1_000_000), (1e17, 1_000), (np.inf, 1))

Ints = npt.NDArray[np.int64]


def bar_length(text: str) -> timedelta:
    """The length of a bar from words such as 30s, 5m, 1h, 1d.

    Raises:
        ValueError: anything else.
    """
    match = _LENGTH.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError(f"a bar length is a number and one of {', '.join(_UNITS)}, such as 5m or 1h, was {text!r}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def moment(time_ns: int) -> datetime:
    """Nanoseconds since 1970 as naive UTC, to the microsecond."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).replace(tzinfo=None) + timedelta(
        microseconds=time_ns % 1_000_000_000 // 1_000
    )


def to_utc(column: Any, zone: str, shift: timedelta, where: tuple[str, int]) -> Ints:
    """A time column as int64 nanoseconds UTC.

    Args:
        column: timestamps, dates, ISO 8601 strings, or integers since 1970 in s, ms, us or ns.
        zone: time zone of times that carry none; "" refuses them.
        shift: added to every time. Whole days are added on the local clock, so that a day that the clocks change
            still ends at midnight.
        where: (path, rows before this column), for messages.

    Raises:
        DataError: a missing, naive, mixed, non-existent, ambiguous or unreadable time.
    """
    path, rows = where
    if column.null_count:
        raise DataError(f"{path}, row {rows + _first(column.is_null())}: want a time, was empty")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type):
        return _epoch(column) + _nanoseconds(shift)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _parse(column.cast(pa.string()), where)
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    if not pa.types.is_timestamp(column.type):
        raise DataError(f"{path}: want times, was a column of {column.type} such as {column[0].as_py()!r}")
    if column.type.tz is not None:
        return _ints(column.cast(pa.timestamp("ns", "UTC"))) + _nanoseconds(shift)
    local = column.cast(pa.timestamp("ns"))
    whole_days = shift % timedelta(days=1) == timedelta()
    if whole_days:
        local = pc.add(local, pa.scalar(shift, pa.duration("ns")))
    return _localize(local, zone, where) + (0 if whole_days else _nanoseconds(shift))


def _localize(local: Any, zone: str, where: tuple[str, int]) -> Ints:
    """Naive local times as nanoseconds UTC."""
    path, rows = where
    if not zone:
        raise DataError(
            f"{path}, row {rows + 1}: the time {local[0].as_py()} has no time zone; say which one it is in, such as"
            " time_zone = 'UTC'"
        )
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise DataError(f"{path}: unknown time zone {zone!r}; want a name such as 'UTC' or 'America/New_York'") from None
    try:
        return _ints(pc.assume_timezone(local, zone))
    except pa.ArrowInvalid as exc:
        raise DataError(
            f"{path}: a time does not name one instant in {zone}, because the clocks change: {exc}; want times in UTC"
        ) from None


def _parse(text: Any, where: tuple[str, int]) -> Any:
    """ISO 8601 strings as timestamps, with a zone when all of them carry an offset."""
    path, rows = where
    with_offset = pc.match_substring_regex(text, _OFFSET)
    timed = pc.match_substring(text, ":")
    with_offset = pc.and_(with_offset, timed)  # the -22 of 2009-05-22 is no offset
    count = pc.sum(with_offset).as_py()
    if 0 < count < len(text):
        odd = _first(with_offset if count * 2 < len(text) else pc.invert(with_offset))
        raise DataError(f"{path}, row {rows + odd}: some times carry an offset and some do not, was {text[odd - 1]}")
    try:
        if count:
            return text.cast(pa.timestamp("ns", "UTC"))
        return text.cast(pa.timestamp("ns"))
    except pa.ArrowInvalid:
        bad = next(i for i, value in enumerate(text) if not _parses(value, bool(count)))
        raise DataError(
            f"{path}, row {rows + bad + 1}: want a time such as 2024-01-02 14:30:00, was {text[bad].as_py()!r}"
        ) from None


def _parses(value: Any, zoned: bool) -> bool:
    try:
        value.cast(pa.timestamp("ns", "UTC" if zoned else None))
    except pa.ArrowInvalid:
        return False
    return True


def _epoch(column: Any) -> Ints:
    counts = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    largest = float(np.abs(counts).max()) if len(counts) else 0.0
    return counts * next(factor for limit, factor in _EPOCH_UNITS if largest < limit)


def _first(mask: Any) -> int:
    """1-based position of the first true."""
    return int(pc.index(mask, True).as_py()) + 1


def _ints(column: Any) -> Ints:
    return column.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _nanoseconds(length: timedelta) -> int:
    return length // timedelta(microseconds=1) * 1000
