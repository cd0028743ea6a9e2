"""Let a checkpoint speak: python -m models.generate CHECKPOINT --seed-tokens "80 81 83 89 66" --num-generate 50

Prints further tokens. Where the checkpoint holds a tokenizer, draws paths of the price to come, as a fan chart. The
context is the seed tokens, or with --data the bars of a file, whose scale, last close and hours the paths go on from.
Exit codes: 0 done, 2 bad usage or data.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.sampling import Floats, Ints, Sampling

if TYPE_CHECKING:
    from models.engine import Engine
    from models.fingpt import FinGPTConfig
    from tokenizer.codec import Codec

_SEED = "80 81 83 89 66"


class GenerateError(Exception):
    """What was asked cannot be done; the message says what was wanted and what came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """What is generated from what."""

    seed_tokens: str = _SEED  # the context, between blanks or commas; not read where data is given
    start_hour: int = 0  # hour of week at which the bar of the first seed token closes; Monday 00:00 UTC is 0
    scale: float | None = None  # volatility of the bar after the seed tokens, log return; without: returns in scales
    data: str = ""  # a file of bars that is the context instead
    bar: str = "1h"  # length of its bars
    stamp: str = "open"  # what the time of a bar means: open or close
    time_zone: str = ""  # of times without an offset, such as UTC
    calendar: str = "24/7"  # when bars to come close: 24/7 or a name of pandas_market_calendars, such as NYSE
    symbol: str = ""  # how the model is conditioned; without: unknown, or the name of the file
    num_generate: int = 50  # tokens that are printed
    paths: int = 500  # drawn for the fan chart; 0 draws none
    horizon: int = 48  # bars of each path
    temperature: float = 1.0  # of tokens and paths; only 1 is the model's own forecast
    top_k: int = 0  # draw among this many most probable tokens; 0 is all
    top_p: float = 1.0  # draw among the fewest most probable tokens that hold this much probability
    seed: int = 0  # of the draws
    out: str = "runs/generate/fan.png"  # the fan chart

    def __post_init__(self) -> None:
        if not 0 <= self.start_hour < 168:
            raise ValueError(f"start_hour must lie in [0, 168), was {self.start_hour}")
        if self.scale is not None and not 0.0 < self.scale < 1.0:
            raise ValueError(f"scale must lie in (0, 1), was {self.scale}")
        for name, low, high in (
            ("num_generate", 0, 100_000),
            ("paths", 0, 100_000),
            ("horizon", 1, 10_000),
            ("seed", 0, 2**63),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in [{low}, {high}], was {getattr(self, name)}")
        _ = self.sampling

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What the model is told, and what the bars to come are measured by.

    Attributes:
        symbol: of the conditioning.
        tokens, hours: (n,), oldest first.
        future_hours: of the bars to come.
        scale: of the next bar, log return; 1 where it is not known.
        closes: (m,) last known closes; empty: seed tokens have no price.
        when: (m + horizon,) closes of those bars and of the ones to come, datetime64[ns]; None without prices.
    """

    symbol: str
    tokens: Ints
    hours: Ints
    future_hours: Ints
    scale: float
    closes: Floats
    when: npt.NDArray[np.datetime64] | None


def parse_tokens(text: str, vocabulary: int) -> Ints:
    """Tokens between blanks or commas.

    Raises: GenerateError: none, or not such numbers.
    """
    words = text.replace(",", " ").split()
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= 6 and int(word) < vocabulary):
            raise GenerateError(f"want seed tokens from 0 to {vocabulary - 1}, was {word[:40]!r}")
    if not words:
        raise GenerateError("want at least one seed token, was none")
    return np.array([int(word) for word in words], dtype=np.int64)


def seeded(config: GenerateConfig, vocabulary: int, bar_s: float) -> Context:
    """The context of seed tokens: bars one after the other from the start hour on, day and night."""
    tokens = parse_tokens(config.seed_tokens, vocabulary)
    ahead = max(config.num_generate, config.horizon)
    hours = (config.start_hour + np.arange(len(tokens) + ahead) * bar_s / 3_600.0).astype(np.int64) % 168
    scale = 1.0 if config.scale is None else config.scale
    return Context(config.symbol, tokens, hours[: len(tokens)], hours[len(tokens) :], scale, np.empty(0), None)


def read(config: GenerateConfig, codec: "Codec", model: "FinGPTConfig", bar_s: float) -> Context:
    """The context of a file's last bars: as many as the model can know of.

    Raises: GenerateError: bars of another length than in training, or none after the warm-up.
    """
    from tokenizer.analysis import AnalysisConfig, read_bars
    from tokenizer.bars import hours_of_week, next_closes

    asked = AnalysisConfig(data=(config.data,), bar=config.bar, stamp=config.stamp, time_zone=config.time_zone)
    (bars,) = read_bars(asked)
    if bars.bar_s != bar_s:
        raise GenerateError(f"want bars of {bar_s:g} s as in training, {config.data} has {bars.bar_s:g} s")
    stream = codec.stream()
    rows = zip(*(column.tolist() for column in (bars.open, bars.high, bars.low, bars.close, bars.volume)), strict=True)
    tokens = np.array([stream.push(*row) for row in rows], dtype=np.int64)
    if not len(tokens) or tokens[-1] < 0:
        raise GenerateError(f"want more bars than the warm-up of {codec.config.features.warmup_bars}, was {len(bars)}")
    known = tokens >= 0
    reach = model.context * model.layers  # each layer looks one context further back
    ahead = next_closes(int(bars.close_time[-1]), bars.bar_s, config.calendar, max(config.num_generate, config.horizon))
    shown = slice(-min(len(bars), 2 * config.horizon), None)
    when = np.concatenate([bars.close_time[shown], ahead[: config.horizon]]).astype("datetime64[ns]")
    return Context(
        symbol=config.symbol or bars.symbol,
        tokens=tokens[known][-reach:],
        hours=hours_of_week(bars.close_time)[known][-reach:],
        future_hours=hours_of_week(ahead),
        scale=stream.scale,
        closes=bars.close[shown],
        when=when,
    )


def run(checkpoint: Path, config: GenerateConfig) -> str:
    """Generate, draw, and return what is printed."""
    from models.checkpoint import read_manifest
    from models.engine import Engine, Fed, ReturnTable
    from models.fingpt import FinGPT
    from tokenizer.codec import Codec

    manifest = read_manifest(checkpoint)
    model, bar_s = FinGPT.load(checkpoint), manifest.training.bar_s
    codec = None if manifest.codec is None else Codec.load(checkpoint)
    table = None
    if codec is not None:
        shape = codec.config.features
        table = ReturnTable(
            codec.returns_table, shape.scale_halflife_bars, scale_floor=shape.scale_floor, clip=shape.clip
        )
    elif config.data:
        raise GenerateError(f"{checkpoint} was trained on bare tokens: without a tokenizer, bars say nothing to it")
    if config.data and codec is not None:
        context = read(config, codec, model.config, bar_s)
    else:
        context = seeded(config, model.config.vocabulary, bar_s)
    engine = Engine(model, 1, table=table)
    hours = context.hours.tolist()
    engine.feed([Fed(symbol=context.symbol, tokens=context.tokens.tolist(), hours=hours)])
    ahead = context.future_hours[: config.num_generate].tolist()
    found = engine.sample(context.symbol, config.num_generate, sampling=config.sampling, seed=config.seed, hours=ahead)
    lines = [" ".join(map(str, found.tolist()))]
    if table is None:
        lines.append(f"no fan chart: {checkpoint} holds no tokenizer, which says what tokens mean in returns")
    elif config.paths:
        lines += _draw(engine, config, context)
    return "\n".join(lines)


def _draw(engine: "Engine", config: GenerateConfig, context: Context) -> list[str]:
    """Paths, their picture, and what it says in words."""
    from models.fan import Fan, bands, fan_png

    # A scale of 1 where it is unknown: the floor and the clip of the table are for real ones, and far away.
    hours = context.future_hours[: config.horizon].tolist()
    paths = engine.paths(
        context.symbol,
        config.horizon,
        config.paths,
        context.scale,
        hours=hours,
        seed=config.seed,
        sampling=config.sampling,
    )
    summed = np.cumsum(paths.returns, axis=1)  # (paths, horizon) log return since the last known close
    name = context.symbol or "Seed tokens"
    title = f"{name}: {config.paths:,} paths of {config.horizon} bars"
    changed = (("temperature", config.temperature, 1.0), ("top-k", config.top_k, 0), ("top-p", config.top_p, 1.0))
    title += "".join(f", {what} {value:g}" for what, value, usual in changed if value != usual)
    if len(context.closes):
        fan = Fan(title, "close", context.closes, context.closes[-1] * np.exp(summed), context.when)
        unit = "close"
    elif config.scale is None:
        fan = Fan(title, "log return since the last token, scales of its bar", np.zeros(1), summed)
        unit = "log return in scales"
    else:
        fan = Fan(title, "return since the last token", np.zeros(1), np.expm1(summed), percent=True)
        unit = "return"
    out = Path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(fan_png(fan))
    low, middle, high = bands(fan.future, (0.05, 0.5, 0.95))[:, -1]
    return [f"after {config.horizon} bars, {unit}: {low:.6g} (5 %), {middle:.6g} (median), {high:.6g} (95 %)", f"{out}"]


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    import tyro

    from feeds.errors import FeedError
    from models.checkpoint import CheckpointError

    @dataclass(frozen=True)
    class Command:
        checkpoint: tyro.conf.Positional[Path]
        """A checkpoint folder that holds a model."""
        config: tyro.conf.OmitArgPrefixes[GenerateConfig]

    try:
        asked = tyro.cli(Command, args=list(argv), prog="python -m models.generate", description=__doc__)
        print(run(asked.checkpoint, asked.config))
    except (CheckpointError, FeedError, GenerateError, OSError, ValueError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
