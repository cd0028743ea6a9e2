"""The flags of run_live.py: which config file, and any of its keys over it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from configs.flags import named_files, registry
from configs.load import ConfigError
from graphs.config import BacktestConfig
from graphs.flags import ROOT, read
from graphs.live_config import LiveConfig

PROGRAM = "run_live.py"

_DEFAULT = ROOT / "configs" / "live" / "binance_paper.toml"
# tyro does not wrap it: one line a paragraph, none longer than a terminal is wide.
_DESCRIPTION = """\
Run the trading graph on live feeds, on paper unless the config says otherwise.

Without arguments: BTC and ETH on paper, from Binance's public data.

Every key of the config is a flag, [sizing] mode is --sizing.mode; flags win.

With --config FILE, --help shows the keys and values of that file.

Ctrl-C takes back what works, waits for the venue, and stops; a second
one stops at once.

Exit codes: 0 done, 2 bad usage or config, 3 halted by risk, 130 interrupted.
"""


@dataclass(frozen=True, kw_only=True)
class LiveArguments:
    """What the user typed, over the config file."""

    config_file: Annotated[
        Path | None,
        tyro.conf.arg(name="config", metavar="FILE", help_behavior_hint=f"(default: {_DEFAULT.relative_to(ROOT)})"),
    ] = None
    """TOML; flags override it"""
    duration: Annotated[
        float | None, tyro.conf.arg(metavar="SECONDS", help_behavior_hint="(default: until it is stopped)")
    ] = None
    """stop so long after the history is over, as Ctrl-C would"""
    record: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: nothing)")] = None
    """record all that comes in and goes out, for run_backtest.py --replay FOLDER; it must be new or empty"""
    dry_run: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """print what the gate would let pass (approved), and send nothing"""
    live_money: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """trade real money at the venue of the config; asks once more"""
    quiet: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help_behavior_hint="")] = False
    """do not print the streams"""
    config: Annotated[LiveConfig, tyro.conf.arg(name="")] = field(default_factory=LiveConfig)


def parse(argv: Sequence[str]) -> LiveArguments:
    """Flags over the config file that they name.

    Raises:
        ConfigError: the file or a value cannot be used.
        SystemExit: with 0 after --help, with 2 after a message about a flag.
    """
    path = named_files(argv, "config").config or _DEFAULT
    try:
        arguments = tyro.cli(
            LiveArguments,
            args=list(argv),
            default=LiveArguments(config=read(LiveConfig, path, lambda: BacktestConfig, "run_backtest.py")),
            prog=PROGRAM,
            description=_DESCRIPTION,
            registry=registry(),
        )
    except ValueError as exc:
        raise ConfigError(str(exc)) from None
    if arguments.duration is not None and not 0.0 < arguments.duration < 1e9:
        raise ConfigError(f"--duration must lie in (0, 1e9) seconds, was {arguments.duration}")
    if arguments.live_money and arguments.dry_run:
        raise ConfigError("--live-money and --dry-run exclude each other")
    return arguments
