"""What can be wrong with a backtest before its first event: each mistake is a sentence, found before the engine starts.

The nodes refuse bad input too, but in the middle of a run and with a traceback. What a config or a file can get wrong
is asked here first, of the very code that will use it.
"""

import importlib
import math
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
from csp import ts
from csp.impl.wiring.edge import Edge

from brokers.journal import Halt, Journal, JournalError
from brokers.ledger import Ledger, account_currency
from configs.load import ConfigError, listed
from feeds.errors import DataError, UnknownSymbolError
from feeds.events import Bar
from feeds.files import Description, Source, tables
from feeds.instruments import Instrument
from feeds.sessions import SessionClock
from feeds.times import bar_length, length_label
from graphs.config import BacktestConfig, RunConfig, TradingConfig, all_strategies
from graphs.edges import Feeds
from graphs.forecasting import checkpoints
from graphs.trading import SignalPlugin
from nodes.events import Signal

Described = tuple[Source, Description]

_FAR_ABOVE = 100  # ticks; a price that starts so far above one is not searched for a fall below it


def symbols_to_trade(config: BacktestConfig, feeds: Sequence[Described]) -> list[str]:
    """The symbols asked for, else all, in the order of the files.

    Raises:
        UnknownSymbolError: one that no file holds.
    """
    there = list(dict.fromkeys(symbol for _, description in feeds for symbol in description.symbols))
    for symbol in config.symbols:
        if symbol not in there:
            raise UnknownSymbolError(f"symbol {symbol!r} is not in the data, which hold {listed(there)}")
    return list(dict.fromkeys(config.symbols)) or there


def check_latency(config: BacktestConfig, feeds: Sequence[Described]) -> None:
    """Refuse a latency of a bar or more: an order fills at an open that it could not have reached."""
    for source, description in feeds:
        if description.bar is not None and config.broker.latency_ms >= description.bar.total_seconds() * 1000.0:
            raise ConfigError(
                f"[broker] latency_ms must be below one bar of {source.path}, which is"
                f" {length_label(description.bar)} long, was {config.broker.latency_ms:g}"
            )


def check_kinds(sources: Sequence[Described], key: str, wanted: tuple[str, ...]) -> None:
    """Refuse a file that stands under the wrong key of the config."""
    for source, description in sources:
        if description.kind not in wanted:
            raise DataError(
                f"{source.path} was read as {description.kind}; under [[{key}]] want {' or '.join(wanted)}: say so with"
                " kind and, where the columns have other names, columns"
            )


def check_overlap(config: BacktestConfig, feeds: Sequence[Described], symbols: Sequence[str]) -> None:
    """Refuse two files of one symbol's trades, or of its bars of one length: one would silently replace the other."""
    seen: dict[tuple[str, str], str] = {}
    for source, description in feeds:
        bars = f"{length_label(description.bar or bar_length(config.bar))} bars"
        for symbol in description.symbols:
            for what in (bars,) if description.kind == "bars" else ("trades", bars):
                if symbol in symbols and (symbol, what) in seen:
                    raise DataError(f"{symbol} has {what} twice: in {seen[symbol, what]} and in {source.path}")
                seen[symbol, what] = source.path


def window(config: BacktestConfig, feeds: Sequence[Described], symbols: Sequence[str]) -> tuple[datetime, datetime]:
    """From when to when to run: as configured, else as far as the data of `symbols` reach.

    Raises:
        DataError: the data lie elsewhere.
    """
    used = [description for _, description in feeds if not set(symbols).isdisjoint(description.symbols)]
    first, last = min(d.first for d in used), max(d.last for d in used)
    start, end = config.start or first, config.end or last
    if start > last or end < first:
        asked = f"from {config.start or 'the first event'} to {config.end or 'the last'}"
        raise DataError(f"the window {asked} lies outside the data, which reach from {first} to {last}")
    return start, end


def seen_in_training(
    config: BacktestConfig, feeds: Sequence[Described], symbols: Sequence[str], start: datetime, end: datetime
) -> tuple[tuple[datetime, datetime], ...]:
    """What parts of the window the price models were trained on, embargo included, where that is allowed.

    A model that has seen a window forecasts it better than it will any other: figures from it mean nothing. Calendar
    time counts, over all symbols, because markets move together.

    Raises:
        ConfigError: a checkpoint cannot be used; or it has seen a part of the window, and that is not allowed.
    """
    known = checkpoints(config.forecast)
    if known is None or known.bar_s not in {_shortest(config, feeds, symbol) for symbol in symbols}:
        return ()
    parts = []
    for folder, training in known.trainings:
        if not training.overlaps(start, end):
            continue
        first, last = training.start, training.guard_end
        if not config.allow_in_sample:
            seen = "on data of unknown times" if last is None else f"on data up to {last}"
            if first and last:
                seen = f"from {first} to {last}"
            after = f"; start after {last}" if last and last < end else ""
            raise ConfigError(
                f"the price model {folder} was trained {seen}, so decisions from {start} to {end} would be in sample"
                f"{after}; else --allow-in-sample marks every figure, --forecast.no-enabled runs without the model"
            )
        parts.append((max(first or start, start), min(last or end, end)))
    return tuple(parts)


def _shortest(config: BacktestConfig, feeds: Sequence[Described], symbol: str) -> float:
    """Seconds of the bars that a symbol is traded on."""
    lengths = [held.bar or bar_length(config.bar) for _, held in feeds if symbol in held.symbols]
    return min(length.total_seconds() for length in lengths)


def check_account(trading: TradingConfig) -> None:
    """Refuse instruments and cash that the books cannot hold exactly, and calendars that do not exist."""
    try:
        ledger = Ledger(trading.instruments, 0.0, currency=trading.currency, method=trading.cost_basis)
    except ValueError as exc:
        raise ConfigError(f"instruments: {exc}") from None
    try:
        ledger.quanta(trading.initial_cash)
    except ValueError as exc:
        raise ConfigError(f"initial_cash: {exc}") from None
    for instrument in trading.instruments:
        try:
            SessionClock(instrument.calendar)
        except ValueError as exc:
            raise ConfigError(f"instrument {instrument.symbol}: {exc}") from None


def check_conversions(config: BacktestConfig, trading: TradingConfig, feeds: Sequence[Described]) -> None:
    """Refuse a foreign currency without a rate, and a rate that no file holds."""
    there = [symbol for _, description in feeds for symbol in description.symbols]
    for conversion in config.conversions:
        if conversion.symbol not in there:
            raise UnknownSymbolError(
                f"conversions: symbol {conversion.symbol!r} for {conversion.currency} is not in the data, which hold"
                f" {listed(there)}"
            )
    check_currencies(config, trading)


def check_currencies(config: RunConfig, trading: TradingConfig) -> None:
    """Refuse a currency twice, and one in which something is traded and that has no rate."""
    rated = [conversion.currency for conversion in config.conversions]
    if len(set(rated)) != len(rated):
        raise ConfigError(f"conversions: want each currency once, was {listed(rated)}")
    account = account_currency(trading.instruments, trading.currency)
    for instrument in trading.instruments:
        if instrument.currency != account and instrument.currency not in rated:
            raise ConfigError(
                f"{instrument.symbol} is traded in {instrument.currency} and the account is in {account}: want"
                f" [[conversions]] with currency = {instrument.currency!r} and the symbol that is its rate"
            )


def check_macro(config: BacktestConfig, macro: Sequence[Described]) -> None:
    """Refuse macro files of which the macro signal reads no series: it could never speak."""
    there = [symbol for _, description in macro for symbol in description.symbols]
    for signals in (strategy.signals for strategy in all_strategies(config)):
        named = signals.macro.risk_on + signals.macro.risk_off
        if macro and "macro" in signals.use and set(named).isdisjoint(there):
            raise ConfigError(
                f"signals.macro.risk_on and risk_off name {listed(named)}, but the macro files hold {listed(there)}"
            )


def check_tradable(trading: TradingConfig, feeds: Sequence[Described], start: datetime, end: datetime) -> None:
    """Refuse a window without prices, a tick above the price, and lots that are all beyond the account.

    Raises:
        ConfigError: a tick or every lot is too coarse.
        DataError: no symbol has a price between `start` and `end`.
    """
    lowest = _lowest_prices(trading, feeds, start, end)
    if min(lowest.values()) == math.inf:
        raise DataError(f"there are no market data between {start} and {end}")
    for instrument in trading.instruments:
        price = lowest[instrument.symbol]
        if price < float(instrument.tick):
            raise ConfigError(
                f"the tick {instrument.tick} of {instrument.symbol} is larger than its price, which fell to {price:g}"
            )
    most = {i.symbol: _largest_position(trading, i, lowest[i.symbol]) for i in trading.instruments}
    if all(most[i.symbol] < float(i.lot) for i in trading.instruments):
        first = trading.instruments[0]
        raise ConfigError(
            f"nothing can be traded: initial_cash and [sizing] allow at most {most[first.symbol]:.6g} of"
            f" {first.symbol}, less than one lot of {first.lot}"
        )


def _lowest_prices(
    trading: TradingConfig, feeds: Sequence[Described], start: datetime, end: datetime
) -> dict[str, float]:
    """The lowest price of each symbol in the window, read only as far as it takes to know that it can be traded."""
    lowest = {instrument.symbol: math.inf for instrument in trading.instruments}
    first, last = (np.datetime64(when, "ns").astype(np.int64) for when in (start, end))
    for source, description in feeds:
        unsure = [i for i in trading.instruments if i.symbol in description.symbols]
        for table in tables(source) if unsure else ():
            time = table["time"].cast(pa.int64()).to_numpy()
            low, high = np.searchsorted(time, first, "left"), np.searchsorted(time, last, "right")
            part = table.slice(low, high - low).group_by("symbol")
            for row in part.aggregate([("low" if description.kind == "bars" else "price", "min")]).to_pylist():
                *_, price = row.values()
                lowest[row["symbol"]] = min(price, lowest.get(row["symbol"], math.inf))
            unsure = [i for i in unsure if not _tradable(trading, i, lowest[i.symbol])]
            if not unsure or time[-1] > last:
                break
    return lowest


def _tradable(trading: TradingConfig, instrument: Instrument, price: float) -> bool:
    comfortable = _FAR_ABOVE * float(instrument.tick) <= price < math.inf
    return comfortable and _largest_position(trading, instrument, price) >= float(instrument.lot)


def _largest_position(trading: TradingConfig, instrument: Instrument, price: float) -> float:
    """What the first signal of any strategy can buy at most, base units."""
    most = 0.0
    for strategy in trading.strategies:
        sizing = strategy.sizing
        if sizing.mode == "fixed":
            most = max(most, sizing.quantity)
            continue
        fraction = min(sizing.fraction, sizing.leverage_max) if sizing.mode == "fraction" else sizing.leverage_max
        cash = strategy.allocation * trading.initial_cash
        most = max(most, fraction * cash / (price * float(instrument.multiplier)))
    return most


def open_halt(config: RunConfig) -> Halt | None:
    """The emergency stop in the journal that nobody has reset; None where there is none, or no journal.

    Raises:
        ConfigError: the file cannot be used as a journal.
    """
    if not config.journal:
        return None
    path = Path(config.journal)
    if path.is_dir():
        raise ConfigError(f"the journal {path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"the folder {path.parent} of the journal {path.name} does not exist")
    try:
        with Journal(config.journal) as journal:
            return journal.open_halt()
    except (JournalError, OSError) as exc:
        raise ConfigError(str(exc)) from None


def load_plugin(name: str) -> SignalPlugin:
    """Import `module:function`, from the current folder too, and make its failures errors of the config.

    Raises:
        ConfigError: there is no such function, or its module cannot be imported.
    """
    path, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(path)
    except Exception as exc:  # whatever a user's module raises while it is imported
        raise ConfigError(f"signal plugin {name!r} cannot be loaded: {_told(exc)}") from exc
    finally:
        sys.path.pop(0)
    plugin = getattr(module, function, None)
    if not callable(plugin):
        raise ConfigError(f"signal plugin {name!r} cannot be loaded: {path} has no function {function!r}")

    def wired(bar: ts[Bar], symbol: str, feeds: Feeds) -> Any:
        try:
            signal = plugin(bar, symbol, feeds)
        except Exception as exc:  # whatever a user's function raises while the graph is wired
            raise ConfigError(f"signal plugin {name!r} failed for {symbol}: {_told(exc, module)}") from exc
        if not isinstance(signal, Edge) or signal.tstype.typ is not Signal:
            raise ConfigError(f"signal plugin {name!r} must return ts[Signal], returned {_kind(signal)}")
        return signal

    return wired


def _kind(value: object) -> str:
    return f"ts[{getattr(value.tstype.typ, '__name__', value.tstype.typ)}]" if isinstance(value, Edge) else repr(value)


def _told(exc: Exception, module: ModuleType | None = None) -> str:
    """An exception in a sentence, with the line of `module` that it passed through last."""
    text = (str(exc).splitlines() or [""])[0]
    told = f"{type(exc).__name__}: {text}" if text else type(exc).__name__
    frames = traceback.extract_tb(exc.__traceback__)
    inside = [f for f in frames if f.filename == getattr(module, "__file__", None)] if module else frames
    if inside and not inside[-1].filename.startswith("<"):  # the import machinery is no place to look
        told += f" ({Path(inside[-1].filename).name}, line {inside[-1].lineno})"
    return told
