"""No target passes before the run is live and its feeds deliver."""

from typing import Any

import csp
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, at, run

from feeds.events import FeedState, FeedStatus
from nodes.events import TargetPosition
from nodes.hold import hold_until_live


def target(quantity: float) -> TargetPosition:
    return TargetPosition(symbol="A", quantity=quantity, asof=T0)


def status(state: str, symbol: str = "A", feed: str = "trades") -> FeedStatus:
    return FeedStatus(feed=feed, symbol=symbol, state=FeedState[state], detail="", value=0.0)


def passed(targets: Any, live: float | None, *statuses: Any, feeds: tuple[str, ...] = ("trades",)) -> list[Any]:
    """(seconds, quantity) of what passes; `targets` maps seconds to quantities."""
    out = run(
        lambda: hold_until_live(
            at(*((when, target(quantity)) for when, quantity in targets.items()), typ=TargetPosition),
            csp.null_ts(bool) if live is None else at((live, True)),
            at(*statuses, typ=FeedStatus),
            "A",
            feeds,
        )
    )
    return [((when - T0).total_seconds(), told.quantity) for when, told in out]


UP = (0.5, status("CONNECTED"))


def test_the_latest_target_passes_when_the_run_goes_live_and_then_every_one() -> None:
    assert passed({1: 1.0, 2: 2.0, 4: 4.0, 5: 5.0}, 3.0, UP) == [(3.0, 2.0), (4.0, 4.0), (5.0, 5.0)]


def test_a_target_in_the_cycle_of_live_passes_once() -> None:
    assert passed({1: 1.0, 3: 3.0}, 3.0, UP) == [(3.0, 3.0)]


def test_nothing_passes_where_the_run_does_not_go_live() -> None:
    assert passed({1: 1.0, 2: 2.0}, None, UP) == []


def test_without_a_target_nothing_comes_with_live() -> None:
    assert passed({4: 4.0}, 3.0, UP) == [(4.0, 4.0)]


def test_each_named_feed_must_have_delivered_for_the_symbol() -> None:
    two = ("trades", "orders")
    up = [(3.5, status("CONNECTED", "B", "orders")), (4.5, status("CONNECTED", "", "orders"))]
    assert passed({1: 1.0, 5: 5.0}, 2.0, UP, *up[:1], feeds=two) == []
    assert passed({1: 1.0, 5: 5.0}, 2.0, UP, *up, feeds=two) == [(4.5, 1.0), (5.0, 5.0)]


def test_a_feed_that_is_not_named_is_not_waited_for() -> None:
    assert passed({1: 1.0}, 2.0, (0.5, status("STALE", feed="news")), feeds=()) == [(2.0, 1.0)]


def test_a_feed_that_broke_before_the_run_went_live_is_waited_for() -> None:
    broken = [UP, (1.0, status("GAP")), (3.0, status("LAGGING")), (4.0, status("RECOVERED"))]
    assert passed({1: 1.0}, 2.0, *broken) == [(4.0, 1.0)]


def test_one_that_breaks_later_holds_nothing_back() -> None:
    assert passed({1: 1.0, 4: 4.0}, 2.0, UP, (3.0, status("STALE"))) == [(2.0, 1.0), (4.0, 4.0)]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=12),
    st.integers(0, 12),
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(list(FeedState))), max_size=5),
)
def test_what_passes_is_the_end_of_the_stream(wanted: list[int], live: int, told: list[tuple[int, FeedState]]) -> None:
    targets = {float(number): float(quantity) for number, quantity in enumerate(wanted)}
    statuses = [(when + 0.25, status(state.name)) for when, state in sorted(told, key=lambda each: each[0])]
    out = [quantity for _, quantity in passed(targets, live + 0.5, *statuses)]
    assert out == (wanted[-len(out) :] if out else [])
    if not any(state in (FeedState.CONNECTED, FeedState.RECOVERED) for _, state in told):
        assert out == []
