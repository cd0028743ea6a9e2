"""What is drawn, and how often."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from models.sampling import Floats, Sampling, draw, probabilities

LOGITS = np.log([[0.4, 0.1, 0.3, 0.2]])
some_logits = arrays.arrays(np.float64, (3, 8), elements=st.integers(-5_000, 5_000).map(lambda i: i / 100.0))
a_sampling = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.01, 0.5, 1.0, 3.0]),
    top_k=st.integers(0, 9),
    top_p=st.floats(0.01, 1.0),
)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({}, [0.4, 0.1, 0.3, 0.2]),
        ({"temperature": 0.0}, [1.0, 0.0, 0.0, 0.0]),
        ({"temperature": 0.5}, [16 / 30, 1 / 30, 9 / 30, 4 / 30]),
        ({"top_k": 1}, [1.0, 0.0, 0.0, 0.0]),
        ({"top_k": 2}, [4 / 7, 0.0, 3 / 7, 0.0]),
        ({"top_k": 9}, [0.4, 0.1, 0.3, 0.2]),
        ({"top_p": 0.3}, [1.0, 0.0, 0.0, 0.0]),
        ({"top_p": 0.5}, [4 / 7, 0.0, 3 / 7, 0.0]),
        ({"top_p": 0.89}, [4 / 9, 0.0, 3 / 9, 2 / 9]),
        # Of the two that top-k leaves, the first holds 4 / 7 = 0.571: enough for 0.55, though 0.4 would not be.
        ({"top_k": 2, "top_p": 0.55}, [1.0, 0.0, 0.0, 0.0]),
    ],
)
def test_the_distribution_that_is_drawn_from(sampling: dict[str, Any], expected: list[float]) -> None:
    assert probabilities(LOGITS, Sampling(**sampling))[0] == pytest.approx(expected)


def test_a_tie_goes_to_the_lower_token() -> None:
    flat = np.zeros((1, 4))

    assert probabilities(flat, Sampling(top_k=2)).tolist() == [[0.5, 0.5, 0.0, 0.0]]
    assert probabilities(flat, Sampling(temperature=0.0)).tolist() == [[1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_model_that_failed_is_not_drawn_from(wrong: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        probabilities(np.array([[0.0, wrong]]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
    ],
)
def test_impossible_sampling_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        Sampling(**wrong)


@settings(max_examples=200, deadline=None)
@given(some_logits, a_sampling)
def test_every_distribution_sums_to_one_and_keeps_the_order(logits: Floats, sampling: Sampling) -> None:
    found = probabilities(logits, sampling)

    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert (found >= 0.0).all()
    if sampling.top_k:
        assert ((found > 0.0).sum(axis=1) <= sampling.top_k).all()
    for row, chances in zip(logits, found, strict=True):
        assert (np.diff(chances[np.argsort(row, kind="stable")]) >= -1e-12).all() or len(np.unique(row)) < 8
        assert chances[row.argmax()] > 0.0


@settings(max_examples=100, deadline=None)
@given(some_logits, a_sampling, st.sampled_from([0.0, 5e-324, 0.3, 0.999, 1.0 - 2**-53]))
def test_a_token_without_probability_is_never_drawn(logits: Floats, sampling: Sampling, uniform: float) -> None:
    chances = probabilities(logits, sampling)

    tokens = draw(chances, np.full(3, uniform))

    assert (chances[np.arange(3), tokens] > 0.0).all()


def test_draws_follow_the_distribution() -> None:
    chances = probabilities(np.random.default_rng(1).normal(size=(1, 16)) * 2.0)
    uniforms = np.random.default_rng(2).random(200_000)

    tokens = draw(np.broadcast_to(chances, (len(uniforms), 16)), uniforms)

    counts = np.bincount(tokens, minlength=16)
    assert stats.chisquare(counts, chances[0] * len(uniforms)).pvalue > 0.001


def test_a_draw_is_the_inverse_of_the_distribution_function() -> None:
    chances = np.array([[0.25, 0.0, 0.5, 0.25]] * 5)

    assert draw(chances, np.array([0.0, 0.2499, 0.25, 0.7499, 0.75])).tolist() == [0, 0, 2, 2, 3]
