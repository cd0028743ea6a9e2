"""Small tools for streams of events."""

from datetime import timedelta
from typing import Any

import csp

# Events of one instant come in separate engine cycles; all are in one microsecond later, csp's finest Python alarm.
SETTLE = timedelta(microseconds=1)


def by_symbol(events: Any, symbols: list[str]) -> dict[str, Any]:
    """Split a stream of Structs with a `symbol` into one edge a symbol, in C++; one symbol needs no splitting."""
    if len(symbols) == 1:
        return {symbols[0]: events}
    return dict(csp.demultiplex(events, events.symbol, symbols))


def together(edges: list[Any]) -> Any:
    """One stream of everything that ticks on `edges`; ticks of one cycle come out in the order of the list.

    csp.flatten alone gives them in the order in which they came into the cycle: live, that is how messages arrived, and
    a replay has another. What runs later in a cycle comes later, so each edge is made to run after the one before it.
    """
    if len(edges) == 1:
        return edges[0]
    steps = edges[:1]
    for edge in edges[1:]:
        steps.append(csp.merge(edge, csp.filter(csp.null_ts(bool), steps[-1])))  # what is filtered so never ticks
    return csp.flatten(steps)
