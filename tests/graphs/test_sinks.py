"""Where the streams go: printed lines, files."""

from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import csp
import numpy as np
import pyarrow.parquet as pq
import pytest
from support import T0, at

from brokers.events import CashFlow, Fill, Liquidity, OrderRequest, OrderState, OrderType, OrderUpdate, TimeInForce
from feeds.events import Side
from graphs.edges import Streams
from graphs.sinks import print_refusals, print_streams, record_signals, record_streams
from nodes.events import (
    Advice,
    AdviceAction,
    Alert,
    AlertLevel,
    Forecast,
    RiskAction,
    RiskActionKind,
    Signal,
    StrategyFill,
    TargetPosition,
)
from nodes.forecast import LEVELS

SIGNAL = Signal(symbol="X", source="fused", score=-0.50244, confidence=0.0, horizon_s=3600.0, asof=T0)
MARKET = OrderRequest(
    order_id="r-X-1", symbol="X", side=Side.BUY, order_type=OrderType.MARKET, quantity=1.77708415, limit_price=0.0
)
LIMIT = OrderRequest(
    order_id="r-X-2", symbol="X", side=Side.SELL, order_type=OrderType.LIMIT, quantity=100.0, limit_price=1e-08
)
FILL = Fill(
    market_time=T0 - timedelta(hours=1),
    symbol="X",
    side=Side.SELL,
    quantity=1e8,
    price=2408.27,
    fee=-0.5,
    order_id="r-X-2",
    liquidity=Liquidity.MAKER,
)
ACCEPTED = OrderUpdate(order_id="r-X-1", symbol="X", state=OrderState.ACCEPTED, remaining=1.5, code="", reason="")
REFUSED = OrderUpdate(
    order_id="r-X-2", symbol="X", state=OrderState.REJECTED, remaining=0.0, code="halted", reason="trading is halted"
)
STOP = RiskAction(kind=RiskActionKind.EMERGENCY_STOP, code="drawdown", value=0.36, limit=0.35)
ALERT = Alert(
    level=AlertLevel.WARNING, source="price_change", symbol="X", message="X moved -5.02% to 2383", value=-0.05
)
SHARE = StrategyFill(
    strategy="trend", symbol="X", side=Side.SELL, quantity=1e8, price=2408.27, fee=-0.5, order_id="r-X-2"
)
FUNDING = CashFlow(symbol="X", amount=-1.25, kind="funding")
TARGET = TargetPosition(symbol="X", quantity=-3.0, asof=T0)
ADVICE = Advice(
    symbol="",
    action=AdviceAction.SELL_SIGNAL,
    score=-0.52345,
    confidence=0.735,
    reason="down",
    backend="head",
    model_id="head-1",
    prompt_id="",
    item_id="a-1",
    input_hash="0f",
    latency_ms=250.0,
    asof=T0,
    published=T0,
    expires=T0,
)
FORECAST = Forecast(
    symbol="X",
    asof=T0,
    mean=0.0005,
    volatility=0.01,
    quantiles=0.02 * (np.array(LEVELS) - 0.5),
    probability_up=0.52,
    entropy=6.5,
    surprise=7.25,
    token=3,
)


def streams() -> Streams:
    """One tick a stream or two, a second apart."""
    silent = {field.name: csp.null_ts(float) for field in fields(Streams)}
    return replace(
        Streams(**silent),
        signals=at((0, SIGNAL)),
        final_signals=at((0, SIGNAL)),
        targets=at((0, TARGET)),
        orders=at((0, MARKET), (1, LIMIT)),
        updates=at((0, ACCEPTED), (1, REFUSED)),
        fills=at((1, FILL)),
        risk=at((2, STOP)),
        alerts=at((3, ALERT)),
        ai_signals=at((0, ADVICE)),
        equity=at((0, 100_000.0), (1, 99_999.25)),
        cash=at((0, 100_000.0)),
        position_value=at((0, 0.0), (1, -0.75)),
        gross_exposure=at((0, 0.0), (1, 0.75)),
        forecasts=csp.apply(at((1, True)), lambda _: FORECAST, Forecast),  # csp cannot hash one with an array
        strategy_fills=at((1, SHARE)),
        flows=at((2, FUNDING)),
    )


def test_what_is_watched_reads_like_this(capsys: pytest.CaptureFixture[str]) -> None:
    csp.run(lambda: print_streams(streams()), starttime=T0, endtime=timedelta(minutes=1))
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "2024-01-02 14:30:00 ai_signals: SELL_SIGNAL the market score -0.523, confidence 0.735: down [head, item a-1]",
        "2024-01-02 14:30:00 final_signals: X score -0.502, confidence 0.000 [fused]",
        "2024-01-02 14:30:00 orders: BUY 1.77708415 X at market [r-X-1]",
        "2024-01-02 14:30:01 fills: SELL 100000000 X at 2408.27, fee -0.5, maker, traded 2024-01-02 13:30:00 [r-X-2]",
        "2024-01-02 14:30:01 orders: SELL 100 X at limit 0.00000001 [r-X-2]",
        "2024-01-02 14:30:02 risk: EMERGENCY_STOP: drawdown is 0.3600, the limit 0.3500",
        "2024-01-02 14:30:03 alerts: WARNING X moved -5.02% to 2383 [price_change]",
    ]


def test_an_alert_that_begins_with_its_source_is_not_followed_by_it(capsys: pytest.CaptureFixture[str]) -> None:
    well = Alert(level=AlertLevel.INFO, source="b trades", symbol="", message="b trades CONNECTED", value=0.0)
    csp.run(lambda: print_streams(replace(streams(), alerts=at((0, well))), ("alerts",)), starttime=T0)
    assert capsys.readouterr().out == "2024-01-02 14:30:00 alerts: INFO b trades CONNECTED\n"


def test_a_fee_in_what_was_bought_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    bought = FILL.copy()
    bought.fee, bought.base_fee = 0.0, 0.03
    told = replace(streams(), fills=at((0, bought)))
    csp.run(lambda: print_streams(told, ("fills",)), starttime=T0, endtime=timedelta(minutes=1))
    assert ", fee 0.03 of what was bought, maker, " in capsys.readouterr().out


def test_what_the_venue_refuses_is_told_and_not_what_the_gate_does(capsys: pytest.CaptureFixture[str]) -> None:
    def ended(order_id: str, state: OrderState) -> OrderUpdate:
        return OrderUpdate(order_id=order_id, symbol="X", state=state, remaining=1.0, code="why", reason="because")

    rejected = OrderState.REJECTED
    updates = [ended("by the gate", rejected), ACCEPTED, ended("r-X-1", rejected), ended("r-X-2", OrderState.EXPIRED)]
    told = replace(streams(), approved=at((0, MARKET), (1, LIMIT)), updates=at(*enumerate(updates, 1)))
    csp.run(lambda: print_refusals(told), starttime=T0, endtime=timedelta(minutes=1))
    assert capsys.readouterr().out.splitlines() == [
        "2024-01-02 14:30:03 updates: REJECTED X, 1 open [r-X-1]: because (why)",
        "2024-01-02 14:30:04 updates: EXPIRED X, 1 open [r-X-2]: because (why)",
    ]


def test_every_other_stream_can_be_watched_too(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("signals", "targets", "updates", "equity")
    csp.run(lambda: print_streams(streams(), names), starttime=T0, endtime=timedelta(minutes=1))
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "2024-01-02 14:30:00 equity: 100000",
        "2024-01-02 14:30:00 signals: X score -0.502, confidence 0.000 [fused]",
        "2024-01-02 14:30:00 targets: X -3",
        "2024-01-02 14:30:00 updates: ACCEPTED X, 1.5 open [r-X-1]",
        "2024-01-02 14:30:01 equity: 99999.25",
        "2024-01-02 14:30:01 updates: REJECTED X, 0 open [r-X-2]: trading is halted (halted)",
    ]


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"order_type": OrderType.STOP, "stop_price": 9.5}, "stop 9.5"),
        ({"order_type": OrderType.STOP_LIMIT, "stop_price": 9.5, "limit_price": 9.0}, "stop 9.5 limit 9"),
        ({"order_type": OrderType.TRAILING_STOP, "trail": 0.25}, "a trailing stop 0.25 away"),
        ({"order_type": OrderType.TRAILING_STOP, "trail_bps": 50.0}, "a trailing stop 50 bps away"),
        ({"order_type": OrderType.MARKET_IF_TOUCHED, "stop_price": 9.5}, "market if touched 9.5"),
        (
            {"order_type": OrderType.LIMIT, "limit_price": 9.0, "time_in_force": TimeInForce.DAY, "post_only": True},
            "limit 9 DAY, post-only",
        ),
        (
            {"order_type": OrderType.MARKET, "reduce_only": True, "group": "g", "parent": "p", "replaces": "o"},
            "market, reduce-only, group g, child of p, replaces o",
        ),
    ],
)
def test_an_order_is_told_with_all_its_terms(
    terms: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    order = OrderRequest(order_id="1", symbol="X", side=Side.BUY, quantity=2.0, **terms)
    told = replace(streams(), orders=at((0, order)))
    csp.run(lambda: print_streams(told, ("orders",)), starttime=T0, endtime=timedelta(minutes=1))
    assert capsys.readouterr().out == f"2024-01-02 14:30:00 orders: BUY 2 X at {said} [1]\n"


def test_recorded_streams_are_the_ticks(tmp_path: Path) -> None:
    def graph() -> None:
        record_streams(streams(), tmp_path)
        record_signals(streams(), tmp_path)

    csp.run(graph, starttime=T0, endtime=timedelta(minutes=1))

    orders = pq.read_table(tmp_path / "orders.parquet").to_pylist()
    assert [(o["time"].replace(tzinfo=None).to_pydatetime(), o["order_id"], o["side"]) for o in orders] == [
        (T0, "r-X-1", "BUY"),
        (T0 + timedelta(seconds=1), "r-X-2", "SELL"),
    ]
    equity = pq.read_table(tmp_path / "equity.parquet").drop_columns("time").to_pylist()
    assert equity == [
        {"equity": 100_000.0, "cash": 100_000.0, "position_value": 0.0, "gross_exposure": 0.0},
        {"equity": 99_999.25, "cash": 100_000.0, "position_value": -0.75, "gross_exposure": 0.75},
    ]
    assert pq.read_table(tmp_path / "fills.parquet")["price"].to_pylist() == [2408.27]
    assert pq.read_table(tmp_path / "updates.parquet")["state"].to_pylist() == ["ACCEPTED", "REJECTED"]
    assert pq.read_table(tmp_path / "strategy_fills.parquet")["strategy"].to_pylist() == ["trend"]
    assert pq.read_table(tmp_path / "flows.parquet")["amount"].to_pylist() == [-1.25]
    (forecast,) = pq.read_table(tmp_path / "forecasts.parquet").drop_columns(["time", "asof"]).to_pylist()
    quantiles = {name: forecast.pop(name) for name in ("q01", "q05", "q25", "q50", "q75", "q95", "q99")}
    assert list(quantiles.values()) == FORECAST.quantiles.tolist()
    assert forecast == {name: getattr(FORECAST, name) for name in forecast}
    assert set(forecast) == {"symbol", "mean", "volatility", "probability_up", "entropy", "surprise", "token"}
    (advice,) = (
        pq.read_table(tmp_path / "ai_signals.parquet").drop_columns(["asof", "published", "expires"]).to_pylist()
    )
    assert advice.pop("time").replace(tzinfo=None) == T0
    assert advice == {name: getattr(ADVICE, name) for name in advice} | {"action": "SELL_SIGNAL"}
    assert len(advice) == 11
    assert pq.read_table(tmp_path / "alerts.parquet")["level"].to_pylist() == ["WARNING"]
    assert pq.read_table(tmp_path / "final_signals.parquet")["score"].to_pylist() == [-0.50244]
