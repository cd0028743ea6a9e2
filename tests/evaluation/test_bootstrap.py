"""Intervals of means over bars: days are the units, neighbours stay neighbours, the seed is fixed."""

import numpy as np
import pytest
from finished import DAY_NS, HOUR_NS, START_NS
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.bootstrap import block_days, day_bootstrap, days_of, edge, stationary_indices
from evaluation.figures import measured


def hourly(days: int) -> np.ndarray:
    return START_NS + HOUR_NS * np.arange(1, 24 * days + 1)


def test_a_bar_that_closes_at_midnight_belongs_to_the_day_it_ends() -> None:
    times = np.array([START_NS, START_NS + 1, START_NS + DAY_NS, START_NS + DAY_NS + 1])

    assert (days_of(times) - days_of(times)[0]).tolist() == [0, 1, 1, 2]


def test_the_interval_of_independent_days_is_that_of_the_normal_approximation() -> None:
    chance = np.random.default_rng(5)
    values = chance.normal(0.3, 1.0, 24 * 400)

    figure = day_bootstrap(values, hourly(400))

    error = np.std(values.reshape(400, 24).mean(axis=1), ddof=1) / np.sqrt(400)
    assert figure.value == pytest.approx(values.mean())
    assert figure.standard_error == pytest.approx(error, rel=0.15)
    assert figure.interval is not None
    assert figure.interval[1] - figure.interval[0] == pytest.approx(3.92 * error, rel=0.15)


def test_bars_that_repeat_their_day_do_not_narrow_the_interval() -> None:
    # Twenty-four equal bars of a day know what one knows; taken as independent the interval would be 5 times narrower.
    daily = np.random.default_rng(8).normal(0.0, 1.0, 300)
    once = day_bootstrap(daily, START_NS + DAY_NS * np.arange(1, 301))
    often = day_bootstrap(np.repeat(daily, 24), hourly(300))

    assert once.interval is not None
    assert often.interval == pytest.approx(once.interval)


def test_days_that_depend_on_each_other_widen_the_interval() -> None:
    chance = np.random.default_rng(2)
    noise = chance.normal(0.0, 1.0, 500)
    slow = np.empty(500)
    slow[0] = noise[0]
    for i in range(1, 500):
        slow[i] = 0.9 * slow[i - 1] + noise[i] * np.sqrt(1.0 - 0.81)
    times = START_NS + DAY_NS * np.arange(1, 501)

    persistent, shuffled = day_bootstrap(slow, times), day_bootstrap(chance.permutation(slow), times)

    assert persistent.standard_error is not None
    assert shuffled.standard_error is not None
    assert persistent.standard_error > 2.5 * shuffled.standard_error


def test_the_same_bars_in_another_order_give_the_same_interval() -> None:
    chance = np.random.default_rng(4)
    values, times = chance.normal(size=24 * 40), hourly(40)
    order = chance.permutation(len(values))

    assert day_bootstrap(values, times).interval == pytest.approx(day_bootstrap(values[order], times[order]).interval)
    assert day_bootstrap(values, times) == day_bootstrap(values, times)


def test_too_few_days_have_a_mean_and_no_interval() -> None:
    figure = day_bootstrap(np.ones(48), hourly(2))

    assert figure.value == 1.0
    assert figure.interval is None


def test_nothing_judged_and_infinite_losses_are_reasons() -> None:
    assert day_bootstrap(np.empty(0), np.empty(0, np.int64)).reason == "no bar was judged"
    assert "impossible" in (day_bootstrap(np.array([1.0, np.inf]), hourly(1)[:2]).reason or "")


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="two equal shapes"):
        day_bootstrap(np.ones(3), hourly(1))


def test_an_interval_with_zero_in_it_is_no_edge() -> None:
    assert edge(measured(0.1, interval=(-0.01, 0.2))) == "no edge"
    assert edge(measured(0.1, interval=(0.0, 0.2))) == "no edge"
    assert edge(measured(0.1, interval=(0.01, 0.2))) == "better"
    assert edge(measured(-0.1, interval=(-0.2, -0.01))) == "worse"
    assert edge(measured(0.1)) == "no edge"


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 60), block=st.integers(1, 20), seed=st.integers(0, 99))
def test_resampled_days_run_in_blocks_that_wrap(size: int, block: int, seed: int) -> None:
    rows = stationary_indices(size, block, 30, np.random.default_rng(seed))

    assert rows.shape == (30, size)
    assert rows.min() >= 0
    assert rows.max() < size
    if block == 1:
        return
    stays = (np.diff(rows, axis=1) % size == 1).mean() if size > 2 else 1.0
    assert stays > 0.5 * (1.0 - 1.0 / block)


def test_blocks_have_the_mean_length_that_was_asked_for() -> None:
    rows = stationary_indices(1_000, 8, 200, np.random.default_rng(0))

    jumps = (np.diff(rows, axis=1) % 1_000 != 1).mean()
    assert 1.0 / jumps == pytest.approx(8.0, rel=0.03)


def test_values_that_do_not_vary_need_no_blocks() -> None:
    assert block_days(np.full(50, 0.3)) == 1
