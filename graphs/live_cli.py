"""The command line of run_live.py: a config file, flags over it, and an exit code that tells.

Exit codes: 0 done, 2 bad usage, config or data, 3 halted by risk, 130 interrupted, 141 nobody reads what is printed.
"""

import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO, cast

import csp
import structlog
from rich.console import Console
from rich.table import Table

from brokers.journal import JournalError
from configs.load import ConfigError
from feeds.errors import FeedError
from feeds.recording import RecordingError
from graphs.live import LivePlan, System
from graphs.live_flags import PROGRAM, LiveArguments, parse
from graphs.live_outcome import LiveOutcome
from graphs.live_plan import Prepared, prepare
from graphs.live_run import claim, run
from graphs.trading import trading_system


def live_main(argv: Sequence[str], system: System = trading_system) -> int:
    """Run the command; returns its exit code.

    What a user can get wrong ends in a message and 2. Anything else is a bug, and keeps its traceback.

    Args:
        system: what trades; see `graphs.live.live_graph`.

    Raises:
        SystemExit: on --help, with 0; on a wrong flag, with 2.
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Stderr())))  # stdout is for streams
    stopper = Stopper()
    try:
        with stopper.listening():
            return _run(parse(argv), stopper, system)
    except (ConfigError, FeedError, JournalError, RecordingError) as exc:
        _say(f"error: {exc}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as the shell has it: 128 + SIGPIPE


class _Stderr:
    """Where logs go: stderr as it is at the time. That nobody is there to read them is no reason to stop a feed."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


class Stopper:
    """Ctrl-C and SIGTERM: the first asks the graph to wind down, the second stops the engine at once."""

    def __init__(self) -> None:
        self._push = csp.GenericPushAdapter(bool, "stop")
        self.asked = 0
        self.running = False  # the engine is; before and after, a signal is an interrupt

    def edge(self) -> csp.ts[bool]:
        """Ticks when a person asks for it."""
        return self._push.out()

    @contextmanager
    def listening(self) -> Iterator[None]:
        # Who started us may want SIGINT ignored, as a shell does for a background job; csp would hear it all the same.
        deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if deaf:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        numbers = (signal.SIGTERM,) if deaf else (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._heard) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                # Once asked, the process ends, and how is settled: one more would end it by a signal, or with a trace.
                signal.signal(number, signal.SIG_IGN if self.asked else handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1
        # Before its adapters start the engine does not hear: then nothing has been sent, and an interrupt is enough.
        if self.running and self.asked == 1 and (self._push.push_tick(True) or self._push.stopped()):
            _say("stopping: taking back what works; once more stops at once")
            return
        raise KeyboardInterrupt


def _run(arguments: LiveArguments, stopper: Stopper, system: System) -> int:
    if arguments.record is not None:
        claim(arguments.record)
    ready = prepare(
        arguments.config,
        duration_s=arguments.duration,
        dry_run=arguments.dry_run,
        live_money=arguments.live_money,
        say=_say,
        confirm=_confirm,
    )
    plan, ended = ready.plan, "error"
    for note in () if plan.opening is None else plan.opening.notes:
        _say(f"{note.level.lower()}: {note.message} ({note.code})")
    halt = ready.journal.open_halt() if plan.halted and ready.journal is not None else None
    why = "" if halt is None else f", {halt.engine_time:%Y-%m-%d %H:%M:%S}: {halt.message}"
    if plan.halted:
        _say(f"trading is HALTED from the start: nobody has reset an earlier stop{why}")
    elif plan.opening is not None and not plan.opening.clean:
        _say("trading is REDUCING for the whole run: what the account holds could not be settled")
    _say(_begins(ready))
    try:
        outcome = run(ready, stopper, record=arguments.record, show=not arguments.quiet, system=system)
        ended = "at once" if outcome.at_once else "stop"
    finally:
        ready.close(ended)
    sys.stdout.flush()
    _report(plan, outcome, arguments.record, ours=system is trading_system)
    if outcome.halted or plan.halted:
        _say(f"risk halted trading: {outcome.halted or f'in an earlier run{why}'}")
        if plan.config.journal:
            _say(f"it stays halted until a person says: python -m brokers.reset {shlex.quote(plan.config.journal)}")
        return 3
    if outcome.at_once or not outcome.settled:
        _say("stopped at once" if outcome.at_once else "stopped while orders still worked: the next start settles them")
    return 130 if stopper.asked else 0


def _begins(ready: Prepared) -> str:
    """What is traded from now on, where, and what is held of it."""
    plan = ready.plan
    traded = ", ".join(instrument.symbol for instrument in plan.trading.instruments)
    where = plan.config.venue.at.name if plan.at_venue else "nowhere, this is a dry run" if plan.dry_run else "paper"
    held = "" if plan.opening is None else ", ".join(f"{p.symbol} {p.quantity}" for p in plan.opening.positions)
    history = f"{len(ready.warm)} bars of history"
    return f"begins with {history} of {traded}; orders go to {where}" + (f"; held: {held}" if held else "")


def _confirm(wanted: str) -> bool:
    """Ask a person to type a sentence; False where there is nobody, or something else was typed."""
    if not sys.stdin.isatty():
        return False
    print(f"This trades real money. To go on, type: {wanted}", file=sys.stderr)
    return sys.stdin.readline().strip() == wanted


def _report(plan: LivePlan, outcome: LiveOutcome, record: Path | None, *, ours: bool) -> None:
    # `ours`: the graph is that of run_backtest.py, which can replay no other.
    notes = () if plan.opening is None else plan.opening.notes
    alerts = outcome.alerts + Counter(note.level for note in notes)  # what the start found was told, and counts
    table = Table(title=plan.run_id, show_header=False)
    equity = f"{outcome.equity_first:,.2f} to {outcome.equity:,.2f}" if outcome.equity is not None else "no price came"
    refused = ", ".join(f"{code} {count}" for code, count in outcome.refused.most_common(5))
    rows = {
        "Ended (UTC)": f"{outcome.reached:%Y-%m-%d %H:%M:%S}" if outcome.reached else "before it began",
        "Orders": f"{outcome.orders}, refused {outcome.refused.total()}"
        + (f" ({refused})" if refused else "")
        + (", none sent" if plan.dry_run else ""),
        "Fills": str(outcome.fills),
        "Alerts": ", ".join(f"{count} {level}" for level, count in sorted(alerts.items())) or "none",
        "Equity": equity,
        "Positions": ", ".join(f"{s} {q:g}" for s, q in sorted(outcome.positions.items()) if q) or "none",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    Console().print(table)
    if record is not None:
        print(f"replay: run_backtest.py --replay {shlex.quote(str(record))}" if ours else f"recorded: {record}")


def _say(text: str) -> None:
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)
