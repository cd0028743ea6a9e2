"""Realised volatility against the target: from hour to hour, in all and with a position, by hand."""

from typing import Any

import numpy as np
import pytest
from finished import HOUR_NS, START_NS, equity_table, market, record
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.aims import HOURS_PER_YEAR, Aim, volatility_aim
from evaluation.run import VolatilityTarget, read_marks

TARGET = VolatilityTarget(strategy="main", target=0.2, allocation=1.0, by="realised")


def aim_of(times: list[int], equity: list[float], position: list[float], **changes: Any) -> Aim:
    changes = {"targets": (TARGET,)} | changes
    run = record(times, equity, position=position, initial_cash=equity[0], **changes)
    aim = volatility_aim(run, read_marks(run))
    assert aim is not None
    return aim


def hourly(count: int) -> list[int]:
    return [START_NS + HOUR_NS * i for i in range(count)]


def annual(*returns: float) -> float:
    return float(np.sqrt(HOURS_PER_YEAR * np.mean(np.square(returns))))


def test_all_hours_count_and_those_with_a_position_once_more() -> None:
    up, down = np.exp(0.01), np.exp(-0.02)
    equity = [100.0, 100.0, 100.0 * up, 100.0 * up * down, 100.0 * up * down]

    aim = aim_of(hourly(5), equity, [0.0, 50.0, 50.0, 0.0, 0.0])

    assert aim.realised.value == pytest.approx(annual(0.0, 0.01, -0.02, 0.0))
    assert aim.in_market.value == pytest.approx(annual(0.01, -0.02))
    assert (aim.hours, aim.hours_in_market, aim.target) == (4, 2, 0.2)
    assert aim.realised.interval is None  # too few days


def test_marks_within_an_hour_and_just_after_its_end_belong_to_it() -> None:
    # 1 % up and back within the hour is no change of that hour; a mark settles a microsecond after the instant.
    times = [START_NS, START_NS + HOUR_NS // 3, START_NS + HOUR_NS + 1_000, START_NS + 2 * HOUR_NS + 1_000]

    aim = aim_of(times, [100.0, 101.0, 100.0, 102.0], [1.0] * 4)

    assert aim.hours == 2
    assert aim.realised.value == pytest.approx(annual(0.0, float(np.log(1.02))))


def test_an_hour_with_a_position_for_less_than_half_is_not_in_the_market() -> None:
    times = [START_NS, START_NS + HOUR_NS // 4, START_NS + HOUR_NS, START_NS + 7 * HOUR_NS // 4, START_NS + 2 * HOUR_NS]

    aim = aim_of(times, [100.0, 101.0, 101.0, 102.0, 102.0], [50.0, 0.0, 50.0, 0.0, 0.0])

    assert aim.in_market.value == pytest.approx(annual(float(np.log(102.0 / 101.0))))
    assert aim.hours_in_market == 1


def test_a_year_of_a_known_volatility_is_measured_as_that() -> None:
    chance = np.random.default_rng(5)
    returns = 0.3 / np.sqrt(HOURS_PER_YEAR) * chance.standard_normal(24 * 365)
    equity = (100.0 * np.exp(np.concatenate([[0.0], np.cumsum(returns)]))).tolist()

    aim = aim_of(hourly(len(equity)), equity, [1.0] * len(equity))

    assert aim.realised.value == pytest.approx(0.3, rel=0.03)
    assert aim.realised.interval is not None
    assert aim.realised.interval[0] < 0.3 < aim.realised.interval[1]
    assert aim.in_market.value == aim.realised.value


def test_a_share_of_the_account_has_that_share_of_the_target_and_several_strategies_have_none() -> None:
    half = VolatilityTarget(strategy="main", target=0.2, allocation=0.5, by="realised")
    equity = [100.0, 101.0, 102.0]

    assert aim_of(hourly(3), equity, [1.0] * 3, targets=(half,)).target == 0.1
    assert aim_of(hourly(3), equity, [1.0] * 3, targets=(half, TARGET)).target is None


def test_without_a_strategy_that_sizes_by_volatility_there_is_nothing_to_compare() -> None:
    run = record(hourly(3), [100.0, 101.0, 102.0])

    assert volatility_aim(run, read_marks(run)) is None


@pytest.mark.parametrize(
    ("times", "equity", "position", "realised", "in_market"),
    [
        (hourly(1), [100.0], [0.0], "the run has no whole hour", "the run has no whole hour"),
        (hourly(3), [100.0, -1.0, 5.0], [1.0] * 3, "equity fell to zero or below", "equity fell to zero or below"),
        (hourly(3), [100.0] * 3, [0.0] * 3, None, "no position was held for most of an hour"),
    ],
)
def test_what_cannot_be_measured_has_a_reason(
    times: list[int], equity: list[float], position: list[float], realised: str | None, in_market: str
) -> None:
    aim = aim_of(times, equity, position)

    assert (aim.realised.reason, aim.in_market.reason) == (realised, in_market)


def test_several_markets_without_gross_exposure_say_what_is_missing() -> None:
    markets = (market(hourly(3), [1.0] * 3), market(hourly(3), [1.0] * 3, symbol="Y"))

    aim = aim_of(hourly(3), [100.0, 101.0, 100.0], [1.0] * 3, markets=markets)

    assert aim.realised.value is not None
    assert aim.in_market.reason == "needs the column gross_exposure, with several symbols"
    assert aim.hours_in_market is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(50.0, 200.0), min_size=3, max_size=40), st.integers(1, 5))
def test_marks_that_say_nothing_new_change_nothing(equity: list[float], copies: int) -> None:
    times = hourly(len(equity))
    plain = aim_of(times, equity, [1.0] * len(equity))
    dense_times = [time + HOUR_NS * k // copies for time in times[:-1] for k in range(copies)] + times[-1:]
    dense = [value for value in equity[:-1] for _ in range(copies)] + equity[-1:]
    run = record(
        [], [], equity=equity_table(dense_times, dense, [1.0] * len(dense)), targets=(TARGET,), initial_cash=equity[0]
    )
    again = volatility_aim(run, read_marks(run))

    assert again is not None
    assert (again.realised, again.in_market, again.hours) == (plain.realised, plain.in_market, plain.hours)
