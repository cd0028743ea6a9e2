"""Let the model go on where the data end: tokens, bars, and many paths of the price.

python examples/07_generation.py

One learns: tokens are drawn one after the other, more or less boldly; a tokenizer turns them into bars again; and the
spread of many paths is the forecast, since one path is only one of them. Nothing here says that there is an edge.
`python -m models.generate` does the same from the command line.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from configs.command import run_command
from configs.outputs import check_writable
from feeds.errors import FeedError
from feeds.files import Source
from models.checkpoint import CheckpointError
from models.engine import Engine, Fed, ReturnTable, Sampling
from models.fan import Fan, bands, fan_png
from models.fingpt import FinGPT
from tokenizer.bars import hours_of_week, next_closes
from tokenizer.codec import Codec
from trainer.data import load_bars

ROOT = Path(__file__).parent.parent
BTC = Source(path="feeds/sample/btc_usd_1h_2017-2019.parquet", symbol="BTC-USD", time_zone="UTC", bar="1h")
SHOWN = 72  # known closes on the chart


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Continue hourly BTC-USD."""

    checkpoint: Path = ROOT / "checkpoints" / "demo"
    horizon: int = 24  # bars to come
    paths: int = 200
    seed: int = 0  # the same seed draws the same
    out: Path = Path("runs/generation.png")  # the fan chart

    def __post_init__(self) -> None:
        if not 1 <= self.horizon <= 1_000:
            raise ValueError(f"horizon must lie in [1, 1000], was {self.horizon}")
        if not 1 <= self.paths <= 10_000:
            raise ValueError(f"paths must lie in [1, 10000], was {self.paths}")


def main() -> int:
    options = tyro.cli(Options, description=__doc__)
    check_writable(options.out)  # better now than after the work
    torch.set_num_threads(1)  # a model this small is faster on one
    model, codec = FinGPT.load(options.checkpoint), Codec.load(options.checkpoint)
    bars = load_bars([BTC])["BTC-USD"]
    stream = codec.stream()
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    tokens = [stream.push(*bar) for bar in zip(*(column.tolist() for column in columns), strict=True)]
    close, scale = float(bars.close[-1]), stream.scale  # the scale of the bar to come, known now

    shape = codec.config.features
    table = ReturnTable(codec.returns_table, shape.scale_halflife_bars, scale_floor=shape.scale_floor, clip=shape.clip)
    engine = Engine(model, slots=1, table=table)
    reach = model.config.layers * model.config.context  # further back nothing is known to the model
    engine.feed([Fed(symbol="BTC-USD", tokens=tokens[-reach:], hours=hours_of_week(bars.close_time)[-reach:].tolist())])
    ahead = next_closes(int(bars.close_time[-1]), bars.bar_s, "24/7", options.horizon)
    hours = hours_of_week(ahead).tolist()

    print(f"the last close is {close:,.2f}; one continuation each, told as bars by the tokenizer:")
    for temperature in (0.5, 1.0, 1.5):  # 1 is what the model believes; less is tamer, more is wilder
        sampling = Sampling(temperature=temperature)
        said = engine.sample("BTC-USD", options.horizon, sampling=sampling, seed=options.seed, hours=hours)
        told = codec.decode(said, close, scale)
        few = " ".join(str(token) for token in said[:8])
        print(f"  temperature {temperature}: {few} ...  from {told.low.min():,.0f} to {told.high.max():,.0f}")

    found = engine.paths("BTC-USD", options.horizon, options.paths, scale, hours=hours, seed=options.seed)
    prices = close * np.exp(np.cumsum(found.returns, axis=1))  # (paths, horizon)
    print(f"\n{options.paths} paths:   5 %     median       95 %")
    for bar in sorted({1, options.horizon // 2, options.horizon} - {0}):
        low, middle, high = bands(prices, (0.05, 0.5, 0.95))[:, bar - 1]
        print(f"  {bar:>4} h  {low:>9,.2f}  {middle:>9,.2f}  {high:>9,.2f}")

    when = np.concatenate([bars.close_time[-SHOWN:], ahead]).astype("datetime64[ns]")
    title = f"BTC-USD: {options.paths} paths of {options.horizon} hours"
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(fan_png(Fan(title, "close", bars.close[-SHOWN:], prices, when)))
    print(f"\n{options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(Path(__file__).name, main, (CheckpointError, FeedError)))
