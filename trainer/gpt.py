"""`python -m trainer gpt`: a GPT-2 on text, from a file or an archive to a checkpoint that `models.write` reads."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from configs.load import ConfigError, plain
from configs.version import code_version
from evaluation.token_figures import bigram, score_bigram, score_unigram, unigram
from models.checkpoint import Training, write
from models.gpt2 import GPT2, GPT2Config
from trainer.data import TokenSeries
from trainer.flags import GPTArguments
from trainer.gpt_config import GPTTrainConfig
from trainer.gpt_data import TextData, Tokens, prepared
from trainer.loop import STATE, Job, Trained
from trainer.metrics import BATCH, Metrics
from trainer.runs import batch_loss, check_outputs, fit, mean_loss, work_folder
from trainer.shipped import refuse_occupied
from trainer.windows import Batch, Windows
from trainer.world import World, world

TOKENIZER = "tokenizer.json"  # of byte pairs, beside the log, for other programs

_BAR_S = 1.0  # text has no bars; the format wants a positive number
_BIGRAM_MAX = 4_096  # different tokens; the table of more does not fit
_COUNTED_MAX = 20_000_000  # tokens that the baselines count, the last of the training text: they are in memory whole


def run(arguments: GPTArguments) -> int:
    """Train; returns the exit code.

    Raises:
        ConfigError, DataError, CheckpointError, TrainingError: what a user can get wrong, in a sentence.
    """
    code_version()  # of the code that is loaded now: hours later the tree may hold another
    config, out = arguments.config, Path(arguments.config.folder)
    with world(config.loop) as here:
        refuse_occupied(out)
        if here.first:
            check_outputs(out)
            prepared(config.data, quiet=arguments.quiet)
        here.wait()  # one process makes the tokens, the others read them
        lines = train_model(config, prepared(config.data, quiet=True), out, here, arguments)
    if lines and not arguments.quiet:
        print("\n".join(lines), flush=True)
    return 0


def train_model(config: GPTTrainConfig, data: TextData, out: Path, here: World, arguments: GPTArguments) -> list[str]:
    """Train, judge and write the checkpoint; lines for a person, none in all processes but the first.

    Raises:
        ConfigError: the shape is impossible, or the state is of another run.
        TrainingError: the loss is no longer a number.
    """
    model = _model(config, data)
    train, validation = (_windows(tokens, config.model.context) for tokens in (data.train, data.validation))
    on_the_way = partial(_spread, validation, config.validation_windows, here.rank, here.size)
    job = Job(
        model=model,
        loss=partial(batch_loss, windows=train, loop=config.loop, world=here, forward=_forward),
        validate=partial(mean_loss, batches=on_the_way, world=here, forward=_forward),
        tokens=config.loop.batch * config.model.context,
        says={
            "model": plain(model.config),
            "data": data.digest,
            "validation_windows": config.validation_windows,
        },
        unit="nats",
    )
    trained = fit(
        job,
        config.loop,
        config.optim,
        here,
        out,
        name=config.name,
        title=f"{config.name}: {model.parameter_count():,} parameters",
        resume=arguments.resume,
        quiet=arguments.quiet,
        events=config.tensorboard,
    )
    model.eval()
    with torch.inference_mode():
        at_the_end = partial(_spread, validation, config.judged_windows, here.rank, here.size)
        loss = mean_loss(model, batches=at_the_end, world=here, forward=_forward)
    if not here.first:
        return []
    metrics, line = _figures(loss, data, validation, config, trained)
    digest = _write(config, data, model, metrics, out)
    stop = "stopped early after" if trained.stopped_early else "went on to the last,"
    return [
        f"{len(data.train):,} tokens to train, {len(data.validation):,} to validate, {data.vocabulary:,} different",
        f"best at step {trained.best_step:,}; {stop} {trained.steps:,}",
        line,
        f"checkpoint: {out} ({digest[:12]})",
        f"to write: python -m models.write {out}",
    ]


def _model(config: GPTTrainConfig, data: TextData) -> GPT2:
    shape = config.model
    try:
        made = GPT2Config(
            vocabulary=data.vocabulary,
            context=shape.context,
            layers=shape.layers,
            width=shape.width,
            heads=shape.heads,
            bias=shape.bias,
            dropout=shape.dropout,
        )
    except ValueError as error:
        raise ConfigError(f"[model] {error}") from None
    torch.manual_seed(config.loop.seed)  # of the first weights
    model = GPT2(made)
    model.recompute_blocks = config.loop.activation_checkpointing
    return model


def _windows(tokens: Tokens, context: int) -> Windows:
    series = TokenSeries(symbol="", tokens=tokens, time=None, hours=None)
    return Windows([series], [(0, len(tokens) - 1)], context, symbols=None, hours=False)


def _forward(model: nn.Module, batch: Batch) -> Tensor:
    logits: Tensor = model(batch.tokens)
    return logits


def _rows(windows: Windows, count: int) -> list[tuple[int, int, int]]:
    """So many of the rows to be judged, evenly spread, the same ones each time; all where `count` is 0."""
    rows = windows.rows()
    if not 0 < count < len(rows):
        return rows
    return [rows[at] for at in np.linspace(0, len(rows) - 1, count).round().astype(int).tolist()]


def _spread(windows: Windows, count: int, rank: int, size: int) -> Iterator[Batch]:
    """This process's share of `_rows`, in batches."""
    mine = _rows(windows, count)[rank::size]
    for at in range(0, len(mine), BATCH):
        yield windows.laid(mine[at : at + BATCH])


def _figures(
    loss: float, data: TextData, validation: Windows, config: GPTTrainConfig, trained: Trained
) -> tuple[Metrics, str]:
    """The loss beside what counting tokens and pairs of tokens would have had on the same ones; and in words."""
    rows = _rows(validation, config.judged_windows)
    before, tokens = (
        np.concatenate([data.validation[first + shift : last + shift] for _, first, last in rows]).astype(np.int64)
        for shift in (0, 1)
    )
    seen = [data.train[-_COUNTED_MAX:].astype(np.int64)]
    losses = {"unigram": score_unigram(unigram(seen, data.vocabulary), tokens).figures()["cross_entropy"]}
    if data.vocabulary <= _BIGRAM_MAX:
        losses["bigram"] = score_bigram(bigram(seen, data.vocabulary), before, tokens).figures()["cross_entropy"]
    a_character = 1.0 / (math.log(2.0) * data.characters_a_token("validation"))
    bits = {name: value * a_character for name, value in losses.items()}
    metrics: Metrics = {
        "validation_loss": {
            "value": loss,
            "baselines": losses,
            "tokens": len(tokens),
            "best_step": trained.best_step,
            "sample": config.sample,
        },
        "validation_bits_a_character": {"value": loss * a_character, "baselines": bits},
    }
    beside = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
    line = (
        f"validation: loss {loss:.3f} nats a token ({beside}), {loss * a_character:.3f} bits a character;"
        f" {len(tokens):,} tokens"
    )
    return metrics, line


def _write(config: GPTTrainConfig, data: TextData, model: GPT2, metrics: Metrics, out: Path) -> str:
    training = Training(
        start=None,  # a text has no time
        end=None,
        symbols=(),
        bar_s=_BAR_S,
        embargo_bars=0,
        data_sha256=data.digest,
        licence=config.licence,
        trials=config.trials,
        seed=config.loop.seed,
    )
    digest = write(
        out,
        kind="gpt2",
        config=asdict(model.config),
        codec=data.spelling,
        training=training,
        metrics=metrics,
        tensors=model.to_tensors(),
        code=code_version(),
    )
    work = work_folder(out)
    if "tokenizer" in data.meta:
        (work / TOKENIZER).write_text(data.meta["tokenizer"], encoding="utf-8")
    (work / STATE).unlink(missing_ok=True)  # there is nothing left to resume
    return digest
