"""THE graph: from an opinion to a fill, with the gate in between and the books exact."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import csp
import pytest
from csp import ts
from hypothesis import given, settings
from hypothesis import strategies as st
from support import T0, run, values

from brokers.costs import FillModel
from brokers.events import CancelRequest, CorporateAction, OrderRequest, OrderState, OrderType
from brokers.paper import Market, PaperConfig, paper_venue
from configs.load import ConfigError
from feeds.events import Bar, Side
from feeds.instruments import Instrument
from feeds.streams import SETTLE
from graphs.config import SignalsConfig, StrategyConfig, TradingConfig
from graphs.edges import Feeds, Streams
from graphs.trading import trading_system
from nodes.events import AlertLevel, Signal
from nodes.forecast import ForecastConfig
from nodes.fuse import FuseConfig
from nodes.risk import RiskConfig
from nodes.sizing import SizingConfig
from nodes.technical import TechnicalConfig

HOUR = timedelta(hours=1)
NO_COST = PaperConfig(fills=FillModel(slippage_bps=0.0))
NO_LIMITS = RiskConfig(drawdown_max=None, gross_exposure_max=None, var_max=None)


def close(number: int) -> datetime:
    """When bar `number` is known; the first closes an hour after the start."""
    return T0 + number * HOUR


def bars(symbol: str, prices: Sequence[float]) -> ts[Bar]:
    """Hourly bars that open at each price and close at the next; the last closes where it opened."""
    following = [*prices[1:], prices[-1]]
    ticks = [
        (
            (number + 1) * HOUR,
            Bar(
                symbol=symbol,
                event_time=close(number + 1),
                open_time=close(number),
                open=opened,
                high=max(opened, closed),
                low=min(opened, closed),
                close=closed,
                volume=1_000.0,
            ),
        )
        for number, (opened, closed) in enumerate(zip(prices, following, strict=True))
    ]
    return csp.curve(Bar, ticks)


def opinions(scores: dict[int, float], source: str = "mine") -> Callable[..., ts[Signal]]:
    """A plugin that says `scores` at the close of the bars of these numbers."""

    def plugin(bar: ts[Bar], symbol: str, feeds: object) -> ts[Signal]:
        def said(number: int, score: float) -> Signal:
            return Signal(symbol=symbol, source=source, score=score, confidence=1.0, horizon_s=1e9, asof=close(number))

        return csp.curve(Signal, [(number * HOUR, said(number, score)) for number, score in scores.items()])

    return plugin


def config(*symbols: str, **changes: Any) -> TradingConfig:
    """Two units at score 1, without costs or limits."""
    strategy = {
        "signals": SignalsConfig(use=()),
        "sizing": SizingConfig(mode="fixed", quantity=2.0, confidence_min=0.0, change_min=0.0),
    }
    strategy |= {name: changes.pop(name) for name in ("signals", "sizing", "fuse") if name in changes}
    fields: dict[str, Any] = {
        "instruments": tuple(Instrument(symbol=symbol, tick="0.01", lot="0.01") for symbol in symbols),
        "initial_cash": 1_000.0,
        "strategies": (StrategyConfig(name="main", **strategy),),
        "risk": NO_LIMITS,
        "forecast": ForecastConfig(enabled=False),
    }
    return TradingConfig(**(fields | changes))


def simulate(
    prices: dict[str, Sequence[float]],
    plugins: Sequence[Any] | dict[str, Any],
    trading: TradingConfig | None = None,
    broker: PaperConfig = NO_COST,
    splits: Sequence[tuple[timedelta, CorporateAction]] = (),
    *,
    halted: bool = False,
) -> dict[str, list[tuple[datetime, Any]]]:
    """The ticks of every stream. `plugins` are of the one strategy, or by strategy."""
    each = plugins if isinstance(plugins, dict) else {"main": tuple(plugins)}
    trading = trading or config(*prices)

    def graph() -> dict[str, Any]:
        market = {symbol: bars(symbol, series) for symbol, series in prices.items()}
        corporate = csp.curve(CorporateAction, list(splits)) if splits else None
        feeds = Feeds(bars=market, bar_lengths=dict.fromkeys(prices, HOUR), corporate_actions=corporate)

        def venue(order: ts[OrderRequest], cancel: ts[CancelRequest]) -> Any:
            return paper_venue(order, cancel, Market(bars=market, corporate=corporate), trading.instruments, broker)

        streams = trading_system(feeds, venue, trading, run_id="r", plugins=each, halted=halted)
        edges = {name: getattr(streams, name) for name in Streams.__dataclass_fields__}
        return {name: edge for name, edge in edges.items() if edge is not None}

    return run(graph, seconds=86_400.0 * 30)


def test_an_opinion_fills_at_the_next_open_and_is_known_at_its_close() -> None:
    ticks = simulate({"X": [100.0, 101.0, 102.0, 103.0, 104.0]}, [opinions({2: 1.0})])

    ((ordered, order),) = ticks["orders"]
    assert ordered == close(2)
    assert (order.side, order.order_type, order.quantity, order.order_id) == (Side.BUY, OrderType.MARKET, 2.0, "r-X-1")
    ((known, fill),) = ticks["fills"]
    assert (known, fill.market_time, fill.price, fill.quantity) == (close(3), close(2), 102.0, 2.0)
    # 2 units from 102: marked at 103, 104, 104.
    assert [v for t, v in ticks["equity"] if t >= close(3)][-3:] == [1_002.0, 1_004.0, 1_004.0]
    assert ticks["cash"][-1] == (close(3), 796.0)


def test_the_whole_way_of_an_opinion_takes_no_engine_time_but_the_venues() -> None:
    ticks = simulate({"X": [100.0] * 6}, [opinions({2: 1.0, 3: -0.5})])

    assert [(t, s.score) for t, s in ticks["signals"]] == [(close(2), 1.0), (close(3), -0.5)]
    assert [(t, s.source) for t, s in ticks["final_signals"]] == [(close(2), "fused"), (close(3), "fused")]
    assert [(t, p.quantity) for t, p in ticks["targets"]] == [(close(2), 2.0), (close(3), -1.0)]
    # The fill of the first order becomes known in the cycle after the second target: it counts as in flight.
    assert [(t, o.side, o.quantity) for t, o in ticks["orders"]] == [
        (close(2), Side.BUY, 2.0),
        (close(3), Side.SELL, 3.0),
    ]


@pytest.mark.parametrize("idle", [False, True], ids=["alone", "beside an idle symbol"])
def test_no_mark_holds_the_old_position_at_the_new_price(idle: bool) -> None:
    # The position is sold at an open of 100; that bar closes at 50. The account never fell, and no limit is broken.
    prices = {"X": [100.0, 100.0, 100.0, 100.0, 50.0, 50.0]} | ({"Y": [1.0] * 6} if idle else {})
    limits = RiskConfig(drawdown_max=0.05, gross_exposure_max=None, var_max=None)

    def once(bar: ts[Bar], symbol: str, feeds: object) -> ts[Signal]:
        return opinions({1: 1.0, 3: 0.0} if symbol == "X" else {1: 0.0})(bar, symbol, feeds)

    ticks = simulate(prices, [once], config(*prices, risk=limits))
    assert [f.price for f in values(ticks["fills"])] == [100.0, 100.0]
    assert set(values(ticks["equity"])) == {1_000.0}
    assert ticks["risk"] == []


@pytest.mark.parametrize("idle", [False, True], ids=["alone", "beside an idle symbol"])
def test_a_stop_fills_at_the_next_open_however_many_symbols_there_are(idle: bool) -> None:
    prices = {"X": [100.0, 100.0, 100.0, 60.0, 40.0, 20.0]} | ({"Y": [1.0] * 6} if idle else {})
    limits = RiskConfig(drawdown_max=0.05, gross_exposure_max=None, var_max=None)

    def once(bar: ts[Bar], symbol: str, feeds: object) -> ts[Signal]:
        return opinions({1: 1.0} if symbol == "X" else {1: 0.0})(bar, symbol, feeds)

    ticks = simulate(prices, [once], config(*prices, risk=limits))
    # The close of 60 breaks the limit; the bar that opens then opens at 60.
    assert [(f.market_time, f.price) for f in values(ticks["fills"])] == [(close(1), 100.0), (close(3), 60.0)]


def test_symbols_do_not_mix() -> None:
    def only_y(bar: ts[Bar], symbol: str, feeds: object) -> ts[Signal]:
        return opinions({1: 1.0})(bar, symbol, feeds) if symbol == "Y" else csp.null_ts(Signal)

    ticks = simulate({"X": [100.0] * 4, "Y": [7.0, 8.0, 9.0, 10.0]}, [only_y])

    assert {order.symbol for order in values(ticks["orders"])} == {"Y"}
    ((_, fill),) = ticks["fills"]
    assert (fill.symbol, fill.price) == ("Y", 8.0)
    assert ticks["equity"][-1][1] == 1_000.0 + 2.0 * (10.0 - 8.0)


def test_nothing_reaches_the_venue_but_through_the_gate() -> None:
    tight = config("X", risk=RiskConfig(drawdown_max=None, var_max=None, order_notional_max=150.0))
    ticks = simulate({"X": [100.0] * 5}, [opinions({1: 1.0, 2: 0.5})], tight)

    # Two units are worth 200 and refused; one is worth 100 and passes.
    assert [(o.quantity) for o in values(ticks["orders"])] == [2.0, 1.0]
    refused = [u for u in values(ticks["updates"]) if u.state is OrderState.REJECTED]
    assert [(u.order_id, u.code) for u in refused] == [("r-X-1", "order_notional")]
    assert [(f.order_id, f.quantity) for f in values(ticks["fills"])] == [("r-X-2", 1.0)]
    assert [a.level for a in values(ticks["alerts"])] == [AlertLevel.WARNING]


def test_a_stop_flattens_and_nothing_is_opened_again() -> None:
    careful = config("X", risk=RiskConfig(drawdown_max=0.05, gross_exposure_max=None, var_max=None))
    fall = [100.0, 100.0, 100.0, 60.0, 60.0, 60.0, 60.0]
    ticks = simulate({"X": fall}, [opinions({1: 1.0, 5: -1.0})], careful)

    assert [a.code for a in values(ticks["risk"])] == ["drawdown"]
    held = sum(f.quantity if f.side is Side.BUY else -f.quantity for f in values(ticks["fills"]))
    assert held == 0.0
    assert [f.side for f in values(ticks["fills"])] == [Side.BUY, Side.SELL]
    assert AlertLevel.CRITICAL in [a.level for a in values(ticks["alerts"])]


SLOW = PaperConfig(fills=FillModel(slippage_bps=0.0, participation_max=0.001))  # one unit a bar


@pytest.mark.parametrize(
    ("drawdown", "symbol_loss", "codes"),
    [(0.02, 0.05, ["drawdown", "symbol_loss"]), (0.05, 0.02, ["symbol_loss", "drawdown"])],
)
def test_a_stop_and_a_halt_end_flat_whichever_comes_first(
    drawdown: float, symbol_loss: float, codes: list[str]
) -> None:
    # 4 units are bought and sold one a bar, so the order that closes still works when the second action comes.
    limits = RiskConfig(drawdown_max=drawdown, symbol_loss_max=symbol_loss, gross_exposure_max=None, var_max=None)
    four = SizingConfig(mode="fixed", quantity=4.0, confidence_min=0.0, change_min=0.0)
    fall = [100.0] * 7 + [94.0, 80.0] + [70.0] * 8
    ticks = simulate({"X": fall}, [opinions({1: 1.0})], config("X", risk=limits, sizing=four), SLOW)

    assert [a.code for a in values(ticks["risk"])] == codes
    assert {f.quantity for f in values(ticks["fills"])} == {1.0}
    assert ticks["position"][-1][1].quantity == 0.0
    assert len(ticks["fills"]) == 8


@pytest.mark.parametrize(("ratio", "price", "left"), [("2", 30.0, 6.0), ("1/4", 240.0, 0.75)])
def test_a_position_that_is_being_closed_is_closed_after_a_split_too(ratio: str, price: float, left: float) -> None:
    # One of 4 or more units is sold when the split comes: what works is cancelled, and the rest ordered in new units.
    limits = RiskConfig(drawdown_max=0.05, gross_exposure_max=None, var_max=None)
    four = SizingConfig(mode="fixed", quantity=4.0, confidence_min=0.0, change_min=0.0)
    prices = [100.0] * 7 + [60.0, 60.0] + [price] * 12
    split = [(8 * HOUR, CorporateAction(symbol="X", split=ratio))]
    ticks = simulate({"X": prices}, [opinions({1: 1.0})], config("X", risk=limits, sizing=four), SLOW, split)

    ((stopped, _),) = ticks["risk"]
    assert stopped == close(7)
    assert [(t, o.quantity) for t, o in ticks["orders"] if t > stopped] == [(close(8) + SETTLE, left)]
    assert [(u.code, u.remaining) for u in values(ticks["updates"]) if u.code] == [("split", 3.0)]
    assert ticks["position"][-1][1].quantity == 0.0


def test_an_order_that_a_split_overtakes_is_refused_and_sent_again_in_new_units() -> None:
    # Ordered at the close at which the split is known: 2 of the old units, 4 of the new.
    split = [(2 * HOUR, CorporateAction(symbol="X", split="2"))]
    ticks = simulate({"X": [100.0, 100.0, 50.0, 50.0, 50.0, 50.0]}, [opinions({2: 1.0})], splits=split)

    assert [o.quantity for o in values(ticks["orders"])] == [2.0, 4.0]
    assert [(u.order_id, u.code) for u in values(ticks["updates"]) if u.code] == [("r-X-1", "split")]
    assert [(f.order_id, f.quantity, f.price) for f in values(ticks["fills"])] == [("r-X-2", 4.0, 50.0)]


@pytest.mark.parametrize("other", [-1.0, -0.5], ids=["cancel out", "net order refused"])
def test_in_an_account_that_was_never_reset_strategies_do_not_trade_with_each_other(other: float) -> None:
    sizing = SizingConfig(mode="fixed", quantity=2.0, confidence_min=0.0, change_min=0.0)
    two = tuple(StrategyConfig(name=name, signals=SignalsConfig(use=()), sizing=sizing) for name in ("long", "short"))
    plugins = {"long": (opinions({1: 1.0}),), "short": (opinions({1: other}),)}
    trading = config("X", strategies=two)
    free, halted = (simulate({"X": [100.0] * 6}, plugins, trading, halted=halted) for halted in (False, True))
    assert {f.strategy for f in values(free["strategy_fills"])} == {"long", "short"}
    assert halted["strategy_fills"] == halted["fills"] == []


def test_a_graph_without_an_opinion_is_refused() -> None:
    with pytest.raises(ConfigError, match="X has no source of signals"):
        simulate({"X": [100.0]}, [])
    nothing = SignalsConfig(use=("technical", "advisor", "macro"), technical=TechnicalConfig(enabled=()))
    with pytest.raises(ConfigError, match="X has no source of signals"):
        simulate({"X": [100.0]}, [], config("X", signals=nothing))


def test_a_misspelt_weight_is_refused_where_all_names_are_known() -> None:
    misspelt = {"signals": SignalsConfig(use=("technical",)), "fuse": FuseConfig(weights={"momentun": 1.0})}
    with pytest.raises(ConfigError, match="'momentun'; did you mean 'momentum'"):
        simulate({"X": [100.0]}, [], config("X", **misspelt))
    # A plugin names its sources as it likes, so nothing can be called unknown then.
    weighed = config("X", fuse=FuseConfig(weights={"mine": 0.0, "yours": 1.0}))
    ticks = simulate({"X": [100.0] * 3}, [opinions({1: -1.0}), opinions({1: 1.0}, "yours")], weighed)
    assert [s.score for s in values(ticks["final_signals"])] == [1.0]


@given(
    prices=st.lists(st.integers(50, 200), min_size=4, max_size=24),
    scores=st.dictionaries(st.integers(1, 24), st.sampled_from([-1.0, -0.4, 0.0, 0.5, 1.0]), min_size=1),
)
@settings(max_examples=40, deadline=None)
def test_the_books_add_up_whatever_happens(prices: list[int], scores: dict[int, float]) -> None:
    ticks = simulate({"X": [float(price) for price in prices]}, [opinions(dict(sorted(scores.items())))])

    held, cash = 0.0, 1_000.0
    sent = {order.order_id: when for when, order in ticks["orders"]}
    for when, fill in ticks["fills"]:
        assert sent[fill.order_id] <= fill.market_time < when
        assert fill.price == prices[(fill.market_time - T0) // HOUR]  # the open of the bar
        signed = fill.quantity if fill.side is Side.BUY else -fill.quantity
        held += signed
        cash -= signed * fill.price
    assert ticks["cash"][-1][1] == pytest.approx(cash)
    assert ticks["equity"][-1][1] == pytest.approx(cash + held * prices[-1])
    # All but the last order had a bar to fill on; then position is what was wanted last.
    if ticks["orders"] and ticks["orders"][-1][0] < close(len(prices)):
        assert held == pytest.approx(ticks["targets"][-1][1].quantity)


@given(scores=st.dictionaries(st.integers(1, 20), st.floats(-1.0, 1.0), min_size=1), cut=st.integers(2, 20))
@settings(max_examples=25, deadline=None)
def test_the_past_does_not_know_the_future(scores: dict[int, float], cut: int) -> None:
    series = [100.0 + 7.0 * ((number * 13) % 11) for number in range(20)]
    said = dict(sorted(scores.items()))
    whole = simulate({"X": series}, [opinions(said)])
    # The last bar of a prefix closes at its own open, so only what was known before its close is compared.
    prefix = simulate({"X": series[:cut]}, [opinions(said)])
    for stream in ("final_signals", "orders", "fills", "equity"):
        known = [tick for tick in whole[stream] if tick[0] < close(cut)]
        assert [tick for tick in prefix[stream] if tick[0] < close(cut)] == known
