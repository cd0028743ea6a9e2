"""The loop that moves weights: for any model, on one process or many, and the same after a kill as without one.

Everything random in an update follows from (seed, step, part, process), so a run that was killed goes on from its state
file with the same batches, the same dropout and the same losses.
"""

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from configs.load import ConfigError
from trainer import state
from trainer.config import LoopConfig, OptimConfig
from trainer.errors import TrainingError
from trainer.logs import UNITS, Log, Told
from trainer.optim import Optimizers, schedule
from trainer.world import World

STATE = "state.safetensors"

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is trained, and on what.

    Attributes:
        loss: of the model, the step and the part (0 to accumulate - 1): this process's share of the batch's mean loss.
            The shares of all parts and processes add up to the mean. It must depend on nothing else.
        validate: the mean loss over the validation data, the same in every process; less is better.
        tokens: how many a whole batch holds.
        says: what the run depends on besides loop and optim, as JSON values; a state of another is refused.
        unit: in which losses are told to a person, of `trainer.logs.UNITS`; they are computed in nats.
    """

    model: nn.Module
    loss: Callable[[nn.Module, int, int], Tensor]
    validate: Callable[[nn.Module], float]
    tokens: int
    says: dict[str, Any] = field(default_factory=dict)
    unit: str = "bits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The weights that did best in validation, now in the model."""

    best_step: int
    best_loss: float  # of the validation, nats
    steps: int  # that were taken
    stopped_early: bool


@dataclass(slots=True)
class _Counters:
    """What a run is at, besides its tensors. All of it goes into the state file."""

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    worse: int = 0  # validations since the best one
    loss_sum: float = 0.0  # since the last row of the log
    loss_count: int = 0


def train(
    job: Job,
    loop: LoopConfig,
    optim: OptimConfig,
    world: World,
    folder: Path,
    told: Told,
    *,
    resume: bool,
    events: bool,
) -> Trained:
    """Train until the steps are done or validation stops improving; the best weights are in the model afterwards.

    Args:
        folder: for log.csv and the state file; only the first process writes.
        told: hears of every step.
        resume: go on from the state in `folder`; from the beginning where there is none.
        events: also write TensorBoard events.

    Raises:
        ConfigError: the state in `folder` is of another run.
        TrainingError: the loss or its gradient is no longer a number, or the state cannot be written.
    """
    run = _Run(job, loop, optim, world, folder)
    if resume:
        run.restore()
    world.wait()  # nobody may write a state before everybody has read it
    with _log(folder, run.at.step, world, tensorboard=events) as log:
        return run.go(log, told)


class _Run:
    """One training, from its first step or from where a state left it."""

    def __init__(self, job: Job, loop: LoopConfig, optim: OptimConfig, world: World, folder: Path) -> None:
        self.at = _Counters()
        self._job, self._loop, self._optim, self._world, self._folder = job, loop, optim, world, folder
        self._model = job.model.to(world.device)
        self._optimizers = Optimizers(self._model, optim)
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=loop.precision == "fp16")
        self._best = self._copy()
        self._shared: DistributedDataParallel | None = None
        if world.size > 1:
            devices = [world.device] if world.device.type == "cuda" else None
            self._shared = DistributedDataParallel(self._model, device_ids=devices)
        trained: nn.Module = self._shared or self._model
        self._trained: nn.Module = torch.compile(trained) if loop.compile else trained  # type: ignore[assignment]
        says = {"loop": _plain(loop), "optim": _plain(optim), "world": world.size, **job.says}
        self._fingerprint = hashlib.sha256(json.dumps(says, sort_keys=True).encode()).hexdigest()

    def go(self, log: Log | None, told: Told) -> Trained:
        loop, at = self._loop, self.at
        while at.step < loop.steps and not self._done():
            at.step += 1
            loss, norm, rate = self._update()
            at.loss_sum, at.loss_count = at.loss_sum + loss, at.loss_count + 1
            row: dict[str, float] = {}
            if at.step % loop.log_every_steps == 0 or at.step == loop.steps:
                row = {"loss": at.loss_sum / at.loss_count, "lr": rate, "grad_norm": norm}
                at.loss_sum, at.loss_count = 0.0, 0
            words = ""
            if at.step % loop.eval_every_steps == 0 or at.step == loop.steps:
                row["validation_loss"] = self._judge()
                words = self._told(row["validation_loss"])
            if log is not None and row:
                log.row(at.step, at.step * self._job.tokens, **row)
            told(at.step, words)
            if loop.save_every_steps and at.step % loop.save_every_steps == 0:
                self._save()
        self._model.load_state_dict(self._best)
        return Trained(
            best_step=at.best_step,
            best_loss=at.best_loss,
            steps=at.step,
            stopped_early=at.step < loop.steps,
        )

    def restore(self) -> None:
        """Put everything where the state file left it."""
        path = self._folder / STATE
        found = state.read(path)
        if found is None:
            return
        counters = found.counters
        if counters["fingerprint"] != self._fingerprint:
            raise ConfigError(
                f"{path} is of a run with other data, processes or settings: train anew without --resume, or elsewhere"
            )
        self.at = _Counters(**counters["at"])
        if counters["best_loss"] is not None:
            self.at.best_loss = counters["best_loss"]
        self._model.load_state_dict(found.tensors("model"))
        self._best = found.tensors("best")
        self._optimizers.restore(found.tensors("optim"))
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(counters["scaler"])

    def _save(self) -> None:
        if not self._world.first:
            return
        # JSON has no infinity: a best loss is written where there is one.
        at = {name: getattr(self.at, name) for name in _Counters.__dataclass_fields__ if name != "best_loss"}
        best = self.at.best_loss if math.isfinite(self.at.best_loss) else None
        counters = {"fingerprint": self._fingerprint, "at": at, "best_loss": best, "scaler": self._scaler.state_dict()}
        state.save(
            self._folder / STATE,
            counters,
            model=self._model.state_dict(),
            best=self._best,
            optim=self._optimizers.tensors(),
        )

    def _done(self) -> bool:
        return self._loop.patience > 0 and self.at.worse >= self._loop.patience

    def _update(self) -> tuple[float, float, float]:
        """One step of the optimisers: the batch's mean loss, the gradient's norm before clipping, the learning rate."""
        loop, world, step = self._loop, self._world, self.at.step
        rate = self._optimizers.set_rate(schedule(step, loop.steps, self._optim))
        self._trained.train()
        self._optimizers.zero_grad()
        total = 0.0
        for part in range(loop.accumulate):
            torch.manual_seed(_seed(loop.seed, step, part, world.rank))  # of dropout
            with self._sync(part), self._precision():
                loss = self._job.loss(self._trained, step, part)
                total += float(loss.detach())
                # DDP averages gradients over processes; shares of a mean are to be added.
                self._scaler.scale(loss * world.size).backward()  # type: ignore[no-untyped-call]
        (mean,) = world.total([total])
        if not math.isfinite(mean):
            raise TrainingError(f"the loss at step {step} is {mean}: want a smaller optim.lr, or another precision")
        for optimizer in self._optimizers.all:
            self._scaler.unscale_(optimizer)
        norm = float(nn.utils.clip_grad_norm_(self._model.parameters(), self._optim.clip, foreach=False))
        if math.isfinite(norm):
            for optimizer in self._optimizers.all:
                self._scaler.step(optimizer)
        elif not self._scaler.is_enabled():
            raise TrainingError(f"the gradient at step {step} is {norm}: want a smaller optim.lr, or another precision")
        self._scaler.update()  # fp16 overflowed: no part of the model moves, and the scale becomes smaller
        return mean, norm, rate

    def _judge(self) -> float:
        """Validate; remember the weights where none were better."""
        self._model.eval()
        with torch.inference_mode(), self._precision():
            loss = self._job.validate(self._model)
        if loss < self.at.best_loss:
            self.at.best_loss, self.at.best_step, self.at.worse = loss, self.at.step, 0
            self._best = self._copy()
        else:
            self.at.worse += 1
        return loss

    def _copy(self) -> dict[str, Tensor]:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._model.state_dict().items()}

    def _told(self, loss: float) -> str:
        unit = self._job.unit
        return f"validation {loss / UNITS[unit]:.4f} {unit}, best {self.at.best_loss / UNITS[unit]:.4f}"

    def _precision(self) -> AbstractContextManager[Any]:
        kind = _TYPES.get(self._loop.precision)
        return nullcontext() if kind is None else torch.autocast(self._world.device.type, kind)

    def _sync(self, part: int) -> AbstractContextManager[Any]:
        """Gradients travel between processes once an update, with the last part."""
        if self._shared is None or part == self._loop.accumulate - 1:
            return nullcontext()
        return self._shared.no_sync()


def _log(folder: Path, step: int, world: World, *, tensorboard: bool) -> AbstractContextManager[Log | None]:
    return Log(folder, step, tensorboard=tensorboard) if world.first else nullcontext()


def _seed(*parts: int) -> int:
    """A number that nearby parts do not share."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def _plain(config: LoopConfig | OptimConfig) -> dict[str, Any]:
    """What the losses depend on. How often one saves is not part of it."""
    names = [name for name in config.__dataclass_fields__ if name != "save_every_steps"]
    return {name: getattr(config, name) for name in names}
