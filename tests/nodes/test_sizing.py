"""From opinion to position."""

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
from nodes.events import Signal
from nodes.sizing import SizingConfig, annual_volatility, kelly_fraction, target_position

A = Instrument(symbol="A", tick="0.01", lot="0.1")


def signal(score: float, confidence: float = 1.0) -> Signal:
    return Signal(symbol="A", source="fused", score=score, confidence=confidence, horizon_s=60.0, asof=T0)


def targets(
    signals: Any,
    config: SizingConfig,
    *,
    volatility: float | None = None,
    kelly: Any = (),
    equity: float = 1_000.0,
) -> Any:
    def graph() -> Any:
        vol = csp.null_ts(float) if volatility is None else csp.const(volatility)
        return target_position(
            ticks(*signals), csp.const(10.0), csp.const(equity), vol, at(*kelly, typ=float), A, config
        )

    return [(t, target.quantity) for t, target in run(graph)]


def test_fixed_quantity_scales_with_the_score_in_whole_lots() -> None:
    config = SizingConfig(mode="fixed", quantity=1.0, change_min=0.0)
    assert targets([signal(1.0), signal(0.55), signal(-0.55)], config) == [
        (T0, 1.0),
        (T0 + SECOND, 0.5),
        (T0 + 2 * SECOND, -0.5),
    ]


def test_fraction_of_equity() -> None:
    assert targets([signal(1.0)], SizingConfig(mode="fraction", fraction=0.5)) == [(T0, 50.0)]


def test_volatility_target_is_capped_by_leverage() -> None:
    config = SizingConfig(mode="volatility", volatility_target=0.2, leverage_max=1.0)
    assert targets([signal(1.0)], config, volatility=0.4) == [(T0, 50.0)]
    assert targets([signal(1.0)], config, volatility=0.1) == [(T0, 100.0)]
    assert targets([signal(1.0)], config) == []  # no volatility yet: no position yet


@pytest.mark.parametrize(("full", "quantity"), [(0.6, 30.0), (8.0, 100.0), (math.inf, 100.0), (0.002, 0.1)])
def test_half_the_kelly_fraction_is_capped_by_leverage(full: float, quantity: float) -> None:
    config = SizingConfig(mode="kelly", kelly_fraction=0.5, leverage_max=1.0)
    assert targets([signal(1.0)], config, kelly=[(0.0, full)]) == [(T0, quantity)]


def test_without_an_edge_kelly_wants_nothing_and_without_a_measure_it_changes_nothing() -> None:
    config = SizingConfig(mode="kelly", change_min=0.0)
    assert targets([signal(1.0), signal(0.5)], config) == []
    wanted = targets([signal(1.0), signal(0.9), signal(0.8)], config, kelly=[(0.0, 0.5), (1.0, 0.0)])
    assert wanted == [(T0, 25.0), (T0 + SECOND, 0.0)]


@pytest.mark.parametrize(
    ("config", "signals", "wanted"),
    [
        (SizingConfig(mode="fixed", change_min=0.2), [signal(1.0), signal(0.9), signal(0.7)], [1.0, 0.7]),
        (SizingConfig(mode="fixed", score_min=0.5), [signal(1.0), signal(0.4)], [1.0, 0.0]),
        (SizingConfig(mode="fixed", shorts=False), [signal(-1.0), signal(1.0), signal(-1.0)], [1.0, 0.0]),
        (SizingConfig(mode="fixed", change_min=0.9), [signal(0.3), signal(-0.3)], [0.3, -0.3]),
        (SizingConfig(mode="fixed", confidence_min=0.5), [signal(1.0, 0.4), signal(1.0, 0.5)], [1.0]),
    ],
    ids=[
        "small changes are not traded",
        "a weak score goes flat",
        "no shorts",
        "a change of side always counts",
        "no confidence, no change",
    ],
)
def test_what_a_signal_may_change(config: SizingConfig, signals: Any, wanted: list[float]) -> None:
    assert [quantity for _, quantity in targets(signals, config)] == wanted


def test_a_position_is_left_even_where_none_could_be_taken() -> None:
    # Equity is lost by the time of the exit: the way out needs no size.
    def graph() -> Any:
        config, nothing = SizingConfig(mode="fraction"), csp.null_ts(float)
        equity = ticks(1_000.0, -50.0)
        return target_position(ticks(signal(1.0), signal(0.0)), csp.const(10.0), equity, nothing, nothing, A, config)

    assert [t.quantity for t in values(run(graph))] == [50.0, 0.0]


@pytest.mark.parametrize("equity", [0.0, -5.0, math.nan])
@pytest.mark.parametrize("mode", ["fraction", "kelly"])
def test_no_position_is_wanted_on_no_equity(equity: float, mode: str) -> None:
    assert targets([signal(1.0)], SizingConfig(mode=mode), equity=equity, kelly=[(0.0, 1.0)]) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=20))
def test_targets_are_whole_lots_within_the_full_position(scores: list[float]) -> None:
    for _, quantity in targets([signal(s) for s in scores], SizingConfig(mode="fixed", quantity=3.0)):
        assert abs(quantity) <= 3.0
        assert quantity == round(quantity * 10) / 10


def test_annual_volatility_against_numpy() -> None:
    prices = np.exp(np.cumsum(np.random.default_rng(1).normal(0.0, 0.01, 300)))
    points = run(lambda: annual_volatility(ticks(*prices.tolist()), 100))

    returns = np.diff(np.log(prices))
    year = 365.25 * 86_400
    assert [t for t, _ in points] == [T0 + i * SECOND for i in range(100, 300)]
    expected = [math.sqrt(np.square(returns[i - 100 : i]).sum() * year / 100) for i in range(100, 300)]
    assert values(points) == pytest.approx(expected, rel=1e-12)


def test_volatility_refuses_a_bad_price() -> None:
    with pytest.raises(ValueError, match="close must be positive and finite, was nan"):
        run(lambda: annual_volatility(ticks(1.0, math.nan), 2))


def kelly(scores: Any, prices: Any, window: int) -> Any:
    return run(lambda: kelly_fraction(at(*scores, typ=Signal), ticks(*prices), window))


def test_kelly_fraction_of_three_steps() -> None:
    # Long, long, short: +10 %, -10 %, then a fall of 20 % sold: returns 0.1, -0.1 and 0.2.
    scores = [(0.0, signal(0.3)), (2.0, signal(-1.0))]
    out = kelly(scores, [100.0, 110.0, 99.0, 79.2], 3)
    assert [t for t, _ in out] == [T0 + 3 * SECOND]
    assert out[0][1] == pytest.approx((0.2 / 3) / np.var([0.1, -0.1, 0.2], ddof=1))
    assert round(out[0][1], 2) == 2.86


def test_kelly_fraction_against_numpy() -> None:
    rng = np.random.default_rng(2)
    prices = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, 400)))
    scores = rng.uniform(-1.0, 1.0, 400)
    out = kelly([(float(i), signal(s)) for i, s in enumerate(scores.tolist())], prices.tolist(), 50)

    returns = np.sign(scores[:-1]) * (prices[1:] / prices[:-1] - 1.0)
    windows = [returns[i - 50 : i] for i in range(50, 400)]
    expected = [max(0.0, w.mean() / w.var(ddof=1)) for w in windows]
    assert [t for t, _ in out] == [T0 + i * SECOND for i in range(50, 400)]
    assert values(out) == pytest.approx(expected, rel=1e-9)


def test_a_score_given_between_closes_earns_from_the_next_close_on() -> None:
    # What the price did before the score was given, +50 %, is nobody's; +10 % and +20 % are its own.
    out = kelly([(0.5, signal(1.0))], [100.0, 150.0, 165.0, 198.0], 2)
    assert [(t, round(f, 6)) for t, f in out] == [(T0 + 3 * SECOND, round(0.15 / np.var([0.1, 0.2], ddof=1), 6))]


def test_a_score_that_settles_after_the_close_earns_from_that_close_on() -> None:
    settled = (timedelta(microseconds=1) / SECOND, signal(1.0))
    assert len(kelly([settled], [100.0, 110.0, 132.0], 2)) == 1


def test_a_losing_signal_gets_nothing_and_one_that_always_won_alike_has_no_bound() -> None:
    assert values(kelly([(0.0, signal(-1.0))], [100.0, 110.0, 132.0], 2)) == [0.0]
    assert values(kelly([(0.0, signal(1.0))], [100.0, 200.0, 400.0], 2)) == [math.inf]
    assert values(kelly([(0.0, signal(0.0))], [100.0, 200.0, 400.0], 2)) == [0.0]


def test_a_signal_without_confidence_is_not_heard() -> None:
    assert kelly([(0.0, signal(1.0, 0.0))], [100.0, 110.0, 132.0], 2) == []


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1.0, 1.0), st.floats(0.5, 2.0)), min_size=6, max_size=25),
    st.integers(1, 20),
    st.floats(0.01, 100.0),
)
def test_what_comes_later_changes_no_kelly_fraction(steps: list[tuple[float, float]], cut: int, spoiled: float) -> None:
    def out(rows: list[tuple[float, float]]) -> Any:
        return kelly([(float(i), signal(s)) for i, (s, _) in enumerate(rows)], [p for _, p in rows], 3)

    whole = out(steps)
    assert all(f >= 0.0 for f in values(whole))
    changed = out([*steps[:cut], *[(-s, p * spoiled) for s, p in steps[cut:]]])
    before = T0 + cut * SECOND
    assert [x for x in changed if x[0] < before] == [x for x in whole if x[0] < before]


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf])
def test_kelly_refuses_a_bad_price(price: float) -> None:
    with pytest.raises(ValueError, match="close must be positive and finite"):
        kelly([(0.0, signal(1.0))], [1.0, price], 2)


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": "martingale"},
        {"fraction": 0.0},
        {"volatility_target": math.nan},
        {"score_min": 2.0},
        {"volatility_window": 1},
        {"kelly_fraction": 1.5},
        {"kelly_fraction": math.nan},
        {"kelly_window": 1},
    ],
)
def test_impossible_sizing_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        SizingConfig(**bad)
