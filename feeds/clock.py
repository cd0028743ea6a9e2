"""The wall clock, for the edges alone: nodes know only `csp.now()`."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Naive UTC, as csp wants it."""
    return datetime.now(UTC).replace(tzinfo=None)
