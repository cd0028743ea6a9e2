"""The command line of run_backtest.py: a config file, flags over it, and an exit code that tells.

Exit codes: 0 done, 1 the look-ahead check found a difference, 2 bad usage, config or data, 3 halted by risk,
130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from configs.load import ConfigError, load
from evaluation.report import summary_table
from feeds.errors import FeedError
from feeds.files import Source
from graphs.backtest import Options, Plan, plan, run
from graphs.config import BacktestConfig
from graphs.judge import judge
from graphs.lookahead import check

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs" / "backtest"
DEFAULT = CONFIGS / "btc_usd_1h.toml"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Replay history through the trading graph and report what it would have earned.

    Without arguments: two years of hourly BTC-USD, which come with ticktorch.
    """

    config: Path | None = None
    """a TOML file, such as configs/backtest/btc_usd_1h.toml; flags override it"""
    data: Path | None = None
    """market data in place of the config's: Parquet, Arrow or CSV"""
    speed: float | None = None
    """replay at so many times real time; default: as fast as possible"""
    out: Path | None = None
    """folder for the results; default: runs/<time>-<name>/"""
    quiet: bool = False
    """do not print the streams"""
    check_lookahead: bool = False
    """run prefixes of the data and compare: does anything in the past depend on the future?"""
    settings: Annotated[BacktestConfig, tyro.conf.arg(name="")] = field(default_factory=BacktestConfig)


def backtest_main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    try:
        arguments = _parse(argv)
        return _check(arguments) if arguments.check_lookahead else _run(arguments)
    except (ConfigError, FeedError) as exc:
        print(f"run_backtest.py: error: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("run_backtest.py: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us has gone; say no more
        return 1


def _parse(argv: Sequence[str]) -> Arguments:
    """Flags over the config file that they name. tyro itself exits with 2 on a wrong flag."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config", type=Path)
    first.add_argument("--data", type=Path)
    with suppress(argparse.ArgumentError):  # tyro will say it better
        named, _ = first.parse_known_args(argv)
    path = named.config or _config_for(named.data)
    base = load(BacktestConfig, path) if path is not None else BacktestConfig(name="backtest")
    if named.data is not None:
        base = replace(base, feeds=(replace(base.feeds[0] if base.feeds else Source(path=""), path=str(named.data)),))
    try:
        arguments = tyro.cli(Arguments, args=list(argv), default=Arguments(settings=base), prog="run_backtest.py")
    except ValueError as exc:
        raise ConfigError(str(exc)) from None
    if arguments.speed is not None and not 0.0 < arguments.speed < float("inf"):
        raise ConfigError(f"--speed must be positive and finite, was {arguments.speed}")
    return arguments


def _config_for(data: Path | None) -> Path | None:
    """The config to start from when none is named: the default, or the one under configs/backtest/ for this file."""
    if data is None:
        return DEFAULT
    for path in sorted(CONFIGS.glob("*.toml")):
        if any(Path(source.path).name == data.name for source in load(BacktestConfig, path).feeds):
            print(f"run_backtest.py: using {path.relative_to(ROOT)}, which describes {data.name}", file=sys.stderr)
            return path
    return None


def _check(arguments: Arguments) -> int:
    difference = check(arguments.settings, told=print)
    if difference is None:
        print("no look-ahead found: every signal and order was the same without the future")
        return 0
    print(f"LOOK-AHEAD FOUND: {difference}")
    return 1


def _run(arguments: Arguments) -> int:
    console = Console(stderr=True)
    planned = plan(arguments.settings)
    out = arguments.out or _fresh_folder(arguments.settings.name)
    with _progress(planned, console) as moved:
        options = Options(out=out, quiet=arguments.quiet, speed=arguments.speed, progress=moved)
        outcome = run(planned, options)
    sys.stdout.flush()
    report = judge(planned, outcome, out)
    if report is not None:
        Console().print(summary_table(report))
        print(f"report: {out / 'report.html'}")
    if outcome.interrupted:
        print(f"run_backtest.py: interrupted at {outcome.reached}; the report is marked partial", file=sys.stderr)
        return 130
    if outcome.halted:
        print("run_backtest.py: risk halted trading; see alerts.parquet", file=sys.stderr)
        return 3
    return 0


def _fresh_folder(name: str) -> Path:
    """runs/<time>-<name>, with a number where two runs start within a second."""
    base = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}"
    for number in range(1_000):
        folder = Path("runs") / (base if number == 0 else f"{base}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise ConfigError(f"runs/{base} is taken a thousand times over; name a folder with --out")


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
