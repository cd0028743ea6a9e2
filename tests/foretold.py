"""Models to judge: bars whose volatility beats in time, what two models foretold for them, and a checkpoint on disk."""

from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from finished import HOUR_NS, START_NS

from evaluation.run import moment
from evaluation.tracks import Track
from models.checkpoint import Training, write
from models.fingpt import FinGPT
from models.fingpt_config import FinGPTConfig
from tokenizer.bars import BarSeries
from tokenizer.codec import TokenizerConfig
from tokenizer.fit import fit

CODES = 16
BEAT = 7  # bars from one storm to the next: no hour of the day, and too quick for an average
TRAINING = 4_000
LAG = 0.01  # the lagged volatility of every bar


def beating(bars: int, seed: int, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns in units of the lagged volatility, zero in one bar of fifty, and the place in the beat. (n,), (n,)"""
    chance = np.random.default_rng(seed)
    place = (np.arange(bars) + shift) % BEAT
    z = np.where(place == 0, 3.0, 0.6) * chance.standard_t(6, bars) / np.sqrt(1.5)
    return np.where(chance.random(bars) < 0.02, 0.0, z), place


@cache
def tracks(*, knows: bool, symbols: int = 2, bars: int = 5_500, seed: int = 0) -> tuple[tuple[Track, ...], np.ndarray]:
    """Tracks of a model that knows the beat, or of one that knows nothing; and the table of its codes."""
    every = [beating(bars, seed + number, number) for number in range(symbols)]
    training = np.arange(bars) < TRAINING
    seen = np.concatenate([z[training] for z, _ in every])
    edges = np.quantile(seen, np.arange(1, CODES) / CODES)
    levels = (np.arange(64) + 0.5) / 64
    codes = np.searchsorted(edges, seen)
    table = np.stack([np.quantile(seen[codes == code], levels, method="hazen") for code in range(CODES)])
    share = np.full((BEAT, CODES), 1.0)
    for z, place in every:
        np.add.at(share, (place[training], np.searchsorted(edges, z[training])), 1.0)
    share = share if knows else np.broadcast_to(share.sum(axis=0), share.shape)
    share = share / share.sum(axis=1, keepdims=True)
    made = []
    for number, (z, place) in enumerate(every):
        judged = np.arange(bars) >= TRAINING + 300
        made.append(
            Track(
                symbol=f"S{number}",
                times=START_NS + HOUR_NS * np.arange(1, bars + 1),
                returns=LAG * z,
                ranges=np.square(LAG * np.where(place == 0, 3.0, 0.6)),
                scale=np.full(bars, LAG),
                tokens=np.searchsorted(edges, z).astype(np.int64),
                training=training,
                judged=judged,
                probabilities=share[place[judged]].astype(np.float32),
            )
        )
    return tuple(made), table


def counted(foretold: Sequence[Track]) -> list[np.ndarray]:
    """The tokens of the training bars, a sequence a symbol."""
    return [track.tokens[track.training] for track in foretold]


def series(symbol: str, bars: int, seed: int) -> BarSeries:
    """Hourly bars of a random walk with storms."""
    chance = np.random.default_rng(seed)
    moves = 0.01 * beating(bars, seed)[0]
    close = 100.0 * np.exp(np.cumsum(moves))
    opened = np.concatenate([[100.0], close[:-1]]) * np.exp(0.001 * chance.standard_normal(bars))
    top, bottom = np.maximum(opened, close), np.minimum(opened, close)
    return BarSeries(
        symbol=symbol,
        bar_s=3_600.0,
        close_time=START_NS + HOUR_NS * np.arange(1, bars + 1),
        open=opened,
        high=top * np.exp(0.004 * chance.random(bars)),
        low=bottom * np.exp(-0.004 * chance.random(bars)),
        close=close,
        volume=np.ones(bars),
    )


def small_model(vocabulary: int = CODES, seed: int = 0) -> FinGPT:
    """A model with random weights everywhere, also where training would start from zero."""
    torch.manual_seed(seed)
    config = FinGPTConfig(
        vocabulary=vocabulary, context=8, layers=3, width=16, heads=2, kv_heads=1, hours=True, symbols=("S0",)
    )
    model = FinGPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def checkpoint(folder: Path, bars: list[BarSeries], *, training: int, codec: bool = True, seed: int = 0) -> Path:
    """A checkpoint whose tokenizer is fitted on the first bars, and whose model is not trained at all."""
    seen = [one.slice(None, int(one.close_time[training])) for one in bars]
    torch.set_num_threads(1)
    tokenizer = fit(seen, TokenizerConfig(codes=CODES, hidden=16), seed=0, steps=60)
    model = small_model(seed=seed)
    write(
        folder,
        kind="fingpt",
        config=model.to_manifest(),
        codec=tokenizer.to_manifest() if codec else None,
        training=Training(
            start=moment(int(bars[0].close_time[0])),
            end=moment(int(bars[0].close_time[training - 1])),
            symbols=tuple(one.symbol for one in bars),
            bar_s=3_600.0,
            embargo_bars=48,
            licence="Made up.",
        ),
        metrics={},
        tensors=model.to_tensors() | (tokenizer.to_tensors() if codec else {}),
    )
    return folder


def file(path: Path, bars: list[BarSeries]) -> Path:
    """The bars as a Parquet file, stamped at the open."""
    columns = {name: np.concatenate([getattr(one, name) for one in bars]) for name in ("open", "high", "low", "close")}
    times = np.concatenate([one.close_time for one in bars]) - HOUR_NS
    order = np.argsort(times, kind="stable")
    symbols = np.concatenate([np.repeat(one.symbol, len(one)) for one in bars])
    table = pa.table(
        {"open_time": pa.array(times[order], pa.timestamp("ns", "UTC")), "symbol": pa.array(symbols[order])}
        | {name: pa.array(values[order]) for name, values in columns.items()}
    )
    pq.write_table(table, path)
    return path


def after(bars: list[BarSeries], count: int) -> str:
    """The close of bar `count` as a flag takes it, a microsecond later."""
    return (moment(int(bars[0].close_time[count])) + timedelta(microseconds=1)).isoformat()
