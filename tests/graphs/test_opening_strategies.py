"""Strategies go on from what an earlier run of the account has left."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import csp
import pytest
from csp import ts
from support import T0, at, run, values

from brokers.costs import FillModel
from brokers.events import Answers, CancelRequest, OrderRequest
from brokers.opening import Opening, OpeningPosition
from brokers.paper import Market, PaperConfig, paper_venue
from feeds.events import Bar, FeedState, FeedStatus
from feeds.instruments import Instrument
from graphs.config import SignalsConfig, StrategyConfig, TradingConfig
from graphs.edges import Feeds
from graphs.trading import trading_system
from nodes.events import Signal
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


def simulate(
    each: dict[str, dict[float, float]], opening: Opening | None, *, guarded: bool = False, **more: Any
) -> dict[str, list[Any]]:
    """The ticks of a graph on eight hourly bars at 100; each strategy holds 2 X at score 1."""
    sizing = SizingConfig(mode="fixed", quantity=2.0, confidence_min=0.0, change_min=0.0)
    limits = StrategyLimits(loss_max=0.5) if guarded else StrategyLimits()
    strategies = tuple(
        StrategyConfig(name=name, signals=SignalsConfig(use=()), sizing=sizing, limits=limits) for name in each
    )
    config = TradingConfig(instruments=(X,), initial_cash=1_000.0, strategies=strategies, risk=OFF)
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
            return paper_venue(order, cancel, Market(bars=market), (X,), BROKER, opening)

        streams = trading_system(feeds, venue, config, run_id="r", plugins=plugins, opening=opening)
        names = ("orders", "fills", "position", "strategy_fills", "equity")
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
