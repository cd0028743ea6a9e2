"""From target to order."""

from datetime import timedelta
from typing import Any

import csp
import pytest
from csp import ts
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, values

from brokers.events import CorporateAction, Fill, Liquidity, OrderRequest, OrderState, OrderType, OrderUpdate
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.events import RiskAction, RiskActionKind, TargetPosition
from nodes.orders import generate_orders

A = Instrument(symbol="A", tick="0.01", lot="0.1")


def target(quantity: float) -> TargetPosition:
    return TargetPosition(symbol="A", quantity=quantity, asof=T0)


def fill(order: int, side: Side, quantity: float, base_fee: float = 0.0) -> Fill:
    return Fill(
        market_time=T0,
        symbol="A",
        side=side,
        quantity=quantity,
        price=10.0,
        fee=0.0,
        order_id=f"run-A-{order}",
        liquidity=Liquidity.TAKER,
        base_fee=base_fee,
    )


def update(order: int, state: OrderState) -> OrderUpdate:
    return OrderUpdate(order_id=f"run-A-{order}", symbol="A", state=state, remaining=0.0, code="", reason="")


def sent(
    wanted: Any, fills: Any = (), updates: Any = (), actions: Any = (), instrument: Instrument = A
) -> list[tuple[Any, OrderRequest]]:
    def graph() -> Any:
        answers = at(*fills, typ=Fill), at(*updates, typ=OrderUpdate), at(*actions, typ=RiskAction)
        return generate_orders(at(*wanted), *answers, instrument, "run")

    out = run(graph)
    assert all(o.order_type is OrderType.MARKET for o in values(out))
    assert [o.order_id for o in values(out)] == [f"run-A-{i + 1}" for i in range(len(out))]
    return out


def orders(
    wanted: Any, fills: Any = (), updates: Any = (), actions: Any = (), instrument: Instrument = A
) -> list[tuple[Any, str, float]]:
    return [(t, o.side.name, o.quantity) for t, o in sent(wanted, fills, updates, actions, instrument)]


def test_what_is_in_flight_is_not_ordered_twice() -> None:
    wanted = [(0.0, target(2.0)), (1.0, target(3.0)), (2.0, target(3.0)), (5.0, target(-1.0))]
    fills = [(3.0, fill(1, Side.BUY, 2.0)), (4.0, fill(2, Side.BUY, 0.4))]
    assert orders(wanted, fills) == [
        (T0, "BUY", 2.0),
        (T0 + SECOND, "BUY", 1.0),
        (T0 + 5 * SECOND, "SELL", 4.0),  # 2.4 held, 0.6 still on its way
    ]


@pytest.mark.parametrize("state", [OrderState.REJECTED, OrderState.CANCELLED, OrderState.EXPIRED])
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
    made = orders(wanted, [])
    position = 0.0
    fills = []
    for (when, side, quantity), number in zip(made, range(1, len(made) + 1), strict=True):
        position += quantity if side == "BUY" else -quantity
        fills.append(((when - T0) / timedelta(seconds=1) + 0.5, fill(number, Side[side], quantity)))
    assert position == pytest.approx(lots[-1] / 10)
    assert orders(wanted, fills) == made


@pytest.mark.parametrize("state", [OrderState.PENDING, OrderState.ACCEPTED, OrderState.PARTLY_FILLED])
def test_a_working_order_stays_in_flight(state: OrderState) -> None:
    assert orders([(0.0, target(2.0)), (2.0, target(2.0))], updates=[(1.0, update(1, state))]) == [(T0, "BUY", 2.0)]


def test_a_rejected_turn_is_followed_by_its_closing_half_once() -> None:
    # 2 held, -3 wanted: 5 sold is refused, 2 sold closes. That is refused too: nothing more.
    wanted = [(0.0, target(2.0)), (2.0, target(-3.0))]
    fills = [(1.0, fill(1, Side.BUY, 2.0))]
    refusals = [(2.5, update(2, OrderState.REJECTED)), (3.0, update(3, OrderState.REJECTED))]
    out = sent(wanted, fills, refusals)
    assert [(t, o.side.name, o.quantity, o.reduce_only) for t, o in out] == [
        (T0, "BUY", 2.0, False),
        (T0 + 2 * SECOND, "SELL", 5.0, False),
        (T0 + timedelta(seconds=2.5), "SELL", 2.0, True),
    ]


def test_a_closing_half_has_no_closing_half() -> None:
    # 2 held, 3 coming, -3 wanted: 8 sold is refused, then 5. The 3 were cancelled by then, and 5 would turn it too.
    wanted = [(0.0, target(2.0)), (2.0, target(5.0)), (3.0, target(-3.0))]
    fills = [(1.0, fill(1, Side.BUY, 2.0))]
    updates = [
        (3.5, update(3, OrderState.REJECTED)),
        (4.0, update(2, OrderState.CANCELLED)),
        (4.5, update(4, OrderState.REJECTED)),
    ]
    assert [quantity for _, _, quantity in orders(wanted, fills, updates)] == [2.0, 3.0, 8.0, 5.0]


@pytest.mark.parametrize("state", [OrderState.CANCELLED, OrderState.EXPIRED])
def test_a_turn_that_was_not_refused_is_not_followed(state: OrderState) -> None:
    wanted = [(0.0, target(2.0)), (2.0, target(-3.0))]
    fills = [(1.0, fill(1, Side.BUY, 2.0))]
    assert len(orders(wanted, fills, [(2.5, update(2, state))])) == 2


@pytest.mark.parametrize("quantity", [5.0, 1.0, 0.0])
def test_only_a_turn_has_a_closing_half(quantity: float) -> None:
    wanted = [(0.0, target(2.0)), (2.0, target(quantity))]
    fills = [(1.0, fill(1, Side.BUY, 2.0))]
    assert len(orders(wanted, fills, [(2.5, update(2, OrderState.REJECTED))])) == 2


def test_a_target_in_the_cycle_of_a_refusal_is_ordered_instead_of_a_closing_half() -> None:
    wanted = [(0.0, target(2.0)), (2.0, target(-3.0)), (3.0, target(-1.0))]
    fills = [(1.0, fill(1, Side.BUY, 2.0))]
    out = sent(wanted, fills, [(3.0, update(2, OrderState.REJECTED))])
    assert [(o.quantity, o.reduce_only) for _, o in out[2:]] == [(3.0, False)]


def test_a_closing_half_that_the_venue_cut_leaves_nothing_in_flight() -> None:
    # The close of 2 was cut to 1.5 and has ended: 0.5 is still held, and the next target knows.
    wanted = [(0.0, target(2.0)), (2.0, target(-3.0)), (4.0, target(0.0))]
    fills = [(1.0, fill(1, Side.BUY, 2.0)), (3.0, fill(3, Side.SELL, 1.5))]
    updates = [(2.5, update(2, OrderState.REJECTED)), (3.0, update(3, OrderState.FILLED))]
    assert orders(wanted, fills, updates)[3:] == [(T0 + 4 * SECOND, "SELL", 0.5)]


def test_what_fills_late_short_of_the_target_is_kept() -> None:
    # The order for 3 was cancelled, 1 of it fills after all: the position moved the right way, nothing is sent.
    fills = [(2.0, fill(1, Side.BUY, 1.0))]
    assert orders([(0.0, target(3.0))], fills, [(1.0, update(1, OrderState.CANCELLED))]) == [(T0, "BUY", 3.0)]


@pytest.mark.parametrize(("symbol", "sold"), [("A", 2.0), ("B", 5.0)])
def test_only_a_halt_of_its_own_symbol_forgets_what_is_in_flight(symbol: str, sold: float) -> None:
    halt = RiskAction(kind=RiskActionKind.HALT_SYMBOL, code="symbol_loss", value=2.0, limit=1.0, symbol=symbol)
    wanted = [(0.0, target(2.0)), (2.0, target(5.0)), (3.0, target(0.0))]
    fills = [(1.0, fill(1, Side.BUY, 2.0))]
    assert orders(wanted, fills, (), [(3.0, halt)])[2:] == [(T0 + 3 * SECOND, "SELL", sold)]


@pytest.mark.parametrize("kind", [RiskActionKind.EMERGENCY_STOP, RiskActionKind.HALT_SYMBOL])
def test_an_action_that_only_repeats_forgets_nothing(kind: RiskActionKind) -> None:
    # The order that closes is on its way; a stop that is told again cancels nothing, so nothing is sold twice.
    action = RiskAction(kind=kind, code="loss", value=2.0, limit=1.0, symbol="A")
    wanted = [(0.0, target(2.0)), (2.0, target(0.0)), (4.0, target(0.0))]
    fills = [(1.0, fill(1, Side.BUY, 2.0))]
    assert orders(wanted, fills, (), [(2.0, action), (3.0, action)])[1:] == [(T0 + 2 * SECOND, "SELL", 2.0)]


def test_a_fee_taken_out_of_what_was_bought_leaves_less_to_sell() -> None:
    # 1.0 bought, 0.001 of it the fee: 0.9 can be sold in lots of 0.1, and 0.099 stays.
    coins = Instrument(symbol="A", tick="0.01", lot="0.1", fees_in="received", base_unit="0.001")
    fills = [(1.0, fill(1, Side.BUY, 1.0, 0.001)), (3.0, fill(2, Side.SELL, 0.9))]
    wanted = [(0.0, target(1.0)), (2.0, target(0.0)), (4.0, target(0.0)), (5.0, target(-0.1))]
    assert orders(wanted, fills, instrument=coins) == [
        (T0, "BUY", 1.0),
        (T0 + 2 * SECOND, "SELL", 0.9),
        (T0 + 5 * SECOND, "SELL", 0.1),
    ]


def test_a_fill_of_more_than_was_ordered_is_booked_and_leaves_nothing_in_flight() -> None:
    wanted = [(0.0, target(2.0)), (2.0, target(5.0))]
    assert orders(wanted, [(1.0, fill(1, Side.BUY, 3.0))])[1:] == [(T0 + 2 * SECOND, "BUY", 2.0)]


def test_a_fill_of_an_unknown_order_is_booked_and_what_is_beyond_the_target_sent_back() -> None:
    # 2 are on their way, 3 come from nowhere: 3 too many.
    assert orders([(0.0, target(2.0))], [(1.0, fill(7, Side.BUY, 3.0))])[1:] == [(T0 + SECOND, "SELL", 3.0)]


def test_a_fill_off_the_lot_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the lot of A"):
        orders([(0.0, target(2.0))], [(1.0, fill(1, Side.BUY, 0.05))])


def test_a_split_scales_what_is_held_and_wanted() -> None:
    def graph() -> Any:
        split = at((2.0, CorporateAction(symbol="A", split="2")), (2.5, CorporateAction(symbol="B", split="3")))
        wanted = at((0.0, target(1.0)), (3.0, target(2.0)), (4.0, target(0.0)))
        fills = at((1.0, fill(1, Side.BUY, 1.0)))
        nothing = csp.null_ts(OrderUpdate), csp.null_ts(RiskAction)
        return generate_orders(wanted, fills, *nothing, A, "run", corporate=split)

    assert [(t, o.side.name, o.quantity) for t, o in run(graph)] == [(T0, "BUY", 1.0), (T0 + 4 * SECOND, "SELL", 2.0)]


@pytest.mark.parametrize("state", [OrderState.CANCELLED, OrderState.REJECTED])
def test_what_a_split_takes_back_is_ordered_anew_when_the_last_of_it_is(state: OrderState) -> None:
    # 20 and 30 on their way; 1 for 10: 5 are missing, and nothing is sold because of what will never come.
    def graph() -> Any:
        split = at((2.0, CorporateAction(symbol="A", split="1/10")))
        wanted = at((0.0, target(20.0)), (1.0, target(50.0)))
        ends = at((3.0, update(1, state)), (4.0, update(2, state)), (5.0, update(2, state)))
        nothing = csp.null_ts(Fill), ends, csp.null_ts(RiskAction)
        return generate_orders(wanted, *nothing, A, "run", corporate=split)

    assert [(t, o.side.name, o.quantity) for t, o in run(graph)][2:] == [(T0 + 4 * SECOND, "BUY", 5.0)]


def test_a_halt_after_a_stop_forgets_nothing() -> None:
    # The gate cancels nothing for it: the order that closes goes on, and counts.
    halt = RiskAction(kind=RiskActionKind.HALT_SYMBOL, code="symbol_loss", value=2.0, limit=1.0, symbol="A")
    wanted = [(0.0, target(2.0)), (2.0, target(0.0)), (4.0, target(0.0))]
    fills = [(1.0, fill(1, Side.BUY, 2.0))]
    assert orders(wanted, fills, (), [(2.0, STOP), (3.0, halt)])[1:] == [(T0 + 2 * SECOND, "SELL", 2.0)]


@csp.node
def whimsical_venue(order: ts[OrderRequest], whims: list[str], delay: timedelta) -> csp.Outputs(
    fill=ts[Fill], update=ts[OrderUpdate]
):
    """Refuses, cancels, fills, or fills what it has cancelled, as `whims` say, and then fills what is left.

    Its answer to a refusal comes in the same instant.
    """
    with csp.alarms():
        a_fill = csp.alarm(Fill)
    with csp.state():
        s_count = 0

    if csp.ticked(order):
        whim = whims[s_count] if s_count < len(whims) else "fill"  # whoever lies for ever is sent orders for ever
        s_count += 1
        number = int(order.order_id.rpartition("-")[2])
        if whim == "reject":
            csp.output(update=update(number, OrderState.REJECTED))
        elif whim == "cancel" or whim == "late":
            csp.output(update=update(number, OrderState.CANCELLED))
        if whim == "fill" or whim == "late":
            csp.schedule_alarm(a_fill, delay, fill(number, order.side, order.quantity))
    if csp.ticked(a_fill):
        csp.output(fill=a_fill)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-30, 30), min_size=1, max_size=8),
    st.lists(st.sampled_from(["reject", "fill", "cancel", "late"]), min_size=1, max_size=6),
    st.sampled_from([0.001, 1.5]),
)
def test_whatever_the_venue_does_there_is_an_end_of_orders(lots: list[int], whims: list[str], delay_s: float) -> None:
    wanted = [(float(i), target(n / 10)) for i, n in enumerate(lots)]

    def graph() -> Any:
        told, filled = csp.feedback(OrderUpdate), csp.feedback(Fill)
        order = generate_orders(at(*wanted), filled.out(), told.out(), csp.null_ts(RiskAction), A, "run")
        venue = whimsical_venue(order, whims, timedelta(seconds=delay_s))
        told.bind(venue.update)
        filled.bind(venue.fill)
        return {"orders": order, "fills": csp.count(venue.fill)}

    out = run(graph)
    requests, fills = values(out["orders"]), len(out["fills"])
    follow_ups = sum(o.reduce_only for o in requests)
    assert follow_ups <= len(requests) - follow_ups  # one at most for each order
    assert len(requests) <= 2 * (len(lots) + fills)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-30, 30), min_size=1, max_size=8))
def test_if_everything_is_refused_a_target_makes_two_orders_at_most(lots: list[int]) -> None:
    wanted = [(float(i), target(n / 10)) for i, n in enumerate(lots)]

    def graph() -> Any:
        told, filled = csp.feedback(OrderUpdate), csp.feedback(Fill)
        order = generate_orders(at(*wanted), filled.out(), told.out(), csp.null_ts(RiskAction), A, "run")
        venue = whimsical_venue(order, ["fill", *["reject"] * 40], timedelta(milliseconds=1))
        told.bind(venue.update)
        filled.bind(venue.fill)
        return order

    out = run(graph)
    made = [[o for t, o in out if t == T0 + i * SECOND] for i in range(len(lots))]
    assert sum(map(len, made)) == len(out)
    assert all(len(orders) <= 2 for orders in made)
    assert all([o.reduce_only for o in orders] in ([], [False], [False, True]) for orders in made)
