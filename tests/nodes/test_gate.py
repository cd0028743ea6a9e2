"""The gate: what passes, what is refused, and that it says so."""

from typing import Any

import csp
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, values

from brokers.events import Fill, Liquidity, OrderRequest, OrderState, OrderType, OrderUpdate
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.events import RiskAction, RiskActionKind
from nodes.gate import risk_filter
from nodes.risk import RiskConfig

A = Instrument(symbol="A", tick="0.01", lot="0.1")
B = Instrument(symbol="B", tick="0.01", lot="1", multiplier="10")
OFF: dict[str, Any] = {"gross_exposure_max": None, "orders_per_second_max": None}
STOP = RiskAction(kind=RiskActionKind.EMERGENCY_STOP, code="drawdown", value=0.5, limit=0.3)
REDUCE = RiskAction(kind=RiskActionKind.REDUCE_POSITIONS, code="gross_exposure", value=2.0, limit=1.0)


def order(key: int, side: Side, quantity: float, symbol: str = "A") -> OrderRequest:
    return OrderRequest(
        order_id=str(key), symbol=symbol, side=side, order_type=OrderType.MARKET, quantity=quantity, limit_price=0.0
    )


def fill(key: int, side: Side, quantity: float, symbol: str = "A") -> Fill:
    return Fill(
        market_time=T0,
        symbol=symbol,
        side=side,
        quantity=quantity,
        price=10.0,
        fee=0.0,
        order_id=str(key),
        liquidity=Liquidity.TAKER,
    )


def gate(
    orders: Any, config: RiskConfig, *, fills: Any = (), updates: Any = (), actions: Any = (), price: float = 10.0
) -> Any:
    def graph() -> Any:
        closes = {"A": csp.const(price), "B": csp.const(price)}
        out = risk_filter(
            at(*orders),
            at(*fills, typ=Fill),
            at(*updates, typ=OrderUpdate),
            at(*actions, typ=RiskAction),
            csp.const(1_000.0),
            closes,
            (A, B),
            config,
        )
        return {name: out[name] for name in ("approved", "refused", "cancel", "alert")}

    return run(graph)


def passed(out: Any) -> list[str]:
    return [o.order_id for o in values(out["approved"])]


def refused(out: Any) -> list[tuple[str, str]]:
    return [(u.order_id, u.code) for u in values(out["refused"])]


def test_an_order_passes_in_its_own_cycle() -> None:
    out = gate([(1.0, order(1, Side.BUY, 5.0))], RiskConfig())
    assert [(t, o.order_id) for t, o in out["approved"]] == [(T0 + SECOND, "1")]
    assert not out["refused"]
    assert not out["alert"]


def test_gross_exposure_counts_what_is_held_and_in_flight_in_every_symbol() -> None:
    # Equity 1000, limit 1.0: A 30 units is 300, B 6 contracts of 10 is 600; 20 more A would be 1100.
    orders = [
        (1.0, order(1, Side.BUY, 30.0)),
        (2.0, order(2, Side.SELL, 6.0, "B")),
        (3.0, order(3, Side.BUY, 20.0)),
        (4.0, order(4, Side.BUY, 10.0)),
    ]
    out = gate(orders, RiskConfig(gross_exposure_max=1.0), fills=[(1.5, fill(1, Side.BUY, 30.0))])
    assert passed(out) == ["1", "2", "4"]
    assert refused(out) == [("3", "gross_exposure")]
    assert values(out["alert"])[0].message == (
        "order 3 refused (gross_exposure): exposure would be 1100.00, more than 1 times the equity of 1000.00"
    )


def test_the_order_rate_is_that_of_the_last_second() -> None:
    orders = [(s, order(i, Side.BUY, 1.0)) for i, s in enumerate([0.0, 0.5, 0.9, 1.0])]
    out = gate(orders, RiskConfig(**OFF | {"orders_per_second_max": 2}))
    assert passed(out) == ["0", "1", "3"]  # at 1.0 s the order of 0.0 s is a second old
    assert refused(out) == [("2", "order_rate")]


def test_an_order_that_is_worth_too_much_is_refused() -> None:
    out = gate([(0.0, order(1, Side.BUY, 5.1))], RiskConfig(**OFF | {"order_notional_max": 50.0}))
    assert refused(out) == [("1", "order_notional")]


def test_a_stop_cancels_what_works_and_lets_only_reducing_orders_pass() -> None:
    orders = [
        (0.0, order(1, Side.BUY, 2.0)),
        (0.0, order(2, Side.BUY, 3.0, "B")),
        (2.0, order(3, Side.BUY, 1.0)),
        (3.0, order(4, Side.SELL, 2.0)),
        (4.0, order(5, Side.SELL, 0.1)),
    ]
    out = gate(
        orders,
        RiskConfig(),
        fills=[(0.5, fill(1, Side.BUY, 2.0))],
        actions=[(1.0, STOP)],
        updates=[
            (1.5, OrderUpdate(order_id="2", symbol="B", state=OrderState.CANCELLED, remaining=3.0, code="", reason=""))
        ],
    )
    assert [(c.order_id, c.symbol) for c in values(out["cancel"])[0]] == [("2", "B")]
    assert passed(out) == ["1", "2", "4"]
    assert refused(out) == [("3", "halted"), ("5", "halted")]  # the last would open a short


def test_after_a_stop_what_is_being_cancelled_no_longer_counts() -> None:
    # 2 held and a sale of 5 on its way when the stop comes: selling the 2 reduces, although 5 might still be sold.
    orders = [(0.0, order(1, Side.BUY, 2.0)), (0.6, order(2, Side.SELL, 5.0)), (1.0, order(3, Side.SELL, 2.0))]
    out = gate(orders, RiskConfig(), fills=[(0.5, fill(1, Side.BUY, 2.0))], actions=[(1.0, STOP)])
    assert passed(out) == ["1", "2", "3"]


def test_reducing_ends_after_the_hold() -> None:
    orders = [(0.0, order(1, Side.BUY, 1.0)), (2.0, order(2, Side.BUY, 1.0)), (11.0, order(3, Side.BUY, 1.0))]
    out = gate(orders, RiskConfig(reduce_hold_s=10.0), actions=[(1.0, REDUCE)])
    assert refused(out) == [("2", "reducing")]
    assert passed(out) == ["1", "3"]


def test_a_reducing_order_is_never_held_up_by_a_limit() -> None:
    config = RiskConfig(gross_exposure_max=0.1, orders_per_second_max=1, order_notional_max=15.0)
    orders = [(0.0, order(1, Side.BUY, 1.0)), (0.2, order(2, Side.SELL, 0.5)), (0.3, order(3, Side.SELL, 0.5))]
    assert passed(gate(orders, config, fills=[(0.1, fill(1, Side.BUY, 1.0))])) == ["1", "2", "3"]


def test_without_a_price_there_is_no_order() -> None:
    def graph() -> Any:
        orders = at((0.0, order(1, Side.BUY, 1.0)))
        nothing = (csp.null_ts(Fill), csp.null_ts(OrderUpdate), csp.null_ts(RiskAction))
        out = risk_filter(orders, *nothing, csp.const(1.0), {"A": csp.null_ts(float)}, (A,), RiskConfig())
        return {name: out[name] for name in ("approved", "refused", "alert")}

    assert refused(run(graph)) == [("1", "no_price")]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), min_size=1, max_size=15))
def test_whatever_comes_the_worst_case_stays_inside_the_limit(wanted: list[tuple[bool, int]]) -> None:
    orders = [(float(i), order(i, Side.BUY if b else Side.SELL, n / 10)) for i, (b, n) in enumerate(wanted)]
    out = gate(orders, RiskConfig(gross_exposure_max=0.5))
    position = 0.0
    for o in values(out["approved"]):
        position += o.quantity if o.side is Side.BUY else -o.quantity
        assert abs(position) * 10.0 <= 0.5 * 1_000.0 + 1e-9
    assert len(out["approved"]) + len(out["refused"]) == len(orders)
