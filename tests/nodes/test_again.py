"""What was refused for a reason that ends by itself is asked for once more when it has ended."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, values

from brokers.events import CancelRequest, Fill, Liquidity, OrderRequest, OrderState, OrderType, OrderUpdate
from feeds.events import FeedState, FeedStatus, Side
from feeds.instruments import Instrument
from nodes.close_out import close_out
from nodes.events import RiskAction, RiskActionKind, TargetPosition
from nodes.gate import risk_filter
from nodes.orders import generate_orders
from nodes.risk import RiskConfig
from nodes.wind_down import CANCEL

A = Instrument(symbol="A", tick="0.01", lot="1")
B = Instrument(symbol="B", tick="0.01", lot="1")
BUY, SELL = Side.BUY, Side.SELL
LINE, TRADES = "binance orders", "binance trades"
STOP = RiskAction(kind=RiskActionKind.EMERGENCY_STOP, code="drawdown", value=0.5, limit=0.3)
REDUCE = RiskAction(kind=RiskActionKind.REDUCE_POSITIONS, code="gross_exposure", value=2.0, limit=1.0)
WIND_DOWN = RiskAction(kind=RiskActionKind.WIND_DOWN, code=CANCEL, value=1.0, limit=0.0)


def status(state: str, symbol: str = "A", feed: str = TRADES) -> FeedStatus:
    return FeedStatus(feed=feed, symbol=symbol, state=FeedState[state], detail="", value=0.0)


def order(key: object, side: Side = BUY, symbol: str = "A", quantity: float = 5.0) -> OrderRequest:
    return OrderRequest(
        order_id=str(key), symbol=symbol, side=side, order_type=OrderType.MARKET, quantity=quantity
    )  # fmt: skip


def refusal(key: object, code: str, symbol: str = "A") -> OrderUpdate:
    return OrderUpdate(order_id=str(key), symbol=symbol, state=OrderState.REJECTED, remaining=0.0, code=code, reason="")


def fill(key: object, side: Side, quantity: float) -> Fill:
    return Fill(
        market_time=T0, symbol="A", side=side, quantity=quantity, price=10.0, fee=0.0, order_id=str(key),
        liquidity=Liquidity.TAKER,
    )  # fmt: skip


def asked(orders: Sequence[Any], statuses: Sequence[Any] = (), **more: Any) -> list[tuple[float, list[str]]]:
    """(second, symbols) of what the gate says may be asked for again; the rest is (second, event) points."""

    def graph() -> Any:
        closes = {"A": csp.const(10.0), "B": csp.const(10.0)}
        return risk_filter(
            at(*orders, typ=OrderRequest),
            csp.null_ts(CancelRequest),
            csp.null_ts(Fill),
            at(*more.get("updates", ()), typ=OrderUpdate),
            at(*more.get("actions", ()), typ=RiskAction),
            csp.const(1_000.0),
            csp.const(1_000.0),
            closes,
            closes,
            (A, B),
            RiskConfig(gross_exposure_max=more.get("gross_exposure_max"), reduce_hold_s=10.0),
            False,
            status=at(*statuses, typ=FeedStatus),
        ).again

    return [((when - T0) / SECOND, symbols) for when, symbols in run(graph)]


def test_an_order_refused_for_its_feed_may_be_asked_for_again_when_the_feed_is_back() -> None:
    told = [(1.0, status("STALE")), (3.0, status("RECOVERED")), (4.0, status("STALE")), (5.0, status("RECOVERED"))]
    assert asked([(2.0, order(1))], told) == [(3.0, ["A"])]
    assert asked([(2.0, order(1)), (4.5, order(2))], told) == [(3.0, ["A"]), (5.0, ["A"])]


def test_where_nothing_was_refused_a_feed_that_is_back_asks_for_nothing() -> None:
    told = [(1.0, status("STALE")), (3.0, status("RECOVERED"))]
    assert asked([(0.5, order(1)), (2.0, order(2, symbol="B"))], told) == []


def test_all_feeds_of_a_symbol_must_be_back() -> None:
    told = [
        (1.0, status("GAP")),
        (1.0, status("STALE", "", LINE)),
        (3.0, status("CONNECTED")),
        (4.0, status("RECOVERED", "B", LINE)),
        (5.0, status("RECOVERED", "", LINE)),
    ]
    assert asked([(2.0, order(1)), (2.5, order(2, symbol="B"))], told) == [(4.0, ["B"]), (5.0, ["A"])]


def test_other_words_of_a_feed_end_nothing() -> None:
    told = [(1.0, status("STALE")), (3.0, status("LAGGING")), (4.0, status("DROPPED")), (5.0, status("GAP"))]
    assert asked([(2.0, order(1))], told) == []


def test_an_order_refused_while_risk_is_reduced_may_be_asked_for_again_when_that_is_over() -> None:
    actions = [(1.0, REDUCE), (5.0, REDUCE)]
    assert asked([(2.0, order(1)), (3.0, order(2, symbol="B"))], actions=actions) == [(15.0, ["A", "B"])]


def test_both_reasons_must_have_ended() -> None:
    # Refused for the feed; it is back while risk is being reduced, or risk may be taken before it is back.
    told = [(1.0, status("STALE")), (4.0, status("RECOVERED"))]
    assert asked([(2.0, order(1))], told, actions=[(3.0, REDUCE)]) == [(13.0, ["A"])]
    told = [(1.0, status("STALE")), (20.0, status("RECOVERED"))]
    assert asked([(4.0, order(1))], told, actions=[(3.0, REDUCE)]) == [(20.0, ["A"])]


def test_a_refusal_that_no_state_ends_is_not_asked_for_again() -> None:
    told = [(1.0, status("STALE", "B")), (3.0, status("RECOVERED", ""))]
    orders = [(2.0, order(1, quantity=500.0)), (2.0, order(2, symbol="C"))]
    assert asked(orders, told, gross_exposure_max=1.0) == []
    venue = [(1.5, refusal(1, code)) for code in ("insufficient_funds", "rate_limit", "filter")]
    assert asked([(0.0, order(1))], told, updates=venue[:1]) == []
    assert asked([(0.0, order(1))], told, updates=venue[1:]) == []


@pytest.mark.parametrize("code", ["venue_down", "not_sent"])
def test_an_order_that_did_not_get_through_may_be_asked_for_again_when_the_line_is_back(code: str) -> None:
    told = [(2.0, status("STALE", "", LINE)), (3.0, status("RECOVERED", "", LINE)), (9.0, status("RECOVERED"))]
    assert asked([(0.0, order(1))], told, updates=[(1.0, refusal(1, code))]) == [(3.0, ["A"])]


def test_a_line_that_is_back_in_the_instant_of_the_refusal_is_back_after_it() -> None:
    # The venue tells of the order first; what it says of orders reaches the gate a cycle after what it says of itself.
    told = [(2.0, status("RECOVERED", "A", LINE))]
    assert asked([(0.0, order(1))], told, updates=[(2.0, refusal(1, "not_sent"))]) == [(2.0, ["A"])]
    assert asked([(0.0, order(1))], told, updates=[(3.0, refusal(1, "not_sent"))]) == []


@pytest.mark.parametrize(("code", "passes"), [("venue_down", ["1", "2"]), ("filter", ["1"])])
def test_what_did_not_get_through_is_no_duplicate_when_it_comes_again(code: str, passes: list[str]) -> None:
    def graph() -> Any:
        price, none = {"A": csp.const(10.0)}, csp.null_ts(RiskAction)
        return risk_filter(
            at((0.0, order(1)), (2.0, order(2))), csp.null_ts(CancelRequest), csp.null_ts(Fill),
            at((1.0, refusal(1, code))), none, csp.const(1_000.0), csp.const(1_000.0), price, price, (A,),
            RiskConfig(duplicate_window_s=60.0), False,
        ).approved  # fmt: skip

    assert [o.order_id for o in values(run(graph))] == passes


def test_what_did_not_get_through_is_not_held_up_by_a_reduction() -> None:
    # It was let pass, so it reduces; what now enlarges is refused by itself.
    told = [(2.0, status("STALE", "", LINE)), (3.0, status("RECOVERED", "", LINE))]
    updates = [(1.0, refusal(1, "venue_down"))]
    assert asked([(0.0, order(1))], told, updates=updates, actions=[(2.5, REDUCE)]) == [(3.0, ["A"])]


def test_a_run_that_is_being_stopped_asks_for_nothing() -> None:
    told = [(1.0, status("STALE")), (4.0, status("RECOVERED"))]
    assert asked([(2.0, order(1))], told, actions=[(3.0, WIND_DOWN)]) == []


STATES = st.tuples(
    st.sampled_from(["STALE", "GAP", "RECOVERED", "CONNECTED", "LAGGING"]),
    st.sampled_from(["", "A", "B"]),
    st.sampled_from([LINE, TRADES]),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), STATES, st.sampled_from("AB")), max_size=25))
def test_each_refusal_is_followed_by_one_word_when_all_feeds_are_well(steps: list[Any]) -> None:
    # Second by second an order or a status; by hand: the symbols that wait, and the feeds that are bad for each.
    orders, told, waiting = list[Any](), list[Any](), set[str]()
    bad: dict[tuple[str, str], bool] = {}
    expected = []
    for n, (sends, (state, symbol, feed), wanted) in enumerate(steps):
        if sends:
            orders.append((float(n), order(f"r-{n + 1}", symbol=wanted, quantity=1.0)))
            if bad.get((LINE, wanted)) or bad.get((TRADES, wanted)):
                waiting.add(wanted)
            continue
        told.append((float(n), status(state, symbol, feed)))
        if state == "LAGGING":
            continue
        named = [symbol] if symbol else ["A", "B"]
        bad |= {(feed, each): state in ("STALE", "GAP") for each in named}
        if state in ("RECOVERED", "CONNECTED"):
            well = sorted(s for s in waiting if s in named and not (bad.get((LINE, s)) or bad.get((TRADES, s))))
            waiting -= set(well)
            expected += [(float(n), well)] if well else []
    assert [(when, sorted(symbols)) for when, symbols in asked(orders, told)] == expected


def target(quantity: float) -> TargetPosition:
    return TargetPosition(symbol="A", quantity=quantity, asof=T0)


def ordered(wanted: dict[float, float], again: dict[float, list[str]], **more: Any) -> list[tuple[float, str, float]]:
    """(second, side, quantity) of each order that targets and calls to ask again make."""

    def graph() -> Any:
        targets = at(*((when, target(quantity)) for when, quantity in wanted.items()))
        answers = at(*more.get("fills", ()), typ=Fill), at(*more.get("updates", ()), typ=OrderUpdate)
        calls = at(*again.items(), typ=list[str])
        actions = at(*more.get("actions", ()), typ=RiskAction)
        return generate_orders(targets, *answers, actions, A, "r", again=calls)

    return [((when - T0) / SECOND, o.side.name, o.quantity) for when, o in run(graph)]


def test_what_the_latest_target_still_misses_is_ordered_once_a_call() -> None:
    updates = [(1.0, refusal("r-A-1", "stale_feed")), (5.0, refusal("r-A-3", "stale_feed"))]
    fills = [(3.0, fill("r-A-2", BUY, 2.0))]
    called = ordered({0: 5.0, 2: 2.0, 4: 6.0}, {7: ["B", "A"], 8: ["A"]}, updates=updates, fills=fills)
    assert called == [(0.0, "BUY", 5.0), (2.0, "BUY", 2.0), (4.0, "BUY", 4.0), (7.0, "BUY", 4.0)]


def test_a_call_of_another_symbol_or_before_a_target_orders_nothing() -> None:
    updates = [(1.0, refusal("r-A-1", "stale_feed"))]
    assert ordered({0: 5.0}, {2: ["B"]}, updates=updates) == [(0.0, "BUY", 5.0)]
    assert ordered({3: 5.0}, {2: ["A"]}) == [(3.0, "BUY", 5.0)]


def test_after_a_stop_a_call_sells_what_is_held_and_buys_nothing() -> None:
    fills = [(1.0, fill("r-A-1", BUY, 5.0))]
    updates = [(3.0, refusal("r-A-2", "venue_down"))]
    told = {"fills": fills, "updates": updates, "actions": [(2.0, STOP)]}
    assert ordered({0: 5.0, 2: 0.0}, {4: ["A"]}, **told)[1:] == [(2.0, "SELL", 5.0), (4.0, "SELL", 5.0)]
    frozen = ordered({0: 9.0}, {4: ["A"]}, fills=fills, actions=[(2.0, STOP)])
    assert frozen == [(0.0, "BUY", 9.0)]


def closed(again: dict[float, list[str]], updates: Sequence[Any], **more: Any) -> list[tuple[float, float]]:
    """(second, signed quantity) of what closes a position of 5 after a stop at 2 s."""

    def graph() -> Any:
        fills = at((1.0, fill("own", BUY, 5.0)), *more.get("fills", ()))
        calls = at(*again.items(), typ=list[str])
        return close_out(at((2.0, STOP)), fills, at(*updates, typ=OrderUpdate), A, True, "r", again=calls)

    return [((w - T0) / SECOND, o.quantity if o.side is BUY else -o.quantity) for w, o in run(graph)]


def test_a_close_that_did_not_get_through_is_repeated_with_each_call() -> None:
    updates = [(3.0, refusal("r-A-close-1", "venue_down")), (5.0, refusal("r-A-close-2", "venue_down"))]
    assert closed({4.0: ["A"], 6.0: ["B", "A"], 7.0: ["A"]}, updates) == [(2.0, -5.0), (4.0, -5.0), (6.0, -5.0)]


def test_a_close_is_not_repeated_for_another_symbol() -> None:
    updates = [(3.0, refusal("r-A-close-1", "filter"))]
    assert closed({4.0: ["B"]}, updates) == [(2.0, -5.0)]
    late = (4.0, fill("own", BUY, 1.0))  # of the stop's own making: it is closed all the same
    assert closed({4.0: ["B"]}, updates, fills=[late]) == [(2.0, -5.0), (4.0, -6.0)]


def test_the_whole_circle_reaches_its_target_when_the_feed_is_back() -> None:
    # As in the account: the gate's refusals and its calls come back a cycle later.
    def graph() -> Any:
        told, again = csp.feedback(OrderUpdate), csp.feedback(list[str])
        price = {"A": csp.const(10.0)}
        nothing = csp.null_ts(Fill), csp.null_ts(RiskAction)
        targets = at((2.0, target(5.0)), (3.0, target(7.0)))
        sent = generate_orders(targets, nothing[0], told.out(), nothing[1], A, "r", again=again.out())
        gate = risk_filter(
            sent, csp.null_ts(CancelRequest), nothing[0], told.out(), nothing[1], csp.const(1_000.0),
            csp.const(1_000.0), price, price, (A,), RiskConfig(), False,
            status=at((1.0, status("STALE")), (4.0, status("RECOVERED")), (5.0, status("RECOVERED"))),
        )  # fmt: skip
        told.bind(gate.refused)
        again.bind(gate.again)
        return {"sent": sent, "approved": gate.approved}

    out = run(graph, seconds=timedelta(minutes=1).total_seconds())
    assert [(when, o.quantity) for when, o in out["approved"]] == [(T0 + 4 * SECOND, 7.0)]
    assert [o.quantity for o in values(out["sent"])] == [5.0, 7.0, 7.0]
