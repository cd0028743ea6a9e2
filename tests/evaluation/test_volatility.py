"""Volatility baselines against the libraries that define them; nothing is fitted on what is judged."""

import math

import numpy as np
import pytest
from arch import arch_model
from finished import HOUR_NS, START_NS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.volatility import (
    BASELINES,
    VARIANCE_MIN,
    baselines,
    ewma_variance,
    fit_garch,
    fit_student,
    garch_variance,
    hours_of_day,
    qlike,
    range_variance,
    student_log_density,
)


def hourly(count: int) -> np.ndarray:
    return START_NS + HOUR_NS * np.arange(1, count + 1)


def garch_returns(count: int, seed: int = 0, unit: float = 0.01) -> np.ndarray:
    chance = np.random.default_rng(seed)
    shocks = chance.standard_t(6, count) / math.sqrt(1.5)
    returns, variance = np.empty(count), 1.0
    for i in range(count):
        returns[i] = math.sqrt(variance) * shocks[i]
        variance = 0.05 + 0.1 * returns[i] ** 2 + 0.85 * variance
    return unit * returns


def test_ewma_is_the_recursion_spelt_out_and_knows_only_what_came_before() -> None:
    returns = np.array([0.01, -0.02, 0.0, 0.03])

    found = ewma_variance(returns, 1.0, 4e-4)

    assert found == pytest.approx([4e-4, 0.5 * 4e-4 + 0.5 * 1e-4, 3.25e-4, 1.625e-4])
    assert ewma_variance(np.array([0.01, -0.02, 0.0, 99.0]), 1.0, 4e-4) == pytest.approx(found)


def test_ewma_of_a_price_that_stands_still_keeps_a_floor() -> None:
    assert ewma_variance(np.zeros(10_000), 4.0, 1e-4)[-1] == pytest.approx(VARIANCE_MIN * 1e-4)


def test_garch_filters_as_arch_does() -> None:
    returns = garch_returns(1_500, unit=1.0)
    model = arch_model(returns, mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False)
    omega, alpha, beta = 0.05, 0.1, 0.85
    fixed = model.fix([omega, alpha, beta, 6.0])
    theirs = np.square(np.asarray(fixed.conditional_volatility))

    ours = garch_variance(returns, omega, alpha, beta, theirs[0])

    assert ours == pytest.approx(theirs, rel=1e-10)


def test_garch_is_fitted_in_any_unit_of_returns() -> None:
    returns = garch_returns(4_000)

    found = fit_garch(returns)
    larger = fit_garch(100.0 * returns)

    assert found is not None
    assert larger is not None
    assert larger == pytest.approx((1e4 * found[0], found[1], found[2]), rel=1e-4)
    assert found[1] == pytest.approx(0.1, abs=0.04)
    assert found[2] == pytest.approx(0.85, abs=0.06)


def test_student_fit_is_the_likeliest_that_scipy_finds() -> None:
    values = 0.7 * np.random.default_rng(1).standard_t(4.0, 4_000)

    df, scale = fit_student(np.concatenate([values, np.zeros(100)]))

    theirs = stats.t.fit(values, floc=0.0)
    assert (df, scale) == pytest.approx((theirs[0], theirs[2]), rel=0.01)


@pytest.mark.parametrize("df", [2.5, 7.0, math.inf])
def test_log_density_is_that_of_scipy(df: float) -> None:
    values = np.linspace(-5.0, 5.0, 11)
    law = stats.norm if math.isinf(df) else stats.t(df)

    assert student_log_density(values, df, 0.5) == pytest.approx(law.logpdf(values / 0.5) - math.log(0.5))


def test_a_tail_of_few_returns_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="at least 500"):
        fit_student(np.ones(499))


def test_hours_are_those_of_the_close_in_utc() -> None:
    assert hours_of_day(START_NS + HOUR_NS * np.array([0, 1, 23, 24])).tolist() == [0, 1, 23, 0]


def test_no_baseline_sees_what_it_is_judged_on() -> None:
    returns, times = garch_returns(3_000), hourly(3_000)
    returns[::50] = 0.0
    training = np.arange(3_000) < 2_000
    changed = returns.copy()
    changed[2_501:] *= -7.0

    before, after = baselines(returns, times, training), baselines(changed, times, training)

    assert [one.name for one in before] == list(BASELINES)
    for one, other in zip(before, after, strict=True):
        assert (one.df, one.zero, one.told) == (other.df, other.zero, other.told)
        # The forecast for bar 2,501 is made before that bar.
        assert one.scale[:2_502].tolist() == other.scale[:2_502].tolist()
        assert one.variance[:2_502].tolist() == other.variance[:2_502].tolist()
        assert one.scale[2_502] != other.scale[2_502]


def test_baselines_know_the_hour_and_the_share_of_zeros() -> None:
    chance = np.random.default_rng(3)
    times = hourly(24_000)
    size = np.where(hours_of_day(times) == 14, 3.0, 1.0)
    returns = 0.01 * size * chance.standard_t(5, 24_000)
    returns[chance.random(24_000) < 0.08] = 0.0

    by_name = {one.name: one for one in baselines(returns, times, np.ones(24_000, bool))}

    hourly_scale = by_name["ewma_hour_t"].scale
    quiet, busy = (np.median(hourly_scale[hours_of_day(times) == hour]) for hour in (3, 14))
    assert busy / quiet == pytest.approx(3.0, rel=0.1)
    assert by_name["ewma_hour_t"].zero == pytest.approx(0.08, abs=0.01)
    assert by_name["random_walk"].df == math.inf
    losses = {name: qlike(one.variance, returns).mean() for name, one in by_name.items()}
    assert losses["ewma_hour_t"] < losses["ewma_t"] - 0.1


def test_qlike_is_least_at_the_true_variance() -> None:
    returns = 0.02 * np.random.default_rng(0).standard_normal(20_000)

    losses = [qlike(np.full(20_000, v), returns).mean() for v in (2e-4, 3.5e-4, 4e-4, 4.6e-4, 8e-4)]

    assert np.argmin(losses) == 2
    assert qlike(np.full(1, 4e-4), np.zeros(1))[0] == pytest.approx(math.log(4e-4))


def test_ranges_witness_the_variance_with_less_noise_than_returns() -> None:
    steps = 0.02 / math.sqrt(1_000) * np.random.default_rng(0).standard_normal((4_000, 1_000))
    paths = np.cumsum(steps, axis=1)  # the log price within each bar, from its open at 0
    gap = 0.01 * np.random.default_rng(1).standard_normal(4_000)
    high, low = np.maximum(paths.max(axis=1), 0.0), np.minimum(paths.min(axis=1), 0.0)

    found = range_variance(np.exp(gap), np.exp(gap + high), np.exp(gap + low), np.ones(4_000))

    squares = np.square(gap + paths[:, -1])
    assert found.mean() == pytest.approx(5e-4, rel=0.08)  # a thousand steps miss a little of the range
    assert found.std() < 0.7 * squares.std()
    assert range_variance(np.full(1, 2.0), np.full(1, 2.0), np.full(1, 2.0), np.full(1, 2.0))[0] == 0.0


def test_too_little_to_fit_on_and_what_is_not_finite_are_refused() -> None:
    returns, times = garch_returns(1_000), hourly(1_000)
    with pytest.raises(ValueError, match="at least 500 training returns"):
        baselines(returns, times, np.arange(1_000) < 499)
    with pytest.raises(ValueError, match="finite"):
        baselines(np.append(returns[:-1], np.nan), times, np.ones(1_000, bool))
    with pytest.raises(ValueError, match="three equal shapes"):
        baselines(returns, times[1:], np.ones(1_000, bool))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=50),
    st.floats(1.0, 200.0),
    st.floats(1e-6, 1e-2),
)
def test_ewma_stays_between_what_went_into_it(returns: list[float], halflife: float, start: float) -> None:
    found = ewma_variance(np.array(returns), halflife, start)

    squares = np.square(np.array([*returns, math.sqrt(start)]))
    assert found.min() >= max(squares.min(), VARIANCE_MIN * start) * (1.0 - 1e-9) or found.min() >= squares.min()
    assert found.max() <= max(squares.max(), start) * (1.0 + 1e-9)
