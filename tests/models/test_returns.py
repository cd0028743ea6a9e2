"""The distribution of the next return: exact, where a simulation is only near."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from models.returns import ReturnTable
from models.sampling import Floats

LEVELS = np.array([0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999])


def table(codes: int = 8, count: int = 16, seed: int = 0) -> ReturnTable:
    """Fat-tailed codes; one of them is often exactly zero, one is nothing else, one has two values."""
    q = np.random.default_rng(seed).standard_t(3, (codes, count))
    q[1, : count // 2] = 0.0
    q[2] = 0.0
    q[3] = np.where(np.arange(count) < count // 2, -1.0, 2.0)
    return ReturnTable(np.sort(q, axis=1), halflife_bars=32.0)


def chances(codes: int = 8, rows: int = 3, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).dirichlet(np.full(codes, 0.5), rows)


def quantile_function(quantiles: Floats, level: float) -> float:
    """One code's, in the plainest words: quantiles stand at (q + 0.5) / Q."""
    count = len(quantiles)
    return float(np.interp(level, (np.arange(count) + 0.5) / count, quantiles))


def test_moments_are_the_integrals_over_the_quantile_function() -> None:
    codes, p, scale = table(), chances(), np.array([0.01, 0.02, 1.0])

    found = codes.forecast(p, scale)

    corners = ((np.arange(16) + 0.5) / 16).tolist()

    def integral(power: int) -> Floats:
        values = [
            integrate.quad(lambda u, q=q: quantile_function(q, u) ** power, 0.0, 1.0, points=corners, limit=200)[0]
            for q in codes.quantiles
        ]
        return p @ np.array(values)

    np.testing.assert_allclose(found.mean, scale * integral(1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.volatility, scale * np.sqrt(integral(2) - integral(1) ** 2), rtol=1e-9)


def test_chances_of_up_and_flat_are_the_measure_of_the_quantile_function() -> None:
    codes, p = table(), chances()
    fine = (np.arange(200_000) + 0.5) / 200_000
    values = np.array([np.interp(fine, (np.arange(16) + 0.5) / 16, q) for q in codes.quantiles])

    found = codes.forecast(p, np.ones(3))

    np.testing.assert_allclose(found.probability_up, p @ (values > 0.0).mean(axis=1), atol=2e-5)
    np.testing.assert_allclose(found.probability_flat, p @ (values == 0.0).mean(axis=1), atol=2e-5)
    assert (found.probability_flat > 0.01).all()


def test_quantiles_are_those_of_a_large_simulation() -> None:
    codes, p, scale, rng = table(), chances(), np.array([0.01, 0.02, 1.0]), np.random.default_rng(1)
    count = 400_000

    found = codes.forecast(p, scale).quantile(LEVELS)

    for i in range(3):
        drawn = scale[i] * codes.draw(rng.choice(8, count, p=p[i]), rng.random(count))
        error = 4.0 * np.sqrt(LEVELS * (1.0 - LEVELS) / count)
        low, high = (np.quantile(drawn, np.clip(LEVELS + side * error, 0.0, 1.0)) for side in (-1, 1))
        assert ((low - 1e-9 <= found[i]) & (found[i] <= high + 1e-9)).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.floats(0.001, 0.999), min_size=1, max_size=3))
def test_a_quantile_is_the_smallest_value_that_reaches_its_level(seed: int, levels: list[float]) -> None:
    codes, p = table(seed=seed), chances(rows=2, seed=seed)

    found = codes.forecast(p, np.ones(2)).quantile(levels)

    def below(z: float, row: Floats, side: str) -> float:
        """P(Z <= z), or P(Z < z), by bisection on the uniform of every code."""
        shares = []
        for q in codes.quantiles:
            low, high = 0.0, 1.0
            for _ in range(60):
                middle = (low + high) / 2.0
                value = quantile_function(q, middle)
                inside = value <= z if side == "right" else value < z
                low, high = (middle, high) if inside else (low, middle)
            shares.append(low)
        return float(row @ np.array(shares))

    for i in range(2):
        for z, level in zip(found[i], levels, strict=True):
            assert below(z + 1e-9, p[i], "right") >= level - 1e-6
            assert below(z - 1e-9, p[i], "left") <= level + 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(2, 70), st.sampled_from([None, 0, 1, 2]))
def test_quantiles_are_those_of_a_search_through_all_bends(
    seed: int, codes: int, count: int, digits: int | None
) -> None:
    # Rounded to few digits, codes share their bends, and jump at them; some tables fill several blocks of bends.
    rng = np.random.default_rng(seed)
    q = np.sort(rng.standard_t(3, (codes, count)), axis=1)
    q = q if digits is None else np.round(q, digits)
    p = rng.dirichlet(np.full(codes, 0.5), 3)
    levels = np.concatenate([[0.01, 0.05, 0.5, 0.95, 0.99], rng.uniform(0.001, 0.999, 5)])

    found = ReturnTable(q, halflife_bars=32.0).forecast(p, np.ones(3)).quantile(levels)

    bends = np.unique(q)
    place = (np.arange(count) + 0.5) / count
    for i in range(3):
        # P(Z <= bend) and P(Z < bend): where quantiles are equal, np.interp is right of them all, or left of them.
        within = p[i] @ np.array([np.where(bends < row[-1], _interp(bends, row, place), 1.0) for row in q])
        below = p[i] @ np.array([np.where(bends > row[0], 1.0 - _interp(-bends, -row[::-1], place), 0.0) for row in q])
        for level, z in zip(levels, found[i], strict=True):
            first = min(int(np.searchsorted(within, level - 1e-12)), len(bends) - 1)
            want = bends[first]
            if first and below[first] > level and below[first] > within[first - 1]:
                way = (level - within[first - 1]) / (below[first] - within[first - 1])
                want = bends[first - 1] + way * (want - bends[first - 1])
            assert z == pytest.approx(want, abs=1e-9)


def _interp(at: Floats, quantiles: Floats, place: Floats) -> Floats:
    """P(Z <= at) between the first and the last quantile, 0 before the first."""
    last = np.searchsorted(quantiles, at, side="right") - 1  # the last of equal ones
    after = np.minimum(last + 1, len(quantiles) - 1)
    gap = quantiles[after] - quantiles[last]
    part = np.divide(at - quantiles[last], gap, out=np.zeros_like(at), where=gap > 0.0)
    found: Floats = np.where(last < 0, 0.0, place[last] + part / len(quantiles))
    return found


def test_what_is_said_of_a_symbol_does_not_depend_on_the_others() -> None:
    # To the last bit: a replay and a batch of another size must not differ.
    codes, p, scale = table(codes=40, count=64), chances(codes=40, rows=30), np.linspace(0.001, 0.1, 30)

    together = codes.forecast(p, scale)

    for i in range(30):
        alone = table(codes=40, count=64).forecast(p[i : i + 1], scale[i : i + 1])
        assert alone.quantile(LEVELS)[0].tobytes() == together.quantile(LEVELS)[i].tobytes()
        for name in ("mean", "volatility", "probability_up", "probability_flat"):
            assert getattr(alone, name)[0] == getattr(together, name)[i]


def test_of_many_codes_only_what_is_read_is_worked_out() -> None:
    # 1,000 codes have 64,000 bends: the table of both would take 0.5 GB.
    codes = table(codes=1_000, count=64)

    found = codes.forecast(chances(codes=1_000, rows=1), np.ones(1)).quantile(LEVELS)

    assert (np.diff(found) > 0.0).all()
    assert int(codes._mixture._known.sum()) <= len(LEVELS)


def test_quantiles_rise_with_the_level_and_stay_within_the_codes() -> None:
    codes = table()
    found = codes.forecast(chances(rows=20), np.full(20, 0.5)).quantile(np.linspace(0.001, 0.999, 99))

    assert (np.diff(found, axis=1) >= 0.0).all()
    assert found.min() >= 0.5 * codes.quantiles.min()
    assert found.max() <= 0.5 * codes.quantiles.max()


def test_a_code_of_one_value_is_that_value() -> None:
    codes = ReturnTable(np.array([[0.0, 0.0], [-1.0, -1.0], [2.0, 2.0]]), halflife_bars=8.0)

    found = codes.forecast(np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]), np.array([0.01, 0.01]))

    assert found.mean.tolist() == [0.0, pytest.approx(0.005)]
    assert found.volatility.tolist() == [0.0, pytest.approx(0.015)]
    assert found.probability_up.tolist() == [0.0, 0.5]
    assert found.probability_flat.tolist() == [1.0, 0.0]
    assert found.quantile([0.1, 0.5, 0.51]).tolist() == [[0.0] * 3, [-0.01, -0.01, 0.02]]


def test_draws_are_the_quantile_function() -> None:
    codes = table()
    uniforms = np.random.default_rng(0).random(500)

    for code in range(8):
        expected = [quantile_function(codes.quantiles[code], u) for u in uniforms]
        np.testing.assert_allclose(codes.draw(np.full(500, code), uniforms), expected, atol=1e-12)


def test_the_scale_follows_by_its_halflife_down_to_its_floor_and_ignores_the_absurd() -> None:
    codes = ReturnTable(np.array([[0.0, 1.0]]), halflife_bars=2.0, scale_floor=0.4, clip=3.0)

    calm = codes.next_scale(codes.next_scale(np.array([1.0]), np.zeros(1)), np.zeros(1))
    assert calm == pytest.approx([math.sqrt(0.5)])
    assert codes.next_scale(np.array([1.0]), np.array([1.0])) == pytest.approx([1.0])
    assert codes.next_scale(np.array([0.4]), np.zeros(1)) == pytest.approx([0.4])
    assert codes.next_scale(np.array([1.0]), np.array([-99.0])) == codes.next_scale(np.array([1.0]), np.array([3.0]))


@pytest.mark.parametrize(
    "quantiles",
    [np.zeros(4), np.zeros((2, 1)), np.array([[1.0, 0.0]]), np.array([[0.0, np.nan]]), np.array([[0.0, np.inf]])],
)
def test_an_impossible_table_is_refused(quantiles: Floats) -> None:
    with pytest.raises(ValueError, match="quantiles"):
        ReturnTable(quantiles, halflife_bars=32.0)


@pytest.mark.parametrize("name", ["halflife_bars", "scale_floor", "clip"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_impossible_numbers_of_a_table_are_refused(name: str, value: float) -> None:
    numbers = {"halflife_bars": 32.0, name: value}
    with pytest.raises(ValueError, match=name):
        ReturnTable(np.zeros((2, 2)), **numbers)


@pytest.mark.parametrize(
    ("p", "scale"),
    [
        (np.full((1, 7), 1 / 7), [1.0]),
        (np.full((1, 8), 1 / 7), [1.0]),
        (np.array([[2.0, -1.0, 0, 0, 0, 0, 0, 0]]), [1.0]),
        (np.full((1, 8), np.nan), [1.0]),
        (np.full((1, 8), 1 / 8), [0.0]),
        (np.full((1, 8), 1 / 8), [np.nan]),
        (np.full((1, 8), 1 / 8), [1.0, 1.0]),
    ],
)
def test_impossible_probabilities_and_scales_are_refused(p: Floats, scale: list[float]) -> None:
    with pytest.raises(ValueError, match=r"want|must"):
        table().forecast(p, np.array(scale))


@pytest.mark.parametrize("levels", [[0.0], [1.0], [math.nan], [[0.5]]])
def test_levels_outside_zero_and_one_are_refused(levels: list[float]) -> None:
    with pytest.raises(ValueError, match="levels"):
        table().forecast(chances(), np.ones(3)).quantile(levels)
