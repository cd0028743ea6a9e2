"""From opinion to order."""

import math
from datetime import timedelta
from typing import Any

import csp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, ticks, values

from brokers.events import Fill, Liquidity, OrderState, OrderType, OrderUpdate
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.events import RiskAction, RiskActionKind, Signal, TargetPosition
from nodes.orders import SizingConfig, annual_volatility, generate_orders, target_position, unfilled

A = Instrument(symbol="A", tick="0.01", lot="0.1")


def signal(score: float, confidence: float = 1.0) -> Signal:
    return Signal(symbol="A", source="fused", score=score, confidence=confidence, horizon_s=60.0, asof=T0)


def targets(signals: Any, config: SizingConfig, *, volatility: float | None = None, equity: float = 1_000.0) -> Any:
    def graph() -> Any:
        vol = csp.null_ts(float) if volatility is None else csp.const(volatility)
        return target_position(ticks(*signals), csp.const(10.0), csp.const(equity), vol, A, config)

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
        equity = ticks(1_000.0, -50.0)
        signals = ticks(signal(1.0), signal(0.0))
        return target_position(signals, csp.const(10.0), equity, csp.null_ts(float), A, SizingConfig(mode="fraction"))

    assert [t.quantity for t in values(run(graph))] == [50.0, 0.0]


@pytest.mark.parametrize("equity", [0.0, -5.0, math.nan])
def test_no_position_is_wanted_on_no_equity(equity: float) -> None:
    assert targets([signal(1.0)], SizingConfig(mode="fraction"), equity=equity) == []


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


def target(quantity: float) -> TargetPosition:
    return TargetPosition(symbol="A", quantity=quantity, asof=T0)


def fill(order: int, side: Side, quantity: float) -> Fill:
    return Fill(
        market_time=T0,
        symbol="A",
        side=side,
        quantity=quantity,
        price=10.0,
        fee=0.0,
        order_id=f"run-A-{order}",
        liquidity=Liquidity.TAKER,
    )


def update(order: int, state: OrderState) -> OrderUpdate:
    return OrderUpdate(order_id=f"run-A-{order}", symbol="A", state=state, remaining=0.0, code="", reason="")


def orders(wanted: Any, fills: Any = (), updates: Any = (), actions: Any = ()) -> list[tuple[Any, str, float]]:
    def graph() -> Any:
        answers = at(*fills, typ=Fill), at(*updates, typ=OrderUpdate), at(*actions, typ=RiskAction)
        return generate_orders(at(*wanted), *answers, A, "run")

    out = run(graph)
    assert all(o.order_type is OrderType.MARKET for o in values(out))
    assert [o.order_id for o in values(out)] == [f"run-A-{i + 1}" for i in range(len(out))]
    return [(t, o.side.name, o.quantity) for t, o in out]


def test_what_is_in_flight_is_not_ordered_twice() -> None:
    wanted = [(0.0, target(2.0)), (1.0, target(3.0)), (2.0, target(3.0)), (5.0, target(-1.0))]
    fills = [(3.0, fill(1, Side.BUY, 2.0)), (4.0, fill(2, Side.BUY, 0.4))]
    assert orders(wanted, fills) == [
        (T0, "BUY", 2.0),
        (T0 + SECOND, "BUY", 1.0),
        (T0 + 5 * SECOND, "SELL", 4.0),  # 2.4 held, 0.6 still on its way
    ]


@pytest.mark.parametrize("state", [OrderState.REJECTED, OrderState.CANCELLED])
def test_what_the_venue_refused_is_no_longer_in_flight(state: OrderState) -> None:
    wanted = [(0.0, target(2.0)), (2.0, target(2.0))]
    assert orders(wanted, updates=[(1.0, update(1, state))]) == [(T0, "BUY", 2.0), (T0 + 2 * SECOND, "BUY", 2.0)]


STOP = RiskAction(kind=RiskActionKind.EMERGENCY_STOP, code="drawdown", value=0.5, limit=0.3)


def test_a_stop_does_not_sell_what_is_being_cancelled() -> None:
    # 2 held, 3 more on their way and being cancelled: flat means selling 2, not 5.
    wanted = [(0.0, target(2.0)), (2.0, target(5.0)), (3.0, target(0.0))]
    fills = [(1.0, fill(1, Side.BUY, 2.0)), (5.0, fill(3, Side.SELL, 2.0))]
    updates = [(4.0, update(2, OrderState.CANCELLED))]
    assert orders(wanted, fills, updates, [(3.0, STOP)])[2:] == [(T0 + 3 * SECOND, "SELL", 2.0)]


def test_what_fills_on_its_way_to_being_cancelled_is_sold_again() -> None:
    wanted = [(0.0, target(3.0)), (1.0, target(0.0))]
    assert orders(wanted, [(2.0, fill(1, Side.BUY, 3.0))], (), [(1.0, STOP)]) == [
        (T0, "BUY", 3.0),
        (T0 + 2 * SECOND, "SELL", 3.0),
    ]


def test_a_stop_that_does_not_flatten_orders_nothing() -> None:
    fills = [(1.0, fill(1, Side.BUY, 1.0))]
    assert orders([(0.0, target(3.0))], fills, (), [(2.0, STOP)]) == [(T0, "BUY", 3.0)]


def test_only_what_ends_an_order_without_a_fill_is_heard() -> None:
    updates = [update(i, state) for i, state in enumerate(OrderState)]
    heard = run(lambda: unfilled(ticks(*updates)))
    assert [u.state for u in values(heard)] == [OrderState.CANCELLED, OrderState.REJECTED]


def test_an_answer_in_the_cycle_of_a_target_counts_first() -> None:
    wanted = [(0.0, target(2.0)), (1.0, target(2.0))]
    assert orders(wanted, fills=[(1.0, fill(1, Side.BUY, 2.0))]) == [(T0, "BUY", 2.0)]


def test_a_target_off_the_lot_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the lot of A"):
        orders([(0.0, target(0.05))])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-30, 30), min_size=1, max_size=20))
def test_filled_at_once_the_position_follows_the_target(lots: list[int]) -> None:
    wanted = [(float(i), target(n / 10)) for i, n in enumerate(lots)]
    sent = orders(wanted, [])
    position = 0.0
    fills = []
    for (when, side, quantity), number in zip(sent, range(1, len(sent) + 1), strict=True):
        position += quantity if side == "BUY" else -quantity
        fills.append(((when - T0) / timedelta(seconds=1) + 0.5, fill(number, Side[side], quantity)))
    assert position == pytest.approx(lots[-1] / 10)
    assert orders(wanted, fills) == sent


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": "kelly"},
        {"fraction": 0.0},
        {"volatility_target": math.nan},
        {"score_min": 2.0},
        {"volatility_window": 1},
    ],
)
def test_impossible_sizing_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        SizingConfig(**bad)
