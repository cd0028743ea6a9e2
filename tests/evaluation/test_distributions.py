"""Distribution functions, quantiles and CRPS against scipy, brute integration and sampling."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from evaluation.distributions import Codes, Forecast, Mixture, Student
from models.returns import ReturnTable


def whole(forecast: Forecast) -> object:
    ((_, piece),) = forecast.pieces(1_000)
    return piece


def integrated(forecast: Forecast, came: np.ndarray, low: float = -80.0, high: float = 80.0) -> list[float]:
    """CRPS by summing over two hundred thousand points."""
    grid = np.linspace(low, high, 200_001)
    piece = whole(forecast)
    _, up_to = piece.cdf(np.tile(grid, (len(forecast), 1)))  # type: ignore[attr-defined]
    return [float(integrate.trapezoid(np.square(row - (grid >= y)), grid)) for row, y in zip(up_to, came, strict=True)]


def table(seed: int = 0, codes: int = 6, entries: int = 16) -> np.ndarray:
    """Codes with heavy tails; code 1 has zeros, code 2 nothing else, code 3 one return over and over."""
    rows = np.random.default_rng(seed).standard_t(4, (codes, entries))
    rows[1, 4:9] = 0.0
    rows[2] = 0.0
    rows[3] = 1.5
    return np.sort(rows, axis=1)


def mixed(count: int = 5, seed: int = 0) -> Mixture:
    return Mixture(np.random.default_rng(seed).dirichlet(np.ones(6), count), Codes.from_table(table(seed)))


CAME = np.array([0.0, 0.3, -7.0, 1.5, 30.0])


@pytest.mark.parametrize("df", [2.5, 6.0, math.inf])
def test_student_without_zeros_is_scipys(df: float) -> None:
    law = stats.norm if math.isinf(df) else stats.t(df)
    piece = Student(np.array([0.5, 2.0]), df, 0.0)
    points = np.array([[-1.0, 0.0, 3.0], [-1.0, 0.0, 3.0]])
    levels = np.array([0.01, 0.5, 0.9])

    assert piece.cdf(points)[1] == pytest.approx(law.cdf(points / np.array([[0.5], [2.0]])))
    assert piece.quantiles(levels) == pytest.approx(np.outer([0.5, 2.0], law.ppf(levels)))
    assert piece.moments()[1] == pytest.approx(np.array([0.25, 4.0]) * law.var())


@pytest.mark.parametrize("df", [3.0, 8.0, math.inf])
@pytest.mark.parametrize("zero", [0.0, 0.2])
def test_student_crps_is_the_integral(df: float, zero: float) -> None:
    forecast = Student(np.array([0.5, 1.0, 2.0, 1.0, 3.0]), df, zero)

    assert forecast.crps(CAME) == pytest.approx(integrated(forecast, CAME), rel=2e-3)


def test_normal_crps_is_the_closed_form_of_gneiting_and_raftery() -> None:
    z = np.array([-1.0, 0.0, 2.5])
    closed = z * (2.0 * stats.norm.cdf(z) - 1.0) + 2.0 * stats.norm.pdf(z) - 1.0 / math.sqrt(math.pi)

    assert Student(np.full(3, 2.0), math.inf, 0.0).crps(2.0 * z) == pytest.approx(2.0 * closed)


def test_mixture_crps_is_the_integral() -> None:
    assert whole(mixed()).crps(CAME) == pytest.approx(integrated(mixed(), CAME), rel=2e-3)  # type: ignore[attr-defined]


def test_mixture_crps_beyond_all_knots_grows_by_the_distance() -> None:
    piece = whole(mixed(2))

    near, far = (piece.crps(np.array([100.0, -100.0]) * k) for k in (1.0, 2.0))  # type: ignore[attr-defined]
    assert far - near == pytest.approx(np.array([100.0, 100.0]))


def test_one_code_is_its_empirical_distribution() -> None:
    entries = np.array([-2.0, -1.0, 0.0, 0.0, 1.0, 4.0])
    piece = whole(Mixture(np.ones((1, 1)), Codes.from_table(entries[None, :])))

    below, up_to = piece.cdf(np.array([[-2.1, -2.0, -1.5, 0.0, 1.0, 2.5, 4.0, 9.0]]))  # type: ignore[attr-defined]

    # Levels 1/12, 3/12, ... 11/12; the two zeros are a jump from 5/12 to 7/12, the ends hold half a step each.
    assert below[0] * 12 == pytest.approx([0, 0, 2, 5, 9, 10, 11, 12])
    assert up_to[0] * 12 == pytest.approx([0, 1, 2, 7, 9, 10, 12, 12])


def test_a_forecast_is_judged_as_the_graph_gives_it() -> None:
    forecast = mixed(5)
    given = ReturnTable(table(), halflife_bars=32.0).forecast(forecast.probabilities, np.ones(5))
    levels = np.array([0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99])

    mean, square = forecast.moments()
    up, down = forecast.signs()

    assert whole(forecast).quantiles(levels) == pytest.approx(given.quantile(levels))  # type: ignore[attr-defined]
    assert mean == pytest.approx(given.mean)
    assert np.sqrt(square - mean**2) == pytest.approx(given.volatility)
    assert up == pytest.approx(given.probability_up)
    assert 1.0 - up - down == pytest.approx(given.probability_flat)


def test_a_mixture_is_the_weighted_sum_of_its_codes() -> None:
    codes = Codes.from_table(table())
    points = np.tile(np.linspace(-6.0, 6.0, 97), (6, 1))
    _, alone = whole(Mixture(np.eye(6), codes)).cdf(points)  # type: ignore[attr-defined]
    weights = np.array([[0.1, 0.2, 0.3, 0.05, 0.15, 0.2]])

    _, together = whole(Mixture(weights, codes)).cdf(points[:1])  # type: ignore[attr-defined]

    assert together == pytest.approx(weights @ alone)


def test_moments_and_signs_of_a_mixture_are_those_of_its_samples() -> None:
    forecast = mixed(2)
    chance = np.random.default_rng(1)
    levels = np.sort(chance.random(200_000))
    samples = whole(forecast).quantiles(levels)  # type: ignore[attr-defined]

    mean, square = forecast.moments()
    up, down = forecast.signs()

    assert samples.mean(axis=1) == pytest.approx(mean, abs=0.02)
    assert np.square(samples).mean(axis=1) == pytest.approx(square, rel=0.02)
    assert (samples > 0.0).mean(axis=1) == pytest.approx(up, abs=0.005)
    assert (samples < 0.0).mean(axis=1) == pytest.approx(down, abs=0.005)


def test_single_precision_probabilities_lose_nothing_that_matters() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(6), 5)
    codes = Codes.from_table(table())
    exact, single = (Mixture(p, codes) for p in (probabilities, probabilities.astype(np.float32)))

    assert whole(single).crps(CAME) == pytest.approx(whole(exact).crps(CAME), rel=1e-6)  # type: ignore[attr-defined]


def test_pieces_are_the_whole_in_order() -> None:
    forecast = mixed(5)
    parts = [(rows, piece.crps(CAME[rows])) for rows, piece in forecast.pieces(2)]

    assert [(rows.start, rows.stop) for rows, _ in parts] == [(0, 2), (2, 4), (4, 5)]
    assert np.concatenate([losses for _, losses in parts]) == pytest.approx(
        whole(forecast).crps(CAME)  # type: ignore[attr-defined]
    )


@pytest.mark.parametrize(
    "bad", [np.array([[1.0, 0.0]]), np.array([[np.nan, 1.0]]), np.empty((0, 4)), np.zeros((3, 4)), np.ones(4)]
)
def test_what_is_no_table_of_returns_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="table"):
        Codes.from_table(bad)


def test_probabilities_for_another_number_of_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="want \\(n, 6\\)"):
        Mixture(np.ones((2, 5)), Codes.from_table(table()))


@pytest.mark.parametrize(
    ("scale", "df", "zero"), [(0.0, 5.0, 0.0), (np.nan, 5.0, 0.0), (1.0, 2.0, 0.0), (1.0, 5.0, 1.0)]
)
def test_an_impossible_student_is_refused(scale: float, df: float, zero: float) -> None:
    with pytest.raises(ValueError, match=r"want df|positive and finite"):
        Student(np.array([scale]), df, zero)


forecasts = st.one_of(
    st.builds(
        lambda scale, df, zero: Student(np.array([scale]), df, zero),
        st.floats(0.01, 100.0),
        st.one_of(st.floats(2.1, 50.0), st.just(math.inf)),
        st.floats(0.0, 0.9),
    ),
    st.builds(lambda seed: mixed(1, seed), st.integers(0, 10_000)),
)


@settings(max_examples=60, deadline=None)
@given(forecasts, st.lists(st.floats(0.001, 0.999), min_size=1, max_size=8))
def test_quantiles_are_where_the_distribution_passes_their_level(forecast: Forecast, levels: list[float]) -> None:
    levels = sorted(levels)
    piece = whole(forecast)

    found = piece.quantiles(np.array(levels))  # type: ignore[attr-defined]

    assert (np.diff(found) >= 0.0).all()
    # A hair to either side: the inverse is exact to rounding.
    below, _ = piece.cdf(found - 1e-7 * np.maximum(1.0, np.abs(found)))  # type: ignore[attr-defined]
    _, up_to = piece.cdf(found + 1e-7 * np.maximum(1.0, np.abs(found)))  # type: ignore[attr-defined]
    assert (below[0] <= np.array(levels) + 1e-6).all()
    assert (up_to[0] >= np.array(levels) - 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(forecasts, st.floats(-50.0, 50.0))
def test_crps_lies_between_zero_and_the_mean_distance(forecast: Forecast, came: float) -> None:
    piece = whole(forecast)
    samples = piece.quantiles((np.arange(4_000) + 0.5) / 4_000)[0]  # type: ignore[attr-defined]

    loss = float(piece.crps(np.array([came]))[0])  # type: ignore[attr-defined]

    assert loss >= -1e-9
    assert loss <= float(np.abs(samples - came).mean()) * 1.02 + 0.02 * float(np.abs(samples).max())
