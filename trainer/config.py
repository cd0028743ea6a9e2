"""What a training run is made of: data, split, tokenizer, model, optimiser, loop. TOML files are in configs/train/."""

import math
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import PurePath

from feeds.files import Source
from models.fingpt_config import FinGPTConfig
from tokenizer.codec import TokenizerConfig

_PRECISIONS = ("fp32", "bf16", "fp16")
_OPTIMIZERS = ("adamw", "muon")


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, was {value}")


def _natural(**values: int) -> None:
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must be 0 or more, was {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitConfig:
    """Calendar times that part training, validation and test, the same for every symbol. Naive UTC, of bar closes.

    [start, end) is the training window that the checkpoint remembers: validation lies at its end, because it chose
    the weights. Test bars come after it and an embargo.
    """

    start: datetime | None = None  # none: from the first bar
    validation_start: datetime | None = None  # none: validation_fraction of the window's time, at its end
    validation_fraction: float = 0.1
    end: datetime | None = None  # none: up to the last bar, and nothing is left for a test
    test_start: datetime | None = None  # none: as soon as the embargo allows
    test_end: datetime | None = None  # none: up to the last bar
    purge_bars: int = 1  # at least the horizon: one bar for next-token training
    embargo_bars: int = 256  # at least the model's context

    def __post_init__(self) -> None:
        if not 0.0 < self.validation_fraction < 1.0:
            raise ValueError(f"validation_fraction must lie in (0, 1), was {self.validation_fraction}")
        _natural(embargo_bars=self.embargo_bars)
        _positive(purge_bars=self.purge_bars)
        names = ("start", "validation_start", "end", "test_start", "test_end")
        given = [(name, when) for name in names if (when := getattr(self, name)) is not None]
        for name, when in given:
            if when.tzinfo is not None:
                raise ValueError(f"{name} must be UTC without an offset, was {when}")
        for (name, when), (after, later) in pairwise(given):
            if later < when or (later == when and (name, after) != ("end", "test_start")):
                raise ValueError(f"{after} must come after {name} ({when}), was {later}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """How weights move."""

    optimizer: str = "adamw"  # adamw; muon: for the blocks' matrices, with adamw for the rest
    lr: float = 1e-3  # at the peak, of AdamW
    muon_lr: float = 1e-3  # at the peak, scaled so that an update is as large as AdamW's would be
    lr_floor: float = 0.1  # of the peak, at the end of the cosine
    warmup_steps: int = 100
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1  # of matrices
    clip: float = 1.0  # largest norm of the whole gradient

    def __post_init__(self) -> None:
        if self.optimizer not in _OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(_OPTIMIZERS)}, was {self.optimizer!r}")
        _positive(lr=self.lr, muon_lr=self.muon_lr, clip=self.clip)
        _natural(warmup_steps=self.warmup_steps)
        if not 0.0 <= self.lr_floor <= 1.0:
            raise ValueError(f"lr_floor must lie in [0, 1], was {self.lr_floor}")
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), was {getattr(self, name)}")
        if not 0.0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be 0 or more, was {self.weight_decay}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """How long, on what, and how often one looks."""

    steps: int = 2_000  # updates of the weights, at most
    batch: int = 32  # windows an update, over all processes and accumulated parts
    accumulate: int = 1  # parts that a batch is computed in
    eval_every_steps: int = 100
    patience: int = 5  # validations without a better one before it stops; 0: never stops early
    save_every_steps: int = 500  # the state to resume from; 0: never
    log_every_steps: int = 10
    precision: str = "fp32"  # fp32, bf16, fp16: of the forward pass; weights stay fp32
    activation_checkpointing: bool = False  # compute activations twice rather than keep them
    compile: bool = False  # torch.compile; the same machine then need not give the same bits
    device: str = "cpu"  # cpu, cuda, or auto: cuda where there is one
    threads: int = 0  # of the processor; 0: as many as torch would take
    seed: int = 0

    def __post_init__(self) -> None:
        _positive(
            steps=self.steps,
            batch=self.batch,
            accumulate=self.accumulate,
            eval_every_steps=self.eval_every_steps,
            log_every_steps=self.log_every_steps,
        )
        _natural(patience=self.patience, save_every_steps=self.save_every_steps, threads=self.threads, seed=self.seed)
        if self.batch % self.accumulate:
            raise ValueError(f"batch must be a multiple of accumulate ({self.accumulate}), was {self.batch}")
        if self.precision not in _PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(_PRECISIONS)}, was {self.precision!r}")
        if self.device not in ("cpu", "cuda", "auto"):
            raise ValueError(f"device must be cpu, cuda or auto, was {self.device!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFit:
    """How the tokenizer of this run is made."""

    checkpoint: str = ""  # a folder: take this tokenizer as it is; "": fit one on the training bars
    steps: int = 3_000
    seed: int = 0

    def __post_init__(self) -> None:
        _positive(steps=self.steps)
        _natural(seed=self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One run of `python -m trainer`."""

    name: str = "training"
    out: str = ""  # folder of the checkpoint; "": runs/<name>
    shipped: str = ""  # a checkpoint to compare with, replaced by --update alone
    licence: str = "Not stated."  # of the data; goes into the manifest
    sample: str = "Not stated."  # how the settings were chosen; goes into the manifest
    trials: int = 1  # settings tried on the validation bars, this one included; goes into the manifest
    feeds: tuple[Source, ...] = ()  # bars of one length
    split: SplitConfig = field(default_factory=SplitConfig)
    fit: TokenizerFit = field(default_factory=TokenizerFit)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    model: FinGPTConfig = field(default_factory=FinGPTConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    informed: bool = True  # embeddings start from what codes and hours mean; false: from noise
    folds: int = 0  # walk-forward: so many test periods, each with its own tokenizer and model; 0: one split
    tensorboard: bool = False  # event files beside the CSV; wants the extra "train"

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"name must be a word without '/', was {self.name!r}")
        if PurePath(self.folder).name in ("", ".."):  # what else a run leaves is named after it
            raise ValueError(f"out must end with a name of its own, was {self.out!r}")
        _positive(trials=self.trials)
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"folds must be 0 or at least 2, was {self.folds}")
        if self.split.embargo_bars < self.model.context:
            raise ValueError(
                f"split.embargo_bars must be at least the context ({self.model.context}), was {self.split.embargo_bars}"
            )
        if self.loop.steps <= self.optim.warmup_steps:
            raise ValueError(
                f"loop.steps must be more than optim.warmup_steps ({self.optim.warmup_steps}), was {self.loop.steps}"
            )

    @property
    def folder(self) -> str:
        return self.out or f"runs/{self.name}"
