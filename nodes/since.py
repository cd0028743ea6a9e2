"""What is heard of a stream that begins with history, from the moment on at which it is live."""

from datetime import timedelta
from typing import TypeVar

import csp
from csp import ts

T = TypeVar("T")


@csp.node
def since_live(event: ts[T], live: ts[bool]) -> ts[T]:
    """Keep history to itself: the last of it ticks when the run goes live, and then everything.

    Args:
        event: any stream.
        live: ticks once, when what follows is live.

    Ticks:
        With `live`, the latest event, where there is one; after it, with every event.
    """
    with csp.state():
        s_live = False

    if csp.ticked(live):
        s_live = True
        csp.make_passive(live)
    if s_live and csp.valid(event):
        csp.output(event)


@csp.node
def from_live(event: ts[T], live: ts[bool]) -> ts[T]:
    """What happens live, and nothing of what history brought.

    Args:
        event: any stream.
        live: ticks once, when what follows is live.

    Ticks:
        With every event in the cycle of `live` and after it.
    """
    if csp.ticked(event) and csp.valid(live):
        csp.output(event)


@csp.node
def after_live(live: ts[bool], seconds: float) -> ts[bool]:
    """Tick once, `seconds` of engine time after the run went live."""
    with csp.alarms():
        a_over = csp.alarm(bool)

    if csp.ticked(live):
        csp.schedule_alarm(a_over, timedelta(seconds=seconds), True)
    if csp.ticked(a_over):
        return True
