"""A language model tuned on labelled headlines, with a head on its last layer: kind tune of the advisor's training.

Nothing of it ships: the weights are as large as the model's. They are written as a folder that every reader of language
models takes, and the head as a checkpoint over that folder, so that the backend `gpt` runs both as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.load import ConfigError, plain
from models.advisor.advice import AdvisorError
from models.advisor.backends import installed_model
from models.advisor.ngrams import NgramConfig
from models.advisor.reader import Reader, open_model, plain_tokens
from models.advisor.weights import HeadConfig, Reading
from models.llama import Llama
from trainer.advisor_checkpoint import write_head
from trainer.advisor_config import AdvisorTrainConfig
from trainer.advisor_data import Labelled, load_sentences, parted
from trainer.advisor_figures import figures, lines_of
from trainer.advisor_fit import CLASSES, Design, Fitted, Floats, Ints, calibration, chances, ngram_matrix
from trainer.advisor_fit import threshold as threshold_of
from trainer.config import LoopConfig
from trainer.llama_folder import refuse_foreign, write_folder
from trainer.loop import STATE, Job
from trainer.runs import fit, work_folder
from trainer.world import World, world

_NO_NGRAMS = NgramConfig(buckets_log2=8)  # the smallest table there is, all zeros
_VALIDATION = 0  # the fold that decides when to stop, and the temperature and the threshold
_STANDARDISED_ON = 512  # rows: enough for means and deviations, and soon read
_LEAST_SCALE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Headlines as tokens, with their classes (N,)."""

    tokens: list[list[int]]
    labels: Ints

    def at(self, rows: Ints) -> "_Rows":
        return _Rows([self.tokens[row] for row in rows], self.labels[rows])


class Tuned(nn.Module):
    """A decoder and a linear head on [last; mean] of what leaves its last block, standardised.

    Args:
        layers: of the decoder, from its end, that are trained; 0: all, and the embedding. The head always is.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, decoder: Llama, layers: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.depth = len(decoder.blocks)
        if layers > self.depth:
            raise ConfigError(f"tune.layers must be at most {self.depth}, the layers of the model, was {layers}")
        width = 2 * decoder.embedding.embedding_dim
        self.head = nn.Linear(width, CLASSES)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        decoder.requires_grad_(layers == 0)
        for block in list(decoder.blocks)[self.depth - layers :] if layers else []:
            block.requires_grad_(True)

    def readings(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) filled up at their ends, (B,) -> (B, 2 W): as `models.engine.Engine.embed` reads them."""
        hidden = self.decoder.hidden(tokens, self.depth).float()  # (B, T, W)
        rows = torch.arange(len(tokens), device=tokens.device)
        kept = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, T)
        mean = hidden.masked_fill(~kept[..., None], 0.0).sum(dim=1) / lengths[:, None]  # (B, W)
        return torch.cat((hidden[rows, lengths - 1], mean), dim=1)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits of down, flat and up, (B, 3)."""
        logits: Tensor = self.head((self.readings(tokens, lengths) - self.mean) / self.scale)
        return logits


def tune(config: AdvisorTrainConfig, rows: Labelled, out: Path, *, resume: bool, quiet: bool) -> list[str]:
    """Tune the model, write it, and write its head with figures of the test part; returns lines for a person.

    In several processes the first one writes and speaks; the others return nothing.

    Raises:
        AdvisorError: there is no model, or it cannot be used.
        ConfigError: it is none that can be tuned, or something else is where it would be written.
        TrainingError: the loss is no longer a number.
    """
    path = Path(config.reading.model) if config.reading.model else installed_model()
    if path is None:
        raise AdvisorError("kind tune wants a language model: make setup-llm, or name reading.model")
    refuse_foreign(model_folder(out))
    fold, test = parted(rows.groups, config.test_fraction, config.folds, config.seed)
    with world(config.loop) as here:
        text = open_model(path, "fp32")
        if not isinstance(text.model, Llama):
            raise ConfigError(f"kind tune wants a model of the architecture llama, was {type(text.model).__name__}")
        told = _Rows([plain_tokens(text, one or ".") for one in rows.texts], rows.labels)
        torch.manual_seed(config.seed)
        model = Tuned(text.model, config.tune.layers).to(here.device)
        model.decoder.recompute_blocks = config.loop.activation_checkpointing
        parts = told.at(np.flatnonzero(fold > _VALIDATION)), told.at(np.flatnonzero(fold == _VALIDATION))
        _standardise(model, parts[0], config.loop.batch)
        job = Job(
            model=model,
            loss=partial(_loss, rows=parts[0], loop=config.loop, world=here),
            validate=partial(_mean_loss, rows=parts[1], batch=config.loop.batch, world=here),
            tokens=config.loop.batch * round(np.mean([len(tokens) for tokens in parts[0].tokens])),
            says={"model": text.digest, "tune": plain(config.tune), "rows": rows.digest(), "fold": fold.tolist()},
            unit="nats",
        )
        title = f"{config.name}: {sum(p.numel() for p in model.parameters() if p.requires_grad):,} numbers tuned"
        trained = fit(
            job,
            config.loop,
            config.optim,
            here,
            out,
            name=config.name,
            title=title,
            resume=resume,
            quiet=quiet,
            events=False,
        )
        if not here.first:
            return []
        write_folder(text, model.cpu().decoder, model_folder(out))
    head = Fitted(
        ngrams=np.zeros((_NO_NGRAMS.buckets, CLASSES)),
        bias=_array(model.head.bias),
        dense=_array(model.head.weight.t()),
        mean=_array(model.mean),
        scale=_array(model.scale),
    )
    lines = _judged(config, rows, fold, test, head, model.depth, out)
    (work_folder(out) / STATE).unlink(missing_ok=True)  # there is nothing left to resume
    stop = "stopped early after" if trained.stopped_early else "went on to the last,"
    return [title, f"best at step {trained.best_step:,}; {stop} {trained.steps:,}", *lines]


def model_folder(out: Path) -> Path:
    """Where the tuned weights lie: beside the checkpoint of the head, which has a format."""
    return out.with_name(f"{out.name}-model")


@torch.no_grad()
def _standardise(model: Tuned, rows: _Rows, batch: int) -> None:
    """Take mean and deviation of the readings before the tuning; they stay as they are then."""
    some = rows.at(np.arange(min(_STANDARDISED_ON, len(rows.labels))))
    read = torch.cat([model.readings(*part[:2]) for part in _batches(some, batch, model.mean.device)])
    model.mean.copy_(read.mean(dim=0))
    model.scale.copy_(read.std(dim=0, correction=0).clamp_min(_LEAST_SCALE))


def _loss(model: nn.Module, step: int, part: int, *, rows: _Rows, loop: LoopConfig, world: World) -> Tensor:
    """This process's share of the mean loss of a batch. Every row comes once an epoch, in an order of its own."""
    count = len(rows.labels)
    places = range((step - 1) * loop.batch, step * loop.batch)
    epochs = range(places[0] // count, places[-1] // count + 1)
    orders = {epoch: np.random.default_rng([loop.seed, epoch]).permutation(count) for epoch in epochs}
    drawn = np.array([orders[place // count][place % count] for place in places])
    mine = rows.at(drawn[part * world.size + world.rank :: loop.accumulate * world.size])
    total = sum(_cross_entropy(model, *batch) for batch in _batches(mine, loop.batch, world.device))
    assert isinstance(total, Tensor)  # a batch has a row for every part
    return total / loop.batch


def _mean_loss(model: nn.Module, *, rows: _Rows, batch: int, world: World) -> float:
    """Mean loss over rows, nats, shared out over the processes."""
    mine = rows.at(np.arange(world.rank, len(rows.labels), world.size))
    total = sum(float(_cross_entropy(model, *part)) for part in _batches(mine, batch, world.device))
    (summed,) = world.total([total])
    return summed / len(rows.labels)


def _cross_entropy(model: nn.Module, tokens: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
    """Summed, in fp32 whatever the model computes in."""
    return functional.cross_entropy(model(tokens, lengths).float(), labels, reduction="sum")


def _batches(rows: _Rows, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Tokens (B, T) filled up at their ends, lengths (B,) and classes (B,), of like lengths together."""
    order = sorted(range(len(rows.labels)), key=lambda row: len(rows.tokens[row]))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        lengths = torch.tensor([len(rows.tokens[row]) for row in part])
        tokens = torch.zeros(len(part), int(lengths.max()), dtype=torch.int64)
        for place, row in enumerate(part):
            tokens[place, : len(rows.tokens[row])] = torch.tensor(rows.tokens[row])
        yield tokens.to(device), lengths.to(device), torch.from_numpy(rows.labels[part]).to(device)


def _judged(
    config: AdvisorTrainConfig, rows: Labelled, fold: Ints, test: Ints, head: Fitted, depth: int, out: Path
) -> list[str]:
    """Read the model that was written, calibrate its head on the validation fold, judge it, and write it."""
    reader = Reader(model_folder(out))

    def logits(texts: Sequence[str], of: Fitted) -> Floats:
        told = [text or "." for text in texts]
        read = [
            reader.read(told[start : start + config.reading.batch], depth)
            for start in range(0, len(told), config.reading.batch)
        ]
        return of.logits(Design(ngram_matrix(told, _NO_NGRAMS), np.concatenate(read).astype(np.float64)))

    chosen_on = rows.at(np.flatnonzero(fold == _VALIDATION))
    seen = logits(chosen_on.texts, head)
    by = calibration(seen, chosen_on.labels, offsets=config.offsets)
    threshold = threshold_of(chances(by.of(seen)), chosen_on.labels, config.precision, config.emitted_min)
    head = head.calibrated(by)
    judged = {"test": rows.at(test)}
    if config.elsewhere:
        judged["elsewhere"] = load_sentences(config.elsewhere, config.alike)
    found: dict[str, dict[str, Any]] = {}
    for name, part in judged.items():
        found |= figures(chances(logits(part.texts, head)), part, threshold, config.seed, name)
    made = HeadConfig(
        advisor="gpt",
        threshold=threshold,
        ngrams=_NO_NGRAMS,
        reading=Reading(model=reader.name, digest=reader.digest, layer=depth, share=1.0),
    )
    digest = write_head(out, config, made, head, rows.at(np.flatnonzero(fold >= 0)), found, tried=1)
    return [
        f"temperature {by.temperature:.2f}, threshold {threshold:.3f}",
        *lines_of(found),
        f"checkpoint: {out} ({digest[:12]}), over the model at {model_folder(out)}",
    ]


def _array(tensor: Tensor) -> Floats:
    return tensor.detach().cpu().double().numpy()
