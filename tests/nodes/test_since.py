"""History is kept back until the run goes live."""

import csp
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, ticks

from nodes.since import after_live, from_live, since_live


def test_the_last_of_history_comes_with_live_and_then_everything() -> None:
    assert run(lambda: since_live(ticks(1.0, 2.0, 3.0, 4.0), at((1.5, True)))) == [
        (T0 + 1.5 * SECOND, 2.0),
        (T0 + 2 * SECOND, 3.0),
        (T0 + 3 * SECOND, 4.0),
    ]


def test_an_event_in_the_cycle_of_live_comes_once() -> None:
    assert run(lambda: since_live(ticks(1.0, 2.0, 3.0), ticks(None, True))) == [
        (T0 + SECOND, 2.0),
        (T0 + 2 * SECOND, 3.0),
    ]


def test_without_history_nothing_comes_with_live() -> None:
    assert run(lambda: since_live(ticks(None, None, 3.0), ticks(True))) == [(T0 + 2 * SECOND, 3.0)]


def test_without_live_nothing_comes() -> None:
    assert run(lambda: since_live(ticks(1.0, 2.0), csp.null_ts(bool))) == []


def test_only_what_happens_live_comes() -> None:
    assert run(lambda: from_live(ticks(1.0, 2.0, 3.0), ticks(None, True))) == [
        (T0 + SECOND, 2.0),
        (T0 + 2 * SECOND, 3.0),
    ]


def test_a_duration_counts_from_live() -> None:
    assert run(lambda: after_live(at((1.5, True)), 2.0)) == [(T0 + 3.5 * SECOND, True)]
    assert run(lambda: after_live(csp.null_ts(bool), 2.0)) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(0, 20))
def test_what_comes_is_a_suffix_of_the_stream(values: list[int], live: int) -> None:
    out = [v for _, v in run(lambda: since_live(ticks(*values, typ=int), at((live + 0.5, True))))]
    assert out == values[min(live, len(values) - 1) :]
