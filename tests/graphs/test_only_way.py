"""No order reaches a venue but through the gate: the graph itself is walked, from the venue back to its sources."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import csp
import pytest
from csp import ts
from support import T0, at

from brokers.events import Answers, CancelRequest, OrderRequest, OrderType
from brokers.paper import Market, PaperConfig, paper_venue
from feeds.events import Bar, Side
from feeds.instruments import Instrument
from graphs.account import Account
from graphs.config import SignalsConfig, StrategyConfig, TradingConfig
from graphs.edges import Feeds
from graphs.trading import trading_system
from nodes.forecast import ForecastConfig

HOUR = timedelta(hours=1)
INSTRUMENTS = (Instrument(symbol="A"), Instrument(symbol="B"))
GATE = "nodes.gate._gate"
VENUE = "brokers.paper._venue"
TOLD = (OrderRequest, CancelRequest)  # what a venue is told


def name_of(node: Any) -> str:
    return f"{type(node).__module__}.{type(node).__name__}"


def venues(graph: Callable[[], Any]) -> list[Any]:
    """The nodes of the simulated venue in a graph."""
    built = csp.build_graph(graph, starttime=T0, endtime=T0 + HOUR)
    seen, found, todo = set(), [], list(built.roots)
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if name_of(node) == VENUE:
            found.append(node)
        todo += [edge.nodedef for _, edge in node.ts_inputs()]
    return found


def sources(venue: Any) -> set[str]:
    """Where what a venue is told begins: the gate, or else every node without inputs that no gate stands before."""
    inputs = [edge.nodedef for _, edge in venue.ts_inputs() if edge.tstype.typ in TOLD]
    assert len(inputs) == len(TOLD)
    seen, begins, todo = set(), set(), inputs
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        above = [edge.nodedef for _, edge in node.ts_inputs()]
        if name_of(node) == GATE or not above:
            begins.add(name_of(node))
        else:
            todo += above
    return begins


def bar(symbol: str) -> Bar:
    prices = {"open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 1.0}
    return Bar(symbol=symbol, event_time=T0 + HOUR, open_time=T0, **prices)


def feeds() -> Feeds:
    symbols = [instrument.symbol for instrument in INSTRUMENTS]
    return Feeds(bars={s: at((3600.0, bar(s))) for s in symbols}, bar_lengths=dict.fromkeys(symbols, HOUR))


def venue_on(market: dict[str, ts[Bar]]) -> Callable[..., Answers]:
    def venue(order: ts[OrderRequest], cancel: ts[CancelRequest]) -> Answers:
        return paper_venue(order, cancel, Market(bars=market), INSTRUMENTS, PaperConfig())

    return venue


def config(*names: str) -> TradingConfig:
    signals = SignalsConfig(use=("technical",))
    strategies = tuple(StrategyConfig(name=name, signals=signals) for name in names)
    return TradingConfig(instruments=INSTRUMENTS, strategies=strategies, forecast=ForecastConfig(enabled=False))


def an_order() -> ts[OrderRequest]:
    return at((1.0, OrderRequest(order_id="1", symbol="A", side=Side.BUY, order_type=OrderType.MARKET, quantity=1.0)))


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_the_trading_system_reaches_its_venues_through_the_gate_alone(names: tuple[str, ...]) -> None:
    def graph() -> None:
        wired = feeds()
        streams = trading_system(wired, venue_on(wired.bars), config(*names), run_id="r")
        csp.print("fills", streams.fills)

    found = venues(graph)
    assert len(found) == len(INSTRUMENTS)
    assert [sources(venue) for venue in found] == [{GATE}] * len(INSTRUMENTS)


def test_an_account_reaches_its_venues_through_the_gate_alone() -> None:
    def graph() -> None:
        wired = feeds()
        cancel = at((2.0, CancelRequest(order_id="1", symbol="A")))
        done = Account(wired, config("one")).trade(an_order(), cancel, venue_on(wired.bars))
        csp.print("fills", done.fills)

    assert [sources(venue) for venue in venues(graph)] == [{GATE}] * len(INSTRUMENTS)


def test_the_walk_sees_a_way_around_the_gate() -> None:
    def graph() -> None:
        wired = feeds()

        def leaky(order: ts[OrderRequest], cancel: ts[CancelRequest]) -> Answers:
            return venue_on(wired.bars)(csp.flatten([order, an_order()]), cancel)

        nothing = csp.null_ts(OrderRequest), csp.null_ts(CancelRequest)
        csp.print("fills", Account(wired, config("one")).trade(*nothing, leaky).fills)

    assert all(sources(venue) > {GATE} for venue in venues(graph))
