"""THE graph: the same in replay, on paper and live. Only what it is given differs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import csp
from csp import ts

from brokers.events import CancelRequest, Fill, OrderRequest, OrderUpdate
from configs.load import ConfigError
from feeds.events import Bar, MacroPoint, NewsItem, Trade
from feeds.files import Source
from feeds.instruments import Instrument
from feeds.streams import by_symbol, together
from graphs.config import TradingConfig
from nodes.adaptive import adaptive_signal, market_state
from nodes.alerts import price_change_alert
from nodes.events import Alert, MarketState, PositionUpdate, RiskAction, Signal, TargetPosition
from nodes.fuse import check_names, fuse_signals
from nodes.gate import risk_filter
from nodes.macro import macro_signal
from nodes.news import news_signal
from nodes.orders import annual_volatility, generate_orders, target_position, unfilled
from nodes.portfolio import portfolio
from nodes.risk import action_alert, limit_target, risk_monitor
from nodes.technical import technical_signals

# Where approved orders and cancels go, and what comes back: .update (ts[OrderUpdate]) and .fill (ts[Fill]).
Venue = Callable[[ts[OrderRequest], ts[CancelRequest]], Any]

# A user's own signal: (bars of the symbol, symbol, market data files) -> ts[Signal].
SignalPlugin = Callable[[ts[Bar], str, tuple[Source, ...]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feeds:
    """What the graph hears. A symbol needs `bars`; the rest is there or not."""

    bars: dict[str, ts[Bar]]
    bar_lengths: dict[str, timedelta]
    slower_bars: dict[tuple[str, str], ts[Bar]] = field(default_factory=dict)  # by (symbol, bar length)
    trades: dict[str, ts[Trade]] = field(default_factory=dict)
    news: ts[NewsItem] | None = None
    macro: ts[MacroPoint] | None = None
    sources: tuple[Source, ...] = ()  # the files behind `bars` and `trades`, where there are any


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """What the graph says. Edges; each can be printed, recorded, or left alone at no cost."""

    signals: ts[Signal]
    final_signals: ts[Signal]
    targets: ts[TargetPosition]
    orders: ts[OrderRequest]
    updates: ts[OrderUpdate]
    fills: ts[Fill]
    risk: ts[RiskAction]
    alerts: ts[Alert]
    equity: ts[float]
    cash: ts[float]
    position_value: ts[float]
    gross_exposure: ts[float]


def trading_system(
    feeds: Feeds, venue: Venue, config: TradingConfig, *, run_id: str, plugins: tuple[SignalPlugin, ...] = ()
) -> Streams:
    """Wire signals, fusion, sizing, risk and orders between the feeds and a venue.

    Args:
        feeds: market, news and macro events.
        venue: executes what the risk gate lets pass.
        config: of every node.
        run_id: first part of every order id.
        plugins: further signal sources.

    Raises:
        ConfigError: no source of signals, or a fuse weight that names none.
    """
    if not plugins:  # a plugin may name its sources as it likes
        try:
            check_names(config.fuse, _source_names(feeds, config))
        except ValueError as exc:
            raise ConfigError(str(exc)) from None
    instruments = config.instruments
    symbols = [instrument.symbol for instrument in instruments]
    closes = {symbol: feeds.bars[symbol].close for symbol in symbols}

    # What the venue answers, and what it does to the account, comes back by feedback, one engine cycle later.
    fill, update = csp.feedback(Fill), csp.feedback(OrderUpdate)
    fills, updates = by_symbol(fill.out(), symbols), by_symbol(update.out(), symbols)
    position, action, marked = csp.feedback(PositionUpdate), csp.feedback(RiskAction), csp.feedback(float)
    positions, equity = by_symbol(position.out(), symbols), csp.default(marked.out(), config.initial_cash)

    signals, final, targets, orders, alerts = [], [], [], [], [action_alert(action.out())]
    for instrument in instruments:
        symbol = instrument.symbol
        opinion = _opinions(feeds, instrument, config, plugins)
        signals += opinion.signals
        alerts += opinion.alerts
        fused = fuse_signals(opinion.signals, opinion.state, symbol, config.fuse)
        final.append(fused)
        target = target_position(
            fused, closes[symbol], equity, _volatility(closes[symbol], config), instrument, config.sizing
        )
        target = limit_target(target, positions[symbol], action.out(), instrument, config.risk)
        targets.append(target)
        orders.append(generate_orders(target, fills[symbol], updates[symbol], action.out(), instrument, run_id))

    order = together(orders)
    gate = risk_filter(order, fill.out(), update.out(), action.out(), equity, closes, instruments, config.risk)
    answer = venue(gate.approved, csp.unroll(gate.cancel))
    fill.bind(answer.fill)
    update.bind(together([gate.refused, unfilled(answer.update)]))

    # A fill is booked in the cycle that tells of it: no mark holds the old position at the new price.
    account = portfolio(answer.fill, closes, instruments, config.initial_cash)
    risk = risk_monitor(account.equity, account.gross_exposure, closes, account.values, config.risk)
    position.bind(account.position)
    marked.bind(account.equity)
    action.bind(risk)

    return Streams(
        signals=together(signals),
        final_signals=together(final),
        targets=together(targets),
        orders=order,
        updates=together([gate.refused, answer.update]),
        fills=answer.fill,
        risk=risk,
        alerts=together([*alerts, gate.alert]),
        equity=account.equity,
        cash=account.cash,
        position_value=account.position_value,
        gross_exposure=account.gross_exposure,
    )


@dataclass(frozen=True, slots=True)
class _Opinions:
    signals: list[Any]
    alerts: list[Any]
    state: ts[MarketState]


def _opinions(
    feeds: Feeds, instrument: Instrument, config: TradingConfig, plugins: tuple[SignalPlugin, ...]
) -> _Opinions:
    """Every source of signals about one symbol."""
    symbol = instrument.symbol
    bar = feeds.bars[symbol]
    use = config.signals.use
    state = csp.null_ts(MarketState)
    signals, alerts = [], []
    if "technical" in use:
        signals += _technical(bar, symbol, config, "")
        for (slower_symbol, length), slower in feeds.slower_bars.items():
            if slower_symbol == symbol:
                signals += _technical(slower, symbol, config, f"@{length}")
    if "adaptive" in use:
        # A bar of a day or more spans the sessions: it says nothing about which one it is.
        calendar = instrument.calendar if feeds.bar_lengths[symbol] < timedelta(days=1) else "24/7"
        state = market_state(bar.close, bar.volume, symbol, config.signals.market, calendar)
        adaptive = adaptive_signal(bar.close, bar.volume, state, symbol, config.signals.adaptive)
        signals.append(adaptive.signal)
        alerts.append(adaptive.alert)
    if "macro" in use and feeds.macro is not None:
        signals.append(macro_signal(feeds.macro, symbol, config.signals.macro))
    if "news" in use and feeds.news is not None:
        signals.append(news_signal(feeds.news, symbol, config.signals.news))
    if "price_alert" in use:
        alerts.append(price_change_alert(bar.close, symbol, config.signals.price_alert))
    signals += [plugin(bar, symbol, feeds.sources) for plugin in plugins]
    if not signals:
        raise ConfigError(f"{symbol} has no source of signals in signals.use, signals.technical.enabled or a plugin")
    return _Opinions(signals, alerts, state)


def _source_names(feeds: Feeds, config: TradingConfig) -> list[str]:
    """What the signals in use call themselves."""
    names: list[str] = [name for name in ("adaptive", "macro", "news") if name in config.signals.use]
    if "technical" in config.signals.use:
        suffixes = ["", *(f"@{length}" for _, length in feeds.slower_bars)]
        names += [rule + suffix for rule in config.signals.technical.enabled for suffix in suffixes]
    return names


def _technical(bar: ts[Bar], symbol: str, config: TradingConfig, suffix: str) -> list[Any]:
    return list(
        technical_signals(
            bar.open, bar.high, bar.low, bar.close, bar.volume, symbol, config.signals.technical, suffix=suffix
        )
    )


def _volatility(close: ts[float], config: TradingConfig) -> ts[float]:
    if config.sizing.mode != "volatility":
        return csp.null_ts(float)
    return annual_volatility(close, config.sizing.volatility_window)
