"""The monitor: what it sees, when it speaks, and that it speaks once."""

import math
from datetime import timedelta
from typing import Any

import csp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, ticks, values

from feeds.instruments import Instrument
from nodes.events import AlertLevel, PositionUpdate, RiskAction, RiskActionKind, TargetPosition
from nodes.risk import ReturnHistory, RiskConfig, action_alert, limit_target, risk_monitor

A = Instrument(symbol="A", tick="0.01", lot="0.1")
OFF: dict[str, Any] = {"drawdown_max": None, "gross_exposure_max": None, "concentration_max": None, "var_max": None}


def actions(config: RiskConfig, equity: Any, gross: Any = (0.0,), closes: Any = (100.0,), held: Any = (0.0,)) -> Any:
    def graph() -> Any:
        return risk_monitor(ticks(*equity), ticks(*gross), {"A": ticks(*closes)}, {"A": ticks(*held)}, config)

    return [(t, a.kind.name, a.code, round(a.value, 6)) for t, a in run(graph)]


def test_drawdown_stops_once_in_the_cycle_of_the_change() -> None:
    config = RiskConfig(**OFF | {"drawdown_max": 0.1})
    assert actions(config, [100.0, 120.0, 109.0, 107.0, 50.0, 200.0, 100.0]) == [
        (T0 + 3 * SECOND, "EMERGENCY_STOP", "drawdown", round(1 - 107 / 120, 6))
    ]


def test_lost_equity_is_a_full_drawdown() -> None:
    config = RiskConfig(**OFF | {"drawdown_max": 0.9})
    assert actions(config, [100.0, -20.0]) == [(T0 + SECOND, "EMERGENCY_STOP", "drawdown", 1.2)]


def test_gross_exposure_reduces_at_a_breach_and_when_it_grows_by_a_twentieth() -> None:
    config = RiskConfig(**OFF | {"gross_exposure_max": 1.0})
    gross = [90.0, 110.0, 115.0, 130.0, 90.0, 105.0]
    assert actions(config, [100.0] * 6, gross) == [
        (T0 + SECOND, "REDUCE_POSITIONS", "gross_exposure", 1.1),
        (T0 + 3 * SECOND, "REDUCE_POSITIONS", "gross_exposure", 1.3),
        (T0 + 5 * SECOND, "REDUCE_POSITIONS", "gross_exposure", 1.05),
    ]


def test_concentration_is_checked_a_tenth_of_a_second_after_the_price() -> None:
    config = RiskConfig(**OFF | {"concentration_max": 0.5})
    assert actions(config, [100.0] * 3, closes=[1.0, 1.0, 1.0], held=[40.0, -60.0, -62.0]) == [
        (T0 + SECOND + timedelta(milliseconds=100), "REDUCE_POSITIONS", "concentration", 0.6)
    ]


def test_a_burst_of_prices_is_checked_once() -> None:
    # Ten prices within 100 ms arm one alarm; the last of them is what it sees.
    closes = csp.curve(float, [(timedelta(milliseconds=5 * i), 100.0 + i) for i in range(10)])
    held = csp.curve(float, [(timedelta(milliseconds=5 * i), 50.0 + i) for i in range(10)])
    config = RiskConfig(**OFF | {"concentration_max": 0.1})
    out = run(lambda: risk_monitor(csp.const(100.0), csp.const(0.0), {"A": closes}, {"A": held}, config))
    assert [(t, a.value) for t, a in out] == [(T0 + timedelta(milliseconds=100), 0.59)]


def test_value_at_risk_is_the_quantile_of_what_the_positions_would_have_lost() -> None:
    rng = np.random.default_rng(3)
    prices = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, (300, 2)), axis=0))
    history = ReturnHistory(["A", "B"], 100)
    for row in prices:
        history.add(row)

    held = np.array([1_000.0, -500.0])
    returns = (prices[1:] / prices[:-1] - 1.0)[-100:]
    assert history.value_at_risk(held) == pytest.approx(-np.quantile(returns @ held, 0.05), rel=1e-12)


def test_value_at_risk_waits_for_twenty_returns_and_is_never_negative() -> None:
    history = ReturnHistory(["A"], 50)
    for i in range(20):
        history.add(np.array([100.0 + i]))
    assert history.value_at_risk(np.array([1.0])) is None
    history.add(np.array([200.0]))
    assert history.value_at_risk(np.array([1.0])) == 0.0


def test_var_breach_asks_to_reduce() -> None:
    closes = [100.0 * (1.1 if i % 2 else 1.0) for i in range(40)]
    config = RiskConfig(**OFF | {"var_max": 0.05, "var_window": 20})
    out = actions(config, [100.0] * 40, closes=closes, held=[100.0] * 40)
    assert [(kind, code) for _, kind, code, _ in out] == [("REDUCE_POSITIONS", "value_at_risk")]
    assert out[0][0] == T0 + 20 * SECOND + timedelta(milliseconds=100)


def test_impossible_equity_stops_the_engine() -> None:
    with pytest.raises(ValueError, match="equity must be finite, was nan"):
        actions(RiskConfig(), [100.0, math.nan])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1.0, 1e6), min_size=1, max_size=30))
def test_rising_equity_never_stops(equity: list[float]) -> None:
    assert actions(RiskConfig(**OFF | {"drawdown_max": 0.01}), sorted(equity)) == []


def action(kind: RiskActionKind, value: float = 2.0, limit: float = 1.0) -> RiskAction:
    return RiskAction(kind=kind, code="gross_exposure", value=value, limit=limit)


def limited(wanted: Any, actions: Any, config: RiskConfig, held: Any = ()) -> list[tuple[Any, float]]:
    points = [(s, TargetPosition(symbol="A", quantity=q, asof=T0)) for s, q in wanted]
    positions = [
        (s, PositionUpdate(symbol="A", quantity=q, average_price=1.0, realised=0.0, fees=0.0)) for s, q in held
    ]

    def graph() -> Any:
        return limit_target(at(*points), at(*positions, typ=PositionUpdate), at(*actions, typ=RiskAction), A, config)

    out = run(graph)
    return [(t, target.quantity) for t, target in out]


def test_a_stop_flattens_once_and_silences_the_strategy() -> None:
    stop = [(1.0, action(RiskActionKind.EMERGENCY_STOP)), (3.0, action(RiskActionKind.REDUCE_POSITIONS))]
    assert limited([(0.0, 5.0), (2.0, -5.0)], stop, RiskConfig()) == [(T0, 5.0), (T0 + SECOND, 0.0)]
    assert limited([(0.0, 5.0), (2.0, -5.0)], stop, RiskConfig(flatten=False)) == [(T0, 5.0)]


def test_risk_has_the_last_word_in_a_cycle_that_both_speak_in() -> None:
    stop, reduce = [(1.0, action(RiskActionKind.EMERGENCY_STOP))], [(1.0, action(RiskActionKind.REDUCE_POSITIONS))]
    assert limited([(1.0, 5.0)], stop, RiskConfig()) == [(T0 + SECOND, 0.0)]
    assert limited([(1.0, 5.0)], reduce, RiskConfig(), [(0.0, 4.0)]) == [(T0 + SECOND, 2.0)]


def test_a_target_of_nothing_in_the_cycle_of_a_reduction_is_not_lost() -> None:
    reduce = [(1.0, action(RiskActionKind.REDUCE_POSITIONS))]
    assert limited([(0.0, -5.0), (1.0, 0.0)], reduce, RiskConfig(), [(0.5, -5.0)]) == [(T0, -5.0), (T0 + SECOND, 0.0)]


@pytest.mark.parametrize(("held", "scaled"), [(5.0, 2.5), (-5.0, -2.5), (0.1, 0.0)])
def test_a_reduction_scales_the_position_towards_zero(held: float, scaled: float) -> None:
    reduce = [(1.0, action(RiskActionKind.REDUCE_POSITIONS))]
    assert limited([(0.0, held)], reduce, RiskConfig(), [(0.5, held)]) == [(T0, held), (T0 + SECOND, scaled)]


def test_a_reduction_never_asks_for_more_because_a_target_was_refused() -> None:
    # -1 is held, a target of -2.5 was refused: half of what is held, not half of what was wanted.
    reduce = [(1.0, action(RiskActionKind.REDUCE_POSITIONS))]
    assert limited([(0.0, -2.5)], reduce, RiskConfig(), [(0.5, -1.0)])[1:] == [(T0 + SECOND, -0.5)]


def test_a_stop_is_critical_and_a_reduction_a_warning() -> None:
    out = run(
        lambda: action_alert(
            at((0.0, action(RiskActionKind.EMERGENCY_STOP)), (1.0, action(RiskActionKind.REDUCE_POSITIONS)))
        )
    )
    assert [a.level for a in values(out)] == [AlertLevel.CRITICAL, AlertLevel.WARNING]
    assert values(out)[0].message == "EMERGENCY_STOP: gross_exposure is 2.0000, the limit 1.0000"


@pytest.mark.parametrize(
    "bad",
    [
        {"drawdown_max": 1.0},
        {"gross_exposure_max": -1.0},
        {"var_max": math.nan},
        {"var_window": 5},
        {"orders_per_second_max": 0},
    ],
)
def test_impossible_limits_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        RiskConfig(**bad)
