"""How one stream of one symbol is doing, as FeedStatus ticks: on change alone."""

from collections.abc import Callable

import structlog

from feeds.events import FeedState, FeedStatus

_SOUND = (FeedState.CONNECTED, FeedState.LAGGING, FeedState.RECOVERED)
_log = structlog.get_logger()


class Health:
    """Keeps the state of a stream and tells each change of it.

    Args:
        feed: source and kind, such as "binance trades".
        symbol: whose stream it is.
        lag_max_s: how late a live event may come, and how far ahead of this machine's clock.
        tell: takes each FeedStatus.
    """

    def __init__(self, feed: str, symbol: str, lag_max_s: float, tell: Callable[[FeedStatus], None]) -> None:
        self.feed, self.symbol, self._lag_max_s, self._tell = feed, symbol, lag_max_s, tell
        self.state: FeedState | None = None  # None before it delivered or failed
        self._bad = 0

    @property
    def sound(self) -> bool:
        """Whether it delivers and nothing is known to be missing."""
        return self.state in _SOUND

    def well(self, detail: str, fetched: int = 0) -> None:
        """It delivers and is whole: CONNECTED the first time, RECOVERED after trouble, nothing where all was well."""
        if self.state is None:
            self._now(FeedState.CONNECTED, detail, float(fetched))
        elif not self.sound:
            self._now(FeedState.RECOVERED, detail, float(fetched))

    def stale(self, detail: str, silent_s: float = 0.0) -> None:
        """It has gone silent, or its connection is lost."""
        if self.state is not FeedState.STALE:
            self._now(FeedState.STALE, detail, silent_s)

    def gap(self, detail: str, missing: int) -> None:
        """Something is missing; before it was connected that is no change."""
        if self.state not in (None, FeedState.GAP):
            self._now(FeedState.GAP, detail, float(missing))

    def lag(self, lag_s: float) -> None:
        """How late the newest live event came; negative where its clock is ahead of ours."""
        if self.state is FeedState.LAGGING:
            if abs(lag_s) < self._lag_max_s / 2:  # half: an episode that hovers at the limit is one
                self._now(FeedState.RECOVERED, "events come in time again", 0.0)
        elif abs(lag_s) > self._lag_max_s and self.sound:
            how = "late" if lag_s > 0.0 else "ahead of this machine's clock"
            self._now(FeedState.LAGGING, f"events come {abs(lag_s):.1f} s {how}", lag_s)

    def bad(self, detail: str) -> None:
        """Something impossible came and was dropped: told at the 1st, 2nd, 4th, 8th ...; it changes no state."""
        self._bad += 1
        if self._bad & (self._bad - 1):
            return
        _log.warning("quarantined", feed=self.feed, symbol=self.symbol, count=self._bad, detail=detail)
        self._say(FeedState.DROPPED, f"{detail} ({self._bad} so far)", float(self._bad))

    def _now(self, state: FeedState, detail: str, value: float) -> None:
        self.state = state
        self._say(state, detail, value)

    def _say(self, state: FeedState, detail: str, value: float) -> None:
        self._tell(FeedStatus(feed=self.feed, symbol=self.symbol, state=state, detail=detail, value=value))
