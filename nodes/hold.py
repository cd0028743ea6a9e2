"""What is wanted of a symbol is kept back until the run is live and its feeds deliver."""

from typing import TypeVar

import csp
from csp import ts

from feeds.events import FeedState, FeedStatus
from nodes.feed_status import FeedStates

T = TypeVar("T")

_UP = (FeedState.CONNECTED, FeedState.RECOVERED)


@csp.node
def hold_until_live(
    wanted: ts[T],
    live: ts[bool],
    status: ts[FeedStatus],
    symbol: str,
    feeds: tuple[str, ...],
) -> ts[T]:
    """Let nothing be wanted of one symbol before its market is there; from then on the gate alone judges its feeds.

    Args:
        wanted: what a strategy, or risk, wants of this symbol, in history and live.
        live: ticks once, when history is over.
        status: of live feeds, all of them.
        symbol: of which it is wanted.
        feeds: the names of the feeds that the symbol cannot be traded without.

    Ticks:
        Once `live` has ticked and each of `feeds` has been CONNECTED or RECOVERED for the symbol, and is not STALE nor
        has a GAP: with the latest of `wanted`, where there is one, and then with every one.
    """
    with csp.state():
        s_states = FeedStates()
        s_waiting = set(feeds)  # feeds that have not delivered
        s_live = s_open = False

    if not s_open:
        if csp.ticked(live):
            s_live = True
        if csp.ticked(status) and status.feed in feeds:
            s_states.heard(status)
            if status.symbol in ("", symbol) and status.state in _UP:
                s_waiting.discard(status.feed)
        if s_live and not s_waiting and s_states.fault(symbol) is None:
            s_open = True
            csp.make_passive(live)
            csp.make_passive(status)
    if s_open and csp.valid(wanted):
        csp.output(wanted)
