"""What keeps a remote model from costing more than it may, in money and in time. Pure: the caller brings the time."""

import math

_DAY_S = 86_400.0


class DayBudget:
    """Calls and tokens of a day, UTC. A call is booked before it is sent, with what it may cost at most.

    Args:
        calls, tokens: a day, at least 1.
    """

    def __init__(self, calls: int, tokens: int) -> None:
        self._calls_max, self._tokens_max = calls, tokens
        self._day = -1
        self.calls = self.tokens = 0

    def book(self, now_s: float, tokens: int) -> bool:
        """Whether a call of at most so many tokens may be made now; it is booked where it may.

        Args:
            now_s: seconds since 1970.
        """
        day = math.floor(now_s / _DAY_S)
        if day > self._day:  # a clock that steps back does not begin a new day
            self._day, self.calls, self.tokens = day, 0, 0
        if self.calls + 1 > self._calls_max or self.tokens + tokens > self._tokens_max:
            return False
        self.calls, self.tokens = self.calls + 1, self.tokens + tokens
        return True

    def settle(self, booked: int, used: int) -> None:
        """Set right what a call really took."""
        self.tokens = max(0, self.tokens - booked + used)


class RetryBudget:
    """Tries again are earned by calls, so that a server in trouble is not asked many times as often.

    Args:
        share: tries again earned by a call, in [0, 1].
        most: that can be saved up, at least 0; there at the start.

    Source: Beyer et al., "Site Reliability Engineering", chapter 21, 2016.
    """

    def __init__(self, share: float, most: float) -> None:
        self._share, self._most = share, most
        self._saved = most

    def earn(self) -> None:
        self._saved = min(self._most, self._saved + self._share)

    def spend(self) -> bool:
        """Whether one more try is there; it is used up."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True


class Breaker:
    """Stops asking after failures in a row, and lets one call through after a rest: it decides.

    It stops as well for as long as the server asks.

    Args:
        failures: in a row, at least 1.
        rest_s: seconds.

    Source: Nygard, "Release It!", 2nd edition, chapter 5, 2018.
    """

    def __init__(self, failures: int, rest_s: float) -> None:
        self._failures_max, self._rest_s = failures, rest_s
        self._failures = 0
        self._open_since: float | None = None
        self._asked_until = -math.inf  # by the server
        self._trying = False

    def allows(self, now_s: float) -> bool:
        """Whether a call may be made at `now_s`, seconds of any steady clock."""
        if now_s < self._asked_until:
            return False
        if self._open_since is None:
            return True
        if self._trying or now_s - self._open_since < self._rest_s:
            return False
        self._trying = True
        return True

    def worked(self) -> None:
        self._failures, self._open_since, self._trying = 0, None, False

    def failed(self, now_s: float, pause_s: float = 0.0) -> None:
        """A call failed, and the server asked for a pause."""
        self._failures += 1
        self._asked_until = max(self._asked_until, now_s + pause_s)
        if self._trying or self._failures >= self._failures_max:
            self._open_since, self._trying = now_s, False

    def left(self) -> None:
        """A call ended without telling anything about the server."""
        self._trying = False
