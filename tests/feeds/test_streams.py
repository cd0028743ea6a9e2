"""Several streams as one: nothing is lost, and what ticks together has one order, however it came in."""

import re
from collections.abc import Sequence
from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import csp
import pytest
from csp import ts
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run

from feeds.clock import utc_now
from feeds.streams import by_symbol, together


class Named(csp.Struct):
    symbol: str
    n: int


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=6).map(sorted), min_size=1, max_size=5))
def test_everything_comes_out_once_by_time_and_then_by_place_in_the_list(seconds: list[list[int]]) -> None:
    edges = [at(*((s, (s, i, n)) for n, s in enumerate(of)), typ=tuple) for i, of in enumerate(seconds) if of]
    if not edges:
        return

    told = run(lambda: together(edges))

    assert [when for when, _ in told] == [T0 + s * SECOND for _, (s, _, _) in told]
    assert sorted(value for _, value in told) == sorted(
        (s, i, n) for i, of in enumerate(seconds) for n, s in enumerate(of)
    )
    firsts = [value for _, value in told if value[2] == 0 or seconds[value[1]][value[2] - 1] != value[0]]
    assert firsts == sorted(firsts, key=lambda value: value[:2])  # of each instant and edge


@csp.node
def _forward(x: ts[int]) -> ts[int]:
    if csp.ticked(x):
        return x


def _live(order: Sequence[int]) -> list[int]:
    """What comes out of three push edges, one of them deeper in the graph, that are pushed in some order at once."""
    feeds = [csp.GenericPushAdapter(int, f"feed{i}") for i in range(3)]
    told: list[int] = []

    @csp.node
    def gather(x: ts[int]):
        if csp.ticked(x):
            told.append(x)
            if len(told) == 3:
                csp.stop_engine()

    @csp.node
    def hold(started: ts[bool]):
        """The engine waits until all have been pushed: they tick in one cycle."""
        if csp.ticked(started):
            for i in order:
                feeds[i].push_tick(i)

    def graph() -> None:
        edges: list[Any] = [feed.out() for feed in feeds]
        edges[0] = _forward(_forward(edges[0]))
        hold(csp.const(True))
        gather(together(edges))

    csp.run(graph, starttime=utc_now(), endtime=timedelta(seconds=30), realtime=True)
    return told


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_of_arrival_does_not_show(order: tuple[int, ...]) -> None:
    assert _live(order) == [0, 1, 2]


def test_nothing_else_puts_streams_together() -> None:
    # csp.collect and csp.flatten have the order of arrival.
    root = Path(__file__).parents[2]
    files = [path for layer in ("brokers", "feeds", "graphs", "nodes") for path in (root / layer).rglob("*.py")]
    users = [path.name for path in files if re.search(r"csp\.(flatten|collect)\(", path.read_text())]
    assert users == ["streams.py"]


def test_one_edge_is_itself() -> None:
    told = run(lambda: together([at((0.0, 1), (0.0, 2), (1.0, 3))]))
    assert [value for _, value in told] == [1, 2, 3]


def test_an_edge_that_never_ticks_holds_nothing_back() -> None:
    told = run(lambda: together([csp.null_ts(int), at((1.0, 1)), csp.null_ts(int), at((1.0, 2))]))
    assert told == [(T0 + SECOND, 1), (T0 + SECOND, 2)]


def test_a_stream_is_split_by_symbol() -> None:
    events = at((0.0, Named(symbol="A", n=1)), (1.0, Named(symbol="B", n=2)), (2.0, Named(symbol="C", n=3)))
    told = run(lambda: by_symbol(events, ["A", "B"]))
    assert [[value.n for _, value in told[symbol]] for symbol in ("A", "B")] == [[1], [2]]
