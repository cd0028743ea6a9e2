"""How live feeds are doing: told to a person, and kept in mind by the gate."""

import csp
from csp import ts

from feeds.events import FeedState, FeedStatus
from nodes.events import Alert, AlertLevel

# Bound once: looking a member up on its class costs more than comparing it.
_LAGGING, _STALE, _GAP, _DROPPED = FeedState.LAGGING, FeedState.STALE, FeedState.GAP, FeedState.DROPPED
_INFO, _WARNING, _ALERT = AlertLevel.INFO, AlertLevel.WARNING, AlertLevel.ALERT


class FeedStates:
    """Which feeds can be relied upon, by symbol. What a feed says of all its symbols replaces what it said of each.

    STALE and GAP make a feed unreliable, CONNECTED and RECOVERED end that. LAGGING and DROPPED change nothing: what is
    late is there, and what cannot be is not missed.
    """

    __slots__ = ("_last", "unreliable")

    def __init__(self) -> None:
        self._last: dict[str, dict[str, FeedStatus]] = {}  # by feed and symbol, "" for all that are not named
        self.unreliable = False  # some feed is, for some symbol

    def heard(self, status: FeedStatus) -> None:
        if status.state is _LAGGING or status.state is _DROPPED:
            return
        if status.symbol:
            self._last.setdefault(status.feed, {})[status.symbol] = status
        else:
            self._last[status.feed] = {"": status}
        self.unreliable = any(_unreliable(last) for known in self._last.values() for last in known.values())

    def fault(self, symbol: str) -> FeedStatus | None:
        """What was said last by the first feed that cannot be relied upon for a symbol; None where all can."""
        for known in self._last.values():
            last = known.get(symbol, known.get(""))
            if last is not None and _unreliable(last):
                return last
        return None


def _unreliable(status: FeedStatus) -> bool:
    return status.state is _STALE or status.state is _GAP


@csp.node
def status_alert(status: ts[FeedStatus]) -> ts[Alert]:
    """Say how a feed is doing: ALERT where it is silent or something is missing, WARNING where it is late or what
    it brought was dropped, INFO where it is well.

    Args:
        status: of any feed.

    Ticks:
        With every status.
    """
    if csp.ticked(status):
        state = status.state
        wrong = state is _LAGGING or state is _DROPPED
        level = _ALERT if state is _STALE or state is _GAP else _WARNING if wrong else _INFO
        whom = f" {status.symbol}" if status.symbol else ""
        detail = status.detail.removeprefix(f"{status.symbol}: ")  # an error names whom it is about, as the status does
        told = f": {detail}" if detail else ""
        return Alert(
            level=level,
            source=status.feed,
            symbol=status.symbol,
            message=f"{status.feed}{whom} {state.name}{told}",
            value=status.value,
        )
