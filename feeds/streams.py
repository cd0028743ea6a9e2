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
    """One stream of everything that ticks on `edges`; ticks of one cycle come out in the order of the list."""
    return edges[0] if len(edges) == 1 else csp.flatten(edges)
