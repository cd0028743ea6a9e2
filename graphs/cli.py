"""The command line of run_backtest.py: a config file, flags over it, and an exit code that tells.

Exit codes: 0 done, 1 the look-ahead check or a replay found a difference, 2 bad usage, config or data, 3 halted by
risk, 130 interrupted, 141 nobody reads what is printed.
"""

import errno
import os
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from brokers.figures import passed
from configs.load import ConfigError
from configs.load import listed as names
from evaluation.report import summary_table
from feeds.errors import FeedError
from feeds.recording import Comparison, RecordingError
from graphs import folders
from graphs.backtest import Options, Outcome, Plan, plan, run
from graphs.flags import PROGRAM, Arguments, parse
from graphs.judge import judge
from graphs.lookahead import check
from models.advisor.advice import AdvisorError


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would exit with 1


def backtest_main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code.

    What a user can get wrong ends in a message and 2. Anything else is a bug, and keeps its traceback.

    Raises:
        SystemExit: on --help, with 0; on a wrong flag, with 2.
    """
    if sys.stdout is None:  # closed by who called us
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process
    try:
        try:
            arguments = parse(argv)
            if arguments.replay is not None:
                return _replay(arguments)
            return _check(arguments) if arguments.check_lookahead else _run(arguments)
        finally:
            sys.stdout.flush()  # here, where a reader that has gone is an answer and not an accident
    except (ConfigError, FeedError, RecordingError, AdvisorError) as exc:
        _say(f"error: {exc}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except BrokenPipeError:
        _mute()
        return 141  # as the shell has it: 128 + SIGPIPE
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        _mute()
        _say(f"error: {exc.strerror}")
        return 2


def _say(text: str) -> None:
    print(f"{PROGRAM}: {text}", file=sys.stderr)


def _mute() -> None:
    """Send what is still buffered for stdout nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check(arguments: Arguments) -> int:
    difference = check(arguments.config, told=lambda line: print(line, flush=True))
    if difference is None:
        print("no look-ahead found: every signal and order was the same without the future")
        return 0
    print(f"LOOK-AHEAD FOUND: {difference}")
    return 1


def _replay(arguments: Arguments) -> int:
    """Run a recorded live run again."""
    from graphs.live_run import other_versions, replay  # brings the clients of the exchanges, which no backtest needs

    root, out = arguments.replay, arguments.out
    assert root is not None
    if versions := other_versions(root):
        _say(f"WARNING: recorded with {versions}")
    with tempfile.TemporaryDirectory(prefix="replay-") as folder:
        return _compared(replay(root, out or Path(folder), show=not arguments.quiet, changed=arguments.allow_changed))


def _compared(comparison: Comparison) -> int:
    counts = ", ".join(f"{comparison.count(f'outputs/{name}')} {name}" for name in ("orders", "fills", "alerts"))
    if comparison.identical:
        print(f"identical: {counts}")
        return 0
    print(f"NOT IDENTICAL ({counts}): {comparison.first}")
    return 1


def _run(arguments: Arguments) -> int:
    console = _Console(stderr=True)
    if arguments.out is not None:
        folders.check(arguments.out)  # before a long file is read
    planned = plan(arguments.config)
    out = arguments.out or folders.fresh(arguments.config.name)
    try:
        with _progress(planned, console) as moved:
            options = Options(out=out, quiet=arguments.quiet, speed=arguments.speed, progress=moved)
            outcome = run(planned, options)
    except ConfigError:
        folders.discard_empty(out)
        raise
    sys.stdout.flush()
    try:
        report = judge(planned, outcome, out)
    except KeyboardInterrupt:
        _say(f"interrupted while the report was being made: the streams are in {out}, as far as {outcome.reached}")
        return 130
    if report is not None:
        _Console().print(summary_table(report))
        print(f"report: {out / 'report.html'}")
    _note_unlisted(planned)
    _note_refused(out)
    if outcome.trouble:
        _say(f"while stopping: {outcome.trouble}")
    if outcome.interrupted:
        _say(f"interrupted at {outcome.reached}; {'the report is marked partial' if report else 'nothing to report'}")
        return 130
    return _halted(planned, outcome)


def _halted(planned: Plan, outcome: Outcome) -> int:
    """Say what halted trading, now or in an earlier run, and how to re-arm it; the exit code."""
    halt, journal = planned.halted, planned.config.journal
    if halt is not None:
        why = passed(halt.code, halt.value, halt.limit, halt.engine_time)
        _say(f"trading was halted from the start: in an earlier run {why}")
    elif outcome.halted:
        _say(f"risk halted trading: {outcome.halted}")
    else:
        return 0
    if journal:
        _say(f"it stays halted until a person says: python -m brokers.reset {shlex.quote(journal)}")
    return 3


def _note_unlisted(planned: Plan) -> None:
    """Costs that nobody stated are the easiest way to fool oneself: say so."""
    listed = [instrument.symbol for instrument in planned.config.instruments]
    free = [i.symbol for i in planned.trading.instruments if i.symbol not in listed]
    if free:
        _say(f"note: no [[instruments]] for {names(free)}: traded unrounded and free of fees")


def _note_refused(out: Path) -> None:
    """A run in which nothing was let through looks like one in which nothing was wanted: say so."""
    states = pq.read_table(out / "updates.parquet", columns=["state", "code"])
    codes = Counter(states.filter(pc.field("state") == "REJECTED")["code"].to_pylist())
    if codes:
        told = ", ".join(f"{code} {count}" for code, count in codes.most_common(5))
        wanted = pq.read_metadata(out / "orders.parquet").num_rows
        _say(f"note: {sum(codes.values())} of {wanted} orders were refused: {told}")


@contextmanager
def _progress(planned: Plan, console: Console) -> Iterator[Callable[[datetime], None] | None]:
    """A bar on stderr that follows engine time; None where stderr is not a terminal."""
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("replay", total=(planned.end - planned.start).total_seconds())

        def moved(now: datetime) -> None:
            progress.update(task, completed=(now - planned.start).total_seconds(), description=f"{now:%Y-%m-%d}")

        yield moved
