"""Strategies go on from what an earlier run of the account has left."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import csp
import pytest
from csp import ts
from support import T0, at, run, values

from brokers.costs import FillModel
from brokers.events import Answers, CancelRequest, OrderRequest, OrderState, OrderUpdate
from brokers.opening import Opening, OpeningPosition
from brokers.paper import Market, PaperConfig, paper_venue
from feeds.events import Bar, FeedState, FeedStatus
from feeds.instruments import Instrument
from feeds.streams import together
from graphs.config import SignalsConfig, StrategyConfig, TradingConfig
from graphs.edges import Feeds
from graphs.trading import trading_system
from nodes.events import Signal
from nodes.forecast import ForecastConfig
from nodes.risk import RiskConfig
from nodes.sizing import SizingConfig
from nodes.strategies import StrategyLimits

HOUR = timedelta(hours=1)
X = Instrument(symbol="X", tick="0.01", lot="0.01")
BROKER = PaperConfig(fills=FillModel(slippage_bps=0.0))
OFF = RiskConfig(drawdown_max=None, gross_exposure_max=None, var_max=None)
HELD = Opening(cash="800", positions=(OpeningPosition(symbol="X", quantity="2", cost="150"),))


def said(score: float) -> Signal:
    return Signal(symbol="X", source="mine", score=score, confidence=1.0, horizon_s=1e9, asof=T0)


def opinions(scores: dict[float, float]) -> Callable[..., ts[Signal]]:
    """A plugin that says `scores` at these hours."""

    def plugin(bar: ts[Bar], symbol: str, feeds: Feeds) -> ts[Signal]:
        return at(*((hour * 3_600.0, said(score)) for hour, score in scores.items()), typ=Signal)

    return plugin


@csp.node
def _line(order: ts[OrderRequest], up: ts[bool]) -> csp.Outputs(sent=ts[OrderRequest], lost=ts[OrderUpdate]):
    """What reaches the venue, and what it is told of an order that does not."""
    if csp.ticked(order):
        if up:
            csp.output(sent=order)
        else:
            state, code = OrderState.REJECTED, "venue_down"
            csp.output(
                lost=OrderUpdate(
                    order_id=order.order_id, symbol="X", state=state, remaining=0.0, code=code, reason="no line"
                )
            )


def simulate(
    each: dict[str, dict[float, float]], opening: Opening | None, *, guarded: bool = False, **more: Any
) -> dict[str, list[Any]]:
    """The ticks of a graph on eight hourly bars at 100; each strategy holds 2 X at score 1. The venue takes orders from
    the hour `up` on."""
    sizing = SizingConfig(mode="fixed", quantity=2.0, confidence_min=0.0, change_min=0.0)
    limits = StrategyLimits(loss_max=0.5) if guarded else StrategyLimits()
    strategies = tuple(
        StrategyConfig(name=name, signals=SignalsConfig(use=()), sizing=sizing, limits=limits) for name in each
    )
    config = TradingConfig(
        instruments=(X,),
        initial_cash=1_000.0,
        strategies=strategies,
        risk=more.get("risk", OFF),
        forecast=ForecastConfig(enabled=False),
    )
    plugins = {name: (opinions(scores),) for name, scores in each.items()}

    def bar(number: int) -> Bar:
        times = {"event_time": T0 + number * HOUR, "open_time": T0 + (number - 1) * HOUR}
        return Bar(symbol="X", open=100.0, high=100.0, low=100.0, close=100.0, volume=1_000.0, **times)

    def graph() -> dict[str, Any]:
        market = {"X": csp.curve(Bar, [(n * HOUR, bar(n)) for n in range(1, 9)])}
        live = at((more["live"] * 3_600.0, True)) if "live" in more else None
        status = at(*more["status"], typ=FeedStatus) if "status" in more else None
        required = {"X": ("ticker",)}
        feeds = Feeds(bars=market, bar_lengths={"X": HOUR}, live=live, status=status, required=required)

        def venue(order: ts[OrderRequest], cancel: ts[CancelRequest]) -> Answers:
            line = _line(order, csp.default(at((more.get("up", 0.0) * 3_600.0, True)), False))
            answers = paper_venue(line.sent, cancel, Market(bars=market), (X,), BROKER, opening)
            return Answers(update=together([line.lost, answers.update]), fill=answers.fill)

        streams = trading_system(
            feeds, venue, config, run_id="r", plugins=plugins, opening=opening, halted=more.get("halted", False)
        )
        names = ("orders", "fills", "position", "strategy_fills", "equity", "risk")
        return {name: edge for name in names if (edge := getattr(streams, name)) is not None}

    return run(graph)


def ordered(out: Any) -> list[tuple[str, float]]:
    return [(o.side.name, o.quantity) for o in values(out["orders"])]


def shares(out: Any) -> list[tuple[str, str, float, float]]:
    return [(s.strategy, s.side.name, s.quantity, s.price) for s in values(out["strategy_fills"])]


def test_a_strategy_that_wants_what_is_held_orders_nothing() -> None:
    assert ordered(simulate({"main": {2: 1.0}}, HELD)) == []


def test_a_strategy_that_wants_nothing_sells_what_is_held() -> None:
    out = simulate({"main": {2: 0.0}}, HELD)
    assert ordered(out) == [("SELL", 2.0)]
    assert out["equity"][-1][1] == pytest.approx(1_000.0)


def test_a_strategy_that_says_nothing_leaves_what_is_held() -> None:
    assert ordered(simulate({"main": {}}, HELD)) == []


def test_a_strategy_that_turns_orders_both_parts_at_once() -> None:
    assert ordered(simulate({"main": {2: -1.0}}, HELD)) == [("SELL", 4.0)]


def test_history_is_not_traded_and_the_last_of_it_is_when_the_run_is_live_and_connected() -> None:
    up = FeedStatus(feed="ticker", symbol="", state=FeedState.CONNECTED, detail="", value=0.0)
    scores = {"main": {1.5: -1.0, 2.5: 0.0}}
    out = simulate(scores, HELD, live=4.25, status=[(4.5 * 3_600.0, up)])
    assert [(when, o.side.name, o.quantity) for when, o in out["orders"]] == [(T0 + 4.5 * HOUR, "SELL", 2.0)]
    assert ordered(simulate(scores, HELD, live=4.25, status=[])) == []


def test_several_strategies_take_over_what_is_held_without_an_order() -> None:
    out = simulate({"a": {2: 0.5}, "b": {2: 0.5}}, HELD)
    assert ordered(out) == []
    assert shares(out) == [("a", "BUY", 1.0, 100.0), ("b", "BUY", 1.0, 100.0), ("", "SELL", 2.0, 100.0)]


def test_what_several_strategies_do_not_want_is_sold() -> None:
    out = simulate({"a": {2: 0.0}, "b": {2: 0.5}}, HELD)
    assert ordered(out) == [("SELL", 1.0)]
    held = dict.fromkeys(("a", "b", ""), 0.0)
    for name, side, quantity, _ in shares(out):
        held[name] += quantity if side == "BUY" else -quantity
    assert held == {"a": 0.0, "b": 1.0, "": -2.0}  # the residual book began with 2: 1 was sold, 1 went to b


def test_one_strategy_with_limits_of_its_own_takes_over_what_is_held_too() -> None:
    out = simulate({"a": {2: 1.0}}, HELD, guarded=True)
    assert ordered(out) == []
    assert shares(out) == [("a", "BUY", 2.0, 100.0), ("", "SELL", 2.0, 100.0)]


def test_without_positions_an_opening_is_its_cash() -> None:
    scores = {"a": {2: 1.0, 5: 0.0}, "b": {3: -0.5}}
    assert simulate(scores, Opening(cash="1000")) == simulate(scores, None)


def status(state: str, symbol: str = "") -> FeedStatus:
    return FeedStatus(feed="ticker", symbol=symbol, state=FeedState[state], detail="", value=0.0)


@pytest.mark.parametrize("names", [("main",), ("a", "b")], ids=["one strategy", "several"])
def test_a_start_that_is_halted_sells_what_is_held_with_its_first_price_and_hears_no_strategy(
    names: tuple[str, ...],
) -> None:
    out = simulate({name: {2: 1.0, 5: 0.5} for name in names}, HELD, halted=True)
    assert [(when, o.side.name, o.quantity) for when, o in out["orders"]] == [(T0 + HOUR, "SELL", 2.0)]
    assert [(a.kind.name, a.code, a.value, a.symbol) for a in values(out["risk"])] == [
        ("HALT_SYMBOL", "halted_position", 2.0, "X")
    ]
    assert out["position"][-1][1].quantity == 0.0


def test_it_waits_for_the_feeds_of_the_symbol() -> None:
    up = [(4.5 * 3_600.0, status("CONNECTED"))]
    out = simulate({"main": {}}, HELD, halted=True, live=3.25, status=up)
    assert [when for when, _ in out["orders"]] == [T0 + 4.5 * HOUR]
    assert simulate({"main": {}}, HELD, halted=True, live=3.25, status=[])["orders"] == []


def test_where_a_stop_does_not_flatten_a_start_that_is_halted_leaves_what_is_held() -> None:
    frozen = RiskConfig(drawdown_max=None, gross_exposure_max=None, var_max=None, flatten=False)
    out = simulate({"main": {}}, HELD, halted=True, risk=frozen)
    assert (out["orders"], out["risk"]) == ([], [])
    assert simulate({"main": {}}, Opening(cash="1000"), halted=True)["risk"] == []  # nothing is held


def test_what_a_stop_could_not_sell_is_sold_when_the_line_is_back_once_each_time() -> None:
    # Halted at the start, and sold at 1: the line is down. It comes back at 3, but not really; and at 5.
    told = [(hour, status(state)) for hour, state in ((0.5, "CONNECTED"), (2, "STALE"), (3, "RECOVERED"))]
    told += [(hour, status(state)) for hour, state in ((4, "STALE"), (4.5, "LAGGING"), (5, "RECOVERED"), (6, "GAP"))]
    out = simulate(
        {"main": {}}, HELD, halted=True, live=0.25, status=[(hour * 3_600.0, one) for hour, one in told], up=4.0
    )
    assert [(when, o.side.name, o.quantity) for when, o in out["orders"]] == [
        (T0 + hour * HOUR, "SELL", 2.0) for hour in (1, 3, 5)
    ]
    assert out["position"][-1][1].quantity == 0.0


def test_a_target_that_was_refused_for_its_feed_is_reached_when_the_feed_is_back() -> None:
    told = [(hour * 3_600.0, status(state)) for hour, state in ((0.5, "CONNECTED"), (1.5, "STALE"), (4.0, "RECOVERED"))]
    out = simulate({"main": {2: 0.5, 3: 1.0}}, None, live=0.25, status=told)
    assert [(when, o.side.name, o.quantity) for when, o in out["orders"]] == [
        (T0 + 2 * HOUR, "BUY", 1.0),
        (T0 + 3 * HOUR, "BUY", 2.0),
        (T0 + 4 * HOUR, "BUY", 2.0),
    ]
    assert out["position"][-1][1].quantity == 2.0


def test_with_cash_only_an_exit_behind_its_entry_is_not_refused() -> None:
    # On bars an order fills at the next open, known at the close after it: wanted at 2, left at 2.5.
    risk = RiskConfig(drawdown_max=None, gross_exposure_max=None, var_max=None, cash_only=True)
    out = simulate({"main": {2: 1.0, 2.5: 0.0}}, None, risk=risk)
    assert ordered(out) == [("BUY", 2.0), ("SELL", 2.0)]
    assert out["position"][-1][1].quantity == 0.0
