"""Limits on losses: what they see, when they speak, and that they speak once. The examples of docs/concepts/risk.md are
the tests named test_example."""

import math
from datetime import datetime, timedelta
from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, ticks

from feeds.instruments import Instrument
from nodes.events import PositionUpdate, RiskAction
from nodes.loss_limits import account_limits, losing_streak, next_midnight, symbol_loss

A = Instrument(symbol="A", tick="0.01", lot="0.1")
ES = Instrument(symbol="ES", tick="0.25", lot="1", multiplier="50")
OFF = math.inf
HOUR = 3_600.0
MIDNIGHT = datetime(2024, 1, 3)  # T0 is 14:30 on the 2nd
EVENING = (MIDNIGHT - T0).total_seconds()


def brief(action: RiskAction) -> tuple[str, str, float]:
    return action.kind.name, action.code, round(action.value, 6)


def account(
    equity: Any, gross: Any = 0.0, *, drawdown: float = OFF, daily: float = OFF, exposure: float = OFF
) -> list[Any]:
    def graph() -> Any:
        edges = [
            ticks(*x) if isinstance(x, list) else at(*x) if isinstance(x, tuple) else csp.const(x)
            for x in (equity, gross)
        ]
        return account_limits(*edges, drawdown, daily, exposure)

    return [(when, *brief(action)) for when, action in run(graph, seconds=30 * 86_400)]


def test_example_drawdown_stops_once_in_the_cycle_of_the_change() -> None:
    assert account([100.0, 120.0, 109.0, 107.0, 50.0, 200.0, 100.0], drawdown=0.1) == [
        (T0 + 3 * SECOND, "EMERGENCY_STOP", "drawdown", round(1 - 107 / 120, 6))
    ]


def test_lost_equity_is_a_full_drawdown() -> None:
    assert account([100.0, -20.0], drawdown=0.9) == [(T0 + SECOND, "EMERGENCY_STOP", "drawdown", 1.2)]


def test_example_daily_loss_is_that_since_the_day_began() -> None:
    tuesday = T0 - timedelta(hours=14, minutes=30) + timedelta(days=1) - T0  # seconds to the first midnight
    day = tuesday.total_seconds()
    equity = (
        (0.0, 100.0), (day + 10 * HOUR, 104.0), (day + 20 * HOUR, 95.5), (day + 24 * HOUR, 96.0),
        (day + 30 * HOUR, 91.3), (day + 31 * HOUR, 91.0), (day + 32 * HOUR, 10.0),
    )  # fmt: skip
    assert account(equity, daily=0.05) == [
        (MIDNIGHT + timedelta(hours=31), "EMERGENCY_STOP", "daily_loss", round(1 - 91 / 96, 6))
    ]


def test_the_marks_of_midnight_belong_to_the_day_that_ends() -> None:
    # 100 until the bars of midnight, whose marks settle a microsecond later.
    late = EVENING + 1e-6
    assert account(((0.0, 100.0), (late, 94.0)), daily=0.05) == [
        (MIDNIGHT + timedelta(microseconds=1), "EMERGENCY_STOP", "daily_loss", 0.06)
    ]
    assert account(((0.0, 100.0), (late, 96.0), (late + 1, 93.0)), daily=0.05) == []
    assert len(account(((0.0, 100.0), (EVENING + 1, 94.0)), daily=0.05)) == 1  # 100 was still the day's start


def test_a_day_without_a_mark_is_passed_over() -> None:
    equity = ((0.0, 100.0), (EVENING + 60 * HOUR, 97.0), (EVENING + 61 * HOUR, 94.0), (EVENING + 85 * HOUR, 92.0))
    assert [code for _, _, code, _ in account(equity, daily=0.05)] == ["daily_loss"]


def test_one_stop_a_run_whichever_limit_it_was() -> None:
    assert [code for *_, code, _ in account([100.0, 94.0, 50.0, 1.0], drawdown=0.3, daily=0.05)] == ["daily_loss"]
    assert [code for *_, code, _ in account([100.0, 94.0, 50.0, 1.0], drawdown=0.05, daily=0.05)] == ["drawdown"]


def test_example_gross_exposure_reduces_at_a_breach_and_when_it_grows_by_a_twentieth() -> None:
    gross = [90.0, 110.0, 115.0, 130.0, 90.0, 105.0]
    assert account([100.0] * 6, gross, exposure=1.0) == [
        (T0 + SECOND, "REDUCE_POSITIONS", "gross_exposure", 1.1),
        (T0 + 3 * SECOND, "REDUCE_POSITIONS", "gross_exposure", 1.3),
        (T0 + 5 * SECOND, "REDUCE_POSITIONS", "gross_exposure", 1.05),
    ]


def test_exposure_without_equity_is_infinite() -> None:
    assert account([100.0, 0.0, -1.0], [50.0, 50.0, 0.0], exposure=1.0) == [
        (T0 + SECOND, "REDUCE_POSITIONS", "gross_exposure", math.inf)
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_impossible_equity_stops_the_engine(bad: float) -> None:
    with pytest.raises(ValueError, match="equity must be finite"):
        account([100.0, bad], drawdown=0.3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1.0, 1e6), min_size=1, max_size=30))
def test_rising_equity_never_stops(equity: list[float]) -> None:
    assert account(sorted(equity), drawdown=0.01, daily=0.01) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(50, 150)), min_size=1, max_size=20))
def test_a_stop_comes_at_the_first_loss_that_is_too_large(points: list[tuple[int, int]]) -> None:
    # Equity every few hours, judged by the plainest bookkeeping.
    seconds, marks = 0.0, []
    for hours, value in points:
        marks.append((seconds, float(value)))
        seconds += hours * HOUR
    peak, start, day, last, expected = 0.0, marks[0][1], None, marks[0][1], []
    for when, value in marks:
        today = (T0 + timedelta(seconds=when)).date()
        if day is not None and today != day:
            start = last
        day, last, peak = today, value, max(peak, value)
        if value < peak * 0.7 or value < start * 0.9:
            expected = [T0 + timedelta(seconds=when)]
            break
    assert [when for when, *_ in account(tuple(marks), drawdown=0.3, daily=0.1)] == expected


def position(symbol: str, quantity: float, average: float, realised: float = 0.0, fees: float = 0.0) -> PositionUpdate:
    return PositionUpdate(symbol=symbol, quantity=quantity, average_price=average, realised=realised, fees=fees)


def losses(held: list[Any], prices: list[Any], limit: float, *, unit: float = 1.0, instrument: Instrument = A) -> Any:
    """The halts of one symbol: positions and prices at seconds; a unit is worth `unit` times the price."""

    def graph() -> Any:
        close, books = at(*prices), at(*held)
        worth = close * unit
        value = csp.default(books.quantity * worth, 0.0)
        equity = csp.const(10_000.0)
        return symbol_loss(equity, books, value, close, worth, instrument, limit)

    return [(when, *brief(action), action.symbol, action.until) for when, action in run(graph, seconds=3 * 86_400)]


def test_example_the_loss_of_a_symbol_halts_it_to_the_next_midnight() -> None:
    held = [(0.0, position("A", 10.0, 100.0, fees=1.0))]
    assert losses(held, [(0.0, 100.0), (10.0, 80.2), (20.0, 80.0), (30.0, 10.0)], 0.02) == [
        (T0 + 20 * SECOND, "HALT_SYMBOL", "symbol_loss", 0.0201, "A", MIDNIGHT)
    ]


def test_a_loss_counts_from_the_day_in_which_it_came() -> None:
    held = [(0.0, position("A", 10.0, 100.0))]
    prices = [(0.0, 100.0), (10.0, 85.0), (EVENING, 81.0), (EVENING + 60, 70.0), (EVENING + 120, 60.9)]
    # 19 until midnight, whose price belongs to the day that ends; then 20.1 more.
    assert losses(held, prices, 0.02) == [
        (MIDNIGHT + timedelta(seconds=120), "HALT_SYMBOL", "symbol_loss", 0.0201, "A", datetime(2024, 1, 4))
    ]


def test_realised_losses_and_foreign_currency_count() -> None:
    # ES at 50 a point, in a currency worth 2: a realised 300 and an open 2 points are (300 + 100) × 2.
    held = [(0.0, position("ES", 1.0, 1_600.0)), (10.0, position("ES", 1.0, 1_600.0, realised=-300.0))]
    prices = [(0.0, 1_600.0), (20.0, 1_598.0)]
    assert [(when, value) for when, _, _, value, *_ in losses(held, prices, 0.07, unit=100.0, instrument=ES)] == [
        (T0 + 20 * SECOND, 0.08)
    ]


def test_profits_never_halt() -> None:
    held = [(0.0, position("A", -10.0, 100.0, realised=500.0))]
    assert losses(held, [(0.0, 100.0), (1.0, 50.0)], 0.001) == []


def streak(*updates: PositionUpdate, most: int = 2) -> list[Any]:
    points = [(float(i), each) for i, each in enumerate(updates)]
    out = run(lambda: losing_streak(at(*points), (A, ES), most, 600.0))
    return [((when - T0).total_seconds(), *brief(action), action.symbol, action.until) for when, action in out]


def test_example_losing_trips_in_a_row_pause_a_symbol() -> None:
    trips = [
        position("A", 1.0, 100.0, fees=2.5),
        position("A", 0.0, 0.0, realised=4.0, fees=5.0),
        position("A", -1.0, 100.0, realised=4.0, fees=5.0),
        position("A", 0.0, 0.0, realised=1.0, fees=5.0),
    ]
    assert streak(*trips) == [
        (3.0, "HALT_SYMBOL", "cool_down", 2.0, "A", T0 + timedelta(seconds=603)),
    ]


def test_a_trip_that_has_not_lost_ends_the_row_and_each_symbol_has_its_own() -> None:
    def trip(symbol: str, before: float, after: float) -> list[PositionUpdate]:
        return [position(symbol, 1.0, 1.0, realised=before), position(symbol, 0.0, 0.0, realised=after)]

    a, b = [0.0, -1.0, -1.0, -2.0], [0.0, -1.0]
    ups = [*trip("A", a[0], a[1]), *trip("ES", b[0], b[1]), *trip("A", a[1], a[2]), *trip("A", a[2], a[3])]
    assert streak(*ups) == []
    assert len(streak(*ups, *trip("A", -2.0, -3.0))) == 1


def test_a_fill_through_zero_ends_a_trip_and_dust_counts_as_flat() -> None:
    turned = [position("A", 1.0, 9.0), position("A", -1.0, 8.0, realised=-1.0), position("A", 0.01, 0.0, realised=-2.0)]
    assert [value for _, _, _, value, *_ in streak(*turned)] == [2.0]


def test_a_trip_that_breaks_even_is_no_loss() -> None:
    # 0.3 - 0.2 is a little less than 0.1.
    trips = [position("A", 1.0, 9.0), position("A", 0.0, 0.0, realised=0.1), position("A", 1.0, 9.0, realised=0.1)]
    assert streak(*trips, position("A", 0.0, 0.0, realised=0.3, fees=0.2), most=1) == []


def test_the_count_begins_anew_after_a_pause() -> None:
    trips = [p for i in range(5) for p in (position("A", 1.0, 9.0, -i), position("A", 0.0, 0.0, -i - 1.0))]
    assert [when for when, *_ in streak(*trips)] == [3.0, 7.0]


def test_the_next_midnight_is_always_ahead() -> None:
    assert next_midnight(MIDNIGHT) == datetime(2024, 1, 4)
    assert next_midnight(MIDNIGHT - timedelta(microseconds=1)) == MIDNIGHT
    assert next_midnight(datetime(2023, 12, 31, 5)) == datetime(2024, 1, 1)
