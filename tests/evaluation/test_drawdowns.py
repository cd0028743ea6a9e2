"""Drawdowns worked by hand, and against the definition."""

from datetime import datetime

import empyrical
import numpy as np
import pytest
from finished import HOUR_NS, START_NS, daily_times
from hypothesis import given
from hypothesis import strategies as st

from evaluation.drawdowns import Drawdown, deepest, drawdowns, fall
from evaluation.returns import max_drawdown
from evaluation.run import Ints

POSITIVE = st.lists(st.floats(1.0, 1e6), min_size=2, max_size=60)


def ns(*hours: float) -> Ints:
    return np.array([START_NS + round(h * HOUR_NS) for h in hours], dtype=np.int64)


def test_a_drawdown_lasts_from_the_last_mark_at_the_peak_to_the_first_back_at_it() -> None:
    times = ns(0.0, 24.0, 48.0, 72.0, 96.0, 120.0, 144.0)
    equity = np.array([100.0, 120.0, 120.0, 90.0, 100.0, 120.0, 125.0])

    (only,) = falls = deepest(times, equity, 100.0)

    assert only == Drawdown(
        peak=datetime(2024, 1, 3),
        trough=datetime(2024, 1, 4),
        recovered=datetime(2024, 1, 6),
        depth=0.25,
        days_down=1.0,
        days_up=2.0,
        days=3.0,
    )
    depth, lasted = max_drawdown(len(times), falls)
    assert (depth.value, lasted.value) == (0.25, 3.0)


def test_a_drawdown_counts_from_the_initial_cash_and_may_never_end() -> None:
    (only,) = deepest(ns(0.0, 24.0, 60.0), np.array([90.0, 60.0, 75.0]), 100.0)

    assert only.depth == pytest.approx(0.4)
    assert (only.peak, only.trough, only.recovered) == (datetime(2024, 1, 1), datetime(2024, 1, 2), None)
    assert (only.days_down, only.days_up, only.days) == (1.0, None, 2.5)


def test_the_deepest_come_first_the_earlier_of_equal_ones_and_no_more_than_asked_for() -> None:
    equity = np.array([100.0, 90.0, 100.0, 50.0, 100.0, 90.0, 100.0, 99.0, 100.0, 80.0])
    falls = deepest(ns(*range(10)), equity, 100.0, count=4)

    assert [f.trough.hour for f in falls] == [3, 9, 1, 5]
    assert [f.recovered is None for f in falls] == [False, True, False, False]


def test_rising_equity_has_a_drawdown_of_zero_and_no_dates() -> None:
    falls = deepest(ns(0.0, 1.0), np.array([100.0, 101.0]), 100.0)
    depth, lasted = max_drawdown(2, falls)

    assert (falls, depth.value, lasted.value) == ((), 0.0, None)


def test_one_mark_is_no_drawdown() -> None:
    assert deepest(ns(0.0), np.array([50.0]), 100.0) == ()


def test_an_account_that_owes_has_lost_more_than_all() -> None:
    assert deepest(ns(0.0, 1.0), np.array([100.0, -20.0]), 100.0)[0].depth == pytest.approx(1.2)


def test_a_profit_falls_from_its_peak_or_from_nothing() -> None:
    assert fall(np.array([5.0, 9.0, 2.0, 4.0])) == 7.0
    assert fall(np.array([-3.0, 2.0])) == 3.0
    assert fall(np.array([1.0, 2.0])) == 0.0
    assert fall(np.array([])) == 0.0


@given(equity=POSITIVE)
def test_drawdown_of_a_solvent_account_lies_in_zero_to_one(equity: list[float]) -> None:
    falls = drawdowns(np.array(equity), equity[0])

    assert ((falls >= 0.0) & (falls < 1.0)).all()


@given(equity=POSITIVE)
def test_the_deepest_agrees_with_empyrical_on_one_mark_a_day(equity: list[float]) -> None:
    values = np.array(equity)
    falls = deepest(np.array(daily_times(len(equity))), values, equity[0])
    depth, _ = max_drawdown(len(values), falls)

    assert depth.value == pytest.approx(-empyrical.max_drawdown(values[1:] / values[:-1] - 1.0), abs=1e-9)


@given(st.lists(st.integers(1, 20), min_size=2, max_size=60))
def test_drawdowns_are_found_mark_by_mark(values: list[int]) -> None:
    expected: list[list[float]] = []  # depth, and rows of peak, trough and recovery, by the plainest loop
    peak, top = 10.0, 0
    for row, value in enumerate(values):
        if value >= peak:
            if expected and expected[-1][3] < 0:
                expected[-1][3] = row
            peak, top = value, row
        else:
            depth = 1.0 - value / peak
            if not expected or expected[-1][3] >= 0:
                expected.append([depth, top, row, -1])
            elif depth > expected[-1][0]:
                expected[-1][0], expected[-1][2] = depth, row
    expected.sort(key=lambda item: (-item[0], item[1], item[2]))

    found = deepest(ns(*range(len(values))), np.array(values, dtype=np.float64), 10.0, count=len(values))

    start = datetime(2024, 1, 1)
    rows = [
        [f.depth, *(-1 if t is None else (t - start).total_seconds() / 3600 for t in (f.peak, f.trough, f.recovered))]
        for f in found
    ]
    assert rows == expected
