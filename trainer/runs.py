"""What the trainings of models share: where a run leaves its files, how a batch is judged, the loop with progress."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from configs.outputs import check_writable
from models.checkpoint import MANIFEST
from trainer.config import LoopConfig, OptimConfig
from trainer.logs import LOG, draw, progress, read_log
from trainer.loop import Job, Trained, train
from trainer.windows import IGNORED, Batch, Windows
from trainer.world import World

Forward = Callable[[nn.Module, Batch], Tensor]  # logits (B, T, V) of a batch


def work_folder(out: Path) -> Path:
    """Where logs, curves, the tokenizer and the state to resume from lie: beside the checkpoint, which has a format."""
    return out.with_name(f"{out.name}-training")


def check_outputs(out: Path) -> None:
    """Refuse places where a checkpoint or its log cannot be written.

    Raises:
        OSError: as writing would.
    """
    check_writable(out / MANIFEST)
    check_writable(work_folder(out) / LOG)


def batch_loss(
    model: nn.Module, step: int, part: int, *, windows: Windows, loop: LoopConfig, world: World, forward: Forward
) -> Tensor:
    """This process's share of the mean loss of a batch, which is drawn whole everywhere and then shared out."""
    drawn = windows.draw(np.random.default_rng([loop.seed, step]), loop.batch)
    judged = sum(last - first for _, first, last in drawn)
    shares = loop.accumulate * world.size
    batch = windows.drawn(drawn[part * world.size + world.rank :: shares]).to(world.device)
    return cross_entropy(model, batch, forward) / judged


def mean_loss(model: nn.Module, *, batches: Callable[[], Iterable[Batch]], world: World, forward: Forward) -> float:
    """Mean loss over the judged tokens of all batches, nats; each process brings its own batches."""
    total, count = 0.0, 0
    for batch in batches():
        total += float(cross_entropy(model, batch.to(world.device), forward))
        count += int((batch.targets != IGNORED).sum())
    total, judged = world.total([total, float(count)])
    return total / judged


def cross_entropy(model: nn.Module, batch: Batch, forward: Forward) -> Tensor:
    """Sum over the judged positions, nats, in fp32 whatever the model computes in."""
    logits = forward(model, batch).float()  # (B, T, V)
    targets = batch.targets.reshape(-1)  # (B * T,)
    return functional.cross_entropy(logits.view(len(targets), -1), targets, ignore_index=IGNORED, reduction="sum")


def fit(
    job: Job,
    loop: LoopConfig,
    optim: OptimConfig,
    world: World,
    out: Path,
    *,
    name: str,
    title: str,
    resume: bool,
    quiet: bool,
    events: bool,
) -> Trained:
    """Train as `trainer.loop.train`, with progress for a person, and draw the curves.

    Args:
        out: the checkpoint that is to be; the run's files go into `work_folder(out)`.
        name: of the run, before its progress.
        title: of the curves.
    """
    work = work_folder(out)
    with progress(name, loop.steps, quiet=quiet or not world.first) as told:
        trained = train(job, loop, optim, world, work, told, resume=resume, events=events and world.first)
    if world.first:
        draw(read_log(work / LOG), work / "curves.png", title, unit=job.unit)
    return trained
