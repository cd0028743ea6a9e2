"""History through the graph: choose feeds, venue and sinks, run, and judge what came out."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import csp
from csp import ts

from brokers.events import Answers, CancelRequest, OrderRequest
from brokers.figures import passed
from brokers.journal import Halt
from brokers.paper import Market, paper_venue
from configs.load import ConfigError
from feeds import news, replay
from feeds.events import Bar, MacroPoint, Trade
from feeds.files import Description, Source, describe
from feeds.instruments import Instrument
from feeds.streams import SETTLE, together
from feeds.times import bar_length, length_label
from graphs import checks
from graphs.config import BacktestConfig, Conversion, TradingConfig, all_strategies
from graphs.edges import Feeds, Venue
from graphs.folders import prepare
from graphs.forecasting import checkpoints
from graphs.sinks import print_streams, record_signals, record_streams, report_progress
from graphs.trading import Plugins, trading_system
from nodes.bars import bar_aggregator
from nodes.events import RiskAction, RiskActionKind
from nodes.halts import keep_halt
from nodes.price_model import Checkpoints

_PROGRESS_EVERY = 1_000  # market events


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked backtest: every file was read through once, every symbol is there, the window is known."""

    config: BacktestConfig
    trading: TradingConfig
    feeds: tuple[tuple[Source, Description], ...]
    macro: tuple[tuple[Source, Description], ...]
    start: datetime
    end: datetime
    plugins: Plugins
    models: Checkpoints | None = field(default=None, compare=False)  # the price models wanted; None: none is
    in_sample: tuple[tuple[datetime, datetime], ...] = ()  # parts of the window that the price models were trained on
    halted: Halt | None  # an emergency stop of an earlier run that nobody has reset


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run a plan; nothing here changes a result."""

    out: Path
    quiet: bool = False
    speed: float | None = None  # times real time; None: as fast as possible
    signals: bool = False  # also record every signal
    progress: Callable[[datetime], None] | None = None


def plan(config: BacktestConfig, *, whole: bool = True) -> Plan:
    """Read and check everything that a run will need.

    Args:
        whole: False for files that are cut short, where a symbol or a series may not have begun: the config was
            checked against the whole files before.

    Raises:
        ConfigError, FeedError: with a message for the user.
    """
    if not config.feeds:
        raise ConfigError("there is no market data: name a file with --data, or [[feeds]] in a config")
    halted = checks.open_halt(config)
    feeds = tuple((source, describe(source, whole=whole)) for source in config.feeds)
    macro = tuple((source, describe(source, whole=whole)) for source in config.macro)
    checks.check_kinds(feeds, "feeds", ("bars", "trades"))
    checks.check_kinds(macro, "macro", ("macro",))
    checks.check_latency(config, feeds)
    for item in config.news:
        news.describe(item)
    symbols = checks.symbols_to_trade(config, feeds)
    checks.check_overlap(config, feeds, symbols)
    start, end = checks.window(config, feeds, symbols)
    in_sample = checks.seen_in_training(config, feeds, symbols, start, end)
    known = {instrument.symbol: instrument for instrument in config.instruments}
    trading = TradingConfig(
        instruments=tuple(known.get(symbol, Instrument(symbol=symbol)) for symbol in symbols),
        strategies=all_strategies(config),
        initial_cash=config.initial_cash,
        currency=config.currency,
        cost_basis=config.cost_basis,
        risk=config.risk,
        forecast=config.forecast,
        advisor=config.advisor,
    )
    checks.check_account(trading)
    checks.check_conversions(config, trading, feeds)
    if whole:
        checks.check_macro(config, macro)
        checks.check_tradable(trading, feeds, start, end)
    plugins = {
        strategy.name: tuple(checks.load_plugin(name) for name in strategy.signals.plugins)
        for strategy in trading.strategies
    }
    return Plan(
        config=config,
        trading=trading,
        feeds=feeds,
        macro=macro,
        start=start,
        end=end,
        plugins=plugins,
        models=checkpoints(config.forecast),
        in_sample=in_sample,
        halted=halted,
    )


@dataclass(slots=True, eq=False)  # compared by identity, so that csp can hash it
class Outcome:
    """How a run ended."""

    reached: datetime  # engine time of the last event
    halted: str = ""  # when and why risk stopped it; "" when it did not
    interrupted: bool = False  # a person stopped it
    trouble: str = ""  # what else went wrong while it stopped
    rates: dict[str, float] = field(default_factory=dict)  # the last one of each foreign currency


def run(plan: Plan, options: Options) -> Outcome:
    """Run a plan and write its streams to `options.out`.

    Ctrl-C stops the engine; what ticked until then is on disk, and the outcome says so. The files of an earlier run
    in the folder are removed once the graph stands.

    Raises:
        ConfigError: the graph cannot be wired, or the folder cannot be written to.
        DataError: a file changed since it was checked.
    """
    outcome = Outcome(reached=plan.start)
    # The marks of the last instant settle a microsecond after it.
    window = {"starttime": plan.start, "endtime": plan.end + SETTLE}
    graph = csp.build_graph(_graph, plan, options, outcome, **window)
    prepare(options.out)
    with _interruptible(outcome):
        csp.run(graph, **window)
    return outcome


@csp.node
def remember_end(risk: ts[RiskAction], outcome: Outcome, end: datetime) -> None:
    """Note when the engine stopped, and whether risk had halted trading."""
    with csp.stop():
        outcome.reached = min(csp.now(), end)

    if csp.ticked(risk) and risk.kind is RiskActionKind.EMERGENCY_STOP:
        outcome.halted = passed(risk.code, risk.value, risk.limit, csp.now())


@csp.node
def remember_rate(rate: ts[float], currency: str, outcome: Outcome) -> None:
    """Note the last rate of a currency."""
    if csp.ticked(rate):
        outcome.rates[currency] = rate


def _graph(plan: Plan, options: Options, outcome: Outcome) -> None:
    config = plan.config
    feeds = replayed_feeds(plan, options.speed)

    streams = trading_system(
        feeds,
        simulated_venue(plan, feeds),
        plan.trading,
        run_id=config.name,
        plugins=plan.plugins,
        halted=plan.halted is not None,
    )
    if config.journal:
        keep_halt(streams.risk, streams.equity, config.journal)
    record_streams(streams, options.out)
    if options.signals:
        record_signals(streams, options.out)
    if not options.quiet:
        print_streams(streams)
    if options.progress is not None:
        report_progress(together(list(feeds.bars.values())), _PROGRESS_EVERY, options.progress)
    remember_end(streams.risk, outcome, plan.end)
    for currency, rate in feeds.rates.items():
        remember_rate(rate, currency, outcome)


def simulated_venue(plan: Plan, feeds: Feeds) -> Venue:
    """The paper venue, on whatever the feeds have to fill against."""
    market = Market(
        bars=feeds.bars,
        trades=feeds.trades,
        quotes=feeds.quotes,
        depth=feeds.depth,
        corporate=feeds.corporate_actions,
    )

    def venue(order: ts[OrderRequest], cancel: ts[CancelRequest]) -> Answers:
        return paper_venue(order, cancel, market, plan.trading.instruments, plan.config.broker)

    return venue


def replayed_feeds(plan: Plan, speed: float | None = None) -> Feeds:
    """Every file of a plan as edges; each symbol trades on its shortest bars.

    Args:
        speed: times real time, by holding the engine back at each market event; None: as fast as possible.
    """
    symbols = [instrument.symbol for instrument in plan.trading.instruments]
    by_length: dict[str, list[tuple[timedelta, ts[Bar]]]] = {symbol: [] for symbol in symbols}
    trades: dict[str, ts[Trade]] = {}
    for source, description in plan.feeds:
        here = [symbol for symbol in description.symbols if symbol in symbols]
        if not here:
            continue
        if description.kind == "trades":
            for symbol, trade in replay.trades(source, here, description.symbols).items():
                trades[symbol] = replay.pace(trade, speed) if speed else trade
        elif description.bar is not None:
            for symbol, bar in replay.bars(source, here, description.symbols).items():
                by_length[symbol].append((description.bar, replay.pace(bar, speed) if speed else bar))
    built = bar_length(plan.config.bar)
    for symbol, trade in trades.items():
        by_length[symbol].append((built, bar_aggregator(trade.price, trade.size, symbol, built)))
    bars: dict[str, ts[Bar]] = {}
    slower: dict[tuple[str, str], ts[Bar]] = {}
    for symbol, choices in by_length.items():
        choices.sort(key=lambda choice: choice[0])
        bars[symbol] = choices[0][1]
        for length, bar in choices[1:]:
            slower[symbol, length_label(length)] = bar
    points: list[ts[MacroPoint]] = [replay.macro_points(source) for source, _ in plan.macro]
    return Feeds(
        bars=bars,
        bar_lengths={symbol: choices[0][0] for symbol, choices in by_length.items()},
        slower_bars=slower,
        trades=trades,
        news=together([news.news_replay(item) for item in plan.config.news]) if plan.config.news else None,
        macro=together(points) if points else None,
        rates={conversion.currency: _rate(plan, conversion, speed) for conversion in plan.config.conversions},
        sources=plan.config.feeds,
    )


def _rate(plan: Plan, conversion: Conversion, speed: float | None) -> ts[float]:
    """The last price of a symbol that need not be traded, as a rate."""
    symbol = conversion.symbol
    for source, description in plan.feeds:
        if symbol in description.symbols:
            if description.kind == "trades":
                price = replay.trades(source, [symbol], description.symbols)[symbol].price
            else:
                price = replay.bars(source, [symbol], description.symbols)[symbol].close
            price = replay.pace(price, speed) if speed else price
            return 1.0 / price if conversion.inverse else price
    raise ConfigError(f"no feed holds {symbol}, the rate of {conversion.currency}")


@contextmanager
def _interruptible(outcome: Outcome) -> Iterator[None]:
    """Turn Ctrl-C into a clean stop of the engine, noted in `outcome`."""
    deaf = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    if deaf or threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals, and not where its caller wants them ignored, as nohup does
        return

    def stop(*_: object) -> None:
        outcome.interrupted = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt:
        outcome.interrupted = True
    except Exception as exc:
        if not outcome.interrupted:
            raise
        outcome.trouble = repr(exc)  # an interrupt may come out of the engine's C++ as another error: told, not hidden
    finally:
        signal.signal(signal.SIGINT, before)
