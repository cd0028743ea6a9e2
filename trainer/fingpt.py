"""`python -m trainer fingpt`: a FinGPT on the tokens of many symbols, from files to a checkpoint."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from configs.load import ConfigError, listed, plain
from configs.version import code_version
from feeds.errors import DataError
from models.checkpoint import Training, write
from models.fingpt import FinGPT
from models.fingpt_config import FinGPTConfig
from tokenizer.bars import BarSeries
from tokenizer.codec import Codec
from trainer.config import TrainConfig
from trainer.data import TokenSeries, load_tokens, tokenize, tokens_digest
from trainer.loop import STATE, Job, Trained
from trainer.metrics import BATCH, Metrics, judge, seen_before, usage
from trainer.runs import batch_loss, fit, mean_loss, work_folder
from trainer.splits import Ranges, Split, ranges, tail_ranges, within
from trainer.start import start_embeddings
from trainer.tokenizer import figures, fitted, joined, seen_by
from trainer.windows import Batch, Windows
from trainer.world import World

_TOKENS_BAR_S = 1.0  # of plain tokens, whose bars nobody knows; without a codec nothing asks for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """Tokens, and which decisions on them train, validate and test."""

    series: list[TokenSeries]
    train: Ranges
    validation: Ranges
    test: Ranges | None
    codec: Codec | None  # None: bare tokens
    training: Training
    figures: Metrics  # of the codec


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was trained, and how it did."""

    checkpoint: Path
    digest: str
    metrics: Metrics
    lines: list[str]  # for a person
    trained: Trained


def language_of_bars(
    config: TrainConfig,
    bars: Mapping[str, BarSeries],
    split: Split,
    out: Path,
    world: World,
    *,
    resume: bool,
    quiet: bool,
) -> Language:
    """The bars' tokens, through the tokenizer of this run. One process fits it, the others read it.

    Raises:
        ConfigError, CheckpointError, DataError: as `trainer.tokenizer.fitted`.
    """
    folder = work_folder(out) / "tokenizer"
    if world.first:
        fitted(config, bars, split, folder, keep=resume, quiet=quiet)
    world.wait()
    made = fitted(config, bars, split, folder, keep=True, quiet=True)  # from the folder, as the others do
    series = tokenize(bars, made.codec)
    parts = ranges(series, split)
    training = seen_by(config, within(bars, split.window), split.window, split, seed=config.loop.seed)
    if config.fit.checkpoint:
        training = joined(training, made.training)
    return Language(
        series=series,
        train=parts["train"],
        validation=parts["validation"],
        test=parts.get("test"),
        codec=made.codec,
        training=training,
        figures=figures(made.codec, bars, split) if world.first else usage(made.codec),
    )


def language_of_tokens(config: TrainConfig, path: Path) -> Language:
    """Plain tokens. Nobody knows when they were, so nothing is out of sample, and the end of each series validates.

    Raises:
        ConfigError: the model is conditioned on what tokens do not tell.
        DataError: the file cannot be used.
    """
    if config.model.hours or config.model.symbols:
        raise ConfigError("plain tokens tell neither hour nor symbol: want model.hours = false and no model.symbols")
    series = load_tokens(path, config.model.vocabulary)
    train_ranges, validation = tail_ranges(series, config.split.validation_fraction, config.split.purge_bars)
    training = Training(
        start=None,
        end=None,
        symbols=(),
        bar_s=_TOKENS_BAR_S,
        embargo_bars=config.split.embargo_bars,
        data_sha256=tokens_digest(series),
        licence=config.licence,
        trials=config.trials,
        seed=config.loop.seed,
    )
    return Language(
        series=series,
        train=train_ranges,
        validation=validation,
        test=None,
        codec=None,
        training=training,
        figures={},
    )


def train_model(
    config: TrainConfig, language: Language, out: Path, world: World, *, resume: bool, quiet: bool
) -> Result | None:
    """Train, judge and write the checkpoint. None in all processes but the first.

    Raises:
        ConfigError: the model does not fit the tokens, or the state is of another run.
        DataError: a part has nothing to train or to judge on.
        TrainingError: the loss is no longer a number.
    """
    shape = _shape(config.model, language)
    torch.manual_seed(config.loop.seed)  # of the first weights
    model = FinGPT(shape)
    if config.informed and language.codec is not None:
        start_embeddings(model, language.codec, config.loop.seed)
    model.recompute_blocks = config.loop.activation_checkpointing
    parts = _windows(model, language)
    judged = partial(parts["validation"].batches, BATCH, world.rank, world.size)
    job = Job(
        model=model,
        loss=partial(batch_loss, windows=parts["train"], loop=config.loop, world=world, forward=_forward),
        validate=partial(mean_loss, batches=judged, world=world, forward=_forward),
        tokens=config.loop.batch * shape.context,
        says={"model": plain(shape), "informed": config.informed, "data": _says(language)},
    )
    trained = fit(
        job,
        config.loop,
        config.optim,
        world,
        out,
        name=config.name,
        title=f"{config.name}: {model.parameter_count():,} parameters",
        resume=resume,
        quiet=quiet,
        events=config.tensorboard,
    )
    if not world.first:
        return None
    metrics, lines = _judged(model, parts, language, trained, config)
    digest = write(
        out,
        kind="fingpt",
        config=model.to_manifest(),
        codec=None if language.codec is None else language.codec.to_manifest(),
        training=language.training,
        metrics=metrics,
        tensors=model.to_tensors() | ({} if language.codec is None else language.codec.to_tensors()),
        code=code_version(),
    )
    (work_folder(out) / STATE).unlink(missing_ok=True)  # there is nothing left to resume
    return Result(checkpoint=out, digest=digest, metrics=metrics, lines=lines, trained=trained)


def _shape(model: FinGPTConfig, language: Language) -> FinGPTConfig:
    """The model's config, with the vocabulary of its tokenizer."""
    unknown = [name for name in model.symbols if name not in {one.symbol for one in language.series}]
    if unknown:
        raise ConfigError(f"model.symbols names {listed(unknown)}, of which there are no bars")
    return model if language.codec is None else replace(model, vocabulary=language.codec.codes)


def _windows(model: FinGPT, language: Language) -> dict[str, Windows]:
    """The parts that have decisions; training and validation must."""
    shape = model.config
    symbols = [model.symbol_index(one.symbol) for one in language.series] if shape.symbols else None
    parts = {"train": language.train, "validation": language.validation, "test": language.test}
    found = {
        name: Windows(language.series, part, shape.context, symbols=symbols, hours=shape.hours)
        for name, part in parts.items()
        if part is not None
    }
    for name in ("train", "validation"):
        if not found[name].decisions:
            raise DataError(f"the {name} part has no two tokens in a row: want longer series, or other split dates")
    return {name: windows for name, windows in found.items() if windows.decisions}


def _forward(model: nn.Module, batch: Batch) -> Tensor:
    logits: Tensor = model(batch.tokens, batch.hours, batch.symbols)
    return logits


def _judged(
    model: FinGPT, parts: dict[str, Windows], language: Language, trained: Trained, config: TrainConfig
) -> tuple[Metrics, list[str]]:
    """Figures of validation and test, beside their baselines, and lines that say them."""
    metrics: Metrics = dict(language.figures)
    stop = "stopped early after" if trained.stopped_early else "went on to the last,"
    lines = [f"best at step {trained.best_step:,}; {stop} {trained.steps:,}"]
    for name in ("validation", "test"):
        if name in parts:
            seen = seen_before(name, language.series, language.train, language.training)
            found = judge(model, parts[name], language.series, seen, model.config.vocabulary, name)
            metrics |= found.metrics
            lines.append(found.line)
    metrics["validation_bits"] |= {"best_step": trained.best_step, "sample": config.sample}
    return metrics, lines


def _says(language: Language) -> str:
    """What a run was trained on, in one digest: bars, split and tokenizer."""
    total = hashlib.sha256(repr((language.train, language.validation)).encode())
    total.update(tokens_digest(language.series).encode())
    total.update(repr(sorted(dataclasses.asdict(language.training).items())).encode())
    return total.hexdigest()
