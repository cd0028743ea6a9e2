"""One strategy among several: its books and its limits."""

import math
from datetime import timedelta
from itertools import pairwise
from typing import Any

import csp
import pytest
from csp import ts
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, ticks, values

from brokers.events import Fill, Liquidity, OrderRequest, OrderUpdate
from brokers.ledger import Ledger
from feeds.events import Bar, Side, Trade
from feeds.instruments import Instrument
from nodes.allocation import allocate, net_target
from nodes.events import PositionUpdate, RiskActionKind, StrategyFill, TargetPosition
from nodes.orders import generate_orders
from nodes.portfolio import portfolio
from nodes.strategies import StrategyLimits, strategy_book, strategy_guard

A = Instrument(symbol="A", tick="0.01", lot="0.1")
B = Instrument(symbol="B", tick="0.01", lot="0.1")
DAY_S = 86_400.0


def fill(strategy: str, symbol: str, quantity: float, price: float, fee: float = 0.0) -> StrategyFill:
    return StrategyFill(
        strategy=strategy,
        symbol=symbol,
        side=Side.BUY if quantity > 0 else Side.SELL,
        quantity=abs(quantity),
        price=price,
        fee=fee,
        order_id="",
    )


def test_a_book_holds_its_own_fills_alone_and_its_mark_is_its_profit() -> None:
    fills = at(
        (1.0, fill("x", "A", 2.0, 10.0, 0.03)),
        (2.0, fill("y", "A", 5.0, 10.0)),
        (4.0, fill("x", "A", -1.0, 12.0, 0.02)),
    )

    def graph() -> Any:
        books = strategy_book(fills, "x", {"A": at((0.0, 10.0), (3.0, 11.0))}, (A,))
        return {"position": books.position, "profit": books.equity}

    out = run(graph)
    assert [(t, p.quantity, p.average_price, p.realised, p.fees) for t, p in out["position"]] == [
        (T0 + SECOND, 2.0, 10.0, 0.0, 0.03),
        (T0 + 4 * SECOND, 1.0, 10.0, 2.0, 0.05),
    ]
    assert [(t, round(profit, 9)) for t, profit in out["profit"]] == [
        (T0, 0.0),
        (T0 + SECOND, -0.03),
        (T0 + 3 * SECOND, 1.97),
        (T0 + 4 * SECOND, 2.95),
    ]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["x", "y", ""]),
            st.sampled_from(["A", "B"]),
            st.integers(-30, 30).filter(bool),
            st.integers(100, 2_000),
            st.integers(-5, 9),
        ),
        min_size=1,
        max_size=15,
    )
)
def test_the_profits_of_all_books_are_the_accounts(rows: list[tuple[str, str, int, int, int]]) -> None:
    fills = [
        (float(i), fill(name, symbol, lots / 10, ticks / 100, cents / 100))
        for i, (name, symbol, lots, ticks, cents) in enumerate(rows)
    ]
    closes = {"A": 7.0, "B": 3.0}

    def graph() -> Any:
        prices = {symbol: csp.const(price) for symbol, price in closes.items()}
        return {name or "rest": strategy_book(at(*fills), name, prices, (A, B)).equity for name in ("x", "y", "")}

    out = run(graph)
    account = Ledger([A, B], 0.0)
    for _, symbol, lots, price, cents in rows:
        account.book(symbol, lots, price, cents * account.contracts[symbol].fee_unit)
    expected = account.money(account.equity({symbol: round(price * 100) for symbol, price in closes.items()}))
    assert sum(profit[-1][1] for profit in out.values()) == pytest.approx(expected, abs=1e-9)


def test_a_fill_off_the_tick_stops_the_engine() -> None:
    with pytest.raises(ValueError, match="multiple of the tick of A"):
        run(lambda: strategy_book(at((0.0, fill("x", "A", 1.0, 10.001))), "x", {"A": csp.const(1.0)}, (A,)).equity)


def position(quantity: float, net: float, symbol: str = "A") -> PositionUpdate:
    return PositionUpdate(symbol=symbol, quantity=quantity, average_price=1.0, realised=net + 0.5, fees=0.5)


def guarded(
    limits: StrategyLimits, wishes: Any, profits: Any = ((0.0, 0.0),), positions: Any = (), seconds: float = 10 * DAY_S
) -> Any:
    """{symbol: [(seconds, quantity)]} and [(seconds, code, value, limit, seconds of the end)]."""

    def graph() -> Any:
        targets = {
            symbol: at(
                *[(s, TargetPosition(symbol=symbol, quantity=q, asof=T0)) for s, q in points], typ=TargetPosition
            )
            for symbol, points in wishes.items()
        }
        marks, held = at(*profits, typ=float), at(*positions, typ=PositionUpdate)
        guard = strategy_guard(targets, marks, held, "x", 1_000.0, (A, B), limits)
        return {"action": guard.action, **{symbol: guard.targets[symbol] for symbol in wishes}}

    out = run(graph, seconds=seconds)
    actions = out.pop("action")
    assert all(a.kind is RiskActionKind.HALT_STRATEGY and a.strategy == "x" for a in values(actions))
    return (
        {symbol: [((t - T0) / SECOND, target.quantity) for t, target in points] for symbol, points in out.items()},
        [((t - T0) / SECOND, a.code, round(a.value, 9), a.limit, (a.until - T0) / SECOND) for t, a in actions],
    )


def test_without_a_breach_every_target_passes() -> None:
    wishes = {"A": [(0.0, 1.0), (1.0, 0.0)], "B": [(1.0, -2.0)]}
    assert guarded(StrategyLimits(loss_max=0.1), wishes, [(0.0, 0.0), (2.0, -100.0)]) == (wishes, [])


def test_a_loss_sends_the_strategy_to_rest_and_what_it_wants_by_then_comes_back() -> None:
    limits = StrategyLimits(loss_max=0.1, cool_down_s=60.0)
    wishes = {"A": [(0.0, 1.0), (5.0, 3.0)], "B": [(0.0, -2.0), (6.0, 0.0), (70.0, 1.0)]}
    passed, actions = guarded(limits, wishes, [(0.0, 0.0), (2.0, -101.0), (3.0, -500.0)])
    assert actions == [(2.0, "strategy_loss", 0.101, 0.1, 62.0)]
    assert passed == {"A": [(0.0, 1.0), (2.0, 0.0), (62.0, 3.0)], "B": [(0.0, -2.0), (2.0, 0.0), (70.0, 1.0)]}


def test_a_target_in_the_cycle_of_the_breach_does_not_pass() -> None:
    passed, _ = guarded(StrategyLimits(loss_max=0.1), {"A": [(2.0, 1.0)]}, [(2.0, -101.0)], seconds=60.0)
    assert passed == {"A": [(2.0, 0.0)]}


def test_a_loss_is_counted_from_the_end_of_the_last_rest() -> None:
    limits = StrategyLimits(loss_max=0.1, loss_since="start", cool_down_s=60.0)
    profits = [(1.0, -101.0), (30.0, -150.0), (70.0, -250.0), (80.0, -251.0)]
    _, actions = guarded(limits, {"A": [(0.0, 1.0)]}, profits)
    assert [a[:3] for a in actions] == [(1.0, "strategy_loss", 0.101), (80.0, "strategy_loss", 0.101)]


MIDNIGHT_S = 9.5 * 3_600.0  # T0 is 14:30


def test_a_days_loss_is_forgotten_at_midnight_and_one_since_the_start_is_not() -> None:
    profits = [(0.0, 0.0), (MIDNIGHT_S - 1.0, -80.0), (MIDNIGHT_S + 1.0, -110.0), (MIDNIGHT_S + 2.0, -181.0)]
    for since, when in (("day", 2.0), ("start", 1.0)):
        _, actions = guarded(StrategyLimits(loss_max=0.1, loss_since=since), {"A": [(0.0, 1.0)]}, profits)
        assert [a[0] for a in actions] == [MIDNIGHT_S + when]


def test_too_many_losses_in_a_row_send_the_strategy_to_rest_and_are_forgotten_after_it() -> None:
    limits = StrategyLimits(losses_in_row_max=2, cool_down_s=10.0)
    trips = [
        (1.0, 1.0, 0.0),
        (2.0, 0.0, -1.0),
        (3.0, 1.0, -1.0),
        (4.0, 0.0, -2.0),
        (20.0, 1.0, -2.0),
        (21.0, 0.0, -3.0),
    ]
    passed, actions = guarded(limits, {"A": [(0.0, 1.0)]}, positions=[(s, position(q, n)) for s, q, n in trips])
    assert actions == [(4.0, "losses_in_row", 2.0, 2.0, 14.0)]
    assert passed == {"A": [(0.0, 1.0), (4.0, 0.0), (14.0, 1.0)]}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(-9, 9)), min_size=1, max_size=10, unique_by=lambda x: x[0]),
    st.lists(st.tuples(st.integers(0, 50), st.integers(-400, 400)), min_size=1, max_size=10, unique_by=lambda x: x[0]),
    st.integers(1, 30),
)
def test_while_it_rests_nothing_but_zero_passes_and_after_it_the_wish_holds(
    wishes: list[tuple[int, int]], profits: list[tuple[int, int]], rest: int
) -> None:
    limits = StrategyLimits(loss_max=0.1, cool_down_s=float(rest))
    wanted = [(float(s), float(q)) for s, q in sorted(wishes)]
    marks = [(float(s), float(p)) for s, p in sorted(profits)]
    passed, actions = guarded(limits, {"A": wanted}, marks)
    rests = [(start, end) for start, _, _, _, end in actions]
    assert all(first[1] <= second[0] for first, second in pairwise(rests))
    for when, quantity in passed["A"]:
        if any(start <= when < end for start, end in rests):
            assert quantity == 0.0
        else:
            assert quantity == [q for s, q in wanted if s <= when][-1]
    last = passed["A"][-1][1] if passed["A"] else 0.0
    assert last == wanted[-1][1]  # in the end it rests no more


@pytest.mark.parametrize("profit", [math.nan, math.inf, -math.inf])
def test_an_impossible_profit_stops_the_engine(profit: float) -> None:
    with pytest.raises(ValueError, match="profit of x must be finite"):
        guarded(StrategyLimits(loss_max=0.1), {"A": [(0.0, 1.0)]}, [(1.0, profit)])


@pytest.mark.parametrize("allocation", [0.0, -1.0, math.nan, math.inf])
def test_a_strategy_without_money_has_no_loss_to_measure(allocation: float) -> None:
    def graph() -> Any:
        targets = {"A": ticks(TargetPosition(symbol="A", quantity=1.0, asof=T0))}
        nothing = csp.null_ts(PositionUpdate)
        guard = strategy_guard(targets, csp.const(0.0), nothing, "x", allocation, (A,), StrategyLimits(loss_max=0.1))
        return guard.targets["A"]

    with pytest.raises(ValueError, match="allocation of x must be positive"):
        run(graph)


def test_limits_are_active_where_there_is_one() -> None:
    assert not StrategyLimits().active
    assert StrategyLimits(loss_max=0.1).active
    assert StrategyLimits(losses_in_row_max=3).active


@pytest.mark.parametrize(
    "bad",
    [
        {"loss_max": 0.0},
        {"loss_max": math.nan},
        {"loss_since": "yesterday"},
        {"losses_in_row_max": 0},
        {"cool_down_s": 0.0},
        {"cool_down_s": math.inf},
    ],
)
def test_impossible_limits_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        StrategyLimits(**bad)


def test_the_rest_ends_at_the_time_that_was_told() -> None:
    limits = StrategyLimits(loss_max=0.1, cool_down_s=3_600.0)
    _, actions = guarded(limits, {"A": [(0.0, 1.0)]}, [(1.5, -200.0)])
    assert actions[0][4] == timedelta(hours=1, seconds=1.5) / SECOND


@csp.node
def next_open(order: ts[OrderRequest], bar: ts[Bar]) -> ts[Fill]:
    """A venue that fills the last order whole, at the open of the next bar, for a cent."""
    with csp.state():
        s_order: OrderRequest | None = None

    if csp.ticked(bar) and s_order is not None:
        csp.output(
            Fill(
                market_time=bar.open_time,
                symbol=s_order.symbol,
                side=s_order.side,
                quantity=s_order.quantity,
                price=bar.open,
                fee=0.01,
                order_id=s_order.order_id,
                liquidity=Liquidity.TAKER,
            )
        )
        s_order = None
    if csp.ticked(order):
        s_order = order


def test_in_one_account_a_strategy_that_loses_rests_and_the_other_goes_on() -> None:
    # x buys 2.0 and y sells 0.5 of A: 1.5 go to the venue. The price falls, x loses 2 a point and is sent to rest.
    wishes = {"x": [(0.0, 2.0)], "y": [(0.0, -0.5)]}
    opens = [10.0, 10.0, 9.0, 8.0, 7.0, 6.0]
    bars = [
        (
            60.0 * i,
            Bar(
                symbol="A",
                event_time=T0 + 60 * i * SECOND,
                open_time=T0 + 60 * (i - 1) * SECOND,
                open=price,
                high=price,
                low=price,
                close=price,
                volume=1.0,
            ),
        )
        for i, price in enumerate(opens)
    ]
    limits = {"x": StrategyLimits(loss_max=0.001), "y": StrategyLimits()}

    def graph() -> Any:
        bar = at(*bars)
        closes = {"A": bar.close}
        profits = {name: csp.feedback(float) for name in wishes}
        held = {name: csp.feedback(PositionUpdate) for name in wishes}
        targets, actions = {}, []
        for name, points in wishes.items():
            wanted = {"A": at(*[(s, TargetPosition(symbol="A", quantity=q, asof=T0)) for s, q in points])}
            marks = profits[name].out(), held[name].out()
            guard = strategy_guard(wanted, *marks, name, 1_000.0, (A,), limits[name])
            targets[name] = guard.targets["A"]
            actions.append(guard.action)
        net = net_target(targets, A)
        action, filled, no_update = csp.flatten(actions), csp.feedback(Fill), csp.null_ts(OrderUpdate)
        order = generate_orders(net, filled.out(), no_update, action, A, "run")
        fill = next_open(order, bar)
        filled.bind(fill)
        shares = csp.unroll(allocate(fill, no_update, targets, net, bar, csp.null_ts(Trade), action, A))
        for name in wishes:
            books = strategy_book(shares, name, closes, (A,))
            profits[name].bind(books.equity)
            held[name].bind(books.position)
            csp.add_graph_output(f"profit {name}", books.equity)
        account = portfolio(fill, closes, (A,), 0.0)
        return {"fills": fill, "shares": shares, "actions": action, "account": account.equity}

    out = run(graph, seconds=600.0)
    minute = 60 * SECOND
    assert [(t, f.side.name, f.quantity, f.price) for t, f in out["fills"]] == [
        (T0 + minute, "BUY", 1.5, 10.0),
        (T0 + 3 * minute, "SELL", 2.0, 8.0),  # a loss of 2 at 9.0, told at its close: the next open is 8.0
    ]
    assert [(t, s.strategy, s.side.name, s.quantity, s.fee) for t, s in out["shares"]] == [
        (T0 + minute, "x", "BUY", 1.5, 0.01),
        (T0 + minute, "x", "BUY", 0.5, 0.0),
        (T0 + minute, "y", "SELL", 0.5, 0.0),
        (T0 + 3 * minute, "x", "SELL", 2.0, 0.01),
    ]
    assert [(t, a.code, a.strategy) for t, a in out["actions"]] == [(T0 + 2 * minute, "strategy_loss", "x")]
    assert out["profit x"][-1][1] == pytest.approx(-4.02)
    assert out["profit y"][-1][1] == pytest.approx(2.0)
    assert out["account"][-1][1] == pytest.approx(-2.02)
