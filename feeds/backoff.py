"""How long to wait before trying again."""

import random


class Backoff:
    """Exponential back-off with full jitter: the n-th wait is uniform on (0, min(most, first * 2**n)].

    Many clients that lost the same server must not come back at once.

    Args:
        first_s, most_s: seconds, 0 < first_s <= most_s.
        source: of the jitter; seeded, so that a test can repeat it.

    Source: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(self, first_s: float, most_s: float, source: random.Random) -> None:
        if not 0.0 < first_s <= most_s:
            raise ValueError(f"want 0 < first_s <= most_s, was {first_s} and {most_s}")
        self._first_s, self._most_s, self._random = first_s, most_s, source
        self._failures = 0

    def next_s(self, at_least_s: float = 0.0) -> float:
        """Seconds to wait now; each call counts one more failure. `at_least_s` is what a server asked for."""
        limit = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return max(at_least_s, limit * (1.0 - self._random.random()))

    def reset(self) -> None:
        """It worked: the next wait is a short one."""
        self._failures = 0
