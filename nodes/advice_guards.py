"""What keeps the advisor from reading the same news twice, and from reading without end. Plain Python, engine time."""

from collections import deque
from datetime import date, datetime, timedelta

from models.advisor.similar import fingerprint, jaccard, shingles, stance

_REMEMBERED = 2_048  # headlines; a repetition further back than so many of them is read again
_HOUR = timedelta(hours=1)


class Recent:
    """The headlines of a window.

    Args:
        window: for how long one is remembered.
        similar_min: Jaccard similarity of word pairs from which two are the same news, unless one rises and one falls.
    """

    def __init__(self, window: timedelta, similar_min: float) -> None:
        self._window, self._similar_min = window, similar_min
        self._seen: deque[tuple[datetime, str, str, tuple[object, frozenset[int]]]] = deque(maxlen=_REMEMBERED)

    def repeats(self, text: str, symbol: str, now: datetime) -> bool:
        """Whether a headline about the same symbol said the same; if not, this one is remembered."""
        while self._seen and now - self._seen[0][0] > self._window:
            self._seen.popleft()
        mark, side, pairs = fingerprint(text), stance(text), shingles(text)
        for _, whom, known, (said_side, said) in self._seen:
            if whom != symbol:
                continue
            if known == mark or (side == said_side and jaccard(pairs, said) >= self._similar_min):
                return True
        self._seen.append((now, symbol, mark, (side, pairs)))
        return False

    def forget(self) -> None:
        """Forget the newest one, which was not read after all."""
        self._seen.pop()


class Budget:
    """Calls that may be made."""

    def __init__(self, per_hour: int, per_day: int) -> None:
        self._per_hour, self._per_day = per_hour, per_day
        self._hour: deque[datetime] = deque()
        self._day: date | None = None
        self._today = 0

    def book(self, now: datetime) -> bool:
        """Take one call, if there is one left in the last hour and in the day, UTC."""
        while self._hour and now - self._hour[0] >= _HOUR:
            self._hour.popleft()
        if now.date() != self._day:
            self._day, self._today = now.date(), 0
        if len(self._hour) >= self._per_hour or self._today >= self._per_day:
            return False
        self._hour.append(now)
        self._today += 1
        return True
