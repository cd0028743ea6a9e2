"""`python -m trainer tokenizer`: fit a tokenizer on the training bars, and keep it with what it has seen."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from configs.load import ConfigError, plain
from configs.version import code_version
from feeds.errors import DataError
from models.checkpoint import MANIFEST, Training, read_manifest, write
from tokenizer.bars import BarSeries
from tokenizer.codec import CodebookCollapsed, Codec
from tokenizer.fit import fit
from trainer.config import TrainConfig
from trainer.data import digest, span
from trainer.logs import progress
from trainer.metrics import Metrics, reconstruction, usage
from trainer.splits import Part, Split, within


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A tokenizer, and what it has seen."""

    codec: Codec
    training: Training


def fitted(
    config: TrainConfig,
    bars: Mapping[str, BarSeries],
    split: Split,
    folder: Path,
    *,
    keep: bool,
    quiet: bool,
) -> Fitted:
    """The tokenizer of a run: the one that the config names, else one fitted on the training bars.

    Args:
        folder: where a fitted one is kept.
        keep: take the one that is there, if it is of the same bars and settings.

    Raises:
        ConfigError: the named tokenizer has seen test bars, or bars of another length.
        CheckpointError: the named one cannot be used.
        DataError: too few bars, or a codebook that collapsed.
    """
    bar_s = next(iter(bars.values())).bar_s
    if config.fit.checkpoint:
        return _named(Path(config.fit.checkpoint), bar_s, split)
    seen = within(bars, split.train)
    training = seen_by(config, seen, split.train, split, seed=config.fit.seed)
    settings = {"tokenizer": plain(config.tokenizer), "fit": plain(config.fit)}
    if keep and (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        if manifest.training == training and manifest.config == settings:
            return Fitted(codec=Codec.load(folder), training=training)
    with progress("tokenizer", config.fit.steps, quiet=quiet) as told:
        try:
            codec = fit(
                list(seen.values()),
                config.tokenizer,
                seed=config.fit.seed,
                steps=config.fit.steps,
                on_step=lambda step, at: told(step, f"mse {at['mse']:.4f}, code perplexity {at['perplexity']:.1f}"),
            )
            tensors = codec.to_tensors()
        except CodebookCollapsed as exc:
            raise DataError(f"the tokenizer is of no use: {exc}") from None
        except ValueError as exc:
            raise DataError(f"no tokenizer can be fitted: {exc}") from None
    write(
        folder,
        kind="tokenizer",
        config=settings,
        codec=codec.to_manifest(),
        training=training,
        metrics=figures(codec, bars, split),
        tensors=tensors,
        code=code_version(),
    )
    return Fitted(codec=codec, training=training)


def figures(codec: Codec, bars: Mapping[str, BarSeries], split: Split) -> Metrics:
    """How many codes are used, and how well they tell the bars of each part."""
    found = usage(codec)
    for name, part in (("train", split.train), ("validation", split.validation), ("test", split.test)):
        if part is not None:
            found |= reconstruction(codec, bars, part, name)
    return found


def seen_by(config: TrainConfig, seen: Mapping[str, BarSeries], part: Part, split: Split, *, seed: int) -> Training:
    """What a manifest says of bars that were trained on.

    Raises:
        DataError: there are none.
    """
    first, last = span(seen)
    # Of a part that ends before the window's end, the embargo is only shorter than it might be.
    embargo_end = split.embargo_end if part[1] == split.window[1] else None
    return Training(
        start=first,
        end=last,
        symbols=tuple(sorted(seen)),
        bar_s=next(iter(seen.values())).bar_s,
        embargo_bars=config.split.embargo_bars,
        embargo_end=embargo_end,
        data_sha256=digest(seen),
        licence=config.licence,
        trials=config.trials,
        seed=seed,
    )


def joined(ours: Training, other: Training) -> Training:
    """What a model has seen whose tokenizer was fitted elsewhere: both windows and what lies between."""
    if ours.start is None or ours.end is None or other.start is None or other.end is None:
        return replace(ours, start=None, end=None, embargo_end=None)
    ends = [end for end in (ours.guard_end, other.guard_end) if end is not None]
    return replace(
        ours,
        start=min(ours.start, other.start),
        end=max(ours.end, other.end),
        embargo_end=max(ends),
        symbols=tuple(sorted({*ours.symbols, *other.symbols})),
        data_sha256=_both(ours.data_sha256, other.data_sha256),
        trials=max(ours.trials, other.trials),
    )


def _named(folder: Path, bar_s: float, split: Split) -> Fitted:
    manifest = read_manifest(folder)
    training = manifest.training
    if training.bar_s != bar_s:
        raise ConfigError(f"the tokenizer of {folder} is for bars of {training.bar_s:g} s, the data have {bar_s:g} s")
    end: datetime | None = training.guard_end
    if split.test is not None and (end is None or end >= split.test[0]):
        raise ConfigError(
            f"the tokenizer of {folder} has seen bars up to {end or 'an unknown time'}, embargo included:"
            f" want it before the test starts at {split.test[0]}"
        )
    return Fitted(codec=Codec.load(folder), training=training)


def _both(ours: str, other: str) -> str:
    """The digest of one set of bars, or of the digests of two."""
    return ours if ours == other else hashlib.sha256(f"{ours} {other}".encode()).hexdigest()
