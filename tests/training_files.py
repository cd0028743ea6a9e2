"""Small training runs: invented bars with something to learn, and configs that train on them in a second."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from market_files import NS_UTC

from tokenizer.bars import BarSeries
from trainer.config import LoopConfig
from trainer.world import World, world

HOUR_NS = 3_600_000_000_000
START = datetime(2024, 1, 1)


def series(symbol: str = "AAA", bars: int = 1_000, *, seed: int = 0, first: datetime = START) -> BarSeries:
    """Hourly bars whose size follows the hour of the day, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    hours = np.arange(1, bars + 1)
    size = 0.002 * (1.0 + 0.8 * np.sin(2.0 * np.pi * hours / 24.0)) * np.exp(0.3 * rng.standard_normal(bars))
    close = 100.0 * np.exp(np.cumsum(size * rng.standard_normal(bars)))
    opened = np.concatenate([[100.0], close[:-1]])
    return BarSeries(
        symbol=symbol,
        bar_s=3600.0,
        close_time=nanoseconds(first) + hours * HOUR_NS,
        open=opened,
        high=np.maximum(opened, close) * (1.0 + size * rng.random(bars)),
        low=np.minimum(opened, close) * (1.0 - size * rng.random(bars)),
        close=close,
        volume=rng.random(bars),
    )


def nanoseconds(when: datetime) -> int:
    return (when - datetime(1970, 1, 1)) // timedelta(microseconds=1) * 1_000


def bar_file(folder: Path, made: Sequence[BarSeries], name: str = "bars") -> Path:
    """One file of all series, each bar stamped at its open, rows in order of time."""
    columns = {"open_time": np.concatenate([s.close_time - HOUR_NS for s in made])}
    columns |= {
        column: np.concatenate([getattr(s, column) for s in made]) for column in ("open", "high", "low", "close")
    }
    order = np.argsort(columns["open_time"], kind="stable")
    symbols = np.concatenate([[s.symbol] * len(s) for s in made])[order]
    table = {column: values[order] for column, values in columns.items()}
    table["open_time"] = pa.array(table["open_time"]).view(NS_UTC)
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table({"symbol": symbols, **table}), path)
    return path


def config_file(folder: Path, data: Path, *lines: str, steps: int = 30) -> Path:
    """A run of seconds: 16 codes, a model of one layer. `lines` are put on top."""
    path = folder / "small.toml"
    path.write_text(
        "\n".join(
            [
                'name = "small"',
                f'out = "{folder / "made"}"',
                *lines,
                f'[[feeds]]\npath = "{data}"\nbar = "1h"',
                "[split]\nembargo_bars = 16\nend = 2024-02-05",
                "[fit]\nsteps = 150",
                "[tokenizer]\ncodes = 16\nhidden = 8\n[tokenizer.features]\nwarmup_bars = 8",
                "[model]\ncontext = 16\nlayers = 1\nwidth = 16\nheads = 2\nkv_heads = 1\nhours = true\ndropout = 0.1",
                "[optim]\nwarmup_steps = 5",
                f"[loop]\nsteps = {steps}\nbatch = 4\neval_every_steps = 5\nlog_every_steps = 2\nsave_every_steps = 7",
                "patience = 0\nthreads = 1",
            ]
        )
    )
    return path


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """What a run in this process changes in torch for all of it, put back."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


def alone(**settings: Any) -> World:
    """This process and no other."""
    with world(LoopConfig(**{"threads": 1, **settings})) as here:
        return here


def losses(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """A log without what the clock says."""
    return [
        {name: value for name, value in row.items() if "second" not in name and name != "tokens_per_s"} for row in rows
    ]
