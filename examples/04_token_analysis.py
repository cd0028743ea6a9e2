"""What a price says when it is read as a language: bars to tokens, and what the vocabulary looks like.

python examples/04_token_analysis.py

One learns: a tokenizer comes out of a checkpoint and needs no torch; each bar that closes is one token, the same from a
stream as from the whole series; codes are used unevenly, and a token says a little about the ones after it.
`python -m tokenizer.analysis checkpoints/demo --data configs/train/demo.toml` draws all of it.
"""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import tyro

from configs.command import run_command
from feeds.errors import FeedError
from feeds.files import Source
from models.checkpoint import CheckpointError
from tokenizer.analysis import encoded
from tokenizer.bars import BarSeries
from tokenizer.codec import Codec
from tokenizer.vocabulary import memory, outliers, surprise, usage
from trainer.data import load_bars

ROOT = Path(__file__).parent.parent
BTC = Source(path="feeds/sample/btc_usd_1h_2017-2019.parquet", symbol="BTC-USD", time_zone="UTC", bar="1h")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Read hourly BTC-USD as tokens."""

    checkpoint: Path = ROOT / "checkpoints" / "demo"  # whose tokenizer is used
    top: int = 5  # codes and outliers that are shown

    def __post_init__(self) -> None:
        if not 1 <= self.top <= 50:
            raise ValueError(f"top must lie in [1, 50], was {self.top}")


def show_stream(codec: Codec, bars: BarSeries, tokens: np.ndarray, count: int) -> None:
    """The last bars as they would come live, one after the other: never an earlier bar again, never a later one."""
    stream = codec.stream()
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    live = [stream.push(*bar) for bar in zip(*(column.tolist() for column in columns), strict=True)]
    print(f"stream and series give the same {len(live):,} tokens: {live == tokens.tolist()}")
    for at in range(len(bars) - count, len(bars)):
        when = datetime.fromtimestamp(bars.close_time[at] / 1e9, UTC)
        print(f"  {when:%Y-%m-%d %H:%M}  close {bars.close[at]:>9,.2f}  token {live[at]:>3}")


def main() -> int:
    options = tyro.cli(Options, description=__doc__)
    codec = Codec.load(options.checkpoint)
    bars = load_bars([BTC])["BTC-USD"]
    show_stream(codec, bars, codec.encode(bars).tokens, options.top)

    rows = encoded(codec, [bars])  # without the warm-up, which has no tokens
    use = usage(rows, codec.codes)
    print(f"\n{use.counts.sum():,} tokens, entropy {use.entropy_bits:.2f} of {np.log2(codec.codes):.2f} bits")
    print(f"{use.half} of {codec.codes} codes make half of all tokens; the most used, and the median return they tell:")
    medians = np.median(codec.returns_table, axis=1)  # (V,) in units of the volatility known before the bar
    for code in np.argsort(-use.counts, kind="stable")[: options.top]:
        print(f"  code {code:>3}  {use.counts[code] / use.counts.sum():6.2%} of tokens  {medians[code]:+.2f} scales")

    told = memory(rows, codec.codes, seed=0, lags=(1, 2, 24, 168))
    print("\nwhat a token says about a later one, and what shuffled tokens would seem to say (two deviations):")
    for lag, bits, noise in zip(told.lags, told.bits, told.noise, strict=True):
        print(f"  {lag:>3} bars later  {bits:.3f} bits  {2 * noise:.3f} by chance")

    found = surprise(rows, codec.codes)  # of a bigram learned from the first 70 %
    print("\nmost surprising tokens of the rest:")
    for one in outliers(rows, found, options.top):
        assert one.close_time_ns is not None
        when = datetime.fromtimestamp(one.close_time_ns / 1e9, UTC)
        print(f"  {when:%Y-%m-%d %H:%M}  {one.token:>3} after {one.before:>3}, {one.bits:.1f} bits, z {one.z:+.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(Path(__file__).name, main, (CheckpointError, FeedError)))
