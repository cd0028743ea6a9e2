"""The life of an order: what may follow what, and that nothing else does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.events import OrderState
from brokers.orders import ENDED, TransitionError, WorkingOrder, follow

WORKING = (OrderState.PENDING, OrderState.ACCEPTED, OrderState.PARTLY_FILLED, OrderState.CANCEL_PENDING)


def test_the_usual_life() -> None:
    order = WorkingOrder("1", 10)
    order.to(OrderState.PENDING)
    order.to(OrderState.ACCEPTED)
    order.filled(4)
    assert (order.state, order.open_lots) == (OrderState.PARTLY_FILLED, 6)
    order.filled(6)
    assert (order.state, order.open_lots, order.ended) == (OrderState.FILLED, 0, True)


def test_an_impossible_change_names_the_order_and_both_states() -> None:
    with pytest.raises(TransitionError, match="order 7 is FILLED, which CANCEL_PENDING cannot follow"):
        follow("7", OrderState.FILLED, OrderState.CANCEL_PENDING)


@pytest.mark.parametrize("ended", sorted(ENDED))
def test_nothing_follows_an_end(ended: OrderState) -> None:
    for state in OrderState:
        with pytest.raises(TransitionError):
            follow("1", ended, state)
    order = WorkingOrder("1", 10, ended)
    order.open_lots = 0
    with pytest.raises(TransitionError):
        order.filled(1)


@pytest.mark.parametrize("state", WORKING)
def test_a_working_order_may_fill_or_end_before_it_is_acknowledged(state: OrderState) -> None:
    for end in (OrderState.FILLED, OrderState.CANCELLED, OrderState.EXPIRED):
        assert follow("1", state, end) is end


def test_only_what_was_not_accepted_can_be_rejected() -> None:
    for state in (OrderState.NEW, OrderState.PENDING, OrderState.CANCEL_PENDING):  # its cancel may be sent before
        assert follow("1", state, OrderState.REJECTED) is OrderState.REJECTED
    for state in (OrderState.ACCEPTED, OrderState.PARTLY_FILLED):
        with pytest.raises(TransitionError):
            follow("1", state, OrderState.REJECTED)


def test_a_partial_fill_does_not_call_a_cancel_off() -> None:
    order = WorkingOrder("1", 10, OrderState.ACCEPTED)
    order.to(OrderState.CANCEL_PENDING)
    order.filled(3)
    assert (order.state, order.open_lots) == (OrderState.CANCEL_PENDING, 7)
    order.to(OrderState.CANCELLED)
    assert order.open_lots == 7


def test_a_cancel_that_the_venue_refuses_leaves_the_order_working() -> None:
    order = WorkingOrder("1", 10, OrderState.CANCEL_PENDING)
    order.to(OrderState.ACCEPTED)
    order.filled(10)
    assert order.state is OrderState.FILLED


def test_a_cut_takes_from_what_is_open_but_never_all() -> None:
    order = WorkingOrder("1", 10, OrderState.ACCEPTED)
    order.cut(4)
    assert (order.lots, order.open_lots) == (6, 6)
    with pytest.raises(ValueError, match="has 6 lots open, cannot be cut by 6"):
        order.cut(6)


@pytest.mark.parametrize("lots", [0, -1, 11])
def test_a_fill_of_nothing_or_of_too_much_is_refused(lots: int) -> None:
    order = WorkingOrder("1", 10, OrderState.ACCEPTED)
    with pytest.raises(ValueError, match=f"order 1 has 10 lots open, {lots} cannot fill"):
        order.filled(lots)
    assert (order.state, order.open_lots) == (OrderState.ACCEPTED, 10)


def test_an_order_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one lot, was of 0"):
        WorkingOrder("1", 0)


@given(st.lists(st.one_of(st.sampled_from(list(OrderState)), st.integers(1, 6)), max_size=20))
def test_whatever_is_tried_the_books_of_an_order_stay_true(tried: list[OrderState | int]) -> None:
    order = WorkingOrder("1", 10)
    order.to(OrderState.PENDING)
    filled, was_ended = 0, False
    for step in tried:
        before = (order.state, order.open_lots)
        try:
            if isinstance(step, OrderState):
                if step is OrderState.FILLED:
                    continue  # a fill says so
                order.to(step)
            else:
                order.filled(step)
                filled += step
        except ValueError:
            assert (order.state, order.open_lots) == before
        assert not was_ended or (order.state, order.open_lots) == before
        was_ended = order.ended
        assert order.open_lots == 10 - filled
        assert (order.state is OrderState.FILLED) == (filled == 10)
