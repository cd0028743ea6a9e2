"""What the graph makes of forecasts: bounded signals, a volatility that is never silent, a limit, and few alerts."""

import math
from datetime import timedelta
from typing import Any

import csp
import numpy as np
import pytest
from csp import ts
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, at, run, ticks, values

from nodes.events import AlertLevel, Forecast, PositionUpdate, RiskActionKind
from nodes.forecast import (
    LEVELS,
    ForecastConfig,
    drift_alert,
    expected_volatility,
    forecast_at_risk,
    forecast_signal,
    surprise_alert,
)

HOUR = timedelta(hours=1)
YEAR_S = 365.25 * 86_400.0


class _Held:
    """Structs that csp does not try to hash, as those with an array cannot be."""

    def __init__(self, values: list[Forecast]) -> None:
        self.values = values


@csp.node
def _nth(n: ts[int], held: object) -> ts[Forecast]:
    if csp.ticked(n):
        return held.values[n]


def forecasts(*points: tuple[float, Forecast]) -> Any:
    """An edge of (seconds after T0, forecast) points."""
    return _nth(at(*((s, n) for n, (s, _) in enumerate(points))), _Held([value for _, value in points]))


def told(
    *,
    asof_s: float = 0.0,
    symbol: str = "X",
    up: float = 0.5,
    mean: float = 0.0,
    volatility: float = 0.01,
    surprise: float = 3.0,
    token: int = 0,
    spread: float = 1.0,
) -> Forecast:
    return Forecast(
        symbol=symbol,
        asof=T0 + timedelta(seconds=asof_s),
        mean=mean,
        volatility=volatility,
        quantiles=spread * 0.02 * (np.array(LEVELS) - 0.5),
        probability_up=up,
        entropy=6.0,
        surprise=surprise,
        token=token,
    )


@pytest.mark.parametrize(("up", "score"), [(0.5, 0.0), (0.55, 1.0), (0.525, 0.5), (0.9, 1.0), (0.2, -1.0)])
def test_a_direction_is_scaled_and_bounded(up: float, score: float) -> None:
    said, config = told(up=up, mean=math.copysign(0.002, up - 0.5)), ForecastConfig(edge_full=0.1, confidence=0.2)

    ((when, signal),) = run(lambda: forecast_signal(forecasts((0.0, said)), config, HOUR, 0.001))

    assert when == T0
    assert (signal.symbol, signal.source, signal.horizon_s, signal.asof) == ("X", "forecast", 3_600.0, T0)
    assert signal.score == pytest.approx(score)
    assert signal.confidence == (0.2 if score else 0.0)


@pytest.mark.parametrize(
    ("up", "mean", "confidence"),
    [
        (0.6, 0.0011, 0.2),
        (0.4, -0.0011, 0.2),
        (0.6, 0.0009, 0.0),
        (0.4, -0.0009, 0.0),
        (0.6, -0.0011, 0.0),  # it rises more often than not, and a buyer loses
        (0.4, 0.0011, 0.0),
    ],
)
def test_a_direction_that_does_not_pay_for_itself_is_no_opinion(up: float, mean: float, confidence: float) -> None:
    ((_, signal),) = run(
        lambda: forecast_signal(forecasts((0.0, told(up=up, mean=mean))), ForecastConfig(), HOUR, 0.001)
    )
    assert signal.confidence == confidence


@given(st.floats(0.0, 1.0), st.floats(1e-6, 1.0))
@settings(max_examples=30, deadline=None)
def test_no_probability_makes_a_score_out_of_range(up: float, edge: float) -> None:
    config = ForecastConfig(edge_full=edge)
    ((_, signal),) = run(lambda: forecast_signal(forecasts((0.0, told(up=up))), config, HOUR, 0.0))
    assert -1.0 <= signal.score <= 1.0


def test_volatility_is_the_forecasts_in_bars_a_year_and_realised_where_none_is_fresh() -> None:
    def graph() -> Any:
        close = ticks(100.0, 101.0, 102.0, 103.0, 104.0, 105.0)
        realised = csp.sample(close, csp.const(0.5))
        forecast = forecasts((2.0, told(asof_s=2.0)))  # one at 2 s, of the bar that closes at 3 s
        return expected_volatility(forecast, close, realised, 10)

    got = run(graph)

    seconds = [(when - T0).total_seconds() for when, _ in got]
    assert seconds == [0.0, 1.0, 2.0, 4.0, 5.0]
    assert values(got) == pytest.approx([0.5, 0.5, 0.01 * math.sqrt(YEAR_S), 0.5, 0.5])


def test_a_weekend_makes_no_forecast_old() -> None:
    # Daily closes, from Monday to Friday; the forecast of each next one comes a microsecond later.
    days = [day for day in range(21) if day % 7 < 5]
    out = [11, 14, 15]  # the model says nothing on these days

    def graph() -> Any:
        close = at(*((86_400.0 * day, 100.0 + day) for day in days))
        realised = csp.sample(close, csp.const(0.5))
        said = [day for day in days if day not in out]
        edge = forecasts(*((86_400.0 * day + 1e-6, told(asof_s=86_400.0 * day)) for day in said))
        return expected_volatility(edge, close, realised, 10)

    got = run(graph, seconds=86_400.0 * 21)

    realised = [(when - T0).days for when, value in got if value == 0.5]
    assert realised == [0, 14, 15, 16]  # before the first one; and where the close before had none of its own


def test_a_forecast_before_two_closes_says_nothing_of_a_year() -> None:
    nothing = csp.null_ts(float)
    assert run(lambda: expected_volatility(forecasts((0.0, told())), ticks(100.0), nothing, 10)) == []


def at_risk(*points: tuple[float, Forecast], held: float, equity: float = 100.0, limit: float = 0.005) -> Any:
    def graph() -> Any:
        value, worth = csp.const(held), csp.const(equity)
        position = csp.null_ts(PositionUpdate)
        return forecast_at_risk({"X": forecasts(*points)}, position, {"X": value}, worth, limit)

    return run(graph)


def test_a_long_position_is_judged_by_the_low_quantile_and_a_short_one_by_the_high() -> None:
    q = 0.02 * 0.45  # what `told` gives at 5 and 95 %
    ((when, long),) = at_risk((1.0, told()), held=100.0)
    ((_, short),) = at_risk((1.0, told()), held=-100.0)

    assert when == T0 + timedelta(seconds=1)
    assert (long.kind, long.code) == (RiskActionKind.REDUCE_POSITIONS, "forecast_value_at_risk")
    assert long.value == pytest.approx(1.0 - math.exp(-q))
    assert short.value == pytest.approx(math.exp(q) - 1.0)
    assert long.limit == 0.005


def test_it_is_told_again_only_when_it_has_grown() -> None:
    wider = [(float(i), told(spread=spread)) for i, spread in enumerate((1.0, 1.01, 1.2, 0.1, 1.0))]

    got = at_risk(*wider, held=100.0)

    assert [(when - T0).total_seconds() for when, _ in got] == [0.0, 2.0, 4.0]


@pytest.mark.parametrize(("held", "equity", "limit"), [(0.0, 100.0, 0.005), (100.0, -1.0, 0.005), (100.0, 100.0, 0.5)])
def test_nothing_is_asked_for_without_a_position_or_equity_or_below_the_limit(
    held: float, equity: float, limit: float
) -> None:
    assert at_risk((0.0, told()), held=held, equity=equity, limit=limit) == []


def test_a_fill_is_judged_by_the_forecast_that_holds() -> None:
    def graph() -> Any:
        value = at((0.0, 0.0), (5.0, 100.0))
        filled = PositionUpdate(symbol="X", quantity=1.0, average_price=100.0, realised=0.0, fees=0.0)
        return forecast_at_risk(
            {"X": forecasts((1.0, told()))}, at((5.0, filled)), {"X": value}, csp.const(100.0), 0.005
        )

    ((when, _),) = run(graph)
    assert when == T0 + timedelta(seconds=5)


def test_a_surprise_is_told_once_a_row() -> None:
    bits = (3.0, 15.0, 16.0, math.nan, 20.0)
    edge = forecasts(*((float(i), told(surprise=b)) for i, b in enumerate(bits)))

    got = run(lambda: surprise_alert(edge, 14.0))

    assert [((when - T0).total_seconds(), alert.value) for when, alert in got] == [(1.0, 15.0), (4.0, 20.0)]
    assert got[0][1].level is AlertLevel.INFO
    assert got[0][1].message == "a bar surprised the model by 15.0 bits: it gave it a chance of 1 in 32,768"


COUNTS = (400, 300, 200, 100)
SHARES = np.array(COUNTS) / sum(COUNTS)


def drift(tokens: list[int], limit: float = 0.3) -> Any:
    edge = forecasts(*((float(i), told(token=token)) for i, token in enumerate(tokens)))
    return run(lambda: drift_alert(edge, COUNTS, 100, limit))


def test_tokens_used_as_in_training_are_no_drift() -> None:
    dice = np.random.default_rng(1)
    assert drift(dice.choice(4, size=500, p=SHARES).tolist()) == []


def test_a_market_that_speaks_otherwise_is_told_once_and_again_after_it_was_well() -> None:
    dice = np.random.default_rng(2)
    usual = dice.choice(4, size=300, p=SHARES).tolist()

    got = drift([*usual, *[3] * 300, *usual, *[3] * 300])

    assert [alert.level for _, alert in got] == [AlertLevel.WARNING] * 2
    assert all(alert.value > 0.3 for _, alert in got)
    assert [300 < (when - T0).total_seconds() % 600 < 400 for when, _ in got] == [True, True]


@given(st.lists(st.integers(0, 3), min_size=100, max_size=160))
@settings(max_examples=25, deadline=None)
def test_the_divergence_is_that_of_the_whole_window(tokens: list[int]) -> None:
    got = drift(tokens, limit=1e-9)

    used = np.bincount(tokens[:100], minlength=4)
    share, training = (used + 0.5) / 102.0, (np.array(COUNTS) + 0.5) / 1002.0
    assert got[0][1].value == pytest.approx(float((share * np.log2(share / training)).sum()), abs=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"checkpoints": ()},
        {"checkpoints": ("a", "a")},
        {"form": "fast"},
        {"missing_max": -1},
        {"edge_full": 0.0},
        {"confidence": math.nan},
        {"surprise_bits": 0.0},
        {"drift_bits_max": math.inf},
        {"drift_window_bars": 49},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ForecastConfig(**wrong)


def test_no_checkpoint_is_wanted_where_there_is_no_model() -> None:
    assert not ForecastConfig(enabled=False, checkpoints=()).enabled
