"""`python -m tokenizer.analysis CHECKPOINT --data FILE`: what a vocabulary looks like."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from configs.outputs import check_writable
from models.checkpoint import CheckpointError, read_manifest
from tokenizer import pictures, vocabulary
from tokenizer.bars import BarSeries, Ints
from tokenizer.codec import Codec
from tokenizer.vocabulary import TokenRow

PROGRAM = "python -m tokenizer.analysis"

_CODES_MAX = 4_096  # whose table of transitions takes 2 GB
_FIGURES = "analysis.json"
_PICTURES = tuple(
    f"{name}.png" for name in ("usage", "codes", "transitions", "memory", "ngrams", "surprise", "returns")
)

# tyro does not wrap it: one line a paragraph, none longer than a terminal is wide.
_DESCRIPTION = """\
Draw and describe the vocabulary of a tokenizer, or plain tokens.

With --data, what the tokenizer makes of bars; else what its training made.

Writes pictures and analysis.json into a folder, and a summary to stdout.

Exit codes: 0 done, 2 bad usage, data or checkpoint, 130 interrupted.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisConfig:
    """What is looked at, and how closely."""

    data: tuple[str, ...] = ()  # training configs (.toml: the bars of their feeds), or files of bars
    bar: str = "1h"  # length of the bars of data files
    stamp: str = "open"  # what the time of a bar means: open or close
    time_zone: str = "UTC"  # of times without an offset in data files
    codes: int = 128  # vocabulary of plain tokens
    fit_share: float = 0.7  # of the bars, which surprise is learned from; it is judged on the rest
    gram: int = 3  # length of the sequences that are looked for
    top: int = 20  # sequences and outliers named
    seed: int = 0  # of the shuffles
    out: str = "runs/analysis"  # folder

    def __post_init__(self) -> None:
        if not 2 <= self.codes <= _CODES_MAX:
            raise ValueError(f"codes must lie in [2, {_CODES_MAX}], was {self.codes}")
        if not 0.0 < self.fit_share < 1.0:
            raise ValueError(f"fit_share must lie in (0, 1), was {self.fit_share}")
        if not 2 <= self.gram <= 6:
            raise ValueError(f"gram must lie in [2, 6], was {self.gram}")
        if not 1 <= self.top <= 100:
            raise ValueError(f"top must lie in [1, 100], was {self.top}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, was {self.seed}")


class AnalysisError(Exception):
    """What was asked for cannot be analysed; the message says why."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """Pictures by file name, and the figures behind them in JSON values."""

    figures: dict[str, Any]
    pictures: dict[str, bytes]


def analyse(rows: Sequence[TokenRow], codec: Codec | None, config: AnalysisConfig) -> Analysis:
    """All that the tokens give: without times, returns or a codec, what needs those is left out.

    Without rows the codec's own training counts are shown.
    """
    codes = config.codes if codec is None else codec.codes
    use = vocabulary.usage(rows, codes)
    if not rows and codec is not None:
        use = vocabulary.usage_of(codec.code_counts)
    drawn = {"usage.png": pictures.usage_picture(use)}
    figures: dict[str, Any] = {
        "tokens": int(use.counts.sum()),
        "symbols": sorted({row.symbol for row in rows} - {""}),
        "codes": codes,
        "entropy_bits": use.entropy_bits,
        "perplexity": use.perplexity,
        "unused": use.unused,
        "codes_of_half_the_tokens": use.half,
        "counts": use.counts.tolist(),
    }
    order = np.arange(codes)
    if codec is not None:
        features = codec.config.features
        order = np.argsort(codec.code_moves[:, features.close_index], kind="stable")
        drawn["codes.png"] = pictures.codes_picture(codec.code_moves, use.counts, features)
        figures["training_perplexity"] = codec.perplexity
    if rows:
        _sequence(rows, codec, config, order, use, figures, drawn)
    if rows and all(row.z is not None for row in rows):
        priced = vocabulary.code_returns(rows, codes)
        drawn["returns.png"] = pictures.returns_picture(priced, order)
        shown = {"mean": priced.mean, "size": priced.size, "next_mean": priced.next_mean, "next_size": priced.next_size}
        figures["returns"] = {name: _numbers(column) for name, column in shown.items()}
    return Analysis(figures, drawn)


def _sequence(
    rows: Sequence[TokenRow],
    codec: Codec | None,
    config: AnalysisConfig,
    order: Ints,
    use: vocabulary.Usage,
    figures: dict[str, Any],
    drawn: dict[str, bytes],
) -> None:
    """What lies in the order of tokens."""
    codes = len(order)
    drawn["transitions.png"] = pictures.transitions_picture(
        vocabulary.transitions(rows, codes), vocabulary.independent(rows, codes), order
    )
    remembered = vocabulary.memory(rows, codes, seed=config.seed)
    drawn["memory.png"] = pictures.memory_picture(remembered, use.entropy_bits)
    figures["memory"] = {
        "lags": remembered.lags.tolist(),
        "bits": _numbers(remembered.bits),
        "noise_bits": _numbers(remembered.noise),
    }
    standing = vocabulary.grams(rows, codes, config.gram, config.top)
    moves, features = (None, None) if codec is None else (codec.code_moves, codec.config.features)
    drawn["ngrams.png"] = pictures.grams_picture(standing, moves, features)
    figures["ngrams"] = [dataclasses.asdict(gram) for gram in standing]
    found = vocabulary.surprise(rows, codes, config.fit_share)
    named = vocabulary.outliers(rows, found, config.top)
    drawn["surprise.png"] = pictures.surprise_picture(rows, found, named)
    bits, single = found.after(found.bigram), found.after(found.unigram)
    figures["surprise"] = {
        "judged": len(bits),
        "bigram_bits": float(bits.mean()) if len(bits) else None,
        "unigram_bits": float(single.mean()) if len(single) else None,
        "outliers": [dataclasses.asdict(outlier) for outlier in named],
    }


def _numbers(column: Any) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in column]


def encoded(codec: Codec, series: Sequence[BarSeries]) -> list[TokenRow]:
    """The tokens of each symbol, without warm-up; symbols too short for a token are left out."""
    rows = []
    for bars in series:
        found = codec.encode(bars)
        known = found.tokens >= 0
        if known.any():
            z = found.returns[known] / found.scale[known]
            rows.append(
                TokenRow(symbol=bars.symbol, tokens=found.tokens[known], close_time=bars.close_time[known], z=z)
            )
    return rows


def read_tokens(path: Path, codes: int) -> list[TokenRow]:
    """Plain tokens, a row a series, as `trainer.data.load_tokens` reads them.

    Raises:
        feeds.errors.DataError: no such file, no text, or not such numbers.
    """
    from trainer.data import load_tokens  # here, as only the command reads files

    found = load_tokens(path, codes)
    many = len(found) > 1
    return [
        TokenRow(symbol=f"{path.stem} {i}" if many else path.stem, tokens=one.tokens) for i, one in enumerate(found, 1)
    ]


def read_bars(config: AnalysisConfig) -> list[BarSeries]:
    """The bars of all files, by symbol.

    Raises:
        configs.load.ConfigError, feeds.errors.DataError: a file cannot be used, or two hold the same symbol.
    """
    from trainer.data import load_data  # here, as only the command reads files

    if not config.data:
        return []
    paths = [Path(path) for path in config.data]
    return list(load_data(paths, bar=config.bar, time_zone=config.time_zone, stamp=config.stamp).values())


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    import tyro

    from configs.command import run_command
    from configs.flags import registry
    from configs.load import ConfigError
    from feeds.errors import FeedError

    @dataclass(frozen=True)
    class Command:
        subject: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
        """folder of a tokenizer, or a text file of tokens"""
        config: Annotated[AnalysisConfig, tyro.conf.arg(name="")]

    def work() -> int:
        asked = tyro.cli(Command, args=list(argv), prog=PROGRAM, description=_DESCRIPTION, registry=registry())
        folder = Path(asked.config.out)
        _check_place(folder)
        found = _analysed(asked.subject, asked.config)
        folder.mkdir(parents=True, exist_ok=True)
        for name in _PICTURES:
            (folder / name).unlink(missing_ok=True)  # of an earlier analysis, which drew others
        for name, png in found.pictures.items():
            (folder / name).write_bytes(png)
        (folder / _FIGURES).write_text(json.dumps(found.figures, indent=1, allow_nan=False) + "\n")
        print(f"{summary(found.figures)}\n\npictures and analysis.json are in {folder}")
        return 0

    return run_command(PROGRAM, work, (AnalysisError, CheckpointError, ConfigError, FeedError, ValueError))


def _check_place(folder: Path) -> None:
    """Refuse a folder that cannot be written, or that holds something else: pictures of an earlier analysis go.

    Raises:
        AnalysisError, OSError: it is such a folder.
    """
    if folder.is_dir() and not (folder / _FIGURES).exists():
        if other := min((path.name for path in folder.iterdir()), default=""):
            raise AnalysisError(f"want an empty --out, or that of an earlier analysis, {folder} holds {other}")
    check_writable(folder / _FIGURES)


def _analysed(subject: Path, config: AnalysisConfig) -> Analysis:
    if not subject.exists():
        raise AnalysisError(f"want a checkpoint folder or a text file of tokens, and {subject} does not exist")
    codec = Codec.load(subject) if subject.is_dir() else None
    if codec is None and config.data:
        raise AnalysisError("--data is read by a checkpoint's tokenizer, and plain tokens come without one")
    if codec is not None and codec.codes > _CODES_MAX:
        raise AnalysisError(f"want a tokenizer of at most {_CODES_MAX} codes, {subject} has {codec.codes}")
    series = read_bars(config)
    if codec is not None:
        bar_s = read_manifest(subject).training.bar_s
        for bars in series:
            if bars.bar_s != bar_s:
                raise AnalysisError(f"want bars of {bar_s:g} s as in training, {bars.symbol} has {bars.bar_s:g} s")
    rows = read_tokens(subject, config.codes) if codec is None else encoded(codec, series)
    if codec is not None and config.data and not rows:
        raise AnalysisError(f"the files hold no bar after the warm-up of {codec.config.features.warmup_bars} bars")
    return analyse(rows, codec, config)


def summary(figures: dict[str, Any]) -> str:
    """The figures that a person wants first."""
    codes = figures["codes"]
    lines = [
        f"tokens        {figures['tokens']:,}" + (f" of {', '.join(figures['symbols'])}" if figures["symbols"] else ""),
        f"entropy       {figures['entropy_bits']:.3f} bits of {np.log2(codes):.3f}",
        f"perplexity    {figures['perplexity']:.1f} of {codes} codes, {figures['unused']} unused",
    ]
    if "surprise" in figures and figures["surprise"]["judged"]:
        told = figures["surprise"]
        lines.append(f"unigram       {told['unigram_bits']:.3f} bits a token on the last {told['judged']:,} tokens")
        lines.append(f"bigram        {told['bigram_bits']:.3f} bits a token on the same")
        lines.append("\nmost surprising")
        lines += [_outlier(one) for one in told["outliers"][:5]]
    if figures.get("ngrams"):
        lines.append("\nsequences that stand out     seen  expected")
        for gram in figures["ngrams"][:5]:
            said = " ".join(str(code) for code in gram["codes"])
            lines.append(f"  {said:26s} {gram['count']:5,d}  {gram['expected']:8.2f}")
    return "\n".join(lines)


def _outlier(one: dict[str, Any]) -> str:
    when = ""
    if one["close_time_ns"] is not None:
        when = f"{datetime.fromtimestamp(one['close_time_ns'] / 1e9, UTC):%Y-%m-%d %H:%M}  "
    moved = "" if one["z"] is None else f", a return of {one['z']:+.2f} scales"
    return f"  {when}{one['symbol']}: {one['token']} after {one['before']}, {one['bits']:.1f} bits{moved}"


if __name__ == "__main__":
    from configs.command import leave_on_interrupt

    leave_on_interrupt(PROGRAM)
    sys.exit(main(sys.argv[1:]))
