"""The gate: what passes, what is refused, what is taken back, and that it says so."""

from datetime import timedelta
from typing import Any

import csp
import pytest
from support import SECOND, T0, at, run, values

from brokers.events import (
    CancelRequest,
    CorporateAction,
    Fill,
    Liquidity,
    OrderRequest,
    OrderState,
    OrderType,
    OrderUpdate,
)
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.events import AlertLevel, RiskAction, RiskActionKind
from nodes.gate import risk_filter
from nodes.risk import RiskConfig

A = Instrument(symbol="A", tick="0.01", lot="0.1")
B = Instrument(symbol="B", tick="0.01", lot="1", multiplier="10")
OFF: dict[str, Any] = {"gross_exposure_max": None}
STOP = RiskAction(kind=RiskActionKind.EMERGENCY_STOP, code="drawdown", value=0.5, limit=0.3)
REDUCE = RiskAction(kind=RiskActionKind.REDUCE_POSITIONS, code="gross_exposure", value=2.0, limit=1.0)
OUTPUTS = ("approved", "refused", "cancel", "alert", "state")
BUY, SELL = Side.BUY, Side.SELL


def halt(symbol: str, seconds: float, code: str = "symbol_loss") -> RiskAction:
    until = T0 + timedelta(seconds=seconds)
    return RiskAction(kind=RiskActionKind.HALT_SYMBOL, code=code, value=0.06, limit=0.05, symbol=symbol, until=until)


def order(key: object, side: Side, quantity: float, symbol: str = "A", **terms: Any) -> OrderRequest:
    kind = terms.pop("kind", OrderType.MARKET)
    return OrderRequest(order_id=str(key), symbol=symbol, side=side, order_type=kind, quantity=quantity, **terms)


def fill(key: object, side: Side, quantity: float, symbol: str = "A") -> Fill:
    return Fill(
        market_time=T0, symbol=symbol, side=side, quantity=quantity, price=10.0, fee=0.0, order_id=str(key),
        liquidity=Liquidity.TAKER,
    )  # fmt: skip


def update(key: object, state: str, symbol: str = "A", remaining: float = 0.0, code: str = "") -> OrderUpdate:
    return OrderUpdate(
        order_id=str(key), symbol=symbol, state=OrderState[state], remaining=remaining, code=code, reason=""
    )


def gate(orders: Any, config: RiskConfig, *, price: float = 10.0, equity: float = 1_000.0, **more: Any) -> Any:
    """Run the gate on (second, event) points; A and B are worth `price`, or the edges in `closes`."""

    def graph() -> Any:
        closes = more.get("closes") or {"A": csp.const(price), "B": csp.const(price)}
        out = risk_filter(
            at(*orders, typ=OrderRequest),
            at(*more.get("cancels", ()), typ=CancelRequest),
            at(*more.get("fills", ()), typ=Fill),
            at(*more.get("updates", ()), typ=OrderUpdate),
            at(*more.get("actions", ()), typ=RiskAction),
            csp.const(equity),
            csp.const(more.get("cash", 1_000.0)),
            closes,
            {"A": closes["A"], "B": closes["B"] * 10.0},
            more.get("instruments", (A, B)),
            config,
            more.get("halted", False),
            at(*more["splits"], typ=CorporateAction) if "splits" in more else None,
        )
        return {name: out[name] for name in OUTPUTS}

    return run(graph)


def passed(out: Any) -> list[str]:
    return [o.order_id for o in values(out["approved"])]


def refused(out: Any) -> list[tuple[str, str]]:
    return [(u.order_id, u.code) for u in values(out["refused"])]


def cancelled(out: Any) -> list[tuple[float, list[str]]]:
    return [((t - T0).total_seconds(), [c.order_id for c in requests]) for t, requests in out["cancel"]]


def said(out: Any) -> list[str]:
    return [alert.message for alert in values(out["alert"])]


def test_an_order_passes_in_its_own_cycle() -> None:
    out = gate([(1.0, order(1, BUY, 5.0))], RiskConfig())
    assert [(t, o.order_id) for t, o in out["approved"]] == [(T0 + SECOND, "1")]
    assert not out["refused"]
    assert not out["alert"]
    assert [(t, s.name) for t, s in out["state"]] == [(T0, "ACTIVE")]


def test_a_refusal_is_an_update_and_an_alert_in_the_orders_own_cycle() -> None:
    out = gate([(1.0, order(1, BUY, 5.1))], RiskConfig(**OFF, order_notional_max=50.0))
    ((when, told),) = out["refused"]
    assert (when, told.state, told.code) == (T0 + SECOND, OrderState.REJECTED, "order_notional")
    assert told.reason == "the order is worth 51.00, more than 50.00"
    ((when, alert),) = out["alert"]
    assert (when, alert.level, alert.symbol) == (T0 + SECOND, AlertLevel.WARNING, "A")
    assert alert.message == "order 1 refused (order_notional): the order is worth 51.00, more than 50.00"


def test_gross_exposure_counts_what_is_held_and_in_flight_in_every_symbol() -> None:
    # Equity 1000, limit 1.0: A 30 units is 300, B 6 contracts of 10 is 600; 20 more A would be 1100.
    orders = [
        (1.0, order(1, BUY, 30.0)),
        (2.0, order(2, SELL, 6.0, "B")),
        (3.0, order(3, BUY, 20.0)),
        (4.0, order(4, BUY, 10.0)),
    ]
    out = gate(orders, RiskConfig(gross_exposure_max=1.0), fills=[(1.5, fill(1, BUY, 30.0))])
    assert passed(out) == ["1", "2", "4"]
    assert refused(out) == [("3", "gross_exposure")]
    assert said(out) == [
        "order 3 refused (gross_exposure): exposure would be 1100.00, more than 1 times the equity of 1000.00"
    ]


def test_an_order_that_ends_unfilled_frees_what_it_took() -> None:
    for state in ("REJECTED", "CANCELLED", "EXPIRED"):
        out = gate(
            [(0.0, order(1, BUY, 100.0)), (1.0, order(2, BUY, 0.1)), (3.0, order(3, BUY, 100.0))],
            RiskConfig(gross_exposure_max=1.0),
            updates=[(2.0, update(1, state))],
        )
        assert (passed(out), refused(out)) == (["1", "3"], [("2", "gross_exposure")])


def test_a_filled_order_counts_once_whichever_of_fill_and_update_comes_first() -> None:
    for fill_s, update_s in ((1.0, 2.0), (2.0, 1.0), (1.0, 1.0)):
        out = gate(
            [(0.0, order(1, BUY, 50.0)), (1.5, order(2, BUY, 50.1)), (3.0, order(3, BUY, 50.0))],
            RiskConfig(gross_exposure_max=1.0),
            fills=[(fill_s, fill(1, BUY, 50.0))],
            updates=[(0.5, update(1, "ACCEPTED")), (update_s, update(1, "FILLED"))],
        )
        assert (passed(out), refused(out)) == (["1", "3"], [("2", "gross_exposure")])
        assert len(out["alert"]) == 1


def test_the_order_rate_is_that_of_the_last_second() -> None:
    orders = [(s, order(i, BUY, 1.0)) for i, s in enumerate([0.0, 0.5, 0.9, 1.0])]
    out = gate(orders, RiskConfig(**OFF, orders_per_second_max=2))
    assert passed(out) == ["0", "1", "3"]  # at 1.0 s the order of 0.0 s is a second old
    assert refused(out) == [("2", "order_rate")]


def test_an_id_is_good_for_one_order_even_when_that_was_refused() -> None:
    config = RiskConfig(**OFF, order_lots_max=50)
    orders = [(0.0, order("r-1", BUY, 6.0)), (1.0, order("r-1", BUY, 1.0)), (2.0, order("r-2", BUY, 1.0)),
              (3.0, order("r-2", BUY, 1.0))]  # fmt: skip
    out = gate(orders, config)
    assert refused(out) == [("r-1", "order_lots"), ("r-1", "duplicate_id"), ("r-2", "duplicate_id")]
    assert passed(out) == ["r-2"]


def test_its_own_refusal_of_a_used_id_does_not_end_the_order_that_has_it() -> None:
    out = gate(
        [(0.0, order("r-1", BUY, 100.0)), (1.0, order("r-1", BUY, 1.0)), (3.0, order("r-2", BUY, 1.0))],
        RiskConfig(gross_exposure_max=1.0),
        updates=[(2.0, update("r-1", "REJECTED", code="duplicate_id"))],
    )
    assert refused(out) == [("r-1", "duplicate_id"), ("r-2", "gross_exposure")]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (order(1, BUY, float("nan")), "quantity"),
        (order(1, BUY, float("inf")), "quantity"),
        (order(1, BUY, -1.0), "quantity"),
        (order(1, BUY, 0.05), "quantity"),
        (order(1, BUY, 1.0, "C"), "unknown_symbol"),
        (order(1, BUY, 1.0, kind=OrderType.LIMIT), "price"),
        (order(1, BUY, 1.0, kind=OrderType.LIMIT, limit_price=float("nan")), "price"),
        (order(1, BUY, 1.0, kind=OrderType.STOP, limit_price=9.0), "price"),
        (order(1, BUY, 1.0, kind=OrderType.STOP_LIMIT, stop_price=9.0), "price"),
        (order(1, BUY, 1.0, kind=OrderType.MARKET_IF_TOUCHED, stop_price=-1.0), "price"),
        (order(1, BUY, 1.0, kind=OrderType.TRAILING_STOP, trail=1.0, trail_bps=5.0), "price"),
    ],
)
def test_an_impossible_order_is_refused_with_every_check_off(bad: OrderRequest, code: str) -> None:
    out = gate([(0.0, bad)], RiskConfig(**OFF))
    assert (passed(out), refused(out)) == ([], [("1", code)])


@pytest.mark.parametrize(("price", "equity"), [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (10.0, float("nan"))])
def test_nothing_is_judged_by_an_impossible_price_or_equity(price: float, equity: float) -> None:
    out = gate([(0.0, order(1, BUY, 1.0))], RiskConfig(), price=price, equity=equity)
    assert refused(out) == [("1", "no_price")]


def test_without_a_price_there_is_no_order() -> None:
    closes = {"A": csp.null_ts(float), "B": csp.null_ts(float)}
    assert refused(gate([(0.0, order(1, BUY, 1.0))], RiskConfig(), closes=closes)) == [("1", "no_price")]


def test_a_held_symbol_without_a_price_stops_orders_of_the_others() -> None:
    closes = {"A": csp.const(10.0), "B": csp.null_ts(float)}
    orders = [(1.0, order(1, BUY, 1.0)), (2.0, order(2, SELL, 1.0))]
    out = gate(orders, RiskConfig(), closes=closes, fills=[(0.0, fill("x", BUY, 1.0, "B"))])
    assert refused(out) == [("1", "no_price"), ("2", "no_price")]


def test_a_stop_cancels_what_works_and_lets_only_reducing_orders_pass() -> None:
    orders = [
        (0.0, order(1, BUY, 2.0)),
        (0.0, order(2, BUY, 3.0, "B")),
        (2.0, order(3, BUY, 1.0)),
        (3.0, order(4, SELL, 2.0)),
        (4.0, order(5, SELL, 0.1)),
    ]
    out = gate(
        orders,
        RiskConfig(),
        fills=[(0.5, fill(1, BUY, 2.0))],
        actions=[(1.0, STOP)],
        updates=[(0.5, update(1, "FILLED")), (1.5, update(2, "CANCELLED", "B", 3.0))],
    )
    assert cancelled(out) == [(1.0, ["2"])]
    assert passed(out) == ["1", "2", "4"]
    assert refused(out) == [("3", "halted"), ("5", "halted")]  # the last would open a short
    assert [(t, s.name) for t, s in out["state"]] == [(T0, "ACTIVE"), (T0 + SECOND, "HALTED")]
    assert said(out)[0] == (
        "trading is HALTED by drawdown: 1 working orders are being cancelled, only orders that reduce a position pass"
    )


def test_a_frozen_account_lets_nothing_pass() -> None:
    orders = [(0.0, order(1, BUY, 2.0)), (2.0, order(2, SELL, 2.0)), (3.0, order(3, SELL, 1.0, reduce_only=True))]
    out = gate(orders, RiskConfig(flatten=False), fills=[(0.5, fill(1, BUY, 2.0))], actions=[(1.0, STOP)])
    assert (passed(out), refused(out)) == (["1"], [("2", "frozen"), ("3", "frozen")])


def test_after_a_stop_what_is_being_cancelled_no_longer_counts() -> None:
    # 2 held and a sale of 5 on its way when the stop comes: selling the 2 reduces, although 5 might still be sold.
    orders = [(0.0, order(1, BUY, 2.0)), (0.6, order(2, SELL, 5.0)), (1.0, order(3, SELL, 2.0))]
    out = gate(orders, RiskConfig(), fills=[(0.5, fill(1, BUY, 2.0))], actions=[(1.0, STOP)])
    assert passed(out) == ["1", "2", "3"]


def test_a_second_stop_does_not_take_back_what_flattens() -> None:
    orders = [(0.0, order(1, BUY, 2.0)), (2.0, order(2, SELL, 2.0))]
    out = gate(orders, RiskConfig(), fills=[(0.5, fill(1, BUY, 2.0))], actions=[(1.0, STOP), (3.0, STOP)])
    assert passed(out) == ["1", "2"]
    assert cancelled(out) == []


def test_an_account_that_starts_halted_says_so_once_and_stays_so() -> None:
    out = gate(
        [(0.0, order(1, BUY, 1.0)), (50.0, order(2, BUY, 1.0))],
        RiskConfig(reduce_hold_s=1.0),
        halted=True,
        actions=[(1.0, REDUCE)],
    )
    assert [(t, s.name) for t, s in out["state"]] == [(T0, "HALTED")]
    assert refused(out) == [("1", "halted"), ("2", "halted")]
    assert [message for message in said(out) if "refused" not in message] == [
        "trading is HALTED from the start: no person has reset an earlier stop"
    ]


def test_reducing_ends_after_the_hold_and_each_change_of_state_is_told() -> None:
    orders = [(0.0, order(1, BUY, 1.0)), (2.0, order(2, BUY, 1.0)), (11.0, order(3, BUY, 1.0))]
    out = gate(orders, RiskConfig(reduce_hold_s=10.0), actions=[(1.0, REDUCE)])
    assert refused(out) == [("2", "reducing")]
    assert passed(out) == ["1", "3"]
    assert [((t - T0).total_seconds(), s.name) for t, s in out["state"]] == [
        (0.0, "ACTIVE"), (1.0, "REDUCING"), (11.0, "ACTIVE"),
    ]  # fmt: skip
    assert said(out)[0] == "trading is REDUCING for 10 s because of gross_exposure"
    assert said(out)[-1] == "trading is ACTIVE again, 10 s after the last reduction"


def test_a_further_reduction_prolongs_the_hold() -> None:
    orders = [(10.5, order(1, BUY, 1.0)), (15.0, order(2, BUY, 1.0))]
    out = gate(orders, RiskConfig(reduce_hold_s=10.0), actions=[(0.0, REDUCE), (5.0, REDUCE)])
    assert (passed(out), refused(out)) == (["2"], [("1", "reducing")])
    assert [s.name for s in values(out["state"])] == ["REDUCING", "ACTIVE"]


def test_a_hold_of_nothing_never_reduces() -> None:
    out = gate([(1.0, order(1, BUY, 1.0))], RiskConfig(reduce_hold_s=0.0), actions=[(1.0, REDUCE)])
    assert passed(out) == ["1"]


def test_a_reducing_order_is_never_held_up_by_a_limit() -> None:
    config = RiskConfig(
        gross_exposure_max=0.1, net_exposure_max=0.1, position_notional_max=10.0, orders_per_second_max=1,
        order_notional_max=15.0, order_lots_max=10,
    )  # fmt: skip
    orders = [(0.0, order(1, BUY, 1.0)), (0.2, order(2, SELL, 0.5)), (0.3, order(3, SELL, 0.5))]
    assert passed(gate(orders, config, fills=[(0.1, fill(1, BUY, 1.0))])) == ["1", "2", "3"]


def test_a_halted_symbol_is_closed_and_the_others_go_on() -> None:
    orders = [
        (0.0, order(1, BUY, 2.0)),
        (0.5, order(2, BUY, 1.0)),
        (1.0, order(3, BUY, 1.0, "B")),
        (2.0, order(4, BUY, 1.0)),
        (3.0, order(5, SELL, 2.0)),
        (5.0, order(6, BUY, 1.0, "B")),
        (10.0, order(7, BUY, 1.0)),
    ]
    out = gate(
        orders,
        RiskConfig(),
        fills=[(0.2, fill(1, BUY, 2.0))],
        updates=[(0.2, update(1, "FILLED"))],
        actions=[(1.5, halt("A", 10.0)), (4.0, halt("A", 8.0, "cool_down"))],
    )
    assert cancelled(out) == [(1.5, ["2"])]  # the second halt does not take back what closes the position
    assert (passed(out), refused(out)) == (["1", "2", "3", "5", "6", "7"], [("4", "symbol_halted")])
    assert said(out)[0] == (
        "A is halted until 2024-01-02 14:30:10 by symbol_loss: 1 working orders are being cancelled"
    )
    assert [s.name for s in values(out["state"])] == ["ACTIVE"]


def test_a_halt_after_a_stop_takes_nothing_back() -> None:
    fills = [(-0.0, fill("x", BUY, 4.0))]
    out = gate([(2.0, order(1, SELL, 4.0))], RiskConfig(), fills=fills, actions=[(1.0, STOP), (3.0, halt("A", 10.0))])
    assert (passed(out), cancelled(out)) == (["1"], [])


def test_what_closes_after_a_stop_is_not_held_up_by_clocks() -> None:
    # At 14:40 the last price is 10 minutes old, and the same order passed a minute ago.
    config = RiskConfig(quote_age_max_s=60.0, duplicate_window_s=3_600.0, session_check=True)
    nyse = Instrument(symbol="A", tick="0.01", lot="0.1", calendar="NYSE")
    fills = [(-0.0, fill("x", BUY, 4.0))]
    orders = [(50.0, order(1, SELL, 1.0)), (51.0, order(2, SELL, 1.0)), (600.0, order(3, SELL, 1.0))]
    free = gate(orders, config, fills=fills, instruments=(nyse, B))
    assert (passed(free), refused(free)) == (["1"], [("2", "duplicate"), ("3", "duplicate")])
    stopped = gate(orders, config, fills=fills, actions=[(40.0, STOP)], instruments=(nyse, B))
    assert passed(stopped) == ["1", "2", "3"]


def test_what_reduces_waits_for_no_fresh_price_and_no_open_session() -> None:
    # The first bar of NYSE is at 14:30; 7 hours later it is closed and the price stale.
    nyse = Instrument(symbol="A", tick="0.01", lot="0.1", calendar="NYSE")
    late = 7.0 * 3_600.0
    orders = [(late, order(1, BUY, 1.0)), (late + 1.0, order(2, SELL, 4.0)), (late + 2.0, order(3, SELL, 1.0))]
    for config, code in (
        (RiskConfig(quote_age_max_s=60.0), "stale_quote"),
        (RiskConfig(session_check=True), "closed_session"),
    ):
        out = gate(orders, config, fills=[(0.0, fill("x", BUY, 4.0))], instruments=(nyse, B))
        assert (passed(out), refused(out)) == (["2"], [("1", code), ("3", code)])


def test_a_strategys_halt_is_none_of_the_gates_business() -> None:
    action = RiskAction(kind=RiskActionKind.HALT_STRATEGY, code="x", value=1.0, limit=0.5, strategy="trend")
    out = gate([(1.0, order(1, BUY, 1.0))], RiskConfig(), actions=[(0.0, action)])
    assert passed(out) == ["1"]
    assert not out["cancel"]


def test_a_cancel_passes_once_the_order_works_and_is_dropped_when_it_is_too_late() -> None:
    cancels = [
        (s, CancelRequest(order_id=key, symbol="A")) for s, key in ((1.0, "1"), (2.0, "1"), (4.0, "1"), (5.0, "9"))
    ]
    out = gate(
        [(0.0, order(1, BUY, 1.0))],
        RiskConfig(),
        cancels=cancels,
        updates=[(3.0, update(1, "CANCELLED", remaining=1.0))],
    )
    assert cancelled(out) == [(1.0, ["1"]), (2.0, ["1"])]  # the second because the first may have been lost
    assert said(out) == ["cancel of order 9, which was never sent"]


def test_cancels_over_the_rate_wait_their_turn_and_those_of_risk_do_not() -> None:
    orders = [(0.0, order(i, BUY, 1.0)) for i in range(1, 6)]
    cancels = [(0.5 + i / 10, CancelRequest(order_id=str(i), symbol="A")) for i in range(1, 5)]
    config = RiskConfig(cancels_per_second_max=2)
    out = gate(orders, config, cancels=cancels, updates=[(1.2, update(4, "EXPIRED", remaining=1.0))])
    assert cancelled(out) == [(0.6, ["1"]), (0.7, ["2"]), (1.6, ["3"])]  # 4 has ended before its turn
    assert said(out) == [
        "cancel of order 3 waits (cancel_rate): 1 wait, 2 a second may go out",
        "cancel of order 4 waits (cancel_rate): 2 wait, 2 a second may go out",
    ]
    stopped = gate(orders, config, cancels=cancels, actions=[(0.85, STOP)])
    assert cancelled(stopped)[:3] == [(0.6, ["1"]), (0.7, ["2"]), (0.85, ["3", "4", "5"])]


def test_what_venue_and_gate_disagree_about_is_an_alert() -> None:
    out = gate(
        [],
        RiskConfig(),
        fills=[(0.0, fill(7, BUY, 1.0))],
        updates=[(1.0, update(8, "ACCEPTED"))],
    )
    assert [(alert.level, alert.message) for alert in values(out["alert"])] == [
        (AlertLevel.CRITICAL, "BUY 1.0 A filled for order 7, which does not work"),
        (AlertLevel.CRITICAL, "order 8 of A is ACCEPTED at the venue, but does not work"),
    ]


def test_a_split_changes_what_can_be_reduced() -> None:
    split = CorporateAction(symbol="A", split="2")
    orders = [(0.0, order(1, BUY, 2.0)), (2.0, order(2, SELL, 4.0))]
    more = {"fills": [(0.5, fill(1, BUY, 2.0))], "actions": [(1.5, STOP)]}
    assert passed(gate(orders, RiskConfig(), splits=[(1.0, split)], **more)) == ["1", "2"]
    assert refused(gate(orders, RiskConfig(), **more)) == [("2", "halted")]


def test_many_alerts_of_one_cycle_all_come_out() -> None:
    out = gate([(1.0, order(1, BUY, 1.0))], RiskConfig(), actions=[(1.0, STOP)], fills=[(1.0, fill(9, BUY, 1.0))])
    assert [t for t, _ in out["alert"]] == [T0 + SECOND] * 3
