"""Helpers for node tests: build a stream, run a graph, read the ticks."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import csp

T0 = datetime(2024, 1, 2, 14, 30)
SECOND = timedelta(seconds=1)


def ticks(*values: Any, every: timedelta = SECOND, typ: type | None = None) -> Any:
    """An edge with one value a second from T0; `None` leaves a gap."""
    points = [(i * every, value) for i, value in enumerate(values) if value is not None]
    return csp.curve(typ or type(points[0][1]), points)


def at(*points: tuple[float, Any], typ: type | None = None) -> Any:
    """An edge with (seconds after T0, value) points."""
    return csp.curve(typ or type(points[0][1]), [(timedelta(seconds=s), v) for s, v in points])


def run(graph: Callable[[], Any], *, seconds: float = 86_400.0) -> Any:
    """Run a zero-argument graph function from T0.

    Returns the ticks [(time, value), ...] of its single output, or {name: ticks} where the graph names them with
    `csp.add_graph_output` or returns a dict of edges.
    """

    def outputs() -> None:
        out = graph()
        if isinstance(out, dict):
            for name, edge in out.items():
                csp.add_graph_output(name, edge)
        elif out is not None:
            csp.add_graph_output(0, out)

    result = csp.run(outputs, starttime=T0, endtime=timedelta(seconds=seconds))
    return result[0] if result and set(result) == {0} else result


def values(points: Sequence[tuple[datetime, Any]]) -> list[Any]:
    """The values of [(time, value), ...]."""
    return [value for _, value in points]
