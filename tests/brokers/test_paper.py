"""The simulated venue as the graph sees it: what ticks, and when."""

from datetime import timedelta
from typing import Any

import csp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, at, run, values

from brokers.costs import FillModel
from brokers.events import (
    CancelRequest,
    CorporateAction,
    Fill,
    Liquidity,
    OrderRequest,
    OrderState,
    OrderType,
    TimeInForce,
)
from brokers.paper import Market, PaperConfig, paper_venue
from feeds.events import Bar, Depth, Quote, Side, Trade
from feeds.instruments import Instrument
from feeds.streams import SETTLE

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


def special(key: str, side: Side, quantity: float, kind: OrderType, **terms: Any) -> OrderRequest:
    return OrderRequest(order_id=key, symbol="A", side=side, order_type=kind, quantity=quantity, **terms)


def trade(second: float, price: float, size: float) -> tuple[float, Trade]:
    return second, Trade(symbol="A", event_time=T0 + timedelta(seconds=second), price=price, size=size)


def venue(
    orders: Any,
    bars: Any = None,
    trades: Any = None,
    cancels: Any = None,
    config: PaperConfig = FREE,
    only: Any = (A,),
    quotes: Any = None,
    depth: Any = None,
    splits: Any = (),
) -> Any:
    def edges(points: Any) -> Any:
        return {key: at(*value) for key, value in (points or {}).items()}

    def graph() -> Any:
        out = paper_venue(
            at(*orders, typ=OrderRequest),
            at(*cancels) if cancels else csp.null_ts(CancelRequest),
            Market(
                bars=edges(bars),
                trades=edges(trades),
                quotes=edges(quotes),
                depth=depth or {},
                corporate=at(*splits, typ=CorporateAction),
            ),
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
                decision_price=100.5,  # the close at which it was sent
                market_price=102.0,
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
    with pytest.raises(ValueError, match="A has neither bars, trades, quotes nor depth"):
        venue([(1.0, order("1", Side.BUY, 1.0))])


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (special("1", Side.BUY, 1.0, OrderType.STOP), "stop_not_positive"),
        (special("1", Side.BUY, 1.0, OrderType.STOP_LIMIT, stop_price=10.0), "limit_not_positive"),
        (special("1", Side.BUY, 1.0, OrderType.STOP, stop_price=float("inf")), "stop_not_positive"),
        (special("1", Side.BUY, 1.0, OrderType.TRAILING_STOP), "trail_not_positive"),
        (special("1", Side.BUY, 1.0, OrderType.TRAILING_STOP, trail=1.0, trail_bps=5.0), "trail_not_positive"),
        (special("1", Side.BUY, 1.0, OrderType.TRAILING_STOP, trail=float("nan")), "trail_not_positive"),
        (special("1", Side.BUY, 1.0, OrderType.MARKET, time_in_force=TimeInForce.GTD), "expiry_not_ahead"),
        (
            special("1", Side.BUY, 1.0, OrderType.MARKET, time_in_force=TimeInForce.GTD, expires=T0),
            "expiry_not_ahead",
        ),
        (special("1", Side.BUY, 1.0, OrderType.MARKET, post_only=True), "post_only_not_resting"),
        (special("1", Side.BUY, 1.0, OrderType.MARKET, reduce_only=True), "reduce_only"),
        (special("1", Side.BUY, 1.0, OrderType.LIMIT, limit_price=1.0, parent="0"), "no_parent"),
        (special("1", Side.BUY, 1.0, OrderType.LIMIT, limit_price=1.0, replaces="0"), "replaced_gone"),
    ],
)
def test_terms_that_make_no_order_are_refused_with_a_code(request_: OrderRequest, code: str) -> None:
    out = venue([(1.0, request_)], {"A": [bar(1, 100.0)]})
    assert [(u.state, u.code, u.remaining) for u in values(out["update"])] == [(OrderState.REJECTED, code, 0.0)]
    assert values(out["update"])[0].reason
    assert not out["fill"]


def states(out: Any) -> list[tuple[str, str, str]]:
    return [(u.order_id, u.state.name, u.code) for u in values(out["update"])]


def test_a_bracket_protects_what_its_entry_filled() -> None:
    # Long 2 at the open of 102; the next bar falls to 99 and takes the stop at 99.5, so the target goes.
    leave = {"parent": "in", "group": "out"}
    orders = [
        (3600.0, order("in", Side.BUY, 2.0)),
        (3600.0, special("stop", Side.SELL, 2.0, OrderType.STOP, stop_price=99.5, **leave)),
        (3600.0, special("target", Side.SELL, 2.0, OrderType.LIMIT, limit_price=110.0, **leave)),
    ]
    out = venue(orders, {"A": [bar(1, 100.0), bar(2, 102.0), bar(3, 100.0)]})
    assert states(out) == [
        ("in", "ACCEPTED", ""),
        ("stop", "ACCEPTED", ""),
        ("target", "ACCEPTED", ""),
        ("in", "FILLED", ""),
        ("stop", "ACCEPTED", "triggered"),
        ("stop", "FILLED", ""),
        ("target", "CANCELLED", "oco"),
    ]
    assert [(f.order_id, f.price) for f in values(out["fill"])] == [("in", 102.0), ("stop", 99.5)]


def test_a_day_order_ends_with_the_session_and_a_dated_one_at_its_time() -> None:
    # T0 is 14:30 on a Tuesday in New York's winter: the session ends at 21:00, 6.5 hours later.
    listed = Instrument(symbol="A", tick="0.01", lot="0.001", calendar="NYSE")
    day = special("day", Side.BUY, 1.0, OrderType.LIMIT, limit_price=9.0, time_in_force=TimeInForce.DAY)
    until = T0 + timedelta(minutes=1)
    dated = special(
        "dated", Side.BUY, 1.0, OrderType.LIMIT, limit_price=9.0, time_in_force=TimeInForce.GTD, expires=until
    )
    # The trade at the very instant of the end is too late for both.
    trades = [trade(60.0, 8.0, 1.0), trade(6.5 * 3600.0, 8.0, 1.0)]
    out = venue([(1.0, dated), (61.0, day)], trades={"A": trades}, only=(listed,))
    ends = [(t, u.order_id, u.state, u.code) for t, u in out["update"] if u.state is not OrderState.ACCEPTED]
    assert ends == [
        (until, "dated", OrderState.EXPIRED, "time_in_force"),
        (T0 + timedelta(hours=6.5), "day", OrderState.EXPIRED, "time_in_force"),
    ]
    assert not out["fill"]


def test_a_market_order_takes_the_quote_and_walks_the_book() -> None:
    quote = Quote(symbol="A", event_time=T0, bid=99.0, ask=101.0, bid_size=1.0, ask_size=5.0)
    out = venue([(1.0, order("1", Side.BUY, 2.0))], quotes={"A": [(0.5, quote), (2.0, quote)]})
    (fill,) = values(out["fill"])
    assert (fill.price, fill.decision_price, fill.market_price, fill.half_spread) == (101.0, 100.0, 100.0, 1.0)

    book = Depth(
        symbol="A",
        event_time=T0,
        bids=np.array([[99.0, 1.0]]),
        asks=np.array([[101.0, 0.5], [102.0, 1.0], [103.0, 9.0]]),
        snapshot=True,
    )
    shown = csp.apply(at((0.5, 1), (2.0, 2)), lambda _: book, Depth)
    out = venue([(1.0, order("1", Side.BUY, 2.0))], depth={"A": shown})
    assert [(f.quantity, f.price) for f in values(out["fill"])] == [(0.5, 101.0), (1.0, 102.0), (0.5, 103.0)]
    assert {f.decision_price for f in values(out["fill"])} == {100.0}


def test_jitter_delays_each_message_but_never_lets_one_overtake() -> None:
    config = PaperConfig(latency_ms=10.0, latency_jitter_ms=200.0, latency_seed=3, fills=FREE.fills)
    orders = [(i / 100.0, order(str(i), Side.BUY, 1.0, limit=1.0)) for i in range(60)]
    first, again = (venue(orders, {"A": [bar(1, 100.0)]}, config=config) for _ in range(2))
    assert first == again
    assert [u.order_id for u in values(first["update"])] == [str(i) for i in range(60)]
    late = [(t - T0).total_seconds() - i / 100.0 for i, (t, _) in enumerate(first["update"])]
    assert min(late) >= 0.01
    assert len({round(x, 6) for x in late}) > 20


def test_a_cancel_never_overtakes_the_order_it_is_for() -> None:
    # Two orders and their cancels leave in one instant.
    orders = [(1.0, order("1", Side.BUY, 1.0, limit=1.0)), (1.0, order("2", Side.BUY, 1.0, limit=1.0))]
    cancels = [(1.0, CancelRequest(order_id=key, symbol="A")) for key in ("1", "2")]
    out = venue(orders, {"A": [bar(1, 100.0)]}, cancels=cancels)
    assert states(out) == [(key, state, "") for key in ("1", "2") for state in ("ACCEPTED", "CANCELLED")]


def test_a_replacement_of_what_has_filled_meanwhile_is_refused_and_the_venue_goes_on() -> None:
    # 4 of 10 fill; a replacement of 4 in all has nothing left to buy, one of 6 has 2.
    cap = PaperConfig(fills=FillModel(slippage_bps=0.0, participation_max=1.0))
    first = order("1", Side.BUY, 10.0, limit=50.0)
    small = special("2", Side.BUY, 4.0, OrderType.LIMIT, limit_price=50.0, replaces="1")
    trades = [trade(2.0, 49.0, 4.0), trade(10.0, 49.0, 4.0)]
    out = venue([(1.0, first), (3.0, small)], trades={"A": trades}, config=cap)
    assert states(out)[-1] == ("2", "REJECTED", "nothing_left")
    assert sum(f.quantity for f in values(out["fill"])) == 4.0

    six = special("2", Side.BUY, 6.0, OrderType.LIMIT, limit_price=50.0, replaces="1")
    out = venue([(1.0, first), (3.0, six)], trades={"A": trades}, config=cap)
    assert [(u.order_id, u.state.name, u.remaining) for u in values(out["update"])][-2:] == [
        ("2", "ACCEPTED", 2.0),
        ("2", "FILLED", 0.0),
    ]
    assert sum(f.quantity for f in values(out["fill"])) == 6.0


def test_who_comes_late_to_a_group_or_a_parent_gets_what_is_left_of_it() -> None:
    # `a` fills 4: of the group nothing is left for 4 more, and 6 for 10. The parent filled 4 and expired.
    cap = PaperConfig(fills=FillModel(slippage_bps=0.0, participation_max=1.0))
    a = special("a", Side.BUY, 4.0, OrderType.LIMIT, limit_price=50.0, group="g")
    ended = T0 + timedelta(seconds=2.5)
    parent = special(
        "p", Side.BUY, 9.0, OrderType.LIMIT, limit_price=50.0, time_in_force=TimeInForce.GTD, expires=ended
    )
    stop = special("s", Side.SELL, 9.0, OrderType.STOP, stop_price=40.0, parent="p")
    for late, state, left in ((4.0, OrderState.CANCELLED, 4.0), (10.0, OrderState.ACCEPTED, 6.0)):
        b = special("b", Side.BUY, late, OrderType.LIMIT, limit_price=1.0, group="g")
        out = venue([(1.0, a), (3.0, b)], trades={"A": [trade(2.0, 49.0, 4.0)]}, config=cap)
        assert (values(out["update"])[-1].state, values(out["update"])[-1].remaining) == (state, left)
    out = venue([(1.0, parent), (3.0, stop)], trades={"A": [trade(2.0, 49.0, 4.0)]}, config=cap)
    assert (values(out["update"])[-1].order_id, values(out["update"])[-1].remaining) == ("s", 4.0)


def test_a_post_only_order_is_judged_by_what_is_shown_when_it_arrives() -> None:
    # Nothing rests, so the venue sleeps while the market moves from 99/100 to 199/200.
    def shown(bid: float) -> Quote:
        return Quote(symbol="A", event_time=T0, bid=bid, ask=bid + 1.0, bid_size=5.0, ask_size=5.0)

    quotes = {"A": [(0.5, shown(99.0)), (2.0, shown(99.0)), (3.0, shown(199.0)), (6.0, shown(199.0))]}
    first = order("1", Side.BUY, 1.0)
    inside = special("2", Side.BUY, 1.0, OrderType.LIMIT, limit_price=150.0, post_only=True)
    crossing = special("3", Side.BUY, 1.0, OrderType.LIMIT, limit_price=201.0, post_only=True)
    out = venue([(1.0, first), (4.0, inside), (5.0, crossing)], quotes=quotes)
    assert ("2", "ACCEPTED", "") in states(out)
    assert ("3", "REJECTED", "post_only") in states(out)


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


def test_a_split_cancels_what_works_and_refuses_what_is_on_its_way() -> None:
    # "late" was sent in the second of the split, and arrives after it; "new" was sent when the split was known.
    orders = [
        (0.0, order("a", Side.BUY, 1.0, 90.0)),
        (0.0, order("b", Side.BUY, 1.0, 90.0, "B")),
        (3600.0, order("late", Side.BUY, 1.0)),
        (3600.000001, order("new", Side.BUY, 2.0)),
    ]
    bars = {"A": [bar(hour, 100.0) for hour in (1, 2, 3)], "B": [bar(hour, 100.0, "B") for hour in (1, 2, 3)]}
    splits = [(3600.0, CorporateAction(symbol="A", split="2")), (3600.0, CorporateAction(symbol="B", dividend="1"))]
    out = venue(orders, bars, only=(A, B), splits=splits)

    arrived = T0 + HOUR + timedelta(milliseconds=50)
    assert [(t, u.order_id, u.state.name, u.code) for t, u in out["update"] if t > T0 + HOUR] == [
        (T0 + HOUR + SETTLE, "a", "CANCELLED", "split"),
        (arrived, "late", "REJECTED", "split"),
        (arrived + SETTLE, "new", "ACCEPTED", ""),
        (T0 + 2 * HOUR, "new", "FILLED", ""),
    ]
    assert [f.order_id for f in values(out["fill"])] == ["new"]


def test_a_quote_of_the_old_units_is_not_what_is_shown_after_a_split() -> None:
    # 1 for 10: a bid of 990 would take the 100 that were asked before it, and be refused as post-only.
    quote = Quote(symbol="A", event_time=T0, bid=99.0, ask=100.0, bid_size=5.0, ask_size=5.0)
    bid = special("1", Side.BUY, 1.0, OrderType.LIMIT, limit_price=990.0, post_only=True)
    for splits, state in (((), "REJECTED"), ([(1.0, CorporateAction(symbol="A", split="1/10"))], "ACCEPTED")):
        out = venue([(2.0, bid)], quotes={"A": [(0.0, quote)]}, splits=splits)
        assert [u.state.name for u in values(out["update"])] == [state]


def test_a_split_that_is_no_ratio_stops_the_engine() -> None:
    with pytest.raises(ValueError, match="a split must be a positive ratio"):
        venue([], {"A": [bar(1, 100.0)]}, splits=[(1.0, CorporateAction(symbol="A", split="0"))])
