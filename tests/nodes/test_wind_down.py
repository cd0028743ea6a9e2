"""A person asks a run to stop: the gate lets nothing pass, and the run ends when nothing works any more."""

from pathlib import Path
from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, values

from brokers.events import CancelRequest, Fill, Liquidity, OrderRequest, OrderState, OrderType, OrderUpdate
from brokers.opening import Opening, OpeningOrder
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.events import AlertLevel, RiskAction, RiskActionKind
from nodes.gate import risk_filter
from nodes.order_checks import CODES
from nodes.risk import RiskConfig, action_alert
from nodes.wind_down import CANCEL, KEEP, finished, wind_down

PAGE = (Path(__file__).parents[2] / "docs" / "concepts" / "risk.md").read_text()
A = Instrument(symbol="A", tick="0.01", lot="0.1")
STOP = (5.0, True)


def order(key: object, quantity: float = 10.0, **terms: Any) -> OrderRequest:
    terms = {"side": Side.BUY, "order_type": OrderType.LIMIT, "limit_price": 9.0} | terms
    return OrderRequest(order_id=str(key), symbol="A", quantity=quantity, **terms)


def fill(key: object, quantity: float) -> Fill:
    return Fill(
        market_time=T0, symbol="A", side=Side.BUY, quantity=quantity, price=9.0, fee=0.0, order_id=str(key),
        liquidity=Liquidity.MAKER,
    )  # fmt: skip


def update(key: object, state: str, remaining: float = 0.0, code: str = "") -> OrderUpdate:
    return OrderUpdate(
        order_id=str(key), symbol="A", state=OrderState[state], remaining=remaining, code=code, reason=""
    )


def test_the_first_stop_alone_asks_the_gate() -> None:
    ((when, action),) = run(lambda: wind_down(at((1.0, True), (2.0, True)), KEEP))
    assert (when, action.kind, action.code) == (T0 + SECOND, RiskActionKind.WIND_DOWN, "keep")


def test_another_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="on_stop must be cancel or keep, was 'drop'"):
        run(lambda: wind_down(at((1.0, True)), "drop"))


def test_no_limit_was_passed_so_the_monitor_says_nothing() -> None:
    action = RiskAction(kind=RiskActionKind.WIND_DOWN, code=CANCEL, value=1.0, limit=0.0)
    assert run(lambda: action_alert(at((1.0, action)))) == []


def gate(orders: Any, on_stop: str, actions: Any = (), **more: Any) -> Any:
    def graph() -> Any:
        asked = RiskAction(kind=RiskActionKind.WIND_DOWN, code=on_stop, value=1.0, limit=0.0)
        close = {"A": csp.const(10.0)}
        out = risk_filter(
            at(*orders, typ=OrderRequest),
            at(*more.get("cancels", ()), typ=CancelRequest),
            at(*more.get("fills", ()), typ=Fill),
            at(*more.get("updates", ()), typ=OrderUpdate),
            at((5.0, asked), (6.5, asked), *actions),
            csp.const(1_000.0),
            csp.const(1_000.0),
            close,
            close,
            (A,),
            RiskConfig(gross_exposure_max=None),
            False,
        )
        return {name: out[name] for name in ("approved", "refused", "cancel", "alert", "state")}

    return run(graph)


ORDERS = [(1.0, order(1)), (2.0, order(2, side=Side.SELL, limit_price=11.0)), (6.0, order(3, reduce_only=True))]


def test_to_cancel_takes_back_what_works_and_lets_nothing_pass() -> None:
    out = gate(ORDERS, CANCEL)
    assert [o.order_id for o in values(out["approved"])] == ["1", "2"]
    assert [(t, [c.order_id for c in cancels]) for t, cancels in out["cancel"]] == [(T0 + 5 * SECOND, ["1", "2"])]
    (refusal,) = [f"{u.code}: {u.reason}" for u in values(out["refused"])]
    assert refusal.partition(":")[0] in CODES
    assert f"\n{refusal}\n" in PAGE, refusal
    first = values(out["alert"])[0]
    assert (first.level, first.value) == (AlertLevel.INFO, 2.0)
    assert first.message == "the run winds down: 2 working orders are being cancelled, no order is sent any more"
    assert [state.name for state in values(out["state"])] == ["ACTIVE"]


def test_to_keep_leaves_what_works_and_lets_nothing_pass() -> None:
    out = gate(ORDERS, KEEP)
    assert out["cancel"] == []
    assert [u.code for u in values(out["refused"])] == ["stopping"]
    assert values(out["alert"])[0].message.startswith("the run winds down: 2 working orders stay at the venue")


def test_an_order_in_the_cycle_of_the_request_does_not_pass() -> None:
    out = gate([(5.0, order(1))], CANCEL)
    assert ([u.code for u in values(out["refused"])], out["approved"]) == (["stopping"], [])


def test_a_strategy_may_still_cancel() -> None:
    out = gate(ORDERS[:1], KEEP, cancels=[(6.0, CancelRequest(order_id="1", symbol="A"))])
    assert [[c.order_id for c in cancels] for cancels in values(out["cancel"])] == [["1"]]


def test_an_emergency_stop_takes_back_what_was_kept() -> None:
    stop = RiskAction(kind=RiskActionKind.EMERGENCY_STOP, code="drawdown", value=0.5, limit=0.3)
    out = gate([*ORDERS[:2], (8.0, order(4, reduce_only=True))], KEEP, [(7.0, stop)])
    assert [(t, [c.order_id for c in cancels]) for t, cancels in out["cancel"]] == [(T0 + 7 * SECOND, ["1", "2"])]
    assert [u.code for u in values(out["refused"])] == ["stopping"]


def end(
    orders: Any = (), updates: Any = (), fills: Any = (), *stops: Any, timeout_s: float = 5.0,
    on_stop: str = CANCEL, opening: Opening | None = None,
) -> list[tuple[float, bool]]:  # fmt: skip
    """(seconds, said) of `finished`."""
    out = run(
        lambda: finished(
            at(*(stops or (STOP,))),
            at(*orders, typ=OrderRequest),
            at(*updates, typ=OrderUpdate),
            at(*fills, typ=Fill),
            on_stop,
            timeout_s,
            opening,
        )
    )
    return [((when - T0).total_seconds(), said) for when, said in out]


def test_where_nothing_works_the_end_comes_at_once_and_once() -> None:
    assert end([], [], [], (5.0, True), (6.0, True)) == [(5.0, True)]


def test_without_a_stop_there_is_no_end() -> None:
    orders, updates = at((1.0, order(1))), at((2.0, update(1, "CANCELLED", 10.0)))
    assert run(lambda: finished(csp.null_ts(bool), orders, updates, csp.null_ts(Fill), CANCEL, 5.0, None)) == []


def test_the_end_waits_for_the_last_acknowledgement() -> None:
    orders = [(1.0, order(1)), (2.0, order(2))]
    updates = [(3.0, update(1, "ACCEPTED", 10.0)), (6.0, update(1, "CANCELLED", 10.0)), (7.0, update(2, "REJECTED"))]
    assert end(orders, updates) == [(7.0, True)]


def test_after_so_long_the_end_says_that_something_still_works() -> None:
    late = [(11.0, update(1, "CANCELLED", 10.0))]
    assert end([(1.0, order(1))], late, timeout_s=2.0) == [(7.0, False)]


def test_an_order_of_the_cycle_of_the_stop_is_waited_for() -> None:
    assert end([(5.0, order(1))], [(6.0, update(1, "REJECTED"))]) == [(6.0, True)]


def test_a_filled_order_works_until_its_last_fill_whichever_comes_first() -> None:
    orders = [(1.0, order(1))]
    assert end(orders, [(6.0, update(1, "FILLED"))], [(5.5, fill(1, 4.0)), (7.0, fill(1, 6.0))]) == [(7.0, True)]
    assert end(orders, [(7.0, update(1, "FILLED"))], [(5.5, fill(1, 4.0)), (6.0, fill(1, 6.0))]) == [(7.0, True)]


def test_a_cancelled_order_works_until_the_fills_it_still_owes() -> None:
    assert end([(1.0, order(1))], [(6.0, update(1, "CANCELLED", 7.0))], [(7.0, fill(1, 3.0))]) == [(7.0, True)]


def test_an_order_that_was_cut_owes_no_more_than_what_was_left() -> None:
    cut = [(2.0, update(1, "ACCEPTED", 4.0, "oco")), (6.0, update(1, "FILLED"))]
    assert end([(1.0, order(1))], cut, [(6.0, fill(1, 4.0))]) == [(6.0, True)]


def test_the_gates_refusal_of_a_used_id_ends_no_order() -> None:
    updates = [(2.0, update(1, "REJECTED", code="duplicate_id")), (6.0, update(1, "CANCELLED", 10.0))]
    assert end([(1.0, order(1))], updates) == [(6.0, True)]


def test_orders_of_the_opening_are_waited_for() -> None:
    working = OpeningOrder(
        order_id="old-1", symbol="A", side="BUY", order_type="LIMIT", quantity="10", remaining="4", limit_price="9"
    )
    opening = Opening(cash="0", orders=(working,))
    assert end(updates=[(6.0, update("old-1", "CANCELLED", 4.0))], opening=opening) == [(6.0, True)]
    filled = {"updates": [(6.0, update("old-1", "FILLED"))], "opening": opening}
    assert end(fills=[(7.0, fill("old-1", 4.0))], **filled) == [(7.0, True)]


def test_what_is_kept_is_not_waited_for_but_every_answer_is() -> None:
    working = OpeningOrder(
        order_id="old-1", symbol="A", side="BUY", order_type="LIMIT", quantity="10", remaining="4", limit_price="9"
    )
    kept: dict[str, Any] = {"on_stop": KEEP, "opening": Opening(cash="0", orders=(working,))}
    orders = [(1.0, order(1)), (1.0, order(2))]
    accepted = [(2.0, update(1, "ACCEPTED", 10.0)), (2.0, update(2, "PARTLY_FILLED", 4.0))]
    assert end(orders, accepted, **kept) == [(5.0, True)]
    # One that is not answered, a strategy's own cancel on its way, a fill that an ended order owes.
    assert end([*orders, (4.0, order(3))], [*accepted, (6.0, update(3, "ACCEPTED", 10.0))], **kept) == [(6.0, True)]
    leaving = [(4.0, update(1, "CANCEL_PENDING", 10.0)), (7.0, update(1, "CANCELLED", 10.0))]
    assert end(orders, accepted + leaving, **kept) == [(7.0, True)]
    filled = [*accepted, (4.0, update(1, "FILLED"))]
    assert end(orders, filled, [(8.0, fill(1, 10.0))], **kept) == [(8.0, True)]
    assert end(orders, accepted[:1], **kept) == [(10.0, False)]


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_timeout_is_refused(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout_s must be positive and finite"):
        end(timeout_s=timeout_s)


LIFE = st.tuples(
    st.integers(0, 9),  # sent
    st.lists(st.integers(1, 5), min_size=1, max_size=3),  # lots of its fills
    st.integers(0, 9),  # seconds from sent to its end
    st.integers(0, 9),  # to its last fill
    st.booleans(),  # whether it is filled whole
)


@settings(max_examples=50, deadline=None)
@given(st.lists(LIFE, max_size=6))
def test_the_end_is_the_last_thing_that_an_order_does(lives: list[Any]) -> None:
    orders, updates, fills, last = [], [], [], 5.0
    for key, (sent, lots, ended, filled, whole) in enumerate(lives):
        quantity = 0.1 * sum(lots) + (0.0 if whole else 0.3)
        orders.append((float(sent), order(key, quantity)))
        for number, each in enumerate(lots):
            when = sent + 0.25 + filled * (number + 1) / len(lots)
            fills.append((when, fill(key, 0.1 * each)))
        updates.append((sent + 0.5 + ended, update(key, *(("FILLED", 0.0) if whole else ("CANCELLED", 0.3)))))
        last = max(last, sent + 0.5 + ended, sent + 0.25 + filled)
    by_time = [sorted(points, key=lambda point: point[0]) for points in (orders, updates, fills)]
    # An order that is sent after the stop is none that a gate lets pass, but it would be waited for.
    sent_late = any(sent > 5 for sent, *_ in lives)
    (said,) = end(*by_time, timeout_s=100.0)
    assert said == (last, True) or (sent_late and said[1] and said[0] <= last)
