import math
import statistics
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.rolling import RollingMoments

NUMBERS = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)


def filled(size: int, *values: float) -> RollingMoments:
    window = RollingMoments(size)
    for value in values:
        window.push(value)
    return window


@settings(max_examples=200, deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=40), st.integers(2, 10))
def test_moments_are_those_of_the_last_values(xs: list[float], size: int) -> None:
    window = filled(size, *xs)

    last = [Fraction(x) for x in xs[-size:]]
    assert len(window) == len(last)
    assert window.full == (len(xs) >= size)
    assert window.mean == pytest.approx(float(statistics.mean(last)), rel=1e-12, abs=1e-17)
    assert window.deviation == pytest.approx(math.sqrt(statistics.variance(last)), rel=1e-12, abs=1e-17)


def test_an_outlier_that_left_leaves_nothing_behind() -> None:
    # A running float sum of squares loses 0.1**2 beside 1e9**2, and does not get it back.
    window = filled(3, 1e9, 0.1, 0.1, 0.1)

    assert window.deviation == 0.0
    assert window.mean == 0.1


def test_a_long_run_does_not_drift() -> None:
    window = RollingMoments(7)
    for i in range(50_000):
        window.push(math.sin(i) * 10.0 ** (i % 9))

    fresh = filled(7, *(math.sin(i) * 10.0 ** (i % 9) for i in range(49_993, 50_000)))
    assert (window.mean, window.deviation) == (fresh.mean, fresh.deviation)


def test_an_empty_window_and_a_single_value_have_no_deviation() -> None:
    assert (RollingMoments(3).mean, RollingMoments(3).deviation) == (0.0, 0.0)
    assert (filled(3, 5.0).mean, filled(3, 5.0).deviation) == (5.0, 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e101])
def test_a_value_that_is_no_number_is_refused_and_changes_nothing(value: float) -> None:
    window = filled(3, 1.0, 2.0)

    with pytest.raises(ValueError, match="value must be a number"):
        window.push(value)

    assert (len(window), window.mean) == (2, 1.5)


def test_the_largest_values_do_not_overflow() -> None:
    assert filled(4, 1e100, -1e100, 1e100, -1e100).deviation == pytest.approx(1e100 * math.sqrt(4 / 3))


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="size must be at least 1, was 0"):
        RollingMoments(0)
