"""Bits, pinball, transforms and coverage of return forecasts."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.distributions import Codes, Mixture, Student
from evaluation.judge import (
    BINS,
    FLOOR,
    LEVELS,
    Bins,
    Judged,
    coverage,
    judge,
    pinball,
    pit_below,
    pit_distance,
    pit_histogram,
)

NO = np.random.default_rng(11)
TRAINING = np.concatenate([NO.standard_t(4, 20_000), np.zeros(500)])
ONE = Bins.of(TRAINING)


def judged(forecast: Student | Mixture, came: np.ndarray) -> Judged:
    return judge(forecast, came, bins=ONE, plain_bins=ONE, plain_unit=np.ones(len(came)))


def test_bins_hold_equal_shares_and_zero_has_its_own() -> None:
    counts = np.bincount(ONE.place(TRAINING), minlength=BINS)

    assert ONE.count == BINS
    assert counts[ONE.zero + 1] == 500
    others = np.delete(counts, ONE.zero + 1)
    assert others.min() > 150
    assert others.max() < 165


def test_bins_are_open_below_and_closed_above() -> None:
    bins = Bins(np.array([-1.0, 0.0, 2.0]), 1)

    places = bins.place(np.array([-9.0, -1.0, -0.5, -1e-300, 0.0, -0.0, 1e-300, 2.0, 2.1]))

    assert bins.count == 5
    assert places.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_bits_are_those_of_the_probability_of_the_bin() -> None:
    bins = Bins(np.array([-1.0, 0.0, 2.0]), 1)
    came = np.array([-3.0, -0.5, 0.0, 1.0, 5.0])
    forecast = Student(np.ones(5), 4.0, 0.1)

    found = judge(forecast, came, bins=bins, plain_bins=bins, plain_unit=np.full(5, 0.5))

    cdf = stats.t(4.0).cdf

    def masses(unit: float) -> np.ndarray:
        low, high = 0.9 * cdf(-1.0 * unit), 0.9 * cdf(2.0 * unit)
        return np.array([low, 0.45 - low, 0.1, high - 0.45, 0.9 - high])

    for bits, unit in ((found.bits, 1.0), (found.bits_plain, 0.5)):
        own = masses(unit)[bins.place(came / unit)]
        assert bits == pytest.approx(-np.log2((1.0 - FLOOR) * own + FLOOR / 5))


def test_an_outcome_held_impossible_costs_what_the_floor_says() -> None:
    never_zero = Student(np.ones(1), 5.0, 0.0)

    assert judged(never_zero, np.zeros(1)).bits[0] == pytest.approx(-math.log2(FLOOR / BINS))


def test_knowing_nothing_costs_the_entropy_of_the_bins() -> None:
    # The training returns themselves as forecast: each bin of 128 about equally likely.
    table = np.quantile(TRAINING, (np.arange(4096) + 0.5) / 4096, method="hazen")[None, :]
    came = np.concatenate([np.random.default_rng(12).standard_t(4, 4_000), np.zeros(100)])

    bits = judged(Mixture(np.ones((len(came), 1)), Codes.from_table(table)), came).bits.mean()

    counts = np.bincount(ONE.place(TRAINING), minlength=BINS) / len(TRAINING)
    assert bits == pytest.approx(-(counts * np.log2(counts)).sum(), abs=0.02)


def test_pinball_is_its_definition_and_half_the_crps_over_all_levels() -> None:
    assert pinball(np.array([[1.0, 1.0]]), np.array([3.0]), np.array([0.1, 0.9])) == pytest.approx(
        np.array([[0.2, 1.8]])
    )
    assert pinball(np.array([[1.0, 1.0]]), np.array([0.0]), np.array([0.1, 0.9])) == pytest.approx(
        np.array([[0.9, 0.1]])
    )
    fine = (np.arange(20_000) + 0.5) / 20_000
    forecast, came = Student(np.ones(1), 6.0, 0.2), np.array([0.7])

    assert 2.0 * pinball(forecast.quantiles(fine), came, fine).mean() == pytest.approx(forecast.crps(came)[0], rel=1e-3)


def test_judge_takes_quantiles_at_the_levels_that_it_names() -> None:
    forecast, came = Student(np.array([1.0, 3.0]), 5.0, 0.0), np.array([0.2, -4.0])

    found = judged(forecast, came)

    assert found.pinball == pytest.approx(pinball(forecast.quantiles(LEVELS), came, LEVELS).mean(axis=1))
    assert found.width_90 == pytest.approx(np.array([1.0, 3.0]) * 2.0 * stats.t(5.0).ppf(0.95))


def test_the_right_forecast_is_calibrated_also_where_zero_has_mass() -> None:
    chance = np.random.default_rng(2)
    came = np.where(chance.random(20_000) < 0.3, 0.0, chance.standard_t(5, 20_000))

    found = judged(Student(np.ones(20_000), 5.0, 0.3), came)

    low, high = found.pit_low, found.pit_high
    assert pit_distance(low, high) < 0.015
    assert coverage(low, high, (0.25, 0.75)).mean() == pytest.approx(0.5, abs=0.01)
    assert coverage(low, high, (0.05, 0.95)).mean() == pytest.approx(0.9, abs=0.01)
    assert pit_histogram(low, high) == pytest.approx(np.ones(20), abs=0.12)
    assert pit_histogram(low, high).mean() == pytest.approx(1.0)


def test_a_forecast_that_is_too_narrow_shows_in_coverage_and_transform() -> None:
    came = np.random.default_rng(3).standard_normal(5_000)

    found = judged(Student(np.full(5_000, 0.5), math.inf, 0.0), came)

    assert coverage(found.pit_low, found.pit_high, (0.05, 0.95)).mean() == pytest.approx(
        1.0 - 2.0 * stats.norm.cdf(-0.5 * 1.6449), abs=0.02
    )
    histogram = pit_histogram(found.pit_low, found.pit_high)
    assert histogram[0] > 2.5
    assert histogram[-1] > 2.5


def test_a_sharper_right_forecast_wins_every_loss() -> None:
    chance = np.random.default_rng(5)
    scale = np.exp(chance.normal(0.0, 0.5, 6_000))
    came = scale * chance.standard_t(5, 6_000)

    knows, knows_not = judged(Student(scale, 5.0, 0.0), came), judged(Student(np.ones(6_000), 4.0, 0.0), came)

    for name in ("bits", "bits_plain", "crps", "pinball"):
        assert getattr(knows, name).mean() < getattr(knows_not, name).mean()


def test_transform_of_a_return_without_mass_is_a_step() -> None:
    at = np.array([0.3, 0.3])

    assert pit_below(at, at, 0.3).tolist() == [1.0, 1.0]
    assert pit_below(at, at, 0.299).tolist() == [0.0, 0.0]
    assert pit_below(np.array([0.2]), np.array([0.6]), 0.3).tolist() == [pytest.approx(0.25)]


@pytest.mark.parametrize("training", [np.array([1.0, 2.0]), np.array([-1.0, np.nan, 1.0]), np.zeros(5)])
def test_bins_want_both_sides_of_zero(training: np.ndarray) -> None:
    with pytest.raises(ValueError, match="both sides of zero"):
        Bins.of(training)


def test_returns_that_repeat_themselves_give_fewer_bins() -> None:
    assert Bins.of(np.tile([-1.0, 0.0, 1.0, 2.0], 50)).count <= 8


@pytest.mark.parametrize("came", [np.array([1.0, np.inf]), np.ones(3)])
def test_what_did_not_come_is_not_judged(came: np.ndarray) -> None:
    with pytest.raises(ValueError, match="2 finite returns"):
        judge(Student(np.ones(2), 5.0, 0.0), came, bins=ONE, plain_bins=ONE, plain_unit=np.ones(len(came)))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-5.0, 5.0).map(lambda x: round(x, 3)), min_size=4, max_size=60),
    st.floats(0.1, 10.0),
    st.integers(4, 128),
    st.floats(0.0, 0.5),
)
def test_probabilities_of_all_bins_add_up_to_one(training: list[float], unit: float, count: int, zero: float) -> None:
    bins = Bins.of(np.array([*training, -1.0, 1.0]), count)
    inner = (bins.edges[:-1] + bins.edges[1:]) / 2.0
    one_in_each = np.concatenate([[bins.edges[0] - 1.0], inner, [bins.edges[-1] + 1.0, 0.0]])
    assert sorted(bins.place(one_in_each).tolist()) == list(range(bins.count))

    for forecast in (
        Student(np.ones(len(one_in_each)), 4.0, zero),
        Mixture(np.ones((len(one_in_each), 1)), Codes.from_table(np.array([[-3.0, -1.0, 0.0, 0.5, 2.0]]))),
    ):
        ((_, piece),) = forecast.pieces(1_000)
        total = bins.probability(piece, one_in_each, np.full(len(one_in_each), unit)).sum()
        assert total == pytest.approx(1.0)
