"""Where the streams go: the terminal, files, a progress bar."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import csp
from csp import ts
from csp.adapters.parquet import ParquetOutputConfig, ParquetWriter

from brokers.events import NEVER, Fill, OrderRequest, OrderState, OrderType, OrderUpdate, TimeInForce
from brokers.figures import passed
from brokers.orders import ENDED
from graphs.edges import AccountStreams, Streams
from nodes.events import Advice, Alert, Forecast, RiskAction, RiskActionKind, Signal, TargetPosition
from nodes.forecast import LEVELS

T = TypeVar("T")

_NOT_TAKEN = (OrderState.REJECTED, OrderState.EXPIRED)
WATCHED = ("ai_signals", "final_signals", "orders", "fills", "risk", "alerts")


def print_streams(streams: AccountStreams, names: tuple[str, ...] = WATCHED) -> None:
    """Print streams to stdout as they tick, one line a tick, engine time first."""
    for name in names:
        edge = getattr(streams, name, None)
        if edge is not None:  # nobody may be asked for advice
            csp.print(name, _line(edge))


def print_refusals(streams: AccountStreams) -> None:
    """Print what the venue says of orders that it did not take or let expire. What the gate refuses is an alert."""
    csp.print("updates", _line(_refused(streams.approved, streams.updates)))


@csp.node
def _refused(approved: ts[OrderRequest], update: ts[OrderUpdate]) -> ts[OrderUpdate]:
    with csp.state():
        s_sent = set[str]()

    if csp.ticked(approved):
        s_sent.add(approved.order_id)
    if csp.ticked(update) and update.state in ENDED and update.order_id in s_sent:
        s_sent.remove(update.order_id)
        if update.state in _NOT_TAKEN:
            return update


def _number(value: float) -> str:
    """All digits of a price or quantity and no more: 8.37559382, 100, 0.00000001."""
    return format(Decimal(repr(value)).normalize(), "f")


def _order(order: OrderRequest) -> str:
    terms = _TERMS[order.order_type](order)
    if order.time_in_force is not TimeInForce.GTC:
        terms += f" {order.time_in_force.name}"
    flags = "".join(f", {name.replace('_', '-')}" for name in ("post_only", "reduce_only") if getattr(order, name))
    links = "".join(
        f", {word} {key}"
        for word, key in (("group", order.group), ("child of", order.parent), ("replaces", order.replaces))
        if key
    )
    return f"{order.side.name} {_number(order.quantity)} {order.symbol} at {terms}{flags}{links} [{order.order_id}]"


def _trail(order: OrderRequest) -> str:
    return (
        f"a trailing stop {_price(order.trail)} away"
        if order.trail
        else f"a trailing stop {order.trail_bps:g} bps away"
    )


_TERMS: dict[OrderType, Callable[[OrderRequest], str]] = {
    OrderType.MARKET: lambda order: "market",
    OrderType.LIMIT: lambda order: f"limit {_price(order.limit_price)}",
    OrderType.STOP: lambda order: f"stop {_price(order.stop_price)}",
    OrderType.STOP_LIMIT: lambda order: f"stop {_price(order.stop_price)} limit {_price(order.limit_price)}",
    OrderType.TRAILING_STOP: _trail,
    OrderType.MARKET_IF_TOUCHED: lambda order: f"market if touched {_price(order.stop_price)}",
}


def _update(update: OrderUpdate) -> str:
    why = f": {update.reason} ({update.code})" if update.code else ""
    return f"{update.state.name} {update.symbol}, {_number(update.remaining)} open [{update.order_id}]{why}"


def _fill(fill: Fill) -> str:
    traded = f"{fill.side.name} {_number(fill.quantity)} {fill.symbol} at {_number(fill.price)}"
    fee = f"{_number(fill.base_fee)} of what was bought" if fill.base_fee else _number(fill.fee)
    terms = f"fee {fee}, {fill.liquidity.name.lower()}, traded {fill.market_time}"
    return f"{traded}, {terms} [{fill.order_id}]"


def _signal(signal: Signal) -> str:
    return f"{signal.symbol} score {signal.score:+.3f}, confidence {signal.confidence:.3f} [{signal.source}]"


def _advice(advice: Advice) -> str:
    said = f"score {advice.score:+.3f}, confidence {advice.confidence:.3f}"
    about = advice.symbol or "the market"
    return f"{advice.action.name} {about} {said}: {advice.reason} [{advice.backend}, item {advice.item_id}]"


def _target(target: TargetPosition) -> str:
    return f"{target.symbol} {_number(target.quantity)}"


def _price(value: float) -> str:
    """A price as a strategy computed it, without the noise of a float: 2464.1991, not 2464.1991000000003."""
    return _number(float(f"{value:.12g}"))


def _risk(action: RiskAction) -> str:
    if action.kind is RiskActionKind.WIND_DOWN:
        works = {"cancel": "is cancelled", "keep": "stays"}[action.code]
        return f"{action.kind.name}: asked to stop, nothing new is sent; what works {works}"
    whom = "".join(f" {name}" for name in (action.symbol, action.strategy) if name)
    until = f" until {action.until}" if action.until < NEVER else ""
    return f"{action.kind.name}{whom}{until}: {passed(action.code, action.value, action.limit)}"


def _alert(alert: Alert) -> str:
    source = "" if alert.message.startswith(alert.source) else f" [{alert.source}]"
    return f"{alert.level.name} {alert.message}{source}"


_WORDS: dict[type, Callable[[Any], str]] = {
    OrderRequest: _order,
    OrderUpdate: _update,
    Fill: _fill,
    Advice: _advice,
    Signal: _signal,
    TargetPosition: _target,
    RiskAction: _risk,
    Alert: _alert,
    float: _number,
}


@csp.node
def _line(event: ts[T]) -> ts[str]:
    """An event as a person reads it; the space parts it from the name that csp.print puts before it."""
    if csp.ticked(event):
        return " " + _WORDS[type(event)](event)


def record_streams(streams: AccountStreams, folder: Path) -> None:
    """Write the streams of a run as Parquet; `time` is engine time in nanoseconds.

    A file is complete when the engine has stopped, also after an error or Ctrl-C.
    """
    fill = streams.fills
    _write(
        folder / "fills.parquet",
        {
            "market_time": fill.market_time,
            "symbol": fill.symbol,
            "side": fill.side,
            "quantity": fill.quantity,
            "price": fill.price,
            "fee": fill.fee,
            "order_id": fill.order_id,
            "liquidity": fill.liquidity,
            "base_fee": fill.base_fee,
            "decision_price": fill.decision_price,
            "market_price": fill.market_price,
            "half_spread": fill.half_spread,
        },
    )
    order = streams.orders
    _write(
        folder / "orders.parquet",
        {
            "order_id": order.order_id,
            "symbol": order.symbol,
            "side": order.side,
            "order_type": order.order_type,
            "quantity": order.quantity,
            "limit_price": order.limit_price,
            "stop_price": order.stop_price,
            "trail": order.trail,
            "trail_bps": order.trail_bps,
            "time_in_force": order.time_in_force,
            "expires": order.expires,
            "post_only": order.post_only,
            "reduce_only": order.reduce_only,
            "group": order.group,
            "parent": order.parent,
            "replaces": order.replaces,
            "strategy": order.strategy,
        },
    )
    update = streams.updates
    _write(
        folder / "updates.parquet",
        {
            "order_id": update.order_id,
            "symbol": update.symbol,
            "state": update.state,
            "remaining": update.remaining,
            "code": update.code,
            "reason": update.reason,
        },
    )
    forecast = streams.forecasts if isinstance(streams, Streams) else None
    if forecast is not None:
        levels = {f"q{level * 100:02.0f}": _quantile(forecast, n) for n, level in enumerate(LEVELS)}
        names = ("symbol", "asof", "mean", "volatility", "probability_up", "entropy", "surprise", "token")
        _write(folder / "forecasts.parquet", {name: getattr(forecast, name) for name in names} | levels)
    advice = streams.ai_signals if isinstance(streams, Streams) else None
    if advice is not None:
        _write(folder / "ai_signals.parquet", {name: getattr(advice, name) for name in Advice.metadata()})
    shares = streams.strategy_fills if isinstance(streams, Streams) else None
    if shares is not None:
        _write(
            folder / "strategy_fills.parquet",
            {
                "strategy": shares.strategy,
                "symbol": shares.symbol,
                "side": shares.side,
                "quantity": shares.quantity,
                "price": shares.price,
                "fee": shares.fee,
                "base_fee": shares.base_fee,
                "order_id": shares.order_id,
            },
        )
    if streams.flows is not None:
        flow = streams.flows
        _write(folder / "flows.parquet", {"symbol": flow.symbol, "amount": flow.amount, "kind": flow.kind})
    alert = streams.alerts
    _write(
        folder / "alerts.parquet",
        {
            "level": alert.level,
            "source": alert.source,
            "symbol": alert.symbol,
            "message": alert.message,
            "value": alert.value,
        },
    )
    _write(
        folder / "equity.parquet",
        {
            "equity": streams.equity,
            "cash": csp.sample(streams.equity, streams.cash),
            # A flow of money moves equity alone: each row still says everything.
            "position_value": csp.sample(streams.equity, streams.position_value),
            "gross_exposure": csp.sample(streams.equity, streams.gross_exposure),
        },
    )


@csp.node
def _quantile(forecast: ts[Forecast], n: int) -> ts[float]:
    if csp.ticked(forecast):
        return float(forecast.quantiles[n])


def record_signals(streams: Streams, folder: Path) -> None:
    """Write every signal, before and after fusion: what the look-ahead check compares."""
    for name in ("signals", "final_signals"):
        signal = getattr(streams, name)
        fields = ("symbol", "source", "score", "confidence", "horizon_s")
        _write(folder / f"{name}.parquet", {field: getattr(signal, field) for field in fields})


def _write(path: Path, columns: dict[str, ts[object]]) -> None:
    writer = ParquetWriter(str(path), "time", config=ParquetOutputConfig(allow_overwrite=True, compression="zstd"))
    for name, edge in columns.items():
        writer.publish(name, edge)


@csp.node
def report_progress(event: ts[T], every: int, report: Callable[[datetime], None]) -> None:
    """Call `report` with the engine time on every `every`-th event. Only wired where a person looks."""
    with csp.state():
        s_seen = 0

    if csp.ticked(event):
        s_seen += 1
        if s_seen >= every:
            s_seen = 0
            report(csp.now())
