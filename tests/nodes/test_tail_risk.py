"""What could be lost. The examples of docs/concepts/risk.md are the tests named test_example."""

import math
from datetime import timedelta
from itertools import pairwise
from typing import Any

import csp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, run, ticks

from nodes.tail_risk import (
    ewma_value_at_risk,
    expected_shortfall,
    largest_return,
    profits_of,
    tail_limits,
    value_at_risk,
)

OFF = math.inf
SWING = [100.0 * (1.1 if i % 2 else 1.0) for i in range(40)]  # 10 % up, 9.1 % down


def test_example_value_at_risk_is_the_loss_exceeded_in_a_twentieth_of_the_steps() -> None:
    assert value_at_risk(np.arange(-10.0, 11.0)) == pytest.approx(9.0)


def test_example_ewma_value_at_risk_weighs_the_last_steps_most() -> None:
    calm = np.where(np.arange(100) % 2 == 0, 10.0, -10.0)
    assert ewma_value_at_risk(calm) == pytest.approx(16.45, abs=0.005)
    assert ewma_value_at_risk(np.append(calm, -30.0)) == pytest.approx(20.02, abs=0.005)
    assert ewma_value_at_risk(np.append(-30.0, calm)) == pytest.approx(16.45, abs=0.3)
    assert 1.645 * np.sqrt(np.mean(np.append(calm, -30.0) ** 2)) == pytest.approx(17.1, abs=0.05)


def test_example_expected_shortfall_is_the_mean_of_the_worst_twentieth() -> None:
    assert expected_shortfall(-np.arange(1.0, 31.0)) == pytest.approx((30 + 0.5 * 29) / 1.5)
    assert expected_shortfall(-np.arange(1.0, 21.0)) == 20.0
    assert expected_shortfall(np.arange(1.0, 31.0)) == 0.0


def test_the_quantile_is_that_of_numpy_and_the_variance_that_of_the_covariances() -> None:
    rng = np.random.default_rng(3)
    prices = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, (101, 2)), axis=0))
    held = np.array([1_000.0, -500.0])
    returns = prices[1:] / prices[:-1] - 1.0  # (100, 2)

    profits = profits_of(list(prices.T), held.tolist())

    assert profits is not None
    np.testing.assert_allclose(profits, returns @ held, rtol=1e-12)
    assert value_at_risk(profits) == pytest.approx(-np.quantile(returns @ held, 0.05), rel=1e-12)
    weights = 0.94 ** np.arange(99, -1, -1.0)
    covariance = (returns * (weights / weights.sum())[:, None]).T @ returns  # (2, 2)
    assert ewma_value_at_risk(profits) == pytest.approx(
        1.6448536269514722 * np.sqrt(held @ covariance @ held), rel=1e-12
    )


def test_there_is_no_tail_before_twenty_returns() -> None:
    assert profits_of([np.arange(100.0, 120.0)], [1.0]) is None
    assert profits_of([np.arange(100.0, 121.0)], [1.0]) is not None


def test_a_symbol_without_a_price_did_not_move() -> None:
    late = np.append(np.full(24, np.nan), 5.0)
    profits = profits_of([np.arange(100.0, 125.0), late], [0.0, 1.0])
    assert profits is not None
    assert not profits.any()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.5, 2.0), min_size=2, max_size=40), st.integers(1, 9))
def test_the_largest_return_is_that_of_the_window(prices: list[float], window: int) -> None:
    out = dict(run(lambda: csp.default(largest_return(ticks(*prices), window), 0.0)))
    sizes = [abs(b / a - 1.0) for a, b in pairwise(prices)]
    largest = 0.0
    for i in range(len(prices)):
        largest = out.get(T0 + i * SECOND, largest)
        assert largest == max(sizes[max(0, i - window) : i], default=0.0)


def test_several_symbols_are_looked_at_when_all_of_an_instant_are_in() -> None:
    # Both prices come at 0 s in cycles of their own; the second symbol's position is too large.
    def graph() -> Any:
        prices = {"A": ticks(1.0, 1.0), "B": csp.delay(ticks(1.0, 1.0), timedelta())}
        return tail_limits(csp.const(100.0), prices, {"A": ticks(10.0), "B": ticks(60.0)}, 20, 0.5, OFF, OFF, OFF)

    assert [(when, action.value) for when, action in run(graph)] == [(T0 + timedelta(microseconds=1), 0.6)]


def test_several_symbols_share_their_steps() -> None:
    # The second has no price for ten steps; its returns count from its second price on.
    def graph() -> Any:
        prices = {"A": ticks(*[100.0] * 40), "B": ticks(*[None] * 10, *SWING[:30])}
        values = {"A": ticks(0.0), "B": ticks(100.0)}
        return tail_limits(csp.const(100.0), prices, values, 50, OFF, 0.05, OFF, OFF)

    ((when, action),) = run(graph)
    assert (when, action.code) == (T0 + 20 * SECOND + timedelta(microseconds=1), "value_at_risk")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=20, max_size=300))
def test_the_shortfall_is_at_least_the_value_at_risk(profits: list[float]) -> None:
    steps = np.array(profits)
    at_risk, shortfall = value_at_risk(steps), expected_shortfall(steps)
    assert 0.0 <= at_risk <= shortfall * (1 + 1e-9) + 1e-9
    assert shortfall <= max(0.0, -steps.min()) * (1 + 1e-9)
    assert 0.0 <= ewma_value_at_risk(steps) <= 1.645 * np.abs(steps).max() * (1 + 1e-9)


def actions(closes: Any, held: Any, equity: float = 100.0, window: int = 20, **limits: float) -> list[Any]:
    names = ("concentration_max", "var_max", "var_ewma_max", "es_max")

    def graph() -> Any:
        return tail_limits(
            csp.const(equity), {"A": ticks(*closes)}, {"A": ticks(*held)}, window, *(limits.get(n, OFF) for n in names)
        )

    return [(when, action.kind.name, action.code, round(action.value, 6)) for when, action in run(graph)]


def test_example_concentration_is_checked_with_the_price() -> None:
    assert actions([1.0, 1.0, 1.0], [40.0, -60.0, -62.0], concentration_max=0.5) == [
        (T0 + SECOND, "REDUCE_POSITIONS", "concentration", 0.6)
    ]


@pytest.mark.parametrize(
    ("limit", "code", "value"),
    [
        ("var_max", "value_at_risk", 1 - 1 / 1.1),
        ("var_ewma_max", "ewma_value_at_risk", 0.157),
        ("es_max", "expected_shortfall", 1 - 1 / 1.1),
    ],
)
def test_each_tail_asks_to_reduce_once_there_are_twenty_returns(limit: str, code: str, value: float) -> None:
    ((when, kind, told, size),) = actions(SWING, [100.0] * 40, **{limit: 0.05})
    assert (when, kind, told) == (T0 + 20 * SECOND, "REDUCE_POSITIONS", code)
    assert size == pytest.approx(value, abs=0.001)


def test_of_several_limits_the_one_passed_by_most_speaks() -> None:
    out = actions(SWING, [100.0] * 40, concentration_max=0.5, var_max=0.01, es_max=0.08)
    assert [code for _, _, code, _ in out] == ["concentration", "value_at_risk"]  # the second is there after 20 steps


def test_without_positions_or_equity_nothing_is_asked() -> None:
    assert actions(SWING, [0.0] * 40, concentration_max=0.1, var_max=0.01) == []
    assert actions(SWING, [10.0] * 40, equity=-1.0, concentration_max=0.1, var_max=0.01) == []
