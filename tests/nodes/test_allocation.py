"""Netting and sharing: exact to the lot and to the cent."""

from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import csp
import pytest
from csp import ts
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, values

from brokers.events import Fill, Liquidity, OrderRequest, OrderState, OrderUpdate
from brokers.ledger import Ledger
from feeds.events import Bar, Side, Trade
from feeds.instruments import Instrument
from nodes.allocation import RESIDUAL, Shares, allocate, net_target, shared
from nodes.events import RiskAction, RiskActionKind, StrategyFill, TargetPosition
from nodes.orders import generate_orders

A = Instrument(symbol="A", tick="0.01", lot="0.1", taker_bps=10.0)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        (10, [1, 1, 1], [4, 3, 3]),  # ties go to the earlier one
        (3, [2, 5], [1, 2]),  # 0.86 and 2.14
        (-3, [2, 5], [-1, -2]),
        (5, [-2, -8], [1, 4]),
        (2, [10, -6], [5, -3]),
        (0, [1, 2], [0, 0]),
    ],
)
def test_parts_are_rounded_by_the_largest_remainder(total: int, weights: list[int], parts: list[int]) -> None:
    assert shared(total, weights) == parts


@given(st.integers(-1_000, 1_000), st.lists(st.integers(-50, 50), min_size=1, max_size=8))
def test_parts_add_up_and_lie_next_to_their_exact_value(total: int, weights: list[int]) -> None:
    whole = sum(weights)
    if whole == 0:
        with pytest.raises(ValueError, match="add up to 0"):
            shared(total, weights)
        return
    parts = shared(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(total * weight, whole)) < 1


def told(shares: list[Any]) -> list[tuple[Any, ...]]:
    return [(s.strategy, s.lots, s.fee) + (("cross",) if s.crossed else ()) for s in shares]


def test_a_fill_goes_to_those_in_need_in_proportion_with_its_fee() -> None:
    shares = Shares(["x", "y"])
    shares.targets = {"x": 6, "y": 3}
    assert told(shares.fill(6, fee=7)) == [("x", 4, 5), ("y", 2, 2)]  # 4.67 and 2.33
    assert told(shares.fill(3, fee=-1)) == [("x", 2, -1), ("y", 1, 0)]  # a rebate of 0.67 and 0.33
    assert shares.units == {"x": 6, "y": 3, RESIDUAL: 0}


def test_those_who_stand_against_each_other_cross_at_the_fill_without_fee() -> None:
    # x wants 10, y sells 4 to it; the market brings 6.
    shares = Shares(["x", "y"])
    shares.targets = {"x": 10, "y": -4}
    assert told(shares.fill(6, fee=3)) == [("x", 6, 3), ("x", 4, 0, "cross"), ("y", -4, 0, "cross")]
    assert shares.units == {"x": 10, "y": -4, RESIDUAL: 0}


def test_a_partial_fill_crosses_everything_and_leaves_the_rest_of_the_order_outstanding() -> None:
    shares = Shares(["x", "y"])
    shares.targets = {"x": 10, "y": -4}
    assert told(shares.fill(2)) == [("x", 2, 0), ("x", 4, 0, "cross"), ("y", -4, 0, "cross")]
    assert shares.outstanding() == {"x": 4, "y": 0, RESIDUAL: 0}


def test_what_nobody_wanted_is_the_residual_books_and_the_next_order_closes_it() -> None:
    shares = Shares(["x"])
    assert told(shares.fill(5, fee=2)) == [(RESIDUAL, 5, 2)]
    shares.targets = {"x": 2}
    # The account holds 5 and wants 2: 3 are sold, and 2 change hands inside.
    assert told(shares.fill(-3, fee=1)) == [(RESIDUAL, -3, 1), ("x", 2, 0, "cross"), (RESIDUAL, -2, 0, "cross")]
    assert shares.units == {"x": 2, RESIDUAL: 0}


def test_a_fee_in_base_units_is_shared_by_lots_too() -> None:
    shares = Shares(["x", "y"], units_per_lot=100)
    shares.targets = {"x": 2, "y": 1}
    assert [(s.strategy, s.base_fee) for s in shares.fill(3, base_fee=1)] == [("x", 1), ("y", 0)]
    assert shares.units == {"x": 199, "y": 100, RESIDUAL: 0}
    assert shares.outstanding() == {"x": 0, "y": 0, RESIDUAL: 0}  # less than a lot is no order


@pytest.mark.parametrize(
    ("held", "targets", "total", "parts"),
    [
        ({"x": 6, "y": 3}, {"x": 6, "y": 3}, 0, {"x": 0, "y": 0}),
        ({"x": 6, "y": 3}, {"x": 6, "y": 3}, 3, {"x": 2, "y": 1}),
        ({"x": 10, "y": -6}, {"x": 10, "y": -6}, 2, {"x": 5, "y": -3}),  # half the net, half of each
        ({"x": 5, "y": -5}, {"x": 5, "y": -5}, 0, {"x": 0, "y": 0}),
        ({"x": 0, "y": 0}, {"x": 8, "y": 4}, 6, {"x": 4, "y": 2}),  # nothing held: the wishes are scaled
        ({"x": 2, "y": 0}, {"x": 3, "y": 0}, 5, {"x": 2, "y": 0}),  # nothing to scale: as it is
    ],
)
def test_an_overruled_net_target_is_shared(
    held: dict[str, int], targets: dict[str, int], total: int, parts: dict[str, int]
) -> None:
    shares = Shares(["x", "y"])
    shares.units |= held
    shares.targets = dict(targets)
    shares.force(total)
    assert shares.targets == parts


@pytest.mark.parametrize("names", [[], ["x", "x"], ["x", ""]])
def test_strategies_need_different_names(names: list[str]) -> None:
    with pytest.raises(ValueError, match="different names"):
        Shares(names)


@pytest.mark.parametrize(("lots", "base_fee"), [(0, 0), (-2, 1), (2, 3), (2, -1)])
def test_an_impossible_fill_is_refused(lots: int, base_fee: int) -> None:
    with pytest.raises(ValueError, match="want lots, and a base fee"):
        Shares(["x"]).fill(lots, base_fee=base_fee)


LOTS = st.integers(-40, 40)
STEPS = st.one_of(
    st.tuples(st.just("want"), st.lists(LOTS, min_size=3, max_size=3)),
    st.tuples(st.just("fill"), LOTS.filter(bool), st.integers(-9, 9), st.integers(0, 3)),
    st.tuples(st.just("cross")),
    st.tuples(st.just("force"), LOTS),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=30), st.sampled_from([1, 10]))
def test_the_books_always_add_up_to_the_account(steps: list[tuple[Any, ...]], units_per_lot: int) -> None:
    names = ["x", "y", "z"]
    coin = Instrument(symbol="A", tick="0.01", lot="1", base_unit="1" if units_per_lot == 1 else "0.1")
    books = {name: Ledger([coin], 0.0) for name in (*names, RESIDUAL)}
    account = Ledger([coin], 0.0)
    fee_unit = account.contracts["A"].fee_unit
    shares = Shares(names, units_per_lot)
    for ticks, (what, *arguments) in enumerate(steps, start=100):
        given_out = []
        if what == "want":
            shares.targets = dict(zip(names, arguments[0], strict=True))
        elif what == "force":
            shares.force(arguments[0])
        elif what == "cross":
            given_out = shares.cross()
        else:
            lots, fee, base_fee = arguments[0], arguments[1], arguments[2] if arguments[0] > 0 else 0
            base_fee = min(base_fee, lots * units_per_lot)
            base_fee = max(base_fee, 0)
            given_out = shares.fill(lots, fee, base_fee)
            account.book("A", lots, ticks, fee * fee_unit, base_fee)
            assert all(s.lots * lots > 0 for s in given_out if not s.crossed)
        for share in given_out:
            assert share.lots
            assert not (share.crossed and (share.fee or share.base_fee))
            books[share.strategy].book("A", share.lots, ticks, share.fee * fee_unit, share.base_fee)
        if what in ("fill", "cross"):
            assert not shares.opposed()
        assert {name: book.positions["A"].units for name, book in books.items()} == shares.units
        assert sum(shares.units.values()) == account.positions["A"].units
        assert sum(book.cash["USD"] for book in books.values()) == account.cash["USD"]
        assert sum(book.positions["A"].fees for book in books.values()) == account.positions["A"].fees


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=20), st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_when_the_account_is_forced_flat_every_book_ends_flat(steps: list[tuple[Any, ...]], pieces: list[int]) -> None:
    shares = Shares(["x", "y", "z"])
    for what, *arguments in steps:
        if what == "want":
            shares.targets = dict(zip(shares.names, arguments[0], strict=True))
        elif what == "fill":
            shares.fill(arguments[0])
        elif what == "cross":
            shares.cross()
        else:
            shares.force(arguments[0])
    shares.force(0)
    left = -sum(shares.units.values())
    for piece in [*pieces, 10_000]:  # the market closes the account in pieces
        lots = max(-piece, min(piece, left))
        if lots:
            shares.fill(lots)
            left -= lots
    shares.cross()
    assert set(shares.units.values()) == {0}


# --- nodes ------------------------------------------------------------------------------------------------------------


def target(quantity: float) -> TargetPosition:
    return TargetPosition(symbol="A", quantity=quantity, asof=T0)


def bar(close: datetime, open_: float) -> Bar:
    return Bar(
        symbol="A", event_time=close, open_time=close - HOUR, open=open_, high=open_, low=open_, close=open_, volume=0.0
    )


def fill(quantity: float, price: float = 10.0, fee: float = 0.0, order_id: str = "o") -> Fill:
    return Fill(
        market_time=T0,
        symbol="A",
        side=Side.BUY if quantity > 0 else Side.SELL,
        quantity=abs(quantity),
        price=price,
        fee=fee,
        order_id=order_id,
        liquidity=Liquidity.TAKER,
    )


def signed(f: StrategyFill) -> float:
    return f.quantity if f.side is Side.BUY else -f.quantity


def allocated(
    wishes: dict[str, Any],
    fills: Any = (),
    *,
    bars: Any = (),
    trades: Any = (),
    updates: Any = (),
    actions: Any = (),
    limited: Any = None,
    halted: bool = False,
) -> list[tuple[float, list[tuple[str, float, float, float, str]]]]:
    """(seconds, [(strategy, signed quantity, price, fee, order id)]) of every tick."""

    def graph() -> Any:
        targets = {name: at(*points, typ=TargetPosition) for name, points in wishes.items()}
        net = net_target(targets, A) if limited is None else at(*limited, typ=TargetPosition)
        told = at(*updates, typ=OrderUpdate)
        market = at(*bars, typ=Bar), at(*trades, typ=Trade)
        return allocate(at(*fills, typ=Fill), told, targets, net, *market, at(*actions, typ=RiskAction), A, halted)

    return [
        ((t - T0) / SECOND, [(f.strategy, signed(f), f.price, f.fee, f.order_id) for f in fills])
        for t, fills in run(graph)
    ]


def test_the_net_target_is_the_sum_and_ticks_with_every_wish() -> None:
    x = at((0.0, target(2.0)), (1.0, target(0.3)), (2.0, target(0.1)))
    y = at((0.0, target(-0.5)), (2.0, target(-0.3)), (3.0, target(-0.3)))
    out = run(lambda: net_target({"x": x, "y": y}, A))
    assert [(t, n.quantity) for t, n in out] == [
        (T0, 1.5),
        (T0 + SECOND, -0.2),
        (T0 + 2 * SECOND, -0.2),
        (T0 + 3 * SECOND, -0.2),
    ]


def test_a_wish_off_the_lot_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the lot of A"):
        run(lambda: net_target({"x": at((0.0, target(0.05)))}, A))


def test_a_fill_is_shared_with_its_fee_in_cents() -> None:
    wishes = {"x": [(0.0, target(1.0))], "y": [(0.0, target(0.5))], "z": [(0.0, target(-0.4))]}
    assert allocated(wishes, [(1.0, fill(1.1, 10.0, 0.03))]) == [
        (
            1.0,
            [
                ("x", 0.7, 10.0, 0.02, "o"),
                ("y", 0.4, 10.0, 0.01, "o"),
                ("x", 0.3, 10.0, 0.0, ""),
                ("y", 0.1, 10.0, 0.0, ""),
                ("z", -0.4, 10.0, 0.0, ""),
            ],
        )
    ]


def test_a_fill_in_the_instant_of_a_new_target_belongs_to_the_old_one() -> None:
    wishes = {"x": [(0.0, target(1.0)), (1.0, target(-1.0))], "y": [(0.0, target(0.0)), (1.0, target(1.0))]}
    assert allocated(wishes, [(1.0, fill(1.0)), (1.0, fill(-0.5))]) == [
        (1.0, [("x", 1.0, 10.0, 0.0, "o")]),
        (1.0, [(RESIDUAL, -0.5, 10.0, 0.0, "o")]),
    ]


HOUR_S = 3_600.0


def test_wishes_that_cancel_out_cross_at_the_next_open_not_at_the_close_that_caused_them() -> None:
    wishes = {"x": [(0.0, target(2.0))], "y": [(0.0, target(-2.0))]}
    bars = [(s * HOUR_S, bar(T0 + s * HOUR, 10.0 + s)) for s in range(4)]
    assert allocated(wishes, bars=bars) == [(HOUR_S, [("x", 2.0, 11.0, 0.0, ""), ("y", -2.0, 11.0, 0.0, "")])]


def test_wishes_made_inside_a_bar_wait_for_the_next_open() -> None:
    wishes = {"x": [(0.5 * HOUR_S, target(2.0))], "y": [(0.5 * HOUR_S, target(-2.0))]}
    bars = [(s * HOUR_S, bar(T0 + s * HOUR, 10.0 + s)) for s in range(4)]
    assert [(t, f[0][2]) for t, f in allocated(wishes, bars=bars)] == [(2 * HOUR_S, 12.0)]


def test_wishes_that_cancel_out_cross_at_the_next_trade() -> None:
    wishes = {"x": [(1.0, target(2.0))], "y": [(1.0, target(-2.0))]}
    trades = [
        (s, Trade(symbol="A", event_time=T0 + s * SECOND, price=10.0 + s, size=1.0)) for s in (0.0, 1.0, 1.5, 2.0)
    ]
    assert allocated(wishes, trades=trades) == [(1.5, [("x", 2.0, 11.5, 0.0, ""), ("y", -2.0, 11.5, 0.0, "")])]


def test_while_an_order_works_its_fill_is_waited_for() -> None:
    wishes = {"x": [(0.0, target(2.0))], "y": [(0.0, target(-0.5))]}
    bars = [(s * HOUR_S, bar(T0 + s * HOUR, 10.0 + s)) for s in range(1, 4)]
    out = allocated(wishes, [(2 * HOUR_S, fill(1.5, 12.01))], bars=bars)
    assert [(t, [f[:3] for f in fills]) for t, fills in out] == [
        (2 * HOUR_S, [("x", 1.5, 12.01), ("x", 0.5, 12.01), ("y", -0.5, 12.01)])
    ]


def test_where_the_net_order_was_refused_the_market_price_crosses() -> None:
    wishes = {"x": [(0.0, target(2.0))], "y": [(0.0, target(-0.5))]}
    refusal = OrderUpdate(
        order_id="o", symbol="A", state=OrderState.REJECTED, remaining=0.0, code="reducing", reason="no"
    )
    bars = [(s * HOUR_S, bar(T0 + s * HOUR, 10.0 + s)) for s in range(1, 4)]
    out = allocated(wishes, bars=bars, updates=[(0.05, refusal)])
    assert [(t, [f[:3] for f in fills]) for t, fills in out] == [(HOUR_S, [("x", 0.5, 11.0), ("y", -0.5, 11.0)])]


STOP = RiskAction(kind=RiskActionKind.EMERGENCY_STOP, code="drawdown", value=0.5, limit=0.3)
HALT = RiskAction(
    kind=RiskActionKind.HALT_SYMBOL, code="symbol_loss", value=2.0, limit=1.0, symbol="A", until=T0 + 2 * HOUR
)


@pytest.mark.parametrize("action", [STOP, HALT])
def test_books_that_cancel_out_are_closed_when_risk_closes_the_account(action: RiskAction) -> None:
    # The account is flat all the time; x and y are not, and are told nothing by a net target of 0.
    wishes = {"x": [(0.0, target(2.0))], "y": [(0.0, target(-2.0))]}
    bars = [(s * HOUR_S, bar(T0 + s * HOUR, 10.0 + s)) for s in range(1, 4)]
    limited = [(0.0, target(0.0)), (HOUR_S + 1.0, target(0.0))]
    out = allocated(wishes, bars=bars, actions=[(HOUR_S + 1.0, action)], limited=limited)
    assert [(t, [f[:3] for f in fills]) for t, fills in out] == [
        (HOUR_S, [("x", 2.0, 11.0), ("y", -2.0, 11.0)]),
        (3 * HOUR_S, [("x", -2.0, 13.0), ("y", 2.0, 13.0)]),
    ]


def test_while_a_halt_lasts_wishes_that_cancel_out_open_nothing() -> None:
    wishes = {"x": [(10.0, target(2.0))], "y": [(10.0, target(-2.0))]}
    bars = [(s * HOUR_S, bar(T0 + s * HOUR, 10.0 + s)) for s in range(1, 4)]
    assert allocated(wishes, bars=bars, actions=[(0.0, HALT)]) == []


@pytest.mark.parametrize("y", [-2.0, -1.0], ids=["cancel out", "net refused"])
def test_in_an_account_that_was_never_reset_the_strategies_do_not_trade_with_each_other(y: float) -> None:
    wishes = {"x": [(0.0, target(2.0))], "y": [(0.0, target(y))]}
    refusal = OrderUpdate(
        order_id="o", symbol="A", state=OrderState.REJECTED, remaining=0.0, code="halted", reason="no"
    )
    bars = [(s * HOUR_S, bar(T0 + s * HOUR, 10.0 + s)) for s in range(1, 4)]
    assert allocated(wishes, bars=bars, updates=[(0.05, refusal)])
    assert allocated(wishes, bars=bars, updates=[(0.05, refusal)], halted=True) == []


def test_a_reduction_of_the_net_target_is_shared_by_position() -> None:
    wishes = {"x": [(0.0, target(0.6))], "y": [(0.0, target(0.3))]}
    fills = [(1.0, fill(0.9)), (3.0, fill(-0.6))]
    out = allocated(wishes, fills, limited=[(0.0, target(0.9)), (2.0, target(0.3))])
    assert [[f[:2] for f in fills] for _, fills in out] == [[("x", 0.6), ("y", 0.3)], [("x", -0.4), ("y", -0.2)]]


@pytest.mark.parametrize("bad", [fill(0.05), fill(0.1, fee=0.001)], ids=["off the lot", "off the cent"])
def test_a_fill_off_its_steps_stops_the_engine(bad: Fill) -> None:
    with pytest.raises(ValueError, match="want a multiple of the"):
        allocated({"x": [(0.0, target(1.0))]}, [(1.0, bad)])


@csp.node
def bar_venue(order: ts[OrderRequest], bar: ts[Bar], part: float) -> ts[Fill]:
    """Fills a part of the oldest order at the open of each bar, for a fee of 7 cents."""
    with csp.state():
        s_orders = list[list[Any]]()

    if csp.ticked(bar) and s_orders:
        request, left = s_orders[0]
        done = left if left <= 0.1 else round(max(1, int(left * 10 * part)) / 10, 1)
        s_orders[0][1] = round(left - done, 1)
        if s_orders[0][1] <= 0.0:
            s_orders.pop(0)
        csp.output(fill(done if request.side is Side.BUY else -done, bar.open, 0.07, request.order_id))
    if csp.ticked(order):
        s_orders.append([order, order.quantity])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from(["x", "y", "z"]), st.integers(-20, 20)), min_size=1, max_size=12
    ),
    st.sampled_from([0.3, 1.0]),
    st.integers(5, 25),
    st.booleans(),
)
def test_in_the_graph_the_books_add_up_and_a_stop_closes_them_all(
    wishes: list[tuple[int, str, int]], part: float, stop: int, on_the_net: bool
) -> None:
    names = ("x", "y", "z")
    points: dict[str, dict[float, TargetPosition]] = {name: {} for name in names}
    for minute, name, lots in wishes:
        if minute < stop:
            points[name][minute * HOUR_S] = target(lots / 10)
    nothing = (stop * HOUR_S, target(0.0))  # what risk makes of each wish, or of their sum
    if not on_the_net:
        for name in names:
            points[name] |= [nothing]
    bars = [(m * HOUR_S, bar(T0 + m * HOUR, 10.0 + m % 7)) for m in range(1, 120)]

    def graph() -> Any:
        targets = {name: at(*sorted(points[name].items()), typ=TargetPosition) for name in names}
        market = at(*bars)
        action = at((stop * HOUR_S, STOP))
        net = csp.flatten([net_target(targets, A), at(*[nothing] * on_the_net, typ=TargetPosition)])
        filled = csp.feedback(Fill)
        order = generate_orders(net, filled.out(), csp.null_ts(OrderUpdate), csp.null_ts(RiskAction), A, "run")
        venue = bar_venue(order, market, part)
        filled.bind(venue)
        no_trades = csp.null_ts(Trade)
        told = allocate(venue, csp.null_ts(OrderUpdate), targets, net, market, no_trades, action, A)
        return {"account": venue, "books": told}

    out = run(graph, seconds=200 * HOUR_S)
    books = dict.fromkeys((*names, RESIDUAL), 0)
    cents = 0
    for _, shares in out["books"]:
        for f in shares:
            books[f.strategy] += round(signed(f) * 10)
            cents += round(f.fee * 100)
    held = sum(round((f.quantity if f.side is Side.BUY else -f.quantity) * 10) for f in values(out["account"]))
    assert sum(books.values()) == held == 0
    assert set(books.values()) == {0}
    assert cents == sum(round(f.fee * 100) for f in values(out["account"]))
