"""The sign of the next return: log-loss, accuracy, and how far from luck."""

import math

import numpy as np
import pytest
from finished import HOUR_NS, START_NS
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.bootstrap import edge
from evaluation.direction import PROBABILITY_MIN, direction, sign_probability, turning_forecast, turning_share

TIMES = START_NS + HOUR_NS * np.arange(1, 24 * 120 + 1)

EVEN = np.full(len(TIMES), 0.5)


def coin(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice([-0.01, 0.01], len(TIMES))


def test_a_coin_costs_one_bit_and_has_no_edge() -> None:
    half = np.full(len(TIMES), 0.45)

    found = direction(half, half, coin(), TIMES, training_up=0.5, turning=EVEN)

    assert found.log_loss.value == pytest.approx(1.0)
    assert found.accuracy.value == 0.5
    assert edge(found.coin) == "no edge"


def test_a_forecast_that_knows_has_an_edge_in_every_figure() -> None:
    chance = np.random.default_rng(1)
    up = chance.choice([0.3, 0.7], len(TIMES))
    came = np.where(chance.random(len(TIMES)) < up, 1.0, -1.0)

    found = direction(up, 1.0 - up, came, TIMES, training_up=0.5, turning=EVEN)

    entropy = -(0.3 * math.log2(0.3) + 0.7 * math.log2(0.7))
    assert found.log_loss.value == pytest.approx(entropy, abs=0.02)
    assert found.accuracy.value == pytest.approx(0.7, abs=0.02)
    assert [edge(one) for one in (found.coin, found.base_rate, found.above_majority)] == ["better"] * 3


def test_confidence_without_knowledge_is_worse_than_a_coin() -> None:
    up = np.random.default_rng(2).choice([0.1, 0.9], len(TIMES))

    assert edge(direction(up, 1.0 - up, coin(), TIMES, training_up=0.5, turning=EVEN).coin) == "worse"


def test_bars_that_did_not_move_are_left_out() -> None:
    came = coin()
    came[::3] = 0.0
    up = np.where(came == 0.0, 0.99, 0.4)

    found = direction(up, 1.0 - up, came, TIMES, training_up=0.5, turning=EVEN)

    moved = came != 0.0
    assert found.bars == moved.sum()
    share = (came[moved] > 0.0).mean()
    assert found.log_loss.value == pytest.approx(-share * math.log2(0.4) - (1.0 - share) * math.log2(0.6))


def test_the_majority_is_that_of_the_judged_bars_and_the_base_rate_that_of_training() -> None:
    came = np.where(np.arange(len(TIMES)) % 4 == 0, -1.0, 1.0)
    half = np.full(len(TIMES), 0.5)

    found = direction(half, half, came, TIMES, training_up=0.6, turning=EVEN)

    assert found.majority == 0.75
    assert found.above_majority.value == pytest.approx(-0.25)
    assert found.base_rate.value == pytest.approx(-0.75 * math.log2(0.6) - 0.25 * math.log2(0.4) - 1.0)


@pytest.mark.parametrize(
    ("returns", "share", "message"),
    [(np.zeros(len(TIMES)), 0.5, "at least one bar"), (coin(), 1.0, "training_up"), (coin()[:5], 0.5, "equal shapes")],
)
def test_what_cannot_be_judged_is_refused(returns: np.ndarray, share: float, message: str) -> None:
    half = np.full(len(TIMES), 0.5)
    with pytest.raises(ValueError, match=message):
        direction(half, half, returns, TIMES, training_up=share, turning=EVEN[: len(returns)])


def test_what_the_sign_before_says_is_counted_on_moves_by_state() -> None:
    before = np.array([-1.0, -1.0, -1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    returns = np.array([2.0, 3.0, -1.0, 1.0, -1.0, -2.0, 0.0, 5.0])

    shares = turning_share(before, returns)

    assert shares == pytest.approx([2.5 / 4.0, 1.5 / 2.0, 1.5 / 4.0])
    assert turning_forecast(shares, np.array([0.3, -9.0, 0.0])) == pytest.approx(shares[[2, 0, 1]])


def test_a_market_that_turns_back_is_no_edge_over_the_sign_before() -> None:
    chance = np.random.default_rng(6)
    came = [1.0]
    for turns in chance.random(len(TIMES) - 1) < 0.6:
        came.append(-came[-1] if turns else came[-1])
    returns, before = np.array(came), np.array([0.0, *came[:-1]])
    up = np.where(before > 0.0, 0.4, 0.6)  # a model that found just that

    found = direction(up, 1.0 - up, returns, TIMES, training_up=0.5, turning=turning_forecast(
        turning_share(before, returns), before
    ))  # fmt: skip

    assert edge(found.coin) == "better"
    assert edge(found.sign_before) == "no edge"


@settings(max_examples=50, deadline=None)
@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_sign_probability_is_a_fair_share_and_never_certain(up: float, down: float) -> None:
    found = float(sign_probability(np.array([up]), np.array([down]))[0])

    assert PROBABILITY_MIN <= found <= 1.0 - PROBABILITY_MIN
    if up == down:
        assert found == 0.5
    elif min(up, down) > 1e-5:
        assert found == pytest.approx(up / (up + down))
