"""A fill knows the price at which it was decided."""

from datetime import timedelta

import csp
from support import SECOND, T0, at, run, ticks, values

from brokers.events import Fill, Liquidity, OrderRequest, OrderType
from feeds.events import Side
from nodes.decided import decided


def order(order_id: str) -> OrderRequest:
    return OrderRequest(order_id=order_id, symbol="X", side=Side.BUY, order_type=OrderType.MARKET, quantity=1.0)


def fill(order_id: str) -> Fill:
    return Fill(
        market_time=T0,
        symbol="X",
        side=Side.BUY,
        quantity=1.0,
        price=101.0,
        fee=0.0,
        order_id=order_id,
        liquidity=Liquidity.TAKER,
        market_price=101.0,
    )


def test_the_price_is_that_of_the_order_and_not_of_the_fill() -> None:
    filled = fill("a")

    told = run(lambda: decided(at((2.5, filled)), at((1.5, order("a"))), {"X": ticks(99.0, 100.0, 105.0)}))

    assert [when for when, _ in told] == [T0 + 2.5 * SECOND]
    assert told[0][1].decision_price == 100.0
    assert told[0][1].price == 101.0
    assert filled.decision_price == 0.0  # what came in is others' too


def test_an_order_that_was_sent_before_there_was_a_price_or_by_another_run_has_none() -> None:
    fills = at((3.0, fill("early")), (4.0, fill("of another run")))

    told = run(lambda: decided(fills, at((0.0, order("early"))), {"X": ticks(None, 100.0)}))

    assert [f.decision_price for f in values(told)] == [0.0, 0.0]


def test_every_fill_of_an_order_has_it() -> None:
    fills = csp.curve(Fill, [(timedelta(seconds=s), fill("a")) for s in (2, 3, 4)])

    told = run(lambda: decided(fills, at((1.0, order("a"))), {"X": ticks(100.0)}))

    assert [f.decision_price for f in values(told)] == [100.0] * 3
