"""How good the forecasts of a run were: which bar each is judged by, and what every figure is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from finished import HOUR_NS, START_NS
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.foresight import FORESIGHT_DEFINITIONS, Foresight, foresight, lagged_ewma
from evaluation.run import Floats, Ints, PriceModel
from evaluation.volatility import VARIANCE_MIN

HALFLIFE = 8.0
US_NS = 1_000


def closes_of(returns: Sequence[float] | Floats) -> tuple[Ints, Floats]:
    """Hourly bars, one more than returns."""
    prices = 100.0 * np.exp(np.concatenate([[0.0], np.cumsum(returns)]))
    return START_NS + HOUR_NS * np.arange(1, len(prices) + 1), prices


def said(times: Ints, volatility: Floats, symbol: str = "X", /, **changes: Any) -> pa.Table:
    """A forecast a microsecond after each of `times`, of a normal without drift."""
    n = len(times)
    columns: dict[str, Any] = {
        "time": times + US_NS,
        "symbol": [symbol] * n,
        "asof": times,
        "mean": np.zeros(n),
        "volatility": volatility,
        "q05": -1.645 * volatility,
        "q25": -0.6745 * volatility,
        "q75": 0.6745 * volatility,
        "q95": 1.645 * volatility,
        "entropy": np.full(n, 5.0),
        "surprise": np.full(n, 6.0),
    }
    return pa.table(columns | changes)


def model(forecasts: pa.Table | None, **closes: tuple[Ints, Floats]) -> PriceModel:
    return PriceModel(checkpoints=(), halflife_bars=HALFLIFE, forecasts=forecasts, closes=closes)


def clustered(hours: int, seed: int = 3) -> tuple[Floats, Floats]:
    """Returns whose volatility jumps at midnight, and that volatility. (hours,) each"""
    chance = np.random.default_rng(seed)
    volatility = np.repeat(np.where(chance.random(hours // 24) < 0.5, 0.001, 0.02), 24)
    return volatility * chance.standard_normal(len(volatility)), volatility


def test_a_forecast_is_judged_by_the_next_bar_alone() -> None:
    returns = [0.01, -0.02, 0.03]
    times, prices = closes_of(returns)
    volatility = np.array([0.01, 0.02, 0.04, 0.08])

    (every,) = foresight(model(said(times, volatility), X=(times, prices)))

    # Before the first return there is no EWMA, after the last bar nothing came: the forecasts of rows 1 and 2 count.
    assert every.bars == 2
    expected = np.square(volatility[1:3])
    came = np.square(returns[1:])
    assert every.qlike.value == pytest.approx(float((np.log(expected) + came / expected).mean()))
    decay = 0.5 ** (1.0 / HALFLIFE)
    second = (0.01**2 * decay + 0.02**2) / (1.0 + decay)
    lagged = np.array([0.01**2, second])
    assert every.ewma_qlike.value == pytest.approx(float((np.log(lagged) + came / lagged).mean()))
    assert every.gain.value == pytest.approx(every.ewma_qlike.value - every.qlike.value)
    assert every.gain.interval is None  # a day is no sample


def test_a_forecast_that_came_when_its_bar_had_closed_is_none() -> None:
    times, prices = closes_of([0.01, -0.02, 0.03, 0.01])
    table = said(times[:3], np.full(3, 0.01), time=times[:3] + np.array([0, HOUR_NS, HOUR_NS - 1]))

    (every,) = foresight(model(table, X=(times, prices)))

    assert every.bars == 1


def test_a_forecast_after_a_bar_that_is_not_there_is_none() -> None:
    times, prices = closes_of([0.01, -0.02, 0.03, 0.01])
    table = said(times + 7, np.full(5, 0.01))

    (every,) = foresight(model(table, X=(times, prices)))

    assert (every.bars, every.gain.reason) == (0, "no bar was judged")


def test_coverage_counts_what_lies_within_and_on_the_edges_of_a_band() -> None:
    times, prices = closes_of([0.01, 0.0, -0.01, 0.02, 0.05])
    edge = float(np.diff(np.log(prices))[2])
    ends = {"q05": np.full(6, -0.02), "q25": np.full(6, edge), "q75": np.full(6, 0.015), "q95": np.full(6, 0.03)}

    (every,) = foresight(model(said(times, np.full(6, 0.01), **ends), X=(times, prices)))

    assert every.bars == 4
    assert every.coverage_50.value == 0.5  # 0.0 and, on the edge, -0.01
    assert every.coverage_90.value == 0.75


def test_surprise_is_that_of_the_bar_which_the_forecast_was_of() -> None:
    times, prices = closes_of([0.01, -0.02, 0.03, 0.01])
    surprise = np.array([np.nan, np.nan, 4.0, np.nan, 9.0])
    entropy = np.array([1.0, 2.0, 3.0, 5.0, 8.0])

    (every,) = foresight(model(said(times, np.full(5, 0.01), surprise=surprise, entropy=entropy), X=(times, prices)))

    assert every.bars == 3
    assert (every.surprise.value, every.entropy.value, every.excess.value) == (6.5, 3.5, 3.0)  # bars 2 and 4


def test_knowing_the_volatility_beats_ewma() -> None:
    returns, volatility = clustered(24 * 60)
    times, prices = closes_of(returns)
    knows = np.append(volatility, 0.01)

    (good,) = foresight(model(said(times, knows), X=(times, prices)))

    assert good.gain.interval is not None
    assert good.gain.interval[0] > 0.0
    assert good.coverage_90.value == pytest.approx(0.9, abs=0.03)
    assert good.coverage_50.value == pytest.approx(0.5, abs=0.03)


def test_three_times_the_volatility_is_worse_than_ewma() -> None:
    times, prices = closes_of(0.01 * np.random.default_rng(1).standard_normal(24 * 30))

    (bad,) = foresight(model(said(times, np.full(len(times), 0.03)), X=(times, prices)))

    assert bad.gain.interval is not None
    assert bad.gain.interval[1] < 0.0
    assert (bad.coverage_90.value or 0.0) > 0.99


def test_all_symbols_come_first_and_each_is_as_it_is_alone() -> None:
    parts = {}
    for seed, symbol in enumerate(("X", "Y")):
        returns, volatility = clustered(24 * 12, seed)
        times, prices = closes_of(returns)
        parts[symbol] = (said(times, np.append(volatility, 0.01), symbol), (times, prices))
    table = pa.concat_tables([table for table, _ in parts.values()]).sort_by("time")

    every, *each = foresight(model(table, **{symbol: closes for symbol, (_, closes) in parts.items()}))

    assert [part.symbol for part in (every, *each)] == [None, "X", "Y"]
    assert every.bars == sum(part.bars for part in each)
    for part in each:
        (alone,) = foresight(model(parts[part.symbol or ""][0], **{part.symbol or "": parts[part.symbol or ""][1]}))
        assert part.gain == alone.gain
        assert part.coverage_90.value == alone.coverage_90.value
    mean = sum(part.bars * (part.gain.value or 0.0) for part in each) / every.bars
    assert every.gain.value == pytest.approx(mean)


@pytest.mark.parametrize("table", [None, said(np.empty(0, np.int64), np.empty(0))])
def test_a_model_that_said_nothing_has_reasons_for_figures(table: pa.Table | None) -> None:
    times, prices = closes_of([0.01, 0.02])

    (every,) = foresight(model(table, X=(times, prices), Y=(times[:0], prices[:0])))

    assert isinstance(every, Foresight)
    assert every.bars == 0
    figures = [getattr(every, name) for name in FORESIGHT_DEFINITIONS if name != "bars"]
    assert {figure.reason for figure in figures} == {"no bar was judged"}


def test_a_price_that_stands_still_makes_nothing_infinite() -> None:
    times, prices = closes_of([0.01, *[0.0] * 500, 0.01, 0.0])
    still = np.zeros(len(times))

    (every,) = foresight(model(said(times, still), X=(times, prices)))

    assert every.gain.value is not None


@pytest.mark.parametrize(("name", "value"), [("volatility", -0.1), ("volatility", np.nan), ("q05", np.inf)])
def test_a_forecast_that_cannot_be_is_refused(name: str, value: float) -> None:
    times, prices = closes_of([0.01, 0.02])

    with pytest.raises(ValueError, match=name):
        foresight(model(said(times, np.full(3, 0.01), **{name: np.full(3, value)}), X=(times, prices)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=60), st.floats(-0.1, 0.1))
def test_the_ewma_of_a_bar_knows_nothing_of_it_and_is_a_mean_of_what_was_before(
    before: list[float], later: float
) -> None:
    found = lagged_ewma(np.array([*before, later]), HALFLIFE)
    changed = lagged_ewma(np.array([*before, -0.5 * later]), HALFLIFE)

    np.testing.assert_array_equal(found, changed)
    squares = np.square(before)
    if squares.any():
        weights = 0.5 ** (np.arange(len(before))[::-1] / HALFLIFE)
        mean = float(weights @ squares / weights.sum())
        assert found[-1] == pytest.approx(max(mean, VARIANCE_MIN * float(squares.mean())), rel=1e-9)
    else:
        assert np.isnan(found[-1])
