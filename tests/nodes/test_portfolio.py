"""Books and marks: what ticks, when, and that it adds up."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, ticks, values

from brokers.events import Fill, Liquidity
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.portfolio import portfolio

A = Instrument(symbol="A", tick="0.01", lot="0.001")
B = Instrument(symbol="B", tick="0.25", lot="1", multiplier="50")


def fill(side: Side, quantity: float, price: float, fee: float = 0.0, symbol: str = "A") -> Fill:
    return Fill(
        market_time=T0,
        symbol=symbol,
        side=side,
        quantity=quantity,
        price=price,
        fee=fee,
        order_id="1",
        liquidity=Liquidity.TAKER,
    )


def account(fills: Any, closes: dict[str, Any], instruments: Any = (A,), cash: float = 1_000.0) -> Any:
    def graph() -> Any:
        out = portfolio(at(*fills, typ=Fill), {k: ticks(*v) for k, v in closes.items()}, instruments, cash)
        return {name: out[name] for name in ("position", "cash", "equity", "position_value", "gross_exposure")}

    return run(graph)


def test_equity_is_marked_at_every_price_from_the_first_fill_on() -> None:
    # Buy 1 at 100 a second after the start, sell 2 at 103 two seconds later.
    fills = [(1.0, fill(Side.BUY, 1.0, 100.0, 0.1)), (3.0, fill(Side.SELL, 1.0, 103.0, 0.1))]
    out = account(fills, {"A": [99.0, 101.0, 102.0, 103.0, 104.0]})

    assert out["equity"] == [
        (T0, 1_000.0),
        (T0 + SECOND, 1_000.9),
        (T0 + 2 * SECOND, 1_001.9),
        (T0 + 3 * SECOND, 1_002.8),
        (T0 + 4 * SECOND, 1_002.8),
    ]
    assert out["cash"] == [(T0, 1_000.0), (T0 + SECOND, 899.9), (T0 + 3 * SECOND, 1_002.8)]
    assert values(out["position_value"]) == [0.0, 101.0, 102.0, 0.0, 0.0]
    last = out["position"][-1][1]
    assert (last.quantity, last.average_price, last.realised, last.fees) == (0.0, 0.0, 3.0, 0.2)


def test_marks_of_one_instant_settle_together() -> None:
    fills = [(1.0, fill(Side.BUY, 1.0, 100.0)), (1.0, fill(Side.SELL, 2.0, 10.0, symbol="B"))]
    out = account(fills, {"A": [99.0, 101.0, 102.0], "B": [10.0, 10.0, 11.0]}, (A, B))

    settled = SECOND.resolution
    assert out["equity"] == [
        (T0 + settled, 1_000.0),
        (T0 + SECOND + settled, 1_000.0 + 1.0),
        (T0 + 2 * SECOND + settled, 1_000.0 + 2.0 - 2 * 50.0),
    ]
    assert out["gross_exposure"][-1][1] == 102.0 + 2 * 50 * 11.0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (fill(Side.BUY, 1.0, 100.001), "multiple of the tick of A"),
        (fill(Side.BUY, 0.0001, 100.0), "multiple of the lot of A"),
        (fill(Side.BUY, 1.0, 100.0, fee=0.001), "multiple of the unit of USD"),
        (fill(Side.BUY, 1.0, float("nan")), "NaN"),
    ],
)
def test_a_fill_that_would_break_the_books_stops_the_engine(bad: Fill, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        account([(1.0, bad)], {"A": [100.0]})


trades = st.lists(st.tuples(st.booleans(), st.integers(1, 5_000), st.integers(1, 50_000)), max_size=15)


@settings(max_examples=40, deadline=None)
@given(trades)
def test_equity_is_cash_plus_position_at_every_mark(done: list[tuple[bool, int, int]]) -> None:
    fills = [
        (i + 0.5, fill(Side.BUY if buys else Side.SELL, lots / 1000, price / 100, 0.01))
        for i, (buys, lots, price) in enumerate(done)
    ]
    out = account(fills, {"A": [100.0 + i for i in range(20)]})

    cash, units = 1_000.0, 0.0
    for _, f in fills:
        sign = 1.0 if f.side is Side.BUY else -1.0
        cash -= sign * f.quantity * f.price + f.fee
        units += sign * f.quantity
    assert out["cash"][-1][1] == pytest.approx(cash, abs=1e-6)
    if fills:
        assert out["position"][-1][1].quantity == pytest.approx(units, abs=1e-9)
    for equity, value in zip(values(out["equity"]), values(out["position_value"]), strict=True):
        assert equity - value == pytest.approx(
            min(values(out["cash"]), key=lambda c: abs(equity - value - c)), abs=1e-6
        )
