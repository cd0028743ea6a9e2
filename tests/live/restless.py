"""A signal that always wants something else, whatever the market does, and whether its feed lives or not."""

from datetime import timedelta
from typing import Any

import csp
from csp import ts

from feeds.events import Bar
from graphs.edges import Feeds
from nodes.events import Signal

EVERY = timedelta(milliseconds=300)
SCORES = (0.6, 1.0, 0.3, 0.8, 0.0, 0.5, 0.9, 0.0)  # more, less and nothing, so that risk is enlarged and reduced


@csp.node
def _restless(live: ts[bool], symbol: str, every: timedelta) -> ts[Signal]:
    with csp.alarms():
        a_next = csp.alarm(int)

    if csp.ticked(live):
        csp.schedule_alarm(a_next, every, 0)
    if csp.ticked(a_next):
        csp.schedule_alarm(a_next, every, a_next + 1)
        return Signal(
            symbol=symbol,
            source="restless",
            score=SCORES[a_next % len(SCORES)],
            confidence=1.0,
            horizon_s=3600.0,
            asof=csp.now(),
        )


def restless(bar: ts[Bar], symbol: str, feeds: Feeds) -> Any:
    """Another score three times a second, from when the run is live."""
    return _restless(feeds.live, symbol, EVERY)


def calm(bar: ts[Bar], symbol: str, feeds: Feeds) -> Any:
    """Another score every five seconds."""
    return _restless(feeds.live, symbol, timedelta(seconds=5))
