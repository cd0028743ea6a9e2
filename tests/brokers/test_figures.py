"""Figures beside their limits."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.figures import apart, passed

FINITE = st.floats(-1e12, 1e12).map(lambda value: value + 0.0)  # no -0.0


@pytest.mark.parametrize(
    ("value", "limit", "told"),
    [
        (0.36, 0.35, ("0.3600", "0.3500")),
        (0.00061, 0.0006, ("0.00061", "0.00060")),
        (100.001, 100.0, ("100.0010", "100.0000")),
        (0.35, 0.35, ("0.3500", "0.3500")),
        (float("inf"), 1.5, ("inf", "1.5000")),
        (float("nan"), 1.5, ("nan", "1.5000")),
    ],
)
def test_digits_suffice_to_tell_a_figure_from_its_limit(value: float, limit: float, told: tuple[str, str]) -> None:
    assert apart(value, limit) == told


@given(FINITE, FINITE)
def test_figures_that_differ_differ_as_printed(value: float, limit: float) -> None:
    left, right = apart(value, limit, 2)
    assert (left != right) is (value != limit)
    assert float(left) == pytest.approx(value, abs=0.0051)


def test_what_was_passed_is_a_sentence() -> None:
    assert passed("drawdown", 0.00064, 0.0006) == "drawdown is 0.00064, the limit 0.00060"
    told = passed("drawdown", 0.5, 0.35, datetime(2026, 1, 2))
    assert told == "drawdown was 0.5000 at 2026-01-02 00:00:00, the limit 0.3500"
