"""Orders of an account that may owe nothing: what goes against an order on its way waits for it."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import csp
import pytest
from csp import ts
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, values

from brokers.events import CancelRequest, Fill, Liquidity, OrderRequest, OrderState, OrderUpdate
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.events import RiskAction, RiskActionKind, TargetPosition
from nodes.gate import risk_filter
from nodes.orders import generate_orders
from nodes.risk import RiskConfig

A = Instrument(symbol="A", tick="0.01", lot="0.1")
COINS = Instrument(symbol="A", tick="0.01", lot="0.1", fees_in="received", base_unit="0.001")
STOP = RiskAction(kind=RiskActionKind.EMERGENCY_STOP, code="drawdown", value=0.5, limit=0.3)
BUY, SELL = Side.BUY, Side.SELL


def target(quantity: float) -> TargetPosition:
    return TargetPosition(symbol="A", quantity=quantity, asof=T0)


def fill(order: int, side: Side, quantity: float, base_fee: float = 0.0) -> Fill:
    return Fill(
        market_time=T0, symbol="A", side=side, quantity=quantity, price=10.0, fee=0.0, order_id=f"run-A-{order}",
        liquidity=Liquidity.TAKER, base_fee=base_fee,
    )  # fmt: skip


def ended(order: int, state: str = "REJECTED") -> OrderUpdate:
    return OrderUpdate(
        order_id=f"run-A-{order}", symbol="A", state=OrderState[state], remaining=0.0, code="", reason=""
    )


def orders(
    wanted: dict[float, float],
    fills: Sequence[Any] = (),
    updates: Sequence[Any] = (),
    actions: Sequence[Any] = (),
    instrument: Instrument = A,
) -> list[tuple[float, str, float]]:
    """(second, side, quantity) of each order; `wanted` maps seconds to targets."""

    def graph() -> Any:
        targets = at(*((when, target(quantity)) for when, quantity in wanted.items()))
        answers = at(*fills, typ=Fill), at(*updates, typ=OrderUpdate), at(*actions, typ=RiskAction)
        return generate_orders(targets, *answers, instrument, "run", cash_only=True)

    return [((when - T0) / SECOND, o.side.name, o.quantity) for when, o in run(graph)]


BOUGHT = (0.0, "BUY", 5.0)


def test_what_is_still_being_bought_is_sold_when_it_has_come() -> None:
    assert orders({0: 5.0, 1: 0.0}, [(3.0, fill(1, BUY, 5.0))]) == [BOUGHT, (3.0, "SELL", 5.0)]


def test_what_is_held_is_sold_at_once_and_the_rest_in_one_piece_when_nothing_is_being_bought_any_more() -> None:
    fills = [(1.0, fill(1, BUY, 2.0)), (3.0, fill(1, BUY, 1.0)), (4.0, fill(2, SELL, 2.0)), (5.0, fill(1, BUY, 2.0))]
    assert orders({0: 5.0, 2: 0.0}, fills) == [BOUGHT, (2.0, "SELL", 2.0), (5.0, "SELL", 3.0)]


@pytest.mark.parametrize("state", ["REJECTED", "CANCELLED", "EXPIRED"])
def test_what_was_never_bought_is_never_sold(state: str) -> None:
    assert orders({0: 5.0, 1: 0.0}, updates=[(3.0, ended(1, state))]) == [BOUGHT]
    part = [(0.5, fill(1, BUY, 2.0))]
    assert orders({0: 5.0, 1: 0.0}, part, [(3.0, ended(1, state))]) == [BOUGHT, (1.0, "SELL", 2.0)]


def test_a_purchase_waits_for_the_money_of_a_sale() -> None:
    fills = [(1.0, fill(1, BUY, 5.0)), (4.0, fill(2, SELL, 2.0)), (6.0, fill(2, SELL, 3.0))]
    assert orders({0: 5.0, 2: 0.0, 3: 4.0}, fills) == [BOUGHT, (2.0, "SELL", 5.0), (6.0, "BUY", 4.0)]


def test_what_waits_follows_the_latest_target() -> None:
    fills = [(4.0, fill(1, BUY, 5.0))]
    assert orders({0: 5.0, 1: 0.0, 2: 3.0}, fills) == [BOUGHT, (4.0, "SELL", 2.0)]
    assert orders({0: 5.0, 1: 0.0, 2: 5.0}, fills) == [BOUGHT]
    assert orders({0: 5.0, 1: 0.0, 2: 7.0}, fills) == [BOUGHT, (2.0, "BUY", 2.0)]


def test_more_of_the_same_side_does_not_wait() -> None:
    assert orders({0: 5.0, 1: 6.0}) == [BOUGHT, (1.0, "BUY", 1.0)]
    sales = [BOUGHT, (2.0, "SELL", 2.0), (3.0, "SELL", 1.0)]
    assert orders({0: 5.0, 2: 3.0, 3: 2.0}, [(1.0, fill(1, BUY, 5.0))]) == sales


def test_after_a_stop_nothing_waits() -> None:
    # What is being cancelled does not count: 2 are sold at once, and what fills all the same when it does.
    fills = [(0.5, fill(1, BUY, 2.0)), (3.0, fill(1, BUY, 1.0))]
    actions = [(2.0, STOP)]
    assert orders({0: 5.0, 2: 0.0}, fills, actions=actions) == [BOUGHT, (2.0, "SELL", 2.0), (3.0, "SELL", 1.0)]


def test_a_part_of_a_lot_that_is_held_is_not_for_sale() -> None:
    # 1.0 bought, 0.001 of it the fee; 4.0 more are on their way: 0.9 are held in whole lots.
    fills = [(1.0, fill(1, BUY, 1.0, 0.001)), (3.0, fill(1, BUY, 4.0, 0.004))]
    assert orders({0: 5.0, 2: 0.0}, fills, instrument=COINS) == [BOUGHT, (2.0, "SELL", 0.9), (3.0, "SELL", 4.0)]


@csp.node
def spot(order: ts[OrderRequest], delays: list[int], cash: int) -> csp.Outputs(fill=ts[Fill], update=ts[OrderUpdate]):
    """A market that lends nothing: each order arrives after a delay of its own, perhaps before one that was sent
    earlier, and is refused where it would sell or spend what is not there. A lot costs 1."""
    with csp.alarms():
        a_arrives = csp.alarm(object)
    with csp.state():
        s_cash = cash
        s_held = 0
        s_count = 0

    if csp.ticked(order):
        delay = delays[s_count % len(delays)]
        s_count += 1
        csp.schedule_alarm(a_arrives, timedelta(milliseconds=delay, microseconds=s_count), order)
    if csp.ticked(a_arrives):
        lots = round(a_arrives.quantity * 10) * (1 if a_arrives.side is BUY else -1)
        number = int(a_arrives.order_id.rpartition("-")[2])
        if -s_held <= lots <= s_cash:
            s_held += lots
            s_cash -= lots
            csp.output(fill=fill(number, a_arrives.side, a_arrives.quantity))
        else:
            csp.output(update=ended(number))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 20)), min_size=1, max_size=12),
    st.lists(st.integers(1, 700), min_size=1, max_size=5),
)
def test_nothing_is_sent_that_a_spot_market_refuses_and_the_last_target_is_reached(
    wanted: list[tuple[int, int]], delays: list[int]
) -> None:
    # Targets of up to all the money, a few a second; answers up to 0.7 s late, and in another order.
    times = [sum(pause for pause, _ in wanted[: n + 1]) / 1_000 for n in range(len(wanted))]

    def graph() -> Any:
        told, filled = csp.feedback(OrderUpdate), csp.feedback(Fill)
        targets = at(*((when, target(lots / 10)) for when, (_, lots) in zip(times, wanted, strict=True)))
        nothing = csp.null_ts(RiskAction)
        order = generate_orders(targets, filled.out(), told.out(), nothing, A, "run", cash_only=True)
        venue = spot(order, delays, 20)
        told.bind(venue.update)
        filled.bind(venue.fill)
        return {"fills": venue.fill, "refused": venue.update}

    out = run(graph)
    assert out["refused"] == []
    held = sum(round(f.quantity * 10) * (1 if f.side is BUY else -1) for f in values(out["fills"]))
    assert held == wanted[-1][1]


@csp.node
def in_parts(order: ts[OrderRequest], delays: list[int], parts: list[int]) -> csp.Outputs(
    fill=ts[Fill], update=ts[OrderUpdate]
):
    """Every order fills in parts, some late; a part of no lots takes off what is left."""
    with csp.alarms():
        a_fill = csp.alarm(object)
    with csp.state():
        s_count = 0

    if csp.ticked(order):
        left, passed_ms, number = round(order.quantity * 10), 0, int(order.order_id.rpartition("-")[2])
        while left:
            part = min(left, parts[s_count % len(parts)])
            passed_ms += delays[s_count % len(delays)]
            s_count += 1
            left = left - part if part else 0
            told = fill(number, order.side, part / 10) if part else ended(number, "EXPIRED")
            csp.schedule_alarm(a_fill, timedelta(milliseconds=passed_ms, microseconds=s_count), told)
    if csp.ticked(a_fill):
        if isinstance(a_fill, Fill):
            csp.output(fill=a_fill)
        else:
            csp.output(update=a_fill)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 20)), min_size=1, max_size=12),
    st.lists(st.integers(1, 700), min_size=1, max_size=5),
    st.lists(st.integers(0, 20), min_size=1, max_size=5),
)
def test_the_gate_has_nothing_to_refuse_however_orders_fill(
    wanted: list[tuple[int, int]], delays: list[int], parts: list[int]
) -> None:
    times = [sum(pause for pause, _ in wanted[: n + 1]) / 1_000 for n in range(len(wanted))]
    risk = RiskConfig(cash_only=True, gross_exposure_max=None)

    def graph() -> Any:
        told, filled = csp.feedback(OrderUpdate), csp.feedback(Fill)
        targets = at(*((when, target(lots / 10)) for when, (_, lots) in zip(times, wanted, strict=True)))
        nothing, price = csp.null_ts(RiskAction), {"A": csp.const(10.0)}
        order = generate_orders(targets, filled.out(), told.out(), nothing, A, "run", cash_only=True)
        money = csp.const(1_000.0)
        gate = risk_filter(
            order, csp.null_ts(CancelRequest), filled.out(), told.out(), nothing, money, money, price, price, (A,),
            risk, halted=False,
        )  # fmt: skip
        venue = in_parts(gate.approved, delays, parts)
        told.bind(venue.update)
        filled.bind(venue.fill)
        return {"orders": gate.approved, "refused": gate.refused, "fills": venue.fill, "ended": venue.update}

    out = run(graph)
    assert out["refused"] == []
    assert bool(out["orders"]) == any(lots for _, lots in wanted)
    if not out["ended"]:
        held = sum(round(f.quantity * 10) * (1 if f.side is BUY else -1) for f in values(out["fills"]))
        assert held == wanted[-1][1]
