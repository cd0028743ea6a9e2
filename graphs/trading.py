"""THE graph: the same in replay, on paper and live. Only what it is given differs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any

import csp
from csp import ts

from brokers.events import CancelRequest, CorporateAction
from brokers.opening import Opening
from configs.load import ConfigError
from feeds.events import Bar, Trade
from feeds.instruments import Instrument
from feeds.streams import SETTLE, by_symbol, together
from graphs.account import Account, once_connected
from graphs.advising import advise
from graphs.config import MAIN, StrategyConfig, TradingConfig
from graphs.edges import AccountStreams, Feeds, Streams, Venue
from graphs.forecasting import price_forecasts
from nodes.adaptive import adaptive_signal, market_state
from nodes.advice_exposure import cap_advice
from nodes.advise import SOURCE as ADVISOR
from nodes.advise import advice_signal
from nodes.alerts import price_change_alert
from nodes.allocation import allocate, net_target
from nodes.events import Alert, MarketState, PositionUpdate, RiskAction, Signal, StrategyFill, TargetPosition
from nodes.forecast import expected_volatility, forecast_signal
from nodes.fuse import check_names, fuse_signals
from nodes.macro import macro_signal
from nodes.orders import generate_orders
from nodes.risk import limit_target
from nodes.since import since_live
from nodes.sizing import annual_volatility, kelly_fraction, target_position
from nodes.strategies import strategy_book, strategy_guard
from nodes.technical import technical_signals

# A user's own signal: (bars of the symbol, symbol, all that the graph hears) -> ts[Signal]; by name of strategy.
SignalPlugin = Callable[[ts[Bar], str, Feeds], Any]
Plugins = Mapping[str, tuple[SignalPlugin, ...]]


@dataclass(slots=True)
class _Said:
    """What the strategies say on the way to their targets."""

    signals: list[ts[Signal]] = field(default_factory=list)
    final: list[ts[Signal]] = field(default_factory=list)
    alerts: list[ts[Alert]] = field(default_factory=list)


def trading_system(
    feeds: Feeds,
    venue: Venue,
    config: TradingConfig,
    *,
    run_id: str,
    plugins: Plugins | None = None,
    halted: bool = False,
    opening: Opening | None = None,
    actions: tuple[ts[RiskAction], ...] = (),
) -> Streams:
    """Wire signals, fusion, sizing, risk and orders between the feeds and a venue.

    Args:
        feeds: market, news and macro events.
        venue: executes what the risk gate lets pass.
        config: of every node.
        run_id: first part of every order id.
        plugins: further signal sources, by strategy.
        halted: a person has not reset an earlier emergency stop: nothing trades.
        opening: what the account starts with, where that is more than cash.
        actions: what others ask of everyone, beside the risk monitor; such as a person who stops the run.

    Raises:
        ConfigError: no source of signals, a fuse weight that names none, or a price model that cannot be used.
    """
    said = _Said()
    if not feeds.forecasts:
        told = price_forecasts(feeds, config)
        feeds = replace(feeds, forecasts=told.by_symbol)
        said.alerts += told.alerts
    if feeds.advice is None:
        advised = advise(feeds, config)
        feeds = replace(feeds, advice=advised.advice)
        said.alerts += advised.alerts
    account = Account(feeds, config, opening)
    wire = _alone if _is_alone(config) else _netted
    wanted = wire(feeds, config, account, said, plugins or {}, halted)
    orders = [
        generate_orders(
            wanted.targets[instrument.symbol],
            account.fills[instrument.symbol],
            account.unfilled[instrument.symbol],
            account.action,
            instrument,
            run_id,
            csp.null_ts(CorporateAction) if feeds.corporate_actions is None else feeds.corporate_actions,
            opening,
            account.again,
            config.risk.cash_only,
        )
        for instrument in config.instruments
    ]
    done = account.trade(
        together(orders),
        csp.null_ts(CancelRequest),
        venue,
        actions=(*wanted.actions, *actions),
        alerts=tuple(said.alerts),
        halted=halted,
    )
    return Streams(
        **{field.name: getattr(done, field.name) for field in fields(done)},
        signals=together(said.signals),
        final_signals=together(said.final),
        targets=together(list(wanted.targets.values())),
        forecasts=together(list(feeds.forecasts.values())) if feeds.forecasts else None,
        ai_signals=feeds.advice,
        strategy_fills=None if wanted.share is None else wanted.share(done),
    )


def _is_alone(config: TradingConfig) -> bool:
    """Whether there is one strategy, and the books of the account are all that it needs."""
    return len(config.strategies) == 1 and not config.strategies[0].limits.active


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be held of each symbol, and how what comes of it is shared among several strategies."""

    targets: dict[str, ts[TargetPosition]]
    actions: tuple[ts[RiskAction], ...] = ()
    share: Callable[[AccountStreams], ts[StrategyFill]] | None = None


def _alone(
    feeds: Feeds, config: TradingConfig, account: Account, said: _Said, plugins: Plugins, halted: bool
) -> _Wanted:
    """One strategy: its books are the account's."""
    (strategy,) = config.strategies
    targets = _targets(feeds, config, strategy, account, _allotted(account, strategy), said, plugins)
    for instrument in config.instruments:
        symbol = instrument.symbol
        position = account.positions[symbol]
        targets[symbol] = limit_target(
            targets[symbol], position, account.action, instrument, config.risk, held=account.wanted[symbol]
        )
    return _Wanted(targets)


def _netted(
    feeds: Feeds, config: TradingConfig, account: Account, said: _Said, plugins: Plugins, halted: bool
) -> _Wanted:
    """Several strategies, each with books of its own: what they want of a symbol is netted before it is ordered."""
    if feeds.corporate_actions is not None:
        raise ConfigError("splits and dividends cannot be shared among strategies; use adjusted prices")
    shared = csp.feedback(StrategyFill)
    each: dict[str, dict[str, ts[TargetPosition]]] = {i.symbol: {} for i in config.instruments}
    actions = []
    for strategy in config.strategies:
        targets = _targets(feeds, config, strategy, account, _allotted(account, strategy), said, plugins)
        targets, held, action = _own_limits(strategy, targets, shared.out(), feeds, config, account)
        actions += action
        for instrument in config.instruments:
            symbol = instrument.symbol
            each[symbol][strategy.name] = limit_target(
                targets[symbol], held[symbol], account.action, instrument, config.risk
            )
    nets = {i.symbol: net_target(each[i.symbol], i) for i in config.instruments}

    def share(done: AccountStreams) -> ts[StrategyFill]:
        symbols = list(nets)
        fills, updates = by_symbol(done.fills, symbols), by_symbol(done.updates, symbols)
        shares = [
            allocate(
                fills[i.symbol],
                updates[i.symbol],
                each[i.symbol],
                nets[i.symbol],
                feeds.bars[i.symbol],
                feeds.trades.get(i.symbol, csp.null_ts(Trade)),
                account.action,
                i,
                halted,
                account.opening,
            )
            for i in config.instruments
        ]
        fill = together([csp.unroll(list_) for list_ in shares])
        shared.bind(fill)
        return fill

    return _Wanted(nets, tuple(actions), share)


def _allotted(account: Account, strategy: StrategyConfig) -> ts[float]:
    """The equity that a strategy's sizing sees."""
    return account.equity if strategy.allocation == 1.0 else account.equity * strategy.allocation


def _own_limits(
    strategy: StrategyConfig,
    targets: dict[str, ts[TargetPosition]],
    fill: ts[StrategyFill],
    feeds: Feeds,
    config: TradingConfig,
    account: Account,
) -> tuple[dict[str, ts[TargetPosition]], dict[str, ts[PositionUpdate]], list[ts[RiskAction]]]:
    """Keep the books of one strategy.

    Returns:
        What its own limits leave of `targets`, what it holds of each symbol, and what its limits ask for.
    """
    name, instruments = strategy.name, config.instruments
    options = {"currency": config.currency, "method": config.cost_basis, "rates": feeds.rates}
    books = strategy_book(fill, name, account.closes, instruments, **options)
    held = by_symbol(books.position, list(targets))
    if not strategy.limits.active:
        return targets, held, []
    money = strategy.allocation * config.initial_cash
    guard = strategy_guard(targets, books.equity, books.position, name, money, instruments, strategy.limits)
    return {symbol: guard.targets[symbol] for symbol in targets}, held, [guard.action]


def _targets(
    feeds: Feeds,
    config: TradingConfig,
    strategy: StrategyConfig,
    account: Account,
    equity: ts[float],
    said: _Said,
    plugins: Plugins,
) -> dict[str, ts[TargetPosition]]:
    """What one strategy wants to hold of each symbol."""
    alone, extra = _is_alone(config), plugins.get(strategy.name, ())
    if not extra:  # a plugin may name its sources as it likes
        try:
            check_names(strategy.fuse, _source_names(feeds, strategy))
        except ValueError as exc:
            raise ConfigError(str(exc)) from None
    targets = {}
    for instrument in config.instruments:
        symbol = instrument.symbol
        opinion = _opinions(feeds, instrument, strategy, config, extra)
        signals = [*opinion.signals, *opinion.advised]
        said.signals += signals
        said.alerts += opinion.alerts
        fused = _fused(signals, opinion.state, feeds, symbol, strategy)
        said.final.append(fused)
        target = _sized(fused, feeds, instrument, strategy, account, equity, alone=alone)
        if opinion.advised:
            own = csp.null_ts(TargetPosition)
            if opinion.signals:
                own = _fused(opinion.signals, opinion.state, feeds, symbol, strategy)
                own = _sized(own, feeds, instrument, strategy, account, equity, alone=alone)
            held = account.wanted[symbol]
            price = account.prices[symbol]
            target = cap_advice(
                target,
                own,
                together(opinion.advised),
                price,
                equity,
                instrument,
                config.advisor,
                held=held if alone else 0.0,
                decide=not alone and held != 0.0,
            )
        targets[symbol] = once_connected(target, symbol, feeds)
    return targets


def _fused(
    signals: list[Any], state: ts[MarketState], feeds: Feeds, symbol: str, strategy: StrategyConfig
) -> ts[Signal]:
    """What signals say together. History is for opinions to form, not to be traded: live they begin with `live`."""
    fused = fuse_signals(signals, state, symbol, strategy.fuse)
    if feeds.live is None:
        return fused
    return since_live(fused, csp.delay(feeds.live, SETTLE))  # by then the books have their first mark


def _sized(
    fused: ts[Signal],
    feeds: Feeds,
    instrument: Instrument,
    strategy: StrategyConfig,
    account: Account,
    equity: ts[float],
    *,
    alone: bool,
) -> ts[TargetPosition]:
    """The position that an opinion is worth."""
    symbol, sizing = instrument.symbol, strategy.sizing
    volatility = kelly = csp.null_ts(float)
    if sizing.mode == "volatility":
        volatility = _volatility(feeds, symbol, strategy)
    elif sizing.mode == "kelly":
        kelly = kelly_fraction(fused, account.closes[symbol], sizing.kelly_window)
    wanted = account.wanted[symbol]
    return target_position(
        fused,
        account.prices[symbol],
        equity,
        volatility,
        kelly,
        instrument,
        sizing,
        held=wanted if alone else 0.0,
        decide=not alone and wanted != 0.0,  # it is nobody's yet
    )


def _volatility(feeds: Feeds, symbol: str, strategy: StrategyConfig) -> ts[float]:
    """What sizing goes by. The bars of history count: the marks of a live run begin without any."""
    sizing, close = strategy.sizing, feeds.bars[symbol].close
    realised = annual_volatility(close, sizing.volatility_window)
    if sizing.volatility_from == "realised" or symbol not in feeds.forecasts:
        return realised
    return expected_volatility(feeds.forecasts[symbol], close, realised, sizing.volatility_window)


@dataclass(frozen=True, slots=True)
class _Opinions:
    signals: list[Any]
    advised: list[Any]  # the advisor's, where it is asked: its part in a position is capped
    alerts: list[Any]
    state: ts[MarketState]


def _opinions(
    feeds: Feeds,
    instrument: Instrument,
    strategy: StrategyConfig,
    config: TradingConfig,
    plugins: tuple[SignalPlugin, ...],
) -> _Opinions:
    """Every source of signals about one symbol."""
    symbol = instrument.symbol
    bar = feeds.bars[symbol]
    use = strategy.signals.use
    state = csp.null_ts(MarketState)
    signals, alerts = [], []
    if "technical" in use:
        signals += _technical(bar, symbol, strategy, "")
        for (slower_symbol, length), slower in feeds.slower_bars.items():
            if slower_symbol == symbol:
                signals += _technical(slower, symbol, strategy, f"@{length}")
    if "adaptive" in use:
        # A bar of a day or more spans the sessions: it says nothing about which one it is.
        calendar = instrument.calendar if feeds.bar_lengths[symbol] < timedelta(days=1) else "24/7"
        state = market_state(bar.close, bar.volume, symbol, strategy.signals.market, calendar)
        adaptive = adaptive_signal(bar.close, bar.volume, state, symbol, strategy.signals.adaptive)
        signals.append(adaptive.signal)
        alerts.append(adaptive.alert)
    if "forecast" in use and symbol in feeds.forecasts:
        round_trip = 2e-4 * instrument.taker_bps
        horizon = feeds.bar_lengths[symbol]
        signals.append(forecast_signal(feeds.forecasts[symbol], config.forecast, horizon, round_trip))
    if "macro" in use and feeds.macro is not None:
        signals.append(macro_signal(feeds.macro, symbol, strategy.signals.macro))
    advised = []
    if ADVISOR in use and feeds.advice is not None:
        advised.append(advice_signal(feeds.advice, bar.close, symbol, config.advisor))
    if "price_alert" in use:
        alerts.append(price_change_alert(bar.close, symbol, strategy.signals.price_alert))
    signals += [plugin(bar, symbol, feeds) for plugin in plugins]
    if not signals and not advised:
        whose = "" if strategy.name == MAIN else f"strategy {strategy.name}: "
        raise ConfigError(
            f"{whose}{symbol} has no source of signals in signals.use, signals.technical.enabled or a plugin"
        )
    return _Opinions(signals, advised, alerts, state)


def _source_names(feeds: Feeds, strategy: StrategyConfig) -> list[str]:
    """What the signals in use call themselves."""
    names: list[str] = [name for name in ("adaptive", "advisor", "forecast", "macro") if name in strategy.signals.use]
    if "technical" in strategy.signals.use:
        suffixes = ["", *(f"@{length}" for _, length in feeds.slower_bars)]
        names += [rule + suffix for rule in strategy.signals.technical.enabled for suffix in suffixes]
    return names


def _technical(bar: ts[Bar], symbol: str, strategy: StrategyConfig, suffix: str) -> list[Any]:
    return list(
        technical_signals(
            bar.open, bar.high, bar.low, bar.close, bar.volume, symbol, strategy.signals.technical, suffix=suffix
        )
    )
