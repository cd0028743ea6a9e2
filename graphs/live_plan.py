"""Before a live run: ask the venues what there is to trade, settle the account, and fetch the history to start with."""

import asyncio
import hashlib
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TypeVar

from brokers.journal import Journal
from brokers.opening import Opening
from brokers.reconcile import ReconcileConfig
from brokers.restore import ReconcileError, paper_opening
from brokers.settle import SettleConfig, settle
from configs.load import ConfigError, plain
from feeds import crypto, yahoo_live
from feeds.backoff import Backoff
from feeds.clock import utc_now
from feeds.errors import OfflineError, RateLimitError
from feeds.events import Bar
from feeds.exchange import keys
from feeds.instruments import Instrument
from graphs.checks import check_account, check_currencies, load_plugin, open_halt
from graphs.config import TradingConfig, all_strategies
from graphs.live import LivePlan
from graphs.live_config import LiveConfig
from graphs.live_feeds import streamed, timeframe

T = TypeVar("T")
Say = Callable[[str], None]

_TELL_AGAIN_S = 60.0  # that nothing has changed
_WAIT_MAX_S = 30.0


@dataclass(slots=True, kw_only=True)
class Prepared:
    """A run that can begin. `journal` is held for it, so that no other run has the account; "" is none."""

    plan: LivePlan
    warm: tuple[Bar, ...]  # sorted by close
    journal: Journal | None

    def close(self, outcome: str) -> None:
        """Let go of the account, with a word on how the run ended."""
        if self.journal is not None:
            self.journal.end_run(outcome)
            self.journal.close()


def prepare(
    config: LiveConfig,
    *,
    duration_s: float | None,
    dry_run: bool,
    live_money: bool,
    say: Say,
    confirm: Callable[[str], bool],
) -> Prepared:
    """Make a run ready. What cannot be reached is tried again until it can; what is wrong is refused.

    Args:
        say: tells a person one line.
        confirm: asks a person to type a sentence; False where it was not typed.

    Raises:
        ConfigError, JournalError, FeedError: with a message for the user.
    """
    if not streamed(config):
        raise ConfigError("there is no market feed: want [[crypto]] or [[yahoo]] in the config")
    _check_files(config)
    halted = not dry_run and Path(config.journal).exists() and open_halt(config) is not None
    _ask_for_money(config, dry_run=dry_run, live_money=live_money, confirm=confirm)
    if config.orders == "venue" and not dry_run:
        keys(config.venue.at)  # what is not there would else be told only once the venue is reached
    patient = _Patience(say)
    instruments = _instruments(config, patient)
    trading = trading_of(config, instruments)
    check_account(trading)
    check_currencies(config, trading)
    plugins = {s.name: tuple(load_plugin(name) for name in s.signals.plugins) for s in trading.strategies}
    warm = _history(config, patient)
    run_id = f"{config.name}-{utc_now():%Y%m%dT%H%M%S}"
    if dry_run:
        journal, (opening, halted) = None, _as_it_stands(config, trading, say)
    else:
        journal, opening, run_id = _account(config, trading, run_id, patient)
    if journal is not None:  # until now another run may have had the account, and a person may have reset it
        halted = journal.open_halt() is not None
    plan = LivePlan(
        config=config,
        trading=trading,
        run_id=run_id,
        start=warm[0].event_time if warm else utc_now(),
        opening=opening,
        plugins=plugins,
        halted=halted,
        duration_s=duration_s,
        dry_run=dry_run,
        live_money=live_money,
    )
    return Prepared(plan=plan, warm=warm, journal=journal)


def trading_of(config: LiveConfig, instruments: tuple[Instrument, ...]) -> TradingConfig:
    """What the graph trades, and how."""
    return TradingConfig(
        instruments=instruments,
        strategies=all_strategies(config),
        initial_cash=config.initial_cash,
        currency=config.currency,
        cost_basis=config.cost_basis,
        risk=config.risk,
        forecast=config.forecast,
        advisor=config.advisor,
    )


class _Patience:
    """Tries again what could not be reached, and says so in one line, not in one a try."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._told, self._told_at = "", -math.inf

    def __call__(self, work: Callable[[], T]) -> T:
        backoff = Backoff(1.0, _WAIT_MAX_S, random.Random(0))
        while True:
            try:
                done = work()
            except (OfflineError, RateLimitError) as exc:
                now = time.monotonic()
                if str(exc) != self._told or now - self._told_at >= _TELL_AGAIN_S:
                    self._say(f"{exc}; trying again until it works, Ctrl-C stops")
                    self._told, self._told_at = str(exc), now
                time.sleep(backoff.next_s())
                continue
            if self._told:
                self._say("reached")
                self._told = ""
            return done


def _check_files(config: LiveConfig) -> None:
    """Refuse a file that cannot be used before anything is asked of a venue."""
    for source in config.follow:
        folder = Path(source.path).parent
        if not folder.is_dir():
            raise ConfigError(f"the folder {folder} of the news file {source.path} does not exist")
    if config.journal and not (folder := Path(config.journal).parent).is_dir():
        raise ConfigError(f"the folder {folder} of the journal {config.journal} does not exist")


def _ask_for_money(config: LiveConfig, *, dry_run: bool, live_money: bool, confirm: Callable[[str], bool]) -> None:
    """Real money needs the flag and a typed sentence.

    Raises:
        ConfigError: one of the two is missing, or the flag is there and it would be no real money.
    """
    real = config.orders == "venue" and config.venue.real_money
    if live_money and not real:
        raise ConfigError("--live-money, but this config sends orders to no venue with real money")
    if not real or dry_run:
        return
    name = config.venue.at.exchange
    if not live_money:
        raise ConfigError(f"orders would go to {name} with real money: say --live-money, or try --dry-run")
    wanted = f"trade {config.initial_cash:.0f} {config.currency or 'units'} on {name}"
    if not confirm(wanted):
        raise ConfigError("not confirmed: nothing was sent")


def _instruments(config: LiveConfig, patient: _Patience) -> tuple[Instrument, ...]:
    """What is traded: as the config describes it, else as its venue does."""
    listed = {instrument.symbol: instrument for instrument in config.instruments}
    found: dict[str, Instrument] = {}
    for source in config.crypto:
        if not set(source.symbols) <= set(listed):
            found |= {i.symbol: i for i in patient(lambda c=source: crypto.describe(c))}  # type: ignore[misc]
    traded = [symbol for symbol in streamed(config) if symbol not in config.watch]
    if not traded:
        raise ConfigError("nothing is traded: `watch` names every symbol of the feeds")
    return tuple(listed.get(symbol) or found.get(symbol) or Instrument(symbol=symbol) for symbol in traded)


def _history(config: LiveConfig, patient: _Patience) -> tuple[Bar, ...]:
    """The bars that signals start with, of every source, sorted by close."""
    bars: list[Bar] = []
    count = config.warmup_bars
    for source in config.crypto if count else ():
        length = timeframe(config, source)
        bars += _flat(patient(lambda c=source, b=length: crypto.warmup(c, b, count)))  # type: ignore[misc]
    for stocks in config.yahoo if count else ():
        length = timeframe(config, stocks)
        bars += _flat(patient(lambda c=stocks, b=length: yahoo_live.warmup(c, b, count)))  # type: ignore[misc]
    return tuple(sorted(bars, key=lambda bar: bar.event_time))


def _flat(by_symbol: dict[str, list[Bar]]) -> list[Bar]:
    return [bar for bars in by_symbol.values() for bar in bars]


def _as_it_stands(config: LiveConfig, trading: TradingConfig, say: Say) -> tuple[Opening | None, bool]:
    """What a run would start with, and whether it would be halted, by the journal alone; nothing is changed, and the
    account may be another run's."""
    if not config.journal or not Path(config.journal).exists():
        return None, False
    with Journal(config.journal, copy=True) as journal:
        halted, open_orders = journal.open_halt() is not None, len(journal.open_orders())
        try:
            opening = paper_opening(journal, trading.instruments, config.initial_cash, config.cost_basis)
        except ReconcileError as exc:
            raise ConfigError(str(exc)) from None
    if config.orders == "venue":
        left = f", but for {open_orders} orders that may work there" if open_orders else ""
        say(f"a dry run begins with what the journal holds{left}: {config.venue.at.name} is not asked for the account")
    return opening, halted


def _account(
    config: LiveConfig, trading: TradingConfig, run_id: str, patient: _Patience
) -> tuple[Journal | None, Opening | None, str]:
    """Take the account for this run, and see what it starts with, and what it is called."""
    if not config.journal:
        return None, None, run_id
    at_venue = config.orders == "venue"
    life = f"{config.venue.at.name} {'live' if config.venue.real_money else 'test'}" if at_venue else "paper"
    digest = hashlib.sha256(json.dumps(plain(config), sort_keys=True).encode()).hexdigest()[:16]
    journal = Journal(config.journal, durable=at_venue and config.venue.real_money)
    try:
        run_id = unused(run_id, journal)
        journal.begin_run(run_id, life, digest)
        try:
            if at_venue:
                opening = patient(lambda: asyncio.run(_settled(config, trading, journal)))
            else:
                opening = paper_opening(journal, trading.instruments, config.initial_cash, config.cost_basis)
        except BaseException:
            journal.end_run("did not begin")
            raise
    except ReconcileError as exc:
        journal.close()
        raise ConfigError(str(exc)) from None
    except BaseException:
        journal.close()
        raise
    return journal, opening, run_id


def unused(run_id: str, journal: Journal) -> str:
    """The id, with a number behind it where an earlier run has it: one that crashed may be begun again within its
    second, and the clock may have been set back."""
    known = {run.run_id for run in journal.runs()}
    return next(name for name in chain([run_id], (f"{run_id}.{n}" for n in count(2))) if name not in known)


async def _settled(config: LiveConfig, trading: TradingConfig, journal: Journal) -> Opening:
    """What the account starts with, once journal and venue agree."""
    venue = config.venue
    found = ReconcileConfig(
        initial_cash=config.initial_cash, working=venue.working, strays=venue.strays, method=config.cost_basis
    )
    settling = SettleConfig(found=found, recv_window_ms=venue.recv_window_ms)
    return await settle(venue.at, journal, settling, trading.instruments, seed=venue.seed)
