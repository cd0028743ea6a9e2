"""A language model of prices, from its weights to a forecast of the next hour.

python examples/05_model_and_forward.py

One learns: what FinGPT is made of; that decoding one token at a time through the ring cache gives the logits of one
forward pass over everything; and how probabilities of 128 codes become the distribution of one return, exactly.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from configs.command import run_command
from feeds.errors import FeedError
from feeds.files import Source
from models.checkpoint import CheckpointError, read_manifest
from models.engine import Engine, Fed, ReturnTable
from models.fingpt import FinGPT
from tokenizer.bars import hours_of_week
from tokenizer.codec import Codec
from trainer.data import load_bars

ROOT = Path(__file__).parent.parent
BTC = Source(path="feeds/sample/btc_usd_1h_2017-2019.parquet", symbol="BTC-USD", time_zone="UTC", bar="1h")
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Forecast the last hours of BTC-USD, which come after all that the model was trained on."""

    checkpoint: Path = ROOT / "checkpoints" / "demo"
    bars: int = 600  # read by the model: more than its context, so that the ring cache wraps
    forecasts: int = 5  # shown

    def __post_init__(self) -> None:
        if not 2 <= self.forecasts < self.bars <= 5_000:
            raise ValueError(f"want 2 <= forecasts < bars <= 5000, was {self.forecasts} and {self.bars}")


def main() -> int:
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)  # a model this small is faster on one
    manifest = read_manifest(options.checkpoint)
    model, codec = FinGPT.load(options.checkpoint), Codec.load(options.checkpoint)
    shape = model.config
    print(f"{model.parameter_count():,} parameters: {shape.layers} layers, {shape.width} wide, {shape.heads} heads,")
    print(f"context {shape.context}; trained on bars up to {manifest.training.end}, judged on later ones:")
    for name, metric in manifest.metrics.items():
        if name.endswith("_bits"):
            baselines = ", ".join(f"{other} {value:.3f}" for other, value in metric["baselines"].items())
            print(f"  {name} {metric['value']:.3f}, {baselines}")

    bars = load_bars([BTC])["BTC-USD"]
    read = codec.encode(bars)
    last = slice(-options.bars, None)
    tokens, hours = read.tokens[last], hours_of_week(bars.close_time)[last]

    # One pass over everything, each position seeing one context in each layer: (1, T) -> (1, T, V)
    with torch.inference_mode():
        symbol = torch.tensor([model.symbol_index("BTC-USD")])
        whole = model(torch.from_numpy(tokens)[None], torch.from_numpy(hours)[None], symbol, window=shape.context)
    at_once = torch.log_softmax(whole[0].double(), dim=-1).numpy()  # (T, V)

    # The same, one token after the other through the cache, as it is done live.
    table = ReturnTable(codec.returns_table, codec.config.features.scale_halflife_bars)
    engine = Engine(model, slots=1, table=table)
    fed = [
        engine.feed([Fed(symbol="BTC-USD", tokens=[token], hours=[hour])])
        for token, hour in zip(tokens.tolist(), hours.tolist(), strict=True)
    ]
    chances = np.concatenate(fed)  # (T, V) probabilities of the next token
    apart = float(np.abs(np.log(chances) - at_once).max())
    print(f"\n{len(tokens)} tokens through the cache and in one pass: log-probabilities at most {apart:.1e} apart")

    # A code is a set of training bars: probabilities of codes mix their returns, times the scale of the bar to come.
    shown = options.forecasts
    forecast = engine.one_step(chances[-shown - 1 : -1], read.scale[-shown:])
    print(
        f"\nlog return of the next hour, %: {'  '.join(f'{level:>6.0%}' for level in LEVELS)}  volatility  P(up)  came"
    )
    for quantiles, volatility, up, came in zip(
        forecast.quantile(LEVELS), forecast.volatility, forecast.probability_up, read.returns[-shown:], strict=True
    ):
        row = "  ".join(f"{100 * value:+6.2f}" for value in quantiles)
        print(f"{'':32}{row}  {100 * volatility:10.2f}  {up:5.2f}  {100 * came:+.2f}")
    bits = -np.log(chances[:-1][np.arange(len(tokens) - 1), tokens[1:]]).mean() / math.log(2.0)
    print(f"\n{bits:.2f} bits a token over these {len(tokens)} bars; a blind guess has {math.log2(codec.codes):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(Path(__file__).name, main, (CheckpointError, FeedError)))
