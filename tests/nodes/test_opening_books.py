"""A run that begins with positions marks them, limits their losses and shares them as one that made them itself."""

import math
from datetime import datetime, timedelta
from typing import Any

import csp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SECOND, T0, at, run, ticks, values

from brokers.events import CancelRequest, Fill, Liquidity, OrderRequest, OrderType, OrderUpdate
from brokers.opening import Opening, OpeningOrder, OpeningPosition
from brokers.paper import Market, PaperConfig, paper_venue
from feeds.events import Bar, Side, Trade
from feeds.instruments import Instrument
from feeds.streams import SETTLE
from nodes.allocation import RESIDUAL, allocate, net_target
from nodes.events import PositionUpdate, RiskAction, RiskActionKind, Signal, TargetPosition
from nodes.loss_limits import account_limits, symbol_loss
from nodes.portfolio import portfolio
from nodes.risk import RiskConfig, limit_target, risk_monitor
from nodes.sizing import SizingConfig, target_position

A = Instrument(symbol="A", tick="0.01", lot="0.1")
B = Instrument(symbol="B", tick="0.01", lot="1", multiplier="10")
BUY, SELL = Side.BUY, Side.SELL
DAY = T0.date().isoformat()
MIDNIGHT = datetime(2024, 1, 3)  # T0 is 14:30 on the 2nd
EVENING = (MIDNIGHT - T0).total_seconds()


def opened(*held: tuple[str, str, str], cash: str = "1000", **more: Any) -> Opening:
    """Positions as (symbol, quantity, cost)."""
    positions = tuple(OpeningPosition(symbol=s, quantity=quantity, cost=cost) for s, quantity, cost in held)
    return Opening(cash=cash, positions=positions, **more)


def fill(side: Side, quantity: float, price: float, symbol: str = "A") -> Fill:
    return Fill(
        market_time=T0, symbol=symbol, side=side, quantity=quantity, price=price, fee=0.0, order_id="1",
        liquidity=Liquidity.TAKER,
    )  # fmt: skip


# --- books and marks


def account(opening: Opening | None, closes: dict[str, Any], fills: Any = (), live: Any = None) -> Any:
    def graph() -> Any:
        out = portfolio(
            at(*fills, typ=Fill),
            {symbol: ticks(*prices, typ=float) for symbol, prices in closes.items()},
            tuple(i for i in (A, B) if i.symbol in closes),
            7.0,
            opening=opening,
            live=None if live is None else at((live, True)),
        )
        names = ("position", "cash", "equity", "position_value", "gross_exposure")
        return {name: getattr(out, name) for name in names} | {f"value {k}": v for k, v in out.values.items()}

    return run(graph)


def test_the_books_tell_what_they_begin_with() -> None:
    out = account(opened(("A", "-3", "-33"), cash="1000.5"), {"A": [None, 10.0, 12.0]})
    ((when, position),) = out["position"]
    assert (when, position.quantity, position.average_price) == (T0, -3.0, 11.0)
    assert (position.realised, position.fees) == (0.0, 0.0)
    assert out["cash"] == [(T0, 1_000.5)]


def test_what_is_held_is_worth_nothing_known_before_its_first_price() -> None:
    out = account(opened(("A", "3", "33")), {"A": [None, 10.0, 12.0]})
    assert out["equity"] == [(T0 + SECOND, 1_030.0), (T0 + 2 * SECOND, 1_036.0)]
    assert out["gross_exposure"] == [(T0 + SECOND, 30.0), (T0 + 2 * SECOND, 36.0)]


def test_no_sum_is_told_before_everything_that_is_held_has_a_price() -> None:
    out = account(opened(("A", "3", "33"), ("B", "-1", "-90")), {"A": [10.0, 12.0, 12.0], "B": [None, 8.0, 7.0]})
    assert out["equity"] == [(T0 + SECOND + SETTLE, 1_000.0 + 36.0 - 80.0), (T0 + 2 * SECOND + SETTLE, 966.0)]
    # One that is not held needs none.
    out = account(opened(("A", "3", "33")), {"A": [10.0], "B": [None, 8.0]})
    assert out["equity"][0] == (T0 + SETTLE, 1_030.0)


def test_history_marks_nothing_and_the_last_of_it_marks_the_first_live_equity() -> None:
    out = account(opened(("A", "3", "33")), {"A": [100.0, 50.0, None, None, 12.0]}, live=2.5)
    assert [when for when, _ in out["position"]] == [T0 + 2.5 * SECOND]
    assert out["equity"] == [(T0 + 2.5 * SECOND, 1_150.0), (T0 + 4 * SECOND, 1_036.0)]


def test_a_position_of_the_start_is_closed_at_what_it_cost() -> None:
    out = account(opened(("A", "3", "33")), {"A": [None, 10.0]}, [(2.0, fill(SELL, 3.0, 12.0))])
    last = out["position"][-1][1]
    assert (last.quantity, last.realised) == (0.0, pytest.approx(3.0))
    assert out["equity"][-1][1] == pytest.approx(1_036.0)


def test_an_opening_without_positions_is_like_its_cash() -> None:
    closes, fills = {"A": [10.0, 11.0, 12.0], "B": [8.0, 9.0, 7.0]}, [(0.5, fill(BUY, 1.0, 10.0))]
    assert account(opened(cash="7"), closes, fills) == account(None, closes, fills)


# --- limits on losses


def limits(equity: Any, opening: Opening | None, *, drawdown: float = math.inf, daily: float = math.inf) -> list[Any]:
    def graph() -> Any:
        more = [] if opening is None else [opening.equity_peak, opening.day, opening.day_start]
        marks = at(*equity)
        return account_limits(marks, marks * 0.0, drawdown, daily, math.inf, *more)

    return [(when, a.code, round(a.value, 4)) for when, a in run(graph, seconds=5 * 86_400)]


def test_example_losses_count_from_the_peak_and_the_days_start_of_earlier_runs() -> None:
    before = opened(equity_peak=12_000.0, day=DAY, day_start=11_500.0)
    assert limits([(1.0, 9_900.0)], before, drawdown=0.2, daily=0.1) == [(T0 + SECOND, "daily_loss", 0.1391)]
    assert limits([(1.0, 9_900.0)], before, drawdown=0.17) == [(T0 + SECOND, "drawdown", 0.175)]
    assert limits([(1.0, 9_900.0)], None, drawdown=0.2, daily=0.1) == []


def test_another_day_begins_with_its_own_equity() -> None:
    before = opened(day="2024-01-01", day_start=11_500.0)
    assert limits([(1.0, 10_000.0), (2.0, 9_001.0)], before, daily=0.1) == []
    assert limits([(1.0, 10_000.0), (2.0, 8_999.0)], before, daily=0.1) == [(T0 + 2 * SECOND, "daily_loss", 0.1001)]


def test_a_day_that_begins_after_history_begins_with_what_it_began_with() -> None:
    # The run starts with history of the day before the one that was going on.
    before = opened(day="2024-01-03", day_start=11_500.0)
    history = [(0.0, 10_000.0), (1.0, 9_500.0), (EVENING, 11_000.0)]
    assert limits([*history, (EVENING + 60, 10_200.0)], before, daily=0.1) == [
        (MIDNIGHT + timedelta(minutes=1), "daily_loss", round(1 - 10_200 / 11_500, 4))
    ]
    assert limits([*history, (EVENING + 60, 10_400.0), (EVENING + 86_460, 9_500.0)], before, daily=0.1) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=2, max_size=12), st.integers(1, 11), st.booleans())
def test_a_run_that_is_interrupted_stops_where_one_that_is_not_stops(equity: list[int], cut: int, daily: bool) -> None:
    cut = min(cut, len(equity) - 1)
    points = [(float(n), float(value)) for n, value in enumerate(equity)]
    limit = {"daily": 0.3} if daily else {"drawdown": 0.3}
    whole = limits(points, None, **limit)
    before = opened(equity_peak=float(max(equity[:cut])), day=DAY, day_start=float(equity[0]))
    if not limits(points[:cut], None, **limit):  # where it stopped before, no run goes on
        assert limits(points[cut:], before, **limit) == whole


def test_a_symbols_loss_counts_from_its_first_price_in_the_run() -> None:
    def halts(carried: bool, *prices: float) -> list[float]:
        def graph() -> Any:
            close = ticks(*prices)
            position = PositionUpdate(symbol="A", quantity=10.0, average_price=20.0, realised=0.0, fees=0.0)
            held = at((0.0, position))
            return symbol_loss(csp.const(1_000.0), held, close * 10.0, close, close, A, 0.05, carried)

        return [round(action.value, 6) for _, action in run(graph)]

    assert halts(True, 10.0, 5.1) == []
    assert halts(True, 10.0, 4.9) == [0.051]
    assert halts(False, 10.0)  # of a position that was bought in this run at 20


def test_the_monitor_hands_on_what_the_account_begins_with() -> None:
    def asked(opening: Opening) -> list[str]:
        def graph() -> Any:
            closes = {"A": ticks(None, 10.0, 10.0)}
            books = portfolio(csp.null_ts(Fill), closes, (A,), 0.0, opening=opening)
            config = RiskConfig(drawdown_max=0.2, symbol_loss_max=0.01, gross_exposure_max=None, var_max=None)
            return risk_monitor(books, closes, (A,), config, opening=opening)

        return [action.code for action in values(run(graph))]

    assert asked(opened(("A", "10", "1000"))) == []
    assert asked(opened(("A", "10", "1000"), equity_peak=2_000.0)) == ["drawdown"]


# --- what is wanted


def target(quantity: float) -> TargetPosition:
    return TargetPosition(symbol="A", quantity=quantity, asof=T0)


def test_a_reduction_before_the_first_target_keeps_its_part_of_what_is_held() -> None:
    reduce_ = RiskAction(kind=RiskActionKind.REDUCE_POSITIONS, code="gross_exposure", value=2.0, limit=1.0)
    position = PositionUpdate(symbol="A", quantity=3.0, average_price=1.0, realised=0.0, fees=0.0)

    def limited(held: float) -> list[float]:
        edges = at(typ=TargetPosition), at((0.0, position)), at((1.0, reduce_))
        return [t.quantity for t in values(run(lambda: limit_target(*edges, A, RiskConfig(), held)))]

    assert limited(3.0) == [1.5]
    assert limited(0.0) == [0.0]


def sized(scores: list[float], **more: Any) -> list[float]:
    config = SizingConfig(mode="fixed", quantity=2.0, confidence_min=0.0, change_min=0.5)
    signals = [Signal(symbol="A", source="s", score=score, confidence=1.0, horizon_s=60.0, asof=T0) for score in scores]
    nothing = csp.null_ts(float), csp.null_ts(float)
    edges = csp.const(10.0), csp.const(1_000.0), *nothing
    return [t.quantity for t in values(run(lambda: target_position(ticks(*signals), *edges, A, config, **more)))]


def test_a_strategy_leaves_what_it_held_before_when_it_wants_something_else() -> None:
    assert sized([0.0, 1.0], held=2.0) == [0.0, 2.0]
    assert sized([1.0, 0.0], held=2.0) == [0.0]
    assert sized([0.9, 0.4], held=2.0) == [0.8]
    assert sized([0.0]) == []


def test_where_nobody_knows_who_holds_it_the_first_word_counts_even_if_it_is_nothing() -> None:
    assert sized([0.0, 0.0, 1.0], decide=True) == [0.0, 2.0]
    assert sized([1.0, 1.0], decide=True) == [2.0]


def test_strategies_take_what_is_held_from_the_residual_book_at_the_market() -> None:
    def graph() -> Any:
        targets = {"x": at((1.0, target(2.0))), "y": at((1.0, target(-1.0)))}
        net = net_target(targets, A)
        trades = at((2.0, Trade(symbol="A", event_time=T0, price=12.0, size=1.0)))
        none = csp.null_ts(Fill), csp.null_ts(OrderUpdate)
        opening = opened(("A", "1", "10"))
        return allocate(*none, targets, net, csp.null_ts(Bar), trades, csp.null_ts(RiskAction), A, opening=opening)

    ((when, shares),) = run(graph)
    # The account holds 1 and wants 1, so nothing is ordered: x takes it, and buys the other from y.
    assert when == T0 + 2 * SECOND
    assert [(s.strategy, s.side.name, s.quantity, s.price) for s in shares] == [
        ("x", "BUY", 2.0, 12.0),
        ("y", "SELL", 1.0, 12.0),
        (RESIDUAL, "SELL", 1.0, 12.0),
    ]


def test_what_no_strategy_wants_is_sold_out_of_the_residual_book() -> None:
    def graph() -> Any:
        targets = {"x": at((1.0, target(0.0)))}
        net, sold = net_target(targets, A), at((2.0, fill(SELL, 1.0, 12.0)))
        nothing = csp.null_ts(Bar), csp.null_ts(Trade), csp.null_ts(RiskAction)
        return allocate(sold, csp.null_ts(OrderUpdate), targets, net, *nothing, A, opening=opened(("A", "1", "10")))

    ((_, shares),) = run(graph)
    assert [(s.strategy, s.side.name, s.quantity) for s in shares] == [(RESIDUAL, "SELL", 1.0)]


# --- the simulated venue


def executed(opening: Opening | None, side: Side, quantity: float) -> dict[str, list[Any]]:
    def graph() -> Any:
        request = OrderRequest(
            order_id="1", symbol="A", side=side, order_type=OrderType.MARKET, quantity=quantity, reduce_only=True
        )
        trades = at(*((float(n), Trade(symbol="A", event_time=T0, price=10.0, size=100.0)) for n in range(5)))
        answers = paper_venue(
            at((1.0, request)), csp.null_ts(CancelRequest), Market(trades={"A": trades}), (A,), PaperConfig(), opening
        )
        return {"fill": answers.fill, "update": answers.update}

    out = run(graph)
    return {"fill": [f.quantity for f in values(out["fill"])], "update": [u.code for u in values(out["update"])]}


def test_the_simulated_venue_reduces_what_is_held_from_the_start() -> None:
    held = opened(("A", "2", "20"))
    assert executed(held, SELL, 5.0)["fill"] == [2.0]
    assert executed(held, BUY, 5.0)["update"] == ["reduce_only"]
    assert executed(None, SELL, 5.0)["fill"] == []


def test_the_simulated_venue_knows_no_order_of_an_earlier_run() -> None:
    order = OpeningOrder(
        order_id="old-1", symbol="A", side="BUY", order_type="LIMIT", quantity="1", remaining="1", limit_price="9"
    )
    with pytest.raises(ValueError, match="no order works at a simulated venue when a run starts, was old-1"):
        executed(Opening(cash="1", orders=(order,)), SELL, 1.0)
