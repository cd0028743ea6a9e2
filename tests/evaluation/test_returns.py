"""Every figure of return and risk against a case worked by hand."""

import math
from statistics import NormalDist

import empyrical
import numpy as np
import pytest
from finished import DAY_NS, HOUR_NS, START_NS, compounded, daily_times
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import returns as judged
from evaluation.run import Floats, Ints


def ns(*hours: float) -> Ints:
    return np.array([START_NS + round(h * HOUR_NS) for h in hours], dtype=np.int64)


def of(returns: list[float], days_per_year: int = 365, initial: float = 100.0) -> judged.Performance:
    times = np.array(daily_times(len(returns)))
    days = judged.trading_days(times, days_per_year)
    equity = np.array(compounded(returns, initial))
    return judged.performance(times, equity, initial=initial, days=days, days_per_year=days_per_year)


def test_a_mark_at_midnight_ends_the_day_before() -> None:
    monday = START_NS // DAY_NS

    assert judged.session_days(ns(0.0, 1e-9, 23.0, 24.0, 24.5), 365).tolist() == [
        monday - 1,
        monday,
        monday,
        monday,
        monday + 1,
    ]


def test_weekends_of_an_exchange_belong_to_the_monday_after() -> None:
    friday, monday = START_NS // DAY_NS + 4, START_NS // DAY_NS + 7
    noon_of_day = ns(*(24.0 * day + 12.0 for day in (4, 5, 6, 7)))  # Friday to Monday

    assert judged.session_days(noon_of_day, 252).tolist() == [friday, monday, monday, monday]
    assert judged.session_days(noon_of_day, 365).tolist() == [friday, friday + 1, friday + 2, monday]


def test_trading_days_are_all_days_of_an_open_market_and_the_seen_days_of_another() -> None:
    times = ns(12.0, 24.0 * 3 + 12.0)  # Monday and Thursday
    monday = START_NS // DAY_NS

    assert judged.trading_days(times, 365).tolist() == [monday, monday + 1, monday + 2, monday + 3]
    assert judged.trading_days(times, 252).tolist() == [monday, monday + 3]


def test_daily_values_take_the_last_mark_of_a_day_and_repeat_it_through_silence() -> None:
    times = ns(1.0, 5.0, 5.0, 24.0 * 2 + 1.0)  # twice at five o'clock: the later mark counts
    equity = np.array([101.0, 102.0, 103.0, 99.0])
    days = judged.trading_days(ns(1.0, 24.0 * 3 + 1.0), 365)

    values = judged.daily_values(times, equity, days=days, initial=100.0, days_per_year=365)

    assert values.tolist() == [100.0, 103.0, 103.0, 99.0, 99.0]


def test_annual_return_compounds_a_fifth_of_a_year_to_a_year() -> None:
    daily = [1.1 ** (1.0 / 73.0) - 1.0] * 73  # 10 % in a fifth of 365 days

    assert of(daily).annual_return.value == pytest.approx(1.1**5 - 1.0)
    assert of(daily).total_return.value == pytest.approx(0.1)


def test_volatility_and_sharpe_of_alternating_returns() -> None:
    # 2 % and 0 % in turn, 40 times: mean 1 %, deviation 1 % * sqrt(40 / 39), skewness 0, kurtosis 1.
    result = of([0.02, 0.0] * 20)

    assert result.volatility.value == pytest.approx(0.01 * math.sqrt(40 / 39) * math.sqrt(365))
    assert result.sharpe.value == pytest.approx(math.sqrt(39 / 40) * math.sqrt(365))
    # (1 - 0 * S + 0 * S^2) / 40 a day
    assert result.sharpe.standard_error == pytest.approx(math.sqrt(365 / 40))


def test_sharpe_error_carries_skewness_and_kurtosis() -> None:
    # One loss of 3 % in four days, else +2 %: mean 0.75 %, m2 4.6875, m3 -11.71875, m4 51.26953125 (in %).
    result = of([0.02, 0.02, 0.02, -0.03] * 10)
    deviation = math.sqrt(4.6875)
    daily = 0.75 / (deviation * math.sqrt(40 / 39))
    skewness, kurtosis = -11.71875 / deviation**3, 51.26953125 / deviation**4

    variance = (1.0 - skewness * daily + (kurtosis - 1.0) / 4.0 * daily**2) / 40
    assert result.sharpe.standard_error == pytest.approx(math.sqrt(variance * 365))


def test_sharpe_error_is_the_spread_of_the_ratio_over_many_histories() -> None:
    generator = np.random.default_rng(7)
    histories = 0.1 + generator.exponential(1.0, size=(4_000, 400)) - 1.0  # skewness 2, kurtosis 9
    histories *= 0.01
    ratios = histories.mean(axis=1) / histories.std(axis=1, ddof=1) * math.sqrt(365)

    errors = [judged.sharpe_ratio(history, 365)[0].standard_error or 0.0 for history in histories[:400]]

    assert float(np.mean(errors)) == pytest.approx(float(ratios.std()), rel=0.05)


def test_luck_is_the_expected_best_of_so_many_normals() -> None:
    # Tables of the expected maximum of N standard normals; the formula is asymptotic.
    for trials, expected in ((10, 1.5388), (100, 2.5076), (1000, 3.2414)):
        assert judged.best_of_luck(trials) == pytest.approx(expected, rel=0.03)
    assert judged.best_of_luck(1) == 0.0


def test_deflated_sharpe_is_the_chance_of_being_above_luck() -> None:
    returns = np.array([0.03, -0.02] * 50)
    ratio, single = judged.sharpe_ratio(returns, 365)
    _, many = judged.sharpe_ratio(returns, 365, 100)
    assert ratio.value is not None
    assert ratio.standard_error is not None

    z = ratio.value / ratio.standard_error
    luck = judged.best_of_luck(100) * math.sqrt(365 / 100)
    assert single.value == pytest.approx(NormalDist().cdf(z))
    assert many.value == pytest.approx(NormalDist().cdf((ratio.value - luck) / ratio.standard_error))
    assert (many.value or 0.0) < (single.value or 0.0)


def test_sortino_divides_by_the_root_of_the_mean_squared_loss() -> None:
    # 3 % and -1 % in turn: mean 1 %, downside sqrt(1 / 2) %.
    assert of([0.03, -0.01] * 20).sortino.value == pytest.approx(math.sqrt(2.0) * math.sqrt(365))


def test_calmar_is_annual_return_over_the_drawdown_of_all_marks() -> None:
    result = of([0.01] * 30 + [-0.1] + [0.01] * 42)
    assert result.annual_return.value is not None

    assert result.max_drawdown.value == pytest.approx(0.1)
    assert result.calmar.value == pytest.approx(result.annual_return.value / 0.1)


def test_fewer_than_thirty_returns_carry_no_annual_figure() -> None:
    result = of([0.01, -0.01] * 14 + [0.01])

    for figure in (result.annual_return, result.volatility, result.sharpe, result.sortino, result.calmar):
        assert figure.value is None
        assert figure.reason == "needs 30 daily returns, has 29"
    assert result.max_drawdown.value == pytest.approx(1.0 - 0.9999**14 / 1.01)  # fourteen pairs down from 101
    assert of([0.01, -0.01] * 15).sharpe.value is not None


@pytest.mark.parametrize("daily", [0.0, 0.001])
def test_constant_growth_has_no_sharpe_ratio_and_no_interval(daily: float) -> None:
    # 0.001 compounds with rounding: its deviation is 1e-16, not zero.
    result = of([daily] * 40)

    assert result.sharpe.reason == result.deflated_sharpe.reason == "daily returns do not vary"
    assert result.sortino.reason == "no day lost money"
    assert result.calmar.reason == "equity never fell below its peak"
    assert result.annual_return.interval is None
    assert result.volatility.value == pytest.approx(0.0, abs=1e-12)


def test_bankruptcy_keeps_the_total_and_ends_the_rest() -> None:
    times = np.array(daily_times(60))
    equity = np.linspace(100.0, -20.0, 60)

    result = judged.performance(times, equity, initial=100.0, days=judged.trading_days(times, 365), days_per_year=365)

    assert result.total_return.value == pytest.approx(-1.2)
    assert result.max_drawdown.value == pytest.approx(1.2)  # the account owes
    assert result.sharpe.reason == "equity fell to zero or below on 2024-02-21, where returns end"


def test_growth_beyond_floats_is_a_reason_not_infinity() -> None:
    result = of([9.0, 99.0] * 15)

    assert result.annual_return.value is None
    assert result.annual_return.reason == "the number is too large to write down"


def test_bootstrap_agrees_with_theory_where_returns_are_independent() -> None:
    generator = np.random.default_rng(3)
    returns = generator.normal(0.001, 0.02, 1_500)
    mean, error = returns.mean(), returns.std(ddof=1) / math.sqrt(1_500)

    intervals = judged.bootstrap(returns, 365)

    assert intervals.annual_return is not None
    logs = np.log1p(intervals.annual_return) / 365  # the interval of the mean log return
    centre = float(np.log1p(returns).mean())
    assert logs == pytest.approx([centre - 1.96 * error, centre + 1.96 * error], abs=0.15 * error)
    assert intervals.sharpe is not None
    scale = math.sqrt(365 / 1_500)
    ratio = mean / returns.std(ddof=1) * math.sqrt(365)
    assert intervals.sharpe == pytest.approx((ratio - 1.96 * scale, ratio + 1.96 * scale), abs=0.15 * scale)


def test_bootstrap_figures_of_a_resample_are_those_of_the_library() -> None:
    from arch.bootstrap import StationaryBootstrap

    returns = np.random.default_rng(9).normal(-0.002, 0.01, 90)
    intervals = judged.bootstrap(returns, 252)
    assert intervals.block_days is not None

    def figures(sample: Floats) -> Floats:
        return np.array(
            [
                empyrical.annual_return(sample, annualization=252),
                empyrical.sharpe_ratio(sample, annualization=252),
                -empyrical.max_drawdown(sample),
            ]
        )

    draws = StationaryBootstrap(intervals.block_days, returns, seed=judged.SEED).apply(figures, judged.REPLICATIONS)
    expected = np.quantile(draws, [0.025, 0.975], axis=0)  # (2, 3)
    np.testing.assert_allclose([intervals.annual_return], [expected[:, 0]], atol=1e-4)
    np.testing.assert_allclose([intervals.sharpe], [expected[:, 1]])
    np.testing.assert_allclose([intervals.max_drawdown], [expected[:, 2]], atol=1e-4)


def test_bootstrap_takes_longer_blocks_and_wider_intervals_where_days_depend() -> None:
    generator = np.random.default_rng(5)
    noise = generator.normal(0.0, 0.01, 1_500)
    trending = noise.copy()
    for i in range(1, 1_500):
        trending[i] = 0.6 * trending[i - 1] + noise[i]
    shuffled = generator.permutation(trending)

    dependent, independent = judged.bootstrap(trending, 365), judged.bootstrap(shuffled, 365)

    assert dependent.block_days is not None
    assert independent.block_days is not None
    assert dependent.block_days > 3 * independent.block_days
    assert dependent.sharpe is not None
    assert independent.sharpe is not None
    assert np.diff(dependent.sharpe)[0] > 1.5 * np.diff(independent.sharpe)[0]


def test_bootstrap_is_the_same_every_time() -> None:
    returns = np.random.default_rng(11).normal(0.0, 0.01, 60)

    assert judged.bootstrap(returns, 252) == judged.bootstrap(returns, 252)


def test_resamples_without_variance_leave_the_sharpe_interval_out() -> None:
    # One day that moved among forty that did not: every third resample misses it.
    returns = np.zeros(40)
    returns[0] = 0.01

    intervals = judged.bootstrap(returns, 365)

    assert intervals.sharpe is None
    assert intervals.annual_return is not None
    assert intervals.annual_return[0] == 0.0


@settings(max_examples=10, deadline=None)
@given(
    daily=st.lists(st.floats(-0.2, 0.2), min_size=30, max_size=50).filter(lambda r: np.std(r) > 1e-3),
    scale=st.sampled_from([0.5, 8.0, 1024.0]),  # powers of two scale floats exactly
)
def test_scaling_equity_leaves_every_figure_unchanged(daily: list[float], scale: float) -> None:
    times = np.array(daily_times(len(daily)))
    days = judged.trading_days(times, 365)
    equity: Floats = np.array(compounded(daily))

    def judge(factor: float) -> judged.Performance:
        return judged.performance(times, equity * factor, initial=100.0 * factor, days=days, days_per_year=365)

    assert judge(scale) == judge(1.0)
