"""Information coefficients and the probability of overfitting against libraries and cases worked by hand."""

import numpy as np
import pytest
import statsmodels.api as sm
from finished import HOUR_NS, START_NS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.overfit import overfitting
from evaluation.ranks import correlation, information, lags_for, newey_west


def panel(instants: int, symbols: int, seed: int, signal: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    realised = chance.standard_t(4, (instants, symbols))
    expected = signal * realised + chance.normal(size=(instants, symbols))
    times = np.repeat(START_NS + HOUR_NS * np.arange(instants), symbols)
    return expected.ravel(), realised.ravel(), times


def test_newey_west_is_that_of_statsmodels() -> None:
    chance = np.random.default_rng(0)
    noise = chance.normal(size=300)
    values = noise[1:] + 0.6 * noise[:-1]

    for lags in (0, 1, 5, 20):
        fit = sm.OLS(values, np.ones(len(values))).fit(
            cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False}
        )
        assert newey_west(values, lags) == pytest.approx(float(fit.bse[0]))


def test_information_coefficients_are_the_means_of_scipys_correlations() -> None:
    expected, realised, times = panel(60, 7, seed=1, signal=0.2)
    order = np.random.default_rng(9).permutation(len(times))

    found = information(expected[order], realised[order], times[order])

    rows = [(expected[i : i + 7], realised[i : i + 7]) for i in range(0, len(times), 7)]
    plain = np.array([stats.pearsonr(*row).statistic for row in rows])
    ranked = np.array([stats.spearmanr(*row).statistic for row in rows])
    assert found.instants == 60
    assert found.ic.value == pytest.approx(plain.mean())
    assert found.rank_ic.value == pytest.approx(ranked.mean())
    assert found.lags == lags_for(60) == 3
    assert found.rank_ic_t.value == pytest.approx(ranked.mean() / newey_west(ranked, 3))


def test_four_symbols_are_too_few() -> None:
    found = information(*panel(60, 4, seed=1, signal=0.2))

    assert found.ic.value is None
    assert found.ic.reason == "needs 5 symbols in one instant, the most were 4"


def test_instants_in_which_all_are_expected_to_do_alike_say_nothing() -> None:
    expected, realised, times = panel(60, 6, seed=1, signal=0.0)

    found = information(np.zeros_like(expected), realised, times)

    assert found.instants == 0
    assert found.ic.value is None


def test_correlation_of_what_does_not_vary_is_none() -> None:
    assert correlation(np.ones(5), np.arange(5.0)) is None


def test_overfitting_is_near_one_half_where_nothing_can_be_chosen() -> None:
    found = [overfitting(np.random.default_rng(seed).normal(size=(640, 10))).value for seed in range(12)]

    assert np.mean([value for value in found if value is not None]) == pytest.approx(0.5, abs=0.12)


def test_overfitting_is_zero_where_one_config_is_truly_better() -> None:
    performance = np.random.default_rng(0).normal(size=(640, 10))
    performance[:, 3] += 1.0

    assert overfitting(performance).value == 0.0


def test_overfitting_is_certain_where_the_winner_of_each_half_loses_the_other() -> None:
    # Two periods and two configs that trade places: the best of either half is the worst of the other.
    assert overfitting(np.array([[1.0, 0.0], [0.0, 1.0]]), blocks=2).value == 1.0


def test_overfitting_agrees_with_the_definition_spelt_out() -> None:
    performance = np.random.default_rng(4).normal(size=(50, 4))
    blocks = 6
    pieces = np.array_split(np.arange(50), blocks)
    losses = []
    for code in range(2**blocks):
        inside = [b for b in range(blocks) if code >> b & 1]
        if len(inside) != blocks // 2:
            continue
        train = np.concatenate([pieces[b] for b in inside])
        test = np.concatenate([pieces[b] for b in range(blocks) if b not in inside])
        best = performance[train].mean(axis=0).argmax()
        rank = stats.rankdata(performance[test].mean(axis=0))[best]
        losses.append(rank / 5.0 <= 0.5)

    assert overfitting(performance, blocks).value == pytest.approx(np.mean(losses))


def test_one_config_is_no_sweep() -> None:
    assert overfitting(np.ones((100, 1))).reason == "needs a sweep of at least two configs"
    assert overfitting(np.ones((8, 3))).reason == "needs 16 periods, has 8"


@pytest.mark.parametrize("bad", [np.full((20, 3), np.nan), np.ones(20)])
def test_performance_that_is_no_finite_table_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite"):
        overfitting(bad)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-5.0, 5.0), size=st.floats(0.1, 10.0))
def test_overfitting_knows_neither_unit_nor_level(seed: int, shift: float, size: float) -> None:
    performance = np.random.default_rng(seed).normal(size=(40, 4))

    assert overfitting(performance, 8) == overfitting(shift + size * performance, 8)
