"""What is held and in flight: the worst case, judged by trying everything that can fill."""

from fractions import Fraction
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0

from brokers.events import Fill, Liquidity, OrderRequest, OrderState, OrderType, OrderUpdate
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.exposure import Exposure
from nodes.in_flight import own_price

A = Instrument(symbol="A", tick="0.01", lot="1")
DOT = Instrument(symbol="A", tick="0.01", lot="0.1", base_unit="0.001", fees_in="received")


def order(key: str, quantity: float, kind: OrderType = OrderType.MARKET, **terms: Any) -> OrderRequest:
    """A buy where `quantity` is positive, else a sale."""
    side = Side.BUY if quantity > 0 else Side.SELL
    return OrderRequest(order_id=key, symbol="A", side=side, order_type=kind, quantity=abs(quantity), **terms)


def send(exposure: Exposure, request: OrderRequest, last: float = 10.0) -> bool:
    """Count an order as in flight; whether it reduces."""
    sent = exposure.prepare(request, last)
    assert sent is not None
    reduces = exposure.reduces(sent)
    exposure.add(sent)
    return reduces


def fill(exposure: Exposure, key: str, quantity: float, base_fee: float = 0.0) -> str:
    side = Side.BUY if quantity > 0 else Side.SELL
    return exposure.filled(
        Fill(
            market_time=T0, symbol="A", side=side, quantity=abs(quantity), price=10.0, fee=0.0, order_id=key,
            liquidity=Liquidity.TAKER, base_fee=base_fee,
        )
    )  # fmt: skip


def update(exposure: Exposure, key: str, state: str, remaining: float = 0.0) -> str:
    return exposure.updated(
        OrderUpdate(order_id=key, symbol="A", state=OrderState[state], remaining=remaining, code="", reason="")
    )


def reach(exposure: Exposure) -> tuple[int, int]:
    """The lowest and highest position that the exposure reckons with, lots."""
    holding = exposure.holdings["A"]
    return holding.held - holding.sells, holding.held + holding.buys


def held(exposure: Exposure) -> int:
    return exposure.holdings["A"].held


def test_all_buys_may_fill_and_no_sale_or_the_other_way_round() -> None:
    exposure = Exposure((A,))
    for key, quantity in (("1", 5.0), ("2", -3.0), ("3", 2.0)):
        send(exposure, order(key, quantity))
    assert reach(exposure) == (-3, 7)
    assert exposure.holdings["A"].worst(10.0, 10.0) == (70.0, -30.0)


def test_a_group_counts_once_with_its_largest() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 5.0, OrderType.LIMIT, limit_price=9.0, group="g"))
    send(exposure, order("2", 7.0, OrderType.STOP, stop_price=12.0, group="g"))
    assert reach(exposure) == (0, 7)
    assert exposure.holdings["A"].worst(10.0, 10.0)[0] == pytest.approx(84.0)
    assert fill(exposure, "1", 3.0) == ""
    assert reach(exposure) == (3, 3 + 4)  # what one fills is taken off the other
    assert update(exposure, "2", "CANCELLED", 4.0) == ""
    assert reach(exposure) == (3, 3 + 2)


def test_a_replaced_order_and_the_one_that_replaces_it_count_once() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 5.0, OrderType.LIMIT, limit_price=9.0))
    fill(exposure, "1", 2.0)
    send(exposure, order("2", 8.0, OrderType.LIMIT, limit_price=9.5, replaces="1"))
    assert reach(exposure) == (2, 2 + 6)  # its 8 include the 2 that have filled
    fill(exposure, "1", 1.0)  # before the venue hears of the replacement
    assert reach(exposure) == (3, 3 + 5)
    assert update(exposure, "2", "ACCEPTED") == ""
    assert update(exposure, "1", "CANCELLED", 2.0) == ""
    assert reach(exposure) == (3, 3 + 5)


def test_a_refused_replacement_leaves_the_old_order_counted() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 5.0))
    send(exposure, order("2", 8.0, replaces="1"))
    assert update(exposure, "2", "REJECTED") == ""
    assert reach(exposure) == (0, 5)
    fill(exposure, "1", 5.0)
    assert update(exposure, "1", "FILLED") == ""
    assert (reach(exposure), exposure.orders) == ((5, 5), {})


def test_a_replacement_reduces_where_it_asks_for_no_more() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 5.0, OrderType.LIMIT, limit_price=9.0))
    limit = OrderType.LIMIT
    for quantity, price, reduces in ((5.0, 9.0, True), (4.0, 8.5, True), (4.0, 9.5, False), (6.0, 9.0, False)):
        sent = exposure.prepare(order("2", quantity, limit, limit_price=price, replaces="1"), 10.0)
        assert sent is not None
        assert exposure.reduces(sent) is reduces, (quantity, price)


def test_children_count_for_what_their_parent_has_filled() -> None:
    exposure = Exposure((A,))
    assert not send(exposure, order("1", 5.0))
    assert send(exposure, order("2", -5.0, OrderType.STOP, stop_price=8.0, parent="1", group="g"))
    assert send(exposure, order("3", -5.0, OrderType.LIMIT, limit_price=12.0, parent="1", group="g"))
    assert reach(exposure) == (0, 5)
    fill(exposure, "1", 2.0)
    assert reach(exposure) == (2 - 2, 5)
    fill(exposure, "1", 3.0)
    update(exposure, "1", "FILLED")
    assert reach(exposure) == (0, 5)
    fill(exposure, "3", -4.0)
    assert reach(exposure) == (1 - 1, 1)


def test_children_that_are_larger_than_their_parent_are_orders_of_their_own() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 5.0))
    assert not send(exposure, order("2", -6.0, parent="1"))
    exposure.remove("2")
    assert send(exposure, order("3", -3.0, parent="1"))
    send(exposure, order("4", -3.0, parent="1"))  # 3 and 3 are more than 5: an order of its own
    assert reach(exposure) == (-3, 5)
    assert not send(exposure, order("5", 1.0, parent="1"))  # on the same side
    assert not send(exposure, order("6", -5.0, parent="none"))


def test_a_child_of_a_parent_that_does_not_work_is_an_order_like_any_other() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", -5.0, parent="gone"))
    assert reach(exposure) == (-5, 0)


def test_a_reduce_only_order_reduces_and_counts_for_nothing() -> None:
    exposure = Exposure((A,))
    assert send(exposure, order("1", -5.0, reduce_only=True))
    assert reach(exposure) == (0, 0)
    fill(exposure, "1", -5.0)
    update(exposure, "1", "FILLED")
    assert (reach(exposure), exposure.orders) == ((-5, -5), {})


def test_a_reduce_only_child_counts_for_nothing_either() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 5.0))
    assert send(exposure, order("2", -5.0, OrderType.STOP, stop_price=8.0, parent="1", reduce_only=True))
    assert reach(exposure) == (0, 5)
    assert update(exposure, "2", "CANCELLED", 5.0) == ""
    assert list(exposure.orders) == ["1"]


def test_what_protects_a_position_does_not_stand_in_the_way_of_closing_it() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 5.0))
    send(exposure, order("2", -5.0, OrderType.STOP, stop_price=8.0, parent="1"))
    fill(exposure, "1", 5.0)
    update(exposure, "1", "FILLED")
    assert send(exposure, order("3", -5.0))
    assert reach(exposure) == (-5, 5)  # both may fill
    assert not send(exposure, order("4", -1.0))


def hold(exposure: Exposure, quantity: float) -> None:
    send(exposure, order("held", quantity))
    fill(exposure, "held", quantity)
    update(exposure, "held", "FILLED")


def test_a_sale_against_a_resting_buy_opens_a_short_and_does_not_reduce() -> None:
    for sign in (1.0, -1.0):
        exposure = Exposure((A,))
        send(exposure, order("deep", sign * 1_000.0, OrderType.LIMIT, limit_price=0.01 if sign > 0 else 1_000.0))
        assert not send(exposure, order("1", -sign * 1_000.0))


def test_a_sale_against_a_market_buy_on_its_way_reduces_unless_that_is_being_cancelled() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 5.0))
    assert send(exposure, order("2", -3.0))
    exposure.remove("2")
    exposure.cancel("1")
    assert not send(exposure, order("3", -3.0))


def test_a_sale_beside_a_reduce_only_one_opens_what_that_one_closes() -> None:
    for sign in (1.0, -1.0):
        exposure = Exposure((A,))
        hold(exposure, sign * 10.0)
        send(exposure, order("1", -sign * 10.0, reduce_only=True))
        assert not send(exposure, order("2", -sign * 4.0))
        low, high = sorted(exposure.holdings["A"].worst(10.0, 10.0))
        assert (low, high) == ((-40.0, 100.0) if sign > 0 else (-100.0, 40.0))


def test_a_reduce_only_order_that_has_ended_stands_in_nobodys_way() -> None:
    exposure = Exposure((A,))
    hold(exposure, 10.0)
    send(exposure, order("1", -10.0, OrderType.STOP, stop_price=8.0, reduce_only=True, group="g"))
    assert update(exposure, "1", "CANCELLED", 4.0) == ""  # cut by another of its group: no fill is owed
    assert send(exposure, order("2", -10.0))


def test_a_replacement_keeps_the_group_and_the_parent_of_what_it_replaces() -> None:
    exposure = Exposure((A,))
    limit = {"kind": OrderType.LIMIT, "limit_price": 9.0}
    send(exposure, order("1", 5.0, **limit, group="g"))
    send(exposure, order("2", 5.0, **limit))
    for terms in ({"group": "g"}, {"parent": "1"}):
        sent = exposure.prepare(order("3", -5.0, **limit, replaces="2", **terms), 10.0)
        assert sent is not None
        assert (sent.group, sent.parent) == ("", "")
        assert exposure.misled(sent).startswith("a replacement keeps the group '' and the parent ''")
    send(exposure, order("4", 5.0, **limit, replaces="1"))
    send(exposure, order("5", 5.0, **limit, group="g"))
    assert reach(exposure) == (0, 10)  # 1, 4 and 5 fill instead of each other
    send(exposure, order("6", 5.0, **limit, replaces="2", group="g"))
    send(exposure, order("7", 5.0, **limit, group="g"))
    assert reach(exposure) == (0, 10)


def test_a_plain_order_that_replaces_a_reduce_only_one_joins_its_group() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", -5.0, OrderType.STOP, stop_price=8.0, group="g"))
    send(exposure, order("2", -5.0, OrderType.LIMIT, limit_price=12.0, group="g", reduce_only=True))
    send(exposure, order("3", -5.0, OrderType.LIMIT, limit_price=13.0, replaces="2"))
    assert reach(exposure) == (-5, 0)
    for key in ("1", "2", "3"):
        exposure.remove(key)
    assert (reach(exposure), exposure._claims) == ((0, 0), {})


def test_an_order_of_another_symbol_is_neither_replaced_nor_a_parent() -> None:
    exposure = Exposure((A, Instrument(symbol="B", tick="0.01", lot="1")))
    send(exposure, order("1", 5.0))
    for terms in ({"replaces": "1"}, {"parent": "1"}):
        request = order("2", -5.0, **terms)
        request.symbol = "B"
        sent = exposure.prepare(request, 10.0)
        assert sent is not None
        assert "is of A, not of B" in exposure.misled(sent)
        assert not exposure.reduces(sent)
        exposure.add(sent)
        assert (reach(exposure), exposure.holdings["B"].sells) == ((0, 5), 5)
        exposure.remove("2")


def test_a_replacement_of_another_type_is_judged_as_an_order() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", -5.0, OrderType.LIMIT, limit_price=15.0))
    assert not send(exposure, order("2", -5.0, replaces="1"))


def test_a_protective_stop_may_be_tightened_for_what_is_held() -> None:
    exposure = Exposure((A,))
    hold(exposure, 10.0)
    stop = OrderType.STOP
    assert send(exposure, order("1", -10.0, stop, stop_price=8.0))
    assert send(exposure, order("2", -10.0, stop, stop_price=9.0, replaces="1"))
    assert not send(exposure, order("3", -11.0, stop, stop_price=9.0, replaces="2"))


def test_a_childs_replacement_counts_for_what_their_parent_has_filled() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 10.0))
    send(exposure, order("2", -10.0, OrderType.STOP, stop_price=8.0, parent="1"))
    fill(exposure, "1", 4.0)
    assert send(exposure, order("3", -10.0, OrderType.STOP, stop_price=9.0, replaces="2"))
    assert reach(exposure) == (0, 10)
    fill(exposure, "1", 6.0)
    update(exposure, "1", "FILLED")
    assert send(exposure, order("4", -10.0, OrderType.STOP, stop_price=9.5, replaces="3"))
    assert reach(exposure) == (0, 10)
    assert not send(exposure, order("5", -11.0, OrderType.STOP, stop_price=9.5, replaces="4"))


def test_an_order_that_might_open_more_than_it_closes_does_not_reduce() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", -5.0))
    fill(exposure, "1", -5.0)
    update(exposure, "1", "FILLED")
    send(exposure, order("2", 10.0))
    # 5 short and 10 being bought: selling 3 would bring +5 to +2, but if nothing is bought, -5 to -8.
    assert not send(exposure, order("3", -3.0))


def test_what_is_being_cancelled_may_still_fill_but_is_not_meant_to() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 2.0))
    fill(exposure, "1", 2.0)
    update(exposure, "1", "FILLED")
    send(exposure, order("2", -5.0))
    assert [sent.order_id for sent in exposure.cancel_all()] == ["2"]
    assert exposure.cancel_all() == []
    assert reach(exposure) == (-3, 2)
    assert send(exposure, order("3", -2.0))


def test_a_cancel_that_the_venue_refuses_is_told_and_the_order_counts_again() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 5.0))
    update(exposure, "1", "ACCEPTED")
    assert exposure.cancel("1")
    assert update(exposure, "1", "CANCEL_PENDING") == ""
    assert exposure.holdings["A"].firm_buys == 0
    assert update(exposure, "1", "ACCEPTED") == "the venue did not cancel order 1 of A"
    assert exposure.holdings["A"].firm_buys == 5
    assert exposure.cancel("1")
    assert not exposure.cancel("2")


def test_a_fill_and_the_update_that_tells_of_it_may_come_in_either_order() -> None:
    for first in ("fill", "update"):
        exposure = Exposure((A,))
        send(exposure, order("1", 5.0))
        steps = [lambda e=exposure: fill(e, "1", 5.0), lambda e=exposure: update(e, "1", "FILLED")]
        for step in steps if first == "fill" else reversed(steps):
            assert exposure.orders
            assert reach(exposure)[1] == 5
            assert step() == ""
        assert (reach(exposure), exposure.orders) == ((5, 5), {})


def test_an_order_that_ended_counts_until_the_fills_that_are_owed_have_come() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 5.0))
    assert update(exposure, "1", "CANCELLED", remaining=3.0) == ""  # so 2 were filled
    assert reach(exposure) == (0, 2)
    assert fill(exposure, "1", 2.0) == ""
    assert (reach(exposure), exposure.orders) == ((2, 2), {})


def test_what_cannot_be_is_told_and_counted_as_said() -> None:
    exposure = Exposure((A,))
    assert fill(exposure, "x", 2.0) == "BUY 2.0 A filled for order x, which does not work"
    send(exposure, order("1", 5.0))
    assert fill(exposure, "1", -1.0) == "SELL 1.0 A filled for order 1, which does not work"
    assert fill(exposure, "1", 6.0) == "6.0 A filled for order 1, of which 5.0 were open"
    assert held(exposure) == 2 - 1 + 6
    assert update(exposure, "1", "FILLED") == ""
    assert update(exposure, "1", "FILLED") == "order 1 of A is FILLED at the venue, but does not work"
    send(exposure, order("2", 5.0))
    update(exposure, "2", "ACCEPTED")
    assert update(exposure, "2", "REJECTED") == "order 2 is ACCEPTED, which REJECTED cannot follow"
    assert reach(exposure) == (7, 12)
    with pytest.raises(ValueError, match="want a multiple of the lot"):
        fill(exposure, "2", 0.5)


def test_a_triggered_or_cut_order_is_told_in_the_state_it_has() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 5.0))
    assert [update(exposure, "1", state) for state in ("ACCEPTED", "ACCEPTED", "PARTLY_FILLED", "PARTLY_FILLED")] == [
        ""
    ] * 4


def test_a_fee_in_the_base_currency_is_taken_out_of_what_is_held() -> None:
    exposure = Exposure((DOT,))
    send(exposure, order("1", 1.0))
    assert fill(exposure, "1", 1.0, base_fee=0.001) == ""
    assert held(exposure) == 9  # 0.999 are nine whole lots of 0.1
    update(exposure, "1", "FILLED")
    assert not send(exposure, order("2", -1.0))
    exposure.remove("2")
    assert send(exposure, order("3", -0.9))


def test_a_split_changes_what_is_held() -> None:
    exposure = Exposure((A,))
    send(exposure, order("1", 5.0))
    fill(exposure, "1", 5.0)
    exposure.holdings["A"].split(Fraction(3, 2))
    assert held(exposure) == 7


BUY, SELL = Side.BUY, Side.SELL


@pytest.mark.parametrize(
    ("kind", "side", "limit", "stop", "worth"),
    [
        ("MARKET", BUY, 0.0, 0.0, 10.0),
        ("LIMIT", BUY, 9.0, 0.0, 9.0),
        ("LIMIT", BUY, 11.0, 0.0, 11.0),
        ("LIMIT", SELL, 11.0, 0.0, 11.0),
        ("LIMIT", SELL, 0.01, 0.0, 10.0),  # reached: it brings at least the last price
        ("STOP", BUY, 0.0, 12.0, 12.0),
        ("STOP", BUY, 0.0, 8.0, 10.0),  # reached
        ("STOP", SELL, 0.0, 8.0, 8.0),
        ("STOP_LIMIT", BUY, 12.5, 12.0, 12.5),
        ("STOP_LIMIT", SELL, 7.5, 8.0, 8.0),
        ("MARKET_IF_TOUCHED", BUY, 0.0, 9.0, 9.0),
        ("MARKET_IF_TOUCHED", SELL, 0.0, 8.0, 10.0),  # reached
        ("TRAILING_STOP", SELL, 0.0, 0.0, 10.0),
    ],
)
def test_an_order_is_worth_its_own_price_where_it_has_one(
    kind: str, side: Side, limit: float, stop: float, worth: float
) -> None:
    quantity = 1.0 if side is BUY else -1.0
    assert own_price(order("1", quantity, OrderType[kind], limit_price=limit, stop_price=stop), 10.0) == worth


def possible(held_lots: int, requests: list[tuple[int, int, str]]) -> tuple[int, int]:
    """The lowest and highest position over everything that can fill: requests are (lots, parent index, group)."""
    positions = []
    for chosen in product((False, True), repeat=len(requests)):
        groups = [group for (_, _, group), fills in zip(requests, chosen, strict=True) if fills and group]
        asleep = any(
            fills and parent >= 0 and not chosen[parent] for (_, parent, _), fills in zip(requests, chosen, strict=True)
        )
        if len(groups) == len(set(groups)) and not asleep:
            positions.append(held_lots + sum(lots for (lots, _, _), f in zip(requests, chosen, strict=True) if f))
    return min(positions), max(positions)


LOTS = st.integers(1, 6).flatmap(lambda n: st.sampled_from((n, -n)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(LOTS, st.sampled_from(("", "", "g", "h")), st.booleans()), min_size=1, max_size=7), st.data())
def test_nothing_that_can_fill_goes_beyond_what_is_reckoned_with(
    wanted: list[tuple[int, str, bool]], data: st.DataObject
) -> None:
    exposure = Exposure((A,))
    requests: list[tuple[int, int, str]] = []
    for i, (lots, group, child) in enumerate(wanted):
        parents = [
            j for j, (has, above, _) in enumerate(requests) if above < 0 and has * lots < 0 <= abs(has) - abs(lots)
        ]
        parent = data.draw(st.sampled_from(parents)) if child and parents else -1
        group = f"{group}{parent}" if group else ""
        requests.append((lots, parent, group))
        send(exposure, order(str(i), float(lots), group=group, parent=str(parent) if parent >= 0 else ""))
    low, high = possible(0, requests)
    reckoned_low, reckoned_high = reach(exposure)
    assert reckoned_low <= low
    assert high <= reckoned_high
    if all(parent < 0 for _, parent, _ in requests):
        assert (reckoned_low, reckoned_high) == (low, high)


STEP = st.tuples(
    st.integers(0, 7), st.sampled_from(("send", "fill", "ACCEPTED", "FILLED", "CANCELLED", "cancel")), LOTS
)


@settings(max_examples=100, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_when_all_orders_have_ended_nothing_is_left_in_flight(steps: list[tuple[int, str, int]]) -> None:
    exposure, position, count = Exposure((A,)), 0, 0
    for pick, what, lots in steps:
        working = list(exposure.orders.values())
        some = working[pick % len(working)] if working else None
        if what == "send":
            count += 1
            terms = ({}, {"group": "g"}, {"parent": some.order_id} if some else {}, {"reduce_only": True})[pick % 4]
            if pick == 7 and some is not None:
                terms = {"replaces": some.order_id}
            request = order(str(count), float(lots), **terms)
            if exposure.prepare(request, 10.0) is not None:
                send(exposure, request)
        elif some is not None and what == "fill":
            position += some.sign * abs(lots)
            fill(exposure, some.order_id, float(some.sign * abs(lots)))
        elif some is not None and what == "cancel":
            exposure.cancel(some.order_id)
        elif some is not None:
            update(exposure, some.order_id, what, float(abs(lots)))
        holding = exposure.holdings["A"]
        assert holding.held == position
        assert min(holding.buys, holding.sells, holding.firm_buys, holding.firm_sells) >= 0
        assert min(holding.market_buys, holding.market_sells, holding.closing_buys, holding.closing_sells) >= 0
        assert holding.market_buys <= holding.firm_buys <= holding.buys + holding.closing_buys
        assert holding.market_sells <= holding.firm_sells <= holding.sells + holding.closing_sells
    for key in list(exposure.orders):
        exposure.remove(key)
    holding = exposure.holdings["A"]
    assert (holding.buys, holding.sells, holding.buys_value, holding.sells_value) == (0, 0, 0, 0)
    assert (holding.firm_buys, holding.firm_sells, holding.market_buys, holding.market_sells) == (0, 0, 0, 0)
    assert (holding.closing_buys, holding.closing_sells) == (0, 0)
    assert exposure._claims == {}
