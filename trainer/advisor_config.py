"""What the training of an advisor's head is made of. TOML files are in configs/train/."""

import math
from dataclasses import dataclass, field
from datetime import datetime

from models.advisor.advice import LEARNT_UNKNOWN, moment
from models.advisor.ngrams import NgramConfig
from trainer.config import LoopConfig, OptimConfig

_KINDS = ("head", "gpt", "tune")
_DTYPES = ("fp32", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingConfig:
    """Which readings of a language model are tried. Of kind tune, the model is read, the batch and the day."""

    model: str = ""  # a GGUF file or a safetensors folder; "": the one that is installed
    learnt_until: str = ""  # day on which the model's training data end, at the latest, ISO 8601, UTC; "": nobody says
    layers: tuple[str, ...] = ("10", "15", "20", "25")  # after which the hidden states are taken
    shares: tuple[str, ...] = ("0.1", "0.2")  # of a standardised number, beside n-grams of length one
    dtype: str = "fp32"
    batch: int = 32  # headlines at once

    def __post_init__(self) -> None:
        if not self.layers or not all(layer.isdigit() and int(layer) >= 1 for layer in self.layers):
            raise ValueError(f"layers must be whole numbers from 1, were {self.layers}")
        try:
            shares = [float(share) for share in self.shares]
        except ValueError:
            shares = []
        if not shares or not all(0.0 < share < 1e3 for share in shares):
            raise ValueError(f"shares must be numbers in (0, 1000), were {self.shares}")
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, was {self.dtype!r}")
        if not 1 <= self.batch <= 1024:
            raise ValueError(f"batch must lie in [1, 1024], was {self.batch}")
        moment(self.learnt_until)


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneConfig:
    """What of a language model is tuned. Read for kind tune alone."""

    layers: int = 0  # from its end; 0: all of it, the embedding as well

    def __post_init__(self) -> None:
        if not 0 <= self.layers <= 1_000:
            raise ValueError(f"layers must lie in [0, 1000], was {self.layers}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisorTrainConfig:
    """Labelled headlines, how they are parted, and what is tried on them."""

    name: str = "advisor-head"
    kind: str = "head"  # head: n-grams alone; gpt: with a language model's reading; tune: that model itself
    data: str = ""  # CSV with the columns text and label: 0 down, 1 up, 2 neither; .gz is read as well
    elsewhere: str = ""  # lines of text@label to judge on, never to train on; "": none
    out: str = ""  # "": runs/NAME
    shipped: str = ""  # the checkpoint that the result is compared with; "": none
    licence: str = ""  # of the data
    learnt_until: str = ""  # day on which the rows end, at the latest, ISO 8601, UTC; "": nobody says
    tried_before: int = 0  # settings tried on these rows before this run: they count as trials as well
    test_fraction: float = 0.2  # of the groups, which nothing is chosen on
    folds: int = 5  # of the rest, to choose by
    alike: float = 0.6  # Jaccard likeness of two rows, numbers and tickers apart, from which they are one group
    strength_min: float = 1.0  # of the fit: the larger, the less it is held back
    strength_max: float = 30.0
    strengths: int = 4  # between them, evenly in logarithm
    offsets: bool = False  # calibrate with an offset for each class beside the temperature
    precision: float = 0.9  # of what is emitted, that the threshold is chosen for
    emitted_min: float = 0.02  # share below which no threshold is believed
    steps: int = 60  # of the solver, at most
    seed: int = 0
    ngrams: NgramConfig = field(default_factory=NgramConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    tune: TuneConfig = field(default_factory=TuneConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)  # of kind tune
    loop: LoopConfig = field(default_factory=LoopConfig)  # of kind tune

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"name must be the name of a folder, was {self.name!r}")
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, was {self.kind!r}")
        for name in ("test_fraction", "precision", "emitted_min"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in (0, 1), was {getattr(self, name)}")
        if not 0.0 < self.alike <= 1.0:
            raise ValueError(f"alike must lie in (0, 1], was {self.alike}")
        if not 0.0 < self.strength_min <= self.strength_max < math.inf:
            raise ValueError(f"want 0 < strength_min <= strength_max, was {self.strength_min}, {self.strength_max}")
        moment(self.learnt_until)
        ranges = (("folds", 2, 20), ("strengths", 1, 20), ("steps", 1, 10_000), ("seed", 0, 2**63))
        for name, low, high in (*ranges, ("tried_before", 0, 1_000_000)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie in [{low}, {high}], was {getattr(self, name)}")

    @property
    def end(self) -> datetime | None:
        """The latest moment, naive UTC, of which the result can know anything; None: nobody says."""
        told = [self.learnt_until] if self.kind == "head" else [self.learnt_until, self.reading.learnt_until]
        latest = max(moment(one) for one in told)
        return None if latest == LEARNT_UNKNOWN else latest

    @property
    def folder(self) -> str:
        return self.out or f"runs/{self.name}"
