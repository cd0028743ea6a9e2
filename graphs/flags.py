"""The flags of run_backtest.py: which config file, and any of its keys over it."""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from configs.flags import named_files, registry
from configs.load import ConfigError, load
from feeds.files import Source
from graphs.config import BacktestConfig

T = TypeVar("T")

PROGRAM = "run_backtest.py"
ROOT = Path(__file__).parent.parent

_CONFIGS = ROOT / "configs" / "backtest"
_DEFAULT = _CONFIGS / "btc_usd_1h.toml"
# tyro does not wrap it: one line a paragraph, none longer than a terminal is wide.
_DESCRIPTION = """\
Replay history through the trading graph and report what it would have earned.

Without arguments: two years of hourly BTC-USD, which come with ticktorch.

Every key of the config is a flag, [sizing] mode is --sizing.mode; flags win.

With --config FILE, --help shows the keys and values of that file.

Exit codes: 0 done, 1 look-ahead found or a replay not identical,
2 bad usage, config or data, 3 halted by risk, 130 interrupted.
"""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What the user typed, over the config file."""

    config_file: Annotated[
        Path | None,
        tyro.conf.arg(name="config", metavar="FILE", help_behavior_hint=f"(default: {_DEFAULT.relative_to(ROOT)})"),
    ] = None
    """TOML; flags override it"""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: the config's)")] = None
    """market data in place of the config's first feed: Parquet, Arrow or CSV"""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: runs/<time>-<name>)")] = (
        None
    )
    """for the results; those of an earlier run in it are replaced"""
    speed: Annotated[
        float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: as fast as possible)")
    ] = None
    """replay at so many times real time"""
    quiet: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """do not print the streams"""
    replay: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: none)")] = None
    """run the graph of a recorded live run again, from its inputs alone, and compare what comes out; the recording
    brings its own config"""
    allow_changed: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """replay inputs that are not as they were recorded; shows where what comes out first differs"""
    check_lookahead: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """run prefixes of the data and compare: does anything in the past depend on the future? Writes no results"""
    config: Annotated[BacktestConfig, tyro.conf.arg(name="")] = field(default_factory=BacktestConfig)


def parse(argv: Sequence[str]) -> Arguments:
    """Flags over the config file that they name.

    Raises:
        ConfigError: the file or a value cannot be used.
        SystemExit: with 0 after --help, with 2 after a message about a flag.
    """
    named = named_files(argv, "config", "data")
    path = named.config or _config_for(named.data)
    base = read(BacktestConfig, path, _live, "run_live.py") if path is not None else BacktestConfig()
    if named.data is not None:
        feed = base.feeds[0] if base.feeds else Source(path="")
        if Path(named.data).name != Path(feed.path).name:
            # What the config says of its own file is not known of another one.
            feed = replace(feed, symbol="")
            base = replace(base, sample="Not stated.", trials=1)
        base = replace(base, feeds=(replace(feed, path=named.data),))
    try:
        arguments = tyro.cli(
            Arguments,
            args=list(argv),
            default=Arguments(config=base),
            prog=PROGRAM,
            description=_DESCRIPTION,
            registry=registry(),
        )
    except ValueError as exc:
        raise ConfigError(str(exc)) from None
    if arguments.replay is not None and (given := _beside_replay(argv)):
        raise ConfigError(f"--replay takes all from the recording; it cannot stand beside {', '.join(given)}")
    if arguments.allow_changed and arguments.replay is None:
        raise ConfigError("--allow-changed is for --replay")
    if arguments.speed is not None and not 0.0 < arguments.speed < float("inf"):
        raise ConfigError(f"--speed must be positive and finite, was {arguments.speed}")
    return arguments


def read(cls: type[T], path: str | Path, other: Callable[[], type], program: str) -> T:
    """Load the config file of one program; of one that is another's, say so.

    Args:
        other: the class of the configs of `program`; asked for only where `path` cannot be loaded.

    Raises:
        ConfigError: as `load`.
    """
    try:
        return load(cls, path)
    except ConfigError as exc:
        wrong = exc
    try:
        load(other(), path)
    except ConfigError:
        raise wrong from None
    raise ConfigError(f"config file {path} is one of {program}: python {program} --config {shlex.quote(str(path))}")


def _live() -> type:
    from graphs.live_config import LiveConfig  # it brings the clients of the exchanges, which no backtest needs

    return LiveConfig


def _beside_replay(argv: Sequence[str]) -> list[str]:
    """The flags beside --replay that would be of no effect."""
    names = (word.split("=")[0] for word in argv if word.startswith("--"))
    return [name for name in names if name not in ("--replay", "--allow-changed", "--out", "--quiet")]


def _config_for(data: str | None) -> Path | None:
    """The config to start from when none is named: the default, or the one under configs/backtest/ for this file."""
    if data is None:
        return _DEFAULT
    for path in sorted(_CONFIGS.glob("*.toml")):
        if any(Path(source.path).name == Path(data).name for source in load(BacktestConfig, path).feeds):
            print(f"{PROGRAM}: using {path.relative_to(ROOT)}, which describes {Path(data).name}", file=sys.stderr)
            return path
    return None
