"""Closing what risk wants closed: what is ordered, and when no more is."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run

from brokers.events import CorporateAction, Fill, Liquidity, OrderState, OrderUpdate
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.close_out import close_out
from nodes.events import RiskAction, RiskActionKind

A = Instrument(symbol="A", tick="0.01", lot="0.1")
STOP = RiskAction(kind=RiskActionKind.EMERGENCY_STOP, code="drawdown", value=0.5, limit=0.3)


def halt(symbol: str, seconds: float) -> RiskAction:
    until = T0 + seconds * SECOND
    return RiskAction(
        kind=RiskActionKind.HALT_SYMBOL, code="symbol_loss", value=0.5, limit=0.3, symbol=symbol, until=until
    )


def fill(quantity: float, order_id: str = "own", base_fee: float = 0.0) -> Fill:
    return Fill(
        market_time=T0,
        symbol="A",
        side=Side.BUY if quantity > 0.0 else Side.SELL,
        quantity=abs(quantity),
        price=10.0,
        fee=0.0,
        order_id=order_id,
        liquidity=Liquidity.TAKER,
        base_fee=base_fee,
    )


def ended(order_id: str, state: OrderState, code: str = "") -> OrderUpdate:
    return OrderUpdate(order_id=order_id, symbol="A", state=state, remaining=0.0, code=code, reason="")


def closed(
    actions: Any, fills: Any = (), updates: Any = (), *, flatten: bool = True, splits: Any = (), instrument: Any = A
) -> list[tuple[float, str, float]]:
    """(seconds, order id, signed quantity) of what is ordered."""

    def graph() -> Any:
        edges = at(*actions, typ=RiskAction), at(*fills, typ=Fill), at(*updates, typ=OrderUpdate)
        return close_out(*edges, instrument, flatten, "r", at(*splits, typ=CorporateAction))

    return [
        ((when - T0).total_seconds(), o.order_id, o.quantity if o.side is Side.BUY else -o.quantity)
        for when, o in run(graph)
    ]


def test_a_stop_closes_what_is_held_once() -> None:
    fills = [(1.0, fill(2.0)), (2.0, fill(-0.5)), (11.0, fill(-1.5, "r-A-close-1"))]
    assert closed([(10.0, STOP)], fills) == [(10.0, "r-A-close-1", -1.5)]


def test_what_fills_while_it_is_being_cancelled_is_closed_as_well() -> None:
    fills = [(1.0, fill(2.0)), (11.0, fill(1.0)), (12.0, fill(-2.0, "r-A-close-1")), (13.0, fill(-1.0, "r-A-close-2"))]
    assert closed([(10.0, STOP)], fills) == [(10.0, "r-A-close-1", -2.0), (11.0, "r-A-close-2", -1.0)]


def test_nothing_is_closed_where_nothing_is_held_or_a_stop_freezes() -> None:
    assert closed([(10.0, STOP)]) == []
    assert closed([(10.0, STOP)], [(1.0, fill(2.0))], flatten=False) == []
    assert closed([(10.0, halt("B", 60.0))], [(1.0, fill(2.0))]) == []


def test_a_halt_of_the_symbol_closes_until_it_ends() -> None:
    fills = [(1.0, fill(-2.0)), (12.0, fill(2.0, "r-A-close-1")), (30.0, fill(1.0)), (61.0, fill(1.0))]
    assert closed([(10.0, halt("A", 60.0))], fills, flatten=False) == [
        (10.0, "r-A-close-1", 2.0),
        (30.0, "r-A-close-2", -1.0),
    ]


def test_a_closing_order_that_is_taken_back_is_sent_again_and_one_that_is_refused_is_not() -> None:
    fills = [(1.0, fill(2.0))]
    again = [(10.0, "r-A-close-1", -2.0), (11.0, "r-A-close-2", -2.0)]
    assert closed([(10.0, STOP)], fills, [(11.0, ended("r-A-close-1", OrderState.CANCELLED))]) == again
    assert closed([(10.0, STOP)], fills, [(11.0, ended("r-A-close-1", OrderState.REJECTED))]) == again[:1]


def test_a_stop_during_a_halt_sends_the_close_that_the_gate_takes_back_again() -> None:
    actions = [(10.0, halt("A", 3_600.0)), (11.0, STOP)]
    updates = [(12.0, ended("r-A-close-1", OrderState.CANCELLED))]
    assert closed(actions, [(1.0, fill(2.0))], updates) == [(10.0, "r-A-close-1", -2.0), (11.0, "r-A-close-2", -2.0)]


def test_a_refusal_is_no_end_what_fills_after_it_is_closed_with_the_rest() -> None:
    fills = [(1.0, fill(2.0)), (12.0, fill(1.0))]
    refused = [(11.0, ended("r-A-close-1", OrderState.REJECTED))]
    assert closed([(10.0, STOP)], fills, refused) == [(10.0, "r-A-close-1", -2.0), (12.0, "r-A-close-2", -3.0)]


def test_fees_in_base_units_are_counted_exactly() -> None:
    # 100 fills of 1 that pay 0.001 each leave 99.9; a lot short for each of them would be 90.
    coins = Instrument(symbol="A", tick="0.01", lot="0.1", fees_in="received", base_unit="0.001")
    fills = [(i / 10, fill(1.0, base_fee=0.001)) for i in range(100)]
    assert closed([(10.0, STOP)], fills, instrument=coins) == [(10.0, "r-A-close-1", -99.9)]


def test_a_split_counts_and_what_it_takes_back_is_sent_again_in_new_units() -> None:
    split = [(5.0, CorporateAction(symbol="A", split="2")), (6.0, CorporateAction(symbol="B", split="3"))]
    assert closed([(10.0, STOP)], [(1.0, fill(2.0))], splits=split) == [(10.0, "r-A-close-1", -4.0)]
    for state in (OrderState.CANCELLED, OrderState.REJECTED):
        taken_back = [(5.1, ended("r-A-close-1", state, "split"))]
        assert closed([(4.0, STOP)], [(1.0, fill(2.0))], taken_back, splits=split) == [
            (4.0, "r-A-close-1", -2.0),
            (5.1, "r-A-close-2", -4.0),
        ]


def test_a_position_that_the_strategy_left_by_itself_is_not_turned() -> None:
    # The close of 2 is on its way when the strategy's own stop sells them: reduce-only, it will find nothing to do.
    fills = [(1.0, fill(2.0)), (11.0, fill(-2.0))]
    assert closed([(10.0, STOP)], fills) == [(10.0, "r-A-close-1", -2.0)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 8))
def test_after_a_stop_holdings_and_what_is_ordered_always_add_up_to_nothing(lots: list[int], when: int) -> None:
    fills = [(float(i), fill(n / 10)) for i, n in enumerate(lots)]
    orders = closed([(when - 0.5, STOP)] if when else [(0.0, STOP)], fills)
    assert round(sum(lots) / 10 + sum(quantity for *_, quantity in orders), 9) == 0.0
