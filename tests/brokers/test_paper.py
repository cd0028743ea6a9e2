"""The simulated venue as the graph sees it: what ticks, and when."""

from datetime import timedelta
from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, at, run, values

from brokers.events import CancelRequest, Fill, Liquidity, OrderRequest, OrderState, OrderType
from brokers.matching import FillModel
from brokers.paper import PaperConfig, paper_venue
from feeds.events import Bar, Side, Trade
from feeds.instruments import Instrument

HOUR = timedelta(hours=1)
A = Instrument(symbol="A", tick="0.01", lot="0.001", maker_bps=5.0, taker_bps=10.0)
B = Instrument(symbol="B", tick="0.01", lot="1")
FREE = PaperConfig(fills=FillModel(slippage_bps=0.0))


def bar(hour: int, open_: float, symbol: str = "A", volume: float = 10.0) -> tuple[float, Bar]:
    """The bar that closes `hour` hours after T0, one point up and one down from its open."""
    close = T0 + hour * HOUR
    prices = {"open": open_, "high": open_ + 1.0, "low": open_ - 1.0, "close": open_ + 0.5}
    return 3600.0 * hour, Bar(symbol=symbol, event_time=close, open_time=close - HOUR, volume=volume, **prices)


def order(key: str, side: Side, quantity: float, limit: float = 0.0, symbol: str = "A") -> OrderRequest:
    kind = OrderType.LIMIT if limit else OrderType.MARKET
    return OrderRequest(order_id=key, symbol=symbol, side=side, order_type=kind, quantity=quantity, limit_price=limit)


def trade(second: float, price: float, size: float) -> tuple[float, Trade]:
    return second, Trade(symbol="A", event_time=T0 + timedelta(seconds=second), price=price, size=size)


def venue(
    orders: Any, bars: Any = None, trades: Any = None, cancels: Any = None, config: PaperConfig = FREE, only: Any = (A,)
) -> Any:
    def graph() -> Any:
        out = paper_venue(
            at(*orders, typ=OrderRequest),
            at(*cancels) if cancels else csp.null_ts(CancelRequest),
            {k: at(*v) for k, v in (bars or {}).items()},
            {k: at(*v) for k, v in (trades or {}).items()},
            only,
            config,
        )
        return {"update": out.update, "fill": out.fill}

    return run(graph)


def test_market_order_fills_at_the_next_open_known_at_that_bars_close() -> None:
    # Sent at the first close; the second bar opens then, at 102, and is known an hour later.
    out = venue([(3600.0, order("1", Side.BUY, 2.0))], {"A": [bar(1, 100.0), bar(2, 102.0), bar(3, 104.0)]})

    assert [(t, u.state) for t, u in out["update"]] == [
        (T0 + HOUR + timedelta(milliseconds=50), OrderState.ACCEPTED),
        (T0 + 2 * HOUR, OrderState.FILLED),
    ]
    assert out["fill"] == [
        (
            T0 + 2 * HOUR,
            Fill(
                market_time=T0 + HOUR,
                symbol="A",
                side=Side.BUY,
                quantity=2.0,
                price=102.0,
                fee=0.2,
                order_id="1",
                liquidity=Liquidity.TAKER,
            ),
        )
    ]


def test_an_order_sent_inside_a_bar_never_fills_at_that_bars_open() -> None:
    out = venue([(5400.0, order("1", Side.BUY, 1.0))], {"A": [bar(1, 100.0), bar(2, 50.0), bar(3, 104.0)]})

    assert [(t, f.market_time, f.price) for t, f in out["fill"]] == [(T0 + 3 * HOUR, T0 + 2 * HOUR, 104.0)]


def test_an_order_that_arrives_after_the_next_close_waits() -> None:
    slow = PaperConfig(latency_ms=3_599_999.0, fills=FillModel(slippage_bps=0.0))
    out = venue([(3601.0, order("1", Side.BUY, 1.0))], {"A": [bar(i, 100.0 + i) for i in range(1, 5)]}, config=slow)
    assert [(t, f.market_time) for t, f in out["fill"]] == [(T0 + 3 * HOUR, T0 + 2 * HOUR)]


def test_a_market_order_on_trades_takes_the_next_trade_after_it_arrived() -> None:
    # It arrives at 1.05 s: the trade at 1.04 s is too early.
    trades = [trade(1.0, 10.0, 5.0), trade(1.04, 11.0, 5.0), trade(1.06, 12.0, 5.0)]
    out = venue([(1.0, order("1", Side.SELL, 1.0))], trades={"A": trades})
    assert [(t, f.price) for t, f in out["fill"]] == [(T0 + timedelta(seconds=1.06), 12.0)]


def test_participation_spreads_an_order_over_trades() -> None:
    config = PaperConfig(fills=FillModel(slippage_bps=0.0, participation_max=0.5))
    trades = [trade(2.0, 10.0, 2.0), trade(2.0, 11.0, 4.0), trade(3.0, 12.0, 100.0)]
    out = venue([(1.0, order("1", Side.BUY, 4.0))], trades={"A": trades}, config=config)

    assert [(f.quantity, f.price) for f in values(out["fill"])] == [(1.0, 10.0), (2.0, 11.0), (1.0, 12.0)]
    assert [(u.state, u.remaining) for u in values(out["update"])][1:] == [
        (OrderState.PARTLY_FILLED, 3.0),
        (OrderState.PARTLY_FILLED, 1.0),
        (OrderState.FILLED, 0.0),
    ]


def test_two_orders_that_fill_on_one_bar_both_tick() -> None:
    orders = [(3600.0, order("1", Side.BUY, 1.0)), (3600.5, order("2", Side.SELL, 2.0, limit=102.5))]
    out = venue(orders, {"A": [bar(1, 100.0), bar(2, 102.0), bar(3, 102.0)]})
    # The limit was sent after the second bar opened: it fills in the third, traded through at 103.
    assert [(f.order_id, f.price, f.fee, f.liquidity) for f in values(out["fill"])] == [
        ("1", 102.0, 0.1, Liquidity.TAKER),
        ("2", 102.5, 0.1, Liquidity.MAKER),
    ]
    both = [(3600.0, order("1", Side.BUY, 1.0)), (3600.0, order("2", Side.SELL, 2.0))]
    out = venue(both, {"A": [bar(1, 100.0), bar(2, 102.0)]})
    assert [f.order_id for f in values(out["fill"])] == ["1", "2"]


def test_a_cancel_in_time_cancels_and_one_too_late_is_silent() -> None:
    orders = [(3600.0, order("1", Side.BUY, 1.0)), (3600.0, order("2", Side.BUY, 1.0, limit=1.0))]
    cancels = [(7200.0, CancelRequest(order_id=key, symbol="A")) for key in ("1", "2")]
    out = venue(orders, {"A": [bar(1, 100.0), bar(2, 102.0), bar(3, 0.5)]}, cancels=cancels)

    assert [(u.order_id, u.state) for u in values(out["update"])][2:] == [
        ("1", OrderState.FILLED),
        ("2", OrderState.CANCELLED),
    ]
    assert [f.order_id for f in values(out["fill"])] == ["1"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (order("1", Side.BUY, 0.0001), "quantity_below_lot"),
        (order("1", Side.BUY, float("nan")), "quantity_below_lot"),
        (order("1", Side.BUY, -1.0), "quantity_below_lot"),
        (order("1", Side.BUY, 1.0, limit=0.001), "limit_not_positive"),
    ],
)
def test_an_impossible_order_is_rejected_with_a_code(request_: OrderRequest, code: str) -> None:
    out = venue([(1.0, request_)], {"A": [bar(1, 100.0)]})
    assert [(u.state, u.code) for u in values(out["update"])] == [(OrderState.REJECTED, code)]
    assert not out["fill"]


def test_a_duplicate_order_id_is_rejected() -> None:
    out = venue([(1.0, order("1", Side.BUY, 1.0)), (2.0, order("1", Side.BUY, 1.0))], {"A": [bar(3, 100.0)]})
    assert [u.code for u in values(out["update"])][:2] == ["", "duplicate_order_id"]
    assert len(out["fill"]) == 1


def test_symbols_fill_against_their_own_market() -> None:
    orders = [(3600.0, order("a", Side.BUY, 1.0)), (3600.0, order("b", Side.BUY, 1.0, symbol="B"))]
    bars = {"A": [bar(1, 100.0), bar(2, 102.0)], "B": [bar(1, 50.0, "B"), bar(2, 52.0, "B")]}
    out = venue(orders, bars, only=(A, B))
    assert [(f.symbol, f.price) for f in values(out["fill"])] == [("A", 102.0), ("B", 52.0)]


def test_an_instrument_without_a_market_is_refused() -> None:
    with pytest.raises(ValueError, match="A has neither bars nor trades"):
        venue([(1.0, order("1", Side.BUY, 1.0))])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30_000), st.booleans(), st.integers(1, 5_000)), max_size=12))
def test_every_order_fills_after_it_was_sent_and_completely(sent: list[tuple[int, bool, int]]) -> None:
    orders = [
        (float(second), order(str(i), Side.BUY if buy else Side.SELL, lots / 1000.0))
        for i, (second, buy, lots) in enumerate(sorted(sent))
    ]
    out = venue(orders, {"A": [bar(i, 100.0 + i) for i in range(1, 12)]})

    left = {o.order_id: o.quantity for _, o in orders}
    when = {o.order_id: T0 + timedelta(seconds=second) for second, o in orders}
    for known, fill in out["fill"]:
        assert when[fill.order_id] <= fill.market_time < known
        left[fill.order_id] -= fill.quantity
    assert all(abs(quantity) < 1e-9 for quantity in left.values())
