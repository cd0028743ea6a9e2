"""`python -m models.generate CHECKPOINT`: further tokens, and where the price may go, as a fan chart."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt

from models.manifest import Training
from models.sampling import Floats, Ints, Sampling

if TYPE_CHECKING:
    from models.engine import Engine
    from models.fingpt_config import FinGPTConfig
    from tokenizer.bars import BarSeries
    from tokenizer.codec import Codec

PROGRAM = "python -m models.generate"

_SEED = "80 81 83 89 66"
_STEPS_MAX = 100_000_000  # bars of all paths together: 8 GB
# tyro does not wrap it: one line a paragraph, none longer than a terminal is wide.
_DESCRIPTION = """\
Print tokens that may come, and draw where the price may go, as a fan chart.

The context is the seed tokens, or with --data the last bars of a file.

The chart needs a checkpoint that holds a tokenizer.

Exit codes: 0 done, 2 bad usage, data or checkpoint, 130 interrupted.
"""


class GenerateError(Exception):
    """What was asked cannot be done; the message says what was wanted and what came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """What is generated from what."""

    seed_tokens: str = _SEED  # the context, between blanks or commas; not read where data is given
    start_hour: int = 0  # hour of week at which the bar of the first seed token closes; Monday 00:00 UTC is 0
    scale: float | None = None  # volatility of the bar after the seed tokens, log return; without: returns in scales
    data: str = ""  # bars that are the context instead: a training config (.toml: those of its feeds), or a file
    bar: str = "1h"  # length of the bars of a data file
    stamp: str = "open"  # what the time of a bar means: open or close
    time_zone: str = "UTC"  # of times without an offset in a data file
    calendar: str = "24/7"  # when bars after the data close: 24/7 or a name of pandas_market_calendars, such as NYSE
    symbol: str = ""  # how the model is conditioned, and whose bars of several; without: unknown, or that of the bars
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
        if self.data and self.scale is not None:
            raise ValueError(f"data bring their own scale: want data or scale, was {self.data} and {self.scale}")
        if not self.data and self.calendar != "24/7":
            raise ValueError(
                f"bars after seed tokens close day and night: want data or no calendar, was {self.calendar}"
            )
        for name, low, high in (
            ("num_generate", 0, 100_000),
            ("paths", 0, 100_000),
            ("horizon", 1, 10_000),
            ("seed", 0, 2**63),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in [{low}, {high}], was {getattr(self, name)}")
        if self.paths * self.horizon > _STEPS_MAX:
            raise ValueError(f"paths x horizon must be at most {_STEPS_MAX:,}, was {self.paths:,} x {self.horizon:,}")
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
        seen: whether the model has seen the bars to come, or may have.
    """

    symbol: str
    tokens: Ints
    hours: Ints
    future_hours: Ints
    scale: float
    closes: Floats
    when: npt.NDArray[np.datetime64] | None
    seen: bool = False


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


def read(config: GenerateConfig, codec: "Codec", model: "FinGPTConfig", training: Training) -> Context:
    """The context of a file's last bars: as many as the model can know of.

    Raises: GenerateError: bars of another length than in training, of several symbols, or none after the warm-up.
    """
    from tokenizer.bars import hours_of_week, next_closes

    bars = _bars(config)
    if bars.bar_s != training.bar_s:
        raise GenerateError(f"want bars of {training.bar_s:g} s as in training, {config.data} has {bars.bar_s:g} s")
    stream = codec.stream()
    rows = zip(*(column.tolist() for column in (bars.open, bars.high, bars.low, bars.close, bars.volume)), strict=True)
    tokens = np.array([stream.push(*row) for row in rows], dtype=np.int64)
    if not len(tokens) or tokens[-1] < 0:
        raise GenerateError(f"want more bars than the warm-up of {codec.config.features.warmup_bars}, was {len(bars)}")
    now = datetime(1970, 1, 1) + timedelta(microseconds=int(bars.close_time[-1]) // 1_000)
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
        seen=training.overlaps(now, now),
    )


def _bars(config: GenerateConfig) -> "BarSeries":
    """The bars of the symbol that is asked for, or of the only one."""
    from trainer.data import load_data

    found = load_data([Path(config.data)], bar=config.bar, time_zone=config.time_zone, stamp=config.stamp)
    if config.symbol in found:
        return found[config.symbol]
    if len(found) > 1:
        asked = f"was {config.symbol}" if config.symbol else "was none"
        raise GenerateError(f"want the --symbol of one of {config.data}: {', '.join(sorted(found))}, {asked}")
    return next(iter(found.values()))


def run(checkpoint: Path, config: GenerateConfig) -> str:
    """Generate, draw, and return what is printed."""
    from configs.outputs import check_writable
    from models.checkpoint import read_manifest

    manifest = read_manifest(checkpoint)
    if config.paths and manifest.codec is not None:
        check_writable(Path(config.out))

    from models.engine import Engine, Fed, ReturnTable  # here: torch takes seconds
    from models.fingpt import FinGPT
    from tokenizer.codec import Codec

    model, training = FinGPT.load(checkpoint), manifest.training
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
        context = read(config, codec, model.config, training)
    else:
        context = seeded(config, model.config.vocabulary, training.bar_s)
    engine = Engine(model, 1, table=table)
    hours = context.hours.tolist()
    engine.feed([Fed(symbol=context.symbol, tokens=context.tokens.tolist(), hours=hours)])
    ahead = context.future_hours[: config.num_generate].tolist()
    found = engine.sample(context.symbol, config.num_generate, sampling=config.sampling, seed=config.seed, hours=ahead)
    lines = [" ".join(map(str, found.tolist())), *_remarks(checkpoint, model.config, context)]
    if table is None:
        lines.append(f"no fan chart: {checkpoint} holds no tokenizer, which says what tokens mean in returns")
    elif config.paths:
        lines += _draw(engine, config, context)
    return "\n".join(lines)


def _remarks(checkpoint: Path, model: "FinGPTConfig", context: Context) -> list[str]:
    """What a reader should know of the context."""
    remarks = []
    if context.symbol and model.symbols and context.symbol not in model.symbols:
        known = ", ".join(model.symbols)
        remarks.append(f"{checkpoint} does not know {context.symbol} (known: {known}): taken as an unknown symbol")
    if context.seen:
        remarks.append(f"in sample: {checkpoint} has seen, or may have seen, the bars after the last one of the data")
    return remarks


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused
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
    name = context.symbol if len(context.closes) else f"{context.symbol or 'Unknown symbol'} after seed tokens"
    title = f"{name}: {config.paths:,} paths of {config.horizon} bars"
    changed = (("temperature", config.temperature, 1.0), ("top-k", config.top_k, 0), ("top-p", config.top_p, 1.0))
    title += "".join(f", {what} {value:g}" for what, value, usual in changed if value != usual)
    title += ", in sample" if context.seen else ""
    if len(context.closes):
        fan = Fan(title, "close", context.closes, context.closes[-1] * np.exp(summed), context.when)
        unit = "close"
    elif config.scale is None:
        fan = Fan(title, "log return since the last token, in scales of the next bar", np.zeros(1), summed)
        unit = "log return in scales"
    else:
        fan = Fan(title, "return since the last token", np.zeros(1), np.expm1(summed), percent=True)
        unit = "return"
    if not np.isfinite(fan.future).all():
        raise GenerateError(
            f"paths of {config.horizon} bars at temperature {config.temperature:g} leave what a number can hold: want"
            " a shorter horizon or a lower temperature"
        )
    out = Path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(fan_png(fan))
    ends = bands(fan.future, (0.05, 0.5, 0.95))[:, -1]
    low, middle, high = (f"{100.0 * end:.2f} %" if fan.percent else f"{end:.6g}" for end in ends.tolist())
    return [f"after {config.horizon} bars, {unit}: {low} (5 %), {middle} (median), {high} (95 %)", f"{out}"]


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    import tyro

    from configs.command import run_command
    from configs.flags import registry
    from configs.load import ConfigError
    from feeds.errors import FeedError
    from models.checkpoint import CheckpointError

    @dataclass(frozen=True)
    class Command:
        checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
        """folder of a model"""
        config: Annotated[GenerateConfig, tyro.conf.arg(name="")]

    def work() -> int:
        asked = tyro.cli(Command, args=list(argv), prog=PROGRAM, description=_DESCRIPTION, registry=registry())
        print(run(asked.checkpoint, asked.config))
        return 0

    return run_command(PROGRAM, work, (CheckpointError, ConfigError, FeedError, GenerateError, ValueError))


if __name__ == "__main__":
    from configs.command import leave_on_interrupt

    leave_on_interrupt(PROGRAM)
    sys.exit(main(sys.argv[1:]))
