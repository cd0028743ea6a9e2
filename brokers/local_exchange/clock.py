"""The exchange's clock. It may be wrong, as a user's is: the fault `skew` moves it."""

import time


class Clock:
    """Milliseconds since 1970.

    The tape runs on the machine's clock; what the exchange says of the time, and what it holds requests against, is
    that clock plus the skew.
    """

    def __init__(self) -> None:
        self.skew_ms = 0

    def wall_ms(self) -> int:
        """The machine's clock."""
        return time.time_ns() // 1_000_000

    def now_ms(self) -> int:
        """The exchange's clock: /api/v3/time, event times, the check of a request's timestamp."""
        return self.wall_ms() + self.skew_ms
