"""Folders for results: one run a folder, and never the files of two."""

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from configs.load import ConfigError, listed

# Everything that a run writes. Whatever else lies in a folder is not ours to write beside, nor to remove.
_FILES = (
    "ai_signals.parquet",
    "alerts.parquet",
    "equity.parquet",
    "equity.png",
    "fills.parquet",
    "final_signals.parquet",
    "flows.parquet",
    "forecasts.parquet",
    "manifest.json",
    "orders.parquet",
    "report.html",
    "report.json",
    "signals.parquet",
    "strategy_fills.parquet",
    "trips.parquet",
    "updates.parquet",
)


def check(folder: Path) -> None:
    """Refuse a folder that cannot take the results of a run, without touching it.

    Raises:
        ConfigError: it is a file, cannot be written to, or holds other files than those of an earlier run.
    """
    try:
        there = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    except OSError as exc:
        raise ConfigError(f"the output folder {folder} cannot be used: {exc.strerror}") from None
    foreign = [name for name in there if name not in _FILES]
    if foreign:
        raise ConfigError(
            f"the output folder {folder} holds files that are not of a run ({listed(foreign, 3)}); name another one"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"the output folder {folder} cannot be written to")


def prepare(folder: Path) -> None:
    """Make the folder, and remove what an earlier run left in it.

    Raises:
        ConfigError: as `check`, or it cannot be made.
    """
    check(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            (folder / name).unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigError(f"the output folder {folder} cannot be used: {exc.strerror}") from None


def fresh(name: str) -> Path:
    """Make runs/<time>-<name>, with a number where two runs start within a second.

    Raises:
        ConfigError: it cannot be made.
    """
    base = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}"
    for number in range(1_000):
        folder = Path("runs") / (base if number == 0 else f"{base}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as exc:
            raise ConfigError(f"the output folder {folder} cannot be made: {exc.strerror}") from None
        return folder
    raise ConfigError(f"runs/{base} is taken a thousand times over; name a folder with --out")


def discard_empty(folder: Path) -> None:
    """Remove a folder that nothing was written to."""
    with suppress(OSError):
        folder.rmdir()
