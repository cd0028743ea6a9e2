"""A run that begins with positions and working orders counts them as if it had made them itself."""

from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, at, run, values

from brokers.events import CancelRequest, Fill, Liquidity, OrderRequest, OrderState, OrderType, OrderUpdate
from brokers.ledger import Contract
from brokers.opening import Note, Opening, OpeningOrder, OpeningPosition
from feeds.events import Side
from feeds.instruments import Instrument
from nodes.close_out import close_out
from nodes.events import AlertLevel, RiskAction, RiskActionKind, TargetPosition
from nodes.exposure import Exposure
from nodes.gate import risk_filter
from nodes.in_flight import Holding
from nodes.opening import held_units, note_alerts, open_lots, value_at_cost, wanted_at_start
from nodes.orders import Flight, generate_orders
from nodes.risk import RiskConfig

A = Instrument(symbol="A", tick="0.01", lot="0.1")
B = Instrument(symbol="B", tick="0.01", lot="1", multiplier="10")
COIN = Instrument(symbol="COIN", tick="0.01", lot="0.001", base_unit="0.000001", fees_in="received")
STOP = RiskAction(kind=RiskActionKind.EMERGENCY_STOP, code="drawdown", value=0.5, limit=0.3)
REDUCE = RiskAction(kind=RiskActionKind.REDUCE_POSITIONS, code="gross_exposure", value=2.0, limit=1.0)
BUY, SELL = Side.BUY, Side.SELL
NOTES = (
    Note(code="adopted", symbol="A", message="order old-1 still works", value=4.0),
    Note(code="difference", symbol="", message="cash is not what the fills add up to", value=-1.5, level="CRITICAL"),
)


def holding(quantity: str, cost: str, symbol: str = "A") -> OpeningPosition:
    return OpeningPosition(symbol=symbol, quantity=quantity, cost=cost)


def working(
    key: str, side: str = "BUY", quantity: str = "10", remaining: str = "", symbol: str = "A", **terms: Any
) -> OpeningOrder:
    terms = {"order_type": "LIMIT", "limit_price": "9"} | terms
    remaining = remaining or quantity
    return OpeningOrder(order_id=key, symbol=symbol, side=side, quantity=quantity, remaining=remaining, **terms)


def opened(*parts: OpeningPosition | OpeningOrder, **more: Any) -> Opening:
    positions = tuple(part for part in parts if isinstance(part, OpeningPosition))
    orders = tuple(part for part in parts if isinstance(part, OpeningOrder))
    return Opening(cash="1000", positions=positions, orders=orders, **more)


def order(key: object, side: Side, quantity: float, **terms: Any) -> OrderRequest:
    terms = {"order_type": OrderType.MARKET, "symbol": "A"} | terms
    return OrderRequest(order_id=str(key), side=side, quantity=quantity, **terms)


def fill(key: object, side: Side, quantity: float, symbol: str = "A") -> Fill:
    return Fill(
        market_time=T0, symbol=symbol, side=side, quantity=quantity, price=10.0, fee=0.0, order_id=str(key),
        liquidity=Liquidity.TAKER,
    )  # fmt: skip


def update(key: object, state: str, remaining: float = 0.0) -> OrderUpdate:
    kind = OrderState[state]
    return OrderUpdate(order_id=str(key), symbol="A", state=kind, remaining=remaining, code="", reason="")


# --- the figures


def test_what_was_wanted_is_what_is_held_and_on_its_way() -> None:
    opening = opened(
        holding("2.3", "20"), working("1", remaining="1.2"), working("2", "SELL", "3"), holding("-0.0015", "-9", "COIN")
    )
    assert wanted_at_start(opening, A) == pytest.approx(2.3 + 1.2 - 3.0)
    assert wanted_at_start(opening, COIN) == -0.001  # whole lots, towards zero
    assert wanted_at_start(opening, B) == 0.0
    assert wanted_at_start(None, A) == 0.0
    assert value_at_cost(opening) == 1_011.0


def test_quantities_between_the_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="want a multiple of 1/10, the smallest quantity of A"):
        held_units(opened(holding("0.25", "1")), Contract(A))
    with pytest.raises(ValueError, match="want an order 1 of whole lots of 1/10"):
        open_lots(working("1", remaining="0.05"), Contract(A))


def test_every_note_is_an_alert_at_the_start() -> None:
    ((when, alerts),) = run(lambda: note_alerts(NOTES))
    assert when == T0
    assert [(a.level, a.source, a.symbol, a.message, a.value) for a in alerts] == [
        (AlertLevel.INFO, "opening", "A", "adopted: order old-1 still works", 4.0),
        (AlertLevel.CRITICAL, "opening", "", "difference: cash is not what the fills add up to", -1.5),
    ]
    assert run(lambda: note_alerts(())) == []


# --- the gate


def test_the_exposure_begins_with_what_is_held_and_works() -> None:
    exposure = Exposure((A, B), opened(holding("2", "20"), working("1", remaining="4"), working("2", "SELL", "6")))
    held = exposure.holdings["A"]
    assert (held.held, held.buys, held.sells) == (20, 40, 60)
    assert held.buys_value == 40 * 900
    assert [(sent.order_id, sent.state.name, sent.open_lots) for sent in exposure.orders.values()] == [
        ("1", "PARTLY_FILLED", 40),
        ("2", "ACCEPTED", 60),
    ]
    assert exposure.filled(fill("1", BUY, 4.0)) == exposure.updated(update("1", "FILLED")) == ""
    assert (held.held, held.buys) == (60, 0)
    assert exposure.filled(fill("2", SELL, 7.0)) == "7.0 A filled for order 2, of which 6.0 were open"


def test_a_working_order_is_worth_the_market_once_there_is_a_price() -> None:
    # A sale with a limit below the market is worth the market; an order without a price was worth nothing.
    exposure = Exposure((A,), opened(working("1", "SELL", "1"), working("2", order_type="MARKET", limit_price="0")))
    held = exposure.holdings["A"]
    assert (held.sells_value, held.buys_value) == (10 * 900, 0)
    exposure.price("A", 12.0)
    assert (held.sells_value, held.buys_value) == (10 * 1_200, 100 * 1_200)
    exposure.price("A", 15.0)
    assert held.buys_value == 100 * 1_200


def test_an_opening_of_another_symbol_is_refused() -> None:
    for part in (holding("1", "1", "GONE"), working("1", symbol="GONE")):
        with pytest.raises(ValueError, match="the account starts with GONE, which is none of A"):
            Exposure((A,), opened(part))


TERMS = st.sampled_from(
    [("LIMIT", "9", "0"), ("LIMIT", "11", "0"), ("STOP", "0", "11"), ("STOP", "0", "9"), ("STOP_LIMIT", "12", "11")]
)
SENT = st.tuples(st.sampled_from([BUY, SELL]), TERMS, st.integers(1, 50), st.integers(0, 49), st.booleans())


def counted(holding: Holding) -> dict[str, Any]:
    names = (
        "held", "buys", "buys_value", "sells", "sells_value", "firm_buys", "firm_sells", "market_buys", "market_sells",
        "closing_buys", "closing_sells",
    )  # fmt: skip
    return {name: getattr(holding, name) for name in names}


@settings(max_examples=200, deadline=None)
@given(st.lists(SENT, max_size=8), st.integers(-30, 30))
def test_an_exposure_that_is_interrupted_counts_as_one_that_is_not(sent: list[Any], before: int) -> None:
    whole = Exposure((A,))
    whole.holdings["A"].begin(before)
    orders = []
    for key, (side, (kind, limit, stop), lots, filled, reduce_only) in enumerate(sent):
        filled = min(filled, lots - 1)
        terms = {"limit_price": float(limit), "stop_price": float(stop), "reduce_only": reduce_only}
        request = order(key, side, lots / 10, order_type=OrderType[kind], **terms)
        prepared = whole.prepare(request, 10.0)
        assert prepared is not None
        whole.add(prepared)
        if filled:
            assert whole.filled(fill(key, side, filled / 10)) == ""
        quantities = {"quantity": f"{lots / 10}", "remaining": f"{(lots - filled) / 10}"}
        prices = {"limit_price": limit, "stop_price": stop}
        orders.append(
            OpeningOrder(
                order_id=str(key), symbol="A", side=side.name, order_type=kind, reduce_only=reduce_only,
                **quantities, **prices,
            )
        )  # fmt: skip
    held = whole.holdings["A"].held
    parts = [holding(f"{held / 10}", f"{held}")] if held else []
    again = Exposure((A,), opened(*parts, *orders))
    again.price("A", 10.0)
    assert counted(again.holdings["A"]) == counted(whole.holdings["A"])
    for key, one in whole.orders.items():
        assert again.cancel(key)
        whole.cancel(key)
        assert again.orders[key].open_lots == one.open_lots
    assert counted(again.holdings["A"]) == counted(whole.holdings["A"])


def gate(orders: Any, opening: Opening | None, config: RiskConfig | None = None, **more: Any) -> Any:
    def graph() -> Any:
        closes = {"A": csp.const(10.0), "B": csp.const(10.0)}
        out = risk_filter(
            at(*orders, typ=OrderRequest),
            at(*more.get("cancels", ()), typ=CancelRequest),
            at(*more.get("fills", ()), typ=Fill),
            at(*more.get("updates", ()), typ=OrderUpdate),
            at(*more.get("actions", ()), typ=RiskAction),
            csp.const(1_000.0),
            csp.const(1_000.0),
            closes,
            closes,
            (A, B),
            config or RiskConfig(gross_exposure_max=None),
            more.get("halted", False),
            opening=opening,
        )
        return {name: out[name] for name in ("approved", "refused", "cancel", "alert", "state")}

    return run(graph)


def passed(out: Any) -> list[str]:
    return [o.order_id for o in values(out["approved"])]


def test_the_gate_judges_an_order_by_what_is_held_and_works() -> None:
    opening = opened(holding("30", "300"), working("old-1", quantity="50"))
    orders = [(1.0, order(1, BUY, 30.0)), (2.0, order(2, BUY, 25.0)), (3.0, order(3, SELL, 30.0))]
    out = gate(orders, opening, RiskConfig(gross_exposure_max=1.0))
    assert passed(out) == ["2", "3"]  # 300 and 50 at 9 leave 250
    assert [u.code for u in values(out["refused"])] == ["gross_exposure"]


def test_the_gate_counts_a_working_sale_below_the_market_at_the_market() -> None:
    opening = opened(working("old-1", "SELL", "50"))  # at 9, which is 10 now
    orders = [(1.0, order(1, SELL, 51.0)), (2.0, order(2, SELL, 50.0))]
    assert passed(gate(orders, opening, RiskConfig(gross_exposure_max=1.0))) == ["2"]


def test_the_ids_of_working_orders_count_as_used_and_they_can_be_cancelled() -> None:
    opening = opened(working("old-1"))
    cancels = [(2.0, CancelRequest(order_id="old-1", symbol="A"))]
    out = gate([(1.0, order("old-1", BUY, 1.0))], opening, cancels=cancels)
    assert [u.code for u in values(out["refused"])] == ["duplicate_id"]
    assert [[c.order_id for c in requests] for requests in values(out["cancel"])] == [["old-1"]]


def test_what_works_from_the_start_fills_without_an_alert_and_a_stop_takes_it_back() -> None:
    opening = opened(working("old-1"), working("old-2"))
    fills, updates = [(1.0, fill("old-1", BUY, 10.0))], [(1.0, update("old-1", "FILLED"))]
    out = gate([], opening, fills=fills, updates=updates, actions=[(2.0, STOP)])
    assert [[c.order_id for c in requests] for requests in values(out["cancel"])] == [["old-2"]]
    assert len(out["alert"]) == 1


def test_books_that_could_not_be_settled_only_let_reducing_orders_pass_to_the_end() -> None:
    opening = opened(holding("30", "300"), clean=False)
    hold = RiskConfig(gross_exposure_max=None, reduce_hold_s=10.0)
    orders = [(1.0, order(1, BUY, 1.0)), (2.0, order(2, SELL, 1.0)), (50.0, order(3, BUY, 1.0))]
    out = gate(orders, opening, hold, actions=[(5.0, REDUCE)])
    assert passed(out) == ["2"]
    assert [u.code for u in values(out["refused"])] == ["reducing", "reducing"]
    assert [(t, s.name) for t, s in out["state"]] == [(T0, "REDUCING")]
    when, first = out["alert"][0]
    assert (when, first.level) == (T0, AlertLevel.CRITICAL)
    assert first.message == "trading is REDUCING for the whole run: what the account holds could not be settled"


def test_an_unreset_stop_comes_before_unsettled_books() -> None:
    out = gate([], opened(clean=False), halted=True)
    assert [s.name for s in values(out["state"])] == ["HALTED"]


def test_an_unreset_stop_takes_back_what_the_last_run_left_working() -> None:
    out = gate([], opened(working("old-1"), working("old-2", "SELL")), halted=True)
    assert [(t, [c.order_id for c in requests]) for t, requests in out["cancel"]] == [(T0, ["old-1", "old-2"])]
    assert values(out["alert"])[0].message.endswith("; 2 working orders are being cancelled")


# --- what makes orders


def target(quantity: float) -> TargetPosition:
    return TargetPosition(symbol="A", quantity=quantity, asof=T0)


def made(
    opening: Opening | None, targets: Any = (), fills: Any = (), updates: Any = (), actions: Any = ()
) -> list[Any]:
    """(seconds, signed quantity) of what is ordered."""
    out = run(
        lambda: generate_orders(
            at(*targets, typ=TargetPosition),
            at(*fills, typ=Fill),
            at(*updates, typ=OrderUpdate),
            at(*actions, typ=RiskAction),
            A,
            "r",
            opening=opening,
        )
    )
    return [((when - T0).total_seconds(), o.quantity if o.side is BUY else -o.quantity) for when, o in out]


def test_a_target_is_ordered_from_what_is_held_and_on_its_way() -> None:
    opening = opened(holding("3", "30"), working("old-1", remaining="2"))
    assert made(opening, [(1.0, target(6.0)), (2.0, target(5.0)), (3.0, target(-1.0))]) == [
        (1.0, 1.0),
        (2.0, -1.0),
        (3.0, -6.0),
    ]


def test_a_working_order_that_fills_is_no_surprise_and_one_that_ends_is_missed_by_the_next_target() -> None:
    opening = opened(holding("3", "30"), working("old-1", remaining="2"), working("old-2", "SELL", "1"))
    fills, updates = [(1.0, fill("old-1", BUY, 2.0))], [(2.0, update("old-2", "CANCELLED", 1.0))]
    assert made(opening, [(3.0, target(4.0))], fills, updates) == [(3.0, -1.0)]


def test_a_working_order_that_only_closes_is_not_followed_by_half_of_it_when_it_is_refused() -> None:
    refused = [(1.0, update("old-1", "REJECTED"))]
    for reduce_only, orders in ((True, []), (False, [(1.0, -1.0)])):
        opening = opened(holding("1", "10"), working("old-1", "SELL", "3", reduce_only=reduce_only))
        assert made(opening, updates=refused) == orders


def test_without_a_target_what_is_held_stays_as_it_is() -> None:
    # A stray fill is ordered back: what is beyond what is held was not wanted.
    assert made(opened(holding("3", "30")), fills=[(1.0, fill("?", BUY, 1.0))]) == [(1.0, -1.0)]
    assert made(opened(holding("-3", "-30"))) == []


@settings(max_examples=50, deadline=None)
@given(st.integers(-50, 50), st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=4), st.integers(-90, 90))
def test_a_flight_reaches_its_target_from_any_opening(held: int, sent: list[tuple[bool, int]], goal: int) -> None:
    orders = [working(str(key), "BUY" if buys else "SELL", f"{lots / 10}") for key, (buys, lots) in enumerate(sent)]
    parts = [holding(f"{held / 10}", f"{held}")] if held else []
    flight = Flight(A, opened(*parts, *orders))
    missing = flight.missing(goal)
    flight.sent("new", missing, closes=False)
    for key, (buys, lots) in enumerate(sent):
        flight.filled(fill(key, BUY if buys else SELL, lots / 10))
    if missing:
        flight.filled(fill("new", BUY if missing > 0 else SELL, abs(missing) / 10))
    assert (flight.units, flight.coming) == (goal, 0)


def test_what_is_held_from_the_start_is_closed_by_a_stop() -> None:
    opening = opened(holding("3", "30"), working("old-1", "SELL", "2"))
    out = run(
        lambda: close_out(
            at((1.0, STOP)), at((2.0, fill("old-1", SELL, 1.0)), typ=Fill), at(typ=OrderUpdate), A, True, "r",
            opening=opening,
        )
    )  # fmt: skip
    # The gate takes the sale back; what filled of it on the way is found by the venue, as the order only reduces.
    assert [((when - T0).total_seconds(), o.side, o.quantity, o.reduce_only) for when, o in out] == [
        (1.0, SELL, 3.0, True)
    ]


def test_an_empty_opening_changes_nothing() -> None:
    orders = [(float(n), order(n, BUY if n % 3 else SELL, float(n))) for n in range(1, 9)]
    assert gate(orders, Opening(cash="1000")) == gate(orders, None)
    targets = [(float(n), target(float(n % 4))) for n in range(9)]
    assert made(Opening(cash="0"), targets) == made(None, targets)
