"""A dry run answers every order, and sends none."""

from datetime import timedelta

import csp
from support import T0, at, run

from brokers.events import CancelRequest, OrderRequest, OrderState, OrderType
from feeds.events import Side
from nodes.unsent import unsent


def order(order_id: str) -> OrderRequest:
    return OrderRequest(order_id=order_id, symbol="X", side=Side.BUY, order_type=OrderType.MARKET, quantity=2.5)


def test_each_order_expires_a_moment_after_it_came() -> None:
    orders = at((1.0, order("a")), (1.0005, order("b")))
    cancels = at((2.0, CancelRequest(order_id="a", symbol="X")))

    told = run(lambda: unsent(orders, cancels))

    assert [(when - T0, u.order_id) for when, u in told] == [
        (timedelta(seconds=1, milliseconds=1), "a"),
        (timedelta(seconds=1, microseconds=1500), "b"),
    ]
    assert {(u.state, u.code, u.remaining) for _, u in told} == {(OrderState.EXPIRED, "dry_run", 2.5)}


def test_without_orders_nothing_is_answered() -> None:
    assert run(lambda: unsent(csp.null_ts(OrderRequest), csp.null_ts(CancelRequest))) == []
